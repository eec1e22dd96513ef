"""How many paths make each of many positions unsafe: bounds first, and steps where they leave it open.

A position is unsafe at a step where limit < debt, both sums of weights times relative prices. The screen is a float next to
the exact health factor, so each position has a tolerance: what fails by more is `sure`, what fails or comes that near is
`possible`, and between the two the exact evaluator decides.
"""

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.forecast.model import Floats

Ints = NDArray[np.int64]

#: the index of the factor that never moves: amounts that depend on no price
CONSTANT = -1
#: steps that share one pair of bounds
CHUNK = 24
#: (position, path) pairs from which on threads are worth it
MANY = 1_000_000
#: a weight below this share of its position's weights moves no decision that a tolerance of 1e-8 leaves to the screen
DUST = 1e-12


@dataclass(frozen=True, slots=True)
class Exposures:
    """What W positions hang on, as rows of a sparse matrix: the terms of position i are starts[i] to starts[i + 1].

    `starts` (W + 1,), `factors` (N,) with CONSTANT for none, `limit` and `debt` (N,): the part of the liquidation limit and
    of the debt that moves with the factor, in one unit of account at the present price; `limit_end`, `debt_end` (N,) the
    same at the last step, interest included (linear in between). `tolerance` (W,) is the relative error of limit / debt.
    """

    starts: Ints
    factors: Ints
    limit: Floats
    limit_end: Floats
    debt: Floats
    debt_end: Floats
    tolerance: Floats

    def __len__(self) -> int:
        return len(self.starts) - 1

    def chosen(self, positions: Ints) -> "Exposures":
        """Only these positions, in this order."""
        counts = np.diff(self.starts)[positions]
        starts = np.concatenate([[0], np.cumsum(counts)])
        terms = np.repeat(self.starts[positions] - starts[:-1], counts) + np.arange(starts[-1])
        return Exposures(
            starts, self.factors[terms], self.limit[terms], self.limit_end[terms], self.debt[terms], self.debt_end[terms],
            self.tolerance[positions],
        )  # fmt: skip


class Found(NamedTuple):
    """Paths that make each position unsafe within each horizon, (W, horizons): surely, and at most."""

    sure: Ints
    possible: Ints


class Paths:
    """Relative prices (1 is now) with what bounds need: lowest and highest of each chunk of steps.

    `prices` (F + 1, paths, steps), the last factor constant 1; `lowest` and `highest` (F + 1, paths, chunks).
    """

    def __init__(self, log_paths: Floats, delayed: NDArray[np.bool_] | None = None) -> None:
        """Take log prices relative to now, (F, paths, steps) by the hour; `delayed` (F,) come in force an hour late."""
        factors, paths, steps = log_paths.shape
        padded = -(-steps // CHUNK) * CHUNK
        self.steps = steps
        self.prices = np.ones((factors + 1, paths, steps))
        np.exp(log_paths, out=self.prices[:factors])
        for factor in np.flatnonzero(delayed if delayed is not None else []):
            self.prices[factor, :, 1:] = np.exp(log_paths[factor, :, :-1])
            self.prices[factor, :, 0] = 1.0
        parts = np.pad(self.prices, ((0, 0), (0, 0), (0, padded - steps)), mode="edge")
        parts = parts.reshape(factors + 1, paths, padded // CHUNK, CHUNK)
        self.lowest, self.highest = parts.min(axis=3), parts.max(axis=3)


@cache
def kernel() -> ModuleType | None:
    """The search as machine code; None without numba, which is an extra: its kernels and numpy's find the same hits."""
    try:
        from indexer.forecast import kernel as compiled  # noqa: PLC0415 - numba is slow to import, and few look for steps
    except ImportError:
        return None
    return compiled


def search(book: Exposures, paths: Paths, horizons: list[int]) -> Found:
    """Count the paths on which each position turns unsafe within each of `horizons` (hours, ascending, at most the steps)."""
    sure, possible, open_ = by_pairs(book, paths, horizons)
    if len(open_):
        left = book.chosen(open_)
        compiled, step = kernel(), by_steps
        if compiled is not None:
            many = len(left) * paths.prices.shape[1] >= MANY
            step = compiled.by_steps if many else compiled.by_steps_alone
        sure[open_], possible[open_] = step(*arguments(left, paths), np.array(horizons))
    return Found(sure, possible)


def arguments(book: Exposures, paths: Paths) -> tuple[Ints, Ints, Floats, Floats, Floats, Floats, Floats]:
    """What the kernels take: of each term the factor and, for `sure` and `possible`, net weights now and their growth a step."""
    lenient = 1 + np.repeat(book.tolerance, np.diff(book.starts))
    strict = 2 - lenient
    now, end = (
        np.stack(
            [np.maximum(limit * lenient, limit * strict) - debt, np.minimum(limit * lenient, limit * strict) - debt]
        )
        for limit, debt in ((book.limit, book.debt), (book.limit_end, book.debt_end))
    )
    factors = np.where(book.factors == CONSTANT, len(paths.prices) - 1, book.factors)
    return book.starts, factors, now, (end - now) / paths.steps, paths.prices, paths.lowest, paths.highest


def by_pairs(book: Exposures, paths: Paths, horizons: list[int]) -> tuple[Ints, Ints, Ints]:
    """Positions with one or two terms by one binary search each in the sorted running minima of a ratio of prices.

    Returns sure and possible hits (W, horizons) and which positions are left open: more terms, or paths between the
    thresholds of now and of the last step.
    """
    starts, factors, now, growth, prices, *_ = arguments(book, paths)
    count, kinds = len(book), np.diff(starts)
    hits = np.zeros((2, count, len(horizons)), np.int64)
    left = kinds > 2
    end = now + growth * paths.steps
    constant = len(prices) - 1
    two = np.flatnonzero(~left & (kinds > 0))
    if len(two):
        first = starts[two]
        second = np.where(kinds[two] == 2, first + 1, first)
        # weights of both terms at both ends for both tolerances: (2 tolerances, 2 ends, positions)
        a = np.stack([now[:, first], end[:, first]], axis=1)
        b = np.where(kinds[two] == 2, np.stack([now[:, second], end[:, second]], axis=1), 0.0)
        up, down = factors[first], np.where(kinds[two] == 2, factors[second], constant)
        swap = (a < 0).any(axis=(0, 1)) & (b >= 0).all(axis=(0, 1))
        a, b = np.where(swap, b, a), np.where(swap, a, b)
        up, down = np.where(swap, down, up), np.where(swap, up, down)
        simple = (a > 0).all(axis=(0, 1)) & (b <= 0).all(axis=(0, 1)) & (up != down)
        left[two[~simple]] = True
        with np.errstate(divide="ignore", invalid="ignore"):
            thresholds = np.sort(-b / a, axis=1)
        pairs = up * (constant + 1) + down
        for pair in np.unique(pairs[simple]):
            mine = np.flatnonzero(simple & (pairs == pair))
            ratio = prices[pair // (constant + 1)] / prices[pair % (constant + 1)]
            np.minimum.accumulate(ratio, axis=1, out=ratio)
            for number, hours in enumerate(horizons):
                low = np.sort(ratio[:, hours - 1])
                found = np.searchsorted(low, thresholds[:, :, mine], side="left")
                hits[:, two[mine], number] = found[:, 0]
                # a count that changes between the thresholds, or so near them that rounding could, is left to the steps
                near = np.searchsorted(low, thresholds[:, 0, mine] * (1 - DUST), side="left")
                far = np.searchsorted(low, thresholds[:, 1, mine] * (1 + DUST), side="left")
                left[two[mine[(near != far).any(axis=0)]]] = True
    return hits[0], hits[1], np.flatnonzero(left)


def by_steps(
    starts: Ints,
    factors: Ints,
    now: Floats,
    growth: Floats,
    prices: Floats,
    lowest: Floats,
    highest: Floats,
    horizons: Ints,
) -> tuple[Ints, Ints]:
    """The kernel in numpy: sure and possible hits (W, horizons)."""
    hits = np.zeros((2, len(starts) - 1, len(horizons)), np.int64)
    for position in range(len(starts) - 1):
        terms = slice(starts[position], starts[position + 1])
        for which in range(2):
            first = first_unsafe(
                factors[terms], now[which, terms], growth[which, terms], prices, lowest, highest, int(horizons[-1])
            )
            hits[which, position] = np.searchsorted(np.sort(first), horizons, side="right")
    return hits[0], hits[1]


def first_unsafe(
    factors: Ints, now: Floats, growth: Floats, prices: Floats, lowest: Floats, highest: Floats, last: int
) -> Ints:
    """The first step (from 1) at which each path makes the position unsafe, last + 1 where none does: (paths,)."""
    paths = prices.shape[1]
    first = np.full(paths, last + 1, np.int64)
    for chunk in range(-(-last // CHUNK)):
        begin, end = chunk * CHUNK, min((chunk + 1) * CHUNK, last)
        bound = np.zeros(paths)
        for factor, weight, slope in zip(factors, now, growth, strict=True):
            least = min(weight + slope * (begin + 1), weight + slope * (chunk + 1) * CHUNK)
            bound += least * (lowest if least >= 0 else highest)[factor, :, chunk]
        open_ = np.flatnonzero((bound < 0) & (first > last))
        if not len(open_):
            continue
        steps = np.arange(begin + 1, end + 1)
        total = np.zeros((len(open_), len(steps)))
        for factor, weight, slope in zip(factors, now, growth, strict=True):
            total += (weight + slope * steps) * prices[factor, open_, begin:end]
        unsafe = total < 0
        any_ = unsafe.any(axis=1)
        first[open_[any_]] = begin + 1 + unsafe[any_].argmax(axis=1)
    return first


def doubtful(book: Exposures, position: int, paths: Paths, horizon: int) -> list[tuple[int, list[int]]]:
    """The paths of one position that the screen leaves open within `horizon`, each with the steps (from 1) to evaluate."""
    one = book.chosen(np.array([position]))
    _, factors, now, growth, prices, lowest, highest = arguments(one, paths)
    sure, possible = (
        first_unsafe(factors, now[which], growth[which], prices, lowest, highest, horizon) for which in range(2)
    )
    steps = np.arange(1, horizon + 1)
    found = []
    for path in np.flatnonzero((possible < sure) & (possible <= horizon) & (sure > horizon)):
        total = np.zeros(horizon)
        for factor, weight, slope in zip(factors, now[1], growth[1], strict=True):
            total += (weight + slope * steps) * prices[factor, path, :horizon]
        found.append((int(path), [int(step) for step in steps[total < 0]]))
    return found
