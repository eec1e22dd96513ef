"""Writes rows as a table, JSON, NDJSON, CSV, TSV or Parquet, to the terminal or to a file that is replaced as a whole.

Symbols and names come from strangers' contracts: nothing in a cell can steer a terminal, a spreadsheet or markup.
Exact integers stay strings, so no reader rounds them.
"""

import csv
import functools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any, ParamSpec, TextIO, TypeVar

import click

from indexer.boundary.files import replacing, write_file
from indexer.text.console import remark
from indexer.text.table import BOLD, styled, write_table
from indexer.text.values import Row, cell_text, for_people, json_value

P = ParamSpec("P")
R = TypeVar("R")


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


def by_ending(path: Path, formats: Mapping[str, str], chosen: str | None) -> str | None:
    """The format of a file: the chosen one, else that of its ending; None where it has none.

    Raises `click.UsageError` for an ending that contradicts the chosen format, or that is no known format.
    """
    ending = path.suffix.lower()
    said = formats.get(ending)
    if chosen and said not in (None, chosen):
        raise click.UsageError(f"{path.name!r} ends as {said} does, but {chosen} was asked for; choose one")
    if ending and not chosen and said is None:
        raise click.UsageError(f"{path.name!r} has none of the endings that choose a format: {', '.join(formats)}")
    return chosen or said


class Output:
    """Where a command's rows go, from its flags; `write` is called with each result set."""

    def __init__(
        self,
        chosen: Sequence[str],
        headers: bool,
        path: Path | None,
        columns: Sequence[str] = (),
        *,
        wide: bool = False,
    ) -> None:
        if len(chosen) > 1:
            raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other; choose one")
        self.headers = headers
        self.path = path
        self.columns = list(columns)
        self.wide = wide
        #: whether the user gave any of these flags
        self.asked = bool(chosen or not headers or path or columns or wide)
        #: whether --nl was given and nothing else: JSON lines to whoever reads standard output
        self.lines = list(chosen) == [Format.NL] and headers and not (path or columns or wide)
        if path is not None:
            self.format = Format(by_ending(path, SUFFIXES, chosen[0] if chosen else None) or Format.JSON)
        elif chosen:
            self.format = Format(chosen[0])
        else:
            self.format = Format.TABLE if sys.stdout.isatty() else Format.JSON

    @property
    def table(self) -> bool:
        return self.format is Format.TABLE

    def write(self, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Write all rows to the file, which appears whole or not at all, or to stdout."""
        names = self.named(columns, columns)
        places = [columns.index(name) for name in names]
        self._fill([(names, rows if names == [*columns] else ([row[i] for i in places] for row in rows))])

    def write_list(self, table_columns: Sequence[str], columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Write a list of rows that have all `columns`: a table shows `table_columns`, as many as the terminal has room for."""
        if not self.table:
            self.write(columns, rows)
            return
        names = self.named(columns, table_columns)
        every = (dict(zip(columns, row, strict=True)) for row in rows)
        self._fill([(names, for_people(names, every))], droppable=not self.columns)

    def write_sets(self, *sets: tuple[str, Sequence[str], Iterable[Row]]) -> None:
        """Write several tables one below the other, on a terminal each under its title; --columns chooses of the first alone.

        On a terminal, those behind the first that have no rows are left out.
        """
        tables = [(columns, [*rows]) for _, columns, rows in sets]
        if self.columns:
            self.write(*tables[0])
        else:
            self._fill(tables, sparse=True, titles=[title for title, *_ in sets] if len(sets) > 1 else ())

    def named(self, columns: Iterable[str], default: Sequence[str]) -> list[str]:
        """The columns that --columns names, else the default. Raises `click.UsageError` for one that there is not."""
        known = list(columns)
        for name in self.columns:
            if name not in known:
                from indexer.plugins import did_you_mean

                hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
                raise click.UsageError(f"--columns: no column is called {name!r}{hint}")
        return list(dict.fromkeys(self.columns)) or list(default)

    def _fill(
        self,
        sets: Sequence[tuple[Sequence[str], Iterable[Row]]],
        *,
        sparse: bool = False,
        droppable: bool = False,
        titles: Sequence[str] = (),
    ) -> None:
        if self.format is Format.PARQUET:
            self.write_parquet(sets)
            return
        left_out: list[str] = []

        def fill(stream: TextIO) -> None:
            for number, (columns, rows) in enumerate(sets):
                if number and titles and not rows and stream.isatty():
                    continue
                if number:
                    stream.write("\n")
                if titles and self.headers and stream.isatty():
                    stream.write(styled(titles[number], BOLD, stream) + "\n")
                how = {"wide": self.wide, "sparse": sparse, "droppable": droppable} if self.table else {}
                left_out.extend(write(columns, rows, self.format, stream, headers=self.headers, **how))

        if self.path is None:
            fill(sys.stdout)
        else:
            write_file(self.path, fill)
        if left_out:
            remark(f"no room for {', '.join(left_out)}: --wide shows all columns, --columns A,B,C those you name")

    def write_parquet(self, sets: Sequence[tuple[Sequence[str], Iterable[Row]]]) -> None:
        """Write one result set as Parquet, to a file or a pipe, never to a terminal."""
        from indexer.terminal.parquet import write_parquet

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
        """Write rows of one shape: a table shows only `table_columns`, CSV and TSV leave out nested values.

        `columns` are those of the other formats where there are no rows.
        """
        every = [*(rows[0] if rows else columns or table_columns)]
        if self.table:
            names = self.named(dict.fromkeys([*table_columns, *every]), table_columns)
            self._fill([(names, for_people(names, rows))], droppable=not self.columns)
            return
        names = self.named(every, every)
        if self.format in (Format.CSV, Format.TSV, Format.PARQUET) and rows and not self.columns:
            names = [name for name in names if not any(isinstance(row[name], list | dict) for row in rows)]
        self._fill([(names, ([row[name] for name in names] for row in rows))])


def names_of(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in (value or "").split(",") if name.strip()]


def output_options(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command sqlite-utils' output flags; it gets them as one `output: Output`."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        chosen = [name for name in Format if kwargs.pop(f"as_{name}")]
        flags: dict[str, Any] = {name: kwargs.pop(name) for name in ("no_headers", "output_file", "columns", "wide")}
        kwargs["output"] = Output(
            chosen, not flags["no_headers"], flags["output_file"], flags["columns"], wide=flags["wide"]
        )
        return command(*args, **kwargs)

    flags = [
        click.option("-t", "--table", "as_table", is_flag=True, help="A table, the default on a terminal."),
        click.option("--json", "as_json", is_flag=True, help="JSON, the default elsewhere."),
        click.option("--nl", "as_nl", is_flag=True, help="JSON, one object a line."),
        click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values."),
        click.option("--tsv", "as_tsv", is_flag=True, help="Tab-separated values."),
        click.option("--parquet", "as_parquet", is_flag=True, help="Apache Parquet; needs the extra `parquet`."),
        click.option(
            "--wide", is_flag=True, help="A table with every column and whole addresses, however long its lines."
        ),
        click.option("--columns", callback=names_of, metavar="A,B,C", help="Only these columns, in this order."),
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


def write(
    columns: Sequence[str], rows: Iterable[Row], kind: Format, stream: TextIO, *, headers: bool = True, **how: bool
) -> list[str]:
    """Write rows to a stream; every kind but the table as they come. Which columns a table left out (see `write_table`)."""
    if kind is Format.TABLE:
        return write_table(columns, rows, stream, headers=headers, **how)
    if kind in (Format.CSV, Format.TSV):
        write_csv(columns if headers else (), rows, stream, "\t" if kind is Format.TSV else ",")
    else:
        write_json(columns, rows, stream, lines=kind is Format.NL)
    return []


def write_csv(headers: Sequence[str], rows: Iterable[Row], stream: TextIO, delimiter: str) -> None:
    """Lines of cells; what needs no quotes does not go through the writer, which takes five times as long."""
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    for row in chain([headers] if headers else [], rows):
        cells = [cell_text(value) for value in row]
        line = delimiter.join(cells)
        if not line or '"' in line or line.count(delimiter) >= len(cells):
            writer.writerow(cells)
        else:
            stream.write(line + "\n")


def write_json(columns: Sequence[str], rows: Iterable[Row], stream: TextIO, *, lines: bool) -> None:
    """An array with one object a line, or with `lines` the bare objects. Only ASCII, so nothing steers a terminal."""
    before, between, after = ("", "", "") if lines else ("[", ",\n ", "]\n")
    encode = json.JSONEncoder(allow_nan=False).encode
    stream.write(before)
    for number, row in enumerate(rows):
        pairs = {column: json_value(value) for column, value in zip(columns, row, strict=True)}
        text = encode(pairs).replace("\x7f", "\\u007f")
        stream.write((between if number else "") + text + ("\n" if lines else ""))
    stream.write(after)
