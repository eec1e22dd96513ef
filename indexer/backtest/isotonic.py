"""Isotonic regression by pooling adjacent violators, and its expanding form: refitted on labels that had ended before."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.backtest.scores import Bools, Ints
from indexer.forecast.model import Floats

REFIT_SECONDS = 30 * 86_400
LEAST_ROWS, LEAST_EVENTS = 3_000, 20


class Curve(NamedTuple):
    """A step of a fit for each pool, as its first and last score, with the frequency there."""

    scores: Floats
    frequencies: Floats

    def __call__(self, score: Floats) -> Floats:
        """The frequency at each score; linear between pools, level beyond the ends."""
        return np.interp(score, self.scores, self.frequencies)


def fitted(score: Floats, y: Bools) -> Curve:
    """The rising fit of least squares of whether an event came on a score (pool adjacent violators)."""
    values, of = np.unique(score, return_inverse=True)
    counts = np.bincount(of).astype(float)
    events = np.bincount(of, weights=y)
    # neighbours with the same frequency never part, so they are one from the start
    new = np.concatenate([[True], np.diff(events / counts) != 0])
    group = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    last = np.concatenate([first[1:], [len(values)]]) - 1
    pools: list[list[float]] = []  # events, count, first, last
    for events_, count, begin, end in zip(
        np.bincount(group, weights=events), np.bincount(group, weights=counts), values[first], values[last], strict=True
    ):
        pools.append([float(events_), float(count), float(begin), float(end)])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            above = pools.pop()
            pools[-1] = [pools[-1][0] + above[0], pools[-1][1] + above[1], pools[-1][2], above[3]]
    ends = np.array([[pool[2], pool[3]] for pool in pools]).ravel()
    return Curve(ends, np.repeat([pool[0] / pool[1] for pool in pools], 2))


class Calibrated(NamedTuple):
    """Per observation the calibrated probability and the climatology, NaN before there was enough to fit."""

    probability: Floats
    climatology: Floats

    @property
    def known(self) -> NDArray[np.bool_]:
        return np.isfinite(self.probability)


def expanding(score: Floats, y: Bools, times: Ints, first: int, horizon: int) -> Calibrated:
    """Refit every 30 days on the observations whose label, `horizon` seconds long, had ended by then."""
    probability, climatology = np.full(len(score), np.nan), np.full(len(score), np.nan)
    months = (times - first) // REFIT_SECONDS
    for month in np.unique(months):
        past = times + horizon <= first + month * REFIT_SECONDS
        if past.sum() < LEAST_ROWS or y[past].sum() < LEAST_EVENTS:
            continue
        now = months == month
        probability[now] = fitted(score[past], y[past])(score[now])
        climatology[now] = y[past].mean()
    return Calibrated(probability, climatology)
