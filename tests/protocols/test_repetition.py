"""What two protocols share stands in `protocols/common.py` (or `protocols/aave`), not in both."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST = 10  # identical lines in a row, imports included


@pytest.mark.parametrize("package", ["protocols", "indexer"])
def test_no_run_of_more_than_ten_lines_stands_twice(package: str) -> None:
    first: dict[tuple[str, ...], str] = {}
    twice = []
    for path in sorted((ROOT / package).rglob("*.py")):
        numbered = [(n, line.strip()) for n, line in enumerate(path.read_text().splitlines(), 1)]
        lines = [(n, line) for n, line in numbered if line]
        for start in range(len(lines) - MOST):
            run = tuple(line for _, line in lines[start : start + MOST + 1])
            place = f"{path.relative_to(ROOT)}:{lines[start][0]}"
            if first.setdefault(run, place) != place:
                twice.append(f"{first[run]} ~ {place}")
    assert twice == []
