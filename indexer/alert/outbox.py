"""The outbox: alerts queued with their snapshot leave once, in order, on every channel.

A snapshot's transaction writes an alert and one line of `deliveries` for each channel. Each channel has a courier, a
thread that delivers what is queued for it, the oldest first, and goes on to the next only when that was taken: order is
kept, and a channel that is down holds up no other. A failed attempt is repeated with a growing, bounded pause.

Once: the couriers run in a process of their own (`indexer.alert.delivery`), which ends what it is at when the watch dies. And
should that process die too: no protocol tells a sender that died whether its message was taken, so the state of each
delivery is written down before what it stands for, and the next start decides by it:

    pending     not sent                                -> is sent
    trying      connecting, logging in; not yet sent    -> is sent
    sending     the last bytes leave or have just left  -> counts as delivered, never sent twice
    late        no answer LATE_SECONDS after that       -> is sent again, as after any timeout
    delivered   taken

What remains: the death of the couriers' process in the moment between writing `sending` and the system call that sends,
or while a channel is refusing, loses that message on that channel; a channel that took a message and did not answer for
LATE_SECONDS before such a death, or at all before a timeout, gets it again. It then carries, as always, the same id
(Idempotency-Key, Message-ID, `id`), by which a receiver can tell. Services of apprise that use neither HTTP nor SMTP
tell nothing before they send; after a death in such an attempt the message is sent again. A power loss may forget the
last states, and so repeat what was sent right before it.
"""

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Self, TypeVar

from indexer.alert.channels import Channel, DeliveryError, GoneError

log = logging.getLogger(__name__)

T = TypeVar("T")

BUSY_TIMEOUT_MS = 30_000
LATE_SECONDS = 1.0
PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
#: how long a courier whose database is busy or full waits before it tries again
TROUBLE_SECONDS = 2.0
GIVE_UP_AFTER = 3  # attempts of `watch check`; what is left is sent by the next run


class DeliveryWorker:
    """Delivers one channel's alerts until it is stopped; a thread with a connection of its own."""

    def __init__(self, path: Path, channel: Channel, expire_seconds: float, tell_gone: Callable[[], None]) -> None:
        self.channel, self.path, self.expire_seconds, self.tell_gone = channel, path, expire_seconds, tell_gone
        self.failures = 0
        self.gone = False
        self.idle = threading.Event()
        self._news, self._stop, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"courier {channel.place}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There may be something to deliver."""
        with self._lock:
            self.idle.clear()
            self._news.set()

    def stop(self, seconds: float) -> None:
        """Ends it after the attempt at hand, or leaves it behind after that long."""
        self._stop.set()
        self._news.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as conn:
            conn.execute(f"pragma busy_timeout={BUSY_TIMEOUT_MS}")
            conn.execute("pragma synchronous=normal")  # no fsync between writing `sending` and the system call
            conn.execute("pragma wal_autocheckpoint=0")
            self._stubborn(lambda: recover(conn, self.channel.key))
            while not self._stop.is_set():
                self._news.clear()
                pause = self._stubborn(lambda: self._next(conn))
                with self._lock:
                    if pause is None and not self._news.is_set():
                        self.idle.set()
                if pause is None or pause > 0:
                    self._news.wait(pause)

    def _stubborn(self, act: Callable[[], T]) -> T | None:
        """The answer of something on the database, tried again as long as that is busy, full or read-only."""
        while True:
            try:
                return act()
            except sqlite3.Error as error:
                log.error("alerts to %s wait: %s", self.channel.place, error)
                if self._stop.wait(TROUBLE_SECONDS):
                    return None

    def _next(self, conn: sqlite3.Connection) -> float | None:
        """Attempts the oldest delivery; seconds until there is more to do, None if nothing is queued."""
        row = conn.execute(
            "select d.number, d.attempts, d.next_attempt_at, a.created_at, a.body from deliveries d "
            "join alerts a using (number) where d.channel = ? and d.state = 'pending' order by d.number limit 1",
            (self.channel.key,),
        ).fetchone()
        if row is None or self.gone:
            return None
        number, attempts, due, created, body = row
        now = time.time()
        if now - created > self.expire_seconds:
            log.error("an alert of %g hours ago is given up: %s did not take it", (now - created) / 3600, self.place)
            self._mark(conn, number, "expired")
            return 0
        if 0 < due - now <= PAUSES[-1]:
            return float(due - now)
        self._attempt(conn, number, attempts, body)
        return 0

    @property
    def place(self) -> str:
        return self.channel.place

    def _attempt(self, conn: sqlite3.Connection, number: int, attempts: int, body: str) -> None:
        self._mark(conn, number, "trying")
        timer: list[threading.Timer] = []
        reason: str | None = None
        gone = False

        def at_send() -> None:
            if not timer:
                timer.append(threading.Timer(LATE_SECONDS, self._late, (number,)))
                timer[0].daemon = True
                timer[0].start()
                self._mark(conn, number, "sending")

        try:
            self.channel.deliver(json.loads(body), at_send)
        except DeliveryError as error:
            reason = str(error)
            gone = isinstance(error, GoneError)
        except sqlite3.Error as error:  # `sending` could not be written, so nothing was sent
            reason = f"the database cannot be written: {error}"
        except Exception as error:  # a defect in somebody's plugin is a failed attempt like any other
            log.exception("%s: defect in the channel", self.place)
            reason = f"defect in the channel: {type(error).__name__}"
        finally:
            for started in timer:
                started.cancel()
        if reason is None:
            self.failures = 0
            self._stubborn(lambda: self._mark(conn, number, "delivered"))
            return
        self.failures += 1
        pause = PAUSES[min(self.failures, len(PAUSES)) - 1]
        log.warning("%s did not take an alert (%s); trying again in %g s", self.place, reason, pause)
        self._stubborn(
            lambda: conn.execute(
                "update deliveries set state = 'pending', error = ?, next_attempt_at = ? where channel = ? and number = ?",
                (reason, time.time() + pause, self.channel.key, number),
            )
        )
        if gone:
            self.gone = True
            self.tell_gone()

    def _mark(self, conn: sqlite3.Connection, number: int, state: str) -> None:
        conn.execute(
            "update deliveries set state = ?1, attempts = attempts + (?1 = 'trying'), "
            "delivered_at = case when ?1 = 'delivered' then ?2 end, "
            "error = case when ?1 = 'delivered' then null else error end where channel = ?3 and number = ?4",
            (state, int(time.time()), self.channel.key, number),
        )

    def _late(self, number: int) -> None:
        """The answer is overdue: should this process die now, the message counts as not taken."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as conn:
            conn.execute(f"pragma busy_timeout={BUSY_TIMEOUT_MS}")
            try:
                conn.execute(
                    "update deliveries set state = 'late' where channel = ? and number = ? and state = 'sending'",
                    (self.channel.key, number),
                )
            except sqlite3.Error as error:
                log.error("alerts to %s: %s", self.place, error)


def recover(conn: sqlite3.Connection, channel: str) -> None:
    """Decides what an interrupted run left between pending and delivered; due pauses are over."""
    conn.execute(
        "update deliveries set delivered_at = ?, state = 'delivered', "
        "error = 'interrupted after it was sent' where channel = ? and state = 'sending'",
        (int(time.time()), channel),
    )
    conn.execute(
        "update deliveries set state = 'pending' where channel = ? and state in ('trying', 'late')", (channel,)
    )
    conn.execute("update deliveries set next_attempt_at = 0 where channel = ? and state = 'pending'", (channel,))


class DeliveryWorkers:
    """All channels' couriers. Use as a context manager; leaving it lets attempts at hand end, but not for ever."""

    def __init__(
        self,
        path: Path,
        channels: Sequence[Channel],
        expire_seconds: float,
        patience_seconds: float = 5.0,
        all_gone: Callable[[], None] = lambda: None,
    ) -> None:
        self.patience_seconds, self.all_gone = patience_seconds, all_gone
        self.all = [DeliveryWorker(path, channel, expire_seconds, self._gone) for channel in channels]

    def __enter__(self) -> Self:
        for courier in self.all:
            courier.start()
        return self

    def __exit__(self, *_: object) -> None:
        for courier in self.all:
            courier.stop(self.patience_seconds)

    def wake(self) -> None:
        for courier in self.all:
            courier.wake()

    def _gone(self) -> None:
        if all(courier.gone for courier in self.all):
            self.all_gone()

    def settle(self, seconds: float) -> bool:
        """Waits until everything is delivered, or has failed often enough; whether it is."""
        self.wake()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            busy = [c for c in self.all if not c.idle.is_set() and c.failures < GIVE_UP_AFTER]
            if not busy:
                break
            busy[0].idle.wait(0.05)
        return all(courier.idle.is_set() and not courier.gone for courier in self.all)


def waiting(conn: sqlite3.Connection) -> list[tuple[str, str, int, str | None]]:
    """(channel, place, alerts not yet delivered, the last error) of every channel that has any."""
    return conn.execute(
        "select channel, max(place), count(*), max(error) from deliveries "
        "where state not in ('delivered', 'expired') group by channel order by channel"
    ).fetchall()
