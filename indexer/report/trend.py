"""How the book and its prices moved: tables and charts from `book_history` and `market_history`."""

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from indexer.queries.book import Chosen
from indexer.queries.trends import book_points, leading_assets, prices_since
from indexer.report.charts import Lines
from indexer.report.document import Section
from indexer.text.values import Row, iso

#: the assets of most debt and collateral get a line of their own
ASSETS = 6
COLUMNS = "block_time collateral_usd debt_usd debt_at_risk_usd liquidatable_debt_usd collateral_change_usd debt_change_usd".split()
PRICE_COLUMNS = "symbol asset deployment price_usd_then price_usd_now change_percent".split()


def trends(conn: sqlite3.Connection, since: int, protocols: Sequence[str], deployments: Sequence[str]) -> list[Section]:
    """The sections since a time (unix seconds), of these protocols and deployments or of all."""
    chosen = Chosen(protocols, deployments)
    return [book_trend(conn, since, chosen), price_trend(conn, since, chosen)]


def book_trend(conn: sqlite3.Connection, since: int, chosen: Chosen) -> Section:
    """The sums of all deployments at each time at which one has a point; one that has none there counts by its last one."""
    title = f"Trend since {iso(since)}"
    series = summed(book_points(conn, since, chosen))
    if not series:
        return Section(title, notes=["No snapshot since then is kept."])
    names = ("Collateral", "Debt", "Debt at risk", "Liquidatable debt")
    charts = [
        Lines(f"{names[i]} over time", "USD", {names[i]: [(at, sums[i]) for at, sums in series]})
        for i in range(len(names))
    ]
    first = series[0][1]
    picked = [series[0], *(series[-1:] if len(series) > 1 else [])]
    lines = [[iso(at), *sums, sums[0] - first[0], sums[1] - first[1]] for at, sums in picked]
    notes = [f"{len(series)} points; the first and the last of them. What has no value in USD is left out."]
    return Section(title, COLUMNS, lines, notes, charts)


def summed(rows: Sequence[Row]) -> list[tuple[int, list[float]]]:
    """(time, sums over all deployments), from the time on from which each of them has a point."""
    wanted = {(row[0], row[1]) for row in rows}
    last: dict[tuple[int, str], list[float]] = {}
    found: dict[int, list[float]] = {}
    for row in rows:
        last[row[0], row[1]] = list(row[3:])
        if last.keys() == wanted:
            found[row[2]] = [sum(column) for column in zip(*last.values(), strict=True)]
    return sorted(found.items())


def price_trend(conn: sqlite3.Connection, since: int, chosen: Chosen) -> Section:
    """Prices then and now of the assets that matter most, as the oracle of the deployment that holds most of each says."""
    lines: list[list[Any]] = []
    series: dict[str, list[tuple[int, float | None]]] = defaultdict(list)
    for chain_id, deployment, asset, symbol, _ in leading_assets(conn, chosen, ASSETS):
        points = prices_since(conn, chain_id, deployment, asset, since)
        prices = [price for _, price in points if price is not None]
        if not prices:
            continue
        lines.append([symbol, asset, deployment, prices[0], prices[-1], 100 * (prices[-1] / prices[0] - 1)])
        name = symbol if symbol not in series else f"{symbol} {asset[:10]}…"
        series[name] = [(at, None if price is None else 100 * price / prices[0]) for at, price in points]
    chart = Lines("Prices, the first point as 100", "%", dict(series))
    return Section("Prices since then", PRICE_COLUMNS, lines, charts=[chart] if series else [])
