"""Rows of `indexer volatility`: how much each feed's price moved, by named estimators."""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from indexer.prices.estimators import (
    DAY,
    HOUR,
    Floats,
    Times,
    annual,
    bipower,
    ewma,
    hayashi_yoshida,
    realised,
    truncated,
    worst,
)
from indexer.queries import prices
from indexer.queries.prices import Series

WINDOWS = (1, 7, 30, 365)
#: days that correlation and the variance without jumps look at
RECENT_DAYS = 30
#: a window of which less is known than this part has no volatility
KNOWN = 0.9
#: symbols of what correlations are told with
ETHER = ("WETH", "ETH")

COLUMNS = (
    "chain_id chain feed description kind assets volatility_1d volatility_7d volatility_30d volatility_365d volatility_now "
    "volatility_30d_without_jumps worst_hour_percent worst_day_percent correlation_eth samples known_days age_seconds "
    "heartbeat_seconds deviation_bps estimator estimator_without_jumps estimator_now estimator_correlation note"
).split()


def assets_of(conn: sqlite3.Connection, chain_id: int) -> dict[str, list[str]]:
    """The symbols of the prices that each feed is multiplied into."""
    told = prices.priced(conn, chain_id)
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for one in prices.components(conn, chain_id):
        known = told.get((one.deployment, one.asset, one.group))
        found[one.feed][known.symbol if known else one.group or one.asset] = None
    return {feed: [*symbols] for feed, symbols in found.items()}


def rows(conn: sqlite3.Connection, chain_id: int, chain: str | None) -> list[dict[str, Any]]:
    """One row a feed of a chain, by description."""
    until = prices.known_until(conn, chain_id)
    assets = assets_of(conn, chain_id)
    now = max(until.values(), default=0)
    every = prices.in_force(conn, chain_id, now, since=now - max(WINDOWS) * DAY, feeds=until.keys())
    ether = ether_of(every, assets)
    found = [
        {
            "chain_id": chain_id,
            "chain": chain,
            "feed": series.feed,
            "description": series.description,
            "kind": series.kind,
            "assets": ", ".join(assets.get(series.feed, [])),
            **of(series, ether, until[series.feed]),
        }
        for series in every.values()
    ]
    return sorted(found, key=lambda row: (row["description"] or row["assets"] or row["feed"], row["feed"]))


def ether_of(every: Mapping[str, Series], assets: Mapping[str, Sequence[str]]) -> Series | None:
    """The longest series of ether's price in dollars; of any feed of ether's where none says that."""
    mine = [
        series
        for series in every.values()
        if series.description == "ETH / USD" or not {*ETHER}.isdisjoint(assets.get(series.feed, []))
    ]
    return max(mine, key=lambda series: (series.description == "ETH / USD", len(series)), default=None)


def arrays(series: Series, since: int) -> tuple[Times, Floats]:
    """The answers from the one that was in force at `since` on."""
    times = np.frombuffer(series.times, np.int64) if len(series) else np.zeros(0, np.int64)
    answers = np.frombuffer(series.answers, np.float64) if len(series) else np.zeros(0)
    first = max(int(np.searchsorted(times, since, side="right")) - 1, 0)
    return times[first:], answers[first:]


def of(series: Series, ether: Series | None, now: int) -> dict[str, Any]:
    """The numbers of one feed, of the time up to `now`; None for what its history is too short to tell."""
    times, answers = arrays(series, now - max(WINDOWS) * DAY)
    known = now - int(times[0]) if len(times) else 0
    found: dict[str, Any] = {}
    for days in WINDOWS:
        found[f"volatility_{days}d"] = None
        if known >= days * DAY * KNOWN:
            _, part = arrays(series, now - days * DAY)
            found[f"volatility_{days}d"] = annual(realised(part), min(known, days * DAY))
    hour = ewma(times, answers, now)
    found["volatility_now"] = None if hour is None else annual(hour, HOUR)
    recent = arrays(series, now - RECENT_DAYS * DAY)
    often = series.heartbeat_seconds is not None and series.heartbeat_seconds <= HOUR
    enough = known >= RECENT_DAYS * DAY * KNOWN and len(recent[0]) > 1
    calm = (bipower if often else truncated)(*recent) if enough else None
    found["volatility_30d_without_jumps"] = None if calm is None else annual(calm, min(known, RECENT_DAYS * DAY))
    deep = {name: worst(series.times, series.answers, span) for name, span in (("hour", HOUR), ("day", DAY))}
    found |= {f"worst_{name}_percent": 100 * fall if len(series) > 1 else None for name, fall in deep.items()}
    found["correlation_eth"] = correlation(recent, ether, now) if enough else None
    return found | {
        "samples": len(times),
        "known_days": known / DAY if len(times) else None,
        "age_seconds": now - int(times[-1]) if len(times) else None,
        "heartbeat_seconds": series.heartbeat_seconds,
        "deviation_bps": series.deviation_bps,
        "estimator": "realised variance of raw updates",
        "estimator_without_jumps": "bipower of hours" if often else "truncated realised variance",
        "estimator_now": "EWMA in time, 0.94 an hour, to the level of months",
        "estimator_correlation": "Hayashi-Yoshida on raw updates, 30 days",
        "note": note(series, known),
    }


def correlation(recent: tuple[Times, Floats], ether: Series | None, now: int) -> float | None:
    """With ether over the last 30 days; None where ether's price is not followed."""
    if ether is None:
        return None
    other = arrays(ether, now - RECENT_DAYS * DAY)
    return hayashi_yoshida((recent[0], other[0]), (recent[1], other[1]))


def note(series: Series, known: int) -> str | None:
    """What limits the numbers of a feed."""
    if not len(series):
        return "no answer is known"
    if known < RECENT_DAYS * DAY:
        return "short history"
    return "prices as snapshots saw them, in the oracle's own unit" if series.kind == "snapshot" else None
