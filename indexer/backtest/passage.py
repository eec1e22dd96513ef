"""The baselines that need no simulation: a lognormal price that passes a barrier, with two estimates of its volatility."""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from indexer.forecast.model import BETWEEN_LOOKS, YEAR, Floats

EWMA = 0.98


def ewma(log_prices: Floats) -> Floats:
    """The standard deviation of an hour at each row, by an EWMA of squared hourly returns."""
    squares = np.diff(log_prices, prepend=log_prices[:1]) ** 2
    out, level = np.empty(len(squares)), float(squares[1:25].mean()) if len(squares) > 1 else 0.0
    for t, square in enumerate(squares):
        level = EWMA * level + (1 - EWMA) * float(square)
        out[t] = level
    return np.sqrt(out)


def static(log_prices: Floats) -> Floats:
    """The standard deviation of an hour at each row, over the last year or what there is of it."""
    returns = np.diff(log_prices, prepend=log_prices[:1])
    sums, squares = np.cumsum(returns), np.cumsum(returns**2)
    t = np.arange(len(returns))
    back = np.maximum(t - YEAR, 0)
    n = np.maximum(t - back, 1)
    mean = (sums - sums[back]) / n
    return np.asarray(np.sqrt(np.maximum((squares - squares[back]) / n - mean**2, 0.0)))


def passed(log_barrier: Floats, deviation: Floats | float, steps: int, *, watched_hourly: bool = False) -> Floats:
    """The chance that a driftless Brownian motion falls below a log barrier (negative: below now) within so many hours.

    `watched_hourly` moves the barrier away by what lies between two looks (Broadie, Glasserman and Kou 1997).
    """
    scale = np.maximum(np.asarray(deviation) * sqrt(max(steps, 0)), 1e-12)
    away = log_barrier - (BETWEEN_LOOKS * np.asarray(deviation) if watched_hourly else 0.0)
    return np.clip(2 * normal(away / scale), 0.0, 1.0)


def normal(x: Floats) -> Floats:
    """The standard normal distribution function, to 1.2e-7 (Numerical Recipes, erfcc)."""
    z = np.abs(x) / sqrt(2)
    t = 1 / (1 + z / 2)
    terms = (
        -1.26551223,
        1.00002368,
        0.37409196,
        0.09678418,
        -0.18628806,
        0.27886807,
        -1.13520398,
        1.48851587,
        -0.82215223,
        0.17087277,
    )
    series: NDArray[np.float64] = np.zeros_like(z)
    for term in reversed(terms):
        series = series * t + term
    tail = t * np.exp(-z * z + series) / 2
    return np.asarray(np.where(x < 0, tail, 1 - tail))
