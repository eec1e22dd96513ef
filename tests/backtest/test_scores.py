"""Scores, calibration and baselines against their definitions written out, and against exact answers."""

import math
from itertools import pairwise

import numpy as np
import pytest

from indexer.backtest import passage
from indexer.backtest.isotonic import expanding
from indexer.backtest.leads import EPISODE_SECONDS, episodes, hours
from indexer.backtest.scores import Blocks, log_losses, reliability, threshold
from indexer.backtest.vaults import Liquidation
from indexer.forecast.isotonic import fitted

DAY = 86_400


def sample(count: int = 400, seed: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties, events that follow them, and times over 20 blocks of four weeks."""
    rng = np.random.default_rng(seed)
    score = np.round(rng.beta(0.5, 3, count), 2)
    return score, rng.random(count) < score, np.sort(rng.integers(0, 20 * 28 * DAY, count))


def test_the_area_under_the_curve_is_the_share_of_pairs_in_the_right_order() -> None:
    score, y, times = sample()
    pairs = [(a > b) + (a == b) / 2 for a in score[y] for b in score[~y]]
    found = Blocks(times, 0).ranked(score, y).auc()
    assert found.value == pytest.approx(np.mean(pairs), rel=1e-12)
    assert found.low < found.value < found.high


def test_average_precision_is_the_precision_at_each_event() -> None:
    score, y, times = sample()
    expected = np.mean([y[score >= s].mean() for s in score[y]])
    assert Blocks(times, 0).ranked(score, y).average_precision().value == pytest.approx(expected, rel=1e-12)


def test_probabilities_are_clipped_before_they_are_scored() -> None:
    losses = log_losses(np.array([0.0, 0.0, 1.0, 0.25]), np.array([True, False, False, True]))
    assert losses.tolist() == pytest.approx([-math.log(1e-4), -math.log(1 - 1e-4), -math.log(1e-4), -math.log(0.25)])


def test_an_interval_draws_whole_blocks() -> None:
    """Values that are all alike within a block are as few as blocks, however many observations there are."""
    rng = np.random.default_rng(0)
    levels = rng.normal(size=20)
    times = np.repeat(np.arange(20) * 28 * DAY, 1_000)
    found = Blocks(times, 0).mean(np.repeat(levels, 1_000))
    spread = levels.std() / math.sqrt(20)
    assert found.value == pytest.approx(levels.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_an_interval_of_few_blocks_is_unknown_and_proves_nothing() -> None:
    few = Blocks(np.arange(4) * 28 * DAY, 0).mean(np.full(4, -1.0))
    assert (few.value, few.low, few.high, few.below_zero) == (-1.0, None, None, None)
    assert Blocks(np.array([], np.int64), 0).mean(np.array([])).value is None


def test_pooling_adjacent_violators_is_the_best_rising_fit() -> None:
    """Against the min-max formula of isotonic regression (Barlow et al. 1972)."""
    score, y, _ = sample(80)
    curve = fitted(score, y)
    values = np.unique(score)
    for value in values:
        lows, highs = values[values <= value], values[values >= value]
        expected = max(min(y[(score >= low) & (score <= high)].mean() for high in highs) for low in lows)
        assert curve(np.array([value]))[0] == pytest.approx(expected, abs=1e-12)


def test_calibration_knows_only_labels_that_had_ended() -> None:
    """Labels of the last 24 h before each refit change nothing in the month after it."""
    rng = np.random.default_rng(1)
    times = np.repeat(np.arange(0, 200 * DAY, DAY // 2), 40)
    score = rng.random(len(times))
    y = rng.random(len(times)) < score / 5
    before = expanding(score, y, times, 0, DAY)
    first = times[before.known].min()
    assert 30 * DAY <= first < 200 * DAY
    assert first % (30 * DAY) == 0
    changed = y.copy()
    changed[times + DAY > first] ^= True
    after = expanding(score, changed, times, 0, DAY)
    month = (times >= first) & (times < first + 30 * DAY)
    assert np.array_equal(before.probability[month], after.probability[month])
    assert not np.array_equal(
        before.probability[times >= first + 30 * DAY], after.probability[times >= first + 30 * DAY]
    )


def test_the_threshold_of_an_equal_load_never_alarms_more_often() -> None:
    score, _, _ = sample()
    for load in (0.02, 0.1, 0.5):
        level = threshold(score, load)
        assert (score >= level).mean() <= load
        assert (score >= max(s for s in score if s < level)).mean() > load
    assert threshold(np.zeros(5), 0.5) == np.inf


def test_a_bin_holds_the_mean_forecast_and_how_often_it_came() -> None:
    p = np.array([0.0, 0.0005, 0.02, 0.02, 0.3, 1.0])
    y = np.array([False, False, True, False, True, True])
    bins = reliability(p, y, Blocks(np.arange(6), 0))
    assert [(b.low, b.observations, b.probability, b.frequency.value) for b in bins] == [
        (0.0, 2, pytest.approx(0.00025), 0.0),
        (0.01, 2, pytest.approx(0.02), 0.5),
        (0.2, 1, pytest.approx(0.3), 1.0),
        (0.8, 1, 1.0, 1.0),
    ]


def test_first_passage_is_what_random_walks_do() -> None:
    """The reflection principle is exact in continuous time; the correction for hourly looks makes it so for walks."""
    walks = np.minimum.accumulate(np.random.default_rng(5).normal(0, 0.01, (40_000, 24)).cumsum(axis=1), axis=1)[:, -1]
    barriers = np.array([-0.02, -0.05, -0.08])
    seen = np.array([(walks < b).mean() for b in barriers])
    assert passage.passed(barriers, 0.01, 24, watched_hourly=True) == pytest.approx(seen, rel=0.06)
    assert all(passage.passed(barriers, 0.01, 24) > seen * 1.1)
    assert passage.passed(np.array([0.01]), 0.01, 24)[0] == 1
    x = np.linspace(-6, 6, 200)
    assert passage.normal(x) == pytest.approx([math.erfc(-v / math.sqrt(2)) / 2 for v in x], abs=1e-6)


def test_estimates_of_volatility_end_at_their_row() -> None:
    log = np.cumsum(np.random.default_rng(2).normal(0, 0.01, 20_000))
    planted = log.copy()
    planted[15_001:] -= 1
    for estimate in (passage.ewma, passage.static):
        assert np.array_equal(estimate(log)[:15_001], estimate(planted)[:15_001])
    assert passage.static(log)[19_999] == pytest.approx(np.diff(log)[-8_760:].std(), rel=1e-6)


def liquidation(at: int, vault: int = 1) -> Liquidation:
    return Liquidation(at, vault, 1.0, 1.0, True, 1.0, 1.3)


def test_an_episode_begins_a_week_after_the_last_liquidation_of_its_vault() -> None:
    at = [0, 100, EPISODE_SECONDS + 100, 2 * EPISODE_SECONDS + 101, 2 * EPISODE_SECONDS + 101]
    found = episodes([*map(liquidation, at[:4]), liquidation(at[4], 2)], 0, 10**9)
    assert [(one.at, one.vault) for one in found] == [(0, 1), (at[3], 1), (at[4], 2)]


def test_a_lead_is_the_time_an_alarm_was_on_without_a_break() -> None:
    times = np.arange(0, 40, 4) * 3_600
    alarm = np.zeros((10, 2), bool)
    alarm[[0, 1, 4, 5, 6], 0] = True
    happened = [liquidation(int(at * 3_600), vault) for at, vault in ((25, 1), (24, 1), (7, 1), (30, 1), (25, 2))]
    assert hours(alarm, times, {1: 0, 2: 1}, happened).tolist() == [9, 8, 7, 0, 0]
    assert all(a <= b for a, b in pairwise(times))
