"""Reads the history of prices: which answers of a feed were in force up to a time, what waits, and of what prices are made."""

import sqlite3
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

#: rows of these roles are multiplied; the others only say where a feed takes its next answers from
MULTIPLIED = ("price", "peg")
#: time between two pokes of an OSM that does not say (OSM.hop's first value)
HOP_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Series:
    """The answers of one feed in the order in which they came into force; those that were never used are not in it.

    `times` (unix seconds, ascending: when each came into force) and `answers` are as long as each other, and numpy can take
    them without a copy; `raws` are the exact answers. `decimals` None where the feed does not say: the answers are raw then.
    """

    feed: str
    kind: str
    decimals: int | None
    description: str | None
    heartbeat_seconds: int | None
    deviation_bps: float | None
    times: "array[int]" = field(default_factory=lambda: array("q"))
    answers: "array[float]" = field(default_factory=lambda: array("d"))
    raws: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.times)


class Priced(NamedTuple):
    """A price of a deployment as `markets` has it, in USD a whole token (None if unknown), and the symbol of what it prices."""

    deployment: str
    protocol: str
    asset: str
    group: str
    symbol: str
    usd: float | None


class Pending(NamedTuple):
    """An answer that is on the chain and not in force: the OSM's next price, a Chainlink round that is still hidden (SVR).

    `at` (unix seconds) is the earliest time for `osm` (somebody must poke), the latest for `svr`; None where it is unknown.
    """

    feed: str
    kind: str
    answer_raw: int
    known_at: int
    at: int | None


class Component(NamedTuple):
    """A row of `market_prices`: one feed of one price; `asset` and `group` as in `markets`."""

    deployment: str
    asset: str
    group: str
    feed: str
    role: str
    exponent: int
    adapter: str | None
    ratio_raw: int | None
    cap_raw: int | None
    capped: bool | None
    days_to_cap: float | None = None

    @property
    def key(self) -> str:
        """What `WhatIf.with_prices` takes: the asset, of Maker the ilk."""
        return self.group or self.asset


def components(conn: sqlite3.Connection, chain_id: int, deployments: Collection[str] = ()) -> list[Component]:
    """How the prices of these deployments (none named: all of the chain's) come from feeds, as the last sync saw it."""
    rows = conn.execute(
        "select deployment, asset, position_group, feed, role, exponent, adapter, ratio_raw, cap_raw, capped, days_to_cap "
        "from market_prices where chain_id = ? order by deployment, asset, position_group, role, feed",
        (chain_id,),
    )
    return [
        Component._make((*row[:7], _number(row[7]), _number(row[8]), None if row[9] is None else bool(row[9]), row[10]))
        for row in rows
        if not deployments or row[0] in deployments
    ]


def priced(conn: sqlite3.Connection, chain_id: int) -> dict[tuple[str, str, str], Priced]:
    """What `markets` says of each price, by deployment, asset and group."""
    rows = conn.execute(
        "select deployment, protocol, asset, position_group, symbol, max(price_usd) from markets where chain_id = ? "
        "group by deployment, protocol, asset, position_group, symbol",
        (chain_id,),
    )
    found = (Priced._make(row) for row in rows)
    return {(one.deployment, one.asset, one.group): one for one in found}


def chains(conn: sqlite3.Connection, chain_id: int | None = None) -> list[tuple[int, str | None]]:
    """The chains whose feeds are followed, with their names; only this one if it is given."""
    rows = conn.execute(
        "select chain_id, (select max(chain) from deployments d where d.chain_id = f.chain_id) from feeds f "
        "where known_until is not null and (?1 is null or chain_id = ?1) group by chain_id order by chain_id",
        (chain_id,),
    )
    return [(row[0], row[1]) for row in rows]


def known_until(conn: sqlite3.Connection, chain_id: int) -> dict[str, int]:
    """The time of the block (unix seconds) up to which every answer of a feed is known."""
    rows = conn.execute(
        "select address, known_until from feeds where chain_id = ? and known_until is not null", (chain_id,)
    )
    return {row[0]: row[1] for row in rows}


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def in_force(
    conn: sqlite3.Connection, chain_id: int, until: int, *, since: int = 0, feeds: Collection[str] | None = None
) -> dict[str, Series]:
    """The series of these feeds (None: all of the chain's), by address: what was in force at some time of since..until.

    Nothing in it was unknown at `until` (unix seconds): an answer counts from when it was in force. The answer that was
    in force already at `since` comes first, with its own time. A feed without an answer has an empty series.
    """
    found = {}
    for address, kind, decimals, description, heartbeat, deviation in conn.execute(
        "select address, kind, decimals, description, heartbeat_seconds, deviation_bps from feeds where chain_id = ? "
        "order by address",
        (chain_id,),
    ).fetchall():
        if feeds is None or address in feeds:
            series = Series(address, kind, decimals, description, heartbeat, deviation)
            for time, raw, answer in _answers(conn, chain_id, address, since, until):
                series.times.append(time)
                series.answers.append(answer)
                series.raws.append(int(raw))
            found[address] = series
    return found


def _answers(
    conn: sqlite3.Connection, chain_id: int, feed: str, since: int, until: int
) -> Iterator[tuple[int, str, float]]:
    """Time in force, exact answer, answer; of several that came into force at once the newest."""
    (before,) = conn.execute(
        "select max(in_force_timestamp) from feed_prices where chain_id = ? and feed = ? and in_force_timestamp <= ? "
        "and invalid is null",
        (chain_id, feed, min(since, until)),
    ).fetchone()
    last: tuple[int, str, float] | None = None
    for row in conn.execute(
        "select in_force_timestamp, answer_raw, answer from feed_prices where chain_id = ? and feed = ? "
        "and in_force_timestamp between ? and ? and invalid is null order by in_force_timestamp, phase, round",
        (chain_id, feed, -1 if before is None else before, until),
    ):
        if last is not None and row[0] > last[0]:
            yield last
        last = row
    if last is not None:
        yield last


def pending(conn: sqlite3.Connection, chain_id: int, at: int, feeds: Collection[str] | None = None) -> list[Pending]:
    """The answers that are known at `at` (unix seconds) and newer than the newest in force, oldest first in each feed."""
    rows = conn.execute(
        "select p.feed, f.kind, p.answer_raw, p.block_timestamp, f.heartbeat_seconds, h.cutoff_seconds "
        "from feeds f cross join feed_prices p on (f.chain_id, f.address) = (p.chain_id, p.feed) "
        "left join feed_phases h using (chain_id, feed, phase) "
        "where f.chain_id = ?1 and p.chain_id = ?1 and p.in_force_timestamp is null and p.invalid is null "
        "and p.block_timestamp <= ?2 "
        "and p.block_timestamp > coalesce((select max(q.block_timestamp) from feed_prices q where q.chain_id = ?1 "
        "and q.feed = p.feed and q.in_force_timestamp <= ?2 and q.invalid is null), -1) "
        "order by p.feed, p.phase, p.round",
        (chain_id, at),
    )
    found = []
    for feed, kind, raw, known_at, heartbeat, cutoff in rows:
        if feeds is not None and feed not in feeds:
            continue
        if kind == "osm":  # OSM.poke: pass() once zzz + hop, and zzz is the poke's time rounded down to whole hops
            hop = heartbeat or HOP_SECONDS
            found.append(Pending(feed, "osm", int(raw), known_at, known_at - known_at % hop + hop))
        else:
            found.append(Pending(feed, "svr", int(raw), known_at, None if cutoff is None else known_at + cutoff))
    return found
