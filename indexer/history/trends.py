"""`market_history` and `book_history`: prices, indexes, rates and totals, and who holds and owes what, with every snapshot.

A snapshot adds one point: a row of `market_history` for each row of `markets`, and a row of `book_history` for each asset
and status of positions that hold or owe it. Points are thinned with age as those of `health_history` are, and
of each interval the last one stays. A row takes about 150 bytes.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from indexer.history.history import interval
from indexer.model import Asset, Block
from indexer.store.reorgs import earlier, recorded
from indexer.store.rows import Snapshot, as_text

if TYPE_CHECKING:
    from indexer.store.book_sums import BookSums

TABLES = ("market_history", "book_history")


class Moment(NamedTuple):
    """When a point is of."""

    block_number: int
    timestamp: int


class Trends:
    """The rider that writes points, and thins them at the first and then at each `THINNED_EVERY`th of them."""

    def __init__(self, sums: "BookSums") -> None:
        self.sums = sums
        self.written: Counter[tuple[int, str]] = Counter()

    def __call__(self, conn: sqlite3.Connection, snapshots: Sequence[Snapshot], block: Block) -> Callable[[], None]:
        self.sums.look(conn)
        new = [one for one in snapshots if one.block.number >= recorded(conn, one.where)]

        def write() -> None:
            for snapshot in new:
                self._write(conn, snapshot, block)

        return write

    def _write(self, conn: sqlite3.Connection, snapshot: Snapshot, block: Block) -> None:
        where, at = snapshot.where, (block.number, block.timestamp)
        for table in TABLES:  # Evidence: a snapshot of the same block replaces its point
            conn.execute(f"delete from {table} where {AT}", (*where, block.number))  # noqa: S608 - our own names
        conn.executemany(
            f"insert into market_history values ({', '.join('?' * 17)})",  # noqa: S608 - question marks
            [market_point(snapshot, asset, at) for asset in snapshot.market.assets],
        )
        sums = self.sums.of(conn, where)
        conn.executemany(
            f"insert into book_history values ({', '.join('?' * 15)})",  # noqa: S608 - question marks
            [
                (
                    *(*where, asset, status, *at, sums.symbols[asset], one.positions),
                    *(str(one.supply.amount), one.supply.usd, str(one.collateral.amount), one.collateral.usd),
                    *(str(one.debt.amount), one.debt.usd, one.supply.unvalued + one.debt.unvalued),
                )
                for (asset, status), one in sums.by_place.items()
            ],
        )
        if self.written[where] % THINNED_EVERY == 0:
            thin(conn, where, earlier(block))
        self.written[where] += 1


def thin(conn: sqlite3.Connection, where: tuple[int, str], now: int) -> None:
    """Deletes the points of a deployment that are not the last of their interval.

    Evidence: the points' own times and `now`, which no single clock can put ahead.
    """
    moments = [Moment(*row) for row in conn.execute(MOMENTS, where)]
    kept = set(thinned(moments, now))
    gone = [(*where, one.block_number) for one in moments if one not in kept]
    for table in TABLES if gone else ():
        conn.executemany(f"delete from {table} where {AT}", gone)  # noqa: S608 - our own names


#: points between two thinnings, which read when all of them are of
THINNED_EVERY = 64
AT = "chain_id = ? and deployment = ? and block_number = ?"
#: from each point to the next by the key, without looking at the rows of one point
MOMENTS = """
with recursive point(number) as (
    select min(block_number) from market_history where chain_id = ?1 and deployment = ?2
    union all
    select (select min(m.block_number) from market_history m
        where m.chain_id = ?1 and m.deployment = ?2 and m.block_number > point.number)
    from point where number is not null
)
select number, (select m.block_timestamp from market_history m
    where m.chain_id = ?1 and m.deployment = ?2 and m.block_number = point.number limit 1)
from point where number is not null
"""


def market_point(snapshot: Snapshot, asset: Asset, at: tuple[int, int]) -> tuple[object, ...]:
    """A row of `market_history`."""
    return (
        *(*snapshot.where, asset.group, asset.asset, asset.market, *at, asset.symbol),
        *(as_text(asset.price), asset.price_usd, as_text(asset.supply_index), as_text(asset.debt_index)),
        *(asset.supply_rate, asset.borrow_rate, as_text(asset.total_supply), as_text(asset.total_debt)),
        asset.decimals,
    )


def thinned(moments: Sequence[Moment], now: int) -> list[Moment]:
    """What stays: of each interval, as long as their age asks for, the last point."""

    def place(one: Moment) -> tuple[int, int]:
        size = interval(now - one.timestamp)
        return (size, one.timestamp // size) if size else (0, one.block_number)

    return [[*group][-1] for _, group in groupby(moments, key=place)]
