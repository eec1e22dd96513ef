"""Opens the SQLite file: which files may be opened, and the errors of those that may not."""

import sqlite3
from pathlib import Path

from indexer.errors import StoreError
from indexer.schema import migrations

BUSY_TIMEOUT_MS = 30_000
#: bytes of a value or a row; the file may come from anywhere, and SQLite itself allows 1 GB
LARGEST_VALUE = 64 * 2**20


def open_readonly(
    path: Path | str, *, current: bool = True, busy_ms: int = BUSY_TIMEOUT_MS, any_thread: bool = False
) -> sqlite3.Connection:
    """Opens an existing database read-only; StoreError says what to do where that is impossible.

    Unless `current`, the schema may be older, or missing. It waits `busy_ms` for a file that is locked. With `any_thread`,
    the caller sees to it that one thread at a time uses it.
    """
    path = regular(path)
    if not path.exists():
        raise StoreError(f"no database at {path}: run `indexer sync` first, or name another file with --db")
    try:
        conn = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=not any_thread)
    except sqlite3.DatabaseError as error:
        raise unusable(path, error) from None
    try:
        conn.row_factory = sqlite3.Row
        conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
        conn.execute(f"pragma busy_timeout={busy_ms}")
        check_version(conn, path)
        if current and migrations.pending(conn):
            told = "was written by an older version" if migrations.applied(conn) else "holds nothing yet"
            raise StoreError(f"{path} {told}: run `indexer sync` first")
    except sqlite3.DatabaseError as error:
        conn.close()
        raise unusable(path, error) from None
    except StoreError:
        conn.close()
        raise
    return conn


def regular(path: Path | str) -> Path:
    """The path of a file, or of none yet. StoreError for a folder, a pipe, which would be waited for, or a device."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise StoreError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}: name a file with --db")
    return path


def unusable(path: Path, error: sqlite3.Error) -> StoreError:
    text = str(error)
    if "not a database" in text:
        return StoreError(f"{path} is not a SQLite database; nothing was changed: name another file with --db")
    if "disk is full" in text:
        return StoreError(
            f"no space left for {path}, or for SQLite's temporary files in SQLITE_TMPDIR, /var/tmp or /tmp: free some and "
            "run again; the last snapshot is intact"
        )
    if "locked" in text:
        return StoreError(f"{path} stayed locked by another program: close it and run again")
    if "readonly" in text or "unable to open" in text:
        return StoreError(f"{path} or its folder cannot be written ({text}): check its permissions")
    if "malformed" in text:
        return StoreError(f"{path} is damaged ({text}): restore a copy, or delete it and run `indexer sync` again")
    if "too big" in text:
        return StoreError(
            f"{path} holds a value of more than {LARGEST_VALUE >> 20} MB, which this program never writes: "
            "restore a copy, or delete it and run `indexer sync` again"
        )
    if "I/O error" in text:
        return StoreError(f"{path} cannot be read or written ({text}): check the disk; the last snapshot is intact")
    return StoreError(f"{path}: {text}")


def check_version(conn: sqlite3.Connection, path: Path) -> None:
    """Refuses another program's database, and one that a newer version of this program has migrated."""
    tables = {row[0] for row in conn.execute("select name from sqlite_master where type = 'table'")}
    if tables <= {migrations.TABLE}:
        return  # new, or a first sync was killed before its schema was there
    if migrations.TABLE not in tables:
        raise StoreError(f"{path} is a database of another program; nothing was changed: name another file with --db")
    newer = migrations.unknown(conn)
    if newer or not migrations.applied(conn):
        raise StoreError(
            f"{path} was written by a newer version (migration {', '.join(newer)}): update lending-indexer"
            if newer
            else f"{path} is a database of another program; nothing was changed: name another file with --db"
        )


def file_of(conn: sqlite3.Connection) -> str:
    """The path of the file that a connection reads."""
    return str(conn.execute("select file from pragma_database_list where name = 'main'").fetchone()[0])
