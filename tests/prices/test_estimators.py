"""Estimators against the truth behind a simulated feed: the price by the minute that its rounds were made of."""

import math

import numpy as np
import pytest

from indexer.prices.estimators import (
    DAY,
    HOUR,
    annual,
    bipower,
    ewma,
    hayashi_yoshida,
    hourly,
    realised,
    returns,
    truncated,
    worst,
)
from tests.prices.simulated import Floats, Times, by_the_minute, closes, feed

FIRST, DAYS = 1_620_000_000, 90
RULES = {"ETH": (0.005, HOUR), "BTC": (0.005, HOUR), "LINK": (0.01, HOUR), "AAVE": (0.01, DAY)}


def truth(symbol: str, **how: float) -> tuple[Times, Floats]:
    return by_the_minute(closes(symbol, FIRST, DAYS), FIRST, seed=len(symbol) + ord(symbol[0]), **how)


@pytest.mark.parametrize("symbol", RULES)
def test_raw_updates_have_the_variance_of_the_price_behind_them(symbol: str) -> None:
    times, prices = truth(symbol)
    rounds = feed(times, prices, *RULES[symbol])
    five_minutes = float(np.sum(returns(prices[::5]) ** 2))
    assert 0.9 <= realised(rounds[1]) / five_minutes <= 1.05


@pytest.mark.parametrize("symbol", RULES)
def test_without_jumps_both_estimators_are_near_the_variance_and_a_jump_changes_them_little(symbol: str) -> None:
    times, prices = truth(symbol)
    jumped = prices.copy()
    jumped[len(prices) // 2 :] *= 0.7  # at once
    calm, wild = (feed(times, path, *RULES[symbol]) for path in (prices, jumped))
    estimator = bipower if RULES[symbol][1] == HOUR else truncated
    five_minutes = float(np.sum(returns(prices[::5]) ** 2))
    assert 0.75 <= estimator(*calm) / five_minutes <= 1.05
    jump = math.log(0.7) ** 2
    assert realised(wild[1]) - realised(calm[1]) == pytest.approx(jump, rel=0.1)
    assert estimator(*wild) - estimator(*calm) < 0.25 * jump


def test_zeros_kill_bipower_on_a_slow_feed() -> None:
    rounds = feed(*truth("BTC"), 0.03, DAY)
    assert bipower(*rounds) < 0.5 * realised(rounds[1])


@pytest.mark.parametrize("symbol", ["BTC", "LINK"])
def test_correlation_survives_updates_at_different_times_and_hourly_sampling_loses_it(symbol: str) -> None:
    paths = [truth(name, common=0.8) for name in ("ETH", symbol)]
    exact = float(np.corrcoef(returns(paths[0][1][::5]), returns(paths[1][1][::5]))[0, 1])
    rounds = [feed(*path, *RULES[name]) for path, name in zip(paths, ("ETH", symbol), strict=True)]
    found = hayashi_yoshida((rounds[0][0], rounds[1][0]), (rounds[0][1], rounds[1][1]))
    assert found == pytest.approx(exact, abs=0.06)
    grids, hours = [returns(hourly(*one)) for one in rounds], [returns(path[1][::60]) for path in paths]
    length = min(map(len, [*grids, *hours]))
    sampled, real = (float(np.corrcoef(a[:length], b[:length])[0, 1]) for a, b in (grids, hours))
    assert sampled < real - 0.02


def test_hayashi_yoshida_is_the_sum_over_all_overlapping_intervals() -> None:
    chance = np.random.default_rng(1)
    # so close together that many intervals of one end where one of the other begins
    times = [np.sort(chance.choice(np.arange(1, 200), 90, replace=False)) for _ in range(2)]
    prices = [np.exp(np.cumsum(chance.normal(0, 0.01, 90))) for _ in range(2)]
    moves = [np.diff(np.log(one)) for one in prices]
    product = sum(
        moves[0][i] * moves[1][j]
        for i in range(89)
        for j in range(89)
        if min(times[0][i + 1], times[1][j + 1]) > max(times[0][i], times[1][j])
    )
    expected = product / math.sqrt(sum(moves[0] ** 2) * sum(moves[1] ** 2))
    assert abs(expected) < 1
    assert hayashi_yoshida((times[0], times[1]), (prices[0], prices[1])) == pytest.approx(expected, abs=1e-12)


def test_a_price_with_itself_correlates_wholly_and_one_that_stands_still_not_at_all() -> None:
    rounds = feed(*truth("ETH"), *RULES["ETH"])
    assert hayashi_yoshida((rounds[0], rounds[0]), (rounds[1], rounds[1])) == pytest.approx(1)
    still = np.ones(len(rounds[0]))
    assert hayashi_yoshida((rounds[0], rounds[0]), (rounds[1], still)) is None


def test_the_present_level_forgets_with_time_and_not_with_updates() -> None:
    chance, hours = np.random.default_rng(5), 4_000
    moves = chance.normal(0, 0.01, hours)
    moves[-48:] *= 3
    times, prices = HOUR * np.arange(hours + 1), np.exp(np.concatenate(([0.0], np.cumsum(moves))))
    now = int(times[-1])
    level = ewma(times, prices, now)
    assert level is not None
    assert 0.02 < math.sqrt(level) < 0.04  # the last two days, three times as wild as the months before
    doubled = np.repeat(times, 2), np.repeat(prices, 2)  # each answer twice: more updates, no more moves
    assert ewma(*doubled, now) == pytest.approx(level)
    later = ewma(times, prices, now + 10 * DAY)
    assert later is not None
    assert later < level / 5


def test_one_answer_has_no_level() -> None:
    assert ewma(np.array([1]), np.array([1.0]), 2) is None


def test_a_volatility_is_told_by_the_year() -> None:
    assert annual(0.01**2, DAY) == pytest.approx(0.01 * math.sqrt(365))
    assert annual(1.0, 0) is None


@pytest.mark.parametrize(("hours", "deepest"), [(1, -0.1), (3, -0.271), (9, -0.28)])
def test_the_worst_fall_is_from_any_answer_in_force_within_the_time(hours: int, deepest: float) -> None:
    times = [0, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR, 5 * HOUR]
    answers = [90.0, 100.0, 90.0, 81.0, 72.9, 72.0]
    assert worst(times, answers, hours * HOUR) == pytest.approx(deepest)


def test_the_answer_in_force_at_the_beginning_of_the_hour_counts() -> None:
    """It was answered long before, and still was the price when the hour began."""
    assert worst([0, 10 * HOUR], [100.0, 80.0], HOUR) == pytest.approx(-0.2)
    assert worst([0, 10], [100.0, 120.0], HOUR) == 0.0
