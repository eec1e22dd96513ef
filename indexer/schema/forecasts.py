"""The steps of the tables of forecasts: what was said of each position when, and how often such a saying came true."""

from typing import TYPE_CHECKING

from indexer.schema.steps import execute, migrations

if TYPE_CHECKING:
    from sqlite_utils import Database

FORECASTS = """
create table forecasts (                -- the newest of each position and horizon; of some, one a UTC day as well
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    horizon_seconds integer not null,
    hits integer,                       -- paths on which the position, left alone, fails the health test; null: no forecast
    p_unsafe real,                      -- hits / paths; null where that is 0 or 1
    p_unsafe_bound real,                -- then: below it (hits 0) or above it (hits = paths)
    p_liquidated real,                  -- null until enough liquidations have been seen
    pending_price_raw text,             -- of the price that waits, in its feed's own integer; null for interest
    pending_at integer,                 -- unix seconds
    pending_kind text,                  -- osm | svr | interest
    exposures text,                     -- JSON: what each price adds to the limit and to the debt
    model text not null,
    seed integer not null,
    paths integer not null,
    prices_until integer not null,      -- unix seconds: no later price was looked at
    block_number integer not null,
    block_timestamp integer not null,   -- unix seconds
    note text,                          -- why there is no forecast, or what to know about it
    kept integer not null,              -- the day's last is kept for 400 days
    block_time text generated always as (strftime('%Y-%m-%dT%H:%M:%SZ', block_timestamp, 'unixepoch')) virtual,
    primary key (chain_id, deployment, account, position_group, horizon_seconds, block_number)
) strict, without rowid;
"""

CALIBRATIONS = """
create table calibrations (             -- how often positions with a p_unsafe were liquidated, by protocol and horizon
    protocol text not null,
    horizon_seconds integer not null,
    fitted_at integer not null,         -- unix seconds
    knots text not null,                -- JSON: [[p_unsafe, p_liquidated], ...], ascending, linear in between
    n integer not null,                 -- forecasts that it was fitted on
    events integer not null,            -- those of them whose position was liquidated within the horizon
    from_timestamp integer not null,    -- unix seconds: the first and the last of these forecasts
    until_timestamp integer not null,
    primary key (protocol, horizon_seconds, fitted_at)
) strict, without rowid;
"""


@migrations(name="0038_forecasts")
def forecasts(db: "Database") -> None:
    execute(db, FORECASTS)


@migrations(name="0039_calibrations")
def calibrations(db: "Database") -> None:
    execute(db, CALIBRATIONS)
