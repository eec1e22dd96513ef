"""The rows of `indexer forecast`: of positions, of the book, and of what adds most to it. Reads the file, and writes nothing."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

from indexer.adapter import Liquidation
from indexer.errors import ConfigError
from indexer.forecast import calibration, rows
from indexer.forecast.calibration import Fit
from indexer.forecast.forecast import PATHS, REFINED, Forecast, Plan, forecast
from indexer.forecast.rows import ForecastRow
from indexer.forecast.sums import TOGETHER, book_row, contributions
from indexer.model import Deployment
from indexer.progress import Progress
from indexer.queries.scope import Scope
from indexer.risk.scenario import GROUPS
from indexer.risk.simulate import seconds_per_block
from indexer.store import books as stored
from indexer.store.books import Book
from indexer.store.shards import at

HOUR = 3_600
MOST_SECONDS = 30 * 24 * HOUR


class Told(NamedTuple):
    """Of one file, which holds this chain: the rows of the table `forecasts`, the new fits that they rest on, and the rows as
    they are listed.
    """

    chain_id: int
    made: list[ForecastRow]
    fits: list[Fit]
    listed: list[dict[str, Any]]


def planned(horizons: Sequence[int], paths: int | None, seed: int, *, exact: bool) -> Plan:
    """What is asked. Raises `ConfigError` for a horizon (seconds) that is no full hour, or longer than 30 days."""
    for seconds in horizons or (0,):
        if not 0 < seconds <= MOST_SECONDS or seconds % HOUR:
            raise ConfigError(f"{seconds} seconds are no horizon: full hours or days up to 30 days")
    return Plan(tuple(sorted(set(horizons))), paths or PATHS, seed, exact, 0 if paths else REFINED)


def chosen(
    conn: sqlite3.Connection,
    known: Mapping[str, Deployment],
    *,
    say: Callable[[str], None],
    wallets: Sequence[str] = (),
    protocols: Sequence[str] = (),
    scope: Scope | None = None,
) -> list[Book]:
    """The deployments that are asked for and whose protocol can be forecast; it will `say` which cannot."""
    scope = scope or Scope()
    synced = stored.deployments(conn, chain_id=scope.chain_id, protocols=protocols, names=scope.deployments)
    able, lacking = stored.able([row for row in synced if scope.span.holds(row)], Liquidation)
    for name in lacking:
        say(f"{name} is left out: its protocol does not say what other prices would do to it")
    return stored.load(conn, able, known, wallets=wallets)


def computed(
    conn: sqlite3.Connection,
    books: Sequence[Book],
    plan: Plan,
    groups: Mapping[str, Sequence[str]],
    progress: Progress | None = None,
) -> Forecast:
    """The forecast, from what the file says now; `groups` are those of the configuration."""
    paces = {book.chain_id: seconds_per_block(conn, book.chain_id) for book in books}
    watched = rows.watched(conn)
    return forecast(conn, books, plan, {**GROUPS, **groups}, paces, watched=watched, progress=progress)


def told(conn: sqlite3.Connection, found: Forecast, now: int) -> list[Told]:
    """The rows of a forecast that is made at a time (unix seconds), file by file where there are several.

    What chances mean is learnt anew where everyone is forecast: that goes over all that was ever said.
    """
    watched, parts = rows.watched(conn), []
    for file, desks in groupby(found.desks, lambda desk: at(conn, desk.book.chain_id)):
        part = replace(found, desks=[*desks])
        everyone = not any(desk.book.positions.wallets for desk in part.desks)
        fits = calibration.due(file, found.plan.horizons, now) if everyone else []
        made = list(part.rows(watched, calibration.knots(file, fits)))
        parts.append(Told(part.desks[0].book.chain_id, made, fits, list(rows.listed(file, made))))
    return parts


def remarks(found: Forecast, listed: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know: how many have no forecast, and why."""
    reasons: dict[str, int] = {}
    for row in listed:
        if row["hits"] is None and row["horizon_seconds"] == found.plan.horizons[0]:
            reasons[row["note"]] = reasons.get(row["note"], 0) + 1
    ordered = sorted(reasons.items(), key=lambda one: (-one[1], one[0]))
    return [f"{count:,} without a forecast: {note}" for note, count in ordered]


def ranked(listed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Everyone's rows, the likeliest positions first."""
    return sorted(listed, key=lambda row: (likeliest(row), row["account"], row["horizon_seconds"]))


def likeliest(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The order of rows: what is pending first, then the highest chance, then the largest debt."""
    p = row["p_unsafe"] if row["p_unsafe"] is not None else row["p_unsafe_bound"]
    none = row["hits"] is None and row["note"] != "liquidatable now"
    return (none, row["hits"] is not None, row["pending_kind"] is None, -(p or 0.0), -(row["debt_usd"] or 0.0))


def book_rows(found: Forecast) -> list[dict[str, Any]]:
    """One row per horizon and deployment, and one over all of them where there are several."""
    rows = []
    for number, seconds in enumerate(found.plan.horizons):
        for desk in found.desks:
            block = desk.book.market.block
            place = {"chain_id": desk.book.chain_id, "deployment": desk.book.name, "block_number": block.number}
            rows.append(
                {**place, "block_time": desk.book.time, **common(found, seconds), **book_row(number, [desk.sums])}
            )
        if len(found.desks) > 1:
            place = {"chain_id": None, "deployment": TOGETHER, "block_number": None, "block_time": None}
            every = [desk.sums for desk in found.desks]
            rows.append({**place, **common(found, seconds), **book_row(number, every)})
    return rows


def common(found: Forecast, seconds: int) -> dict[str, Any]:
    plan = found.plan
    return {"horizon_seconds": seconds, "paths": plan.paths, "seed": plan.seed, "prices_until": found.until}


def parts(found: Forecast, of: str) -> list[dict[str, Any]]:
    """What wallets, or assets as collateral, add to the expected debt; the largest first."""
    rows = []
    for number, seconds in enumerate(found.plan.horizons):
        sums: dict[str, list[float]] = {}
        for desk in found.desks:
            for name, values in getattr(desk.sums, of).items():
                kept = sums.setdefault(name, [0.0] * len(values))
                kept[number] += values[number]
        listed = contributions(sums, number, found.plan.paths)
        whole = sum(value for _, value in listed)
        rows += [
            {"horizon_seconds": seconds, "name": name, "expected_debt_usd": value, "share_percent": 100 * value / whole}
            for name, value in listed
        ]
    return rows
