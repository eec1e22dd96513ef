"""What a person sees while a command works, all of it on stderr: progress, log lines, remarks."""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from indexer.progress import NoProgress, Progress
from indexer.text import printable

T = TypeVar("T")
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def remark(text: str) -> None:
    """One line to stderr; nothing in it is taken for markup or obeyed by the terminal."""
    stderr.print(Text(printable(text)))


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
            stderr.print(Text(json.dumps(line)))
        else:
            remark(f"{at:%H:%M:%S} {record.levelname.lower():7} {message}")


def log_to_stderr(*, as_json: bool, verbose: int) -> None:
    """Send this program's log to stderr: warnings, with `verbose` 1 what is done, with 2 everything."""
    logger = logging.getLogger("indexer")
    logger.handlers = [Lines(as_json=as_json)]
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG))
    logger.propagate = False


class Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="dim")


class Bars:
    """One bar a stage: how much is done of how much, how fast, and how long it will take."""

    def __init__(self, progress: RichProgress) -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}

    def start(self, name: str, total: int, unit: str) -> None:
        if name in self.tasks:
            self.progress.remove_task(self.tasks[name])
        self.tasks[name] = self.progress.add_task(printable(name), total=total, unit=unit, note="")

    def advance(self, name: str, count: int, note: str = "") -> None:
        self.progress.update(self.tasks[name], advance=count, note=note)

    def done(self, name: str) -> None:
        task = self.tasks[name]
        self.progress.update(task, completed=self.progress.tasks[self.progress.task_ids.index(task)].total)


@contextmanager
def bars() -> Iterator[Progress]:
    """Progress bars on stderr that vanish at the end; nothing where it is no terminal."""
    if not stderr.is_terminal:
        yield NoProgress()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} {task.fields[unit]}", markup=False),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with RichProgress(*columns, console=stderr, transient=True) as progress:
        yield Bars(progress)


def counted(rows: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """The rows, with a bar while they are read that is gone behind the last one."""
    with bars() as progress:
        progress.start(unit, total, unit)
        for number, row in enumerate(rows, 1):
            if number % 1000 == 0:
                progress.advance(unit, 1000)
            yield row
