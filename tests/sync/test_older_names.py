"""Accounts that an older version named for a Borrow or a Transfer of nothing: complete logs drop them, nothing else does."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer.model import Event, PositionKey
from indexer.schema import migrations
from indexer.store.store import Store
from protocols.compound_v2.adapter import ACCOUNT_WORDS, TRANSFER, CompoundV2
from protocols.compound_v2.market import CompoundV2Market
from tests.devnet import compound_v2
from tests.devnet.compound_v2 import CompoundV2 as Devnet
from tests.devnet.node import Anvil
from tests.faulty import FaultyNode
from tests.truth import raw, sync_once, wrong_rows


@pytest.fixture(scope="module")
def market(needs_node: None) -> Iterator[Devnet]:
    with Anvil() as node:
        node.place_multicall3()
        market = compound_v2.deploy(node)
        market.populate(2, 16)
        yield market


def touched_before(self: CompoundV2, market: CompoundV2Market, event: Event) -> Iterable[PositionKey]:
    """As the first version had it: a Borrow or a Transfer of nothing names its account too."""
    accounts = [event.word_address(i) for i in ACCOUNT_WORDS.get(event.topic0, ())]
    if event.topic0 == TRANSFER:
        accounts = [event.topic_address(1), event.topic_address(2)]
    if event.address == self.comptroller:
        accounts = [event.word_address(1)]
    return [PositionKey(account) for account in accounts if account not in (None, event.address)]


@pytest.fixture(params=["borrowers", "all"])
def accounts(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def older(market: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accounts: str) -> Path:
    """A file that the first version wrote, brought to this version's schema when it is opened next."""
    path = tmp_path / "older.db"
    with monkeypatch.context() as patch:
        patch.setattr(CompoundV2, "touched", touched_before)
        sync_once(path, market.node.url, [market], accounts)
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("drop table doubted")
        conn.execute(f"delete from {migrations.TABLE} where name = '0028_doubted'")
    return path


@pytest.fixture
def fresh(market: Devnet, tmp_path: Path, accounts: str) -> set[tuple[str, str]]:
    path = tmp_path / "fresh.db"
    sync_once(path, market.node.url, [market], accounts)
    return known(path)


def known(path: Path) -> set[tuple[str, str]]:
    return set(raw(path, "select account, position_group from positions"))


def doubted(path: Path) -> set[tuple[str, str]]:
    return set(raw(path, "select account, position_group from doubted"))


def test_whom_complete_logs_never_name_is_dropped(
    market: Devnet, older: Path, fresh: set[tuple[str, str]], accounts: str
) -> None:
    invented = known(older) - fresh
    assert invented, "the older version named somebody without cause"
    with Store(older):
        pass
    assert known(older) == invented | fresh, "the migration only marks"
    assert invented < doubted(older), "and also some who had debt and repaid it"
    sync_once(older, market.node.url, [market], accounts)
    assert known(older) == fresh
    assert wrong_rows(older, market.node, [market])[1] == []
    assert doubted(older) == set()
    ((detail,),) = raw(older, "select detail from audits where kind = 'never-borrowed'")
    assert {tuple(key) for key in json.loads(detail)["dropped"]} == invented
    sync_once(older, market.node.url, [market], accounts)
    assert len(raw(older, "select * from audits where kind = 'never-borrowed'")) == 1, "once"


def test_nobody_is_dropped_where_logs_are_missing(
    market: Devnet, older: Path, fresh: set[tuple[str, str]], accounts: str
) -> None:
    before = known(older)
    with FaultyNode(market.node.url, faults={"pruned-history": 1.0}) as node:
        node.history_from = market.node.block_number()
        sync_once(older, node.url, [market], accounts)
        assert node.injected["pruned-history"] > 0
    assert known(older) == before
    ((state, note),) = raw(older, "select state, note from deployments")
    assert state == "ok"
    assert f"{len(doubted(older))} accounts without debt may never have had any" in note
    sync_once(older, market.node.url, [market], accounts)
    assert known(older) == fresh
    assert raw(older, "select note from deployments") == [(None,)]


def test_whom_one_endpoint_leaves_out_another_keeps(
    market: Devnet, older: Path, fresh: set[tuple[str, str]], accounts: str
) -> None:
    with Store(older):
        pass
    repaid = doubted(older) & fresh
    assert repaid, "somebody had debt, and owes and holds nothing now"
    with FaultyNode(market.node.url) as node:
        node.omit_blocks = set(range(market.node.block_number()))
        sync_once(older, [node.url, market.node.url], [market], accounts)
        assert node.injected["omitted-logs"] > 0
    assert known(older) == fresh
