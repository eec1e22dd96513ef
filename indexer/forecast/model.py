"""Filtered historical simulation: joint paths of prices by the hour, from their own past alone.

v_t = PHI * (LAMBDA * v_{t-1} + (1 - LAMBDA) * r_t^2) + (1 - PHI) * s_t is the variance of one hour's log return r, s_t its
slow average, z_t = r_t / sqrt(v_{t-1}). A path draws blocks of the past year's joint rows z and rebuilds returns from them
with the present variance: blocks keep fat tails, correlation, and the lag of one oracle behind another (Barone-Adesi,
Giannopoulos and Vosper 1999; Politis and Romano 1994).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LAMBDA, PHI, SLOW = 0.94, 0.98, 0.9995
MEAN_BLOCK = 24
YEAR = 8_760
#: hours of returns before a z is of use; hours from which a factor stands on its own; hours below which it has no forecast
BURN_IN, GROWN_UP, LEAST = 24, 60 * 24, 30 * 24
#: LAMBDA and PHI were chosen on prices of ETH and BTC before this: 2020-10-20
CHOSEN_UNTIL = 1_603_152_000
#: a standard deviation of 100 % an hour: beyond, paths leave the range of floats and say nothing more
HIGHEST_VARIANCE = 1.0
HIGHEST_LOG = 50.0
#: zeta(1/2) / sqrt(2 pi), Broadie, Glasserman and Kou 1997: how far the minimum between two looks lies below the lower one
BETWEEN_LOOKS = 0.5826
#: up to this horizon the hours between two points of the grid matter
SHORT_HOURS = 4
NAME = f"fhs lambda={LAMBDA} phi={PHI} slow={SLOW} block={MEAN_BLOCK}h window={YEAR}h PCG64"
#: the same with what looks by the hour miss
WATCHED_NAME = f"{NAME} bgk={BETWEEN_LOOKS}/{SHORT_HOURS}h"


class Filtered(NamedTuple):
    """Of T hourly prices of F factors, all (T, F): z and the variances per hour known at each time; NaN while unknown."""

    z: Floats
    variance: Floats
    slow: Floats


@dataclass(frozen=True, slots=True)
class State:
    """What a simulation starts from: `variance` and `slow` (F,) per hour, `rows` (N, F) of z, the latest last.

    `age` (F,) is the hours of own returns within the year: below LEAST there is no forecast, below GROWN_UP its history is
    short. `known` (F,) is the first log return where it is on the chain already and only waits (Maker's OSM), else NaN.
    """

    variance: Floats
    slow: Floats
    rows: Floats
    age: NDArray[np.int64]
    known: Floats


def hourly(times: NDArray[np.int64], prices: Floats, until: int, hours: int) -> Floats:
    """The price in force at each of `hours` + 1 full steps of an hour that end at `until`; NaN before the first.

    `times` are the unix seconds from which each price was in force, ascending; later ones than `until` are not looked at.
    """
    grid = until - 3_600 * np.arange(hours, -1, -1, dtype=np.int64)
    at = np.searchsorted(times, grid, side="right") - 1
    return np.where(at >= 0, prices[np.maximum(at, 0)], np.nan) if len(times) else np.full(hours + 1, np.nan)


def filtered(log_prices: Floats) -> Filtered:
    """Filter hourly log prices (T, F), NaN before a factor's first; nothing at a time depends on a later row."""
    returns = np.diff(log_prices, axis=0, prepend=np.nan)
    now = np.isfinite(returns)
    moves = np.where(now, returns, 0.0)
    squares, seen = moves * moves, np.cumsum(now, axis=0)
    gain = 1 / np.maximum(seen, 1)  # an average while there are few returns
    gains = np.where(now, np.maximum(gain, 1 - SLOW), 0.0), np.maximum(gain, 1 - LAMBDA)
    fast, slow = np.zeros(returns.shape[1]), np.zeros(returns.shape[1])
    variance, slows = np.empty(returns.shape), np.empty(returns.shape)
    everyone = np.logical_and.reduce(now, axis=1)
    for t, square in enumerate(squares):
        slow = slow + gains[0][t] * (square - slow)
        ewma = fast + gains[1][t] * (square - fast)
        moved = np.minimum(PHI * ewma + (1 - PHI) * slow, HIGHEST_VARIANCE)
        fast = moved if everyone[t] else np.where(now[t], moved, fast)
        variance[t], slows[t] = fast, slow
    before = np.vstack([np.zeros((1, returns.shape[1])), variance])[: len(returns)]
    z = np.divide(moves, np.sqrt(before), out=np.zeros_like(moves), where=before > 0)
    unknown = seen == 0
    return Filtered(
        np.where(now & (seen - now >= BURN_IN), z, np.nan),
        np.where(unknown, np.nan, variance),
        np.where(unknown, np.nan, slows),
    )


def state(past: Filtered, at: int, donors: NDArray[np.int64] | None = None, known: Floats | None = None) -> State:
    """What is known at row `at` of a filtered past: its variances and the z of the year up to it.

    `donors` (F,) is the index of the factor whose z a younger one borrows where it has none; its own index: none to
    borrow from, and its own z are repeated, without their correlation to others.
    """
    rows = past.z[max(at + 1 - YEAR, 0) : at + 1].copy()
    own = np.isfinite(rows)
    rows = rows[own.any(axis=1)] if rows.size else rows
    own = np.isfinite(rows)
    count = past.z.shape[1]
    givers = np.arange(count) if donors is None else donors
    filled = rows.copy()
    for factor in range(count):
        missing = ~own[:, factor]
        if missing.any():
            filled[missing, factor] = rows[missing, givers[factor]]
            still = np.isnan(filled[:, factor])
            mine = rows[own[:, factor], factor]
            filled[still, factor] = np.resize(mine[::-1], int(still.sum()))[::-1] if len(mine) else 0.0
    return State(
        variance=np.nan_to_num(past.variance[at]),
        slow=np.nan_to_num(past.slow[at]),
        rows=filled,
        age=own.sum(axis=0) + BURN_IN,
        known=np.full(count, np.nan) if known is None else known,
    )


def draws(rng: np.random.Generator, rows: int, paths: int, steps: int) -> NDArray[np.int64]:
    """Row numbers (paths, steps) of a stationary block bootstrap: a new block begins with probability 1 / MEAN_BLOCK.

    First blocks begin in equal parts of the past, one a path: each may begin anywhere, and shares of paths vary as little as
    with about twice as many.
    """
    fresh = rng.random((paths, steps), dtype=np.float32) < 1 / MEAN_BLOCK
    fresh[:, 0] = True
    path, step = np.nonzero(fresh)
    starts = rng.integers(0, rows, len(path))
    starts[step == 0] = ((np.arange(paths) + rng.random(paths)) * (rows / paths)).astype(np.int64)
    block = np.cumsum(fresh.ravel()) - 1
    return np.asarray(((starts - step)[block].reshape(paths, steps) + np.arange(steps)) % rows)


def simulate(start: State, paths: int, steps: int, rng: np.random.Generator) -> Floats:
    """Log prices relative to now, (F, paths, steps): step k, from 0, is k + 1 hours ahead. Source of chance: `rng` alone."""
    factors = len(start.variance)
    out = np.zeros((factors, paths, steps))
    if not len(start.rows):
        return out
    chosen = np.ascontiguousarray(draws(rng, len(start.rows), paths, steps).T)  # a step's paths lie side by side
    for factor in range(factors):
        moves = np.ascontiguousarray(start.rows[:, factor])[chosen]
        variance = np.full(paths, start.variance[factor])
        pull = (1 - PHI) * start.slow[factor]
        for step in range(steps):
            move = moves[step]
            move *= np.sqrt(variance)
            if step == 0 and np.isfinite(start.known[factor]):
                move[:] = start.known[factor]
            variance *= PHI * LAMBDA
            variance += PHI * (1 - LAMBDA) * move * move + pull
            np.minimum(variance, HIGHEST_VARIANCE, out=variance)
        out[factor] = np.clip(np.cumsum(moves, axis=0), -HIGHEST_LOG, HIGHEST_LOG).T
    return out


def generator(seed: int, at: int = 0) -> np.random.Generator:
    """The generator of a forecast made at `at` (unix seconds): PCG64, one stream a seed and time."""
    return np.random.Generator(np.random.PCG64([seed, at]))


def missed_between_hours(variance: Floats, updates: Floats) -> Floats:
    """How far below the lowest look by the hour the lowest answer lies, in log price: BETWEEN_LOOKS deviations of a price
    that moves all the time, and less of an oracle that answers `updates` times an hour; 0 up to once an hour.

    `variance` is per hour. The lowest of n looks an hour is itself BETWEEN_LOOKS * sqrt(variance / n) above that of all times.
    """
    return BETWEEN_LOOKS * np.sqrt(variance) * (1 - 1 / np.sqrt(np.maximum(updates, 1.0)))


def minima(log_paths: Floats, horizons: list[int], *, delayed: bool = False) -> Floats:
    """Sorted running minima of one factor's paths (paths, steps) up to each horizon in hours: (horizons, paths).

    `delayed` is an oracle that puts a price in force an hour after it knows it: 1 hour ahead is the price of now.
    """
    lowest = np.minimum.accumulate(log_paths, axis=1)
    if delayed:
        lowest = np.concatenate([np.zeros((len(lowest), 1)), np.minimum(lowest, 0.0)], axis=1)
    return np.sort(np.stack([lowest[:, hours - 1] for hours in horizons]), axis=1)


def chance(sorted_minima: Floats, log_barrier: Floats) -> Floats:
    """The share of paths whose minimum lies below each barrier, a log price relative to now."""
    return np.searchsorted(sorted_minima, log_barrier, side="left") / len(sorted_minima)
