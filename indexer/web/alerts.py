"""The page Alerts: who is watched by which rules, which rules are crossed, what was told, and where it got."""

from collections.abc import Iterable, Sequence
from typing import Any

from starlette.requests import Request

from indexer.queries import desk as reading
from indexer.text.values import iso
from indexer.web.band import band
from indexer.web.desk import Desk
from indexer.web.render import Shown, table

RULES = "label wallet rules groups open_crossings added".split()
PRICES = "rule asset threshold_usd price_usd state block_number".split()
STATES = "state label wallet deployment position_group rule health_factor block_number".split()
ALERTS = "time event rule label wallet deployment position_group health_factor block_number delivered waiting expired error".split()


def shown(desk: Desk, _request: Request) -> Shown:
    with desk.read() as conn:
        above = band(conn, desk.session.db)
        rules, prices = reading.rules(conn), reading.price_rules(conn)
        states, alerts = reading.states(conn), reading.alerts(conn)
    default = ", ".join(f"below {value:g}" for value in desk.session.config.alerts.below)
    for row in rules:
        row["rules"] = row["rules"] or f"{default} (default)"
        row["added"] = iso(row["added_at"])
    for row in [*prices, *states]:
        row["state"] = None if row["open"] is None else "crossed" if row["open"] else "holds"
    for row in alerts:
        row["time"] = iso(row["created_at"])
    return Shown(
        "Alerts",
        "alerts.html",
        {
            "crossed": sum(row["state"] == "crossed" for row in [*prices, *states]),
            "watched": len(rules),
            "waiting": sum(row["waiting"] for row in alerts),
            "expired": sum(row["expired"] for row in alerts),
            "rules": table("Watched wallets", RULES, rules, key=("wallet",)) if rules else None,
            "prices": table("Price rules", PRICES, prices, key=("rule",)) if prices else None,
            "states": table(
                "Rules and positions", STATES, states, key=("wallet", "deployment", "position_group", "rule")
            )
            if states
            else None,
            "alerts": table("Last alerts", ALERTS, alerts, key=("time", "wallet", "deployment", "rule"))
            if alerts
            else None,
        },
        above,
        twin="/alerts.{form}",
    )


def rows(desk: Desk, _request: Request) -> tuple[Sequence[str], Iterable[Any]]:
    """The newest alerts and what became of their deliveries."""
    with desk.read() as conn:
        return "number created_at kind rule event wallet label".split(), reading.alerts(conn, 10_000)
