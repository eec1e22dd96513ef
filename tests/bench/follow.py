"""What a first sync, a refresh and a block of a live tail cost: `python -m tests.bench.follow [--quick]`.

Against the fake node, whose own CPU is not counted. In each block every second asset moves by 0.05 %, and five users act.
The refresh is compared with a bare loop over the same rows: load each stored state, evaluate it, write its row and its
balances, into empty tables without indexes, or in the place of the rows of the block before in tables that have the
indexes of the file. Numbers of an idle machine only.
"""

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self

from indexer import config
from indexer.plugins import adapter_class
from indexer.risk.evaluate import balance_rows, row, status
from indexer.store.books import load_market, load_positions
from indexer.store.database import open_readonly
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS
from tests.bench.fake import DEPLOYMENT, Fake, Spent, fake, run_once, spent
from tests.bench.population import insert
from tests.bench.run import Result, run

SIZES = (2_000, 10_000, 30_000, 100_000)
ACTIVE = 5
#: millionths of the first price, block by block
STEP = 500
#: blocks that are measured; in 12 of them, with many borrowers, the WAL goes into the database twice
BLOCKS, MANY_BLOCKS = 5, 12
PATIENCE = 120.0
#: what users owe at most, of their largest supply, so that 15 % have a health factor below 1.25
MUCH_DEBT = 0.955
TABLES = (("positions", POSITION_COLUMNS), ("balances", BALANCE_COLUMNS))
SCHEMA = "select sql from sqlite_master where tbl_name = ? and type = ? and sql is not null"


def first_sync(node: Fake, users: int) -> Iterator[Result]:
    node.rpc("bench_reset")
    used = run_once(node.command("sync", "--chain", "fake"))
    stats = node.rpc("bench_stats")
    yield Result("first sync: CPU", used.cpu, "s")
    yield Result("first sync: memory", used.memory, "MB")
    yield Result("first sync: requests", stats["requests"], "requests")
    yield Result("first sync: sub-calls", stats["calls"] / users, "calls/borrower")
    yield Result("first sync: CPU of the node", stats["cpu"], "s")


def supplies(node: Fake, users: int) -> Iterator[Result]:
    """The second pass, for supplies that back no debt."""
    node.rpc("bench_reset")
    used = run_once(node.command("sync", "--chain", "fake", "--supplies"))
    stats = node.rpc("bench_stats")
    yield Result("idle supplies: CPU", used.cpu, "s")
    yield Result("idle supplies: memory", used.memory, "MB")
    yield Result("idle supplies: requests", stats["requests"], "requests")
    yield Result("idle supplies: sub-calls", stats["calls"] / users, "calls/borrower")


def bare_loop(node: Fake, folder: Path, *, over: bool = False) -> float:
    """Seconds of CPU that loading, evaluating and writing every position takes without anything around it.

    With `over` in the place of older rows, with the file's indexes.
    """
    known = config.load(node.config, {}).deployments
    (folder / "bare.db").unlink(missing_ok=True)
    with closing(open_readonly(node.database)) as conn, closing(sqlite3.connect(folder / "bare.db")) as target:
        kinds = ("table", "index") if over else ("table",)
        for table, columns in TABLES:
            for kind in kinds:
                for (schema,) in conn.execute(SCHEMA, (table, kind)).fetchall():
                    target.execute(schema)
            if over:
                older = conn.execute(f"select {', '.join(columns)} from {table}")
                target.executemany(insert(table, columns), map(tuple, older))
        target.commit()
        target.execute("pragma journal_mode = wal")
        adapter = adapter_class("aave-v3")(known[DEPLOYMENT])
        started = time.process_time()
        market = load_market(adapter, conn.execute("select market from snapshots").fetchone()[0])
        states = conn.execute("select block_number, state from states")
        rows, balances = [], []
        for position in load_positions(adapter, ((block, state) for block, state in states)):
            health = adapter.evaluate(market, position)
            rows.append(row(1337, adapter, market, health, status(health, verified=True)))
            balances += balance_rows(1337, adapter, market, [position])
        with target:
            for (table, columns), new in zip(TABLES, (rows, balances), strict=True):
                target.execute(f"delete from {table}")  # all at once, as nothing else is in it
                target.executemany(insert(table, columns), new)
        return time.process_time() - started


def refresh(node: Fake, folder: Path) -> Iterator[Result]:
    """A sync one block later, less what a command takes to start, beside the bare loops; the medians of three rounds."""
    start = run_once(node.command("status")).cpu
    own, bare, over = [], [], []
    for n in range(1, 4):
        node.rpc("bench_mine", 1, ACTIVE, 1_000_000 + n * STEP)
        own.append(run_once(node.command("sync", "--chain", "fake")).cpu - start)
        bare.append(bare_loop(node, folder))
        over.append(bare_loop(node, folder, over=True))
    yield Result("refresh: CPU", median(own), "s")
    for name, loop in (("the bare loop", bare), ("the bare loop over older rows with indexes", over)):
        yield Result(f"refresh: CPU of {name}", median(loop), "s")
        yield Result(f"refresh: ratio to {name}", median(a / b for a, b in zip(own, loop, strict=True)), "x")


def tail(node: Fake, blocks: int = BLOCKS, patience: float = PATIENCE) -> Iterator[Result]:
    """A live tail over some blocks, each mined when the one before is committed; `patience`: seconds for the first."""
    head = int(node.rpc("eth_blockNumber"), 16)
    with subprocess.Popen(
        node.command("sync", "--chain", "fake", "--follow"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            for n in range(2):  # what it loads at the start is no block's, nor what goes into the database after that
                head = advance(node, process, head, 2 + n, patience)
            node.rpc("bench_reset")
            before, wal, pages = spent(process.pid), Wal.of(node), 0
            for n in range(blocks):
                head = advance(node, process, head, 4 + n)
                earlier, wal = wal, Wal.of(node)
                pages += wal.frames - (earlier.frames if wal.salt == earlier.salt else 0)
            after, stats = spent(process.pid), node.rpc("bench_stats")
        finally:
            process.terminate()
    yield Result("follow: CPU", (after.cpu - before.cpu) / blocks, "s/block")
    yield Result("follow: written into the WAL", pages * FRAME / blocks / 1e6, "MB/block")
    yield Result(
        "follow: written, with what goes from there into the database", written(before, after, blocks), "MB/block"
    )
    yield Result("follow: memory", after.memory, "MB")
    yield Result("follow: requests", stats["requests"] / blocks, "requests/block")
    yield Result("follow: sub-calls", stats["calls"] / blocks, "calls/block")


#: bytes of a page in the WAL
FRAME = 4096 + 24


class Wal(NamedTuple):
    """How many pages the WAL holds, as its index says, and which one it is: it begins anew once all of it is in the database.

    https://www.sqlite.org/walformat.html, mxFrame and aSalt.
    """

    frames: int
    salt: bytes

    @classmethod
    def of(cls, node: Fake) -> Self:
        index = node.database.with_name(f"{node.database.name}-shm").read_bytes()
        return cls(int.from_bytes(index[16:20], sys.byteorder), index[32:40])


def written(before: Spent, after: Spent, blocks: int) -> float:
    """Megabytes a block."""
    return (after.written - before.written) / blocks / 1e6


def advance(node: Fake, process: "subprocess.Popen[bytes]", head: int, step: int, patience: float = PATIENCE) -> int:
    """Mine a block and wait until it is committed. Raises RuntimeError if the tail ends or takes too long."""
    node.rpc("bench_mine", 1, ACTIVE, 1_000_000 + step * STEP)
    limit = time.monotonic() + patience
    while node.block() != head + 1:
        if process.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"block {head + 1} was not committed")
        time.sleep(0.05)
    return head + 1


def follow(quick: bool) -> Iterator[Result]:
    sizes, blocks = (SIZES[:1], BLOCKS) if quick else (SIZES[1:], MANY_BLOCKS)
    for users in sizes:
        with tempfile.TemporaryDirectory() as name, fake(Path(name), users, 10 * users, 200_000) as node:
            parts = first_sync(node, users), supplies(node, users), refresh(node, Path(name)), tail(node, blocks)
            for part in parts:
                yield from (result._replace(name=f"{users:,} borrowers, {result.name}") for result in part)
    much = [f"--most-debt={MUCH_DEBT}"]
    with tempfile.TemporaryDirectory() as name, fake(Path(name), sizes[-1], sizes[-1], 20_000, options=much) as node:
        run_once(node.command("sync", "--chain", "fake", "--supplies"))
        about = f"{sizes[-1]:,} borrowers, 15 % of them below 1.25"
        yield from (result._replace(name=f"{about}, {result.name}") for result in tail(node, blocks))


if __name__ == "__main__":
    run(follow)
