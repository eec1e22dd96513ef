"""A sync against real contracts: every row equals the contract's answer, nobody is missing, requests stay few."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from indexer.chain.client import Chain
from indexer.errors import ChainError, StoreLockedError
from indexer.schema import migrations
from indexer.store.store import Store
from indexer.sync.verify import verify
from tests.devnet import aave_v3
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.truth import adapter_of, raw, rows_of, sync_once, token_holders, wrong_aave_rows, wrong_rows

ROOT = Path(__file__).parents[2]
USERS = 60


@pytest.fixture(scope="module", params=["3.0.2", "3.6"])
def market(request: pytest.FixtureRequest, needs_node: None) -> Iterator[aave_v3.AaveV3]:
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, request.param)
        market.populate(1, USERS)
        yield market


def check_contract(path: Path) -> None:
    script = ROOT.parent / "shared" / "check_contract.py"
    if script.exists():
        done = subprocess.run([sys.executable, script, path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_first_sync_equals_the_contract_for_every_user(market: aave_v3.AaveV3, tmp_path: Path) -> None:
    path = tmp_path / "all.db"
    sync_once(path, market.node.url, [market])
    assert wrong_aave_rows(path, market, token_holders(market)) == []
    check_contract(path)


def test_borrowers_are_exactly_those_who_ever_had_debt(market: aave_v3.AaveV3, tmp_path: Path) -> None:
    path = tmp_path / "borrowers.db"
    sync_once(path, market.node.url, [market], "borrowers")
    assert wrong_aave_rows(path, market, market.borrowers) == []


def test_later_syncs_equal_the_contract_inactive_users_included(market: aave_v3.AaveV3, tmp_path: Path) -> None:
    path, borrowers = tmp_path / "all.db", tmp_path / "borrowers.db"
    for seed in range(3):
        sync_once(path, market.node.url, [market])
        sync_once(borrowers, market.node.url, [market], "borrowers")
        market.step(seed)
        market.node.mine(1, interval=86_400)
    sync_once(path, market.node.url, [market])
    sync_once(borrowers, market.node.url, [market], "borrowers")
    assert wrong_aave_rows(path, market, token_holders(market)) == []
    assert wrong_aave_rows(borrowers, market, market.borrowers) == []


def test_switching_to_all_fills_only_the_hole(market: aave_v3.AaveV3, tmp_path: Path) -> None:
    path = tmp_path / "switch.db"
    few = sync_once(path, market.node.url, [market], "borrowers").logs
    more = sync_once(path, market.node.url, [market], "all").logs
    assert wrong_aave_rows(path, market, token_holders(market)) == []
    whole = sync_once(tmp_path / "all.db", market.node.url, [market], "all").logs
    assert 0 < few < whole
    assert more == whole - few


def test_a_refresh_without_activity_costs_the_same_for_few_and_for_all(market: aave_v3.AaveV3, tmp_path: Path) -> None:
    few, many = tmp_path / "few.db", tmp_path / "many.db"
    sync_once(few, market.node.url, [market], "borrowers")
    sync_once(many, market.node.url, [market], "all")
    market.node.mine(1)
    assert (
        sync_once(few, market.node.url, [market], "borrowers").requests
        == sync_once(many, market.node.url, [market], "all").requests
    )


def test_the_same_block_again_changes_nothing(market: aave_v3.AaveV3, tmp_path: Path) -> None:
    path = tmp_path / "same.db"
    sync_once(path, market.node.url, [market])
    before = rows_of(path, market.name)
    sync_once(path, market.node.url, [market])
    assert rows_of(path, market.name) == before


def test_an_older_block_can_be_asked_for_and_left_again(market: aave_v3.AaveV3, tmp_path: Path) -> None:
    path = tmp_path / "older.db"
    head = market.node.block_number()
    sync_once(path, market.node.url, [market])
    sync_once(path, market.node.url, [market], to=str(head - 20))
    assert raw(path, "select distinct block_number from positions") == [(head - 20,)]
    known = {account for account, _ in rows_of(path, market.name)}
    assert wrong_aave_rows(path, market, known) == []
    sync_once(path, market.node.url, [market])
    assert wrong_aave_rows(path, market, token_holders(market)) == []


def test_a_block_before_the_deployment_is_refused_and_changes_no_row(market: aave_v3.AaveV3, tmp_path: Path) -> None:
    path = tmp_path / "before.db"
    sync_once(path, market.node.url, [market])
    tables = "positions", "states", "events", "synced_ranges", "health_history"
    before = [raw(path, f"select * from {table}") for table in tables]
    with pytest.raises(ChainError, match="no contract at pool_addresses_provider"):
        sync_once(path, market.node.url, [market], to="0")
    assert [raw(path, f"select * from {table}") for table in tables] == before


def test_a_second_sync_on_one_file_leaves(tmp_path: Path) -> None:
    with (
        Store(tmp_path / "one.db") as first,
        first.lock(),
        Store(tmp_path / "one.db") as second,
        pytest.raises(StoreLockedError, match="another sync"),
        second.lock(),
    ):
        pass


def test_whoever_opens_a_new_file_while_another_makes_its_tables_waits(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    opened: list[int] = []

    def open_too() -> None:
        with Store(path) as store:
            opened.append(len(migrations.applied(store.conn)))

    with closing(sqlite3.connect(path, isolation_level=None)) as first:
        first.execute("pragma journal_mode=wal")
        first.execute("begin immediate")
        second = Thread(target=open_too)
        second.start()
        second.join(0.5)
        migrations.apply(first)
        first.execute("commit")
        second.join(30)
        assert opened == [len(migrations.applied(first))]


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("update positions set block_hash = '0x' || hex(zeroblob(32)) where account = (select min(account) from positions)", "block"),
        ("delete from positions where account = (select min(account) from positions)", "row"),
        ("update balances set market = owner, asset = owner from (select '0x' || hex(zeroblob(20)) as owner) "
         "where amount_raw = (select min(amount_raw) from balances)", "amount_raw"),
        ("update positions set health_factor_raw = health_factor_raw || '0' where health_factor_raw is not null", "health_factor_raw"),
    ],
)  # fmt: skip
def test_verify_finds_a_tampered_file(market: aave_v3.AaveV3, tmp_path: Path, statement: str, what: str) -> None:
    path = tmp_path / "tampered.db"
    sync_once(path, market.node.url, [market], "borrowers")
    checked, wrong = wrong_rows(path, market.node, [market])
    assert (checked, wrong) == (len(market.borrowers), [])
    with sqlite3.connect(path) as conn:
        conn.execute(statement)
    conn.close()
    with Store(path) as store, Chain("devnet", CHAIN_ID, [market.node.url], MULTICALL3) as chain:
        (verdict,) = verify(store, chain, [adapter_of(market)])
    assert any(mismatch.what.startswith(what) for mismatch in verdict.mismatches)


def test_verify_finds_values_where_the_contract_has_none(market: aave_v3.AaveV3, tmp_path: Path) -> None:
    path = tmp_path / "no-price.db"
    with market.rewound():
        market.set_price("WBTC", 0)
        sync_once(path, market.node.url, [market], "borrowers")
        assert wrong_rows(path, market.node, [market]) == (len(market.borrowers), [])
        with closing(sqlite3.connect(path)) as conn, conn:
            without = conn.execute("select count(*) from positions where status = 'unpriceable'").fetchone()[0]
            conn.execute("update positions set debt_value_raw = '7', status = 'healthy' where status = 'unpriceable'")
        assert without > 0
        wrong = wrong_rows(path, market.node, [market])[1]
    assert len(wrong) == without
    assert all("debt_value_raw: 7, not None" in line for line in wrong)
