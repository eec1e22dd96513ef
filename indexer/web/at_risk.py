"""The page At risk: who can be liquidated or nearly so, with filters, sort order and place in its address."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from starlette.datastructures import QueryParams
from starlette.requests import Request

from indexer.model import Status
from indexer.queries import exports
from indexer.queries.desk import endangered, whole
from indexer.queries.exports import Kind
from indexer.queries.freshness import exact_below
from indexer.queries.known import deployments
from indexer.queries.paging import Page, page
from indexer.report.document import Live
from indexer.text.values import Row
from indexer.web.asked import Filters
from indexer.web.band import band
from indexer.web.desk import Desk
from indexer.web.render import Shown, person_link, table

ROWS = 200
COLUMNS = (
    "status wallet deployment position_group health_factor fall_percent debt_usd collateral_usd blocked_by".split()
)
SOMETIMES = ("position_group", "blocked_by")
#: the heading that sorts by each order, and which way
SORTED = {
    "debt_usd": ("debt", "descending"),
    "collateral_usd": ("collateral", "descending"),
    "health_factor": ("health", "ascending"),
}


class Listed(NamedTuple):
    """What the file says to an address: its list, and what stands beside it."""

    asked: Filters
    found: Page
    dangers: Mapping[str, Mapping[str, Any]]
    places: Sequence[sqlite3.Row]
    older: str | None


def listed(conn: sqlite3.Connection, query: QueryParams) -> Listed:
    asked = Filters.of(query, conn)
    found = page(
        conn,
        order=asked.sort,
        limit=ROWS,
        after=asked.after,
        below=asked.below,
        min_debt=asked.min_debt,
        protocols=asked.protocols,
        statuses=asked.statuses,
        scope=asked.scope(conn),
    )
    return Listed(asked, found, endangered(conn), deployments(conn), left_as_it_was(conn, asked.below))


def shown(desk: Desk, request: Request) -> Shown:
    query = request.query_params
    asked, found, dangers, places, older = desk.once(("at-risk", str(query)), lambda conn: listed(conn, query))
    with desk.read() as conn:
        above = band(conn, desk.session.db)
    book, fresh = desk.kept("whole", whole)
    rows = [with_fall(dict(zip(found.columns, row, strict=True))) for row in found.rows]
    return Shown(
        "At risk",
        "at_risk.html",
        {
            "asked": asked,
            "cards": list(dangers.values()),
            "book": book,
            "fresh": fresh,
            "rows": rows,
            "table": table("Positions at risk", told(rows), rows, live=live(asked)),
            "first": f"/?{asked.query()}" if asked.after else None,
            "next": f"/?{asked.query(after=found.after)}" if found.after else None,
            "protocols": sorted({row["protocol"] for row in places}),
            "deployments": sorted({row["deployment"] for row in places}),
            "older": older,
        },
        above,
        twin="/at-risk.{form}?" + asked.query(),
    )


def told(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns without those that only some protocols and moments fill, where none here does."""
    return [name for name in COLUMNS if name not in SOMETIMES or any(row[name] for row in rows)]


def left_as_it_was(conn: sqlite3.Connection, below: float | None) -> str | None:
    """A sentence where rows above some health factor may be of an older block than their deployment."""
    if below is None:
        return None
    bound = exact_below(conn, below)
    if bound is None:
        return None
    return f"Digits of rows from {bound:g} on may be some minutes old, as a sync that follows the chain leaves them."


def live(asked: Filters) -> Live:
    """Headings that sort, wallets that lead to their pages, and rows that are found again after an update."""

    def sort(column: str) -> tuple[str, str] | None:
        if column not in SORTED:
            return None
        order, way = SORTED[column]
        return f"/?{asked.query(sort=order)}", way if asked.sort == order else ""

    return Live(sort, person_link, ("wallet", "deployment", "position_group"))


def with_fall(row: dict[str, Any]) -> Mapping[str, Any]:
    """The row, and how much all of its collateral can lose against its debt until it is liquidatable, in per cent.

    0 for who is liquidatable, whatever the health factor says: a contract may have other grounds (a deprecated market).
    """
    if row["status"] == Status.LIQUIDATABLE:
        return {**row, "fall_percent": 0.0}
    limit, debt = row["liquidation_limit_raw"], row["debt_value_raw"]
    known = limit is not None and debt is not None and int(limit) > 0
    return {**row, "fall_percent": max(100 - 100 * int(debt) / int(limit), 0.0) if known else None}


def rows(desk: Desk, request: Request) -> tuple[Sequence[str], Iterable[Row]]:
    """The rows of `export at-risk` under the same filters, all pages of them."""
    with desk.read() as conn:
        asked = Filters.of(request.query_params, conn)
        columns, found = exports.select(
            conn,
            Kind.AT_RISK,
            below=asked.below,
            min_debt=asked.min_debt,
            protocols=asked.protocols,
            statuses=asked.statuses,
            scope=asked.scope(conn),
        )
        return columns, list(found)
