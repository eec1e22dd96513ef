"""The steps of the tables of alerts: who is watched, by which rules, what was told, and where it was delivered."""

from typing import TYPE_CHECKING

from indexer.schema.steps import execute, migrations

if TYPE_CHECKING:
    from sqlite_utils import Database


WATCHING = """
create table watches (                  -- a wallet is watched on every chain
    wallet text not null primary key collate nocase,
    label text,
    ens text,                           -- the name it was given by
    added_at integer not null           -- unix seconds
) strict;

create table watch_rules (              -- none: the default of the configuration
    wallet text not null collate nocase,
    rule text not null,                 -- below 1.1 | drop 10%
    primary key (wallet, rule)
) strict, without rowid;

create table watch_states (             -- what each rule remembers of each position
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    wallet text not null collate nocase,
    rule text not null,                 -- below 1.1 | drop 10% | unknown
    armed integer not null,
    open integer not null,              -- a crossing was told and its end was not
    crossing integer not null,          -- the number of the last crossing
    reference_raw text,
    crossed_raw text,
    health_factor_raw text,             -- of the last snapshot that was judged
    block_number integer not null,
    primary key (chain_id, deployment, account, position_group, wallet, rule)
) strict, without rowid;

create table alerts (                   -- the outbox: what was decided, in order
    number integer primary key,
    id text not null unique,
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    wallet text not null collate nocase,
    rule text not null,
    crossing integer not null,
    event text not null,                -- crossed | recovered
    health_factor_before_raw text,
    health_factor_before real,
    health_factor_raw text,
    health_factor real,
    block_number integer not null,
    block_hash text not null,
    block_timestamp integer not null,   -- unix seconds
    body text not null,                 -- JSON, as it is delivered
    created_at integer not null         -- unix seconds
) strict;
create index alerts_by_wallet on alerts (wallet);

create table deliveries (               -- one line for each alert and channel
    number integer not null references alerts,
    channel text not null,              -- names the channel without its secrets
    place text not null,                -- the same for people
    state text not null,                -- pending | trying | sending | late | delivered | expired
    attempts integer not null default 0,
    next_attempt_at real not null default 0,    -- unix seconds
    delivered_at integer,               -- unix seconds
    error text,
    primary key (channel, number)
) strict, without rowid;
create index deliveries_by_state on deliveries (state);
"""


@migrations(name="0002_watching")
def watching(db: "Database") -> None:
    execute(db, WATCHING)


#: `deliveries.failures` counts failures that may be the message's fault; with `short` 1 the alert has stepped aside, and
#: only a short plain message is tried. Evidence for dropping the old table: all its rows are in the new one, by the same
#: transaction.
ALERTS = """
create table alerts_of_kinds (          -- the outbox: what was decided, in order
    number integer primary key,
    id text not null unique,
    kind text not null,                 -- position | blind: deployments of a chain could not be watched
    chain_id integer not null,
    deployment text,                    -- this and the next three: null unless kind is position
    account text collate nocase,
    position_group text,
    wallet text collate nocase,
    rule text not null,
    crossing integer not null,
    event text not null,                -- crossed | recovered
    health_factor_before_raw text,
    health_factor_before real,
    health_factor_raw text,
    health_factor real,
    block_number integer,               -- of kind blind: the newest snapshot; null before the first
    block_hash text,
    block_timestamp integer,            -- unix seconds
    body text not null,                 -- JSON, as it is delivered
    created_at integer not null,        -- unix seconds
    check (kind <> 'position' or (deployment is not null and account is not null and position_group is not null
        and wallet is not null and block_number is not null and block_hash is not null and block_timestamp is not null))
) strict;
insert into alerts_of_kinds select number, id, 'position', chain_id, deployment, account, position_group, wallet, rule, crossing,
    event, health_factor_before_raw, health_factor_before, health_factor_raw, health_factor, block_number, block_hash,
    block_timestamp, body, created_at from alerts;
drop table alerts;
alter table alerts_of_kinds rename to alerts;
create index alerts_by_wallet on alerts (wallet);

alter table deliveries add column failures integer not null default 0;
alter table deliveries add column short integer not null default 0;
create index deliveries_pending on deliveries (channel, number) where state = 'pending';

create table blind_deployments (        -- those of which an alert said that they cannot be watched, and none that they can again
    chain_id integer not null,
    deployment text not null,
    crossing integer not null,          -- the number of that alert on its chain
    since_timestamp integer not null,   -- unix seconds: the time of the newest rows, or when watching began without any
    primary key (chain_id, deployment)
) strict, without rowid;
"""


@migrations(name="0008_alert_kinds")
def alert_kinds(db: "Database") -> None:
    """The table is made anew with every row of the old one in it, in the same transaction."""
    execute(db, ALERTS)


@migrations(name="0020_watch_groups")
def watch_groups(db: "Database") -> None:
    """Watched wallets that belong together, such as those of one person; @name means all of a group."""
    db.conn.execute(
        "create table watch_groups (name text not null collate nocase, wallet text not null collate nocase, "
        "primary key (name, wallet)) strict, without rowid"
    )


PRICE_RULES = """
create table price_rules (
    rule text not null primary key,     -- ETH<2000
    asset text not null collate nocase, -- symbol in capitals, or address
    threshold_usd_raw text not null,    -- USD scaled by 1e18
    threshold_usd real not null,
    added_at integer not null           -- unix seconds
) strict;

create table price_states (             -- what each price rule remembers of a chain
    chain_id integer not null,
    rule text not null,
    armed integer not null,
    open integer not null,              -- crossed, and not told as recovered
    crossing integer not null,          -- the number of the last one
    price_usd real,                     -- that decided last: the lowest or highest of the deployments
    block_number integer not null,
    primary key (chain_id, rule)
) strict, without rowid;
"""


@migrations(name="0021_price_rules")
def price_rules(db: "Database") -> None:
    execute(db, PRICE_RULES)
