"""A feed with a known rule over prices by the minute: hourly closes, made finer by Brownian bridges from a fixed seed."""

import csv
import gzip
import math
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from tests.devnet.chainlink import REAL

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

MINUTE, MINUTES = 60, 60


@cache
def closes(symbol: str, first: int, days: int) -> Floats:
    """Real hourly closes; skips where they are absent."""
    path = REAL / f"{symbol}USDT_1h.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    with gzip.open(path, "rt") as file:
        rows = [(int(float(row["unix"])), float(row["close"])) for row in csv.DictReader(file)]
    return np.array([close for unix, close in rows if unix >= first][: days * 24])


def by_the_minute(hours: Floats, first: int, seed: int = 1, *, common: float = 0.0) -> tuple[Times, Floats]:
    """A price for each minute that passes through each hour's close, as volatile within as from hour to hour.

    `common` is the part of the minutes' variance that every series of the same seed shares.
    """
    logs = np.log(hours)
    deviation = float(np.std(np.diff(logs))) / math.sqrt(MINUTES)
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    walks = math.sqrt(common) * shared.normal(0, deviation, (len(logs) - 1, MINUTES))
    walks = np.cumsum(walks + math.sqrt(1 - common) * own.normal(0, deviation, walks.shape), axis=1)
    part = np.arange(1, MINUTES + 1) / MINUTES
    path = logs[:-1, None] + walks - part * walks[:, -1:] + part * np.diff(logs)[:, None]
    prices = np.exp(path.reshape(-1))
    return first + MINUTE * np.arange(1, len(prices) + 1), prices


def feed(times: Times, prices: Floats, deviation: float, heartbeat: int) -> tuple[Times, Floats]:
    """The rounds of a feed that updates after a move or a time, as Chainlink's rule says."""
    rounds = [0]
    for place in range(1, len(times)):
        last = rounds[-1]
        if times[place] - times[last] >= heartbeat or abs(prices[place] / prices[last] - 1) >= deviation:
            rounds.append(place)
    return times[rounds], prices[rounds]
