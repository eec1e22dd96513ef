"""Rows to a table, JSON, NDJSON, CSV, TSV and Parquet, on the terminal or in a file that is replaced as a whole.

Symbols and names come from strangers' contracts: nothing in a cell can steer a terminal, a spreadsheet or markup.
Exact integers stay strings, so no reader rounds them.
"""

import csv
import functools
import io
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TextIO, TypeVar

import click
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from indexer.errors import IndexerError

P = ParamSpec("P")
R = TypeVar("R")
Row = Sequence[Any]


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    JSON = "json"
    NL = "nl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"


SUFFIXES = {
    ".json": Format.JSON,
    ".ndjson": Format.NL,
    ".jsonl": Format.NL,
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".parquet": Format.PARQUET,
}


class Output:
    """Where a command's rows go, from its flags; `write` is called with each result set."""

    def __init__(self, chosen: Sequence[str], headers: bool, path: Path | None) -> None:
        if len(chosen) > 1:
            raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other; choose one")
        self.headers = headers
        self.path = path
        if chosen:
            self.format = Format(chosen[0])
        elif path is not None:
            self.format = SUFFIXES.get(path.suffix.lower(), Format.JSON)
        else:
            self.format = Format.TABLE if sys.stdout.isatty() else Format.JSON

    @property
    def table(self) -> bool:
        return self.format is Format.TABLE

    def write(self, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Write all rows to the file, which appears whole or not at all, or to stdout."""
        self.write_sets((columns, rows))

    def write_sets(self, *sets: tuple[Sequence[str], Iterable[Row]]) -> None:
        """Write several result sets one below the other."""
        if self.format is Format.PARQUET:
            self.write_parquet(sets)
            return

        def fill(stream: TextIO) -> None:
            for number, (columns, rows) in enumerate(sets):
                if number:
                    stream.write("\n")
                write(columns, rows, self.format, stream, headers=self.headers)

        if self.path is None:
            fill(sys.stdout)
        else:
            write_file(self.path, fill)

    def write_parquet(self, sets: Sequence[tuple[Sequence[str], Iterable[Row]]]) -> None:
        """Write one result set as Parquet, which is for a file or a pipe and never for a terminal."""
        from indexer.parquet import write_parquet  # noqa: PLC0415 - pyarrow is an extra

        ((columns, rows),) = sets
        if self.path is not None:
            with replacing(self.path) as stream:
                write_parquet(columns, rows, stream)
        elif sys.stdout.isatty():
            raise click.UsageError("Parquet is not for a terminal: name a file with --output")
        else:
            write_parquet(columns, rows, sys.stdout.buffer)

    def write_dicts(
        self, rows: Sequence[Mapping[str, Any]], table_columns: Sequence[str], columns: Sequence[str] = ()
    ) -> None:
        """Write rows of one shape: a table shows only `table_columns`, CSV and TSV leave out what is nested.

        `columns` are those of other formats where there is no row to tell them.
        """
        if self.table:
            self.write(table_columns, for_people(table_columns, rows))
            return
        columns = list(rows[0]) if rows else list(columns or table_columns)
        if self.format in (Format.CSV, Format.TSV, Format.PARQUET) and rows:
            columns = [name for name in columns if not any(isinstance(row[name], list | dict) for row in rows)]
        self.write(columns, ([row[name] for name in columns] for row in rows))


def output_options(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command sqlite-utils' output flags; it gets them as one `output: Output`."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        chosen = [name for name in Format if kwargs.pop(f"as_{name}")]
        kwargs["output"] = Output(chosen, not kwargs.pop("no_headers"), kwargs.pop("output_file"))  # type: ignore[arg-type]
        return command(*args, **kwargs)

    flags = [
        click.option("-t", "--table", "as_table", is_flag=True, help="A table, the default on a terminal."),
        click.option("--json", "as_json", is_flag=True, help="JSON, the default elsewhere."),
        click.option("--nl", "as_nl", is_flag=True, help="JSON, one object a line."),
        click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values."),
        click.option("--tsv", "as_tsv", is_flag=True, help="Tab-separated values."),
        click.option("--parquet", "as_parquet", is_flag=True, help="Apache Parquet; needs the extra `parquet`."),
        click.option("--no-headers", is_flag=True, help="Leave out the header line of a table, CSV or TSV."),
        click.option(
            "-o",
            "--output",
            "output_file",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Write to FILE instead; its ending (.json, .ndjson, .csv, .tsv, .parquet) chooses the format.",
        ),
    ]
    for flag in reversed(flags):
        flag(wrapped)
    return wrapped


def write(columns: Sequence[str], rows: Iterable[Row], kind: Format, stream: TextIO, *, headers: bool = True) -> None:
    """Write rows to a stream; every kind but the table as they come."""
    if kind is Format.TABLE:
        write_table(columns, rows, stream, headers=headers)
    elif kind in (Format.CSV, Format.TSV):
        writer = csv.writer(stream, dialect="excel-tab" if kind is Format.TSV else "excel", lineterminator="\n")
        if headers:
            writer.writerow(cell_text(column) for column in columns)
        writer.writerows([cell_text(value) for value in row] for row in rows)
    else:
        write_json(columns, rows, stream, lines=kind is Format.NL)


def write_json(columns: Sequence[str], rows: Iterable[Row], stream: TextIO, *, lines: bool) -> None:
    """An array with one object a line, or with `lines` the bare objects. Only ASCII, so nothing steers a terminal."""
    before, between, after = ("", "", "") if lines else ("[", ",\n ", "]\n")
    stream.write(before)
    for number, row in enumerate(rows):
        pairs = {column: json_value(value) for column, value in zip(columns, row, strict=True)}
        text = json.dumps(pairs, allow_nan=False).replace("\x7f", "\\u007f")
        stream.write((between if number else "") + text + ("\n" if lines else ""))
    stream.write(after)


def json_value(value: Any) -> Any:
    """As JSON can carry it exactly: integers beyond 2**53 and non-finite numbers as strings, bytes as 0x hex."""
    match value:
        case bool() | None | str():
            return value
        case int():
            return value if abs(value) <= 2**53 else str(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes():
            return "0x" + value.hex()
        case Mapping():
            return {str(key): json_value(inner) for key, inner in value.items()}
        case _:
            return [json_value(inner) for inner in value]


# What a terminal would obey rather than print: controls, and the marks that hide or turn text around.
STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
# A spreadsheet takes such a cell for a formula (OWASP, CSV injection); a plain number is harmless.
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")  # fmt: skip
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def printable(text: str) -> str:
    r"""The text with everything that steers a terminal spelt out, as in \x1b."""
    return STEERING.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


# Most cells are hex addresses, decimal digits and plain names, in which nothing needs a closer look.
HARMLESS = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.:-]*")


def cell_text(value: Any) -> str:
    """A CSV or TSV cell; empty for NULL, a leading apostrophe where a spreadsheet would see a formula."""
    if value is None:
        return ""
    if isinstance(value, str) and HARMLESS.fullmatch(value):
        return value
    text = printable(plain(value))
    return "'" + text if isinstance(value, str) and FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def plain(value: Any) -> str:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value if isinstance(value, str) else json.dumps(json_value(value)) if is_nested(value) else str(value)


def is_nested(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def for_people(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """The columns of each row, health factors from their exact integers: a float cannot tell 1 - 1e-18 from 1."""
    for row in rows:
        exact = {name: row[f"{name}_raw"] for name in columns if row.get(f"{name}_raw") and "health_factor" in name}
        yield [Decimal(exact[name]).scaleb(-18) if name in exact else row[name] for name in columns]


GAP = "  "


def write_table(columns: Sequence[str], rows: Iterable[Row], stream: TextIO, *, headers: bool) -> None:
    """A table for people: numbers shortened and to the right, text as it is.

    Nothing is cut or folded: where lines are longer than the terminal they wrap alike, and an address stays in one piece.
    """
    lines = [list(row) for row in rows]
    right = [all(isinstance(line[i], int | float | Decimal | None) for line in lines) for i in range(len(columns))]
    cells = [[shown(column, value) for column, value in zip(columns, line, strict=True)] for line in lines]
    titles = [printable(column) for column in columns]
    widths = [
        max(map(cell_len, [title * headers, *(part for row in cells for part in row[i].split("\n"))]))
        for i, title in enumerate(titles)
    ]
    console = Console(file=stream, highlight=False, soft_wrap=True)
    if headers:
        for line in padded(titles, widths, right):
            console.print(Text(line, style="bold"))
    for row in cells:
        stream.writelines(line + "\n" for line in padded(row, widths, right))


def padded(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    """The lines of one row: as many as its highest cell has."""
    for parts in zip_longest(*(cell.split("\n") for cell in cells), fillvalue=""):
        line = []
        for part, width, to_right in zip(parts, widths, right, strict=True):
            space = " " * (width - cell_len(part))
            line.append(space + part if to_right else part + space)
        yield GAP.join(line).rstrip()


def shown(column: str, value: Any) -> str:
    """A value as a table shows it. A health factor is cut, not rounded, so that 0.99999 never reads as 1."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return "\n".join(f"{printable(str(key))} {shown('', inner)}" for key, inner in value.items())
    if not isinstance(value, float | Decimal):
        return printable(plain(value))
    number = float(value)
    if not math.isfinite(number):
        return str(number)
    if column.startswith(("health_factor", "next_health_factor")):
        return f"{math.floor(value * 10_000) / 10_000:,.4f}" if number < 1e9 else f"{number:.3g}"
    if column.endswith(("usd", "percent", "hhi")):
        return f"{number:,.2f}"
    if abs(number) >= 1e15:
        return f"{number:.6g}"
    return f"{number:,.6f}".rstrip("0").rstrip(".") if abs(number) >= 1e-4 or number == 0 else f"{number:.3g}"


def write_file(path: Path, fill: Callable[[TextIO], None]) -> None:
    """Replace `path` by the text that `fill` writes, at once and only if it succeeds."""
    with replacing(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        try:
            fill(text)
        finally:
            text.detach()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes replace `path` at the end, at once and only if nothing was raised.

    A link stays, what it names is replaced. What is no file, such as a pipe or /dev/stdout, is written to as it is.
    """
    scratch = None
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                yield stream
            return
        target = path.resolve()
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        scratch = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        scratch.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~current_umask())
        scratch.replace(target)
    except OSError as error:
        raise IndexerError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if scratch is not None:
            with suppress(FileNotFoundError):
                scratch.unlink()


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
