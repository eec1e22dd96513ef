"""The model of prices: its recursion, what it knows when, and paths that keep what the past had."""

import math

import numpy as np
import pytest

from indexer.forecast import model

HOURS = 3_000


def prices(factors: int = 2, seed: int = 3) -> model.Floats:
    """Log prices of a random walk whose factors move together."""
    rng = np.random.default_rng(seed)
    common, own = rng.standard_t(4, (HOURS, 1)), rng.standard_t(4, (HOURS, factors))
    return np.cumsum(0.004 * (0.8 * common + 0.6 * own), axis=0)


def test_the_filter_is_the_recursion_step_by_step() -> None:
    """Against the formula written out in plain floats; the first average is that of the returns so far."""
    log_prices = prices(1)[:400]
    found = model.filtered(log_prices)
    fast = slow = 0.0
    for t in range(1, len(log_prices)):
        r = log_prices[t, 0] - log_prices[t - 1, 0]
        if t > model.BURN_IN:
            assert found.z[t, 0] == pytest.approx(r / math.sqrt(fast), rel=1e-12)
        else:
            assert np.isnan(found.z[t, 0])
        slow += max(1 / t, 0.0005) * (r * r - slow)
        fast = 0.98 * (fast + max(1 / t, 0.06) * (r * r - fast)) + 0.02 * slow
        assert found.variance[t, 0] == pytest.approx(fast, rel=1e-12)
        assert found.slow[t, 0] == pytest.approx(slow, rel=1e-12)


def test_a_later_price_changes_nothing_that_was_known_before() -> None:
    log_prices = prices()
    planted = log_prices.copy()
    planted[2_001:] -= math.log(2)
    one, other = (model.state(model.filtered(these), 2_000) for these in (log_prices, planted))
    paths = [model.simulate(start, 50, 24, model.generator(1)) for start in (one, other)]
    assert np.array_equal(*paths)
    after = model.simulate(model.state(model.filtered(planted), 2_001), 50, 24, model.generator(1))
    assert not np.array_equal(paths[0], after)


def test_the_same_seed_gives_the_same_digits_and_another_does_not() -> None:
    start = model.state(model.filtered(prices()), HOURS - 1)
    first, again, other = (model.simulate(start, 20, 30, model.generator(seed)) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_constant_prices_never_move() -> None:
    start = model.state(model.filtered(np.zeros((HOURS, 2))), HOURS - 1)
    paths = model.simulate(start, 100, 168, model.generator(0))
    assert not paths.any()
    assert model.chance(model.minima(paths[0], [168])[0], np.array([-1e-9]))[0] == 0


def test_paths_keep_the_variance_and_the_correlation_of_the_past() -> None:
    log_prices = prices()
    start = model.state(model.filtered(log_prices), HOURS - 1)
    moves = np.diff(model.simulate(start, 4_000, 24, model.generator(2)), axis=2, prepend=0.0)
    past = np.diff(log_prices, axis=0)
    assert np.corrcoef(moves[0].ravel(), moves[1].ravel())[0, 1] == pytest.approx(np.corrcoef(past.T)[0, 1], abs=0.05)
    assert moves.std() == pytest.approx(past.std(), rel=0.35)


def test_blocks_are_runs_of_the_past_of_24_hours_on_average_that_wrap_at_its_end() -> None:
    rows = model.draws(model.generator(5), 500, 400, 200)
    assert rows.min() == 0
    assert rows.max() == 499
    follows = (rows[:, 1:] - rows[:, :-1]) % 500 == 1
    assert 1 / (1 - follows.mean()) == pytest.approx(24, rel=0.06)


def test_a_factor_that_follows_another_an_hour_later_does_so_on_the_paths() -> None:
    leader = prices(1)
    both = np.column_stack([leader, np.roll(leader, 1)])[1:]
    start = model.state(model.filtered(both), len(both) - 1)
    moves = np.diff(model.simulate(start, 500, 48, model.generator(2)), axis=2, prepend=0.0)
    assert np.corrcoef(moves[0, :, :-1].ravel(), moves[1, :, 1:].ravel())[0, 1] > 0.9
    assert abs(np.corrcoef(moves[0].ravel(), moves[1].ravel())[0, 1]) < 0.1


def test_a_price_on_the_chain_that_waits_is_the_first_step_of_every_path() -> None:
    start = model.state(model.filtered(prices()), HOURS - 1, known=np.array([-0.05, np.nan]))
    paths = model.simulate(start, 100, 5, model.generator(0))
    assert np.all(paths[0, :, 0] == -0.05)
    assert len(np.unique(paths[1, :, 0])) > 10
    assert len(np.unique(paths[0, :, 1])) > 10


def test_a_delayed_oracle_knows_the_first_hour() -> None:
    paths = np.array([[-0.1, -0.2, 0.1], [0.1, 0.2, -0.3]])
    assert model.minima(paths, [1, 2, 3]).tolist() == [[-0.1, 0.1], [-0.2, 0.1], [-0.3, -0.2]]
    assert model.minima(paths, [1, 2, 3], delayed=True).tolist() == [[0, 0], [-0.1, 0], [-0.2, 0]]
    assert model.chance(np.array([-0.3, -0.2]), np.array([-0.3, -0.25, 0.0])).tolist() == [0, 0.5, 1]


def test_a_young_factor_borrows_the_moves_of_its_group_and_is_known_to_be_young() -> None:
    log_prices = prices(3)
    log_prices[:-400, 1] = np.nan
    past = model.filtered(log_prices)
    lent = model.state(past, HOURS - 1, donors=np.array([0, 2, 2]))
    rows = len(lent.rows)
    assert np.array_equal(lent.rows[: rows - 400, 1], lent.rows[: rows - 400, 2])
    assert np.array_equal(lent.rows[-300:, 1], past.z[-300:, 1])
    assert lent.age.tolist() == [HOURS - 1, 399, HOURS - 1]
    alone = model.state(past, HOURS - 1)
    assert set(alone.rows[:, 1]) == set(past.z[np.isfinite(past.z[:, 1]), 1])
    assert np.array_equal(alone.rows[-300:, 1], past.z[-300:, 1])


def test_the_hourly_grid_holds_the_price_in_force_and_nothing_later() -> None:
    times, answers = np.array([3_600, 5_000, 7_200, 10_801]), np.array([1.0, 2.0, 3.0, 4.0])
    found = model.hourly(times, answers, 10_800, 3)
    assert np.isnan(found[0])
    assert found[1:].tolist() == [1.0, 3.0, 3.0]
    assert np.isnan(model.hourly(times[:0], answers[:0], 10_800, 3)).all()


def test_what_looks_by_the_hour_miss_is_the_lowest_of_the_looks_between() -> None:
    rng, hours, paths = np.random.default_rng(5), 400, 400
    for looks in (1, 4, 60):
        steps = rng.standard_normal((paths, hours * looks), dtype=np.float32) * (0.01 / looks**0.5)
        prices = np.cumsum(steps, axis=1)
        missed = (prices[:, looks - 1 :: looks].min(axis=1) - prices.min(axis=1)).mean()
        found = model.missed_between_hours(np.array([0.0001]), np.array([float(looks)]))[0]
        assert found == pytest.approx(missed, rel=0.1, abs=1e-12), looks
    assert model.missed_between_hours(np.array([0.0001, 0.0001]), np.array([0.3, np.inf])) == pytest.approx(
        [0, 0.005826]
    )


def test_a_market_gone_wild_stays_finite() -> None:
    log_prices = np.zeros((HOURS, 1))
    log_prices[500::7] = 20.0
    paths = model.simulate(model.state(model.filtered(log_prices), HOURS - 1), 200, 168, model.generator(0))
    assert np.isfinite(np.exp(paths)).all()
