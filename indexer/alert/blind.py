"""A watch that cannot see says so: it raises an alert of kind `blind` for deployments whose newest rows grow old.

The reason does not matter: the node is down, its head stands still, a deployment cannot be read, this program hangs. All
that counts is the age of the newest rows' block; a time far ahead means that the clock here is wrong, and no age known.
The alert is queued once and its end once, for the same channels as position alerts; the table `blind_deployments`
remembers what was said when the process restarts.
"""

import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indexer.alert import tables
from indexer.alert.rules import Event
from indexer.delivery.channels import Channel
from indexer.delivery.queue import enqueue
from indexer.errors import StoreError
from indexer.store.database import open_readonly
from indexer.store.shards import chains_of
from indexer.store.writable import all_or_nothing, open_beside
from indexer.text.values import age, printable

log = logging.getLogger(__name__)

LONGEST_LOOK_SECONDS = 15.0
REASON_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Sight:
    """A deployment's newest rows; block and time are None before the first snapshot. Times are in unix seconds."""

    deployment: str
    block_number: int | None
    block_hash: str | None
    block_timestamp: int | None
    note: str | None


class Lookout:
    """Checks how old the rows of one chain's watched deployments are, over a database connection of its own.

    With `after_seconds` 0 it never raises an alert. `reason` is the node's last error, if its last answer was one. The rows
    are in `rows`, where that is another file than the one of the alerts.
    """

    def __init__(
        self, path: Path, chain: str, chain_id: int, deployments: Sequence[str], channels: Sequence[Channel],
        after_seconds: float, rows: Path | None = None,
    ) -> None:  # fmt: skip
        self.path, self.chain, self.chain_id, self.deployments = path, chain, chain_id, list(deployments)
        self.rows = rows
        self.channels, self.after_seconds = list(channels), after_seconds
        self.reason: str | None = None

    def look(self, now: float, since: float = 0.0) -> int:
        """Queues alerts that are due and returns how many. No row counts as older than `since` (unix seconds)."""
        if not self.after_seconds:
            return 0
        with open_beside(self.path) as conn, all_or_nothing(conn):
            return self._judge(conn, now, since)

    @contextmanager
    def watching(self, wake: Callable[[], None]) -> Iterator[None]:
        """Checks repeatedly in a thread while the caller works, however long a request takes; calls `wake` after each alert."""
        stop, started = threading.Event(), time.time()

        def run() -> None:
            while not stop.wait(min(max(self.after_seconds / 10, 0.1), LONGEST_LOOK_SECONDS)):
                try:
                    if self.look(time.time(), started):
                        wake()
                except (sqlite3.Error, StoreError) as error:
                    log.error("whether the watch is blind cannot be written down: %s", error)

        thread = threading.Thread(target=run, name="lookout", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(5)

    def _judge(self, conn: sqlite3.Connection, now: float, since: float) -> int:
        known = self._known(conn)
        sights = [known.get(name, Sight(name, None, None, None, None)) for name in self.deployments]
        told = tables.blind(conn, self.chain_id)
        old = {s.deployment for s in sights if abs(now - max(s.block_timestamp or 0, since)) > self.after_seconds}
        begins = [s for s in sights if s.deployment in old and s.deployment not in told]
        # Only rows that are really young end an alert: when a watch starts, `since` makes all of them look young.
        ends = [s for s in sights if s.deployment in told and abs(now - (s.block_timestamp or 0)) <= self.after_seconds]
        if begins:
            crossing = tables.last_blind_crossing(conn, self.chain_id) + 1
            self._queue(conn, Event.CROSSED, crossing, begins, now)
            tables.save_blind(
                conn,
                [(self.chain_id, s.deployment, crossing, s.block_timestamp or int(since or now)) for s in begins],
            )
        if ends:
            self._queue(conn, Event.RECOVERED, max(told[s.deployment] for s in ends), ends, now)
            tables.remove_blind(conn, self.chain_id, [s.deployment for s in ends])
        return bool(begins) + bool(ends)

    def _known(self, conn: sqlite3.Connection) -> dict[str, Sight]:
        if self.rows is not None:
            if not self.rows.exists() or self.chain_id not in chains_of(self.rows):
                return {}
            with closing(open_readonly(self.rows)) as rows:
                found = tables.newest_rows(rows, self.chain_id)
        else:
            found = tables.newest_rows(conn, self.chain_id)
        return {row[0]: Sight(*row) for row in found}

    def _queue(
        self, conn: sqlite3.Connection, event: Event, crossing: int, sights: Sequence[Sight], now: float
    ) -> None:
        newest = max(sights, key=lambda s: s.block_number or -1)
        names = ",".join(s.deployment for s in sights)
        identity = hashlib.sha256(
            f"blind|{self.chain_id}|{crossing}|{event}|{names}|{newest.block_number}".encode()
        ).hexdigest()[:32]
        columns = {
            "id": identity,
            "kind": "blind",
            "chain_id": self.chain_id,
            "rule": "blind",
            "crossing": crossing,
            "event": event.value,
            "block_number": newest.block_number,
            "block_hash": newest.block_hash,
            "block_timestamp": newest.block_timestamp,
        }
        enqueue(conn, columns, self._body(columns, sights, now), self.channels)

    def _body(self, columns: dict[str, Any], sights: Sequence[Sight], now: float) -> dict[str, Any]:
        """The alert as it is delivered, with the keys that position alerts have too."""
        crossed = columns["event"] == Event.CROSSED
        reason = None if self.reason is None or not crossed else printable(self.reason[:REASON_CHARACTERS])
        names = ", ".join(s.deployment for s in sights)
        nothing = dict.fromkeys(
            "threshold_health_factor wallet label ens protocol deployment account position_group health_factor "
            "health_factor_raw status".split()
        )
        said = "cannot be watched" if crossed else "can be watched again"
        text = [f"{names} on {self.chain} {said}" + ("; no alert about it can be raised meanwhile" if crossed else "")]
        text += [f"{s.deployment}: {rows_of(s, now)}" for s in sights]
        text += [f"reason: {reason}"] if reason else []
        return {
            "id": columns["id"],
            "kind": "blind",
            "event": columns["event"],
            "rule": "blind",
            "crossing": columns["crossing"],
            **nothing,
            "chain": self.chain,
            "chain_id": self.chain_id,
            "deployments": [
                {
                    "deployment": s.deployment,
                    "block_number": s.block_number,
                    "block_timestamp_seconds": s.block_timestamp,
                    "age_seconds": None if s.block_timestamp is None else int(now - s.block_timestamp),
                    "note": s.note,
                }
                for s in sights
            ],
            "reason": reason,
            "block_number": columns["block_number"],
            "block_hash": columns["block_hash"],
            "block_timestamp_seconds": columns["block_timestamp"],
            "title": f"{'Blind' if crossed else 'Watching again'}: {self.chain}: {names}",
            "text": "\n".join(text),
        }


def rows_of(sight: Sight, now: float) -> str:
    """How old the newest rows are, with the note of the last sync."""
    if sight.block_timestamp is None:
        return "no rows yet"
    at = datetime.fromtimestamp(sight.block_timestamp, UTC)
    note = f" ({printable(sight.note[:REASON_CHARACTERS])})" if sight.note else ""
    ahead = sight.block_timestamp - now
    how_old = f"{age(ahead)} ahead of this machine's clock" if ahead > 0 else f"{age(-ahead)} old"
    return f"newest rows of block {sight.block_number:,} of {at:%Y-%m-%d %H:%M:%S} UTC, {how_old}{note}"
