"""The expanding form of isotonic regression: refitted on labels that had ended before."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.backtest.scores import Bools, Ints
from indexer.forecast.isotonic import fitted
from indexer.forecast.model import Floats

REFIT_SECONDS = 30 * 86_400
LEAST_ROWS, LEAST_EVENTS = 3_000, 20


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
