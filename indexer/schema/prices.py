"""The steps of the tables of price history: feeds, their phases and answers, and which prices are made of them."""

from typing import TYPE_CHECKING

from indexer.schema.steps import execute, migrations

if TYPE_CHECKING:
    from sqlite_utils import Database

PRICES = """
create table feeds (
    chain_id integer not null,
    address text not null collate nocase, -- the proxy's; of snapshots DEPLOYMENT:ASSET
    kind text not null,                 -- chainlink | osm | median | comet | uav | snapshot
    decimals integer,
    description text,
    heartbeat_seconds integer,          -- learnt from its rounds, null while they do not tell
    deviation_bps real,                 -- learnt from its rounds, null while they do not tell
    learned_at integer,                 -- unix seconds
    primary key (chain_id, address)
) strict, without rowid;

create table feed_phases (              -- the aggregators that a proxy had, one after the other
    chain_id integer not null,
    feed text not null collate nocase,
    phase integer not null,
    aggregator text not null collate nocase,
    first_round integer,                -- the first and the last of its rounds that are kept
    last_round integer,
    since_timestamp integer,            -- from when on the proxy surely reads it; null where nobody saw the change
    from_block integer,                 -- all its rounds between these two blocks are kept
    to_block integer,
    cutoff_seconds integer,             -- how long a round may stay hidden; null where none does, or unknown
    primary key (chain_id, feed, phase)
) strict, without rowid;

create table feed_prices (              -- the answers of feeds, one row a round
    chain_id integer not null,
    feed text not null collate nocase,
    phase integer not null,
    round integer not null,
    block_number integer,               -- null where the round was read from state
    block_timestamp integer not null,   -- unix seconds
    in_force_timestamp integer,         -- null while unknown: queued, hidden, or never in force
    answer_raw text not null,
    answer real not null,
    invalid text,                       -- why it is not used
    block_time text generated always as (strftime('%Y-%m-%dT%H:%M:%SZ', block_timestamp, 'unixepoch')) virtual,
    primary key (chain_id, feed, phase, round)
) strict, without rowid;

create table market_prices (            -- price = product(feed ^ exponent) * ratio, cut at the cap
    chain_id integer not null,
    deployment text not null,
    asset text not null collate nocase,
    position_group text not null,
    feed text not null collate nocase,
    role text not null,                 -- price | peg | source
    exponent integer not null,
    adapter text collate nocase,        -- the contract between the oracle and the feed; null where there is none
    ratio_raw text,
    cap_raw text,
    capped integer,
    days_to_cap real,                   -- null where the ratio grows no faster than its cap
    primary key (chain_id, deployment, asset, position_group, feed, role)
) strict, without rowid;
"""


@migrations(name="0036_price_history")
def price_history(db: "Database") -> None:
    execute(db, PRICES)


@migrations(name="0037_known_until")
def known_until(db: "Database") -> None:
    """The time of the block up to which every answer of a feed is known; NULL until the next sync of prices."""
    db.conn.execute("alter table feeds add column known_until integer")


@migrations(name="0040_waiting_prices")
def waiting_prices(db: "Database") -> None:
    """The few answers that are not in force are found without reading all the others."""
    db.conn.execute(
        "create index feed_prices_waiting on feed_prices (chain_id, feed, block_timestamp) where in_force_timestamp is null"
    )
