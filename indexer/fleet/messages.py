"""What the process of a chain tells its supervisor: JSON lines on a pipe, one message each.

{"line": text}                                    a line that a person would see on stderr
{"stage": name, "done": n, "total": n, "unit": u} how far it is; "stage": "" where a stage is through
{"snapshot": {...}}                               a committed snapshot, as `jobs.sync.tell_of` has it
{"trouble": text}                                 why something has no newer rows; null once all have
"""

import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

#: seconds between two messages about the same stage
PAUSE = 0.5


class Told:
    """Writes messages; threads share it. Where nobody reads any more it says nothing: the process is about to end."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lock = threading.Lock()

    def tell(self, message: Mapping[str, Any]) -> None:
        with self.lock, suppress(BrokenPipeError, ValueError):
            self.stream.write(json.dumps(message) + "\n")
            self.stream.flush()

    def line(self, text: str) -> None:
        self.tell({"line": text})

    def trouble(self, reason: str | None) -> None:
        self.tell({"trouble": reason})

    def snapshot(self, sample: Mapping[str, Any]) -> None:
        self.tell({"snapshot": dict(sample)})


class Stages:
    """Progress as messages."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.name, self.count, self.total, self.unit, self.due = "", 0, 0, "", 0.0

    def start(self, name: str, total: int, unit: str, done: int = 0) -> None:
        self.name, self.count, self.total, self.unit = name, done, total, unit
        self._tell()

    def advance(self, name: str, count: int, note: str = "") -> None:
        self.count += count
        if time.monotonic() >= self.due:
            self._tell()

    def done(self, name: str) -> None:
        if name == self.name:
            self.name = ""
            self._tell()

    def _tell(self) -> None:
        self.due = time.monotonic() + PAUSE
        self.told.tell({"stage": self.name, "done": self.count, "total": self.total, "unit": self.unit})


def understood(line: str) -> dict[str, Any]:
    """A message; empty for a line that is none, as a process that is killed may leave half of one."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
