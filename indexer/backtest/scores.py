"""How good probabilities were: log loss, Brier score, AUC, average precision, with intervals by block bootstrap.

Crashes come in clusters, so what is drawn again are whole blocks of four weeks, never single observations.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.forecast.model import Floats

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BLOCK_SECONDS = 28 * 86_400
RESAMPLES = 2_000
#: for average precision, which takes long
FEW_RESAMPLES = 400
#: with fewer blocks an interval would say more than the data do
LEAST_BLOCKS = 5
#: probabilities are clipped to these ends before they are scored: a forecast of never that comes true costs 9.2
FLOOR = 1e-4
#: scores are counted in at most so many steps where whole blocks are drawn again
STEPS = 4_000


class Value(NamedTuple):
    """A number and its 95 % interval; None where the sample does not define it."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def below_zero(self) -> bool | None:
        """Whether the whole interval lies below 0, the mean counts for nothing; None while unknown."""
        return None if self.high is None else self.high < 0

    @property
    def above_zero(self) -> bool | None:
        return None if self.low is None else self.low > 0


NOTHING = Value(None)


def log_losses(p: Floats, y: Bools) -> Floats:
    q = np.clip(p, FLOOR, 1 - FLOOR)
    return np.asarray(-np.log(np.where(y, q, 1 - q)))


def briers(p: Floats, y: Bools) -> Floats:
    return np.asarray((np.clip(p, FLOOR, 1 - FLOOR) - y) ** 2)


class Blocks:
    """Observations by blocks of 28 days from the first decision time, and the draws that all intervals share."""

    def __init__(self, times: Ints, first: int, seed: int = 0) -> None:
        """Take the time of each observation and the first decision time, unix seconds."""
        names, self.of = np.unique((times - first) // BLOCK_SECONDS, return_inverse=True)
        self.count = len(names)
        rng = np.random.Generator(np.random.PCG64(seed))
        chosen = rng.integers(0, max(self.count, 1), (RESAMPLES, self.count))
        self.weights = np.zeros((RESAMPLES, self.count))
        np.add.at(self.weights, (np.arange(RESAMPLES)[:, None], chosen), 1.0)

    def mean(self, values: Floats) -> Value:
        """The mean of one value an observation."""
        if not len(values):
            return NOTHING
        sums, counts = self.sums(values), np.bincount(self.of, minlength=self.count)
        with np.errstate(invalid="ignore", divide="ignore"):
            return interval(float(values.mean()), self.weights @ sums / (self.weights @ counts), self.count)

    def ratio(self, top: Floats, bottom: Floats) -> Value:
        """The sum of one value over the sum of another."""
        if not bottom.sum():
            return NOTHING
        with np.errstate(invalid="ignore", divide="ignore"):
            again = (self.weights @ self.sums(top)) / (self.weights @ self.sums(bottom))
        return interval(float(top.sum() / bottom.sum()), again, self.count)

    def sums(self, values: Floats) -> Floats:
        return np.asarray(np.bincount(self.of, weights=values, minlength=self.count), np.float64)

    def statistic(self, function: Callable[..., float], *samples: Floats) -> Value:
        """Any statistic of observations drawn again block by block: for few of them, such as episodes."""
        if not len(self.of):
            return NOTHING
        members = [np.flatnonzero(self.of == block) for block in range(self.count)]
        again = []
        for weights in self.weights.astype(int):
            drawn = np.concatenate([np.tile(members[b], weights[b]) for b in np.flatnonzero(weights)])
            again.append(function(*(sample[drawn] for sample in samples)))
        return interval(function(*samples), np.array(again), self.count)

    def ranked(self, score: Floats, y: Bools) -> "Ranked":
        return Ranked(self, score, y)


class Ranked:
    """Events and others by the step of their score, highest first, and by block: what AUC and precision need."""

    def __init__(self, blocks: Blocks, score: Floats, y: Bools) -> None:
        """Take one score (higher is worse) and whether the event came, an observation."""
        self.blocks = blocks
        order, of = np.unique(-score, return_inverse=True)
        if len(order) > STEPS:  # by rank: each step holds about as many observations
            ranks = np.searchsorted(np.sort(-score), -score)  # of equal scores the same
            of = np.unique(ranks * STEPS // len(score), return_inverse=True)[1]
        steps = int(of.max()) + 1 if len(of) else 1
        self.events = np.zeros((blocks.count, steps))
        self.others = np.zeros((blocks.count, steps))
        np.add.at(self.events, (blocks.of[y], of[y]), 1.0)
        np.add.at(self.others, (blocks.of[~y], of[~y]), 1.0)

    def auc(self) -> Value:
        """The chance that an event had the higher score than an observation without one; ties count half."""
        after = self.others.sum(axis=1, keepdims=True) - np.cumsum(self.others, axis=1)
        wins = self.events @ (after + self.others / 2).T
        events, others = self.events.sum(axis=1), self.others.sum(axis=1)
        if not events.sum() or not others.sum():
            return NOTHING
        w = self.blocks.weights
        with np.errstate(invalid="ignore", divide="ignore"):
            again = np.einsum("ri,ij,rj->r", w, wins, w, optimize=True) / ((w @ events) * (w @ others))
        return interval(float(wins.sum() / (events.sum() * others.sum())), again, self.blocks.count)

    def average_precision(self) -> Value:
        """Precision at each event's score, averaged over events."""
        if not self.events.sum():
            return NOTHING

        def of(events: Floats, others: Floats) -> Floats:
            hits, alarms = np.cumsum(events, axis=-1), np.cumsum(events + others, axis=-1)
            with np.errstate(invalid="ignore", divide="ignore"):
                precision = np.where(alarms > 0, hits / alarms, 0.0)
                return np.asarray((precision * events).sum(axis=-1) / events.sum(axis=-1))

        ends = np.flatnonzero(self.events.any(axis=0))  # only a step with an event is asked for its precision
        begins = np.concatenate([[0], ends[:-1] + 1])
        events, others = (
            np.add.reduceat(counts[:, : ends[-1] + 1], begins, axis=1) for counts in (self.events, self.others)
        )
        w = self.blocks.weights[:FEW_RESAMPLES]
        value = float(of(events.sum(axis=0), others.sum(axis=0)))
        return interval(value, of(w @ events, w @ others), self.blocks.count)


def interval(value: float, again: Floats, blocks: int) -> Value:
    """The value with the middle 95 % of what came of drawing blocks again; without it where they are too few."""
    known = again[np.isfinite(again)]
    if blocks < LEAST_BLOCKS or len(known) < len(again) // 2:
        return Value(value)
    low, high = np.quantile(known, (0.025, 0.975))
    return Value(value, float(low), float(high))


def threshold(score: Floats, load: float) -> float:
    """The lowest score at which at most the share `load` of observations are in alarm, in sample."""
    values, counts = np.unique(score, return_counts=True)
    shares = np.cumsum(counts[::-1])[::-1] / max(len(score), 1)
    fits = np.flatnonzero(shares <= load)
    return float(values[fits[0]]) if len(fits) else np.inf


#: edges of the bins of the reliability table
BINS = (0.0, 0.001, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


class Bin(NamedTuple):
    """Observations whose probability fell into one bin: their number, mean probability, frequency with its interval."""

    low: float
    high: float
    observations: int
    probability: float
    frequency: Value


def reliability(p: Floats, y: Bools, blocks: Blocks) -> list[Bin]:
    """The bins that hold anything."""
    which = np.clip(np.searchsorted(BINS, p, side="right") - 1, 0, len(BINS) - 2)
    found = []
    for number in range(len(BINS) - 1):
        here = which == number
        if here.any():
            frequency = blocks.ratio((y & here).astype(float), here.astype(float))
            found.append(Bin(BINS[number], BINS[number + 1], int(here.sum()), float(p[here].mean()), frequency))
    return found
