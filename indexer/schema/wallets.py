"""The steps of the view `wallets`, and of the columns and indexes that it reads by.

Evidence for dropping a view: none is needed, it holds no rows.
"""

from typing import TYPE_CHECKING

from indexer.schema.steps import execute, migrations
from indexer.schema.tables import EACH_WALLET

if TYPE_CHECKING:
    from sqlite_utils import Database


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
    execute(db, READING)
    db.conn.execute("drop view wallets")
    db.conn.execute(WALLETS_BY_INDEX)


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
