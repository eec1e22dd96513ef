"""What a message says to install is what pip takes: for a checkout, a repository, a file and a package index."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from indexer import extras

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("origin", "wanted"),
    [
        (None, "'lending-indexer[parquet]'"),
        (
            {"url": "file:///home/me/in%20dexer", "dir_info": {"editable": True}},
            "--editable '/home/me/in dexer[parquet]'",
        ),
        ({"url": "file:///home/me/indexer", "dir_info": {}}, "'/home/me/indexer[parquet]'"),
        (
            {"url": "https://host/me/indexer.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "'lending-indexer[parquet] @ git+https://host/me/indexer.git@abc'",
        ),
        ({"url": "file:///tmp/i.whl", "archive_info": {}}, "'lending-indexer[parquet] @ file:///tmp/i.whl'"),
    ],
    ids=["index", "editable", "folder", "repository", "file"],
)
def test_an_extra_is_installed_as_the_program_was(origin: dict[str, object] | None, wanted: str) -> None:
    assert extras.requirement("parquet", None if origin is None else json.dumps(origin)) == wanted


@pytest.mark.slow
def test_the_command_for_this_copy_is_one_that_pip_takes() -> None:
    """Nothing is installed: pip only says what it would do, and needs no index for what is there already."""
    command = extras.how_to_install("parquet")
    assert sys.executable in command
    done = subprocess.run(
        f"{command} --dry-run --no-deps --no-index --no-build-isolation",
        shell=True, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "already satisfied: lending-indexer" not in done.stdout  # that is how pip passes over a bare name
    assert "Would install lending-indexer" in done.stdout
