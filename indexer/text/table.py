"""Tables for people: no wider than the terminal, and nothing in them broken inside a word or a number.

Where a table is too wide, in this order: columns that are empty throughout go (where nobody named them), headings break
at their underscores, addresses lose their middle, text breaks at its blanks. What is still too wide is turned if it has few rows;
a list loses the columns for which the first ones leave no room, and anything else becomes several tables with the first columns in each.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import zip_longest
from typing import TextIO

from indexer.text.values import Row, printable, short_address, shown

#: how a terminal sets text (ECMA-48, SGR); colours are those of its own palette, legible on light and on dark
BOLD, DIM, RED, YELLOW, END = "\x1b[1m", "\x1b[2m", "\x1b[1;31m", "\x1b[33m", "\x1b[0m"
STATUS_STYLES = {"liquidatable": RED, "at-risk": YELLOW}
GAP = "  "
#: rows that are read better below each other, as columns
FEW = 3
#: an address or a hash
HEX = re.compile(r"\b0x[0-9a-fA-F]{40,64}\b")
#: what stays on one line
WORDS = re.compile(r"\S+(?: %\S*)?")


def cell_len(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii() and text.isprintable():
        return len(text)
    from rich import cells  # noqa: PLC0415 - slow to import, and most texts are ASCII

    return cells.cell_len(text)


def behind(stream: TextIO) -> TextIO:
    """The stream itself: while bars are shown rich puts one before it, which up to rich 14 calls itself no terminal."""
    found: TextIO = getattr(stream, "rich_proxied_file", stream)
    return found


def room(stream: TextIO) -> int | None:
    """How many columns the terminal behind the stream has (COLUMNS outweighs it); None where there is none."""
    stream = behind(stream)
    if not stream.isatty():
        return None
    told = os.environ.get("COLUMNS", "")
    try:
        return (
            int(told)
            if told.isdecimal() and len(told) < 9 and int(told)
            else os.get_terminal_size(stream.fileno()).columns or 80
        )
    except (OSError, ValueError):  # a stream that says it is a terminal and has no size
        return 80


def has_styles(stream: TextIO) -> bool:
    """Whether text may be bold or coloured there: a terminal that can, and whose user did not ask for none (NO_COLOR)."""
    return moves(stream) and not os.environ.get("NO_COLOR")


def moves(stream: TextIO) -> bool:
    """Whether the stream is a terminal that obeys, where a bar can be drawn again and again."""
    return behind(stream).isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


def styled(line: str, style: str, stream: TextIO) -> str:
    """The line in a style where the stream is a terminal that has styles, else as it is."""
    return f"{style}{line}{END}" if style and has_styles(stream) else line


def folded(text: str, width: int | None) -> list[str]:
    """The text in lines no longer than the width, broken at blanks, but not before a %; a word that is longer stays whole."""
    if width is None:
        return text.split("\n")
    lines = []
    for paragraph in text.split("\n"):
        indent = paragraph[: len(paragraph) - len(paragraph.lstrip(" "))]
        line = ""
        for word in WORDS.findall(paragraph):
            longer = f"{line} {word}" if line else indent + word
            if line and cell_len(longer) > width:
                lines.append(line)
                longer = indent + word
            line = longer
        lines.append(line)
    return lines


@dataclass(frozen=True, slots=True)
class Column:
    """One column as text: the lines of its heading, and of the cell of each row."""

    name: str
    title: Sequence[str]
    cells: Sequence[Sequence[str]]
    right: bool
    empty: bool

    @property
    def width(self) -> int:
        return max((cell_len(line) for cell in (self.title, *self.cells) for line in cell), default=0)

    @property
    def longest_word(self) -> int:
        words = (word for cell in (self.title, *self.cells) for line in cell for word in WORDS.findall(line))
        return max(map(cell_len, words), default=0)

    def narrow_title(self) -> "Column":
        """The heading in as few lines as the cells' width allows, broken behind underscores."""
        wanted = replace(self, title=()).width
        parts = re.findall(r"[^_]*_|[^_]+", self.name) or [self.name]
        lines = [parts[0]]
        for part in parts[1:]:
            if cell_len(lines[-1] + part) <= max(wanted, *map(cell_len, parts)):
                lines[-1] += part
            else:
                lines.append(part)
        return replace(self, title=lines if self.title else ())

    def short_addresses(self) -> "Column":
        return replace(
            self, cells=[[HEX.sub(lambda found: short_address(found[0]), line) for line in cell] for cell in self.cells]
        )

    def folded(self, width: int) -> "Column":
        """No wider than that, if it has blanks to break at."""
        if self.right or self.width <= width:
            return self
        return replace(self, cells=[[part for line in cell for part in folded(line, width)] for cell in self.cells])


def columns_of(names: Sequence[str], rows: Sequence[Row], *, headers: bool) -> list[Column]:
    """The columns as they are where there is room for everything."""
    return [
        Column(
            name=printable(name),
            title=[printable(name)] if headers else (),
            cells=[shown(name, row[i]).split("\n") for row in rows],
            right=all(isinstance(row[i], int | float | Decimal | None) for row in rows),
            empty=all(row[i] in (None, "") for row in rows),
        )
        for i, name in enumerate(names)
    ]


def total(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def write_table(
    names: Sequence[str], rows: Iterable[Row], stream: TextIO, *, headers: bool = True, wide: bool = False,
    sparse: bool = False, droppable: bool = False,
) -> list[str]:  # fmt: skip
    """Write a table; which columns it left out, as only a `droppable` one on a terminal may that is not `wide`.

    Of a `sparse` one, columns that are empty throughout go first, which loses nothing.
    """
    lines = [list(row) for row in rows]
    whole = columns_of(names, lines, headers=headers)
    if droppable and not lines and stream.isatty():
        return []  # headings of nothing tell nobody anything
    width = None if wide else room(stream)
    if width is None or total(whole) <= width:
        print_columns(whole, stream)
        return []
    if (sparse or droppable) and lines:
        whole = [column for column in whole if not column.empty] or whole[:1]
    if len(lines) <= FEW and headers and not droppable:
        turned_round = turned(whole, len(lines), width)
        if turned_round is not None:
            print_columns(turned_round, stream, names=whole)
            return []
    fitted = squeezed(whole, width)
    left_out: list[str] = []
    if droppable:
        kept: list[Column] = []
        for column in fitted:
            if kept and total([*kept, column]) > width:
                left_out.append(column.name)
            else:
                kept.append(column)
        print_columns(kept, stream)
        return left_out
    for number, part in enumerate(parts(fitted, width)):
        stream.write("\n" * bool(number))
        print_columns(part, stream)
    return []


def squeezed(columns: Sequence[Column], width: int) -> list[Column]:
    """As narrow as it need be to fit, or as it can be."""
    found = list(columns)
    for step in (Column.narrow_title, Column.short_addresses):
        found = [step(column) for column in found]
        if total(found) <= width:
            return found
    for i in sorted(range(len(found)), key=lambda i: -found[i].width):
        excess = total(found) - width
        if excess > 0:
            found[i] = found[i].folded(max(found[i].width - excess, found[i].longest_word))
    return found


def parts(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns in several tables that fit; the first column and those of text behind it, by which rows are told apart, are in each."""
    keys: list[Column] = []
    for column in columns:
        if (keys and column.right) or total([*keys, column]) > width * 2 // 3:
            break
        keys.append(column)
    widest = max((column.longest_word for column in columns[len(keys) :]), default=0)
    while keys and total(keys) + len(GAP) + widest > width:
        keys.pop()
    found: list[list[Column]] = [[*keys]]
    for column in columns[len(keys) :]:
        if len(found[-1]) > len(keys) and total([*found[-1], column]) > width:
            found.append([*keys])
        left = width - total(found[-1]) - len(GAP) * bool(found[-1])
        found[-1].append(column.folded(max(left, column.longest_word)))
    return found


def turned(columns: Sequence[Column], count: int, width: int) -> list[Column] | None:
    """Names below each other, a column for each row, addresses whole if they can be; None if that is too wide too."""
    heads = Column("", (), [[column.name] for column in columns], right=False, empty=False)
    short = [column.short_addresses() for column in columns]
    for source in (columns, short):
        values = [
            Column("", (), [column.cells[row] for column in source], right=False, empty=False) for row in range(count)
        ]
        share = (width - heads.width) // max(count, 1) - len(GAP)
        found = [heads, *(value.folded(max(share, value.longest_word)) for value in values)]
        if total(found) <= width:
            return found
    return None


def print_columns(columns: Sequence[Column], stream: TextIO, names: Sequence[Column] = ()) -> None:
    """`names`: those of the lines of a turned table."""
    widths = [column.width for column in columns]
    right = [column.right for column in columns]
    height = max((len(column.title) for column in columns), default=0)
    colours = has_styles(stream)
    titles = [[""] * (height - len(column.title)) + list(column.title) for column in columns]
    stream.writelines(styled(joined(line), BOLD, stream) + "\n" for line in laid(titles, widths, right) if height)
    for number in range(len(columns[0].cells) if columns else 0):
        cells = [column.cells[number] for column in columns]
        named = [(names[number] if names else column).name for column in columns]
        for line in laid(cells, widths, right):
            shades = [tinted(text, name) for text, name in zip(line, named, strict=True)] if colours else line
            stream.write(joined(shades) + "\n")


def joined(pieces: Sequence[str]) -> str:
    return GAP.join(pieces).rstrip()


def laid(cells: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[bool]) -> Iterable[list[str]]:
    """The lines of one row, each as its padded pieces: as many as its highest cell has."""
    for pieces in zip_longest(*cells, fillvalue=""):
        yield [
            " " * (width - cell_len(piece)) + piece if to_right else piece + " " * (width - cell_len(piece))
            for piece, width, to_right in zip(pieces, widths, right, strict=True)
        ]


def tinted(text: str, name: str) -> str:
    """A status in its colour; the word itself says the same."""
    word = text.strip()
    style = STATUS_STYLES.get(word) if name.startswith("status") else None
    return text if style is None else text.replace(word, f"{style}{word}{END}")
