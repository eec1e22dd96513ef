"""`report book`: what all positions in the database hold and owe, how healthy they are, and whose are the largest.

Sums are over the same rows that a reader can query, exact amounts as integers. Positions without a USD value are left
out of USD sums and counted beside them.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from math import fsum
from typing import Any

from indexer.model import Status
from indexer.progress import NoProgress, Progress
from indexer.queries.book import (
    BOUNDS,
    Chosen,
    blocks,
    decimals,
    owing_most,
    worst_health,
)
from indexer.queries.holders import Group, Held, OfDeployment, collateral_usd, debt_usd, held
from indexer.queries.spread import LARGEST, Spread
from indexer.report.charts import Bars
from indexer.report.document import Report, Section
from indexer.report.parts import as_of, labelled, percent, section

# sections ----------------------------------------------------------------------------------------------------------

DEPLOYMENT_COLUMNS = (
    "deployment protocol positions with_debt collateral_usd debt_usd debt_at_risk_usd liquidatable "
    "liquidatable_debt_usd unvalued unpriceable unverified block_number block_time"
).split()

#: of the positions that a liquidation may come to
AT_RISK = (Status.AT_RISK, Status.LIQUIDATABLE)


def by_deployment(synced: Iterable[sqlite3.Row], holders: Held) -> list[dict[str, Any]]:
    """One row per synced deployment, largest debt first; `unvalued` counts positions with debt whose USD value is unknown."""
    found = []
    for row in synced:
        one = holders.deployments.get((row["chain_id"], row["deployment"]), OfDeployment(row["protocol"]))
        of: dict[str, list[Group]] = defaultdict(list)
        for (status, _), group in one.groups.items():
            of[status].append(group)
        every = [group for groups in of.values() for group in groups]
        indebted = [group for status, groups in of.items() if status != Status.NO_DEBT for group in groups]
        columns = {name: row[name] for name in ("chain_id", "deployment", "protocol", "block_number", "block_time")}
        found.append(
            columns
            | {
                "positions": sum(map(len, every)),
                "with_debt": sum(map(len, indebted)),
                "collateral_usd": collateral_usd(every),
                "debt_usd": debt_usd(every),
                "debt_at_risk_usd": debt_usd([group for status in AT_RISK for group in of[status]]),
                "liquidatable": sum(map(len, of[Status.LIQUIDATABLE])),
                "liquidatable_debt_usd": debt_usd(of[Status.LIQUIDATABLE]),
                "unvalued": sum(group.unknown_debts for group in indebted),
                "unpriceable": sum(map(len, of[Status.UNPRICEABLE])),
                "unverified": sum(map(len, of[Status.UNVERIFIED])),
            }
        )
    # unknown sums last
    return sorted(found, key=lambda r: (r["debt_usd"] is None, -(r["debt_usd"] or 0.0), r["chain_id"], r["deployment"]))


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
            "debt_top10_percent": one.debts.top10_percent,
            "debt_hhi": one.debts.hhi,
            "collateral_top10_percent": one.collaterals.top10_percent,
            "unvalued": one.unvalued,
        }
        found.append(columns)
    return sorted(found, key=lambda c: (-(c["debt_usd"] or 0.0), -(c["supply_usd"] or 0.0), c["symbol"], c["asset"]))


def bucket_names() -> list[str]:
    return [*(f"{low:g} to {high:g}" for low, high in pairwise(BOUNDS)), f"{BOUNDS[-1]:g} and more"]


def column(protocol: str) -> str:
    """The column of a protocol's debt, as `simulate --sweep` calls it."""
    return f"{protocol.replace('-', '_')}_debt_usd"


def by_health(holders: Held) -> tuple[list[str], list[dict[str, Any]]]:
    """Protocols with debt, and one row per bucket of health factors: positions, debt, and the debt of each protocol."""
    parts: dict[tuple[str, int | None], list[Group]] = defaultdict(list)
    for one in holders.deployments.values():
        for (status, bucket), group in one.groups.items():
            if status != Status.NO_DEBT:
                parts[one.protocol, bucket].append(group)
    names = sorted({protocol for protocol, _ in parts})
    whole = fsum(debt_usd(groups) or 0.0 for groups in parts.values())
    found = []
    for bucket, label in [*enumerate(bucket_names()), (None, "unknown")]:
        by_protocol = {name: parts.get((name, bucket), []) for name in names}
        part = [group for groups in by_protocol.values() for group in groups]
        if bucket is None and not part:
            continue
        debt = debt_usd(part) or 0.0
        columns = {
            "health_factor_from": label,
            "positions": sum(map(len, part)),
            "collateral_usd": collateral_usd(part),
            "debt_usd": debt,
            "debt_percent": percent(debt, whole),
        }
        found.append(columns | {column(name): debt_usd(groups) or 0.0 for name, groups in by_protocol.items()})
    return names, found


LARGEST_COLUMNS = "wallet positions debt_usd debt_percent collateral_usd debt_at_risk_usd health_factor".split()


def largest(
    conn: sqlite3.Connection, chosen: Chosen, whole: float, debts: Spread, holders: Held
) -> list[dict[str, Any]]:
    """The wallets that owe most of the `whole` debt in USD, with the worst health factor among their positions."""
    found = []
    likely = {wallet for debt, wallet in holders.largest if debt}
    for row in owing_most(conn, chosen, LARGEST, debts.largest, [*likely]):
        digits = worst_health(conn, chosen, row["wallet"])
        factor = None if digits is None else Decimal(digits).scaleb(-18)
        found.append({**row, "debt_percent": percent(row["debt_usd"], whole), "health_factor": factor})
    return found


CONCENTRATION_COLUMNS = (
    "deployment wallets_with_debt debt_top10_percent debt_hhi collateral_top10_percent collateral_hhi".split()
)


def concentration(spreads: Mapping[str, Sequence[Spread]]) -> list[dict[str, Any]]:
    """How much of the whole book and of each deployment the largest wallets hold."""
    return [
        {
            "deployment": name,
            "wallets_with_debt": debts.wallets,
            "debt_top10_percent": debts.top10_percent,
            "debt_hhi": debts.hhi,
            "collateral_top10_percent": collaterals.top10_percent,
            "collateral_hhi": collaterals.hhi,
        }
        for name, (debts, collaterals) in sorted(spreads.items(), key=lambda item: (item[0] != "all", item[0]))
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
    progress.start("adding up", len(synced), "deployments")
    holders = held(conn, chosen.sql, chosen.values, lambda: progress.advance("adding up", 1))
    progress.done("adding up")
    sums, spreads = by_deployment(synced, holders), holders.spreads()
    whole = fsum(row["debt_usd"] or 0.0 for row in sums)
    part = ", ".join([*protocols, *deployments])
    return Report(
        f"Lending book: {part}" if part else "Lending book",
        as_of(conn, synced),
        [
            deployment_section(synced, sums),
            health_section(*by_health(holders)),
            *extra,
            asset_section(by_asset(conn, holders)),
            section(
                "Largest wallets by debt",
                LARGEST_COLUMNS,
                largest(conn, chosen, whole, spreads["all"][0], holders),
            ),
            section("Concentration", CONCENTRATION_COLUMNS, concentration(spreads)),
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
