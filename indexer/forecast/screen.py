"""On which paths a position fails the health test, and when first: by sums where rounding cannot matter, else by `evaluate`.

Three passes, each with what the one before left open: the extremes of each price over all paths, the extremes along each
path, and then the path step by step. Where limit and debt are nearer to each other than the slack of the sums, the exact
`evaluate` decides on the repriced market, so that every decision is the one that `evaluate` would make.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from indexer.forecast.exposures import RELATIVE, Exposures, Later, exposures
from indexer.forecast.model import SHORT_HOURS
from indexer.model import Position
from indexer.risk.bounds import Floats

#: seconds of a step
HOUR = 3_600
#: (path, step) pairs of one position in memory at a time, and positions whose paths are
PAIRS, ROWS = 1_000_000, 500
#: after so many questions about one position, its steps too near to the boundary are looked at more closely
MANY = 100


@dataclass(frozen=True)
class Paths:
    """Prices relative to those of now: (mover, path, step), the first step one hour from now.

    `column` says which mover a price key follows; prices that always move alike share one. `missed` (mover, mover) is the
    covariance of what the looks by the hour miss in the first SHORT_HOURS steps, None for nothing.
    """

    moves: Floats
    column: dict[str, int]
    missed: Floats | None = None

    @property
    def count(self) -> int:
        return int(self.moves.shape[1])

    @property
    def steps(self) -> int:
        return int(self.moves.shape[2])

    @cached_property
    def low(self) -> Floats:
        """The lowest of each mover along each path."""
        return np.asarray(self.moves.min(axis=2))

    @cached_property
    def high(self) -> Floats:
        return np.asarray(self.moves.max(axis=2))

    def dips(self, net: Floats) -> Floats:
        """(row, mover): what to multiply prices with at the first steps for the lowest value of `net` between two looks.

        `net` (row, mover) is what moves with each mover. Of all moves that lower the net value by as many standard
        deviations this is the likeliest; of one price it is the barrier of Broadie, Glasserman and Kou.
        """
        if self.missed is None or not self.missed.any():
            return np.ones(net.shape)
        towards = np.einsum("ij,jk->ik", net, self.missed)
        deviation = np.sqrt(np.maximum(np.einsum("ij,ij->i", towards, net), 0.0))
        falls = np.divide(towards, deviation[:, None], out=np.zeros(net.shape), where=deviation[:, None] > 0)
        return np.asarray(np.exp(-falls))


@dataclass(frozen=True, slots=True)
class Sums:
    """Exposures by mover instead of by price; (position, mover) and the constant last, as in `Exposures`."""

    start: Floats
    growth: Floats  # what interest adds to `start` until the last step
    weight: Floats  # collateral, for the slack of an average
    average: float
    unit: Floats
    time: Floats
    dips: Floats  # (position, mover), of the first steps

    @classmethod
    def of(cls, found: Exposures, paths: Paths) -> "Sums":
        into = np.zeros((len(found.keys) + 1, len(paths.moves) + 1))
        for row, key in enumerate(found.keys):
            into[row, paths.column[key]] = 1.0
        into[-1, -1] = 1.0
        start, end = found.net[0] @ into, found.net[-1] @ into
        weight = np.abs(found.collateral).max(axis=0) @ into
        dips = paths.dips(start[:, :-1])
        return cls(start, end - start, weight, found.slack.average, found.slack.unit, found.slack.time, dips)

    def slack(self, rows: NDArray[np.intp], low: Floats, high: Floats) -> Floats:
        """(row, path): how far limit less debt may be from the sum, with each mover between `low` and `high`."""
        if len(rows):
            low = low * np.minimum(self.dips[rows].min(axis=0), 1.0)[:, None]
            high = high * np.maximum(self.dips[rows].max(axis=0), 1.0)[:, None]
        most = np.maximum(high.max(axis=0), 1.0)
        found = np.outer(self.unit[rows] + self.time[rows], 1.0 + most)
        if self.average:
            # rounding of the limit, now and then, and of each coefficient by which a price has moved
            swing = np.maximum(2.0 - low, 2.0 * high - 1.0)
            found += self.average * (self.weight[rows, :-1] @ swing + self.weight[rows, -1:])
        return np.asarray(found * (1 + RELATIVE))

    def least(self, rows: NDArray[np.intp], low: Floats, high: Floats) -> Floats:
        """(row, path): the lowest that limit less debt can be with each mover between `low` and `high`, at any time."""
        calm = (self.start[rows], self.start[rows] + self.growth[rows])
        ends = [np.hstack([of[:, :-1] * dip, of[:, -1:]]) for of in calm for dip in (1.0, self.dips[rows])]
        return np.asarray(
            np.minimum.reduce(
                [np.maximum(end[:, :-1], 0.0) @ low + np.minimum(end[:, :-1], 0.0) @ high + end[:, -1:] for end in ends]
            )
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one position: the paths on which it fails, and in which window first; a window ends with a horizon."""

    row: int
    paths: NDArray[np.intp]
    window: NDArray[np.int8]


@dataclass(frozen=True)
class Question:
    """Who is asked about, on which paths, in which windows; `ends` are the steps before which each window ends."""

    later: Later
    positions: Sequence[Position]
    found: Exposures
    paths: Paths
    ends: Sequence[int]

    @cached_property
    def sums(self) -> Sums:
        return Sums.of(self.found, self.paths)

    def windows(self) -> list[range]:
        return [range(begin, end) for begin, end in zip((0, *self.ends), self.ends, strict=False)]

    def keys(self, row: int) -> list[str]:
        """The prices that a position depends on."""
        moved = (self.found.limit[:, row, :-1] != 0) | (self.found.debt[:, row, :-1] != 0)
        return [key for key, one in zip(self.found.keys, moved.any(axis=0).tolist(), strict=True) if one]

    def moves(self, row: int, chosen: NDArray[np.intp] | int, step: int) -> Floats:
        """(mover,) or (mover, path): the relative prices that the position meets at a step of these paths."""
        found = self.paths.moves[:, chosen, step]
        return np.asarray((found.T * self.sums.dips[row]).T if step < SHORT_HOURS else found)

    def fails(self, row: int, keys: Sequence[str], path: int, step: int) -> bool:
        """Whether the position fails the contract's health test there, with interest stored; no price rises or falls to 0."""
        later, position, moves = self.later, self.positions[row], self.moves(row, path, step)
        prices = {key: max(int(later.prices[key] * float(moves[self.paths.column[key]])), 1) for key in keys}
        market = later.at((step + 1) * HOUR, position, prices)
        return later.adapter.evaluate(market, position).liquidatable


def failures(asked: Question, *, exact: bool = False) -> Iterator[Verdict]:
    """The positions that fail on any path, in their order; with `exact` every step is decided by `evaluate`."""
    if exact:
        verdicts = (_exactly(asked, row) for row in range(len(asked.positions)))
        yield from (verdict for verdict in verdicts if len(verdict.paths))
        return
    paths, sums = asked.paths, asked.sums
    every = np.arange(len(asked.positions))
    low, high = paths.low.min(axis=1, keepdims=True), paths.high.max(axis=1, keepdims=True)
    rows = every[(sums.least(every, low, high) <= sums.slack(every, low, high))[:, 0]]
    for begin in range(0, len(rows), ROWS):
        part = rows[begin : begin + ROWS]
        slack = sums.slack(part, paths.low, paths.high)
        may = sums.least(part, paths.low, paths.high) <= slack
        for i, row in enumerate(part.tolist()):
            chosen = np.flatnonzero(may[i])
            if len(chosen):
                window = _stepwise(asked, row, chosen, slack[i, chosen])
                failed = window < len(asked.ends)
                if failed.any():
                    yield Verdict(row, chosen[failed], window[failed])


def _stepwise(asked: Question, row: int, chosen: NDArray[np.intp], slack: Floats) -> NDArray[np.int8]:
    """The first window in which each chosen path fails the position, `len(ends)` for none."""
    windows, sums = asked.windows(), asked.sums
    found = np.full(len(chosen), len(windows), np.int8)
    chunk = max(PAIRS // asked.paths.steps, 1)
    for begin in range(0, len(chosen), chunk):
        part, few = chosen[begin : begin + chunk], slice(begin, begin + chunk)
        margin = along(asked.paths, sums.start[row], sums.growth[row], part, sums.dips[row])
        for number in reversed(range(len(windows))):
            found[few][margin[:, windows[number]].min(axis=1) < -slack[few]] = number
        near = np.abs(margin) <= slack[few, None]
        if not _ask(asked, row, part, found[few], margin, near, MANY):
            near = _sharpened(asked, row, part, margin, near)
            for number, window in enumerate(windows):
                fails = np.isneginf(margin[:, window]).any(axis=1)
                found[few][fails] = np.minimum(found[few][fails], number)
            _ask(asked, row, part, found[few], margin, near, near.size)
    return found


def _ask(
    asked: Question,
    row: int,
    part: NDArray[np.intp],
    found: NDArray[np.int8],
    margin: Floats,
    near: NDArray[np.bool_],
    most: int,
) -> bool:
    """Decides in `found` by `evaluate` what is too near to the boundary; False, and not finished, after `most` questions."""
    keys = asked.keys(row)
    for number, window in enumerate(asked.windows()):
        undecided = near[:, window].any(axis=1) & (found > number)
        for i in np.flatnonzero(undecided).tolist():
            steps = window.start + np.flatnonzero(near[i, window])
            # the lowest first: where one fails, the others need not be asked
            for step in steps[np.argsort(margin[i, steps], kind="stable")].tolist():
                most -= 1
                if most < 0:
                    return False
                if asked.fails(row, keys, int(part[i]), step):
                    found[i] = number
                    break
    return True


def _sharpened(
    asked: Question, row: int, part: NDArray[np.intp], margin: Floats, near: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """What is still too near where amounts are those of each step itself; a margin that surely fails becomes -inf.

    It is for a debt of few smallest units, whose rounding is a large part of it.
    """
    still = near.copy()
    for step in np.flatnonzero(near.any(axis=0)).tolist():
        then = asked.later.then(asked.positions[row], (step + 1) * HOUR)
        sums = Sums.of(exposures(then, [asked.positions[row]], asked.keys(row)), asked.paths)
        # its amounts are those of this step
        sums = replace(sums, time=np.zeros(1), dips=np.ones(sums.dips.shape))
        these = np.flatnonzero(near[:, step])
        moves = asked.moves(row, part[these], step)
        exact = sums.start[0, :-1] @ moves + sums.start[0, -1]
        slack = sums.slack(np.zeros(1, np.intp), moves, moves)[0]
        still[these, step] = np.abs(exact) <= slack
        margin[these[exact < -slack], step] = -np.inf
    return still


def along(paths: Paths, start: Floats, growth: Floats, chosen: NDArray[np.intp], dips: Floats | None = None) -> Floats:
    """(path, step): the sum that begins with the coefficients `start` and gains `growth` until the last step.

    `dips` (mover,) is what the moves of the first steps are multiplied with.
    """
    share = np.arange(1, paths.steps + 1) / paths.steps
    found = np.broadcast_to(start[-1] + growth[-1] * share, (len(chosen), paths.steps)).copy()
    for mover in np.flatnonzero((start[:-1] != 0) | (growth[:-1] != 0)).tolist():
        weights = start[mover] + growth[mover] * share
        if dips is not None:
            weights[:SHORT_HOURS] *= dips[mover]
        found += paths.moves[mover, chosen] * weights
    return found


def _exactly(asked: Question, row: int) -> Verdict:
    """Every step of every path by `evaluate`."""
    keys, windows = asked.keys(row), asked.windows()
    found = np.full(asked.paths.count, len(windows), np.int8)
    for path in range(asked.paths.count):
        found[path] = next(
            (n for n, window in enumerate(windows) if any(asked.fails(row, keys, path, step) for step in window)),
            len(windows),
        )
    chosen = np.flatnonzero(found < len(windows))
    return Verdict(row, chosen, found[chosen])
