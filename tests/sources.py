"""The modules of the product, read and parsed once in each process, for tests of how they are written."""

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
#: one process runs every test that looks at them
one_process = pytest.mark.xdist_group("sources")


class Source(NamedTuple):
    path: Path
    name: str  # from the repository's folder
    text: str
    tree: ast.Module


@cache
def sources() -> list[Source]:
    """Those of the indexer and of the protocols, in order."""
    found = []
    for path in sorted(path for package in ("indexer", "protocols") for path in (ROOT / package).rglob("*.py")):
        text = path.read_text()
        found.append(Source(path, str(path.relative_to(ROOT)), text, ast.parse(text)))
    return found
