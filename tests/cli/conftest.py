"""An empty folder to run commands in."""

from pathlib import Path
from typing import Any

import pytest

from indexer.chain import connect
from indexer.chain.client import Chain


def impatient(*arguments: Any, **options: Any) -> Chain:
    return Chain(*arguments, **{**options, "attempts": 1})


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with nothing in it, and no patience with nodes that are down."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(connect, "Chain", impatient)
    return tmp_path
