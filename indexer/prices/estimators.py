"""How much a price moves, from the raw updates of its feed, which come when it moved and not by the clock.

Variances are sums of squared log returns per second; `annual` makes a volatility of them. Times are unix seconds, ascending.
Sampling a feed by the clock is wrong: the previous answer is up to a deviation old, which adds variance and hides correlation.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

YEAR = 365 * 86_400
HOUR = 3600
DAY = 86_400
#: the forecast's variance: weights of an hour's return, of the level it returns to, and of the return to it
RECENT, LONG, MEMORY = 0.94, 0.9995, 0.98
#: E|Z| of a standard normal, squared, inverted: what makes products of neighbouring moves a variance
BIPOWER = math.pi / 2
#: a move beyond so many local deviations is a jump
TRUNCATED_AT = 4.0


def returns(answers: Floats) -> Floats:
    """Log returns between consecutive answers."""
    return np.diff(np.log(answers))


def annual(variance: float, seconds: float) -> float | None:
    """The volatility a year of a variance that came together in so many seconds; None without time."""
    return math.sqrt(variance / seconds * YEAR) if seconds > 0 else None


def realised(answers: Floats) -> float:
    """The realised variance: the sum of squared returns of the raw updates."""
    return float(np.sum(returns(answers) ** 2))


def hourly(times: Times, answers: Floats) -> Floats:
    """The answer in force at each full hour since the first."""
    return answers[np.searchsorted(times, np.arange(times[0], times[-1] + 1, HOUR), side="right") - 1]


def bipower(times: Times, answers: Floats) -> float:
    """The variance without jumps, by products of neighbouring hours' moves; only for a feed that answers every hour.

    Zeros, as a slower feed has them, kill the products; raw updates all move by the deviation, which is not normal.
    """
    moves = np.abs(returns(hourly(times, answers)))
    if len(moves) < 2:
        return realised(answers)
    return float(BIPOWER * np.sum(moves[1:] * moves[:-1]) * len(moves) / (len(moves) - 1))


def truncated(times: Times, answers: Floats) -> float:
    """The variance without jumps, leaving out moves beyond four times what the time before them leads to expect.

    The yardstick is the median of squared moves per second, so jumps do not stretch it.
    """
    moves, gaps = returns(answers), np.maximum(np.diff(times), 1)
    if not len(moves):
        return 0.0
    rate = float(np.median(moves**2 / gaps)) / 0.455  # the median of a squared standard normal
    kept = np.abs(moves) <= TRUNCATED_AT * np.maximum(np.sqrt(rate * gaps), np.median(np.abs(moves)))
    return float(np.sum(moves[kept] ** 2))


def hayashi_yoshida(times: tuple[Times, Times], answers: tuple[Floats, Floats]) -> float | None:
    """The correlation of two prices that are updated at their own times; None where one of them never moved.

    Products of all moves whose intervals overlap (Hayashi and Yoshida 2005): nothing is lost by waiting for a common clock.
    """
    first, second = returns(answers[0]), returns(answers[1])
    if not len(first) or not len(second):
        return None
    sums = np.concatenate(([0.0], np.cumsum(second)))
    # of each interval (a, b] of the first, the intervals of the second that overlap it
    begin = np.searchsorted(times[1][1:], times[0][:-1], side="right")
    end = np.searchsorted(times[1][:-1], times[0][1:], side="left")
    product = float(np.sum(first * (sums[np.maximum(end, begin)] - sums[begin])))
    scale = math.sqrt(float(np.sum(first**2)) * float(np.sum(second**2)))
    return max(-1.0, min(1.0, product / scale)) if scale > 0 else None


def ewma(times: Times, answers: Floats, now: int) -> float | None:
    """The present variance per hour: squared moves, each forgotten with time, pulled to the level of months.

    In time, not per update: updates come in crowds. The weights are those of the forecast. None with fewer than two answers.
    """
    if len(answers) < 2:
        return None
    hours = (now - times[1:]) / HOUR
    squares = returns(answers) ** 2
    recent, level = (
        float(np.sum(squares * weight**hours)) * (1 - weight) / max(1 - weight ** ((now - int(times[0])) / HOUR), 1e-12)
        for weight in (RECENT, LONG)
    )
    return float(MEMORY * recent + (1 - MEMORY) * level)


def worst(times: Sequence[int], answers: Sequence[float], seconds: int) -> float:
    """The deepest fall within so many seconds, as a fraction: from any answer in force then to a later one. 0.0: none."""
    highest: deque[int] = deque()  # places of answers that may still be the highest within the time
    deepest = 0.0
    for place, (time, answer) in enumerate(zip(times, answers, strict=True)):
        # an answer counts until the next one replaces it, so the one before the window is in force at its beginning
        while highest and highest[0] + 1 < place and times[highest[0] + 1] <= time - seconds:
            highest.popleft()
        if highest:
            deepest = min(deepest, answer / answers[highest[0]] - 1)
        while highest and answers[highest[-1]] <= answer:
            highest.pop()
        highest.append(place)
    return deepest
