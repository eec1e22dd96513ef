"""The process of one chain: how it is started, what it said last, and when it is started again."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from indexer.fleet.messages import understood

#: seconds before a process that ended is started again, the last one again and again where there is no limit
ONCE_PAUSES = (1.0, 2.0, 5.0)
FOLLOW_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
#: the exit code of wrong usage or configuration, which does not get better by itself
HOPELESS = 2


class State(StrEnum):
    """What becomes of a chain."""

    STARTING = "starting"
    SYNCING = "syncing"
    FOLLOWING = "following"
    WAITING = "waiting"
    DONE = "done"
    GAVE_UP = "gave up"
    STOPPED = "stopped"


@dataclass
class Member:
    """A chain and its process; `arguments` are those of the command line, `budget` the file and rate that all share."""

    name: str
    arguments: Sequence[str]
    follow: bool
    pauses: Sequence[float]
    budget: tuple[str, float] | None = None
    state: State = State.WAITING
    process: "subprocess.Popen[str] | None" = None
    #: when it is started again, by the monotonic clock
    due: float = 0.0
    failures: int = 0
    restarts: int = 0
    #: the last snapshot of this run, as it was told
    sample: dict[str, Any] = field(default_factory=dict)
    stage: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    #: why something has no newer rows, if the process told
    trouble: str | None = None

    def start(self, hear: Callable[["Member", dict[str, Any] | None], None]) -> None:
        """Starts the process; a thread hands on what it tells, and None once it ended."""
        self.state, self.stage = State.STARTING, {}
        process = subprocess.Popen(  # -P: nothing in the folder at hand is ever imported
            [sys.executable, "-P", "-m", "indexer.cli.chain_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the supervisor, which passes it on
        )
        self.process = process
        assert process.stdin is not None
        order = {"arguments": [*self.arguments], "budget": self.budget}
        with suppress(BrokenPipeError):  # it ended; its exit code says why
            process.stdin.write(json.dumps(order) + "\n")  # over a pipe, as anyone may read a command line
            process.stdin.flush()
        threading.Thread(target=self._read, args=(process, hear), daemon=True).start()

    def _read(self, process: "subprocess.Popen[str]", hear: Callable[["Member", dict[str, Any] | None], None]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            hear(self, understood(line))
        process.wait()
        hear(self, None)

    def heard(self, message: dict[str, Any]) -> None:
        """Takes in what the process told."""
        if "snapshot" in message:
            self.sample, self.failures = message["snapshot"], 0
            self.state = State.FOLLOWING if self.follow else State.SYNCING
        elif "stage" in message:
            self.stage = message
            if self.state is State.STARTING:
                self.state = State.SYNCING
        elif "line" in message:
            self.said = str(message["line"])
        elif "trouble" in message:
            self.trouble = message["trouble"]

    def ended(self, code: int, now: float) -> None:
        """Takes in that the process ended: it is done, is started again later, or has failed too often."""
        self.stage, process, self.process = {}, self.process, None
        if process is not None and process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()
        if code == 0 and not self.follow:
            self.state = State.DONE
            return
        self.failures += code != 0
        endless = self.follow and bool(self.sample)
        if code == HOPELESS or (self.failures > len(self.pauses) and not endless):
            self.state = State.GAVE_UP
            return
        self.restarts += 1
        self.state = State.WAITING
        self.due = now + self.pauses[min(max(self.failures, 1), len(self.pauses)) - 1]

    def stop(self, number: int) -> None:
        """Sends a signal to the process, if there is one."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    @property
    def over(self) -> bool:
        """Whether nothing more is expected of it."""
        return self.state in (State.DONE, State.GAVE_UP, State.STOPPED)
