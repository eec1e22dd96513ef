"""The interface through which long work reports its progress."""

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of a sync, in blocks or positions; `note` says what was found so far.

    `done` of the total were done before. Of a stage that did not begin, as nothing was missing, neither progress nor its end
    is shown.
    """

    def start(self, name: str, total: int, unit: str, done: int = 0) -> None: ...
    def advance(self, name: str, count: int, note: str = "") -> None: ...
    def done(self, name: str) -> None: ...


class NoProgress:
    """Says nothing."""

    def start(self, name: str, total: int, unit: str, done: int = 0) -> None: ...
    def advance(self, name: str, count: int, note: str = "") -> None: ...
    def done(self, name: str) -> None: ...
