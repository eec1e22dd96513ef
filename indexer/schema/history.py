"""The steps of the tables of the past: health and movements, interest, trends, and points of blocks that left the chain."""

from typing import TYPE_CHECKING

from indexer.schema.steps import execute, migrations

if TYPE_CHECKING:
    from sqlite_utils import Database


@migrations(name="0003_movements")
def movements(db: "Database") -> None:
    """What was added to a position since its point before, in USD without price moves; null where unknown."""
    for column in ("supply_change_usd", "debt_change_usd"):
        db.conn.execute(f"alter table health_history add column {column} real")


ACCRUALS = """
create table accruals (                 -- interest measured between snapshots, one row a balance
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    market text not null collate nocase,
    asset text not null collate nocase,
    side text not null,
    first_block integer not null,       -- the first snapshot that held it
    first_timestamp integer not null,   -- unix seconds
    start_block integer not null,       -- the snapshot since which scaled_raw is the same
    start_timestamp integer not null,   -- unix seconds
    scaled_raw text not null,
    start_amount_raw text not null,
    interest_raw text not null,         -- measured before start_block
    unmeasured_seconds integer not null, -- between the two snapshots around each change
    primary key (chain_id, deployment, account, position_group, market, asset, side)
) strict, without rowid
"""


@migrations(name="0004_accruals")
def accruals(db: "Database") -> None:
    db.conn.execute(ACCRUALS)


PRUNED_HISTORY = """
create table pruned_history (
    chain_id integer not null,
    deployment text not null,
    month text not null,                -- UTC, such as 2026-10
    file text not null,                 -- the Parquet file that holds its rows
    rows integer not null,
    last_block integer not null,        -- rows of the file beyond it are of blocks that left the chain
    primary key (chain_id, deployment, month)
) strict, without rowid;

create table unknown_movements (        -- positions with a movement that is unknown, noted before their rows left
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    primary key (chain_id, deployment, account, position_group)
) strict, without rowid;
"""


@migrations(name="0041_pruned_history")
def pruned_history(db: "Database") -> None:
    """Which months of `health_history` have left the file, and where they are."""
    execute(db, PRUNED_HISTORY)


ORPHANED_HISTORY = """
create table orphaned_history (         -- points of blocks that left the chain; kept 30 days
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    block_number integer not null,
    block_timestamp integer not null,   -- unix seconds
    health_factor_raw text,
    collateral_usd real,
    debt_usd real,
    status text not null,
    supply_change_usd real,
    debt_change_usd real,
    orphaned_at integer not null,       -- unix seconds
    orphaned_from_hash text not null    -- the newest block of the chain that was left
) strict;

create index orphaned_history_by_age on orphaned_history (orphaned_at);

create table orphaned_accruals (        -- interest measured up to blocks that left the chain; kept 30 days
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    market text not null collate nocase,
    asset text not null collate nocase,
    side text not null,
    first_block integer not null,
    first_timestamp integer not null,   -- unix seconds
    start_block integer not null,
    start_timestamp integer not null,   -- unix seconds
    scaled_raw text not null,
    start_amount_raw text not null,
    interest_raw text not null,
    unmeasured_seconds integer not null,
    orphaned_at integer not null,       -- unix seconds
    orphaned_from_hash text not null    -- the newest block of the chain that was left
) strict;

create index orphaned_accruals_by_age on orphaned_accruals (orphaned_at);

create table finality (                 -- the newest block that no single answer of a node takes back
    chain_id integer not null primary key,
    block_number integer not null,
    block_hash text not null
) strict;

create table recorded (                 -- the newest block whose history and accruals are written
    chain_id integer not null,
    deployment text not null,
    block_number integer not null,
    primary key (chain_id, deployment)
) strict, without rowid;

insert into recorded select chain_id, deployment, block_number from deployments where block_number is not null;
"""


@migrations(name="0007_orphaned_history")
def orphaned_history(db: "Database") -> None:
    execute(db, ORPHANED_HISTORY)


TRENDS = """
create table market_history (
    chain_id integer not null,
    deployment text not null,
    position_group text not null,
    asset text not null collate nocase,
    market text not null collate nocase,
    block_number integer not null,
    block_timestamp integer not null,   -- unix seconds
    symbol text not null,
    price_raw text,
    price_usd real,
    supply_index_raw text,
    debt_index_raw text,
    supply_rate real,
    borrow_rate real,
    total_supply_raw text,
    total_debt_raw text,
    decimals integer not null,
    block_time text generated always as (strftime('%Y-%m-%dT%H:%M:%SZ', block_timestamp, 'unixepoch')) virtual,
    primary key (chain_id, deployment, block_number, position_group, market, asset)
) strict, without rowid;

create table book_history (
    chain_id integer not null,
    deployment text not null,
    asset text not null collate nocase,
    status text not null,
    block_number integer not null,
    block_timestamp integer not null,   -- unix seconds
    symbol text not null,
    positions integer not null,
    supply_raw text not null,
    supply_usd real,
    collateral_raw text not null,
    collateral_usd real,
    debt_raw text not null,
    debt_usd real,
    unvalued integer not null,
    block_time text generated always as (strftime('%Y-%m-%dT%H:%M:%SZ', block_timestamp, 'unixepoch')) virtual,
    primary key (chain_id, deployment, block_number, asset, status)
) strict, without rowid;
"""


@migrations(name="0023_trends")
def trends(db: "Database") -> None:
    """Points of markets and of the book with every snapshot, and where those go whose blocks left the chain."""
    for statement in filter(str.strip, TRENDS.split(";\n")):
        db.conn.execute(statement)
        orphaned = statement.strip().replace("create table ", "create table orphaned_", 1)
        body, _ = orphaned.rsplit("    block_time text", 1)
        db.conn.execute(
            f"{body}    orphaned_at integer not null,\n    orphaned_from_hash text not null,\n"
            "    block_time text generated always as "
            "(strftime('%Y-%m-%dT%H:%M:%SZ', block_timestamp, 'unixepoch')) virtual\n) strict"
        )
    for name in ("market", "book"):
        db.conn.execute(f"create index orphaned_{name}_history_by_age on orphaned_{name}_history (orphaned_at)")
