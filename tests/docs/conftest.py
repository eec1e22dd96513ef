"""The database that the pages are about: what `indexer demo` writes."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.cli.main import main


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "indexer-demo"
    written = CliRunner().invoke(main, ["demo", str(folder)])
    assert written.exit_code == 0, written.output
    return folder
