"""Positions in a folder of 20 files, one a chain: refreshing all rows, lists over all, and the lake (two million; 20,000 if --quick).

A refresh reads the stored states of a file, evaluates them and replaces its rows, as a snapshot does; one task a file, two
processes. Memory is the largest of a process, in megabytes (`getrusage`).
"""

import hashlib
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from indexer.executors import results
from indexer.plugins import adapter_class
from indexer.risk.evaluate import evaluate_all
from indexer.store import books
from indexer.store.deployments import describe, described
from indexer.store.rows import POSITION_COLUMNS
from indexer.store.store import Store
from indexer.transfer.lake import write_all
from tests.bench.population import CHAIN_ID, deployments, insert, populate
from tests.bench.run import Result, run

FILES = 20
CHUNK = 20_000


def refresh(path: str) -> tuple[int, float]:
    """Evaluates all positions of a file and replaces its rows; how many, and the megabytes that it took."""
    count = 0
    with Store(path) as store:
        store.conn.row_factory = sqlite3.Row
        known = described(store.conn, dict)
        for row in books.deployments(store.conn):
            adapter = adapter_class(row["protocol"])(known[row["deployment"]])
            market, where = books.load_market(adapter, row["market"]), (row["chain_id"], row["deployment"])
            with store.transaction() as conn:
                conn.execute("delete from positions where chain_id = ? and deployment = ?", where)
                states = conn.execute(
                    "select block_number, state from states where chain_id = ? and deployment = ? order by account, "
                    "position_group",
                    where,
                )
                while part := states.fetchmany(CHUNK):
                    found = list(books.load_positions(adapter, map(tuple, part)))
                    rows = evaluate_all(where[0], adapter, market, found)
                    conn.executemany(insert("positions", POSITION_COLUMNS), rows)
                    count += len(found)
    return count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def shards(folder: Path, each: int) -> None:
    """The same made-up positions as those of so many chains."""
    first = folder / "chain0.db"
    populate(first, folder.parent / "bench.toml", each)
    with closing(sqlite3.connect(first)) as conn:
        conn.execute("pragma journal_mode = delete")
        for adapter, *_ in deployments():
            describe(conn, CHAIN_ID, adapter.deployment)
        conn.commit()
    for number in range(1, FILES):
        path = folder / f"chain{number}.db"
        shutil.copy(first, path)
        with closing(sqlite3.connect(path)) as conn:
            conn.execute("pragma synchronous = off")
            for (table,) in conn.execute("select name from sqlite_master where type = 'table'").fetchall():
                if any(name == "chain_id" for _, name, *_ in conn.execute(f"pragma table_info({table})")):
                    conn.execute(f"update {table} set chain_id = {CHAIN_ID + number}")
            conn.commit()


def timed(*arguments: str) -> float:
    """Seconds that a command takes, with its start."""
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "indexer", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.monotonic() - began


def digest(lake: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(lake.rglob("*.parquet")):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def bench(quick: bool) -> Iterator[Result]:
    each = 1_000 if quick else 100_000
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "dbs"
        folder.mkdir()
        shards(folder, each)
        files = sorted(folder.glob("*.db"))
        yield Result("files together", sum(path.stat().st_size for path in files) / 2**20, "MB")
        began = time.monotonic()
        done = results("processes:2", refresh, [(str(path),) for path in files])
        yield Result("positions", sum(count for count, _ in done), "rows")
        yield Result("refresh of all, two processes", time.monotonic() - began, "s")
        yield Result("memory of a process", max(peak for _, peak in done), "MB")
        yield Result(
            "at-risk over all files", min(timed("--db", f"{folder}/", "at-risk", "--csv") for _ in range(3)), "s"
        )
        yield Result("top over all files", timed("--db", f"{folder}/", "top", "--csv"), "s")
        lake = Path(root) / "lake"
        began = time.monotonic()
        write_all(files, lake)
        yield Result("lake in line", time.monotonic() - began, "s")
        yield Result("lake", sum(path.stat().st_size for path in lake.rglob("*.parquet")) / 2**20, "MB")
        began = time.monotonic()
        write_all(files, Path(root) / "lake2", "processes:2")
        yield Result("lake, two processes", time.monotonic() - began, "s")
        yield Result("lakes that differ", float(digest(lake) != digest(Path(root) / "lake2")), "lakes")
        sql = "select chain_id, deployment, count(*), sum(debt_usd) from positions group by 1, 2"
        yield Result("query --lake, an aggregate", timed("query", "--lake", str(lake), sql, "--csv"), "s")


if __name__ == "__main__":
    run(bench)
