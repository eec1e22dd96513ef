"""No irreversible step on one answer: what is final stays until a second endpoint or the operator says otherwise."""

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from indexer.chain.client import Chain
from indexer.chain.heads import Heads
from indexer.cli.main import main
from indexer.errors import ReorgError, UnconfirmedError
from indexer.settings import Settings
from indexer.store import reorgs
from indexer.store.store import Store
from indexer.sync import follow as following
from indexer.sync.reorg import Canon
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil, Connections
from tests.devnet.scenario import config_toml
from tests.devnet.worlds import aave, alone
from tests.disturbed import QUICK, Forks
from tests.faulty import FaultyNode
from tests.sync.test_follow import Follower, eventually
from tests.truth import raw, sync_once, token_holders, wrong_aave_rows

#: everything that a wrong rollback would take, or mark
TABLES = (
    "positions balances markets snapshots states events registry contracts synced_ranges blocks finality recorded "
    "health_history accruals orphaned_history orphaned_accruals"
).split()


@pytest.fixture(scope="module")
def populated(needs_node: None) -> Iterator[AaveV3]:
    with alone(aave, 3, 12) as market:
        yield market


@pytest.fixture
def market(populated: AaveV3) -> Iterator[AaveV3]:
    with populated.rewound():
        yield populated


@pytest.fixture(scope="module")
def strangers(needs_node: None) -> Iterator[dict[str, Anvil]]:
    """Nodes of other chains: one under an id of its own, one that says it is ours."""
    with ExitStack() as stack:
        found = {"another id": Anvil(chain_id=99), "a fork": Anvil()}
        for node in found.values():
            stack.enter_context(node)
            node.mine(700, interval=7)
        yield found


def contents(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {table: sorted(raw(path, f"select * from {table}"), key=repr) for table in TABLES}


def history(path: Path, market: AaveV3) -> None:
    """A file with a past: three snapshots with something in between."""
    for seed in range(3):
        sync_once(path, market.node.url, [market])
        market.step(seed)
        market.node.mine(3, interval=3600)
    sync_once(path, market.node.url, [market])
    assert min(len(rows) for table, rows in contents(path).items() if table in ("health_history", "accruals")) > 10


def state(path: Path) -> tuple[str, str | None]:
    (found,) = raw(path, "select state, note from deployments")
    return found


def command(path: Path, market: AaveV3, urls: list[str], *arguments: str) -> Result:
    config = path.with_suffix(".toml")
    config.write_text(config_toml(CHAIN_ID, urls[0], [market]))
    endpoints = [part for url in urls for part in ("--rpc-url", url)]
    options = ["--config", str(config), "--db", str(path), "sync", "--chain", "devnet", "--accounts", "all"]
    return CliRunner().invoke(main, [*options, *endpoints, *arguments])


# a node that is another one for a while -------------------------------------------------------------------------------


def leads_to(proxy: FaultyNode, node: Anvil) -> None:
    before, proxy.backend = proxy.backend, Connections("127.0.0.1", node.port)
    before.close()


def becomes(stranger: Anvil) -> Callable[[FaultyNode], None]:
    def switch(backend: FaultyNode) -> None:
        leads_to(backend, stranger)

    return switch


def falls_behind(backend: FaultyNode) -> None:
    backend.lag, backend.faults = 90, {"lagging": 1.0}


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("another id", "serves chain id 99"),
        ("a fork", "needs a second endpoint that confirms it"),
        ("stale", "needs a second endpoint that confirms it"),
    ],
)
def test_a_tail_on_a_node_that_is_wrong_for_a_while_keeps_everything(
    market: AaveV3,
    strangers: dict[str, Anvil],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    told: str,
) -> None:
    monkeypatch.setattr(following, "BACKOFF_SECONDS", (0.05,))
    path, node = tmp_path / "tail.db", market.node
    history(path, market)
    node.mine(100)
    with FaultyNode(node.url) as backend:
        tail = Follower(path, backend.url, Heads([]), market, poll_seconds=0.05, behind_seconds=0.2)
        with closing(tail):
            assert tail.reaches(node.block_number())
            before = contents(path)
            (becomes(strangers[what]) if what in strangers else falls_behind)(backend)
            assert eventually(lambda: state(path)[0] == "failed")
            assert told in (state(path)[1] or "")
            requests = backend.requests
            assert eventually(lambda: backend.requests > requests + 10), "it keeps asking"
            assert contents(path) == before
            leads_to(backend, node)
            backend.faults = {}
            assert eventually(lambda: state(path)[0] == "ok")
            after = contents(path)
            assert {table: after[table] for table in ("health_history", "accruals")} == {
                table: before[table] for table in ("health_history", "accruals")
            }
            node.mine(1)
            assert tail.reaches(node.block_number())
    assert wrong_aave_rows(path, market, token_holders(market)) == []
    assert raw(path, "select count(*) from audits where kind = 'reorg'") == [(0,)]


@pytest.mark.parametrize("below", [0, 5])
def test_a_target_that_only_a_fork_had_for_a_moment_undoes_nothing(
    market: AaveV3, strangers: dict[str, Anvil], tmp_path: Path, below: int
) -> None:
    path = tmp_path / "moment.db"
    history(path, market)
    last = sync_once(path, market.node.url, [market]).block
    before = contents(path)
    with closing(Chain("devnet", CHAIN_ID, [strangers["a fork"].url], MULTICALL3)) as fork:
        target = fork.block(last.number - below)
    with (
        closing(Chain("devnet", CHAIN_ID, [market.node.url], MULTICALL3)) as chain,
        Store(path) as store,
        store.lock(),
    ):
        canon = Canon(store, chain, Settings(), [market.name], lambda _: [market.name])
        with pytest.raises(ReorgError):
            canon.heal(target)
    assert contents(path) == before


def test_one_sync_with_a_forked_node_changes_nothing_and_ends_with_1(
    market: AaveV3, strangers: dict[str, Anvil], tmp_path: Path
) -> None:
    path = tmp_path / "once.db"
    history(path, market)
    market.node.mine(100)
    sync_once(path, market.node.url, [market])
    before = contents(path)
    with FaultyNode(strangers["a fork"].url) as backend:
        result = command(path, market, [backend.url])
        assert result.exit_code == 1
        assert "--accept-reorg" in result.stderr
        assert state(path)[0] == "failed"
        assert contents(path) == before
    with FaultyNode(market.node.url) as second:  # two endpoints that contradict each other confirm nothing
        assert command(path, market, [strangers["a fork"].url, second.url]).exit_code == 1
    assert contents(path) == before
    sync_once(path, market.node.url, [market])
    assert state(path) == ("ok", None)


@pytest.mark.parametrize("confirmed", ["second endpoint", "operator"])
def test_a_confirmed_reorg_of_what_was_final_moves_the_history_away(
    market: AaveV3, tmp_path: Path, confirmed: str
) -> None:
    path, forks = tmp_path / "moved.db", Forks([market], random.Random(1))
    sync_once(path, market.node.url, [market])
    forks.mark()
    history(path, market)
    forks.other_blocks(70)
    sync_once(path, market.node.url, [market])
    before = contents(path)
    forks.take_back(100)
    with pytest.raises(UnconfirmedError):
        sync_once(path, market.node.url, [market])
    assert contents(path) == before
    if confirmed == "operator":
        result = command(path, market, [market.node.url], "--accept-reorg")
    else:
        with FaultyNode(market.node.url) as second:
            result = command(path, market, [market.node.url, second.url])
    assert result.exit_code == 0, result.output
    ((detail,),) = raw(path, "select detail from audits where kind = 'reorg'")
    assert json.loads(detail)["confirmed_by"] == confirmed
    ancestor, orphan = json.loads(detail)["ancestor"], json.loads(detail)["orphaned_hash"]
    for table, column in (("health_history", 4), ("accruals", 9)):
        gone = [row for row in before[table] if row[column] > ancestor]
        name = f"orphaned_{table.removeprefix('health_')}"
        columns = [row[1] for row in raw(path, f"pragma table_info({table})")]  # without block_time, which is computed
        kept = raw(path, f"select {', '.join(columns)} from {name}")
        assert sorted(kept, key=repr) == [row[: len(columns)] for row in gone] != []
        assert set(raw(path, f"select orphaned_from_hash from {name}")) == {(orphan,)}
        assert set(before[table]) - set(gone) <= set(contents(path)[table])
    assert wrong_aave_rows(path, market, token_holders(market)) == []
    forks.close()


def test_orphans_are_kept_thirty_days(market: AaveV3, tmp_path: Path) -> None:
    path, forks = tmp_path / "kept.db", Forks([market], random.Random(1))
    sync_once(path, market.node.url, [market])
    forks.mark()
    market.step(1)
    sync_once(path, market.node.url, [market])
    forks.take_back(3)
    sync_once(path, market.node.url, [market])
    kept = raw(path, "select count(*) from orphaned_history")
    assert kept > [(0,)]
    chain, clock = "(select max(block_timestamp) from deployments)", "unixepoch()"
    early, late = reorgs.KEPT_SECONDS - 3600, reorgs.KEPT_SECONDS + 3600
    for age, now, left in (
        (early, chain, kept),
        (late, clock, kept),
        (late, chain, [(0,)]),
    ):  # the chain's time is earlier
        with closing(sqlite3.connect(path)) as conn, conn:
            conn.execute(f"update orphaned_history set orphaned_at = {now} - ?", (age,))
        market.node.mine(1)
        sync_once(path, market.node.url, [market])
        assert raw(path, "select count(*) from orphaned_history") == left
    forks.close()


# an older block of the same chain -------------------------------------------------------------------------------------


def test_going_back_to_an_older_block_keeps_history_and_counts_nothing_twice(market: AaveV3, tmp_path: Path) -> None:
    back, straight, node = tmp_path / "back.db", tmp_path / "straight.db", market.node
    history(back, market)
    older = raw(back, "select distinct block_number from health_history order by 1 desc limit 2")[1][0]
    straight.write_bytes(back.read_bytes())
    written = {table: contents(back)[table] for table in ("health_history", "accruals")}
    for to in (str(older), "latest"):  # there, and back to where it was
        sync_once(back, node.url, [market], to=to)
        assert {table: contents(back)[table] for table in written} == written
    sync_once(back, node.url, [market], to=str(older))
    market.step(7)
    node.mine(1, interval=3600)
    for path in (back, straight):
        sync_once(path, node.url, [market])
        assert wrong_aave_rows(path, market, token_holders(market)) == []
    (head,) = raw(back, "select block_number from deployments")[0]
    told = "select account, supply_change_usd, debt_change_usd from health_history where block_number = {}"
    known = {row[0] for row in raw(straight, told.format(head)) if row[1] or row[2]}
    assert known
    unknown = {row[0] for row in raw(back, told.format(head)) if row[1] is None}
    assert known <= unknown, "what moved since a block that was left is unknown, and never told twice"
    here, there = ({tuple(row[:7]): row[7:] for row in contents(path)["accruals"]} for path in (back, straight))
    assert here.keys() == there.keys()
    interest, unmeasured = 6, 7
    for place, row in here.items():
        assert row[unmeasured] >= there[place][unmeasured]
        if row[unmeasured] == there[place][unmeasured]:
            assert row[interest] == there[place][interest], place


# what is final --------------------------------------------------------------------------------------------------------


def test_what_is_final_is_stored_with_the_commit(market: AaveV3, tmp_path: Path) -> None:
    path, node = tmp_path / "final.db", market.node
    node.mine(200)
    sync_once(path, node.url, [market])
    final = node.block("finalized")
    assert raw(path, "select block_number, block_hash from finality") == [(int(final["number"], 16), final["hash"])]
    assert raw(path, f"select count(*) from blocks where hash = '{final['hash']}'") == [(1,)]


class Mute(FaultyNode):
    """A node that does not say what is final, in one of the ways that nodes have."""

    word: str

    def forward(self, call: dict[str, Any]) -> dict[str, Any]:
        if "finalized" not in call["params"]:
            return super().forward(call)
        if self.word == "head":
            return super().forward({**call, "params": ["latest", False]})
        answer = {
            "null": {"result": None},
            "refused": {"error": {"code": -32602, "message": "invalid argument 0: hex string without 0x prefix"}},
            "not found": {"error": {"code": -39001, "message": "finalized block not found"}},
        }[self.word]
        return {"jsonrpc": "2.0", "id": call["id"], **answer}


@pytest.mark.parametrize("word", ["null", "refused", "not found", "head"])
def test_128_blocks_below_count_as_final_where_the_chain_does_not_say(
    market: AaveV3, tmp_path: Path, word: str
) -> None:
    path, node = tmp_path / "fallback.db", market.node
    node.mine(200)
    with Mute(node.url) as backend:
        backend.word = word
        sync_once(path, backend.url, [market], chain_options=QUICK)
    final = node.block(node.block_number() - 128)
    assert raw(path, "select block_number, block_hash from finality") == [(int(final["number"], 16), final["hash"])]
