"""How a page reads the file: a connection for each request with a deadline, and what is computed once for each commit."""

import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunningError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from indexer.errors import IndexerError
from indexer.store.database import open_readonly, unusable
from indexer.store.shards import each, files
from indexer.terminal.options import Session

T = TypeVar("T")
#: how long the SQL of a page may take
QUERY_SECONDS = 2.0
#: how long a page waits for a file that is locked
LOCKED_MS = 1_000
#: SQLite steps between two looks at the clock
STEPS = 20_000
#: how long what is computed once for each commit may take: nobody waits for it
BACKGROUND_SECONDS = 300.0
#: how long a page waits for it before it shows that of the commit before
WAIT_SECONDS = 1.0
#: how many lists are kept until the next commit
MOST_KEPT = 64

#: of each file, itself (its inode) and SQLite's counter of commits by others
Version = tuple[tuple[Path, int, int], ...]


class TooSlowError(IndexerError):
    """The rows asked for take longer than a page may."""


class BusyError(IndexerError):
    """Something is computed already, and only one such thing is at a time."""


@dataclass(slots=True)
class Kept:
    """What was computed of one version of the file, and what is being computed of a newer one."""

    version: Version | None = None
    value: Any = None
    running: Future[Any] | None = None
    of: Version | None = None


@dataclass
class Desk:
    """The file, or the folder with one a chain, that a server shows; every method may be called from any thread."""

    session: Session
    query_seconds: float = QUERY_SECONDS
    wait_seconds: float = WAIT_SECONDS
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _watching: dict[Path, tuple[int, sqlite3.Connection]] = field(default_factory=dict)
    _kept: dict[str, Kept] = field(default_factory=dict)
    _once: tuple[Version, dict[Hashable, Any]] = field(default_factory=lambda: ((), {}))
    _worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "desk"))
    #: held by whoever computes a scenario
    computing: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for path in [*self._watching]:
                self._let_go(path)

    @contextmanager
    def read(self, seconds: float | None = None) -> Iterator[sqlite3.Connection]:
        """A connection of its own, on one snapshot of the file.

        Raises `TooSlowError` once its SQL has taken that long, `StoreError` for a file that cannot be read now.
        """
        limit = self.query_seconds if seconds is None else seconds
        deadline = time.monotonic() + limit
        try:
            with self.session.opened(LOCKED_MS) as conn:
                for part in {conn, *each(conn)}:
                    part.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
                yield conn
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":
                raise TooSlowError(f"that takes longer than the {limit:g} s a page may take") from error
            raise unusable(self.session.db, error) from error
        except sqlite3.DatabaseError as error:
            raise unusable(self.session.db, error) from error

    def version(self) -> Version:
        """Changes when another connection commits or a file is replaced. Raises `StoreError` where there is no file."""
        with self._lock:
            paths = files(self.session.db) if self.session.folder else [self.session.db]
            for gone in self._watching.keys() - {*paths}:
                self._let_go(gone)
            return tuple(self._look_at(path) for path in paths)

    def _look_at(self, path: Path) -> tuple[Path, int, int]:
        try:
            inode = path.stat().st_ino
        except OSError:
            inode = -1
        if path not in self._watching or self._watching[path][0] != inode:
            self._let_go(path)
            conn = open_readonly(path, current=not self.session.folder, busy_ms=LOCKED_MS, any_thread=True)
            self._watching[path] = (inode, conn)
        try:
            (number,) = self._watching[path][1].execute("pragma data_version").fetchone()
        except sqlite3.DatabaseError as error:
            self._let_go(path)
            raise unusable(path, error) from error
        return path, inode, int(number)

    def _let_go(self, path: Path) -> None:
        if path in self._watching:
            with suppress(sqlite3.Error):
                self._watching.pop(path)[1].close()

    def kept(self, name: str, compute: Callable[[sqlite3.Connection], T]) -> tuple[T | None, bool]:
        """What `compute` makes of the file as it is now, computed once for each commit, and whether it is of this commit.

        Where that takes long, what was made of an older one, or None before the first: ask again. One after another.
        """
        version = self.version()
        with self._lock:
            kept = self._kept.setdefault(name, Kept())
            if kept.version == version:
                return kept.value, True
            if kept.running is None:
                kept.of = version
                kept.running = self._worker.submit(self._compute, compute)
            running, of = kept.running, kept.of
        try:
            value = running.result(self.wait_seconds)
        except StillRunningError:
            return kept.value, False
        except BaseException:
            with self._lock:
                kept.running = None
            raise
        with self._lock:
            if kept.running is running:
                kept.version, kept.value, kept.running = of, value, None
        return value, of == version

    def once(self, key: Hashable, compute: Callable[[sqlite3.Connection], T]) -> T:
        """What `compute` makes of the file as it is now; whoever asks again before the next commit gets the same.

        Raises what `read` raises.
        """
        version = (
            self.version()
        )  # before the snapshot begins: rows are never older than the version that they are kept under
        with self._lock:
            if self._once[0] != version:
                self._once = (version, {})
            kept = self._once[1]
            if key in kept:
                found: T = kept[key]
                return found
        with self.read() as conn:
            found = compute(conn)
        with self._lock:
            if len(kept) < MOST_KEPT:
                kept[key] = found
        return found

    def _compute(self, compute: Callable[[sqlite3.Connection], T]) -> T:
        with self.read(BACKGROUND_SECONDS) as conn:
            return compute(conn)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lets one computation in at a time. Raises `BusyError` for a second one."""
        if not self.computing.acquire(timeout=self.wait_seconds):
            raise BusyError("another scenario is being computed: try again in a moment")
        try:
            yield
        finally:
            self.computing.release()
