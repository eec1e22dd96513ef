"""A file of every migration there ever was opens, becomes what a new file is, and keeps its rows."""

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from indexer.schema import migrations
from indexer.store.store import Store

DATA = Path(__file__).parents[1] / "data"
NAMES = sorted(migrations.STEPS)
#: the migrations of version 0.1, whose file holds five protocols as that version synced them
VERSION_0_1 = 6


def brought_to(path: Path, last: str) -> Path:
    """A file with the migrations up to that one; from those of version 0.1 on with rows."""
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        if NAMES.index(last) + 1 >= VERSION_0_1:
            conn.executescript(gzip.decompress((DATA / "version_0_1.sql.gz").read_bytes()).decode())
        steps = dict(migrations.STEPS)
        conn.execute("begin")
        try:
            for name in steps:
                if name > last:
                    del migrations.STEPS[name]
            migrations.apply(conn)
        finally:
            migrations.STEPS.clear()
            migrations.STEPS.update(steps)
        conn.execute("commit")
        assert migrations.applied(conn) == NAMES[: NAMES.index(last) + 1]
    return path


def shape(path: Path) -> dict[tuple[str, str], list[tuple[Any, ...]]]:
    """Kind and name of everything in the schema, with the columns of tables and views in their order."""
    with closing(sqlite3.connect(path)) as conn:
        found = conn.execute("select type, name from sqlite_master where name not like 'sqlite_%'").fetchall()
        return {
            (kind, name): [row[1:] for row in conn.execute(f"pragma table_xinfo('{name}')")]
            for kind, name in found
            if not name.startswith("_sqlite")
        }


def content(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the tables that hold what was synced."""
    with closing(sqlite3.connect(path)) as conn:
        tables = [name for kind, name in shape(path) if kind == "table"]
        return {name: sorted(conn.execute(f"select * from {name}").fetchall(), key=repr) for name in tables}


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("new") / "new.db"
    Store(path).close()
    return path


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of version 0.1, upgraded at once."""
    path = brought_to(tmp_path_factory.mktemp("whole") / "old.db", NAMES[VERSION_0_1 - 1])
    Store(path).close()
    return path


@pytest.mark.parametrize("last", NAMES)
def test_a_file_of_any_migration_becomes_what_a_new_one_is(
    last: str, new: Path, upgraded: Path, tmp_path: Path
) -> None:
    path = brought_to(tmp_path / "old.db", last)
    Store(path).close()
    assert shape(path) == shape(new)
    if NAMES.index(last) + 1 >= VERSION_0_1:
        assert content(path) == content(upgraded)
        with closing(sqlite3.connect(path)) as conn:
            assert conn.execute("select count(*) from positions").fetchone()[0] > 60
            assert conn.execute("pragma integrity_check").fetchone() == ("ok",)


def test_the_number_of_a_migration_is_its_place() -> None:
    """A gap would let a later release put a step before one that files already have."""
    assert [int(name[:4]) for name in NAMES] == sorted({int(name[:4]) for name in NAMES})
