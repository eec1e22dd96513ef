"""Progress bars, as rich draws them; imported only where a terminal shows them."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from indexer.text.values import printable


class Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="dim")


class Count(ProgressColumn):
    """How many of how many; only how many where the whole is not known."""

    def render(self, task: Task) -> Text:
        whole = f" of {task.total:,.0f}" if task.total else ""
        return Text(f"{task.completed:,.0f}{whole} {task.fields['unit']}")


class Bars:
    """One bar per stage: how much is done of how much, how fast, and how long the rest will take."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}

    def start(self, name: str, total: int, unit: str, done: int = 0) -> None:
        if name in self.tasks:
            self.progress.remove_task(self.tasks[name])
        self.tasks[name] = self.progress.add_task(
            printable(name), total=total or None, completed=done, unit=unit, note=""
        )

    def advance(self, name: str, count: int, note: str = "") -> None:
        if name in self.tasks:
            self.progress.update(self.tasks[name], advance=count, note=note)

    def done(self, name: str) -> None:
        task = self.tasks.get(name)
        if task is not None:
            shown = self.progress.tasks[self.progress.task_ids.index(task)]
            self.progress.update(task, total=shown.total or shown.completed, completed=shown.total or shown.completed)

    def say(self, line: str) -> None:
        """Prints a line above the bars."""
        self.progress.console.print(Text(line))


@contextmanager
def drawn() -> Iterator[Bars]:
    """Shows bars on stderr until the end of the context."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        Count(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress)
