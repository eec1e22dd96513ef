"""`report WALLET`: what one wallet holds and owes over all protocols, how near liquidation it is, and how that changed."""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from indexer.history import accrual, pruned
from indexer.model import WAD
from indexer.queries.freshness import waits
from indexer.queries.wallet import KEY, accounts_of, balances, first_point, health_points, point_before, positions_of
from indexer.report.charts import CEILING, Bars, Lines
from indexer.report.document import Report, Section
from indexer.report.outlook import TITLES, Key, tables
from indexer.report.parts import as_of, labelled, percent, section
from indexer.store.shards import each
from indexer.text.values import iso, shown

#: how many series, those nearest to liquidation, a chart shows and stays readable
LINES = 6


def positions(conn: sqlite3.Connection, wallets: Sequence[str]) -> list[dict[str, Any]]:
    """Every position that is one of these wallets', the nearest to liquidation first.

    `limit_usd`: the debt at which it becomes liquidatable. `margin_use_percent`: debt in per cent of that limit, 100 at
    liquidation. `fall_percent`: how much all of its collateral can lose against its debt until then. None if unknown.
    """
    for part in each(conn):
        pruned.lay(part, accounts=accounts_of(part, wallets))
    found = []
    for columns in positions_of(conn, wallets):
        limit = integer(columns["liquidation_limit_raw"])
        debt = integer(columns["debt_value_raw"])
        use = None if limit is None or debt is None or not limit or not debt else 100 * debt / limit
        usd = None if limit is None or columns["denominator"] is None else limit * columns["numerator"]
        columns |= {
            "health_factor": exact(columns["health_factor_raw"]),
            "limit_usd": None if usd is None else usd / columns["denominator"],
            "margin_use_percent": use,
            "fall_percent": None if use is None else max(100 - use, 0.0),
        }
        found.append(columns)
    return found


def integer(text: str | None) -> int | None:
    return None if text is None else int(text)


def exact(raw: str | None) -> Decimal | None:
    """A health factor computed from its exact digits."""
    return None if raw is None else Decimal(raw).scaleb(-18)


def added(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The sum of a column, None if one of its values is unknown."""
    values = [row[name] for row in rows]
    return None if None in values else sum(values, 0.0)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All of a person's positions as a whole; margin is not shared between positions, so the most used one counts."""
    supply, debt = added(rows, "supply_usd"), added(rows, "debt_usd")
    equity = None if supply is None or debt is None else supply - debt
    uses = [row["margin_use_percent"] for row in rows if row["margin_use_percent"] is not None]
    return {
        "equity_usd": equity,
        "supply_usd": supply,
        "debt_usd": debt,
        "leverage": supply / equity if supply is not None and equity is not None and equity > 0 else None,
        "highest_margin_use_percent": max(uses, default=None),
        "health_factor": min((row["health_factor"] for row in rows if row["health_factor"] is not None), default=None),
        "positions": len(rows),
    }


# net exposure ------------------------------------------------------------------------------------------------------


EXPOSURE_COLUMNS = "symbol asset supply debt net supply_usd debt_usd net_usd net_equity_percent".split()


def exposure(held: Sequence[Mapping[str, Any]], equity: float | None) -> list[dict[str, Any]]:
    """Supply less debt of each asset over all protocols, the largest first; `net_raw` is exact."""
    by_asset: dict[tuple[int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for balance in held:
        by_asset[balance["chain_id"], balance["asset"].lower()].append(balance)
    found = []
    for (_, asset), rows in by_asset.items():
        columns: dict[str, Any] = {"symbol": rows[0]["symbol"], "asset": asset}
        for side in ("supply", "debt"):
            part = [row for row in rows if row["side"] == side]
            columns[f"{side}_raw"] = sum(int(row["amount_raw"]) for row in part)
            columns[f"{side}_usd"] = added(part, "value_usd")
        columns["net_raw"] = columns["supply_raw"] - columns["debt_raw"]
        for name in ("supply", "debt", "net"):
            columns[name] = tokens(columns[f"{name}_raw"], rows[0]["decimals"])
        known = columns["supply_usd"] is not None and columns["debt_usd"] is not None
        columns["net_usd"] = columns["supply_usd"] - columns["debt_usd"] if known else None
        columns["net_equity_percent"] = percent(columns["net_usd"], equity) if equity and equity > 0 else None
        found.append(columns)
    return sorted(found, key=lambda c: (c["net_usd"] is None, -abs(c["net_usd"] or 0.0), c["symbol"], c["asset"]))


def tokens(raw: int | None, decimals: int | None) -> Decimal | None:
    """Whole tokens, exactly."""
    return None if raw is None or decimals is None else Decimal(raw).scaleb(-decimals)


# history -----------------------------------------------------------------------------------------------------------


def history(conn: sqlite3.Connection, rows: Sequence[Mapping[str, Any]]) -> Lines | None:
    """The health factors kept for the positions with debt, one line each; None where none are kept."""
    series: dict[str, list[tuple[int, float | None]]] = {}
    for row in rows:
        kept: list[tuple[int, float | None]] = [
            (at, None if raw is None else int(raw) / WAD) for at, raw in health_points(conn, row)
        ]
        if row["health_factor"] is not None and (not kept or kept[-1][0] < row["block_timestamp"]):
            kept.append((row["block_timestamp"], float(row["health_factor"])))
        if len(kept) > 1 and any(value is not None for _, value in kept):
            series[label(row)] = kept
    drawn = dict(list(series.items())[:LINES])
    cut = any(value is not None and value > CEILING for line in drawn.values() for _, value in line)
    title = f"Health factor, above {CEILING:g} drawn at {CEILING:g}" if cut else "Health factor"
    return Lines(title, "below 1 liquidatable", drawn, guide=1.0) if drawn else None


def label(row: Mapping[str, Any]) -> str:
    account = "" if row["account"] == row["wallet"] else row["account"]
    return " ".join(filter(None, (row["deployment"], row["position_group"], account)))


CHANGE_COLUMNS = (
    "deployment position_group then_time then_block health_factor_then health_factor then_collateral_usd collateral_usd "
    "then_debt_usd debt_usd net_change_usd"
).split()


def changes(conn: sqlite3.Connection, rows: Sequence[Mapping[str, Any]], since: int) -> list[dict[str, Any]]:
    """Each position now and as last kept at or before that time (unix seconds); None where nothing that old is kept."""
    found = []
    for row in rows:
        then = point_before(conn, row, since)
        old = then or dict.fromkeys(("collateral_usd", "debt_usd", "health_factor_raw"))
        values = [row["collateral_usd"], row["debt_usd"], old["collateral_usd"], old["debt_usd"]]
        found.append(
            {
                "deployment": row["deployment"],
                "position_group": row["position_group"],
                "then_time": iso(then["block_timestamp"]) if then else None,
                "then_block": then["block_number"] if then else None,
                "health_factor_then": exact(old["health_factor_raw"]),
                "health_factor": row["health_factor"],
                "then_collateral_usd": old["collateral_usd"],
                "collateral_usd": row["collateral_usd"],
                "then_debt_usd": old["debt_usd"],
                "debt_usd": row["debt_usd"],
                "net_change_usd": None if None in values else (values[0] - values[1]) - (values[2] - values[3]),
            }
        )
    return found


def oldest(conn: sqlite3.Connection, rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The time of the first kept row of any of these positions, unix seconds."""
    return min((at for row in rows if (at := first_point(conn, row)) is not None), default=None)


# accrued interest --------------------------------------------------------------------------------------------------

INTEREST_COLUMNS = (
    "deployment position_group symbol side interest interest_usd since_time since_block unmeasured_seconds"
).split()


def interest(conn: sqlite3.Connection, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each balance has earned (supply) or cost (debt) since the first snapshot that held it; see `accrual`."""
    found = []
    for row in rows:
        for line in accrual.measured(conn, [row[name] for name in KEY]):
            amount = tokens(line.interest, line.decimals)
            usd = None if amount is None or line.price_usd is None else float(amount) * line.price_usd
            found.append(
                {
                    "deployment": row["deployment"],
                    "position_group": row["position_group"],
                    "symbol": line.symbol,
                    "side": line.side,
                    "interest_raw": line.interest,
                    "interest": amount,
                    "interest_usd": usd,
                    "since_time": iso(line.first_timestamp),
                    "since_block": line.first_block,
                    "unmeasured_seconds": line.unmeasured_seconds,
                }
            )
    return found


# the report --------------------------------------------------------------------------------------------------------

SUMMARY_COLUMNS = "equity_usd supply_usd debt_usd leverage highest_margin_use_percent health_factor positions".split()
POSITION_TABLE = (
    "deployment position_group account status health_factor supply_usd collateral_usd debt_usd limit_usd "
    "margin_use_percent fall_percent leverage block_number block_time"
).split()


def told(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Why equity and supply are unknown, if supplies of these positions are not read yet."""
    waiting = waits(rows)
    return None if waiting is None else f"Supply and equity are unknown: {waiting}."


def wallet_report(
    conn: sqlite3.Connection,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    outlooks: Mapping[Key, Mapping[str, Any]],
    since: int | None = None,
) -> Report:
    """The report of one person's `positions`, with the change since a time (unix seconds).

    `outlooks`: as `outlook.stored` tells them.
    """
    held = balances(conn, rows)
    total = summary(rows)
    net = exposure(held, total["equity_usd"])
    line = history(conn, rows)
    sections = [
        section(
            "Summary",
            SUMMARY_COLUMNS,
            [total],
            notes=[
                *filter(None, [told(rows)]),
                "equity: all supply less all debt. leverage: supply / equity. margin use: debt in per cent of the debt at which the "
                "contract calls the position liquidatable, of the most used position, as positions share no margin.",
            ],
        ),
        section(
            "Positions",
            POSITION_TABLE,
            rows,
            notes=[
                "Limit: the debt at which it becomes liquidatable. Fall: what all its collateral can lose against its "
                "debt until then."
            ],
        ),
        *danger_sections([{**row, "outlook": outlooks.get(tuple(row[name] for name in KEY))} for row in rows]),
        section(
            "Net exposure by asset",
            EXPOSURE_COLUMNS,
            net,
            notes=["Supply less debt over all protocols, in whole tokens and USD."],
            charts=[Bars("Net exposure by asset", "USD", labelled(net, "net_usd")[:12])],
        ),
        interest_section(interest(conn, rows)),
    ]
    if since is not None:
        sections.append(change_section(conn, rows, since))
    sections.append(
        Section(
            "Health factor history",
            charts=[line] if line else [],
            notes=[] if line else ["Only the last snapshot of these positions is kept so far."],
        )
    )
    places = {(row["chain_id"], row["deployment"]): row for row in rows}
    return Report(title, as_of(conn, list(places.values())), sections)


DANGERS = {
    "prices": "The price of each asset at which the contract allows liquidation, all other prices as they are; where the distance is negative it has to fall.",
    "ways": "The smallest amount, in whole tokens, that alone leads to the target health factor.",
    "calls": "By the contract's own rules, in whole tokens, with interest stored first.",
}


def danger_sections(rows: Sequence[Mapping[str, Any]]) -> list[Section]:
    """What endangers the positions and what helps; a section without rows is left out."""
    return [Section(TITLES[name], columns, lines, notes=[DANGERS[name]]) for name, columns, lines in tables(rows)]


def change_section(conn: sqlite3.Connection, rows: Sequence[Mapping[str, Any]], since: int) -> Section:
    kept = oldest(conn, rows)
    lines = changes(conn, rows, since)
    notes = [f"Each position as last kept at or before {iso(since)}, and now. net: collateral less debt."]
    if any(line["then_time"] is None for line in lines):
        first = "nothing yet" if kept is None else f"{iso(kept)} on"
        notes.append(f"Empty where nothing that old is kept; the history of this wallet: {first}.")
    return section(f"Change since {iso(since)}", CHANGE_COLUMNS, lines, notes=notes)


def interest_section(lines: Sequence[Mapping[str, Any]]) -> Section:
    if not lines:
        return Section("Accrued interest", notes=["Not measured yet: measuring begins with the next sync."])
    sums = {
        side: added([line for line in lines if line["side"] == side], "interest_usd") for side in ("supply", "debt")
    }
    earned, cost = (shown("usd", sums[side]) for side in ("supply", "debt"))
    return section(
        "Accrued interest",
        INTEREST_COLUMNS,
        lines,
        notes=[
            f"In all {earned} USD earned and {cost} USD of interest on debt.",
            "Growth of each balance in whole tokens while the contract's own record of it stood still, from the first snapshot that "
            "held it; USD at today's price. What accrued between the two snapshots around a change is not known and not in it: "
            "those times are added up as unmeasured.",
        ],
    )
