"""What a person sees while a command works, all of it on stderr: progress, log lines, remarks."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

from indexer.progress import NoProgress, Progress
from indexer.text import printable

T = TypeVar("T")
#: where lines go while bars are shown, the innermost last: above them, for a bar must not be torn
above_bars: list[Callable[[str], None]] = []


def remark(text: str) -> None:
    """One line to stderr; nothing in it is taken for markup or obeyed by the terminal."""
    say(printable(text))


def say(line: str) -> None:
    if above_bars:
        above_bars[-1](line)
        return
    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nobody reads it any more, nor what is left in the buffer
        raise SystemExit(1) from None


class Lines(logging.Handler):
    """Log lines as text, or as JSON with `as_json`; they do not tear a progress bar."""

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
            }
            say(json.dumps(line))
        else:
            remark(f"{at:%H:%M:%S} {record.levelname.lower():7} {message}")


def log_to_stderr(*, as_json: bool, verbose: int) -> None:
    """Send this program's log to stderr: warnings, with `verbose` 1 what is done, with 2 everything."""
    logger = logging.getLogger("indexer")
    logger.handlers = [Lines(as_json=as_json)]
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG))
    logger.propagate = False


@contextmanager
def bars() -> Iterator[Progress]:
    """Progress bars on stderr that vanish at the end; nothing where it is no terminal."""
    if not sys.stderr.isatty():
        yield NoProgress()
        return
    from indexer.bars import drawn  # noqa: PLC0415 - rich takes a while to import

    with drawn() as shown:
        above_bars.append(shown.say)
        try:
            yield shown
        finally:
            above_bars.remove(shown.say)


def counted(rows: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """The rows, with a bar while they are read that is gone behind the last one."""
    with bars() as progress:
        progress.start(unit, total, unit)
        for number, row in enumerate(rows, 1):
            if number % 1000 == 0:
                progress.advance(unit, 1000)
            yield row
