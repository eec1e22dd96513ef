"""What two protocols share stands in `protocols/common.py` (or `protocols/aave`), not in both."""

import ast

import pytest

from tests.sources import one_process, sources

pytestmark = one_process
MOST = 10  # identical lines in a row; an import counts as one, however the formatter breaks it


@pytest.mark.parametrize("package", ["protocols", "indexer"])
def test_no_run_of_more_than_ten_lines_stands_twice(package: str) -> None:
    first: dict[tuple[str, ...], str] = {}
    twice = []
    for source in (one for one in sources() if one.name.startswith(f"{package}/")):
        numbered = {n: line.strip() for n, line in enumerate(source.text.splitlines(), 1) if line.strip()}
        for node in source.tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                numbered[node.lineno] = ast.unparse(node)
                for rest in range(node.lineno + 1, (node.end_lineno or node.lineno) + 1):
                    numbered.pop(rest, None)
        lines = list(numbered.items())
        for start in range(len(lines) - MOST):
            run = tuple(line for _, line in lines[start : start + MOST + 1])
            place = f"{source.name}:{lines[start][0]}"
            if first.setdefault(run, place) != place:
                twice.append(f"{first[run]} ~ {place}")
    assert twice == []
