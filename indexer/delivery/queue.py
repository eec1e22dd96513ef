"""The table `deliveries`, all SQL of this package: what is sent next, what an interrupted run left, what waits and what was refused."""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from indexer.delivery.channels import Channel
from indexer.store.shards import stored_columns
from indexer.store.writable import open_beside

PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
LONGEST_PAUSE = 3_600.0
KEPT_SECONDS = 7 * 86_400  # how long a refused alert is shown

#: a position's alerts keep their order; those of no position (kind `blind`) that of their chain
LANE = "({0}.kind, {0}.chain_id, {0}.deployment, {0}.account, {0}.position_group)"
#: an older alert of the same position waits for the same channel and has not stepped aside
BEHIND = (
    "exists (select 1 from deliveries e join alerts b using (number) where e.channel = d.channel "  # noqa: S608 - ours
    f"and e.state = 'pending' and not e.short and e.number < d.number and {LANE.format('b')} is {LANE.format('a')})"
)
TURN = (
    "select d.number, d.attempts, d.failures, d.short, a.created_at, a.body from deliveries d "  # noqa: S608 - ours
    f"join alerts a using (number) where d.channel = ?1 and d.state = 'pending' and (d.short or not {BEHIND})"
)
#: due, or so far ahead that somebody must have set the clock back
DUE = "(d.next_attempt_at <= ?2 or d.next_attempt_at > ?3)"


class Delivery(NamedTuple):
    """A row of `deliveries` that is due, with its alert."""

    number: int
    attempts: int
    failures: int
    short: int
    created_at: int
    body: str


def enqueue(
    conn: sqlite3.Connection, columns: Mapping[str, Any], body: Mapping[str, Any], channels: Sequence[Channel]
) -> None:
    """Queues one alert for every channel, in the caller's transaction; `columns` are its columns of `alerts`."""
    _queue(conn, {**columns, "body": json.dumps(body), "created_at": int(time.time())}, channels)


def collect(conn: sqlite3.Connection, source: sqlite3.Connection, after: int, channels: Sequence[Channel]) -> int:
    """Queues what the file of one chain holds for nobody yet, each alert once; returns the last number that it looked at.

    The process of a chain writes alerts without deliveries, in the transaction of their snapshot; here they get them, in
    a transaction of the caller's. An alert that is known by its id is left alone, so whoever was killed in between begins anew.
    """
    names = stored_columns(source, "alerts")
    rows = source.execute(
        f"select {', '.join(names)} from alerts a where number > ? "  # noqa: S608 - our own names
        "and not exists (select 1 from deliveries d where d.number = a.number) "
        "order by number",
        (after,),
    )
    for found in rows:
        row = dict(zip(names, found, strict=True))
        after = row.pop("number")
        if conn.execute("select 1 from alerts where id = ?", (row["id"],)).fetchone() is None:
            _queue(conn, row, channels)
    return after


def _queue(conn: sqlite3.Connection, row: Mapping[str, Any], channels: Sequence[Channel]) -> None:
    cursor = conn.execute(
        f"insert into alerts ({', '.join(row)}) values ({', '.join('?' * len(row))})",  # noqa: S608 - our own names
        tuple(row.values()),
    )
    conn.executemany(
        "insert into deliveries (number, channel, place, state) values (?, ?, ?, 'pending')",
        [(cursor.lastrowid, channel.key, channel.place) for channel in channels],
    )


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The connection of one delivery worker."""
    with open_beside(path) as conn:
        conn.execute("pragma synchronous=normal")  # no fsync between writing `sending` and the system call
        conn.execute("pragma wal_autocheckpoint=0")
        yield conn


def due(conn: sqlite3.Connection, channel: str, now: float) -> Delivery | None:
    """The oldest delivery of a channel that is due, None if there is none."""
    found = conn.execute(f"{TURN} and {DUE} order by d.number limit 1", (channel, now, now + LONGEST_PAUSE)).fetchone()
    return None if found is None else Delivery(*found)


def soonest(conn: sqlite3.Connection, channel: str) -> float | None:
    """When a channel's next delivery is due (unix seconds), None if nothing is queued."""
    found: tuple[float | None] = conn.execute(
        "select min(next_attempt_at) from deliveries d join alerts a using (number) "  # noqa: S608 - our own names
        f"where d.channel = ? and d.state = 'pending' and (d.short or not {BEHIND})",
        (channel,),
    ).fetchone()
    return found[0]


def oldest_aside(conn: sqlite3.Connection, channel: str, number: int) -> list[Delivery]:
    """The oldest alert that stepped aside and is older than this one, of the same position; none or one."""
    rows = conn.execute(
        f"{TURN} and d.short and d.number < ?2 and exists (select 1 from alerts c where c.number = ?2 "  # noqa: S608
        f"and {LANE.format('c')} is {LANE.format('a')}) order by d.number limit 1",
        (channel, number),
    )
    return [Delivery(*row) for row in rows.fetchall()]


def oldest_open(conn: sqlite3.Connection, channel: str) -> int | None:
    """The number of the oldest alert that a channel has not taken."""
    found: tuple[int | None] = conn.execute(
        "select min(number) from deliveries where channel = ? and state in ('pending', 'trying', 'sending', 'late')",
        (channel,),
    ).fetchone()
    return found[0]


def mark(conn: sqlite3.Connection, channel: str, number: int, state: str) -> None:
    """Writes the state that a delivery is in now."""
    conn.execute(
        "update deliveries set state = ?1, attempts = attempts + (?1 = 'trying'), "
        "delivered_at = case when ?1 = 'delivered' then ?2 end, "
        "error = case when ?1 = 'delivered' and not short then null else error end "
        "where channel = ?3 and number = ?4",
        (state, int(time.time()), channel, number),
    )


def mark_late(path: Path, channel: str, number: int) -> None:
    """Marks a delivery whose answer is overdue, from another thread than the worker's; one that was answered stays."""
    with open_beside(path) as conn:
        conn.execute(
            "update deliveries set state = 'late' where channel = ? and number = ? and state = 'sending'",
            (channel, number),
        )


def mark_failed(
    conn: sqlite3.Connection,
    channel: str,
    delivery: Delivery,
    error: str,
    *,
    failures: int,
    short: bool,
    refused: bool,
    next_attempt_at: float,
) -> None:
    """Writes what becomes of a delivery that was not accepted."""
    conn.execute(
        "update deliveries set state = ?, error = ?, next_attempt_at = ?, failures = ?, short = ? "
        "where channel = ? and number = ?",
        ("refused" if refused else "pending", error, next_attempt_at, failures, int(short), channel, delivery.number),
    )


def recover(conn: sqlite3.Connection, channel: str) -> float:
    """Settles the deliveries that an interrupted run left between pending and delivered, and ends the usual pauses.

    Returns until when the channel asked to be left alone (unix seconds), 0 if it did not.
    """
    now = time.time()
    conn.execute(
        "update deliveries set delivered_at = ?, state = 'delivered', "
        "error = 'interrupted after it was sent' where channel = ? and state = 'sending'",
        (int(now), channel),
    )
    conn.execute(
        "update deliveries set state = 'pending' where channel = ? and state in ('trying', 'late')", (channel,)
    )
    conn.execute(
        "update deliveries set next_attempt_at = 0 where channel = ? and state = 'pending' "
        "and (next_attempt_at <= ? or next_attempt_at > ?)",
        (channel, now + PAUSES[-1], now + LONGEST_PAUSE),
    )
    found: tuple[float | None] = conn.execute(
        "select max(next_attempt_at) from deliveries where channel = ? and state = 'pending'", (channel,)
    ).fetchone()
    return found[0] or 0.0


def waiting(conn: sqlite3.Connection) -> list[tuple[str, str, int, str | None]]:
    """(channel, place, alerts not yet delivered, the last error) of every channel with alerts waiting."""
    return conn.execute(
        "select channel, max(place), count(*), max(error) from deliveries "
        "where state not in ('delivered', 'expired', 'refused') group by channel order by channel"
    ).fetchall()


def refused(conn: sqlite3.Connection) -> list[str]:
    """One line per channel about alerts of the last days that it did not accept as they were."""
    return [
        f"{place} did not accept {count} alerts of the last 7 days, {gone} of them not even as a short message: {error}"
        for place, count, gone, error in conn.execute(
            "select max(place), count(*), count(*) filter (where state = 'refused'), max(error) from deliveries "
            "join alerts using (number) where short and created_at > ? group by channel order by channel",
            (time.time() - KEPT_SECONDS,),
        )
    ]
