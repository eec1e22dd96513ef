"""The file behind the pages: six markets as a sync recorded them, so no node is needed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from indexer.terminal.options import Session
from indexer.web.app import application
from indexer.web.desk import Desk
from tests.recorded import CONFIG, recorded

#: a label that would be markup, and would turn text around, if anything took it for that
HOSTILE = '<script>alert(1)</script>"\u202e&{{7*7}}'


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return recorded(tmp_path / "indexer.db")


@pytest.fixture
def desk(database: Path) -> Desk:
    return Desk(Session(CONFIG, database), query_seconds=60, wait_seconds=60)  # patient, as the machine may be busy


@pytest.fixture
def client(desk: Desk) -> Iterator[TestClient]:
    with TestClient(application(desk), base_url="http://127.0.0.1:8420", raise_server_exceptions=False) as found:
        yield found
