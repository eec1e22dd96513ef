"""Which rows of a list are asked for, and in which order: what every list has in common."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from indexer.errors import ConfigError
from indexer.text.values import iso


@dataclass(frozen=True, slots=True)
class Span:
    """From a block or time on, up to another; both ends are in it. Times are unix seconds."""

    since_block: int | None = None
    since: int | None = None
    until_block: int | None = None
    until: int | None = None

    def bounds(self, block: str, time: str) -> Iterator[tuple[str, int]]:
        """SQL conditions on a column or expression of the block and one of the time, each with its value."""
        for condition, value in (
            (f"{block} >= ?", self.since_block),
            (f"{time} >= ?", self.since),
            (f"{block} <= ?", self.until_block),
            (f"{time} <= ?", self.until),
        ):
            if value is not None:
                yield condition, value

    def holds(self, row: Mapping[str, Any] | sqlite3.Row) -> bool:
        """Whether a row's `block_number` and `block_timestamp` are in it; one that has no block yet is not."""
        return all(
            bound is None or (row[name] is not None and (row[name] >= bound if first else row[name] <= bound))
            for name, first, bound in (
                ("block_number", True, self.since_block),
                ("block_timestamp", True, self.since),
                ("block_number", False, self.until_block),
                ("block_timestamp", False, self.until),
            )
        )


@dataclass(frozen=True, slots=True)
class Order:
    """A column by which rows are sorted; unknown values come last either way."""

    column: str
    ascending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The part of a list that is asked for; every field that says nothing leaves all rows in."""

    chain_id: int | None = None
    deployments: Sequence[str] = ()
    wallets: Sequence[str] = ()
    span: Span = field(default_factory=Span)
    order: Order | None = None
    limit: int | None = None

    def of_positions(self, time: str) -> tuple[list[str], list[Any]]:
        """SQL conditions on `positions p` and their values; `time` is the expression of a row's time in unix seconds."""
        filters, values = self.of_places("p")
        if self.wallets:
            places = marks(self.wallets)
            filters.append(f"(p.wallet in ({places}) or p.owner in ({places}) or p.account in ({places}))")
            values += [*self.wallets] * 3
        for condition, value in self.span.bounds("p.block_number", time):
            filters.append(condition)
            values.append(value)
        return filters, values

    def of_places(self, table: str) -> tuple[list[str], list[Any]]:
        """SQL conditions on chain and deployment of a table, and their values."""
        filters: list[str] = []
        values: list[Any] = []
        if self.chain_id is not None:
            filters.append(f"{table}.chain_id = ?")
            values.append(self.chain_id)
        if self.deployments:
            filters.append(f"{table}.deployment in ({marks(self.deployments)})")
            values += self.deployments
        return filters, values

    def of_wallets(self) -> tuple[list[str], list[Any]]:
        """SQL conditions on the view `wallets p` with `oldest_block_time`, and their values."""
        filters, values = self.of_places("q")
        if filters:
            filters = [f"p.wallet in (select q.wallet from positions q where {' and '.join(filters)})"]  # noqa: S608 - ours
        if self.wallets:
            filters.append(f"p.wallet in ({marks(self.wallets)})")
            values += self.wallets
        for condition, value in self.span.bounds("p.oldest_block_number", "p.oldest_block_time"):
            filters.append(condition)
            values.append(iso(value) if "time" in condition else value)
        return filters, values

    def ordered(self, names: Sequence[str], expressions: Sequence[str], default: str) -> str:
        """What stands behind ORDER BY: the columns are `names`, whose SQL is `expressions`."""
        order = default
        if self.order is not None:
            place = names.index(known(self.order.column, names))
            column = expressions[place].partition(" as ")[0]
            way = "asc" if self.order.ascending else "desc"
            # digits without leading zeros are ordered by length, then by text
            keys = (
                [f"length({column}) {way}", f"{column} {way}"] if names[place].endswith("_raw") else [f"{column} {way}"]
            )
            order = ", ".join([f"{column} is null", *keys, default])
        return order

    def arranged(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[Mapping[str, Any]]:
        """Rows that are in their own order already, sorted and cut as is asked."""
        found = list(rows)
        if self.order is not None:
            name = known(self.order.column, columns)
            there = [row for row in found if row[name] is not None]
            there.sort(
                key=lambda row: int(row[name]) if name.endswith("_raw") else row[name], reverse=not self.order.ascending
            )
            found = there + [row for row in found if row[name] is None]
        return found[: self.limit]


def marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def known(name: str, columns: Sequence[str]) -> str:
    """The name of a column. Raises `ConfigError` for one that the list does not have."""
    if name not in columns:
        raise ConfigError(f"--sort: no column is called {name!r}; there are {', '.join(columns)}")
    return name


def newest(conn: sqlite3.Connection, chain_id: int | None) -> tuple[int, int]:
    """The time of the data's last block (unix seconds, 0 before the first), and of how many chains there is data."""
    found: tuple[int, int] = conn.execute(
        "select coalesce(max(block_timestamp), 0), count(distinct chain_id) from deployments "
        "where block_number is not null and (?1 is null or chain_id = ?1)",
        (chain_id,),
    ).fetchone()
    return found
