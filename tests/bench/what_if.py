"""Seconds of `simulate` and `movements` on 100,000 positions, cost and size of the history: python -m tests.bench.what_if DATABASE

The database is a synced one, with the configuration that knows its deployments (--config); its rows are repeated as
`tests.bench.book` does. The history is then written for made-up years of three kinds of positions, and measured.
"""

import argparse
import math
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from indexer.model import Block, Market
from indexer.store.books import position_rows
from indexer.store.history import LAST, History, last_points, thin
from indexer.store.rows import Snapshot
from indexer.store.store import Store
from tests.bench.book import enlarged

COMMANDS = (
    "simulate --shock WETH=-20% --shock stablecoins=-2% --csv",
    "simulate --shock WETH=-20% --by deployment --csv",
    "simulate --days 30 --csv",
    "simulate WALLET --shock WETH=-20% --csv",
    "simulate --sweep eth=0..-60%:20% --csv",
    "simulate --sweep eth=0..-60% --csv",
    "movements --since 0 --csv",
)
YEAR = 365 * 86_400
BLOCK_SECONDS = 12
NOW = 1_700_000_000


def commands(database: Path, config: Path) -> None:
    with sqlite3.connect(database) as conn:
        (wallet,) = conn.execute("select wallet from positions order by debt_usd desc limit 1").fetchone()
    for command in COMMANDS:
        arguments = command.replace("WALLET", wallet).split()
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "indexer", "--config", str(config), "--db", str(database), *arguments],
            capture_output=True, check=False,
        )  # fmt: skip
        spent = time.monotonic() - started
        told = f"{len(done.stdout) / 1e6:,.1f} MB" if done.returncode == 0 else done.stderr.decode().strip()
        print(f"{command:58} {spent:6.2f} s  {told}")


def rider(database: Path) -> None:
    """What the history adds to a snapshot of the largest deployment: the first one, one with nothing new, a crash."""
    with Store(database) as store:
        conn = store.conn
        name, protocol, number = conn.execute(
            "select deployment, min(protocol), max(block_number) from positions group by 1 order by count(*) desc"
        ).fetchone()
        (chain_id,) = conn.execute("select chain_id from deployments limit 1").fetchone()
        rows = list(position_rows(conn, chain_id, name).values())
        moved = [
            row._replace(health_factor_raw=str(int(row.health_factor_raw) * 9 // 10)) if row.health_factor_raw else row
            for row in rows
        ]
        history = History()
        for what, given in (("from the database", rows), ("again", rows), ("every health factor moved by 10 %", moved)):
            number += 1
            block = Block(number, f"0x{number:064x}", "", NOW + number)
            snapshot = Snapshot(
                chain_id=chain_id, deployment=name, protocol=protocol, accounts="all", state="ok",
                market=Market(block=block, revision=""), market_json="", rows=given, balances=(),
            )  # fmt: skip
            started = time.perf_counter()
            with store.transaction():
                history(conn, [snapshot], block)()
                spent = time.perf_counter() - started
                conn.execute(
                    "update deployments set block_number = ?, block_hash = ? where deployment = ?",
                    (number, block.hash, name),
                )
            print(f"history of {len(given):,} positions, {what}: {spent:.2f} s")
        started = time.perf_counter()
        print(f"{len(last_points(conn, (chain_id, name))):,} last points: {time.perf_counter() - started:.2f} s")


def sizes(folder: Path) -> None:
    """Rows and bytes that a position has after a year, written and thinned as a live tail does."""
    for name, step, status in (
        ("at risk or watched, every block", BLOCK_SECONDS, "at-risk"),
        ("healthy, moving by 1 % every hour", 3_600, "healthy"),
        ("healthy, moving by 1 % a day", 86_400, "healthy"),
        ("healthy, moving by 1 % a month", 30 * 86_400, "healthy"),
    ):
        users = 1 if step == BLOCK_SECONDS else 20
        with Store(folder / f"{step}.db") as store:
            conn, where = store.conn, (1, "aave-v3-core")
            before = pages(conn)
            written, last = 0, NOW - YEAR
            for end in range(NOW - YEAR, NOW, 86_400):  # a day at a time, thinned behind it
                with store.transaction():
                    points = range(last, end + 86_400, step)
                    last = points[-1] + step if points else last
                    for user in range(users):
                        conn.executemany(
                            f"insert into health_history values ({', '.join('?' * 12)})",
                            [
                                (*where, f"0x{user:040x}", "", at // BLOCK_SECONDS, at,
                                 str(int(10**18 * (1.05 + math.sin(at / 1e5) / 25)) + at), 12345.678 + at % 997,
                                 9876.54321 + at % 991, status, 0.0, 0.0)
                                for at in points
                            ],
                        )  # fmt: skip
                        written += len(points)
                    thin(conn, where, end + 86_400, ("", ""), LAST)
            conn.execute("vacuum")
            (rows,) = conn.execute("select count(*) from health_history").fetchone()
            size = pages(conn) - before
            print(
                f"{name}: {written / users:,.0f} points written a year, {rows / users:,.0f} kept, "
                f"{size / rows:,.0f} bytes each, {size / users / 1000:,.1f} kB a position and year"
            )


def pages(conn: sqlite3.Connection) -> int:
    conn.execute("pragma wal_checkpoint(truncate)")
    return int(conn.execute("pragma page_count").fetchone()[0]) * int(conn.execute("pragma page_size").fetchone()[0])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.what_if", description=__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument("positions", type=int, nargs="?", default=100_000)
    parser.add_argument("--config", type=Path, default=Path("indexer.toml"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes(Path(folder))
        large = Path(folder) / "large.db"
        total = enlarged(options.database, large, options.positions)
        print(f"{total:,} positions, {large.stat().st_size / 1e6:,.0f} MB")
        commands(large, options.config)
        rider(large)


if __name__ == "__main__":
    main()
