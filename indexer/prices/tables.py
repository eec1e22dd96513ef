"""Writes and reads back the tables of price history: feeds, their phases and rounds, and of what feeds prices are made.

What a reorganisation takes back is in `indexer.store.reorgs`, with everything else that it does.
"""

import sqlite3
import time
from collections.abc import Collection, Iterable
from typing import NamedTuple


class FeedRow(NamedTuple):
    """A feed as it describes itself; `heartbeat_seconds` only where the contract tells it (OSM.hop)."""

    address: str
    kind: str
    decimals: int | None
    description: str | None
    heartbeat_seconds: int | None = None


class PhaseRow(NamedTuple):
    """An aggregator of a feed, and between which blocks all of its rounds are kept (None: none are)."""

    feed: str
    phase: int
    aggregator: str
    since_timestamp: int | None = None
    from_block: int | None = None
    to_block: int | None = None
    cutoff_seconds: int | None = None


class Round(NamedTuple):
    """An answer of a feed; `in_force` (unix seconds) is None while it is unknown, or where it never was."""

    feed: str
    phase: int
    round: int
    block_number: int | None
    block_timestamp: int
    in_force: int | None
    answer: int


class PriceRow(NamedTuple):
    """A row of `market_prices`; see indexer/dictionary.toml."""

    asset: str
    group: str
    feed: str
    role: str
    exponent: int
    adapter: str | None
    ratio: int | None
    cap: int | None
    capped: bool | None
    days_to_cap: float | None


class Learnt(NamedTuple):
    """What a feed's own rounds tell of its rule; None where they do not."""

    heartbeat_seconds: int | None
    deviation_bps: float | None


#: the longest round number that SQLite can keep; an aggregator that counts further is none
LARGEST = 2**63 - 1


def save_feeds(conn: sqlite3.Connection, chain_id: int, feeds: Iterable[FeedRow]) -> None:
    """Writes feeds as they describe themselves now; what was learnt of one stays."""
    conn.executemany(
        "insert into feeds (chain_id, address, kind, decimals, description, heartbeat_seconds) values (?, ?, ?, ?, ?, ?) "
        "on conflict do update set kind = excluded.kind, decimals = excluded.decimals, description = excluded.description, "
        "heartbeat_seconds = coalesce(excluded.heartbeat_seconds, heartbeat_seconds)",
        [(chain_id, *feed) for feed in feeds],
    )


def save_market_prices(conn: sqlite3.Connection, chain_id: int, deployment: str, rows: Iterable[PriceRow]) -> None:
    """Replaces what is known of a deployment's prices.

    Evidence: the oracle's own answer at the block of the sync. Nothing is lost: the feeds and their rounds stay.
    """
    conn.execute("delete from market_prices where chain_id = ? and deployment = ?", (chain_id, deployment))
    conn.executemany(
        "insert into market_prices values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                chain_id,
                deployment,
                *row[:6],
                None if row.ratio is None else str(row.ratio),
                None if row.cap is None else str(row.cap),
                row.capped,
                row.days_to_cap,
            )
            for row in rows
        ],
    )


def phases(conn: sqlite3.Connection, chain_id: int) -> dict[tuple[str, int], PhaseRow]:
    """The known phases by feed and number."""
    rows = conn.execute(
        "select feed, phase, aggregator, since_timestamp, from_block, to_block, cutoff_seconds from feed_phases "
        "where chain_id = ? order by feed, phase",
        (chain_id,),
    )
    return {(row[0], row[1]): PhaseRow._make(row) for row in rows}


def save_phases(conn: sqlite3.Connection, chain_id: int, rows: Iterable[PhaseRow]) -> None:
    """Adds phases that are new, and brings known ones up to date: blocks that are done, and the cut-off."""
    conn.executemany(
        "insert into feed_phases (chain_id, feed, phase, aggregator, since_timestamp, from_block, to_block, cutoff_seconds) "
        "values (?, ?, ?, ?, ?, ?, ?, ?) on conflict do update set aggregator = excluded.aggregator, "
        "since_timestamp = coalesce(since_timestamp, excluded.since_timestamp), from_block = excluded.from_block, "
        "to_block = excluded.to_block, cutoff_seconds = excluded.cutoff_seconds",
        [(chain_id, *row) for row in rows],
    )


def save_rounds(
    conn: sqlite3.Connection, chain_id: int, rounds: Iterable[Round], decimals: dict[str, int | None]
) -> None:
    """Adds rounds. Of one that is there already the block is completed, and the time in force where it was unknown.

    What a log says replaces what was read from state: an OSM can be emptied while a price waits in it.
    """
    conn.executemany(
        "insert into feed_prices (chain_id, feed, phase, round, block_number, block_timestamp, in_force_timestamp, "
        "answer_raw, answer) values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do update set "
        "answer_raw = iif(block_number is null and excluded.block_number is not null, excluded.answer_raw, answer_raw), "
        "answer = iif(block_number is null and excluded.block_number is not null, excluded.answer, answer), "
        "block_number = coalesce(block_number, excluded.block_number), "
        "in_force_timestamp = coalesce(in_force_timestamp, excluded.in_force_timestamp)",
        [
            (chain_id, *one[:6], str(one.answer), one.answer / 10 ** (decimals.get(one.feed) or 0))
            for one in rounds
            if one.round <= LARGEST
        ],
    )


def count_rounds(conn: sqlite3.Connection, chain_id: int, feeds: Collection[str]) -> None:
    """Writes down the first and the last kept round of each phase of these feeds."""
    conn.executemany(
        "update feed_phases set (first_round, last_round) = (select min(round), max(round) from feed_prices p "
        "where (p.chain_id, p.feed, p.phase) = (feed_phases.chain_id, feed_phases.feed, feed_phases.phase)) "
        "where chain_id = ? and feed = ?",
        [(chain_id, feed) for feed in feeds],
    )


def last_rounds(conn: sqlite3.Connection, chain_id: int) -> dict[tuple[str, int], int]:
    """The newest kept round of each phase that has one."""
    rows = conn.execute(
        "select feed, phase, last_round from feed_phases where chain_id = ? and last_round is not null", (chain_id,)
    )
    return {(feed, phase): last for feed, phase, last in rows}


def newest_rounds(
    conn: sqlite3.Connection, chain_id: int, places: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """The newest round of each of these phases that has one, as it is in the table now."""
    sql = "select max(round) from feed_prices where chain_id = ? and feed = ? and phase = ?"
    found = {place: conn.execute(sql, (chain_id, *place)).fetchone()[0] for place in places}
    return {place: last for place, last in found.items() if last is not None}


def rounds_of(
    conn: sqlite3.Connection, chain_id: int, feed: str, phase: int, first: int = 0
) -> list[tuple[int, int, int | None, int, str | None]]:
    """Round, time, time in force, answer, flaw of a phase's rounds from `first` on, in order."""
    rows = conn.execute(
        "select round, block_timestamp, in_force_timestamp, answer_raw, invalid from feed_prices "
        "where chain_id = ? and feed = ? and phase = ? and round >= ? order by round",
        (chain_id, feed, phase, first),
    )
    return [(row[0], row[1], row[2], int(row[3]), row[4]) for row in rows]


def flag(
    conn: sqlite3.Connection, chain_id: int, feed: str, phase: int, flaws: Iterable[tuple[int, str | None]]
) -> None:
    """Writes down why rounds are not used, None where they are."""
    conn.executemany(
        "update feed_prices set invalid = ? where chain_id = ? and feed = ? and phase = ? and round = ?",
        [(why, chain_id, feed, phase, number) for number, why in flaws],
    )


def put_in_force(
    conn: sqlite3.Connection, chain_id: int, feed: str, phase: int, times: Iterable[tuple[int, int | None]]
) -> None:
    """Writes down from when on rounds were in force, None where they were not, or not yet."""
    conn.executemany(
        "update feed_prices set in_force_timestamp = ? where chain_id = ? and feed = ? and phase = ? and round = ?",
        [(moment, chain_id, feed, phase, number) for number, moment in times],
    )


def serve(conn: sqlite3.Connection, chain_id: int, served: Iterable[tuple[str, int, int]], moment: int) -> None:
    """Writes down that proxies served these rounds (feed, phase, number) at a time, where it is not known since when."""
    conn.executemany(
        "update feed_prices set in_force_timestamp = ? where chain_id = ? and feed = ? and phase = ? and round = ? "
        "and in_force_timestamp is null",
        [(moment, chain_id, *place) for place in served],
    )


def save_learnt(conn: sqlite3.Connection, chain_id: int, learnt: dict[str, Learnt]) -> None:
    now = int(time.time())
    conn.executemany(
        "update feeds set heartbeat_seconds = ?, deviation_bps = ?, learned_at = ? where chain_id = ? and address = ?",
        [(*rule, now, chain_id, feed) for feed, rule in learnt.items()],
    )


def known_until(conn: sqlite3.Connection, chain_id: int, feeds: Iterable[str] | None, moment: int) -> None:
    """Writes down the block's time up to which every answer of these feeds is known; None: of all that were followed before."""
    if feeds is None:
        conn.execute(
            "update feeds set known_until = ? where chain_id = ? and known_until is not null and kind <> 'snapshot'",
            (moment, chain_id),
        )
    else:
        conn.executemany(
            "update feeds set known_until = ? where chain_id = ? and address = ?",
            [(moment, chain_id, feed) for feed in feeds],
        )


def copy_snapshots(conn: sqlite3.Connection, chain_id: int, deployment: str, keys: dict[str, tuple[str, str]]) -> int:
    """Adds the prices that snapshots saw since, where they changed, as rounds of these feeds; how many.

    `keys`: feed -> asset and group in `market_history`.
    """
    before = conn.total_changes
    for feed, (asset, group) in keys.items():
        last = conn.execute(
            "select block_number, answer_raw from feed_prices where chain_id = ? and feed = ? order by round desc limit 1",
            (chain_id, feed),
        ).fetchone()
        conn.execute(
            "insert or ignore into feed_prices (chain_id, feed, phase, round, block_number, block_timestamp, "
            "in_force_timestamp, answer_raw, answer) "
            "select ?1, ?5, 0, block_timestamp, block_number, block_timestamp, block_timestamp, price_raw, "
            "cast(price_raw as real) from ("
            "  select block_timestamp, block_number, price_raw, "
            "  coalesce(lag(price_raw) over (order by block_number), ?7) as before from market_history "
            "  where chain_id = ?1 and deployment = ?2 and block_number > ?6 and asset = ?3 and position_group = ?4 "
            "  and price_raw is not null"
            ") where price_raw is not before",
            (chain_id, deployment, asset, group, feed, *(last or (-1, None))),
        )
    return conn.total_changes - before


def queues(conn: sqlite3.Connection, chain_id: int) -> dict[str, list[Round]]:
    """Of each OSM the prices that are not in force, and the last one that is, oldest first."""
    rows = conn.execute(
        "select p.feed, p.phase, p.round, p.block_number, p.block_timestamp, p.in_force_timestamp, p.answer_raw "
        "from feed_prices p join feeds f on (f.chain_id, f.address) = (p.chain_id, p.feed) "
        "where p.chain_id = ?1 and f.kind = 'osm' and p.round >= coalesce((select max(q.round) from feed_prices q "
        "where q.chain_id = ?1 and q.feed = p.feed and q.in_force_timestamp is not null), -1) order by p.feed, p.round",
        (chain_id,),
    )
    found: dict[str, list[Round]] = {}
    for *place, raw in rows:
        found.setdefault(place[0], []).append(Round._make((*place, int(raw))))
    return found


def count(conn: sqlite3.Connection, chain_id: int) -> int:
    """How many rounds of a chain's feeds are kept."""
    found: tuple[int] = conn.execute("select count(*) from feed_prices where chain_id = ?", (chain_id,)).fetchone()
    return found[0]


def newest_chainlink_phase(conn: sqlite3.Connection, chain_id: int, feed: str) -> int | None:
    """The newest phase with rounds of a feed of Chainlink's; None for other feeds."""
    found: tuple[int | None] = conn.execute(
        "select max(phase) from feed_phases join feeds on (feeds.chain_id, address) = (feed_phases.chain_id, feed) "
        "where feed_phases.chain_id = ? and feed = ? and kind = 'chainlink' and last_round is not null",
        (chain_id, feed),
    ).fetchone()
    return found[0]
