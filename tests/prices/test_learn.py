"""The rule that is learnt from a simulated feed is the rule by which it was made, and unknown where it cannot be told."""

import numpy as np
import pytest

from indexer.prices import learn as learning
from indexer.prices.tables import Learnt
from tests.prices.simulated import Floats, Times, by_the_minute, closes, feed

FIRST = {"ETH": 1_726_000_000, "BTC": 1_726_000_000, "LINK": 1_650_000_000, "CRV": 1_650_000_000}
DAYS = 90


def rounds(symbol: str, deviation: float, heartbeat: int, seed: int = 1) -> tuple[Times, Floats]:
    first = FIRST[symbol]
    return feed(*by_the_minute(closes(symbol, first, DAYS), first, seed), deviation, heartbeat)


def learn(times: Times, answers: Floats) -> Learnt:
    return learning.learn(times.tolist(), answers.tolist())


@pytest.mark.parametrize("symbol", ["ETH", "BTC", "LINK"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_feed_of_half_a_percent_and_an_hour_is_learnt(symbol: str, seed: int) -> None:
    rule = learn(*rounds(symbol, 0.005, 3_600, seed))
    assert 3_500 <= (rule.heartbeat_seconds or 0) <= 3_700
    assert 45 <= (rule.deviation_bps or 0) <= 55


def test_late_blocks_and_oracles_that_disagree_change_little() -> None:
    times, answers = rounds("ETH", 0.005, 3_600)
    chance = np.random.default_rng(3)
    late = times + chance.integers(0, 40, len(times))
    blurred = answers * (1 + chance.normal(0, 0.00005, len(answers)))
    rule = learn(late, blurred)
    assert 3_500 <= (rule.heartbeat_seconds or 0) <= 3_700
    assert 45 <= (rule.deviation_bps or 0) <= 55


@pytest.mark.parametrize("symbol", ["LINK", "CRV"])
def test_a_heartbeat_that_no_gap_comes_near_is_unknown_and_the_deviation_is_not(symbol: str) -> None:
    times, answers = rounds(symbol, 0.01, 86_400)
    assert max(np.diff(times)) < 14 * 3_600
    rule = learn(times, answers)
    assert rule.heartbeat_seconds is None
    assert 95 <= (rule.deviation_bps or 0) <= 105


def test_a_deviation_that_nothing_reaches_is_unknown_and_the_heartbeat_is_not() -> None:
    first = FIRST["ETH"]
    hours = closes("ETH", first, DAYS)
    rule = learn(first + 3_600 * np.arange(len(hours)), hours)  # every round is a heartbeat
    assert rule == (3_600, None)


def test_a_few_rounds_tell_nothing() -> None:
    assert learning.learn([0, 3_600, 7_200], [1.0, 1.0, 1.0]) == (None, None)
    assert learning.learn([], []) == (None, None)


def test_an_outage_is_no_heartbeat() -> None:
    times, answers = rounds("ETH", 0.005, 3_600)
    times = times.copy()
    times[len(times) // 2 :] += 20_000
    rule = learn(times, answers)
    assert 3_500 <= (rule.heartbeat_seconds or 0) <= 3_700
