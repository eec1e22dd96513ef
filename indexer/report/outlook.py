"""The outlook of positions as plain rows for `show`, in JSON and tables. Every value has its unit in its name or beside it."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from indexer.adapter import AnyAdapter, Liquidation
from indexer.model import WAD, Balance, Deployment, LiquidationCall, Market, Position
from indexer.queries.wallet import KEY, places_of
from indexer.risk import simulate
from indexer.risk.liquidation import FOREVER, Outlook, outlook
from indexer.store import books as loading
from indexer.text.console import remark
from indexer.text.values import age

Key = tuple[Any, ...]

LIMITS = "deployment position_group account symbol role price liquidation_price unit price_usd liquidation_price_usd distance_percent".split()
WAYS = (
    "deployment position_group account act amount symbol value_usd target_health_factor health_factor refused".split()
)
CALLS = "deployment position_group account repay debt seize collateral bonus_percent refused".split()


class Held(NamedTuple):
    """A stored position, and what its outlook follows from."""

    key: Key
    adapter: AnyAdapter
    market: Market
    position: Position
    seconds_per_block: float


def stored(
    conn: sqlite3.Connection, known: Mapping[str, Deployment], wallets: Sequence[str], target: int
) -> dict[Key, dict[str, Any]]:
    """By key, the outlook of each of these wallets' stored positions with debt, computed without a node."""
    return outlooks(held(conn, known, wallets, remark), target)


def outlooks(found: Iterable[Held], target: int) -> dict[Key, dict[str, Any]]:
    """The outlooks by key, without those whose protocol is no `Liquidation`."""
    told = ((one, ahead(one.adapter, one.market, one.position, target, one.seconds_per_block)) for one in found)
    return {one.key: row for one, row in told if row is not None}


def held(
    conn: sqlite3.Connection, known: Mapping[str, Deployment], wallets: Sequence[str], tell: Callable[[str], None]
) -> Iterator[Held]:
    """These wallets' stored positions, of whom an outlook can be computed.

    `tell` hears of those left out: of a deployment whose addresses nobody knows, and one whose protocol is no
    `Liquidation`.
    """
    here = places_of(conn, wallets)
    rows, lacking = loading.able(
        [row for row in loading.deployments(conn) if (row["chain_id"], row["deployment"]) in here], Liquidation
    )
    for name in lacking:
        tell(unknown(name))
    for row in rows:
        if row["deployment"] not in known:
            tell(
                f"the addresses of {row['deployment']} are unknown: what could liquidate a position there is not computed"
            )
            continue
        pace = simulate.seconds_per_block(conn, row["chain_id"])
        for book in loading.load(conn, [row], known, wallets=wallets):
            for position in book.positions:
                yield Held((book.chain_id, book.name, *position.key), book.adapter, book.market, position, pace)


def ahead(
    adapter: AnyAdapter, market: Market, position: Position, target: int, seconds_per_block: float
) -> dict[str, Any] | None:
    """The outlook of a position as JSON values; None where its protocol is no `Liquidation`."""
    if not isinstance(adapter, Liquidation):
        return None
    return plain(outlook(adapter, market, position, target=target, seconds_per_block=seconds_per_block), market)


def unknown(deployment: str) -> str:
    """The remark about a position whose adapter is no `Liquidation`."""
    return f"{deployment}: its protocol does not say what endangers a position, so it has no outlook"


def plain(found: Outlook, market: Market) -> dict[str, Any]:
    """An outlook as JSON values: integers as decimal strings (`_raw`), amounts in whole tokens, values in USD.

    Prices are in `unit` and, at its present worth, in USD (None if that is unknown); their `_raw` in the oracle's own integer; `safe_price_raw` is the last safe one on the way to
    `liquidation_price_raw`, the first at which the contract's health test fails.
    """
    return {
        "health_factor_accrued_raw": text(found.health.health_factor),
        "liquidatable_accrued": found.health.liquidatable,
        "liquidation_blocked_by": ", ".join(found.blocked) or None,
        "seconds_to_liquidation_by_interest": found.seconds,
        "liquidation_prices": [
            {
                "key": one.price.key,
                "symbol": one.price.symbol,
                "role": role(collateral=one.price.collateral, debt=one.price.debt),
                "price": one.whole(one.price.price),
                "liquidation_price": one.whole(one.liquidatable),
                "unit": one.price.unit,
                "price_usd": one.usd(market, one.price.price),
                "liquidation_price_usd": one.usd(market, one.liquidatable),
                "distance_percent": one.distance,
                "price_raw": str(one.price.price),
                "safe_price_raw": str(one.safe),
                "liquidation_price_raw": str(one.liquidatable),
                "price_decimals": one.price.decimals,
            }
            for one in found.prices
        ],
        "target_health_factor": found.target / WAD,
        "to_target": [
            {
                "act": one.act,
                "asset": one.balance.asset,
                "market": one.balance.market,
                "symbol": one.balance.symbol,
                "amount": whole(one.balance, one.amount),
                "amount_raw": str(one.amount),
                "value_usd": value_usd(one.balance, one.amount, market),
                "health_factor": None if one.health_factor is None else one.health_factor / WAD,
                "health_factor_raw": text(one.health_factor),
                "refused": one.refused,
            }
            for one in found.remedies
        ],
        "closable": [call(one) for one in found.closable],
    }


def call(one: LiquidationCall) -> dict[str, Any]:
    """What one liquidation call closes of one debt for one collateral."""
    return {
        "debt_asset": one.debt.asset,
        "debt_symbol": one.debt.symbol,
        "collateral_asset": one.collateral.asset,
        "collateral_symbol": one.collateral.symbol,
        "repaid": whole(one.debt, one.repaid),
        "seized": whole(one.collateral, one.seized),
        "received": whole(one.collateral, one.received),
        "returned": whole(one.debt, one.returned),
        "repaid_raw": str(one.repaid),
        "seized_raw": str(one.seized),
        "received_raw": str(one.received),
        "returned_raw": str(one.returned),
        "bonus_percent": None if one.bonus is None else 100 * one.bonus,
        "whole_account": one.whole,
        "refused": one.refused,
    }


def text(value: int | None) -> str | None:
    return None if value is None else str(value)


def whole(balance: Balance, amount: int) -> float:
    return float(amount / 10**balance.decimals)


def value_usd(balance: Balance, amount: int, market: Market) -> float | None:
    if balance.value is None or market.usd is None or not balance.amount:
        return None
    return float(amount / balance.amount * balance.value * market.usd[0] / market.usd[1])


def role(*, collateral: bool, debt: bool) -> str:
    return "both" if collateral and debt else "debt" if debt else "collateral"


# for people -----------------------------------------------------------------------------------------------------------


def until(prospects: Mapping[str, Any] | None) -> str:
    """How long it takes until interest alone makes the position liquidatable, in words."""
    if prospects is None or not (prospects["liquidation_prices"] or prospects["liquidatable_accrued"]):
        return "-"
    if prospects["liquidation_blocked_by"]:
        return f"blocked: {prospects['liquidation_blocked_by']}"
    seconds = prospects["seconds_to_liquidation_by_interest"]
    if seconds is None:
        return f"over {FOREVER // 31_536_000} years"
    return age(seconds) if seconds else "now"


#: of the tables below
TITLES = {
    "prices": "What liquidates it",
    "ways": "What to repay or add",
    "calls": "What one call can close now",
}


def tables(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, Sequence[str], list[list[Any]]]]:
    """The tables `prices`, `ways` and `calls` of all positions: liquidation prices, ways to the target, and what one call
    closes; empty ones are left out.
    """
    limits: list[dict[str, Any]] = []
    ways: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    every = list(rows)
    for row in every:
        prospects = row["outlook"]
        if prospects is None:
            continue
        where = {name: row[name] for name in KEY}
        limits += [{**where, **one} for one in prospects["liquidation_prices"]]
        goal = prospects["target_health_factor"]
        ways += [{**where, **one, "target_health_factor": goal} for one in prospects["to_target"]]
        for one in prospects["closable"]:
            names = {"repay": one["repaid"], "debt": one["debt_symbol"], "seize": one["seized"]}
            calls.append({**where, **one, **names, "collateral": one["collateral_symbol"]})
    found = (("prices", LIMITS, limits), ("ways", WAYS, ways), ("calls", CALLS, calls))
    return [
        (name, columns, [[row[column] for column in columns] for row in part])
        for name, columns, part in ((name, telling(apart(columns, every), part), part) for name, columns, part in found)
        if part
    ]


def telling(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns without the prices in USD beside them, where all prices are in USD anyhow."""
    also = any(row.get("unit", "USD") != "USD" for row in rows)
    return [name for name in columns if also or name not in ("price_usd", "liquidation_price_usd")]


def apart(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns without the account, where that is the same in all rows and tells nothing apart."""
    several = len({row["account"] for row in rows}) > 1
    return [name for name in columns if several or name != "account"]
