"""What is settled once rounds are there: which count, from when on they were in force, and what they tell of their feed."""

import sqlite3
from collections.abc import Collection, Iterable, Mapping

from indexer.prices import tables
from indexer.prices.learn import DAYS, learn
from indexer.prices.rounds import Answered, Phase, flaws, of_phases, revealed
from indexer.prices.tables import PhaseRow

Place = tuple[str, int]
DAY = 86_400
#: rounds before the newest that are looked at again: more than a proxy looks back (DualAggregator, maxSyncIterations)
BEFORE = 50


def settle(
    conn: sqlite3.Connection,
    chain_id: int,
    changed: Collection[Place],
    phases: Mapping[Place, PhaseRow],
    hiding: Collection[Place],
    now: int,
) -> None:
    """Flags the rounds of the changed phases, and puts their feeds' rounds in force; `now` is the newest block's time."""
    for place in sorted(changed):
        rows = tables.rounds_of(conn, chain_id, *place)
        found = flaws([Answered(number, at, answer) for number, at, _, answer, _ in rows], now)
        new = [(row[0], why) for row, why in zip(rows, found, strict=True) if why != row[4]]
        tables.flag(conn, chain_id, *place, new)
    for feed in sorted({feed for feed, _ in changed}):
        mine = [row for place, row in sorted(phases.items()) if row.feed == feed and place[1]]
        if len(mine) > 1 or any((row.feed, row.phase) in hiding for row in mine):
            in_force(conn, chain_id, mine, hiding, now)


def settle_newest(
    conn: sqlite3.Connection, chain_id: int, new: Mapping[Place, int], hiding: Mapping[Place, PhaseRow], now: int
) -> None:
    """Like `settle` for the newest rounds alone, while a chain is followed: `new` has the first new one of each phase.

    What a proxy reads at once was put in force as it was written; of hidden rounds none of the last ones is older than `BEFORE`.
    """
    for place, first in new.items():
        rows = tables.rounds_of(conn, chain_id, *place, first - BEFORE)
        found = flaws([Answered(number, at, answer) for number, at, _, answer, _ in rows], now)
        flags = [(row[0], why) for row, why in zip(rows, found, strict=True) if row[0] >= first and why != row[4]]
        tables.flag(conn, chain_id, *place, flags)
    last = tables.newest_rounds(conn, chain_id, hiding)
    for place, phase in hiding.items():
        rows = tables.rounds_of(conn, chain_id, *place, last.get(place, 0) - BEFORE)
        rows = [row for row in rows if row[4] is None and row[1] >= (phase.since_timestamp or 0)]
        known = {row[0]: row[2] for row in rows if row[2] is not None}
        shown = revealed([Answered(row[0], row[1], row[3]) for row in rows], known, phase.cutoff_seconds, now)
        differ = [(row[0], at) for row, at in zip(rows, shown, strict=True) if at != row[2]]
        tables.put_in_force(conn, chain_id, *place, differ)


def in_force(
    conn: sqlite3.Connection, chain_id: int, mine: Iterable[PhaseRow], hiding: Collection[Place], now: int
) -> None:
    """Puts the rounds of a proxy with several aggregators, or with one that hides some, in force."""
    rows, kept = [], []
    for phase in mine:
        found = [row for row in tables.rounds_of(conn, chain_id, phase.feed, phase.phase) if row[4] is None]
        if found:
            rows.append(found)
            kept.append(phase)
    times = of_phases(
        [
            Phase(phase.since_timestamp, [Answered(number, at, answer) for number, at, _, answer, _ in found])
            for phase, found in zip(kept, rows, strict=True)
        ]
    )
    for phase, found, since in zip(kept, rows, times, strict=True):
        new = since
        if (phase.feed, phase.phase) in hiding:
            known = {number: shown for number, _, shown, _, _ in found if shown is not None}
            shown = revealed([Answered(row[0], row[1], row[3]) for row in found], known, phase.cutoff_seconds, now)
            new = [
                None if at is None or begin is None else max(at, begin) for at, begin in zip(shown, since, strict=True)
            ]
        differ = [(row[0], at) for row, at in zip(found, new, strict=True) if at != row[2]]
        tables.put_in_force(conn, chain_id, phase.feed, phase.phase, differ)


def learn_all(conn: sqlite3.Connection, chain_id: int, feeds: Iterable[str], now: int) -> None:
    """Learns the rules of Chainlink's feeds from the rounds of their newest phase of the last months."""
    found = {}
    for feed in sorted(feeds):
        newest = tables.newest_chainlink_phase(conn, chain_id, feed)
        if newest is not None:
            rows = [
                (at, float(answer))
                for _, at, _, answer, flaw in tables.rounds_of(conn, chain_id, feed, newest)
                if flaw is None and at >= now - DAYS * DAY
            ]
            found[feed] = learn([at for at, _ in rows], [answer for _, answer in rows])
    tables.save_learnt(conn, chain_id, found)
