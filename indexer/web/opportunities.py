"""The page Opportunities: what one liquidation call pays for everyone at risk, as `indexer opportunities` lists it."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from starlette.requests import Request

from indexer.lists.opportunities import COLUMNS, found, pays
from indexer.queries.exports import danger_filter
from indexer.queries.scope import Scope
from indexer.terminal.scope import Asked
from indexer.web.asked import number, one_of
from indexer.web.band import band
from indexer.web.desk import Desk
from indexer.web.render import Shown, table

ROWS = 200
SHOWN = (
    "status wallet deployment position_group health_factor profit_before_gas_usd repaid debt_symbol received collateral_symbol "
    "bonus_percent sale_profit_before_gas_usd refused"
).split()


def ranked(desk: Desk) -> Callable[[sqlite3.Connection], list[dict[str, Any]]]:
    """What computes the rows of everyone at risk, the most profitable first."""

    def rows_of(conn: sqlite3.Connection) -> list[dict[str, Any]]:
        rows = list(found(conn, desk.session.deployments(conn), danger_filter(None, None, Scope()), Asked(), None))
        return sorted(rows, key=lambda row: (-pays(row), row["health_factor"] is None, row["health_factor"] or 0.0))

    return rows_of


def chosen(
    desk: Desk, request: Request, conn: sqlite3.Connection
) -> tuple[float | None, str, list[dict[str, Any]] | None, bool]:
    """What the address asks for, the rows it leaves (None while the first are computed), and whether they are of now."""
    least = number(request.query_params, "min_profit")
    names = [name for (name,) in conn.execute("select distinct protocol from deployments order by 1")]
    protocol = one_of(request.query_params, "protocol", names)
    rows, fresh = desk.kept("opportunities", ranked(desk))
    if rows is not None:
        rows = [
            row
            for row in rows
            if (not protocol or row["protocol"] == protocol) and (least is None or pays(row) >= least)
        ]
    return least, protocol, rows, fresh


def shown(desk: Desk, request: Request) -> Shown:
    with desk.read() as conn:
        above = band(conn, desk.session.db)
        protocols = [name for (name,) in conn.execute("select distinct protocol from deployments order by 1")]
        least, protocol, rows, fresh = chosen(desk, request, conn)
    paying = [row for row in rows or () if pays(row) > 0]
    listed = (rows or [])[:ROWS]
    names = [
        name
        for name in SHOWN
        if name not in ("position_group", "sale_profit_before_gas_usd")
        or any(row[name] is not None and row[name] != "" for row in listed)
    ]
    return Shown(
        "Opportunities",
        "opportunities.html",
        {
            "least": least,
            "protocol": protocol,
            "protocols": protocols,
            "rows": rows,
            "fresh": fresh,
            "paying": len(paying),
            "profit": sum(pays(row) for row in paying),
            "best": max((pays(row) for row in paying), default=None),
            "block": listed[0]["block_number"] if listed else None,
            "table": table("Liquidation calls", names, listed, key=("wallet", "deployment", "position_group"))
            if listed
            else None,
            "more": max(len(rows or ()) - ROWS, 0),
        },
        above,
        twin=f"/opportunities.{{form}}?{request.url.query}",
    )


def rows(desk: Desk, request: Request) -> tuple[Sequence[str], Iterable[Any]]:
    """The rows of `indexer opportunities`; computed anew, so never of an older snapshot."""
    with desk.read(60.0) as conn, desk.alone():
        least = number(request.query_params, "min_profit")
        names = [name for (name,) in conn.execute("select distinct protocol from deployments order by 1")]
        protocol = one_of(request.query_params, "protocol", names)
        lines = ranked(desk)(conn)
    return COLUMNS, [
        row for row in lines if (not protocol or row["protocol"] == protocol) and (least is None or pays(row) >= least)
    ]
