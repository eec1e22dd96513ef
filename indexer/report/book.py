"""`report book`: what all positions in the database hold and owe, how healthy they are, and whose are the largest.

Sums are over the same rows that a reader can query, exact amounts as integers. Positions without a USD value are left
out of USD sums and counted beside them.
"""

import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from heapq import nlargest
from itertools import pairwise
from math import fsum
from typing import Any

from indexer.progress import NoProgress, Progress
from indexer.queries.book import (
    BOUNDS,
    Chosen,
    blocks,
    by_deployment,
    by_protocol_and_health,
    decimals,
    owing_most,
    worst_health,
)
from indexer.queries.holders import Held, held
from indexer.report.charts import Bars
from indexer.report.document import Report, Section
from indexer.report.parts import as_of, labelled, percent, section

#: the lower bounds of the buckets of health factors; each reaches up to the next
LARGEST = 10


# sections ----------------------------------------------------------------------------------------------------------

DEPLOYMENT_COLUMNS = (
    "deployment protocol positions with_debt collateral_usd debt_usd debt_at_risk_usd liquidatable "
    "liquidatable_debt_usd unvalued unpriceable unverified block_number block_time"
).split()

ASSET_COLUMNS = (
    "symbol asset supply collateral debt supply_usd collateral_usd debt_usd liquidatable_debt_usd "
    "debt_top10_percent debt_hhi collateral_top10_percent unvalued"
).split()


def by_asset(conn: sqlite3.Connection, holders: Held) -> list[dict[str, Any]]:
    """One row per asset over all protocols, largest debt, then collateral first; amounts `*_raw` are exact."""
    units = decimals(conn)
    found = []
    for (chain_id, asset), one in holders.assets().items():
        unit = units.get((chain_id, asset.lower()))
        columns: dict[str, Any] = {"symbol": one.symbol, "asset": asset}
        for name, side in (("supply", one.supply), ("collateral", one.collateral), ("debt", one.debt)):
            columns[f"{name}_raw"] = str(side.amount)
            columns[name] = None if unit is None else side.amount / 10**unit
        columns |= {
            "supply_usd": one.supply.usd,
            "collateral_usd": one.collateral.usd,
            "debt_usd": one.debt.usd,
            "liquidatable_debt_usd": one.liquidatable_debt_usd,
            "debt_top10_percent": top_share(one.debts),
            "debt_hhi": hhi(one.debts),
            "collateral_top10_percent": top_share(one.collaterals),
            "unvalued": one.unvalued,
        }
        found.append(columns)
    return sorted(found, key=lambda c: (-(c["debt_usd"] or 0.0), -(c["supply_usd"] or 0.0), c["symbol"], c["asset"]))


def top_share(values: Sequence[float], count: int = LARGEST) -> float | None:
    """The share of the largest `count` in the sum, in per cent; None if the sum is 0."""
    return percent(fsum(nlargest(count, values)), fsum(values))


def hhi(values: Sequence[float]) -> float | None:
    """The Herfindahl-Hirschman index: the sum of the squared shares in per cent, 10,000 for a single holder."""
    whole = fsum(values)
    return fsum((100 * value / whole) ** 2 for value in values) if whole else None


def bucket_names() -> list[str]:
    return [*(f"{low:g} to {high:g}" for low, high in pairwise(BOUNDS)), f"{BOUNDS[-1]:g} and more"]


def column(protocol: str) -> str:
    """The column of a protocol's debt, as `simulate --sweep` calls it."""
    return f"{protocol.replace('-', '_')}_debt_usd"


def by_health(conn: sqlite3.Connection, chosen: Chosen) -> tuple[list[str], list[dict[str, Any]]]:
    """Protocols with debt, and one row per bucket of health factors: positions, debt, and the debt of each protocol."""
    rows = by_protocol_and_health(conn, chosen)
    names = sorted({row["protocol"] for row in rows})
    whole = sum(row["debt_usd"] for row in rows)
    found = []
    for bucket, label in [*enumerate(bucket_names()), (None, "unknown")]:
        part = [row for row in rows if row["bucket"] == bucket]
        if bucket is None and not part:
            continue
        debt = sum((row["debt_usd"] for row in part), 0.0)
        known = [row["collateral_usd"] for row in part if row["collateral_usd"] is not None]
        columns = {
            "health_factor_from": label,
            "positions": sum(row["positions"] for row in part),
            "collateral_usd": sum(known, 0.0) if known or not part else None,
            "debt_usd": debt,
            "debt_percent": percent(debt, whole),
        }
        found.append(
            columns | {column(n): sum((r["debt_usd"] for r in part if r["protocol"] == n), 0.0) for n in names}
        )
    return names, found


LARGEST_COLUMNS = "wallet positions debt_usd debt_percent collateral_usd debt_at_risk_usd health_factor".split()


def largest(conn: sqlite3.Connection, chosen: Chosen, whole: float, count: int = LARGEST) -> list[dict[str, Any]]:
    """The wallets that owe most of the `whole` debt in USD, with the worst health factor among their positions."""
    found = []
    for row in owing_most(conn, chosen, count):
        digits = worst_health(conn, chosen, row["wallet"])
        factor = None if digits is None else Decimal(digits).scaleb(-18)
        found.append({**row, "debt_percent": percent(row["debt_usd"], whole), "health_factor": factor})
    return found


CONCENTRATION_COLUMNS = (
    "deployment wallets_with_debt debt_top10_percent debt_hhi collateral_top10_percent collateral_hhi".split()
)


def concentration(holders: Held) -> list[dict[str, Any]]:
    """How much of the whole book and of each deployment the largest wallets hold."""
    return [
        {
            "deployment": name,
            "wallets_with_debt": sum(debt > 0 for debt in debts),
            "debt_top10_percent": top_share(debts),
            "debt_hhi": hhi(debts),
            "collateral_top10_percent": top_share(collaterals),
            "collateral_hhi": hhi(collaterals),
        }
        for name, (debts, collaterals) in sorted(holders.sums().items(), key=lambda item: (item[0] != "all", item[0]))
    ]


# the report --------------------------------------------------------------------------------------------------------


def book(
    conn: sqlite3.Connection,
    *,
    protocols: Sequence[str] = (),
    deployments: Sequence[str] = (),
    extra: Sequence[Section] = (),
    progress: Progress | None = None,
) -> Report | None:
    """The report, with `extra` sections after the distribution; None where nothing is synced."""
    chosen = Chosen(protocols, deployments)
    synced = blocks(conn, chosen)
    if not synced:
        return None
    progress = progress or NoProgress()
    progress.start("adding up", 3, "tables")
    sums = by_deployment(conn, chosen)
    deployments_part = deployment_section(synced, sums)
    progress.advance("adding up", 1)
    holders = held(conn, chosen.sql, chosen.values)
    assets_part = asset_section(by_asset(conn, holders))
    progress.advance("adding up", 1)
    health_part = health_section(*by_health(conn, chosen))
    progress.done("adding up")
    part = ", ".join([*protocols, *deployments])
    return Report(
        f"Lending book: {part}" if part else "Lending book",
        as_of(conn, synced),
        [
            deployments_part,
            health_part,
            *extra,
            assets_part,
            section(
                "Largest wallets by debt",
                LARGEST_COLUMNS,
                largest(conn, chosen, fsum(row["debt_usd"] or 0.0 for row in sums)),
            ),
            section("Concentration", CONCENTRATION_COLUMNS, concentration(holders)),
        ],
    )


def deployment_section(synced: Sequence[sqlite3.Row], rows: Sequence[dict[str, Any]]) -> Section:
    return section(
        "By deployment",
        DEPLOYMENT_COLUMNS,
        rows,
        notes=notes(synced, rows),
        charts=[
            Bars("Collateral by deployment", "USD", [(r["deployment"], r["collateral_usd"]) for r in rows]),
            Bars("Debt by deployment", "USD", [(r["deployment"], r["debt_usd"]) for r in rows]),
        ],
    )


def health_section(protocols: Sequence[str], rows: Sequence[dict[str, Any]]) -> Section:
    return section(
        "By health factor",
        ["health_factor_from", "positions", "collateral_usd", "debt_usd", "debt_percent", *map(column, protocols)],
        rows,
        notes=["Positions with debt; each bucket reaches from its bound up to the next."],
        charts=[Bars("Debt by health factor", "USD", [(r["health_factor_from"], r["debt_usd"]) for r in rows])],
    )


def asset_section(rows: Sequence[dict[str, Any]]) -> Section:
    indebted = [row for row in rows if row["debt_usd"]]
    return section(
        "By asset",
        ASSET_COLUMNS,
        rows,
        notes=[
            "Amounts in whole tokens, over all deployments. top10: the share of the ten largest wallets; hhi: the sum of "
            "squared shares in per cent, 10,000 for a single wallet."
        ],
        charts=[Bars("Debt by asset", "USD", labelled(indebted, "debt_usd")[:12])],
    )


def notes(synced: Sequence[sqlite3.Row], rows: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know about the book's completeness."""
    found = []
    unvalued = sum(row["unvalued"] for row in rows)
    if unvalued:
        found.append(f"{unvalued:,} positions with debt have no USD value (unvalued) and are left out of USD sums.")
    accounts = sorted({row["accounts"] for row in synced})
    if accounts != ["all"]:
        found.append("Collateral covers known accounts only (synced with --accounts " + ", ".join(accounts) + ").")
    found += [f"{row['deployment']} is {row['state']}: {row['note']}" for row in synced if row["state"] != "ok"]
    return found
