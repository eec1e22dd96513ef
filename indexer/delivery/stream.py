"""The change stream: reads the lines of the table `changes` beside the sync and hands them to standard output or a webhook.

The sync writes its transaction and wakes a reader; it never waits for one. A reader is a thread with a connection of its
own that holds no transaction while it hands lines over. One that is too slow for what the table keeps, or whose receiver
took nothing for long, begins again with a `snapshot`. Lines may be handed over twice, with the same ids; none is left out
that a later snapshot does not make up for.
"""

import json
import logging
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from indexer.delivery.channels import DeliveryError, GoneError
from indexer.errors import StoreError
from indexer.store.changes import lines_after, snapshot, start_of
from indexer.store.database import open_readonly

log = logging.getLogger(__name__)

LINES_AT_ONCE = 500
#: seconds after which a reader that nobody wakes looks for lines by itself
LOOK_SECONDS = 5.0
#: seconds after which a reader retries a busy database
TROUBLE_SECONDS = 2.0
#: seconds after which a receiver that accepted nothing gets a snapshot
REST_SECONDS = 60.0


class Receiver(ABC):
    """Where lines go. `place` names it to people; a `snapshot` is cut into lines of at most `longest_line` bytes."""

    place: str
    longest_line: int | None = None

    @abstractmethod
    def take(self, lines: Sequence[bytes], stopped: threading.Event) -> None:
        """Hands lines over, newlines included. DeliveryError if they were not accepted, GoneError if none ever will be."""


class Reader:
    """Follows the changes of one chain for one receiver until it is stopped. Use `start`, `wake`, `stop` from any thread."""

    def __init__(self, path: Path, chain_id: int, receiver: Receiver, since: int | None = None) -> None:
        self.path, self.chain_id, self.receiver = path, chain_id, receiver
        self._since = since  # the block from which the receiver has to catch up
        self._after: int | None = None  # the id of the last line that was accepted; None: it needs a snapshot
        self._news, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"stream to {receiver.place}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Tells the reader that there may be new lines."""
        self._news.set()

    def stop(self, seconds: float) -> None:
        """Stops the reader after the lines in progress, or abandons it when that takes too long."""
        self._stopped.set()
        self._news.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with closing(open_readonly(self.path)) as conn:
                    conn.isolation_level = None
                    while not self._stopped.is_set():
                        self._step(conn)
            except GoneError as error:
                log.error("the stream to %s ends, the sync goes on: %s", self.receiver.place, error)
                return
            except DeliveryError as error:
                log.error("%s takes nothing: %s; it gets a snapshot in %g s", self.receiver.place, error, REST_SECONDS)
                self._after = None
                self._stopped.wait(REST_SECONDS)
            except (sqlite3.Error, StoreError) as error:
                log.error("the stream to %s waits: %s", self.receiver.place, error)
                self._stopped.wait(TROUBLE_SECONDS)

    def _step(self, conn: sqlite3.Connection) -> None:
        """Hands over the lines after the last accepted one, or waits for some."""
        self._news.clear()
        if self._since is not None:
            self._after, block, self._since = start_of(conn, self.chain_id, self._since), self._since, None
            if self._after is None:
                log.warning("the changes since block %d are not all kept: the stream begins with a snapshot", block)
        if self._after is None:
            last, rows, head = snapshot(conn, self.chain_id)
            self._take(snapshot_lines(head, rows, self.receiver.longest_line))
            self._after = last
        lines = lines_after(conn, self.chain_id, self._after, LINES_AT_ONCE)
        if lines is None:
            log.warning("the stream to %s fell behind what is kept: it gets a snapshot", self.receiver.place)
            self._after = None
        elif lines:
            self._take([encoded(line) for line in lines])
            self._after = int(lines[-1]["id"])
        else:
            self._news.wait(LOOK_SECONDS)

    def _take(self, lines: Sequence[bytes]) -> None:
        if not self._stopped.is_set():
            self.receiver.take(lines, self._stopped)


def encoded(line: Mapping[str, Any]) -> bytes:
    """One line of NDJSON in ASCII only, so that nothing in it can control a terminal."""
    return json.dumps(line, allow_nan=False, separators=(",", ":")).replace("\x7f", "\\u007f").encode() + b"\n"


def snapshot_lines(head: Mapping[str, Any], rows: Sequence[Any], longest: int | None) -> list[bytes]:
    """A snapshot as one line, or as parts of at most `longest` bytes each (but for a single row that is longer)."""
    parts: list[list[Any]] = [[]]
    size = room = (longest or 0) - len(encoded({**head, "part": 10**6, "parts": 10**6, "rows": []}))
    for row in rows:
        size -= len(encoded(row))
        if longest is not None and size < 0 and parts[-1]:
            parts.append([])
            size = room - len(encoded(row))
        parts[-1].append(row)
    return [
        encoded({**head, "part": number, "parts": len(parts), "rows": part})
        for number, part in enumerate(parts, start=1)
    ]


class Stream:
    """The readers of a sync. Use as a context manager; leaving it takes at most `LEAVE_SECONDS`, whatever they wait for."""

    LEAVE_SECONDS = 2.0

    def __init__(self, path: Path, chain_id: int, receivers: Sequence[Receiver], since: int | None = None) -> None:
        self.readers = [Reader(path, chain_id, receiver, since) for receiver in receivers]

    def __enter__(self) -> Callable[[], None]:
        """Starts the readers; returns what wakes them."""
        for reader in self.readers:
            reader.start()
        return self.wake

    def wake(self) -> None:
        for reader in self.readers:
            reader.wake()

    def __exit__(self, *_: object) -> None:
        for reader in self.readers:
            reader.stop(self.LEAVE_SECONDS / len(self.readers))
