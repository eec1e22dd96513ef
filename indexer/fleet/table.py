"""One table of the progress of all chains: on a terminal redrawn above which lines scroll, elsewhere printed at the end."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from indexer.fleet.member import Member, State
from indexer.text import console
from indexer.text.table import moves
from indexer.text.values import age, printable

COLUMNS = ("chain", "state", "block", "age", "positions", "at risk", "requests", "restarts", "now")
#: seconds between two drawings
PAUSE = 0.25


def row(member: Member) -> list[str]:
    """The cells of one chain; empty for what is not known yet."""
    sample, stage = member.sample, member.stage
    now = ""
    if stage.get("stage"):
        total = f" of {stage['total']:,}" if stage["total"] else ""
        now = f"{stage['stage']}: {stage['done']:,}{total} {stage['unit']}"
    elif member.state is State.WAITING and member.restarts:
        now = f"starts again in {max(member.due - time.monotonic(), 0):.0f} s: {member.said}"
    elif member.state is State.GAVE_UP:
        now = member.said

    def shown(name: str) -> str:
        return f"{sample[name]:,}" if name in sample else ""

    return [
        member.name,
        str(member.state),
        str(sample.get("block_number", "")),
        age(max(time.time() - sample["block_timestamp"], 0.0)) if sample else "",
        shown("positions"),
        shown("at_risk"),
        shown("requests"),
        str(member.restarts or ""),
        now,
    ]


@contextmanager
def drawn(members: Sequence[Member], *, still: bool = False) -> Iterator[Callable[[], None]]:
    """Draws the table on stderr, where that is a terminal, until the end of the context; yields what redraws it.

    With `still` nothing is drawn, as somebody else prints on the same terminal.
    """
    if still or not moves(sys.stderr):
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    terminal = Console(stderr=True, highlight=False, soft_wrap=True)
    lock, last = threading.Lock(), [0.0]
    with Live(table(members), console=terminal, auto_refresh=False, transient=True) as live:

        def redraw() -> None:
            if time.monotonic() - last[0] >= PAUSE:
                last[0] = time.monotonic()
                live.update(table(members), refresh=True)

        def say(line: str) -> None:
            with lock:
                terminal.print(Text(line))

        console.above_bars.append(say)
        try:
            yield redraw
        finally:
            console.above_bars.remove(say)


def table(members: Sequence[Member]) -> Any:
    """The table as rich draws it; a row takes one line."""
    from rich.table import Table  # noqa: PLC0415 - slow to import
    from rich.text import Text  # noqa: PLC0415

    made = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        right = name in COLUMNS[2:8]
        made.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
    for member in members:
        made.add_row(*(Text(printable(cell)) for cell in row(member)))
    return made
