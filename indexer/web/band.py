"""What stands above every page: of which block the rows are, how old they are, and whether anything keeps them current."""

import os
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.boundary.files import beside
from indexer.queries.freshness import Freshness, freshness, last_commit
from indexer.queries.queries import status
from indexer.store.shards import chain_files
from indexer.text.values import age, many

#: rows that are older than this are stale
STALE_SECONDS = 120.0
LATELY_SECONDS = 60.0
LOCKS = Path("/proc/locks")


@dataclass(frozen=True, slots=True)
class Band:
    """`level`: ok, stale or empty. `at`: the time of the oldest deployment's block (unix seconds), None before the first.

    `of`: that deployment's name where there are several chains.
    """

    level: str
    words: str
    block: int | None
    at: int | None
    now: float
    troubles: Sequence[str] = ()
    of: str = ""

    @property
    def age(self) -> str:
        return age(None if self.at is None else max(self.now - self.at, 0))


def band(conn: sqlite3.Connection, database: Path) -> Band:
    """The band of the file as this connection sees it."""
    now = time.time()
    rows = freshness(conn)
    synced = [row for row in rows if row.block_number is not None and row.block_timestamp is not None]
    running = is_syncing(database)
    if running is False and committed_lately(conn, now):
        running = None  # the lock may be held where this process cannot see it
    if not synced:
        return Band("empty", first_sync(conn, now, running=running), None, None, now)
    oldest = min(synced, key=lambda row: row.block_timestamp or 0)
    seconds = oldest.seconds(now) or 0.0
    troubles = [trouble(row, now) for row in rows if row.doubt(now, None) is not None]
    ahead = (oldest.block_timestamp or 0) - now
    if ahead > STALE_SECONDS:
        words = f"The newest rows are of a time that is {age(ahead)} ahead: set this machine's clock, or how old they are is unknown."
    elif seconds > STALE_SECONDS:
        words = "Stale: who is at risk by now is unknown." + ("" if running is not False else " No sync is running.")
    elif running is False:
        words = "No sync is running: from now on these rows only grow older."
    else:
        words = ""
    of = oldest.deployment if len({row.chain_id for row in synced}) > 1 else ""
    return Band("stale" if words else "ok", words, oldest.block_number, oldest.block_timestamp, now, troubles, of)


def committed_lately(conn: sqlite3.Connection, now: float) -> bool:
    """Whether a sync has committed within the last minute."""
    at = last_commit(conn)
    return at is not None and now - at < LATELY_SECONDS


def trouble(row: Freshness, now: float) -> str:
    return f"{row.deployment} {row.doubt(now, None)}"


def first_sync(conn: sqlite3.Connection, now: float, *, running: bool | None) -> str:
    """What happens in a file without a snapshot, and how long it will take."""
    begun = [row for row in status(conn, str, now, counted=False) if row["percent"] is not None]
    if not begun:
        return (
            "The first sync is starting."
            if running
            else "This database holds nothing yet: run `indexer sync --follow` beside this server."
        )
    left = [row["seconds_left"] for row in begun if row["seconds_left"] is not None]
    far = ", ".join(f"{row['deployment']} {row['percent']:g} %" for row in begun)
    how_long = f" About {age(max(left))} left." if left and max(left) else ""
    stopped = " It does not run now: `indexer sync --follow` goes on where it was." if running is False else ""
    return (
        f"The first sync has read the logs of {far} ({many(len(begun), 'deployment')}); nothing can be listed before it is "
        f"through.{how_long}{stopped}"
    )


def is_syncing(database: Path) -> bool | None:
    """Whether a process of this machine holds the right to sync into the file; None where the system does not tell.

    The kernel's list of locks is read, as asking for the lock itself could turn a sync away. Of a folder, any of its files.
    """
    if database.is_dir():
        found = {is_syncing(path) for path in chain_files(database)}
        return True if True in found else None if None in found else False
    try:
        if not sys.platform.startswith("linux"):
            return None
        lock = beside(database, ".lock").stat()
        wanted = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
        return any(
            wanted in line.split() and " FLOCK " in line and "->" not in line for line in LOCKS.read_text().splitlines()
        )
    except FileNotFoundError:
        return False if LOCKS.exists() else None
    except OSError:
        return None
