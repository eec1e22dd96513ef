"""All positions of one person as one line."""

from collections.abc import Mapping, Sequence
from typing import Any

from indexer.model import WAD


def together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All positions of a person as one line; sums with an unknown part are unknown, the health factor is the lowest."""
    supplies = [held(row) for row in rows]
    debts = [row["debt_usd"] for row in rows]
    supply = None if None in supplies else sum(filter(None, supplies))
    debt = None if None in debts else sum(debts)
    worst = min((int(row["health_factor_raw"]) for row in rows if row["health_factor_raw"] is not None), default=None)
    return {
        "positions": len(rows),
        "supply_usd": supply,
        "debt_usd": debt,
        "net_usd": None if supply is None or debt is None else supply - debt,
        "health_factor": None if worst is None else worst / WAD,
        "health_factor_raw": None if worst is None else str(worst),
    }


def held(row: Mapping[str, Any]) -> float | None:
    """All that a position supplies in USD, also what backs no debt, as in the view `wallets`; None while that is not read."""
    if not row["supplies_complete"]:
        return None
    values = [balance["value_usd"] for balance in row["balances"] if balance["side"] == "supply"]
    if not values:
        return None if row["collateral_usd"] is None else float(row["collateral_usd"])
    return None if None in values else float(sum(values))
