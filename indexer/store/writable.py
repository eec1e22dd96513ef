"""The database file opened for writing: created, migrated, locked, and changed in transactions.

WAL with synchronous=NORMAL is a deliberate choice: after a power loss the file is consistent and at worst one snapshot
behind, and the next sync reads the chain again; no reader ever blocks a sync.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from indexer.boundary.files import beside, open_lock
from indexer.errors import StoreError, StoreLockedError
from indexer.schema import migrations
from indexer.store.book_sums import BookSums
from indexer.store.database import BUSY_TIMEOUT_MS, LARGEST_VALUE, check_version, regular, unusable

#: pages of the WAL (64 MB) before they go into the database: a live tail changes many of the same ones at each block
WAL_PAGES = 16_000


class WritableFile:
    """The database file for writing. Use as a context manager."""

    def __init__(self, path: Path | str) -> None:
        self.path = regular(path)
        try:
            if not self.path.exists():
                # Positions reveal what their owners hold: the file is readable for the user alone.
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            uri = self.path.absolute().as_uri()
            conn = sqlite3.connect(uri, uri=True, isolation_level=None)  # only for the thread that opened it
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}; choose another place with --db") from None
        except sqlite3.DatabaseError as error:
            raise unusable(self.path, error) from None
        self.conn = conn
        try:
            conn.execute(f"pragma busy_timeout={BUSY_TIMEOUT_MS}")
            conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
            check_version(conn, self.path)
            conn.execute("pragma journal_mode=wal")
            conn.execute("pragma synchronous=normal")
            conn.execute(f"pragma wal_autocheckpoint={WAL_PAGES}")
            if migrations.pending(conn):
                self._migrate()
        except sqlite3.DatabaseError as error:
            conn.close()
            raise unusable(self.path, error) from None
        except StoreError:
            conn.close()
            raise
        self._inode = self.path.stat().st_ino
        #: what all rows supply and owe; whoever changes rows of `positions` by other ways lets it forget
        self.sums = BookSums()

    def _migrate(self) -> None:
        """Migrates all or nothing; another command that opens the file at the same moment waits, and finds it done."""
        self.conn.execute("begin immediate")
        try:
            migrations.apply(self.conn)
            self.conn.execute("commit")
        except BaseException:
            if self.conn.in_transaction:
                self.conn.execute("rollback")
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.conn.close()

    def lay_over(self, other: Path, tables: Sequence[str]) -> None:
        """Has this connection read these tables in another file, which it never writes; its own are out of its sight."""
        try:
            self.conn.execute("attach ? as other", (f"{other.absolute().as_uri()}?mode=ro",))
            for table in tables:
                self.conn.execute(f"create temp view {table} as select * from other.{table}")  # noqa: S608 - our own names
        except sqlite3.DatabaseError as error:
            raise unusable(other, error) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the right to sync into this file; a second process gets StoreLockedError.

        The lock is on a file beside the database, as closing any other handle of the database itself would drop
        SQLite's own locks. The kernel releases it when the process dies.
        """
        try:
            lock = open_lock(beside(self.path, ".lock"))
        except OSError as error:
            raise StoreError(
                f"cannot write {self.path}.lock: {error.strerror}; choose another place with --db"
            ) from None
        with os.fdopen(lock) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StoreLockedError(
                    f"another sync is writing {self.path}: wait for it, or use another file with --db"
                ) from None
            yield

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One immediate transaction, or a part of the one around it; SQLite's errors become StoreError."""
        if self.conn.in_transaction:
            yield self.conn
            return
        try:
            if self.path.stat().st_ino != self._inode:
                raise StoreError(f"{self.path} was replaced by another file during the sync: run again")
        except FileNotFoundError:
            raise StoreError(f"{self.path} was removed during the sync: run again to build it anew") from None
        try:
            self.conn.execute("begin immediate")
            try:
                yield self.conn
            except BaseException:
                self.sums.forget()
                if self.conn.in_transaction:
                    self.conn.execute("rollback")
                raise
            self.conn.execute("commit")
        except sqlite3.DatabaseError as error:
            self.sums.forget()
            if self.conn.in_transaction:
                self.conn.execute("rollback")
            raise unusable(self.path, error) from None


@contextmanager
def open_beside(path: Path) -> Iterator[sqlite3.Connection]:
    """One more connection to a file that this program has opened for writing already, for a thread or process of its own."""
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute(f"pragma busy_timeout={BUSY_TIMEOUT_MS}")
        yield conn


@contextmanager
def all_or_nothing(conn: sqlite3.Connection) -> Iterator[None]:
    """One immediate transaction on such a connection."""
    conn.execute("begin immediate")
    try:
        yield
        conn.execute("commit")
    except BaseException:
        conn.execute("rollback")
        raise
