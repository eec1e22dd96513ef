"""The page Opportunities: what one liquidation call pays for everyone at risk, as `indexer opportunities` lists it."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from indexer.queries.known import protocols
from indexer.risk.opportunity_rows import COLUMNS, pays
from indexer.risk.opportunity_rows import rows as of_everyone
from indexer.text.console import remark
from indexer.web.asked import number, one_of
from indexer.web.band import band
from indexer.web.desk import Desk
from indexer.web.render import Shown, table

ROWS = 200
#: how long computing them all may take
SECONDS = 60.0
SHOWN = (
    "status wallet deployment position_group health_factor profit_before_gas_usd repaid debt_symbol received collateral_symbol "
    "bonus_percent sale_profit_before_gas_usd refused"
).split()


def ranked(desk: Desk) -> Callable[[sqlite3.Connection], list[dict[str, Any]]]:
    """What computes the rows of everyone at risk, the most profitable first."""

    def rows_of(conn: sqlite3.Connection) -> list[dict[str, Any]]:
        return of_everyone(conn, desk.session.deployments(conn), say=remark)

    return rows_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an address asks for: the least profit in USD, a protocol or all, and which there are."""

    least: float | None
    protocol: str
    protocols: Sequence[str]

    @classmethod
    def of(cls, request: Request, conn: sqlite3.Connection) -> "Wanted":
        names = protocols(conn)
        return cls(number(request.query_params, "min_profit"), one_of(request.query_params, "protocol", names), names)

    def keeps(self, row: Mapping[str, Any]) -> bool:
        return (not self.protocol or row["protocol"] == self.protocol) and (
            self.least is None or pays(row) >= self.least
        )


def shown(desk: Desk, request: Request) -> Shown:
    with desk.read() as conn:
        above = band(conn, desk.session.db)
        wanted = Wanted.of(request, conn)
    rows, fresh = desk.kept("opportunities", ranked(desk))
    if rows is not None:
        rows = [row for row in rows if wanted.keeps(row)]
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
            "least": wanted.least,
            "protocol": wanted.protocol,
            "protocols": wanted.protocols,
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
    with desk.read(SECONDS) as conn, desk.alone():
        wanted = Wanted.of(request, conn)
        return COLUMNS, [row for row in ranked(desk)(conn) if wanted.keeps(row)]
