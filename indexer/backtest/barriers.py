"""Prices alone: the chance that a price falls by 1 to 30 % within a horizon, against what it did. No positions needed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from indexer.backtest import passage
from indexer.backtest.scores import Blocks, Bools, Ints, Value, log_losses
from indexer.backtest.series import HOUR, Series
from indexer.forecast import model
from indexer.forecast.model import Floats

#: falls in per cent that the score averages, and those whose mean probability is held against their frequency
SCORED = (1, 2, 3, 5, 7, 10, 15, 20, 30)
FALLS = tuple(range(1, 31))
HORIZONS = (4, 24, 168)
DAY = 86_400
#: hours of prices that the first decision has behind it: half a year of moves to draw from
LEAST = 180 * 24


class Barrier(NamedTuple):
    """One symbol and horizon: log losses, the model's difference to each baseline, and how far its mean p is off.

    `gap` is the largest |mean p - frequency| of falls from 2 % on, at a fall of `gap_at` per cent.
    """

    symbol: str
    horizon: int
    times: int
    first: int
    last: int
    model: Value
    baselines: dict[str, Value]
    differences: dict[str, Value]
    gap: float
    gap_at: int


def decisions(series: Series, since: int | None, until: int | None, step: int) -> Ints:
    """Decision times with enough prices before, the longest horizon after, and none that helped to choose the model."""
    least = max(series.first + LEAST * HOUR, model.CHOSEN_UNTIL)
    begin = -(-max(least, since or 0) // DAY) * DAY
    end = series.last - HORIZONS[-1] * HOUR
    return np.arange(begin, min(end, until or end), step, dtype=np.int64)


def judged(
    symbol: str, series: Series, times: Ints, seed: int, paths: int, advance: Callable[[int], None] = lambda _: None
) -> Sequence[Barrier]:
    """Forecast at each time from the prices up to it, and score what came: one `Barrier` a horizon."""
    past = model.filtered(series.log[:, None])
    deviations = {"static": passage.static(series.log), "EWMA": passage.ewma(series.log)}
    barriers = np.log1p(-np.array(FALLS) / 100)
    p = np.empty((len(HORIZONS), len(times), len(FALLS)))
    y = np.empty(p.shape, bool)
    for number, at in enumerate(times):
        row = series.row(int(at))
        simulated = model.simulate(model.state(past, row), paths, HORIZONS[-1], model.generator(seed, int(at)))
        lowest = np.minimum.accumulate(series.log[row + 1 : row + 1 + HORIZONS[-1]]) - series.log[row]
        for k, minima in enumerate(model.minima(simulated[0], list(HORIZONS))):
            p[k, number] = model.chance(minima, barriers)
            y[k, number] = lowest[HORIZONS[k] - 1] < barriers
        advance(1)
    rows = (times - series.first) // HOUR
    blocks = Blocks(times, int(times[0]))
    return [
        scored(
            symbol, times, HORIZONS[k], p[k], y[k], blocks, {name: d[rows] for name, d in deviations.items()}, barriers
        )
        for k in range(len(HORIZONS))
    ]


def scored(
    symbol: str,
    times: Ints,
    horizon: int,
    p: Floats,
    y: Bools,
    blocks: Blocks,
    deviations: dict[str, Floats],
    barriers: Floats,
) -> Barrier:
    columns = [fall - 1 for fall in SCORED]

    def loss(q: Floats) -> Floats:
        return np.asarray(log_losses(q[:, columns], y[:, columns]).mean(axis=1))

    given = {name: passage.passed(barriers, d[:, None], horizon) for name, d in deviations.items()}
    given["EWMA hourly"] = passage.passed(barriers, deviations["EWMA"][:, None], horizon, watched_hourly=True)
    given["climatology"] = np.broadcast_to(y.mean(axis=0), p.shape)
    own = loss(p)
    gaps = np.abs(p.mean(axis=0) - y.mean(axis=0))[1:]
    return Barrier(
        symbol=symbol,
        horizon=horizon,
        times=len(times),
        first=int(times[0]),
        last=int(times[-1]),
        model=blocks.mean(own),
        baselines={name: blocks.mean(loss(q)) for name, q in given.items()},
        differences={name: blocks.mean(own - loss(q)) for name, q in given.items()},
        gap=float(gaps.max()),
        gap_at=int(gaps.argmax()) + 2,
    )
