"""Runs the processes of several chains until they are done, or until a signal says to stop.

One that ends with an error, or is killed, is started again after a growing pause; the others go on meanwhile. A process
whose supervisor dies ends by itself, as its standard input does.
"""

import queue
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from indexer.fleet.member import Member, State

#: seconds between two looks at the clock
TICK = 0.2


class Supervisor:
    """The processes of `members`.

    `said` gets each line that one of them prints, `changed` is called after each change, and `committed` with a member that
    has told of a snapshot, or ended, as it may have died between a snapshot and the word of it.
    """

    def __init__(
        self,
        members: Sequence[Member],
        said: Callable[[str, str], None],
        changed: Callable[[], None] = lambda: None,
        committed: Callable[[Member], None] = lambda _: None,
    ) -> None:
        self.members, self.said, self.changed, self.committed = list(members), said, changed, committed
        self.heard: queue.SimpleQueue[tuple[Member, dict[str, Any] | None]] = queue.SimpleQueue()
        self.signals = 0
        self.passed_on = 0

    @property
    def samples(self) -> Mapping[str, Mapping[str, Any]]:
        """The last snapshot of each chain in this run, as `jobs.sync.tell_of` tells it, by chain."""
        return {member.name: member.sample for member in self.members if member.sample}

    def run(self) -> None:
        """Returns once every member is over. The first signal reaches the processes as SIGTERM, a second one kills them."""
        with self._heeding_signals():
            while not all(member.over for member in self.members):
                self._pass_on()
                for member in self.members:
                    if member.state is State.WAITING and not self.signals and time.monotonic() >= member.due:
                        member.start(lambda who, what: self.heard.put((who, what)))
                        self.changed()
                self._hear()

    def _hear(self) -> None:
        try:
            member, message = self.heard.get(timeout=TICK)
        except queue.Empty:
            return
        if message is not None:
            member.heard(message)
            if "line" in message:
                self.said(member.name, member.said)
        else:
            self._ended(member)
        if message is None or "snapshot" in message:
            self.committed(member)
        self.changed()

    def _ended(self, member: Member) -> None:
        assert member.process is not None
        code = member.process.returncode
        member.ended(code, time.monotonic())
        if self.signals:
            member.state = State.GAVE_UP if member.state is State.GAVE_UP else State.STOPPED
        elif member.state is State.WAITING:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            pause = member.due - time.monotonic()
            self.said(member.name, f"its process {how}; it is started again in {pause:.0f} s")
        elif member.state is State.GAVE_UP:
            self.said(member.name, f"given up after {member.failures} failures in a row; the other chains go on")

    def _pass_on(self) -> None:
        """Passes signals on that came meanwhile; nobody who waits to be started again is."""
        if self.signals == self.passed_on:
            return
        self.passed_on = self.signals
        for member in self.members:
            member.stop(signal.SIGTERM if self.signals == 1 else signal.SIGKILL)
            if member.state is State.WAITING:
                member.state = State.STOPPED

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        def note(_number: int, _frame: FrameType | None) -> None:
            self.signals += 1

        heeded = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
        before = [signal.signal(number, note) for number in heeded]
        try:
            yield
        finally:
            for number, handler in zip(heeded, before, strict=True):
                signal.signal(number, handler)
            for member in self.members:  # an error here leaves nobody behind
                member.stop(signal.SIGTERM)
