"""The search through paths: every step looked at by hand gives the same hits, with numba and without."""

import numpy as np
import pytest

from indexer.forecast import search as searching
from indexer.forecast.search import CONSTANT, Exposures, Paths, doubtful, search

FACTORS, PATHS, STEPS = 5, 120, 100
HORIZONS = [1, 24, 30, 100]


def log_paths(seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.standard_t(4, (FACTORS, PATHS, STEPS)) * 0.02, axis=2)


def book(count: int = 150, tolerance: float = 0.0, seed: int = 2) -> Exposures:
    """Positions with 0 to 5 factors on either side or both, some with a constant part, some unsafe from the start."""
    rng = np.random.default_rng(seed)
    starts, factors, limit, debt = [0], [], [], []
    for _ in range(count):
        names = [int(f) for f in rng.choice([CONSTANT, *range(FACTORS)], rng.integers(0, 6), replace=False)]
        factors += names
        limit += [float(rng.exponential() * (rng.random() < 0.6) * 1.6) for _ in names]
        debt += [float(rng.exponential() * (rng.random() < 0.5)) for _ in names]
        starts.append(len(factors))
    grow = np.array(limit), np.array(debt)
    return Exposures(
        np.array(starts),
        np.array(factors),
        grow[0],
        grow[0] * 1.001,
        grow[1],
        grow[1] * 1.01,
        np.full(count, tolerance),
    )


def by_hand(one: Exposures, prices: np.ndarray, factor: float) -> list[list[int]]:
    """Hits of each position: limit * factor < debt, at every step of every path."""
    found = []
    for position in range(len(one)):
        unsafe = np.zeros((PATHS, STEPS))
        for term in range(one.starts[position], one.starts[position + 1]):
            x = np.ones((PATHS, STEPS)) if one.factors[term] == CONSTANT else prices[one.factors[term]]
            share = np.arange(1, STEPS + 1) / STEPS
            limit = one.limit[term] + (one.limit_end[term] - one.limit[term]) * share
            debt = one.debt[term] + (one.debt_end[term] - one.debt[term]) * share
            unsafe += (limit * factor - debt) * x
        found.append([int((unsafe[:, :hours] < 0).any(axis=1).sum()) for hours in HORIZONS])
    return found


@pytest.fixture(params=["numba", "numba in threads", "numpy"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numpy":
        monkeypatch.setattr(searching, "kernel", lambda: None)
    elif searching.kernel() is None:
        pytest.skip("numba is not installed")
    elif "threads" in request.param:
        monkeypatch.setattr(searching, "MANY", 0)
    return str(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [0.0, 3e-2])
def test_the_hits_are_those_of_every_step_looked_at(tolerance: float, either: str) -> None:
    logs = log_paths()
    these = book(tolerance=tolerance)
    found = search(these, Paths(logs), HORIZONS)
    assert found.sure.tolist() == by_hand(these, np.exp(logs), 1 + tolerance)
    assert found.possible.tolist() == by_hand(these, np.exp(logs), 1 - tolerance)
    assert 0 < found.sure[:, -1].mean() < PATHS
    assert (found.sure != found.possible).any() == (tolerance > 0)


def test_a_delayed_factor_moves_an_hour_later(either: str) -> None:
    logs = log_paths()
    late = logs.copy()
    late[0] = np.concatenate([np.zeros((PATHS, 1)), logs[0, :, :-1]], axis=1)
    delayed = np.array([True, False, False, False, False])
    assert np.array_equal(
        search(book(), Paths(logs, delayed), HORIZONS).sure, search(book(), Paths(late), HORIZONS).sure
    )


def test_what_is_left_to_the_exact_evaluator_are_the_steps_within_the_tolerance() -> None:
    """A stand-in for it, the sums without a tolerance, leads to the exact count."""
    logs = log_paths()
    prices = np.exp(logs)
    these, exact = book(tolerance=3e-2), by_hand(book(), prices, 1.0)
    paths = Paths(logs)
    found = search(these, paths, HORIZONS)
    asked = 0
    for position in range(len(these)):
        for number, hours in enumerate(HORIZONS):
            hits = int(found.sure[position, number])
            for path, steps in doubtful(these, position, paths, hours):
                asked += 1
                one = these.chosen(np.array([position]))
                sums = [
                    sum(
                        (one.limit[i] * (1 + 0.001 * s / STEPS) - one.debt[i] * (1 + 0.01 * s / STEPS))
                        * (1.0 if one.factors[i] == CONSTANT else prices[one.factors[i], path, s - 1])
                        for i in range(one.starts[1])
                    )
                    for s in steps
                ]
                hits += any(value < 0 for value in sums)
            assert hits == exact[position][number]
    assert asked > 100
