"""The feeds behind the prices of some markets, their past, and the paths that prices take when the feeds go on like that.

What moves is the answer of a feed, not the price of an asset: prices made of one feed move as one, times a ratio that stays.
A price that is cut at a cap is cut along each path too.
"""

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from indexer.forecast import model
from indexer.forecast.screen import Paths
from indexer.queries import prices as past
from indexer.risk.bounds import Floats
from indexer.risk.scenario import canonical

#: hours of the past: a year of returns and a month before it, as `sync --prices` keeps them
HOURS = 400 * 24
#: (feed, path, step) numbers in memory at a time
NUMBERS = 30_000_000
#: a feed that is older than so many of its heartbeats is stale
STALE_HEARTBEATS = 3
#: seconds over which it is counted how often a feed moves
DAY = 86_400
SHORT = "short history"

#: chain id and address of a feed
Feed = tuple[int, str]


class Mover(NamedTuple):
    """What prices have in common that move alike: feeds with their exponents, and a cap relative to the price of now."""

    feeds: tuple[tuple[Feed, int], ...]
    cap: float | None = None


@dataclass(frozen=True, slots=True)
class Priced:
    """Of one deployment: what moves each price that comes from feeds, and why a price has no forecast.

    `pending` are the answers that wait, `answers` those in force.
    """

    movers: Mapping[str, Mover]
    reasons: Mapping[str, str]
    pending: Mapping[str, Sequence[past.Pending]]
    answers: Mapping[str, Mapping[Feed, int]]  # by price key: the feed's answer in force


@dataclass(slots=True)
class Factors:
    """The feeds of all chosen deployments, in a fixed order, and what is known of each when the forecast is made."""

    feeds: list[Feed] = field(default_factory=list)
    state: model.State | None = None
    short: frozenset[Feed] = frozenset()
    until: int = 0
    updates: Floats = field(default_factory=lambda: np.zeros(0))  # (feed,): answers an hour in the last day

    def missed(self, movers: Sequence[Mover]) -> Floats:
        """(mover, mover): the covariance of what looks by the hour miss of log prices, 0 of oracles that move by the hour."""
        if self.state is None:
            return np.zeros((len(movers), len(movers)))
        of = self.exponents(movers) * model.missed_between_hours(self.state.variance, self.updates)
        rows = self.state.rows
        second = rows.T @ rows
        scale = np.sqrt(np.diag(second))
        both = np.outer(scale, scale)
        return np.asarray(of @ np.divide(second, both, out=np.zeros_like(second), where=both > 0) @ of.T)

    def exponents(self, movers: Sequence[Mover]) -> Floats:
        """(mover, feed): the power to which each feed is in it."""
        place = {feed: row for row, feed in enumerate(self.feeds)}
        found = np.zeros((len(movers), len(self.feeds)))
        for row, mover in enumerate(movers):
            for feed, exponent in mover.feeds:
                found[row, place[feed]] += exponent
        return found

    def batches(self, paths: int, steps: int, seed: int, movers: Sequence[Mover], stream: int = 0) -> Iterator[Floats]:
        """Relative prices (mover, path, step), so many paths at a time that they fit into memory; a stream has its own."""
        rng = model.generator(seed, stream)
        size = max(min(paths, NUMBERS // (steps * max(len(self.feeds), 1))), 1)
        for begin in range(0, paths, size):
            count = min(size, paths - begin)
            logs = np.zeros((0, count, steps)) if self.state is None else model.simulate(self.state, count, steps, rng)
            moves = self._moves(logs, count, steps, movers)
            del logs  # of three such arrays only one is kept
            yield moves
            del moves

    def _moves(self, logs: Floats, count: int, steps: int, movers: Sequence[Mover]) -> Floats:
        found = np.zeros((len(movers), count, steps))
        exponents = self.exponents(movers)
        for row, mover in enumerate(movers):
            for feed in np.flatnonzero(exponents[row]).tolist():
                found[row] += logs[feed] * exponents[row, feed]
            np.exp(found[row], out=found[row])
            if mover.cap is not None:
                np.minimum(found[row], mover.cap, out=found[row])
        return found


def priced(
    conn: sqlite3.Connection,
    where: tuple[int, str],
    keys: Mapping[str, str],
    until: int,
    series: dict[Feed, past.Series],
) -> Priced:
    """How these prices of a deployment (key -> symbol) come from feeds; reads the feeds' past into `series`."""
    chain_id, deployment = where
    found: dict[str, list[past.Component]] = {}
    for one in past.components(conn, chain_id, [deployment]):
        key = one.key if one.key in keys else one.asset
        if key in keys and one.role in past.MULTIPLIED and one.exponent:
            found.setdefault(key, []).append(one)
    feeds = {one.feed for of in found.values() for one in of}
    missing = {feed for feed in feeds if (chain_id, feed) not in series}
    for feed, read in past.in_force(conn, chain_id, until, since=until - 3_600 * (HOURS + 1), feeds=missing).items():
        series[chain_id, feed] = read
    waiting: dict[str, list[past.Pending]] = {}
    for answer in past.pending(conn, chain_id, until, feeds) if feeds else ():
        waiting.setdefault(answer.feed, []).append(answer)
    movers, reasons, pending, answers = {}, {}, {}, {}
    for key, symbol in keys.items():
        parts = {(chain_id, one.feed): one for one in found.get(key, ())}
        why = next(filter(None, (doubt(series.get(feed), until) for feed in parts)), None)
        if not parts:
            reasons[key] = f"no price history of {symbol}: run `indexer sync --prices`"
        elif why is not None:
            reasons[key] = f"{why} of {symbol}"
        if parts and all(series[feed] for feed in parts if feed in series) and parts.keys() <= series.keys():
            movers[key] = Mover(
                tuple(sorted((feed, one.exponent) for feed, one in parts.items())),
                min(filter(None, (cap_of(one, series[feed]) for feed, one in parts.items())), default=None),
            )
            answers[key] = {feed: series[feed].raws[-1] for feed in parts}
            pending[key] = [answer for _, feed in parts for answer in waiting.get(feed, ())]
    return Priced(movers, reasons, pending, answers)


def doubt(series: past.Series | None, until: int) -> str | None:
    """Why a feed's past tells nothing about its future, None where it does."""
    if series is None or not len(series):
        return "no price history"
    if until - series.times[0] < 3_600 * model.LEAST:
        return SHORT
    if min(series.answers) <= 0:
        return "an answer that is no price"
    beat = series.heartbeat_seconds
    if beat is None and series.kind != "snapshot":  # where no rule was learnt its own longest silence is one
        beat = max((later - before for before, later in pairwise(series.times)), default=0)
    if beat and until - series.times[-1] > STALE_HEARTBEATS * beat:
        return "stale price"
    return None


def cap_of(one: past.Component, series: past.Series) -> float | None:
    """The highest price relative to that of now; None without a cap, or where the cap is one of the ratio."""
    if one.cap_raw is None or one.ratio_raw is not None:
        return None
    return max(one.cap_raw / min(series.raws[-1], one.cap_raw), 1.0)


def gathered(
    series: Mapping[Feed, past.Series],
    movers: Sequence[Mover],
    until: Mapping[int, int],
    waiting: Mapping[Feed, past.Pending],
    groups: Mapping[Feed, str],
) -> Factors:
    """The feeds that these movers need, as they stand at `until` (unix seconds by chain).

    `waiting` are answers that come into force with the first step (OSM); `groups` the group whose past a young feed borrows.
    """
    feeds = sorted({feed for mover in movers for feed, _ in mover.feeds})
    if not feeds:
        return Factors(until=max(until.values(), default=0))
    history = np.empty((HOURS + 1, len(feeds)))
    known, updates = np.full(len(feeds), np.nan), np.zeros(len(feeds))
    for column, feed in enumerate(feeds):
        of = series[feed]
        answers = np.frombuffer(of.answers, np.float64)
        times = np.frombuffer(of.times, np.int64)
        history[:, column] = np.log(model.hourly(times, answers, until[feed[0]], HOURS))
        # an OSM moves by the hour, whoever pokes it
        if of.kind != "osm":
            updates[column] = float((times > until[feed[0]] - DAY).sum()) * 3_600 / DAY
        if feed in waiting and waiting[feed].answer_raw > 0:
            known[column] = math.log(waiting[feed].answer_raw / of.raws[-1])
    filtered = model.filtered(history)
    own = model.state(filtered, HOURS, known=known)
    state = model.state(filtered, HOURS, donors=donors(feeds, own.age.tolist(), groups), known=known)
    short = frozenset(feed for feed, age in zip(feeds, own.age.tolist(), strict=True) if age < model.GROWN_UP)
    return Factors(feeds, state, short, max(until.values()), updates)


def donors(
    feeds: Sequence[Feed], ages: Sequence[int], groups: Mapping[Feed, str]
) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """For each feed the oldest one of its group where it is young itself, else itself."""
    found = list(range(len(feeds)))
    for row, feed in enumerate(feeds):
        same = [
            i for i, other in enumerate(feeds) if groups.get(feed) is not None and groups.get(other) == groups[feed]
        ]
        if ages[row] < model.GROWN_UP and same:
            found[row] = max(same, key=lambda i: (ages[i], -i))
    return np.array(found, np.int64)


def grouped(symbols: Mapping[Feed, set[str]], groups: Mapping[str, Sequence[str]]) -> dict[Feed, str]:
    """The first group that has one of the symbols that a feed prices."""
    found = {}
    for feed, names in symbols.items():
        for group, members in groups.items():
            if names & set(map(canonical, members)):
                found[feed] = group
                break
    return found


def paths_of(moves: Floats, missed: Floats, movers: Sequence[Mover], priced_keys: Mapping[str, Mover]) -> Paths:
    """The paths of one deployment's prices."""
    place = {mover: row for row, mover in enumerate(movers)}
    return Paths(moves, {key: place[mover] for key, mover in priced_keys.items() if mover in place}, missed)
