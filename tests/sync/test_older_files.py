"""A file of an earlier version opens, means what it meant, and is synced on without fetching its past again."""

import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer.model import Deployment
from indexer.risk.evaluate import evaluate_all
from indexer.schema import migrations
from indexer.store import books
from indexer.store.database import open_readonly
from indexer.store.store import Store
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID
from tests.devnet.worlds import aave, alone
from tests.truth import raw, sync_once, token_holders, wrong_aave_rows

DATA = Path(__file__).parents[1] / "data"
#: the migrations of version 0.1; its file holds five protocols as that version synced them on a local node
VERSION_0_1 = ["0001_initial", "0002_watching", "0003_movements", "0004_accruals", "0005_contracts", "0006_wallets"]


@pytest.fixture
def older(tmp_path: Path) -> Path:
    path = tmp_path / "older.db"
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(gzip.decompress((DATA / "version_0_1.sql.gz").read_bytes()).decode())
        assert migrations.applied(conn) == VERSION_0_1
    return path


def test_a_file_of_version_0_1_is_evaluated_to_its_own_rows(older: Path) -> None:
    """Its markets and positions are read as they were written, and health is what that version found, to the digit."""
    deployments = {
        name: Deployment(name, protocol, "devnet", start, addresses)
        for name, (protocol, start, addresses) in json.loads((DATA / "version_0_1.json").read_text()).items()
    }
    # Who owns an urn is known by its number, and numbers are in a table of their own.
    apart = {"owner", "owner_via", "wallet"}
    names = [row[1] for row in raw(older, "pragma table_info(positions)") if row[1] not in apart]
    with Store(older):
        pass
    compared = 0
    with closing(open_readonly(older)) as conn:
        found = books.load(conn, books.deployments(conn), deployments)
        assert {book.name for book in found} == set(deployments)
        for book in found:
            rows = books.position_rows(conn, book.chain_id, book.name)
            for row in evaluate_all(book.chain_id, book.adapter, book.market, book.positions):
                stored, compared = rows[row.key], compared + 1
                assert [getattr(row, name) for name in names] == [getattr(stored, name) for name in names]
        assert raw(older, "select chain_id, deployment, block_number from recorded order by 2") == raw(
            older, "select chain_id, deployment, block_number from deployments order by 2"
        )
    assert compared > 60


def as_version_0_1(path: Path, older: Path) -> None:
    """A file with that version's schema and the rows of another: what was synced by then, for a chain that goes on."""
    with closing(sqlite3.connect(older, isolation_level=None)) as conn:
        conn.execute("begin")
        steps = dict(migrations.STEPS)
        try:
            for name in steps.keys() - set(VERSION_0_1):
                del migrations.STEPS[name]
            migrations.apply(conn)
        finally:
            migrations.STEPS.clear()
            migrations.STEPS.update(steps)
        conn.execute("commit")
        conn.execute("attach ? as newer", (str(path),))
        tables = [name for (name,) in conn.execute("select name from main.sqlite_master where type = 'table'")]
        for table in tables:
            if table == migrations.TABLE:
                continue
            names = ", ".join(row[1] for row in conn.execute(f"pragma main.table_info({table})"))
            conn.execute(f"insert into main.{table} ({names}) select {names} from newer.{table}")


@pytest.fixture(scope="module")
def market(needs_node: None) -> Iterator[AaveV3]:
    with alone(aave, 3, 12) as market:
        yield market


def test_a_file_of_version_0_1_is_synced_on_without_a_back_fill(market: AaveV3, tmp_path: Path) -> None:
    current, older, node = tmp_path / "current.db", tmp_path / "older.db", market.node
    first = sync_once(current, node.url, [market])
    market.step(1)
    sync_once(current, node.url, [market])
    as_version_0_1(current, older)
    columns = ", ".join(name for _, name, *_ in raw(older, "pragma table_info(health_history)"))
    kept = raw(older, f"select {columns} from health_history"), raw(older, "select * from accruals")
    market.step(2)
    node.mine(1, interval=3600)
    ours, theirs = (sync_once(path, node.url, [market]) for path in (older, current))
    assert (ours.logs, ours.read) == (theirs.logs, theirs.read)
    assert ours.logs < first.logs
    assert wrong_aave_rows(older, market, token_holders(market)) == []
    assert set(kept[0]) <= set(raw(older, f"select {columns} from health_history"))
    assert len(raw(older, "select * from accruals")) >= len(kept[1]) > 0
    assert raw(older, "select chain_id, block_number from recorded") == [(CHAIN_ID, ours.block.number)]
