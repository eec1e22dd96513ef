"""Isotonic regression by pooling adjacent violators (Barlow et al. 1972)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.forecast.model import Floats


class Curve(NamedTuple):
    """A step of a fit for each pool, as its first and last score, with the frequency there."""

    scores: Floats
    frequencies: Floats

    def __call__(self, score: Floats) -> Floats:
        """The frequency at each score; linear between pools, level beyond the ends."""
        return np.interp(score, self.scores, self.frequencies)


def fitted(score: Floats, y: NDArray[np.bool_]) -> Curve:
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
