"""The table `deliveries`: what is sent next, what an interrupted run left, what waits and what was refused."""

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from indexer.delivery.channels import Channel
from indexer.store.shards import stored_columns

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
