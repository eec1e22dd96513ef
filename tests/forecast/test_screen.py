"""The screen decides as the exact `evaluate` does: on real markets of all five protocols, and where rounding is all there is."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer import config
from indexer.forecast.exposures import Exposures, Later, exposures, relevant
from indexer.forecast.screen import HOUR, Paths, Question, failures
from indexer.model import Position
from indexer.risk.liquidation import known
from indexer.store import books as stored
from indexer.store.books import Book
from indexer.store.database import open_readonly
from tests.bench.population import populate

#: hours of a path, and before which steps its windows end
STEPS, ENDS = 6, (1, 3, 6)
#: paths that lead some positions as near to the boundary as rounding and an hour's interest are
NEAR, DISTANCES = 5, (1e-9, 1e-7, 1e-6, 1e-5, 1e-4)


def asked(book: Book, positions: Sequence[Position], paths: int, rng: np.random.Generator, hourly: float) -> Question:
    """Positions with debt on random joint paths, whose prices move apart from each other."""
    later = Later(book.adapter, book.market, STEPS * HOUR, 12.0)  # type: ignore[arg-type]
    healths = [later.adapter.evaluate(later.ends[0], one) for one in positions]
    able = [
        one
        for one, health in zip(positions, healths, strict=True)
        if health.debt_value and known(later.market, health) and not health.liquidatable
    ]
    keys = list(dict.fromkeys(key for one in able for key in relevant(later, one)))
    found = exposures(later, able, keys)
    moves = np.exp(np.cumsum(rng.standard_normal((len(keys), paths, STEPS)) * hourly, axis=2))
    chosen = rng.choice(len(able), min(NEAR, len(able)), replace=False) if able else ()
    near = [boundary(found, row, float(rng.choice(DISTANCES)) * rng.standard_normal()) for row in chosen]
    moves = np.concatenate([moves, *(np.repeat(one[:, None, None], STEPS, axis=2) for one in near)], axis=1)
    mixed = rng.standard_normal((len(keys), len(keys))) * hourly * rng.integers(0, 2)
    return Question(later, able, found, Paths(moves, {key: i for i, key in enumerate(keys)}, mixed @ mixed.T), ENDS)


def boundary(found: Exposures, row: int, distance: float) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Prices at which limit and debt of a position are equal but for the distance: what only backs it has fallen alike."""
    limit, debt = found.limit[0, row], found.debt[0, row]
    falling = (limit[:-1] > 0) & (debt[:-1] == 0)
    moved = limit[:-1][falling].sum()
    share = (debt.sum() - (limit.sum() - moved)) / moved if moved > 0 else 1.0
    return np.where(falling, max(share, 1e-3) * (1 + distance), 1.0)


def decisions(question: Question, *, exact: bool) -> dict[int, dict[int, int]]:
    """Position -> path -> the window in which it fails."""
    return {
        one.row: dict(zip(one.paths.tolist(), one.window.tolist(), strict=True))
        for one in failures(question, exact=exact)
    }


def compared(book: Book, positions: Sequence[Position], pairs: int, seed: int) -> tuple[int, int]:
    """(decisions that fail, all): (position, path) pairs with the same answer by the screen and by `evaluate` alone."""
    rng = np.random.default_rng(seed)
    count = failed = 0
    while count < pairs:
        # moves of each size: far away everything is clear
        question = asked(book, positions, 5, rng, float(rng.choice((0.001, 0.01, 0.1))))
        assert question.positions, f"nobody of {book.name} owes anything"
        ours, truth = (decisions(question, exact=exact) for exact in (False, True))
        assert ours == truth, f"{book.name}: seed {seed}"
        count += len(question.positions) * question.paths.count
        failed += sum(map(len, truth.values()))
    return failed, count


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Book]]:
    """Six deployments of five protocols with dust and fortunes, many near the boundary."""
    folder: Path = tmp_path_factory.mktemp("screen")
    populate(folder / "large.db", folder / "bench.toml", 300, near=0.6)
    known = config.load(folder / "bench.toml", {}).deployments
    with closing(open_readonly(folder / "large.db")) as conn:
        yield stored.load(conn, stored.deployments(conn), known)


@pytest.mark.slow
def test_the_screen_decides_as_evaluate_does(books: list[Book]) -> None:
    found = [compared(book, list(book.positions)[:14], 150, n) for n, book in enumerate(books)]
    assert sum(failed for failed, _ in found) > 50, found
