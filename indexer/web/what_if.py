"""The page What-if: who becomes liquidatable if prices fall or time passes, and the curve of one price that falls."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from indexer.risk import simulate as simulating
from indexer.web.band import band
from indexer.web.desk import Desk
from indexer.web.render import Shown, table
from indexer.web.scenario import MOST_DAYS, Assumed, computed, outcome_rows, sliders_of_all, swept_rows

ROWS = 200
#: how long a scenario may take; it reads positions, and evaluates each whose status could change
SECONDS = 60.0
DEPLOYMENTS = (
    "deployment positions liquidatable_before liquidatable_after new new_wallets new_debt_usd bad_debt_usd".split()
)
ASSETS = "deployment side symbol positions amount value_usd".split()
POSITIONS = (
    "deployment position_group wallet status_before status_after health_factor_before health_factor_after debt_usd collateral_usd"
).split()


def shown(desk: Desk, request: Request) -> Shown:
    assumed = Assumed.of(request.query_params)
    with desk.read(SECONDS) as conn:
        above = band(conn, desk.session.db)
        names = sliders_of_all(desk, conn)
        found = curve = None
        if assumed:
            with desk.alone():
                found = computed(desk, conn, assumed) if assumed.supposes else None
                curve = swept_rows(desk, conn, assumed) if assumed.sweep else None
    outcomes = [] if found is None else outcome_rows(found)
    return Shown(
        "What-if",
        "what_if.html",
        {
            "assumed": assumed,
            "sliders": [(name, assumed.percent(name)) for name in names],
            "most_days": MOST_DAYS,
            "sums": None if found is None else sums(found),
            "deployments": None
            if found is None
            else table("By deployment", DEPLOYMENTS, simulating.deployment_rows(found), key=("deployment",)),
            "assets": of_assets(found),
            "outcomes": table(
                "Newly liquidatable positions",
                POSITIONS,
                outcomes[:ROWS],
                key=("wallet", "deployment", "position_group"),
            )
            if outcomes
            else None,
            "more": max(len(outcomes) - ROWS, 0),
            "curve": None if curve is None else table("The curve", list(curve[0]), curve, key=("change_percent",)),
            "plot": None if curve is None else plot(assumed, curve),
        },
        above,
        twin=f"/what-if.{{form}}?{request.url.query}" if assumed else None,
    )


def sums(found: simulating.Simulation) -> Mapping[str, Any]:
    """What changes over all deployments."""
    lines = simulating.deployment_rows(found)
    return {
        name: sum(line[name] for line in lines)
        for name in ("new", "new_debt_usd", "bad_debt_usd", "liquidatable_before", "liquidatable_after", "unpriceable")
    }


def of_assets(found: simulating.Simulation | None) -> Any:
    lines = [] if found is None else simulating.asset_rows(found)
    return (
        table(
            "Debts and collateral of those who become liquidatable", ASSETS, lines, key=("deployment", "side", "symbol")
        )
        if lines
        else None
    )


def plot(assumed: Assumed, curve: Sequence[Mapping[str, Any]]) -> str:
    """The curve as the page's script draws it, the deepest fall last."""
    lines = [("Liquidatable debt (USD)", "debt_usd"), ("Bad debt (USD)", "bad_debt_usd")]
    ordered = sorted(curve, key=lambda row: row["change_percent"])
    return json.dumps(
        {
            "title": f"Liquidatable debt as {assumed.sweep.partition('=')[0]} changes",
            "x": [row["change_percent"] for row in ordered],
            "series": [{"label": label, "values": [row[name] for row in ordered]} for label, name in lines],
        }
    )


def rows(desk: Desk, request: Request) -> tuple[Sequence[str], Iterable[Any]]:
    """The rows of `simulate`: the steps of a sweep, else who becomes liquidatable."""
    assumed = Assumed.of(request.query_params)
    if not assumed:
        return simulating.OUTCOME_COLUMNS, []
    with desk.read(SECONDS) as conn, desk.alone():
        if assumed.sweep:
            return [], swept_rows(desk, conn, assumed)
        return simulating.OUTCOME_COLUMNS, outcome_rows(computed(desk, conn, assumed))
