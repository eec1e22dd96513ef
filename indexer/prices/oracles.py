"""The state of each price's oracle as the file has it: how old its answer is, what waits, what is capped, what is off its peg."""

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from statistics import median
from typing import Any

from indexer.queries import prices
from indexer.queries.prices import Component, Pending, Priced, Series

DAY = 86_400
#: an answer this much older than the heartbeat is overdue, and after so many heartbeats stale
OVERDUE, STALE = 1.1, 3
#: so far from par, for so many answers, is a lost peg; what was as near as this in its usual state has a peg
OFF_PAR, ANSWERS = 0.005, 3
#: how far back it is looked what a price usually is
USUAL_DAYS = 400

#: what can be wrong with a price's oracle, the worst first
PROBLEMS = ("stale", "overdue", "depeg", "capped")

COLUMNS = (
    "chain_id chain deployment protocol symbol asset position_group feed description kind role state price_usd answer answer_raw "
    "updated_at updated_time age_seconds heartbeat_seconds deviation_bps overdue adapter ratio_raw cap_raw "
    "cap_distance_percent capped days_to_cap par_distance_percent pending_kind pending_price_raw pending_price pending_at "
    "pending_time known_until"
).split()


def rows(
    conn: sqlite3.Connection, chain_id: int, chain: str | None, *, deployment: str | None = None, days: int = USUAL_DAYS
) -> list[dict[str, Any]]:
    """One row for each feed of each price on a chain, or of one deployment, those with a problem first.

    `days`: how far back it is looked whether a price usually is 1.
    """
    parts = prices.components(conn, chain_id, () if deployment is None else (deployment,))
    until = prices.known_until(conn, chain_id)
    now = max(until.values(), default=0)
    mine = {one.feed for one in parts} & until.keys()
    every = prices.in_force(conn, chain_id, now, since=now - days * DAY, feeds=mine)
    waiting = {one.feed: one for one in prices.pending(conn, chain_id, now)}  # the newest of each feed
    told = prices.priced(conn, chain_id)
    pars = {feed: par_distance(series) for feed, series in every.items()}
    found = []
    for one in parts:
        series = every.get(one.feed)
        if series is None:
            continue
        known = told.get((one.deployment, one.asset, one.group))
        row = {"chain_id": chain_id, "chain": chain, **priced(one, known), **of_feed(series, until[one.feed])}
        row |= {
            "par_distance_percent": pars[one.feed],
            **of_cap(one, series),
            **of_pending(series, waiting.get(one.feed)),
        }
        row["state"] = state(row, off_par(series))
        found.append({name: row[name] for name in COLUMNS})
    order = {problem: place for place, problem in enumerate(PROBLEMS)}
    found.sort(key=lambda row: (order.get(row["state"], len(order)), row["deployment"], row["symbol"], row["role"]))
    return found


def priced(one: Component, known: Priced | None) -> dict[str, Any]:
    """Which price it is."""
    return {
        "deployment": one.deployment,
        "protocol": None if known is None else known.protocol,
        "symbol": one.key if known is None else known.symbol,
        "asset": one.asset,
        "position_group": one.group,
        "feed": one.feed,
        "role": one.role,
        "adapter": one.adapter,
        "price_usd": None if known is None else known.usd,
    }


def of_feed(series: Series, now: int) -> dict[str, Any]:
    """The present answer and its age at the last sync of prices; `overdue` None where the heartbeat is unknown."""
    updated = series.times[-1] if len(series) else None
    age = None if updated is None else now - updated
    heartbeat = series.heartbeat_seconds
    return {
        "description": series.description,
        "kind": series.kind,
        "answer": in_units(series, series.raws[-1]) if len(series) else None,
        "answer_raw": str(series.raws[-1]) if len(series) else None,
        "updated_at": updated,
        "updated_time": utc(updated),
        "age_seconds": age,
        "heartbeat_seconds": heartbeat,
        "deviation_bps": series.deviation_bps,
        "overdue": None if heartbeat is None or age is None else int(age > heartbeat * OVERDUE),
        "known_until": now,
    }


def of_cap(one: Component, series: Series) -> dict[str, Any]:
    """How far the price's cap is: of the ratio where it has one, else of the answer itself."""
    subject = one.ratio_raw
    if subject is None and one.cap_raw is not None and len(series):
        subject = series.raws[-1]
    distance = None if one.cap_raw is None or not subject or subject < 0 else 100 * (one.cap_raw / subject - 1)
    return {
        "ratio_raw": None if one.ratio_raw is None else str(one.ratio_raw),
        "cap_raw": None if one.cap_raw is None else str(one.cap_raw),
        "cap_distance_percent": distance,
        "capped": None if one.capped is None else int(one.capped),
        "days_to_cap": one.days_to_cap,
    }


def of_pending(series: Series, waiting: Pending | None) -> dict[str, Any]:
    """The answer that is on the chain and not in force, and when it will be."""
    return {
        "pending_kind": None if waiting is None else waiting.kind,
        "pending_price_raw": None if waiting is None else str(waiting.answer_raw),
        "pending_price": None if waiting is None else in_units(series, waiting.answer_raw),
        "pending_at": None if waiting is None else waiting.at,
        "pending_time": None if waiting is None else utc(waiting.at),
    }


def in_units(series: Series, raw: int) -> float | None:
    """An answer for reading; None where the feed does not say how many decimals it has."""
    return None if series.decimals is None else raw / 10**series.decimals


def par_distance(series: Series) -> float | None:
    """How far the answer is from 1, in %; None for a price that usually is not there."""
    if len(series) < ANSWERS or series.kind == "snapshot" or abs(median(series.answers) - 1) > OFF_PAR:
        return None
    return 100 * (series.answers[-1] - 1)


def off_par(series: Series) -> bool:
    """Whether a price that usually is 1 was not for three answers."""
    return par_distance(series) is not None and all(abs(answer - 1) > OFF_PAR for answer in series.answers[-ANSWERS:])


def state(row: Mapping[str, Any], lost_peg: bool) -> str:
    """The worst that is wrong, `ok`, or `unknown` where there is no answer, or no heartbeat to judge its age by."""
    age, heartbeat = row["age_seconds"], row["heartbeat_seconds"]
    holds = {
        "stale": heartbeat is not None and age is not None and age > heartbeat * STALE,
        "overdue": bool(row["overdue"]),
        "depeg": lost_peg,
        "capped": bool(row["capped"]),
    }
    problem = next((name for name in PROBLEMS if holds[name]), None)
    return problem or ("unknown" if age is None or heartbeat is None else "ok")


def utc(moment: int | None) -> str | None:
    return None if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
