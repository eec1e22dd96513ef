"""What a person sees on stderr while a command works: progress, log lines, remarks."""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from indexer.progress import Progress
from indexer.text.table import folded, moves, room
from indexer.text.values import age, printable

T = TypeVar("T")
#: seconds between two lines of progress where there is no terminal
TELL_SECONDS = 30.0
#: where lines go while bars are shown, the innermost last: above the bars, so as not to tear them
above_bars: list[Callable[[str], None]] = []
#: who hears of each snapshot, as numbers
listeners: list[Callable[[Mapping[str, Any]], None]] = []
#: who hears why there is no newer snapshot, None where there is one
troubles: list[Callable[[str | None], None]] = []
#: who shows progress instead of bars, where another process does that
shown_by: list[Progress] = []


def remark(text: str) -> None:
    """One line to stderr; nothing in it is taken for markup or obeyed by the terminal, which it does not overrun."""
    say("\n".join(folded(printable(text), room(sys.stderr))))


def say(line: str) -> None:
    if above_bars:
        above_bars[-1](line)
        return
    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        drop_stderr()
        raise SystemExit(1) from None
    except OSError:
        pass  # as on a full disk: the line is worth less than the work it tells of, and waits in the buffer


def drop_stderr() -> None:
    """Sends what is in the buffer of stderr, and all that follows, nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class Lines(logging.Handler):
    """Writes log lines as text, or as JSON with `as_json`, without tearing a progress bar."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        at = datetime.fromtimestamp(record.created, UTC)
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        if self.as_json:
            line = {
                "at": at.isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": message,
                **getattr(record, "fields", {}),
            }
            say(json.dumps(line))
        else:
            remark(f"{at:%H:%M:%S} {record.levelname.lower():7} {message}")


def log_to_stderr(*, as_json: bool, verbose: int) -> None:
    """Send this program's log to stderr: warnings; with `verbose` 1 also what it does, with 2 everything."""
    logger = logging.getLogger("indexer")
    logger.handlers = [Lines(as_json=as_json)]
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG))
    logger.propagate = False


class Told:
    """Progress as a line every `TELL_SECONDS`, for output that is no terminal; independent of the log level."""

    def __init__(self) -> None:
        self.start("starting", 0, "")
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._tell, daemon=True)

    def start(self, name: str, total: int, unit: str, done: int = 0) -> None:
        self.count = done  # before the total, which the other thread reads first: no more is done than there is
        self.stage, self.total, self.unit, self.note = name, total, unit, ""
        self.before = done
        self.began = time.monotonic()

    def advance(self, name: str, count: int, note: str = "") -> None:
        self.count, self.note = self.count + count, note

    def done(self, name: str) -> None:
        self.stage = ""

    def _tell(self) -> None:
        while not self.ended.wait(TELL_SECONDS):
            if not self.stage:  # --follow waits for the next block, and prints one line for each
                continue
            record = logging.LogRecord("indexer.progress", logging.INFO, __file__, 0, self.line(), (), None)
            record.fields = self.fields()
            for handler in logging.getLogger("indexer").handlers:
                handler.handle(record)

    def seconds_left(self) -> int | None:
        """Seconds left at the pace so far; None while there is no pace yet."""
        if self.count <= self.before:
            return None
        return max(int((time.monotonic() - self.began) * (self.total - self.count) / (self.count - self.before)), 0)

    def fields(self) -> dict[str, object]:
        total = self.total
        return {
            "stage": self.stage,
            "done": self.count,
            "total": total,
            "unit": self.unit,
            "seconds_left": self.seconds_left(),
        }

    def line(self) -> str:
        total, left = self.total, self.seconds_left()
        if not total:
            return self.stage
        count = self.count
        parts = [f"{self.stage}: {count:,} of {total:,} {self.unit} ({100 * count // total} %)"]
        parts += [self.note] if self.note else []
        parts += [] if left is None else [f"about {age(left)} left"]
        return ", ".join(parts)


@contextmanager
def told() -> Iterator[Told]:
    """Prints a line of progress on stderr every `TELL_SECONDS`."""
    progress = Told()
    progress.thread.start()
    try:
        yield progress
    finally:
        progress.ended.set()
        progress.thread.join()


@contextmanager
def bars() -> Iterator[Progress]:
    """Shows progress bars on stderr until the end; where that is no terminal that can, a line every `TELL_SECONDS`."""
    if shown_by:
        yield shown_by[-1]
        return
    if not moves(sys.stderr):
        with told() as progress:
            yield progress
        return
    from indexer.text.bars import drawn  # noqa: PLC0415 - rich takes a while to import

    with drawn() as shown:
        above_bars.append(shown.say)
        try:
            yield shown
        finally:
            above_bars.remove(shown.say)


def counted(rows: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """Yields the rows, with a progress bar until the last one."""
    with bars() as progress:
        progress.start(unit, total, unit)
        for number, row in enumerate(rows, 1):
            if number % 1000 == 0:
                progress.advance(unit, 1000)
            yield row
