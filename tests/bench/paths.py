"""The search through paths: 100,000 wallets on 2,000 paths of 7 days: `python -m tests.bench.paths [--quick]`.

Half of the wallets hang on 3 to 6 factors, the others on two; health factors lie between 1 and 2.5.
"""

import resource
import sys
import time
from collections.abc import Iterator

import numpy as np

from indexer.forecast import model, search
from tests.bench.run import Result, run

FACTORS, PATHS, HOURS = 12, 2_000, 168


def invented(wallets: int, rng: np.random.Generator) -> search.Exposures:
    starts, factors, limit, debt = [0], [], [], []
    for _ in range(wallets):
        terms = int(rng.integers(3, 7)) if rng.random() < 0.5 else 2
        held = max(1, terms // 2)
        factors += [*rng.choice(FACTORS, terms, replace=False)]
        owed = rng.exponential(1, terms - held)
        limit += [*(rng.dirichlet(np.ones(held)) * owed.sum() * rng.uniform(1, 2.5)), *np.zeros(terms - held)]
        debt += [*np.zeros(held), *owed]
        starts.append(len(factors))
    limits, debts = np.array(limit), np.array(debt)
    return search.Exposures(
        np.array(starts), np.array(factors), limits, limits * 1.0003, debts, debts * 1.001, np.full(wallets, 1e-8)
    )


def through_paths(quick: bool) -> Iterator[Result]:
    wallets = 2_000 if quick else 100_000
    rng = np.random.default_rng(1)
    z = 0.7 * rng.standard_t(4, (model.YEAR, 1)) + 0.5 * rng.standard_t(4, (model.YEAR, FACTORS))
    variance = np.full(FACTORS, 0.006**2)
    state = model.State(variance, variance, z, np.full(FACTORS, model.YEAR), np.full(FACTORS, np.nan))
    started = time.perf_counter()
    paths = search.Paths(model.simulate(state, PATHS, HOURS, model.generator(0)))
    yield Result(f"{PATHS:,} paths of {FACTORS} factors, {HOURS} h", time.perf_counter() - started, "s")
    book = invented(wallets, rng)
    for name in ("the first time, with what numba compiles", "again"):
        started = time.perf_counter()
        search.search(book, paths, [1, 24, HOURS])
        yield Result(f"search of {wallets:,} wallets, {name}", time.perf_counter() - started, "s")
    started = time.perf_counter()
    search.search(book.chosen(np.arange(1)), paths, [1, 24, HOURS])
    yield Result("search of one wallet", time.perf_counter() - started, "s")
    unit = 1 if sys.platform == "darwin" else 1024
    yield Result("memory at most", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, "GB")


if __name__ == "__main__":
    run(through_paths)
