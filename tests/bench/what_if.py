"""`simulate` and `movements` over a whole book, cost and size of the history: `python -m tests.bench.what_if [--quick]`.

The history is written for made-up years (months if quick) of three kinds of positions, and measured.
"""

import math
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from indexer.history.flows import remember
from indexer.history.history import LAST, History, last_points, thin
from indexer.model import Block, Market
from indexer.snapshot.spool import PART, Spool
from indexer.store.books import position_rows
from indexer.store.rows import Snapshot
from indexer.store.store import Store
from tests.bench.database import command, large_database, largest_wallet
from tests.bench.run import Result, run

COMMANDS = (
    "simulate --shock WETH=-20% --shock stablecoins=-2% --csv",
    "simulate --shock WETH=-20% --by deployment --csv",
    "simulate --days 30 --csv",
    "simulate WALLET --shock WETH=-20% --csv",
    "simulate --sweep eth=0..-60%:20% --csv",
    "simulate --sweep eth=0..-60% --csv",
    "movements --since 0 --csv",
)
BLOCK_SECONDS = 12
NOW = 1_700_000_000


def commands(database: Path, config: Path) -> Iterator[Result]:
    wallet = largest_wallet(database)
    for text in COMMANDS:
        started = time.monotonic()
        command(database, config, text.replace("WALLET", wallet))
        yield Result(text, time.monotonic() - started, "s")


def rider(database: Path) -> Iterator[Result]:
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
                market=Market(block=block, revision=""), market_json="", parts=Spool(),
            )  # fmt: skip
            started = time.perf_counter()
            with store.transaction():
                remember(conn, [snapshot], block)
                rest = history(conn, [snapshot], block)
                for start in range(0, len(given), PART):
                    history.take(conn, snapshot, given[start : start + PART])
                rest()
                spent = time.perf_counter() - started
                conn.execute(
                    "update deployments set block_number = ?, block_hash = ? where deployment = ?",
                    (number, block.hash, name),
                )
            yield Result(f"history of {len(given):,} positions, {what}", spent, "s")
        started = time.perf_counter()
        points = len(last_points(conn, (chain_id, name), [row.key for row in rows]))
        yield Result(f"{points:,} last points", time.perf_counter() - started, "s")


def sizes(folder: Path, days: int) -> Iterator[Result]:
    """Rows and bytes that a position has after so many days, written and thinned as a live tail does."""
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
            written, last = 0, NOW - days * 86_400
            for end in range(NOW - days * 86_400, NOW, 86_400):  # a day at a time, thinned behind it
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
            yield Result(f"{name}: written in {days} days", written / users, "points/position")
            yield Result(f"{name}: kept", rows / users, "points/position")
            yield Result(f"{name}: size", size / rows, "bytes/point")


def pages(conn: sqlite3.Connection) -> int:
    conn.execute("pragma wal_checkpoint(truncate)")
    return int(conn.execute("pragma page_count").fetchone()[0]) * int(conn.execute("pragma page_size").fetchone()[0])


def what_if(quick: bool) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from sizes(folder, 30 if quick else 365)
        database, config, positions = large_database(folder, quick)
        yield Result("positions", positions, "rows")
        yield from commands(database, config)
        yield from rider(database)


if __name__ == "__main__":
    run(what_if)
