"""docs/notebook.md runs as it stands, and prints what it says."""

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS, blocks


def test_the_notebook_prints_what_it_says(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    names: dict[str, Any] = {}
    said: list[str] = []
    printed: list[str] = []
    for block in blocks(DOCS / "notebook.md"):
        if block.kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block.text, block.where, "exec"), names)
            printed.append(out.getvalue())
        elif block.kind == "text":
            said.append(block.text)
    names["book"].close()
    assert len(said) == len(printed) > 3
    for expected, found in zip(said, printed, strict=True):
        assert found == expected
