"""The data dictionary: what every public column means, from `indexer/dictionary.toml`, and how it is told.

`indexer schema`, docs/reference-tables.md, the comments of the schema, the types and metadata of Parquet files and the
metadata for Datasette all come from here.
"""

import json
import re
import sqlite3
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple


class Column(NamedTuple):
    """What a column holds. `type` is SQLite's; `unit` "" for names and texts."""

    type: str
    unit: str
    meaning: str
    source: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table, a view, or (of `lists`) the rows of a command."""

    name: str
    about: str
    columns: Mapping[str, Column]


@dataclass(frozen=True, slots=True)
class Dictionary:
    """All of it; `lists` are the rows of commands that have columns of their own."""

    tables: Mapping[str, Table]
    lists: Mapping[str, Table]
    #: (table, column) that goes -> the column that holds the same
    old: Mapping[tuple[str, str], str]

    def column(self, name: str) -> Column | None:
        """A column by its name alone; None where nothing has it, or where its type depends on the table."""
        found = [table.columns[name] for table in self if name in table.columns]
        return found[0] if len({told.type for told in found}) == 1 else None

    def of(self, columns: Collection[str]) -> dict[str, Column]:
        """What these columns of one result mean; without those whose meaning depends on a table that they leave open."""
        added = self.lists["export"].columns
        fit = [table for table in self if {*columns} <= table.columns.keys() | added.keys()] or [*self]
        found = {}
        for name in columns:
            told = {table.columns[name] for table in fit if name in table.columns}
            if len(told) == 1 or (not told and name in added):
                found[name] = told.pop() if told else added[name]
        return found

    def __iter__(self) -> Iterator[Table]:
        yield from self.tables.values()
        yield from self.lists.values()


@cache
def dictionary() -> Dictionary:
    """The dictionary, read once."""
    raw = tomllib.loads(files("indexer").joinpath("dictionary.toml").read_text(encoding="utf-8"))
    shared = {name: Column(*entry) for name, entry in raw["columns"].items()}
    old = {(table, name): new for table, names in raw["old"].items() for name, new in names.items()}
    return Dictionary(_tables(raw["tables"], shared), _tables(raw["lists"], shared), old)


def _tables(raw: Mapping[str, Any], shared: Mapping[str, Column]) -> dict[str, Table]:
    found = {}
    for name, entry in raw.items():
        whole = raw.get(entry.get("like"), {})
        own = {**raw.get(entry.get("own_of"), {}).get("own", {}), **whole.get("own", {}), **entry.get("own", {})}
        known = {**shared, **{column: Column(*told) for column, told in own.items()}}
        names = f"{whole.get('columns', '')} {entry.get('columns', '')}".split()
        found[name] = Table(name, entry["about"], {column: known[column] for column in names})
    return found


# how it is told -------------------------------------------------------------------------------------------------------

ROW_COLUMNS = ("table", "column", "type", "unit", "meaning", "source")


def old_names(reads: Iterable[tuple[str, str]], sql: str) -> list[str]:
    """What to say of each old name that SQL spells out, given the (table, column) pairs that it reads; `*` spells none."""
    return [
        f"{table}.{name} is the old name of {new} and goes in 1.1: ask for {new}"
        for (table, name), new in dictionary().old.items()
        if (table, name) in reads and re.search(rf"\b{name}\b", sql, re.IGNORECASE)
    ]


def rows(name: str | None = None) -> list[dict[str, str]]:
    """One row a column of every table and view, or of the one or the list of that name, with the keys of ROW_COLUMNS."""
    known = dictionary()
    return [
        dict(zip(ROW_COLUMNS, (table.name, column, *told), strict=True))
        for table in (known.tables.values() if name is None else known)
        if name in (None, table.name)
        for column, told in table.columns.items()
    ]


INTRODUCTION = """# Tables and their columns

The database is one SQLite file. The same column name means the same everywhere; where it differs, the table says so.
Exact integers are text of decimal digits in columns that end in `_raw`; beside them a number for reading. Addresses are
lower-case text that compares without regard to case. NULL is unknown or none, never 0. Times of blocks are `block_time`
(text, UTC) and `block_timestamp` (unix seconds).

This page is what `indexer schema --markdown` prints; `indexer schema TABLE` shows one table.
"""


def markdown() -> str:
    """The reference as Markdown."""
    parts = [INTRODUCTION]
    for heading, tables in (("Tables and views", dictionary().tables), ("Rows of commands", dictionary().lists)):
        parts.append(f"## {heading}\n")
        for table in tables.values():
            lines = [
                f"| `{name}` | {told.type} | {told.unit} | {told.meaning} | {told.source} |"
                for name, told in table.columns.items()
            ]
            head = f"### {table.name}\n\n{table.about[0].upper()}{table.about[1:]}.\n"
            parts.append(
                "\n".join([head, "| column | type | unit | meaning | source |", "|---|---|---|---|---|", *lines, ""])
            )
    return "\n".join(parts)


def datasette(database: str) -> str:
    """The metadata of a database for Datasette (`--metadata FILE`), as JSON; `database` is its name without ending."""
    tables = {
        table.name: {
            "description": table.about,
            "columns": {name: described(told) for name, told in table.columns.items()},
            "units": {
                name: told.unit for name, told in table.columns.items() if told.type == "real" and told.unit == "USD"
            },
        }
        for table in dictionary().tables.values()
    }
    title = "Lending positions"
    return (
        json.dumps({"title": title, "databases": {database: {"tables": tables}}}, indent=2, ensure_ascii=False) + "\n"
    )


def described(told: Column) -> str:
    """A column in one line."""
    return f"{told.meaning} [{told.unit}]" if told.unit else told.meaning


def commented(conn: sqlite3.Connection, name: str | None = None) -> str:
    """The tables of a file as SQL, or the one of that name, with a comment on each column; views as they are."""
    parts = []
    schema = conn.execute(
        "select type, name, sql from sqlite_master where type in ('table', 'view') and sql is not null order by rowid"
    )
    for kind, table, sql in schema.fetchall():
        told = dictionary().tables.get(table)
        if told is None or name not in (None, table):
            continue
        if kind == "view":
            parts.append(f"-- {table}: {told.about}\n{sql};\n")
            continue
        keys = [row[1] for row in sorted(conn.execute(f"pragma table_info({table})"), key=lambda row: row[5]) if row[5]]
        lines = [
            (f"{row[1]} {row[2].lower()}{' not null' * row[3]}", described(told.columns[row[1]]))
            for row in conn.execute(f"pragma table_xinfo({table})")
        ]
        if keys:
            lines.append((f"primary key ({', '.join(keys)})", ""))
        body = [
            f"    {definition}{',' * (number < len(lines))}{f' -- {comment}' if comment else ''}"
            for number, (definition, comment) in enumerate(lines, 1)
        ]
        parts.append("\n".join([f"create table {table} ( -- {told.about}", *body, ") strict;\n"]))
    return "\n".join(parts)
