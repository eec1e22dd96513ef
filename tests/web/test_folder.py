"""Pages over a folder with a file for each chain: they say what pages over one file of all these chains say."""

import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from indexer.alert import tables
from indexer.cli.main import main
from indexer.store.store import Store
from indexer.terminal.options import Session
from indexer.transfer.merging import merge
from indexer.web import at_risk, band
from indexer.web.app import application
from indexer.web.desk import Desk
from tests.recorded import CONFIG, recorded
from tests.web.test_pages import cells, rows_of

OTHER = 9_001


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded file as that of one chain, again as another chain's with the same wallets, and both in one file."""
    root = tmp_path_factory.mktemp("folder")
    (root / "dbs").mkdir()
    for name in ("devnet", "other"):
        path = recorded(root / "dbs" / f"{name}.db")
        with closing(sqlite3.connect(path)) as conn, conn:
            conn.execute("update deployments set chain = ?", (name,))
            if name == "other":
                elsewhere(conn)
    merge(sorted((root / "dbs").glob("*.db")), root / "one.db")
    return root


def elsewhere(conn: sqlite3.Connection) -> None:
    """Makes the file that of a second chain, which has half the debts."""
    for (table,) in conn.execute("select name from sqlite_master where type = 'table'").fetchall():
        columns = {row[1] for row in conn.execute(f"pragma table_info({table})")}
        if "chain_id" in columns:
            conn.execute(f"update {table} set chain_id = {OTHER}")
        if "deployment" in columns:
            conn.execute(f"update {table} set deployment = 'other-' || deployment")
    conn.execute("update positions set debt_usd = debt_usd / 2, block_number = block_number + 7")
    conn.execute("update deployments set block_number = block_number + 7")


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


@contextmanager
def served(path: Path, query_seconds: float = 60) -> Iterator[TestClient]:
    desk = Desk(Session(CONFIG, path, folder=path.is_dir()), query_seconds=query_seconds, wait_seconds=60)
    with TestClient(application(desk), base_url="http://127.0.0.1:8420", raise_server_exceptions=False) as client:
        yield client


def plain(text: str) -> str:
    """Without what says when somebody looked, and floats to ten digits: sums of floats depend on their order."""
    text = re.sub(r'data-now="[^"]*"|"age_seconds": [\d.]+|[\d,.]+ days', "", text)
    return re.sub(r"\d+\.\d{10,}", lambda found: f"{float(found[0]):.10g}", text)


PATHS = [
    "/", "/?sort=health&below=1.5", "/?deployment=other-maker&below=9", "/?protocol=aave-v3", "/at-risk.json", "/book", "/book.json",
    "/what-if?price.WETH=-20", "/what-if.json?price.WETH=-20&days=30", "/what-if.json?sweep=WETH", "/opportunities.json",
    "/alerts", "/sync.json", "/wallet/{whom}", "/wallet/{whom}.json", "/wallet/{whom}?price.WETH=-20", "/wallet/@both",
]  # fmt: skip


@pytest.mark.slow
def test_every_page_says_what_one_file_of_all_chains_says(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "time", SimpleNamespace(time=lambda: 1_700_000_000.0))  # the page says since when
    (row,) = rows_of(
        root / "one.db", "select wallet from positions where protocol = 'aave-v3' and debt_usd > 0 limit 1"
    )
    for place in (f"{root / 'dbs'}/", str(root / "one.db")):
        added = CliRunner().invoke(
            main, ["--config", str(CONFIG), "--db", place, "watch", "add", row["wallet"], "--group", "both"]
        )
        assert added.exit_code == 0, added.output
    with served(root / "dbs") as folder, served(root / "one.db") as one:
        for path in PATHS:
            found, wanted = (client.get(path.format(whom=quote(row["wallet"]))) for client in (folder, one))
            assert (found.status_code, path) == (wanted.status_code, path) == (200, path)
            assert plain(found.text) == plain(wanted.text), path
        assert {cell["Deployment"][:5] for cell in cells(folder.get("/").text)} >= {"other", "maker"}


def test_pages_by_key_hold_every_row_of_all_files_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_risk, "ROWS", 7)
    expected = rows_of(
        root / "one.db", "select deployment, wallet from positions where status in ('at-risk', 'liquidatable')"
    )
    found: list[tuple[str, str]] = []
    address = "/"
    with served(root / "dbs") as client:
        while address:
            text = client.get(address).text
            found += [(cell["Deployment"], cell["Wallet"]) for cell in cells(text)]
            following = re.search(r'href="([^"]*after=[^"]*)"', text)
            address = following[1].replace("&amp;", "&") if following else ""
    assert len(found) == len(expected) > 60
    assert sorted(found) == sorted((row["deployment"], row["wallet"]) for row in expected)


def test_a_wallet_of_two_files_is_counted_once(root: Path) -> None:
    (row,) = rows_of(
        root / "one.db",
        "select count(distinct wallet) as n, count(*) as rows from positions where status = 'liquidatable'",
    )
    assert row["n"] < row["rows"]
    with served(root / "dbs") as client:
        assert f"{row['n']} wallets" in client.get("/").text


def test_the_band_is_of_the_oldest_chain(root: Path) -> None:
    with served(root / "dbs") as client:
        fresh(root / "dbs" / "other.db")
        (oldest,) = rows_of(root / "dbs" / "devnet.db", "select min(block_number) as block from deployments")
        assert f"<strong>{oldest['block']:,}</strong> of " in client.get("/band").text
        assert client.get("/healthz").json()["status"] == "stale"


@pytest.mark.skipif(not band.LOCKS.exists(), reason="this system does not tell who holds a lock")
def test_a_sync_of_any_chain_is_one_that_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(band, "LATELY_SECONDS", -1.0)
    with served(root / "dbs") as client:
        for name in ("devnet", "other"):
            fresh(root / "dbs" / f"{name}.db")
        assert "No sync is running" in client.get("/band").text
        with Store(root / "dbs" / "other.db") as store, store.lock():
            assert "No sync is running" not in client.get("/band").text


def fresh(path: Path) -> None:
    """Makes all rows of the file of now."""
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("update deployments set block_timestamp = ?", (int(time.time()),))


def test_a_slow_query_of_any_file_ends(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 30000000) select count(*) from n"
    monkeypatch.setattr(at_risk, "endangered", lambda conn: conn.files[1].execute(long).fetchall())
    with served(root / "dbs", query_seconds=0.05) as client:
        answer = client.get("/")
        assert answer.status_code == 503
        assert "narrow" in answer.text


def test_a_commit_to_any_file_and_a_new_file_are_noticed(root: Path) -> None:
    desk = Desk(Session(CONFIG, root / "dbs", folder=True))
    seen = [desk.version()]
    for path in sorted((root / "dbs").glob("*.db")):
        with closing(sqlite3.connect(path)) as conn, conn:
            conn.execute("update deployments set block_number = block_number + 1")
        seen.append(desk.version())
    (root / "dbs" / "third.db").touch()  # where a sync has just begun
    seen.append(desk.version())
    (root / "dbs" / "third.db").unlink()
    seen.append(desk.version())
    assert [a == b for a, b in pairwise(seen)] == [False] * 4
    desk.close()


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with served(tmp_path) as client:
        assert "holds nothing yet" in client.get("/").text
        for path in (
            "/book",
            "/what-if",
            "/opportunities",
            "/forecast",
            "/alerts",
            "/sync",
            "/wallet",
            "/at-risk.json",
        ):
            assert client.get(path).status_code == 200, path


def test_the_sync_beside_the_pages_is_of_one_file(root: Path) -> None:
    result = CliRunner().invoke(main, ["--db", f"{root / 'dbs'}/", "serve", "--sync"])
    assert (result.exit_code, "serve --sync is for one chain and its file" in result.stderr) == (2, True)
