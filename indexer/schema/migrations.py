"""The schema, as an ordered list of migrations; a released migration is never edited.

A migration adds tables and columns, and replaces views; none deletes a row. All migrations due run in one transaction, so a
file is never left between two versions. There is no way back, and none is needed: an older version refuses the file.

sqlite-utils applies them and records which were applied, so its own tools can read that too. It is slow to import (with
pandas, where that is installed), so it is imported only when there is something to apply.
"""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from indexer.schema.tables import DISPUTES, DOUBTED, EACH_WALLET, INITIAL, LIQUIDATIONS

if TYPE_CHECKING:
    from sqlite_utils import Database

    Step = Callable[[Database], None]

NAME = "lending-indexer"
#: the table in which sqlite-utils records the applied migrations
TABLE = "_sqlite_migrations"
STEPS: "dict[str, Step]" = {}


def migrations(*, name: str) -> "Callable[[Step], Step]":
    """Registers the next migration."""

    def register(step: "Step") -> "Step":
        STEPS[name] = step
        return step

    return register


def applied(conn: sqlite3.Connection) -> list[str]:
    """The names of the migrations applied to a database, in order; some may be of a newer version."""
    if conn.execute("select 1 from sqlite_master where type = 'table' and name = ?", (TABLE,)).fetchone() is None:
        return []
    rows = conn.execute(f"select name from {TABLE} where migration_set = ? order by rowid", (NAME,))
    return [row[0] for row in rows]


def pending(conn: sqlite3.Connection) -> list[str]:
    """The names of the migrations that a database still needs."""
    done = applied(conn)
    return [name for name in STEPS if name not in done]


def apply(conn: sqlite3.Connection) -> None:
    """Brings a database to the current schema, inside the caller's transaction."""
    from sqlite_utils import Database, Migrations  # noqa: PLC0415 - see above

    steps = Migrations(NAME)
    for name, step in STEPS.items():
        steps(name=name)(step)
    steps.apply(Database(conn, execute_plugins=False))


CONTRACTS = """
create table contracts (                -- contracts that may be the protocol's and that only logs name (Maker's joins)
    chain_id integer not null,
    deployment text not null,
    contract text not null collate nocase,
    first_block integer not null,       -- that of the first log which names it
    primary key (chain_id, deployment, contract)
) strict, without rowid
"""


@migrations(name="0001_initial")
def initial(db: "Database") -> None:
    for statement in INITIAL.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)


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
    for statement in WATCHING.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)


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


@migrations(name="0005_contracts")
def contracts(db: "Database") -> None:
    db.conn.execute(CONTRACTS)


#: All of a wallet's supply counts, also what backs no debt (not flagged, or flagged with a threshold of 0).
WALLETS = (
    """
create view wallets as
with supplied as (
    select chain_id, deployment, account, position_group,
        case when count(value_usd) = count(*) then sum(value_usd) end as usd
    from balances where side = 'supply'
    group by chain_id, deployment, account, position_group
), lines as (
    select p.*, case when s.account is null then p.collateral_usd else s.usd end as supply_usd,
        row_number() over (
            partition by p.wallet order by p.health_factor is null, p.health_factor, p.chain_id, p.deployment
        ) as badness
    from positions p left join supplied s using (chain_id, deployment, account, position_group)
)
"""
    + EACH_WALLET
)


@migrations(name="0006_wallets")
def wallets(db: "Database") -> None:
    db.conn.execute("drop view wallets")
    db.conn.execute(WALLETS)


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
    for statement in ORPHANED_HISTORY.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)


#: `deliveries.failures` counts failures that may be the message's fault; with `short` 1 the alert has stepped aside, and
#: only a short plain message is tried
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
    for statement in ALERTS.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)


@migrations(name="0010_partial_snapshots")
def partial_snapshots(db: "Database") -> None:
    """Rows get the time of their own block, deployments the health factor below which all rows are of their block."""
    db.conn.execute("alter table positions add column block_timestamp integer")
    db.conn.execute(
        "update positions set block_timestamp = (select d.block_timestamp from deployments d where "
        "(d.chain_id, d.deployment, d.block_number) = (positions.chain_id, positions.deployment, positions.block_number))"
    )
    db.conn.execute("alter table deployments add column exact_below real")
    db.conn.execute("create index states_by_block on states (chain_id, deployment, block_number)")


#: The index finds one wallet; reading all of them sorts and keeps nothing. DISTINCT changes nothing (the key of
#: `positions` is among the columns), but keeps SQLite from computing each sum once more for the net value.
WALLETS_BY_INDEX = """
create view wallets as
select each.wallet, each.positions, each.collateral_usd, each.debt_usd,
    each.collateral_usd - each.debt_usd as net_usd,
    each.health_factor_raw, each.health_factor,
    each.worst_chain_id, each.worst_deployment, each.worst_account, each.worst_position_group,
    each.oldest_block_number
from (
    select distinct worst.wallet,
        (select count(*) from positions p where p.wallet = worst.wallet) as positions,
        (select case when count(held.usd) = count(*) then sum(held.usd) end from (
            select case when b.account is null then p.collateral_usd else b.value_usd end as usd
            from positions p left join balances b on b.chain_id = p.chain_id and b.deployment = p.deployment
                and b.account = p.account and b.position_group = p.position_group and b.side = 'supply'
            where p.wallet = worst.wallet
        ) held) as collateral_usd,
        (select case when count(debt_usd) = count(*) then sum(debt_usd) end
            from positions p where p.wallet = worst.wallet) as debt_usd,
        worst.health_factor_raw, worst.health_factor,
        worst.chain_id as worst_chain_id, worst.deployment as worst_deployment,
        worst.account as worst_account, worst.position_group as worst_position_group,
        (select min(block_number) from positions p where p.wallet = worst.wallet) as oldest_block_number
    from positions worst
    where not exists (
        select 1 from positions p where p.wallet = worst.wallet
        and (p.health_factor is null, ifnull(p.health_factor, 0), p.chain_id, p.deployment, p.account, p.position_group)
        < (worst.health_factor is null, ifnull(worst.health_factor, 0), worst.chain_id, worst.deployment,
            worst.account, worst.position_group)
    )
) each
"""

#: No index has a column that each block changes in many rows: the index would have to be rewritten with them.
READING = """
create index positions_by_wallet on positions (wallet);
create index positions_by_owner on positions (owner) where owner_via <> 'self';
create index positions_at_risk on positions (status) where status in ('at-risk', 'liquidatable');
create index positions_unknown on positions (status) where status in ('unpriceable', 'unverified');
"""


@migrations(name="0011_reading")
def reading(db: "Database") -> None:
    for statement in READING.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)
    db.conn.execute("drop view wallets")
    db.conn.execute(WALLETS_BY_INDEX)


@migrations(name="0012_described_deployments")
def described_deployments(db: "Database") -> None:
    """What an adapter needs to read the rows; NULL until the next sync of a deployment that an older version wrote."""
    for column in ("chain text", "start_block integer", "addresses text", "options text"):  # the last two are JSON
        db.conn.execute(f"alter table deployments add column {column}")


@migrations(name="0013_notes")
def notes(db: "Database") -> None:
    """What is unpriceable or unverified about a position, and why; NULL where nothing is."""
    db.conn.execute("alter table positions add column note text")


#: what a wallet supplies is unknown while any of its positions has supplies that are not read yet
SUPPLY = "(select case when count(held.usd) = count(*) then sum(held.usd) end from ("
COMPLETE_SUPPLY = SUPPLY.replace("count(*)", "count(*) and min(held.supplies_complete) = 1")
HELD = "b.value_usd end as usd\n"
COMPLETE_HELD = "b.value_usd end as usd, p.supplies_complete\n"
WALLETS_COMPLETE = WALLETS_BY_INDEX.replace(SUPPLY, COMPLETE_SUPPLY).replace(HELD, COMPLETE_HELD)


@migrations(name="0014_supplies_complete")
def supplies_complete(db: "Database") -> None:
    """Whether a position's supplies that back nothing are read; rows of older versions have them all."""
    db.conn.execute("alter table positions add column supplies_complete integer not null default 1")
    # empty once everything is read
    db.conn.execute(
        "create index positions_incomplete on positions (chain_id, deployment, account, position_group) "
        "where supplies_complete = 0"
    )
    db.conn.execute("drop view wallets")
    db.conn.execute(WALLETS_COMPLETE)


COVERAGE = """
alter table deployments add column coverage text;
update deployments set coverage = case
        when accounts = 'watched' or complete_from is not null or state = 'incomplete' then 'partial' else 'history' end
    where block_number is not null and state <> 'failed';

create table imported (                 -- accounts that a file named and nobody has asked the contracts about yet
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    primary key (chain_id, deployment, account, position_group)
) strict, without rowid;
"""


@migrations(name="0016_coverage")
def coverage(db: "Database") -> None:
    """How it is known that nobody with debt is missing: history | sums | partial; NULL until a snapshot tells."""
    for statement in COVERAGE.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)


@migrations(name="0017_progress")
def progress(db: "Database") -> None:
    """How far a run is while it works: blocks of logs fetched and wanted, positions read and wanted, and since when."""
    for column in ("blocks", "blocks_wanted", "positions_wanted", "stage_began_at", "told_at"):
        db.conn.execute(f"alter table runs add column {column} integer")


@migrations(name="0018_liquidations")
def liquidations(db: "Database") -> None:
    for statement in LIQUIDATIONS.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)
    # the first block from which on every liquidation is in the table; null where none is complete up to the snapshot
    db.conn.execute("alter table deployments add column liquidations_from_block integer")


CHANGES = """
create table changes (                  -- how the list of who is at risk changed, in order; kept 24 hours
    id integer primary key,
    chain_id integer not null,
    block_number integer not null,
    block_hash text not null,
    kind text not null,                 -- entered | changed | left | reorged; block: the list is now that of this block
    body text not null                  -- JSON: the rest of the line that readers get
) strict;
create index changes_by_chain on changes (chain_id);
create index changes_blocks on changes (chain_id) where kind = 'block';
"""


@migrations(name="0019_changes")
def changes(db: "Database") -> None:
    for statement in CHANGES.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)


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
    for statement in PRICE_RULES.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)


#: all supply under its own name; `collateral_usd`, which means what backs debt everywhere else, is its old one until 1.1
WALLETS_SUPPLY = (
    WALLETS_COMPLETE.replace(
        "each.collateral_usd - each.debt_usd as net_usd", "each.supply_usd - each.debt_usd as net_usd"
    )
    .replace("each.collateral_usd, each.debt_usd", "each.supply_usd as collateral_usd, each.debt_usd")
    .replace("held) as collateral_usd", "held) as supply_usd")
    .replace("    each.oldest_block_number\n", "    each.oldest_block_number, each.supply_usd\n")
)

#: tables whose rows are of a block and keep its time as a number
TIMED = ("deployments", "positions", "health_history", "orphaned_history", "liquidations", "alerts", "blocks")
BLOCK_TIME = (
    "alter table {table} add column block_time text generated always as "
    "(strftime('%Y-%m-%dT%H:%M:%SZ', block_timestamp, 'unixepoch')) virtual"
)


@migrations(name="0022_names")
def names(db: "Database") -> None:
    """One name for one thing: `supply_usd`, `block_timestamp` and `block_time`; the old names stay beside them until 1.1."""
    db.conn.execute("drop view wallets")
    db.conn.execute(WALLETS_SUPPLY)
    db.conn.execute("alter table blocks rename column timestamp to block_timestamp")
    db.conn.execute("alter table blocks add column timestamp integer generated always as (block_timestamp) virtual")
    for table in TIMED:
        db.conn.execute(BLOCK_TIME.format(table=table))


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


@migrations(name="0027_disputes")
def disputes(db: "Database") -> None:
    """A dispute outlives the row that a later snapshot writes. Those of before are known by what their rows say."""
    db.conn.execute(DISPUTES)
    db.conn.execute(
        "insert into disputes select chain_id, deployment, account, position_group, block_number from positions "
        "where status = 'unverified' and note like 'two endpoints contradict each other about it%'"
    )


@migrations(name="0028_doubted")
def doubted(db: "Database") -> None:
    """Marks, and drops nothing: a Borrow or Transfer of nothing once named an account. The logs tell, `sync` asks them."""
    db.conn.execute(DOUBTED)
    db.conn.execute(
        "insert into doubted select chain_id, deployment, account, position_group from positions p "
        "where protocol = 'compound-v2' and status = 'no-debt' "
        "and not exists (select 1 from balances b where (b.chain_id, b.deployment, b.account, b.position_group) "
        "= (p.chain_id, p.deployment, p.account, p.position_group)) "
        "and not exists (select 1 from health_history h where (h.chain_id, h.deployment, h.account, h.position_group) "
        "= (p.chain_id, p.deployment, p.account, p.position_group) and h.status <> 'no-debt')"
    )
