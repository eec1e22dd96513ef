"""The outbox: sends each alert once to every channel, and the alerts of one position in order.

A snapshot's transaction writes an alert, and one row of `deliveries` for each channel. Each channel has a worker, a
thread that delivers what is queued for it, oldest first. An alert waits only for earlier ones of its own position, and a
channel that is down holds up no other. A failed attempt is repeated after a growing, bounded pause, or after the pause
that the channel asks for (`Retry-After`), at most an hour.

An alert that a channel refuses for good (see `RefusedError`), or that failed FAILURES times although the channel may
be up, steps aside: later alerts of its position go on, and it is tried once more as a short plain message
(`indexer.delivery.short_form.short_form`). If the channel refuses that as well, or fails on it while it takes other alerts,
the delivery is `refused`; `indexer watch list` and `indexer status` show it. While the channel accepts nothing at all
the short message waits like any other, so an outage loses nothing.

How an alert leaves only once: the couriers run in a process of their own (`indexer.delivery.dispatch`), which finishes the
attempts in progress when the watch dies. That process may die too, and no protocol tells a restarted sender whether its
message was accepted. So each state of a delivery is written before the step it announces, and the next start decides by
that state:

    pending     not sent                                -> is sent
    trying      connecting, logging in; not yet sent    -> is sent
    sending     the last bytes leave or have just left  -> counts as delivered, never sent twice
    late        no answer LATE_SECONDS after that       -> is sent again, as after any timeout
    delivered   taken
    refused     not taken, in full and as a short message; expired: nobody took it for days

What remains: if the couriers' process dies between writing `sending` and the system call that sends, or while a channel
is refusing, that channel loses the message. A channel that accepted a message but had not answered for LATE_SECONDS when
the process died, or not before the timeout, gets it again, with the same id as before (Idempotency-Key, Message-ID,
`id`), by which a receiver can recognise it. Apprise services that use neither HTTP nor SMTP give no sign before they
send; if the process dies in such an attempt, the message is sent again. A power loss may undo the last states written,
and so repeat what was sent right before it.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from indexer.boundary.stored_json import stored_object
from indexer.delivery import queue
from indexer.delivery.channels import Channel, DeliveryError, GoneError, RefusedError
from indexer.delivery.queue import LONGEST_PAUSE, PAUSES, Delivery
from indexer.delivery.short_form import short_form
from indexer.errors import StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")

LATE_SECONDS = 1.0
#: how long a courier whose database is busy or full waits before it tries again
TROUBLE_SECONDS = 2.0
FAILURES = 5  # of one alert, before it steps aside
GIVE_UP_AFTER = 3  # attempts of `watch check`; what is left is sent by the next run


class DeliveryWorker:
    """Delivers one channel's alerts until it is stopped, in a thread with a database connection of its own."""

    def __init__(self, path: Path, channel: Channel, expire_seconds: float, tell_gone: Callable[[], None]) -> None:
        self.channel, self.path, self.expire_seconds, self.tell_gone = channel, path, expire_seconds, tell_gone
        self.failures = 0  # in a row
        self.taken = 0  # alerts the channel has taken
        self.refused = 0
        self.failed_at: dict[int, int] = {}  # delivery -> `taken` at its last failure
        self.resume_at = 0.0  # unix seconds until which the channel asks to be left alone
        self.gone = False
        self.idle = threading.Event()
        self._news, self._stop, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"courier {channel.place}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Tells the worker that there may be something to deliver."""
        with self._lock:
            self.idle.clear()
            self._news.set()

    def stop(self, seconds: float) -> None:
        """Stops the worker after the attempt in progress, or abandons it when that takes too long."""
        self._stop.set()
        self._news.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        with queue.opened(self.path) as conn:
            self.resume_at = self._stubborn(lambda: queue.recover(conn, self.channel.key)) or 0.0
            while not self._stop.is_set():
                self._news.clear()
                pause = self._stubborn(lambda: self._next(conn))
                with self._lock:
                    if pause is None and not self._news.is_set():
                        self.idle.set()
                if pause is None or pause > 0:
                    self._news.wait(pause)

    def _stubborn(self, act: Callable[[], T]) -> T | None:
        """Runs a database operation, again and again while the database is busy, full or read-only; returns its result."""
        while True:
            try:
                return act()
            except sqlite3.Error as error:
                log.error("alerts to %s wait: %s", self.channel.place, error)
                if self._stop.wait(TROUBLE_SECONDS):
                    return None

    def _next(self, conn: sqlite3.Connection) -> float | None:
        """Attempts the next delivery; returns the seconds until the one after it, None if nothing is queued."""
        now = time.time()
        if self.gone:
            return None
        if now < self.resume_at <= now + LONGEST_PAUSE:
            return self.resume_at - now if queue.soonest(conn, self.channel.key) is not None else None
        delivery = queue.due(conn, self.channel.key, now)
        if delivery is None:
            soonest = queue.soonest(conn, self.channel.key)
            return None if soonest is None else max(soonest - now, 0.05)
        if now - delivery.created_at > self.expire_seconds:
            hours = (now - delivery.created_at) / 3600
            log.error("an alert of %g hours ago is given up: %s did not accept it", hours, self.place)
            self._mark(conn, delivery.number, "expired")
            return 0
        # alerts that stepped aside go first where they can, to keep the order
        for older in [] if delivery.short else queue.oldest_aside(conn, self.channel.key, delivery.number):
            self._attempt(conn, older)
            if self.gone or self._stop.is_set() or self.resume_at > time.time():
                return 0
        self._attempt(conn, delivery)
        return 0

    @property
    def resting(self) -> bool:
        """Whether the channel asks to be left alone for longer than a usual pause."""
        return PAUSES[-1] < self.resume_at - time.time() <= LONGEST_PAUSE

    @property
    def place(self) -> str:
        return self.channel.place

    def _attempt(self, conn: sqlite3.Connection, delivery: "Delivery") -> None:
        number = delivery.number
        self._mark(conn, number, "trying")
        timer: list[threading.Timer] = []
        failure: DeliveryError | None = None
        blamed = False

        def at_send() -> None:
            if not timer:
                timer.append(threading.Timer(LATE_SECONDS, self._late, (number,)))
                timer[0].daemon = True
                timer[0].start()
                self._mark(conn, number, "sending")

        try:
            alert = stored_object(delivery.body, f"alerts.body of number {number}")
            self.channel.deliver(short_form(alert) if delivery.short else alert, at_send)
        except DeliveryError as error:
            failure = error
        except sqlite3.Error as error:  # `sending` could not be written, so nothing was sent
            failure = DeliveryError(f"the database cannot be written: {error}")
        except StoreError as error:
            failure = RefusedError(str(error))
        except (ValueError, TypeError) as error:
            log.exception("%s: an alert that it cannot be given", self.place)
            failure = RefusedError(f"bad argument: {type(error).__name__}")
        except Exception as error:  # a defect in somebody's plugin is a failed attempt like any other
            log.exception("%s: defect in the channel", self.place)
            failure, blamed = DeliveryError(f"defect in the channel: {type(error).__name__}"), True
        finally:
            for started in timer:
                started.cancel()
        if failure is None:
            self.failures, self.taken = 0, self.taken + 1
            self.failed_at.pop(number, None)
            self._stubborn(lambda: self._mark(conn, number, "delivered"))
        else:
            self._failed(conn, delivery, failure, sent=bool(timer) or blamed)

    def _failed(self, conn: sqlite3.Connection, delivery: "Delivery", failure: DeliveryError, *, sent: bool) -> None:
        """Records what becomes of a delivery that was not accepted: tried again, put aside, or refused."""
        taken_since = self.taken > self.failed_at.get(delivery.number, self.taken)
        self.failed_at[delivery.number] = self.taken
        oldest = self._stubborn(lambda: queue.oldest_open(conn, self.channel.key))
        # A message that never left, or that the channel put off, is not suspect. Nor are many that fail together: when
        # a channel accepts nothing, only its oldest alert is suspected.
        counts = sent and failure.retry_after is None and (taken_since or delivery.number == oldest)
        failures, aside, final = consequence(delivery, failure, counts=counts, taken_since=taken_since)
        # one time for both: the channel goes on with what it refused, not with what came behind
        now, pause = time.time(), 0.0
        if final:
            self.refused += 1
            log.error("%s refused an alert also as a short message: %s", self.place, failure)
        elif aside:
            log.error("%s does not accept an alert (%s); it is tried again as a short message", self.place, failure)
        else:
            self.failures += 1
            pause = PAUSES[min(self.failures, len(PAUSES)) - 1]
            if failure.retry_after is not None:
                pause = min(max(failure.retry_after, pause), LONGEST_PAUSE)
                self.resume_at = now + pause
            log.warning("%s did not accept an alert (%s); trying again in %g s", self.place, failure, pause)
        next_attempt_at = now + pause
        self._stubborn(
            lambda: queue.mark_failed(
                conn,
                self.channel.key,
                delivery,
                str(failure),
                failures=failures,
                short=bool(delivery.short or aside),
                refused=final,
                next_attempt_at=next_attempt_at,
            )
        )
        if isinstance(failure, GoneError):
            self.gone = True
            self.tell_gone()

    def _mark(self, conn: sqlite3.Connection, number: int, state: str) -> None:
        queue.mark(conn, self.channel.key, number, state)

    def _late(self, number: int) -> None:
        """Marks a delivery whose answer is overdue: if this process dies now, the message counts as not accepted."""
        try:
            queue.mark_late(self.path, self.channel.key, number)
        except sqlite3.Error as error:
            log.error("alerts to %s: %s", self.place, error)


def consequence(
    delivery: Delivery, failure: DeliveryError, *, counts: bool, taken_since: bool
) -> tuple[int, bool, bool]:
    """After a failed attempt: (failures that count, whether it steps aside now, whether it is refused for good).

    `counts`: the message may be at fault; `taken_since`: the channel accepted others since this one's last failure.
    """
    if isinstance(failure, RefusedError):
        final = delivery.short and (taken_since or not failure.of_channel)
        return delivery.failures, not delivery.short, bool(final)
    failures = delivery.failures + counts
    return failures, not delivery.short and failures >= FAILURES, bool(delivery.short and counts and taken_since)


class DeliveryWorkers:
    """All channels' couriers. Use as a context manager; leaving it waits a limited time for attempts in progress."""

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
        """Waits until everything is delivered or has failed often enough; True if everything is delivered."""
        self.wake()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            busy = [c for c in self.all if not c.idle.is_set() and c.failures < GIVE_UP_AFTER and not c.resting]
            if not busy:
                break
            busy[0].idle.wait(0.05)
        return all(c.idle.is_set() and not c.gone and not c.refused for c in self.all)
