"""A live tail of a million borrowers: `python -m tests.bench.million [--quick]`.

A first sync finds a few of them by their logs. All others are written into the file as accounts that were read, as the fake
node holds them, so that the tail evaluates everyone at its first block.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

from indexer.model import PositionKey
from indexer.store.books import dump_position
from protocols.aave_v3.position import AaveV3Position
from tests.bench.fake import DEPLOYMENT, Fake, fake, run_once
from tests.bench.fakemarket import Market
from tests.bench.follow import BLOCKS, tail
from tests.bench.run import Result, run

SIZES = (20_000, 1_000_000)
RESERVES, CHAIN = 50, 1337
PATIENCE = 1_800.0


def positions(market: Market, block: int) -> Iterator[AaveV3Position]:
    """Every account of the market, as it is read."""
    for n, (supplied, owed, debt) in enumerate(market.held):
        yield AaveV3Position(
            key=PositionKey("0x" + market.user(n).hex()),
            block_number=block,
            configuration=sum(2 << 2 * i for i in supplied) | 1 << 2 * owed,
            mode=0,
            supplied={market.a_tokens[i]: amount for i, amount in supplied.items()},
            borrowed={market.debt_tokens[owed]: debt},
            stable={},
            discounts={},
            amounts={},
        )


def know_everyone(node: Fake, users: int) -> None:
    """Writes who is not known yet, in the order of their keys."""
    with closing(sqlite3.connect(node.database)) as conn, conn:
        (block,) = conn.execute("select block_number from deployments").fetchone()
        rows = sorted((one.key.account, dump_position(one)) for one in positions(Market(users, RESERVES), block))
        conn.executemany(
            "insert or ignore into events values (?, ?, ?, '', 1, 1)", ((CHAIN, DEPLOYMENT, who) for who, _ in rows)
        )
        conn.executemany(
            "insert or ignore into states values (?, ?, ?, '', ?, ?)",
            ((CHAIN, DEPLOYMENT, who, block, state) for who, state in rows),
        )


def million(quick: bool) -> Iterator[Result]:
    users = SIZES[0] if quick else SIZES[1]
    with tempfile.TemporaryDirectory() as name, fake(Path(name), users, 1_000, 20_000) as node:
        run_once(node.command("sync", "--chain", "fake", "--supplies"))
        # by a process that ends: a new one counts the memory of whoever starts it as its own
        aside = get_context("spawn").Process(target=know_everyone, args=(node, users))
        aside.start()
        aside.join()
        if aside.exitcode:
            raise RuntimeError(f"writing {users:,} borrowers ended with {aside.exitcode}")
        once = run_once(node.command("sync", "--chain", "fake"))
        yield Result(f"{users:,} borrowers, everyone evaluated and written: CPU", once.cpu, "s")
        yield Result(f"{users:,} borrowers, everyone evaluated and written: memory", once.memory, "MB")
        yield from (
            result._replace(name=f"{users:,} borrowers, {result.name}") for result in tail(node, BLOCKS, PATIENCE)
        )


if __name__ == "__main__":
    run(million)
