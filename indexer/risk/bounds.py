"""Bounds of many positions at once, which prove that a position keeps its status from one block to the next.

A position is a few lines (slot, amount) that stay valid until somebody acts on it; a market gives each slot's weight in
the liquidation limit and in the debt. The book keeps the lines in arrays, so that a block costs one gather and a few sums
however many positions there are. Amounts and weights are floats here; every bound is widened by the most that rounding
can do, the protocols' (the slack of a weight) and the floats' (RELATIVE). Positions that the bounds leave open are
evaluated exactly elsewhere: nothing in this module ever becomes a health factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.adapter import Line, Slot, Weight

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)

#: Relative error of a sum of products of floats. An amount, a weight and their product are off by 2**-53 each, and a sum
#: of n lines by another n * 2**-53: 1e-11 holds for up to 80,000 lines of one position.
RELATIVE = 1e-11
#: Health factors are integers scaled by 1e18, rounded either way.
LAST_DIGIT = 1e-18
#: The slot of removed lines, which count for nothing, so that the others need not move.
NOTHING = 0
#: Removed lines are dropped from the arrays once they are this large a part of them.
WASTE = 0.25


@dataclass(frozen=True, slots=True)
class Bounds:
    """One value per row of the book, in the protocol's value unit; `open` rows have a line that no weight bounds.

    The exact limit lies in [limit_low, limit_high], the exact debt in [debt_low, debt_high].
    """

    limit_low: Floats
    limit_high: Floats
    debt_low: Floats
    debt_high: Floats
    open: Flags

    @property
    def health_low(self) -> Floats:
        """The lowest possible health factor; infinite where there is certainly no debt."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.limit_low / self.debt_high * (1 - RELATIVE) - LAST_DIGIT
        return np.where(self.debt_high > 0, ratio, np.inf)

    @property
    def health_high(self) -> Floats:
        """The highest possible health factor; infinite where the debt may be 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.limit_high / self.debt_low * (1 + RELATIVE) + LAST_DIGIT
        return np.where(self.debt_low > 0, ratio, np.inf)


class Book:
    """The lines of all positions of a deployment, by row number."""

    def __init__(self) -> None:
        self.slots: dict[Slot, int] = {}
        self._rows = 0
        self._open = np.zeros(0, np.bool_)
        self._has_debt = np.zeros(0, np.bool_)
        self._first = np.zeros(0, np.int64)
        self._count = np.zeros(0, np.int32)
        self._row_of = np.zeros(0, np.int32)
        self._slot_of = np.zeros(0, np.int32)
        self._amount = np.zeros(0, np.float64)
        self._used = 0
        self._waste = 0

    def __len__(self) -> int:
        return self._rows

    @property
    def has_debt(self) -> Flags:
        """Which rows have a debt line."""
        return self._has_debt[: self._rows]

    def put(self, row: int, lines: Sequence[Line] | None) -> None:
        """Set the lines of a row, which may be new; with None nothing bounds it and it stays open.

        So do the rows before a new one until they have lines.
        """
        if row >= self._rows:
            self._grow_rows(row + 1)
        else:
            self._forget(row)
        self._open[row] = lines is None
        self._has_debt[row] = any(line.debt for line in lines or ())
        count = len(lines or ())
        self._reserve(count)
        first = self._used
        self._first[row], self._count[row] = first, count
        for place, line in enumerate(lines or (), first):
            self._row_of[place] = row
            self._slot_of[place] = self.slots.setdefault(line.slot, len(self.slots) + 1)
            self._amount[place] = line.amount
        self._used += count

    def bounds(self, weights: Sequence[Weight | None]) -> Bounds:
        """Bounds of every row under these weights, in the order of `slots`."""
        if len(weights) != len(self.slots):
            raise ValueError(f"{len(weights)} weights for {len(self.slots)} slots")
        nothing = Weight(0.0, 0.0, 0.0, 0.0, 0.0)
        table = np.array([nothing, *(weight or nothing for weight in weights)], np.float64).T
        unbounded = np.array([False, *(weight is None for weight in weights)])
        slot, row, amount = self._slot_of[: self._used], self._row_of[: self._used], self._amount[: self._used]

        def total(column: int, *, times_amount: bool = True) -> Floats:
            per_line = table[column][slot]  # one at a time, as each is as long as the book
            if times_amount:
                per_line *= amount
            return np.asarray(np.bincount(row, per_line, self._rows), np.float64)

        low, high, owed = total(0), total(1), total(2)
        limit_slack, debt_slack = total(3, times_amount=False), total(4, times_amount=False)
        opened = self._open[: self._rows].copy()
        if unbounded.any():
            opened[row[unbounded[slot]]] = True
        return Bounds(
            low - np.abs(low) * RELATIVE - limit_slack,
            high + np.abs(high) * RELATIVE + limit_slack,
            owed * (1 - RELATIVE) - debt_slack,
            owed * (1 + RELATIVE) + debt_slack,
            opened,
        )

    def _grow_rows(self, rows: int) -> None:
        if rows > len(self._open):
            size = max(rows + rows // 4, 1024)
            self._open, self._has_debt = longer(self._open, size), longer(self._has_debt, size)
            self._first, self._count = longer(self._first, size), longer(self._count, size)
        self._open[self._rows : rows] = True
        self._rows = rows

    def _forget(self, row: int) -> None:
        first, count = int(self._first[row]), int(self._count[row])
        self._slot_of[first : first + count] = NOTHING
        self._waste += count
        if self._waste > WASTE * max(self._used, 1024):
            self._compact(row)

    def _compact(self, leaving: int) -> None:
        """Drop removed lines; the lines of a row stay together, and in the order of the rows' places."""
        kept = self._slot_of[: self._used] != NOTHING
        places = np.cumsum(kept) - kept
        self._count[leaving] = 0
        held = self._count[: self._rows] > 0
        self._first[: self._rows][held] = places[self._first[: self._rows][held]]
        self._row_of, self._slot_of, self._amount = (
            array[: self._used][kept] for array in (self._row_of, self._slot_of, self._amount)
        )
        self._used, self._waste = len(self._amount), 0

    def _reserve(self, count: int) -> None:
        if self._used + count > len(self._amount):
            needed = self._used + count
            size = max(needed + needed // 4, 4096)
            self._row_of, self._slot_of = longer(self._row_of, size), longer(self._slot_of, size)
            self._amount = longer(self._amount, size)


def longer(array: NDArray[T], size: int) -> NDArray[T]:
    """The array extended with zeros to `size`."""
    grown = np.zeros(size, array.dtype)
    grown[: len(array)] = array
    return grown
