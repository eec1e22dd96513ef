"""Invented positions under the real, joint prices of many symbols: collateral and debt mixed as on a lending market.

The prices are real and so is what they did; who held what is drawn by chance. It shows whether paths keep what prices do
together, and says nothing about any market's people.
"""

from collections.abc import Callable, Mapping

import numpy as np

from indexer.backtest.sample import Sample
from indexer.backtest.scores import Ints
from indexer.backtest.series import HOUR, Series
from indexer.forecast import model
from indexer.forecast.search import CONSTANT, Exposures, Paths, search

HORIZONS = (4, 24)
DAY = 86_400
POSITIONS = 100
#: hours of prices that every symbol has before the first decision
LEAST = 90 * 24
#: a symbol that moves less than this an hour (standard deviation) is no collateral that can fall
STABLE = 0.002
#: how often a side's part is dollars instead of a symbol, and how far health factors lie above 1 on average
DOLLARS_HELD, DOLLARS_OWED = 0.2, 0.5
ABOVE_ONE = 0.2


def moving(prices: Mapping[str, Series]) -> dict[str, Series]:
    """The symbols that move."""
    return {name: series for name, series in prices.items() if np.diff(series.log).std() > STABLE}


def decisions(prices: Mapping[str, Series], since: int | None, until: int | None, step: int) -> Ints:
    """Decision times at which every symbol has enough prices before and the longest horizon after."""
    least = max(series.first for series in prices.values()) + LEAST * HOUR
    begin = -(-max(least, since or 0) // DAY) * DAY
    end = min(series.last for series in prices.values()) - HORIZONS[-1] * HOUR
    return np.arange(begin, min(end, until or end), step, dtype=np.int64)


def invented(symbols: int, rng: np.random.Generator) -> Exposures:
    """Positions of up to 3 collaterals and 2 debts, dollars among them and perhaps the same on both sides."""
    starts, factors, limit, debt = [0], [], [], []
    for _ in range(POSITIONS):
        terms: dict[int, list[float]] = {}
        for side, most, dollars in ((0, 3, DOLLARS_HELD), (1, 2, DOLLARS_OWED)):
            names = rng.permutation(symbols)[: rng.integers(1, most + 1)]
            for name, share in zip(names, rng.dirichlet(np.ones(len(names))), strict=True):
                key = CONSTANT if rng.random() < dollars else int(name)
                terms.setdefault(key, [0.0, 0.0])[side] += float(share)
        health = 1 + rng.exponential(ABOVE_ONE)
        factors += [*terms]
        limit += [held * health for held, _ in terms.values()]
        debt += [owed for _, owed in terms.values()]
        starts.append(len(factors))
    limits, debts = np.array(limit), np.array(debt)
    return Exposures(np.array(starts), np.array(factors), limits, limits, debts, debts, np.zeros(POSITIONS))


def samples(
    prices: Mapping[str, Series], times: Ints, every: int, seed: int, paths: int, advance: Callable[[int], None]
) -> list[Sample]:
    """A sample a horizon: does any close of the hours after t make the position unsafe?"""
    symbols = sorted(prices)
    first = max(series.first for series in prices.values())
    last = min(series.last for series in prices.values())
    log = np.column_stack([prices[s].log[prices[s].row(first) : prices[s].row(last) + 1] for s in symbols])
    past = model.filtered(log)
    health, p, y = [], [], []
    for at in times:
        row = (int(at) - first) // HOUR
        rng = model.generator(seed, int(at))
        book = invented(len(symbols), rng)
        simulated = Paths(model.simulate(model.state(past, row), paths, HORIZONS[-1], rng))
        p.append(search(book, simulated, list(HORIZONS)).sure / paths)
        came = Paths((log[row + 1 : row + 1 + HORIZONS[-1]] - log[row]).T[:, None, :])
        y.append(search(book, came, list(HORIZONS)).sure > 0)
        health.append(np.add.reduceat(book.limit, book.starts[:-1]) / np.add.reduceat(book.debt, book.starts[:-1]))
        advance(1)
    shares, happened = np.concatenate(p), np.concatenate(y)
    return [
        Sample(
            name="invented positions", label="unsafe", every=every, horizon=horizon, first=int(times[0]),
            times=np.repeat(times, POSITIONS), health=np.concatenate(health), p=shares[:, k], y=happened[:, k], baselines={},
        )
        for k, horizon in enumerate(HORIZONS)
    ]  # fmt: skip
