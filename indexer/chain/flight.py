"""Several requests in flight: how many an endpoint takes, found by trying, and work begun ahead by threads."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")

#: requests in flight to one endpoint at most
MOST = 16
#: answers before a number of requests that was refused is tried again
PATIENCE = 500


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request in flight: how many there were with it when it left, and after how many refusals that was."""

    inside: int
    refusals: int


@dataclass(slots=True)
class Flight:
    """The requests in flight to one endpoint: at most `limit`, which refusals halve.

    Until the first refusal the limit grows with each answer, then by one for each round of `limit` answers, and it stops
    below the number that was refused until `PATIENCE` answers later. It grows only while requests wait for a place.
    """

    limit: int = 1
    inside: int = 0
    refused_at: int = 0
    answers: int = 0
    calm: int = 0
    refusals: int = 0
    waiting: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    @contextmanager
    def place(self) -> Iterator[Ticket]:
        """Waits for a place among the requests in flight, and holds it."""
        with self._changed:
            self.waiting += 1
            try:
                while self.inside >= self.limit:
                    self._changed.wait()
            finally:
                self.waiting -= 1
            self.inside += 1
            ticket = Ticket(self.inside, self.refusals)
        try:
            yield ticket
        finally:
            with self._changed:
                self.inside -= 1
                self._changed.notify_all()

    def answered(self) -> None:
        """Notes that the endpoint answered."""
        with self._changed:
            self.calm += 1
            if self.refused_at and self.calm > PATIENCE:
                self.refused_at = 0
            if not self.waiting or self.limit >= (self.refused_at - 1 if self.refused_at else MOST):
                return
            self.answers += 1
            if not self.refusals or self.answers >= self.limit:
                self.limit, self.answers = self.limit + 1, 0

    def refused(self, ticket: Ticket) -> bool:
        """Notes that the endpoint asked for patience or took too long; returns whether fewer requests at once may help."""
        with self._changed:
            if ticket.inside == 1:
                return False
            if ticket.refusals < self.refusals:  # it left before the last refusal, which the limit follows already
                self.refused_at = min(ticket.inside, self.refused_at or MOST)
            else:
                self.refused_at = min(ticket.inside, self.limit)
                self.limit = max(1, self.limit // 2)
                self.refusals += 1
                self.answers = self.calm = 0
            return True


class Ahead(Generic[T]):
    """Runs tasks in threads, up to `room()` of them begun and not yet taken; iterates over them finished, in their order.

    With room for one it begins no thread.

    Tasks are begun by whoever iterates. Leaving the context after an error waits for those that run; an interrupt does not:
    the threads are daemons.
    """

    def __init__(self, tasks: Iterable[Callable[[], T]], room: Callable[[], int]) -> None:
        self._tasks, self._room = iter(tasks), room
        self._begun: deque[Future[T]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            wait(self._begun)

    def __iter__(self) -> Iterator[Future[T]]:
        while True:
            while len(self._begun) < max(1, self._room()) and (task := next(self._tasks, None)) is not None:
                self._begun.append(begin(task, here=self._room() <= 1))
            if not self._begun:
                return
            wait([self._begun[0]])
            yield self._begun.popleft()


def begin(task: Callable[[], T], *, here: bool = False) -> Future[T]:
    """The result to come of a task that runs in a thread of its own, or `here` and now."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            result = task()
        except Exception as error:  # noqa: BLE001 - raised again by whoever takes the result
            future.set_exception(error)
        else:
            future.set_result(result)

    if here:
        work()
        return future
    in_background(work, "ahead")
    return future


def in_background(work: Callable[[], None], name: str) -> None:
    """Starts a thread that ends with the process. MemoryError where the machine gives no more threads."""
    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError as error:  # what Python says to a system's EAGAIN
        raise MemoryError(str(error)) from error
