"""Several files as one: what a merged file holds, what it refuses, and that a sync goes on in it."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.chain.client import Chain
from indexer.cli.main import main
from indexer.errors import StoreError
from indexer.model import Accounts
from indexer.settings import Settings
from indexer.store.store import Store
from indexer.sync.sync import Sync
from indexer.transfer.merging import LEFT_OUT, SHARED, Merged, merge
from tests.devnet import aave_v3, compound_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.compound_v3 import CompoundV3
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet
from tests.truth import adapter_of, raw, wrong_rows

ROOT = Path(__file__).parents[2]
OTHER_ID = 4242


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[tuple[AaveV3, CompoundV3]]:
    """Two markets of one chain."""
    with Anvil() as node:
        node.place_multicall3()
        aave, comet = aave_v3.deploy(node, "3.0.2"), compound_v3.deploy(node)
        aave.populate(1, 10)
        comet.populate(1, 10)
        yield aave, comet


@pytest.fixture(scope="module")
def elsewhere(needs_node: None) -> Iterator[AaveV3]:
    """A market of another chain."""
    with Anvil(chain_id=OTHER_ID) as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.0.2")
        market.populate(2, 8)
        yield market


def sync(path: Path, *markets: Devnet) -> int:
    """One snapshot of these markets of one chain; how many positions it read."""
    node = markets[0].node
    with closing(Chain("devnet", node.chain_id, [node.url], MULTICALL3)) as chain, Store(path) as store, store.lock():
        return Sync(store, chain, [adapter_of(one) for one in markets], Accounts.ALL, Settings()).snapshot().read


def databases(folder: Path) -> list[Path]:
    """Everything in a folder but what belongs to a database beside it."""
    return sorted(path for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm", ".lock")))


def rows(path: Path, table: str) -> set[tuple[object, ...]]:
    """The rows of a table without the numbers that count them."""
    with closing(sqlite3.connect(path)) as conn:
        names = [name for _, name, *_ in conn.execute(f"pragma table_info({table})") if name != "id"]
        return set(conn.execute(f"select {', '.join(names)} from {table}"))


def merged_tables(path: Path) -> list[str]:
    found = raw(path, "select name from sqlite_master where type = 'table'")
    with closing(sqlite3.connect(path)) as conn:
        columns = {name: {row[1] for row in conn.execute(f"pragma table_info({name})")} for (name,) in found}
    return sorted(name for name in columns if "chain_id" in columns[name] and name not in LEFT_OUT)


def test_files_of_two_chains_are_the_sum_of_their_rows(
    markets: tuple[AaveV3, CompoundV3], elsewhere: AaveV3, tmp_path: Path
) -> None:
    one, other, both = tmp_path / "one.db", tmp_path / "other.db", tmp_path / "both.db"
    sync(one, *markets)
    sync(other, elsewhere)
    positions = len(rows(one, "positions")) + len(rows(other, "positions"))
    assert merge([one, other], both) == Merged(2, 3, positions)
    tables = merged_tables(both)
    assert {"positions", "balances", "synced_ranges", "states", "runs", "audits"} <= {*tables}
    for table in tables:
        assert rows(both, table) == rows(one, table) | rows(other, table), table
    assert databases(tmp_path) == sorted([one, other, both])
    assert both.stat().st_mode & 0o777 == 0o600
    script = ROOT.parent / "shared" / "check_contract.py"
    if script.exists():
        done = subprocess.run([sys.executable, script, both], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_files_of_one_chain_are_what_one_sync_of_both_writes(
    markets: tuple[AaveV3, CompoundV3], tmp_path: Path
) -> None:
    parts = []
    for market in markets:
        parts.append(tmp_path / f"{market.name}.db")
        sync(parts[-1], market)
    sync(tmp_path / "whole.db", *markets)
    merge(parts, tmp_path / "merged.db")
    for table in ("positions", "balances", "markets", "assets", "events", "synced_ranges", "states", "registry"):
        assert rows(tmp_path / "merged.db", table) == rows(tmp_path / "whole.db", table), table
    checked, wrong = wrong_rows(tmp_path / "merged.db", markets[0].node, markets)
    assert checked
    assert wrong == []


def test_a_sync_goes_on_in_a_merged_file(markets: tuple[AaveV3, CompoundV3], elsewhere: AaveV3, tmp_path: Path) -> None:
    one, other, both = tmp_path / "one.db", tmp_path / "other.db", tmp_path / "both.db"
    sync(one, markets[0])
    sync(other, elsewhere)
    merge([one, other], both)
    elsewhere.node.mine(2)
    assert sync(both, elsewhere) == 0, "positions that nothing touched were read again"
    head = elsewhere.node.block_number()
    found = raw(both, f"select distinct block_number from positions where chain_id = {OTHER_ID}")
    assert found == [(head,)]
    assert rows(both, "positions") >= rows(one, "positions")


def test_files_that_saw_different_blocks_are_refused(markets: tuple[AaveV3, CompoundV3], tmp_path: Path) -> None:
    one, other, both = tmp_path / "one.db", tmp_path / "other.db", tmp_path / "both.db"
    sync(one, markets[0])
    sync(other, markets[1])
    with closing(sqlite3.connect(other)) as conn, conn:
        head = conn.execute("select max(number) from blocks").fetchone()[0]
        conn.execute("update blocks set hash = ? where number = ?", ("0x" + "11" * 32, head))
    with pytest.raises(StoreError, match=f"other.db and a file before it saw different blocks {head} of chain id"):
        merge([one, other], both)
    assert databases(tmp_path) == sorted([one, other])


def test_of_two_final_blocks_the_older_one_stays(markets: tuple[AaveV3, CompoundV3], tmp_path: Path) -> None:
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    sync(one, markets[0])
    sync(other, markets[1])
    ((final,),) = raw(one, "select block_number from finality")
    for path, number in ((one, final), (other, final - 1)):
        with closing(sqlite3.connect(path)) as conn, conn:
            conn.execute("update finality set block_number = ?, block_hash = ?", (number, f"0x{number:064x}"))
    for order in ([one, other], [other, one]):
        both = tmp_path / f"{order[0].stem}-first.db"
        merge(order, both)
        assert raw(both, "select * from finality") == [(CHAIN_ID, final - 1, f"0x{final - 1:064x}")]


def test_what_belongs_to_somebody_is_left_out(elsewhere: AaveV3, tmp_path: Path) -> None:
    one, empty, both = tmp_path / "one.db", tmp_path / "empty.db", tmp_path / "both.db"
    sync(one, elsewhere)
    Store(empty).close()
    with closing(sqlite3.connect(one)) as conn, conn:
        conn.execute("insert into watches (wallet, added_at) values (?, 0)", ("0x" + "22" * 20,))
    merge([one, empty], both)
    assert raw(both, "select count(*) from watches") == [(0,)]
    assert not LEFT_OUT & SHARED


@pytest.mark.parametrize(
    ("names", "into", "why"),
    [
        (["one.db", "one.db"], "both.db", "named twice"),
        (["one.db", "copy.db"], "both.db", "both hold aave-v3"),
        (["one.db", "other.db"], "one.db", "one.db exists"),
        (["one.db", "older.db"], "both.db", "older version"),
        (["one.db", "text.db"], "both.db", "not a SQLite database"),
    ],
)
def test_what_cannot_be_merged_is_told_and_changes_nothing(
    elsewhere: AaveV3, tmp_path: Path, names: list[str], into: str, why: str
) -> None:
    sync(tmp_path / "one.db", elsewhere)
    for name in ("copy.db", "other.db", "older.db"):
        with closing(sqlite3.connect(tmp_path / "one.db")) as conn:
            conn.execute("vacuum into ?", (str(tmp_path / name),))
    with closing(sqlite3.connect(tmp_path / "other.db")) as conn, conn:
        conn.execute("delete from deployments")
    with closing(sqlite3.connect(tmp_path / "older.db")) as conn, conn:
        conn.execute("delete from _sqlite_migrations where name = '0028_doubted'")
    (tmp_path / "text.db").write_text("no database at all, but long enough to have a header")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(StoreError, match=why):
        merge([tmp_path / name for name in names], tmp_path / into)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".db"} == {
        path: data for path, data in before.items() if path.suffix == ".db"
    }


def test_the_command(markets: tuple[AaveV3, CompoundV3], elsewhere: AaveV3, tmp_path: Path) -> None:
    one, other, both = tmp_path / "one.db", tmp_path / "other.db", tmp_path / "both.db"
    sync(one, markets[0])
    sync(other, elsewhere)
    result = CliRunner().invoke(main, ["merge", str(one), str(other), "--into", str(both)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "2 deployments on 2 chains" in " ".join(result.stderr.split())
    assert CliRunner().invoke(main, ["merge", str(one), "--into", str(tmp_path / "x.db")]).exit_code == 2
    assert CliRunner().invoke(main, ["merge", str(one), str(other), "--into", str(both)]).exit_code == 1
