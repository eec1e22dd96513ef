"""Selects the positions to evaluate at a block while a sync follows the chain: only those that the bounds leave open.

A row keeps its digits, exact at its own block, while it is proven that its status still holds and that its health factor
is within 1 % of the row's and of its last point of history. These positions are evaluated exactly at every block: those
whose health factor may be below `exact_below`, whose status is neither of the two quiet ones, that changed or may have
changed, that are watched, and a slice of all others, so that no row grows older than `refresh_seconds`.
"""

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import numpy as np

from indexer.adapter import Adapter, AnyBounded
from indexer.model import WAD, Market, Position, PositionKey, Status
from indexer.risk.bounds import Book, longer
from indexer.snapshot.keys import Keys
from indexer.store.rows import Pair, PositionRow, pair_of

#: a change of the health factor that makes a point of history (`history.history.worth_keeping`)
MOVED = 0.01
#: how far to stay inside when floats are compared with exact integers
MARGIN = 1e-9
#: the part of `refresh_seconds` in which all rows are refreshed, so that a slow block makes none of them late
HASTE = 0.95
#: the statuses that need no look, numbered; any other is OTHER
QUIET = {Status.HEALTHY.value: 1, Status.NO_DEBT.value: 2}
OTHER = 0


class Screen:
    """One deployment's positions between two snapshots of a sync that follows the chain.

    `silent` are positions that may change without any event. A screen is valid for one layout of the market; build another
    when `fits` says no.
    """

    def __init__(self, adapter: AnyBounded, market: Market, *, exact_below: float, refresh_seconds: float) -> None:
        self.adapter, self.exact_below, self.refresh_seconds = adapter, exact_below, refresh_seconds
        self.layout: Hashable = adapter.layout(market)
        self.book = Book()
        self.silent: set[PositionKey] = set()
        self.fresh: set[int] = set()  # positions that were read since their last evaluation
        self._quiet = np.zeros(0, np.bool_)
        self._row_health = np.zeros(0, np.float64)  # NaN for none
        self._point_health = np.zeros(0, np.float64)
        self._point_status = np.zeros(0, np.int8)
        self._timestamp = np.zeros(0, np.int64)
        self._cursor = 0
        self._seen = market.block.timestamp
        #: whether the adapter fits a market by all positions, else by one of each group
        self._fits_all = type(adapter).fit_group is Adapter.fit_group
        self._groups: dict[Hashable, set[PositionKey]] = {}
        self._group_of: dict[PositionKey, Hashable] = {}

    def fits(self, market: Market) -> bool:
        """Whether the lines of the positions are still valid in this market."""
        return market.exact and self.adapter.layout(market) == self.layout

    def put(self, number: int, market: Market, position: Position) -> None:
        """Takes over a position that was read, by its number; the next selection includes it."""
        key = position.key
        if number >= len(self._quiet):
            size = max(number + number // 4, 1024)
            self._quiet, self._timestamp = longer(self._quiet, size), longer(self._timestamp, size)
            self._row_health, self._point_health = longer(self._row_health, size), longer(self._point_health, size)
            self._point_status = longer(self._point_status, size)
        self.book.put(number, self.adapter.lines(market, position))
        self.fresh.add(number)
        if self.adapter.changes_silently(market, position):
            self.silent.add(key)
        else:
            self.silent.discard(key)
        if not self._fits_all:
            self._sort_in(key, self.adapter.fit_group(market, position))

    def _sort_in(self, key: PositionKey, group: Hashable) -> None:
        before = self._group_of.pop(key, None)
        if before is not None:
            self._groups[before].discard(key)
            if not self._groups[before]:
                del self._groups[before]
        if group is not None:
            self._group_of[key] = group
            self._groups.setdefault(group, set()).add(key)

    def fitting(self) -> list[PositionKey] | None:
        """The positions by which the adapter fits a market, None for all."""
        return None if self._fits_all else sorted(next(iter(group)) for group in self._groups.values())

    def due(self, known: Keys, market: Market, also: Iterable[PositionKey] = ()) -> list[PositionKey]:
        """The positions to evaluate at the market's block, in the order of their numbers; always includes `also`."""
        count, now = len(self.book), market.block.timestamp
        if not count:
            return []
        quiet = self._quiet[:count]
        bounds = self.book.bounds(self.adapter.slot_weights(market, self.book.slots))
        low, high = bounds.health_low, bounds.health_high
        calm = low >= self.exact_below
        with np.errstate(
            invalid="ignore"
        ):  # comparisons with NaN are false, so without a number nothing counts as proven
            for health in (self._row_health[:count], self._point_health[:count]):
                calm &= (low > health * (1 - MOVED + MARGIN)) & (high < health * (1 + MOVED - MARGIN))
        due = ~quiet | bounds.open | (self.book.has_debt & ~calm)
        due |= now - self._timestamp[:count] >= self.refresh_seconds
        due[self._slice(now)] = True
        due[list(self.fresh)] = True
        due[[known[key] for key in also]] = True
        return [known.keys_by_number[number] for number in np.flatnonzero(due).tolist()]

    def _slice(self, now: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """The next rows to refresh, in the order of the key, as many as the time since the last block requires."""
        count = len(self.book)
        share = (now - self._seen) / (HASTE * self.refresh_seconds)
        size = min(math.ceil(count * share), count) if now > self._seen else 0
        found = np.arange(self._cursor, self._cursor + size, dtype=np.int64) % count
        self._cursor, self._seen = (self._cursor + size) % count, now
        return found

    def settled(self, known: Keys, rows: Sequence[PositionRow]) -> set[Pair]:
        """Of these new rows those that make no point of history: quiet like the last one, and within 1 % of it."""
        numbers, status, health = _numbers(known, rows), _statuses(rows), _healths(rows)
        point = self._point_health[numbers]
        with np.errstate(invalid="ignore"):  # as in `due`
            near = np.abs(health - point) < point * (MOVED - MARGIN)
        near |= np.isnan(health) & np.isnan(point)
        calm = near & (status != OTHER) & (status == self._point_status[numbers])
        return {pair_of(rows[place]) for place in np.flatnonzero(calm).tolist()}

    def took(
        self,
        known: Keys,
        rows: Sequence[PositionRow],
        points: Mapping[Pair, tuple[str, str | None]],
        settled: Collection[Pair],
    ) -> None:
        """Takes over the rows that were written.

        `points` are the last points of their history, status and health factor; of those that are `settled` they may lack.
        """
        numbers = _numbers(known, rows)
        self._quiet[numbers] = _statuses(rows) != OTHER
        self._row_health[numbers] = _healths(rows)
        self._timestamp[numbers] = [row.block_timestamp or 0 for row in rows]
        for number, row in zip(numbers.tolist(), rows, strict=True):
            pair = pair_of(row)
            if pair in points or pair not in settled:
                status, health = points.get(pair, (row.status, row.health_factor_raw))
                self._point_status[number] = QUIET.get(status, OTHER)
                self._point_health[number] = math.nan if health is None else int(health) / WAD
        self.fresh.difference_update(numbers.tolist())


def _numbers(known: Keys, rows: Sequence[PositionRow]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array(known.numbers_of(map(pair_of, rows)), np.int64)


def _statuses(rows: Sequence[PositionRow]) -> "np.ndarray[tuple[int], np.dtype[np.int8]]":
    return np.array([QUIET.get(row.status, OTHER) for row in rows], np.int8)


def _healths(rows: Sequence[PositionRow]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Their health factors, NaN for none."""
    return np.array([row.health_factor for row in rows], np.float64)
