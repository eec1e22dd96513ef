"""A page of the list of who is at risk: so many rows, and the place from which the next page goes on.

A page begins behind the last row of the one before, by that row's own values: rows that come, go or move between two
looks neither repeat nor hide others.
"""

import heapq
import json
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from indexer.boundary import bounded_json
from indexer.errors import ConfigError
from indexer.queries.exports import KEY, POSITION_NAMES, POSITION_SOURCE, Kind, of_rows
from indexer.queries.scope import Scope
from indexer.store.shards import each
from indexer.text.values import Row

#: ascending expressions, so that one comparison of row values finds what comes next; unknown values come last
ORDERS = {
    "debt": (
        "p.debt_usd is null",
        "-coalesce(p.debt_usd, 0)",
        "p.health_factor is null",
        "coalesce(p.health_factor, 0)",
    ),
    "collateral": ("p.collateral_usd is null", "-coalesce(p.collateral_usd, 0)"),
    #: digits without leading zeros are ordered by length, then as text
    "health": (
        "p.health_factor_raw is null",
        "length(coalesce(p.health_factor_raw, ''))",
        "coalesce(p.health_factor_raw, '')",
    ),
}
KEY_OF_ROW = tuple(f"p.{name}" for name in KEY)


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of `export at-risk`; `after` begins the next page, None on the last one."""

    columns: Sequence[str]
    rows: Sequence[Row]
    after: str | None


def page(
    conn: sqlite3.Connection,
    *,
    order: str,
    limit: int,
    after: str | None = None,
    below: float | None = None,
    min_debt: float | None = None,
    protocols: Sequence[str] = (),
    statuses: Sequence[str] = (),
    scope: Scope | None = None,
) -> Page:
    """The rows that `exports.select` has of Kind.AT_RISK, ordered by a key of ORDERS, at most `limit` of them."""
    keys = (*ORDERS[order], *KEY_OF_ROW)
    filters, values = of_rows(Kind.AT_RISK, below, min_debt, protocols, statuses)
    more, given = (scope or Scope()).of_positions("coalesce(p.block_timestamp, d.block_timestamp)")
    filters, values = [*filters, *more], [*values, *given]
    if after is not None:
        filters.append(f"({', '.join(keys)}) > ({', '.join('?' * len(keys))})")
        values += place(after, order)
    names = [*POSITION_NAMES, *(f"{key} as key_{number}" for number, key in enumerate(keys))]
    sql = (
        f"select {', '.join(names)} from {POSITION_SOURCE} where {' and '.join(filters)} "  # noqa: S608 - our own names
        f"order by {', '.join(keys)} limit ?"
    )
    parts = [part.execute(sql, (*values, limit + 1)) for part in each(conn)]
    columns = [name.rpartition(" as ")[2].rpartition(".")[2] for name in POSITION_NAMES]
    rows = list(islice(heapq.merge(*parts, key=lambda row: tuple(row)[len(columns) :]), limit + 1))
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(
        columns,
        [tuple(row)[: len(columns)] for row in rows[:limit]],
        None if last is None else json.dumps(tuple(last)[len(columns) :], separators=(",", ":")),
    )


def place(text: str, order: str) -> list[Any]:
    """The values of the row behind which a page in this order begins. Raises `ConfigError` for anything else."""
    try:
        values = bounded_json.loads(text.encode())
    except ValueError:
        values = None
    if (
        not isinstance(values, list)
        or len(values) != len(ORDERS[order]) + len(KEY)
        or not all(type(value) in (str, float) or (type(value) is int and abs(value) < 2**63) for value in values)
        or any(isinstance(value, float) and not math.isfinite(value) for value in values)
    ):
        raise ConfigError("after: that is no place in this list; open the list from its beginning")
    return values
