"""The page Forecast: what is pending, how likely it is to become unsafe, and to be liquidated; only what is stored."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from starlette.requests import Request

from indexer.extras import how_to_install
from indexer.queries.desk import forecasts
from indexer.text.values import age, iso
from indexer.web.band import band
from indexer.web.desk import Desk
from indexer.web.render import Shown, table

ROWS = 200
COLUMNS = "status wallet deployment position_group health_factor debt_usd horizon pending left_alone liquidated block_number age note".split()


def shown(desk: Desk, _request: Request) -> Shown:
    with desk.read() as conn:
        above = band(conn, desk.session.db)
        found = forecasts(conn, ROWS)
    lines = [told(row) for row in found or ()]
    return Shown(
        "Forecast",
        "forecast.html",
        {
            "table": table("Forecasts", COLUMNS, lines, key=("wallet", "deployment", "position_group", "horizon"))
            if lines
            else None,
            "install": how_to_install("forecast"),
        },
        above,
        twin="/forecast.{form}" if lines else None,
    )


def told(row: dict[str, Any]) -> dict[str, Any]:
    """A stored forecast in words: three kinds of statement that are never mixed."""
    return {
        **row,
        "horizon": age(row["horizon_seconds"]),
        "pending": pending(row),
        "left_alone": chance(row["p_unsafe"], row["p_unsafe_bound"], row["hits"]),
        "liquidated": None if row["p_liquidated"] is None else f"{100 * row['p_liquidated']:.1f} %",
        "age": f"{age(max(time.time() - row['block_timestamp'], 0))} old",
    }


def pending(row: dict[str, Any]) -> str | None:
    """What is on the chain already and not yet in force."""
    if row["pending_kind"] is None:
        return None
    when = "" if row["pending_at"] is None else f" at {iso(row['pending_at'])}"
    return f"liquidatable by {row['pending_kind']}{when}"


def chance(probability: float | None, bound: float | None, hits: int | None) -> str | None:
    """A probability in per cent; where no path, or every one, crossed, only the bound is known, and never 0 or 100."""
    if probability is not None:
        return f"{100 * probability:.1f} %"
    if bound is None:
        return None
    return f"below {100 * bound:.2g} %" if not hits else f"above {100 * bound:.4g} %"


def rows(desk: Desk, _request: Request) -> tuple[Sequence[str], Iterable[Any]]:
    """The stored rows, as the table has them."""
    with desk.read() as conn:
        return COLUMNS, forecasts(conn, 1_000_000) or []
