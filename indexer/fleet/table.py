"""One table of the progress of all chains: on a terminal redrawn above which lines scroll, elsewhere printed at the end."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from indexer.fleet.member import Member, State
from indexer.text import console
from indexer.text.table import moves
from indexer.text.values import age, printable

COLUMNS = ("chain", "state", "block", "age", "positions", "at risk", "requests", "restarts", "now")
#: what gives way first where a terminal is narrow, and how much of `now` is worth it
GIVES_WAY, NOW = ("requests", "restarts", "at risk", "positions", "age"), 18
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
    with Live(table(members, terminal.width), console=terminal, auto_refresh=False, transient=True) as live:

        def redraw() -> None:
            if time.monotonic() - last[0] >= PAUSE:
                last[0] = time.monotonic()
                live.update(table(members, terminal.width), refresh=True)

        def say(line: str) -> None:
            with lock:
                terminal.print(Text(line))

        console.above_bars.append(say)
        try:
            yield redraw
        finally:
            console.above_bars.remove(say)


def table(members: Sequence[Member], width: int) -> Any:
    """The table as rich draws it in so many columns of a terminal; a row takes one line."""
    from rich.table import Table  # noqa: PLC0415 - slow to import
    from rich.text import Text  # noqa: PLC0415

    rows = [dict(zip(COLUMNS, map(printable, row(member)), strict=True)) for member in members]
    widths = fitting({name: max(len(name), *(len(one[name]) for one in rows)) for name in COLUMNS}, width)
    made = Table(box=None, pad_edge=False)
    for name, room in widths.items():
        right = name in COLUMNS[2:8]
        made.add_column(
            name,
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=room,
            max_width=room,
        )
    for one in rows:
        made.add_row(*(Text(one[name]) for name in widths))
    return made


def fitting(wanted: Mapping[str, int], width: int) -> dict[str, int]:
    """The columns that fit and their widths: what is of least use now gives way, and `now` takes what is left."""
    kept = dict(wanted)
    least = min(wanted["now"], NOW)

    def others() -> int:
        return sum(kept[name] + 2 for name in kept if name != "now")

    for name in GIVES_WAY:
        if others() + least > width:
            del kept[name]
    kept["now"] = min(wanted["now"], max(width - others(), len("now")))
    return kept
