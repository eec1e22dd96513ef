"""The rows of one person: positions with what they supply, balances, and what is kept of each from earlier."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from indexer.store.rows import OF_ADDRESSES
from indexer.store.shards import lay_positions_of

KEY = ("chain_id", "deployment", "account", "position_group")
IS_OF = "(chain_id, deployment, account, position_group) = (?, ?, ?, ?)"

POSITIONS = f"""
with mine as (
    {OF_ADDRESSES}
), supplied as (                            -- also what backs no debt, as in the view `wallets`
    select chain_id, deployment, account, position_group,
        case when count(value_usd) = count(*) then sum(value_usd) end as usd
    from balances join mine using (chain_id, deployment, account, position_group)
    where side = 'supply'
    group by chain_id, deployment, account, position_group
)
select p.*, case when p.supplies_complete then case when b.account is null then p.collateral_usd else b.usd end end
        as supply_usd,
    json_extract(s.market, '$.usd[0]') as numerator, json_extract(s.market, '$.usd[1]') as denominator,
    d.block_timestamp, strftime('%Y-%m-%dT%H:%M:%SZ', d.block_timestamp, 'unixepoch') as block_time
from mine p left join supplied b using (chain_id, deployment, account, position_group)
left join deployments d using (chain_id, deployment) left join snapshots s using (chain_id, deployment)
order by p.health_factor is null, p.health_factor, p.debt_usd desc, p.chain_id, p.deployment, p.account, p.position_group
"""  # noqa: S608 - our own SQL


def positions_of(conn: sqlite3.Connection, wallets: Sequence[str]) -> list[dict[str, Any]]:
    """Every position that is one of these wallets', the nearest to liquidation first.

    `numerator` and `denominator`: what turns its values into USD, NULL if unknown.
    """
    lay_positions_of(conn, wallets)
    return [dict(row) for row in conn.execute(POSITIONS, (json.dumps([*wallets]),))]


def accounts_of(conn: sqlite3.Connection, wallets: Sequence[str]) -> list[str]:
    """The accounts of the positions that are one of these wallets', in one file."""
    sql = f"select distinct account from ({OF_ADDRESSES})"  # noqa: S608 - our own SQL
    return [account for (account,) in conn.execute(sql, (json.dumps([*wallets]),))]


def places_of(conn: sqlite3.Connection, wallets: Sequence[str]) -> set[tuple[int, str]]:
    """(chain, deployment) of each position that is one of these wallets'."""
    lay_positions_of(conn, wallets)
    sql = f"select distinct chain_id, deployment from ({OF_ADDRESSES})"  # noqa: S608 - our own SQL
    return {(chain_id, name) for chain_id, name in conn.execute(sql, (json.dumps([*wallets]),))}


def balances(conn: sqlite3.Connection, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The balances of these positions, with their asset's decimals."""
    sql = (
        "select b.*, a.decimals from balances b left join assets a using (chain_id, asset)"
        " where (b.chain_id, b.deployment, b.account, b.position_group) = (?, ?, ?, ?)"
        " order by b.side desc, b.market, b.asset"
    )
    return [dict(balance) for row in rows for balance in conn.execute(sql, key(row))]


def key(row: Mapping[str, Any]) -> list[Any]:
    return [row[name] for name in KEY]


def health_points(conn: sqlite3.Connection, row: Mapping[str, Any]) -> list[tuple[int, str | None]]:
    """(time, health factor scaled by 1e18) of every kept snapshot of a position, by time."""
    sql = f"select block_timestamp, health_factor_raw from health_history where {IS_OF} order by block_timestamp"  # noqa: S608
    return conn.execute(sql, key(row)).fetchall()


def point_before(conn: sqlite3.Connection, row: Mapping[str, Any], time: int) -> dict[str, Any] | None:
    """The newest kept row of a position at or before a time (unix seconds)."""
    sql = f"select * from health_history where {IS_OF} and block_timestamp <= ? order by block_timestamp desc limit 1"  # noqa: S608
    found = conn.execute(sql, [*key(row), time]).fetchone()
    return None if found is None else dict(found)


def first_point(conn: sqlite3.Connection, row: Mapping[str, Any]) -> int | None:
    """The time of the first kept row of a position, unix seconds."""
    found: tuple[int | None] = conn.execute(
        f"select min(block_timestamp) from health_history where {IS_OF}",  # noqa: S608 - our own names
        key(row),
    ).fetchone()
    return found[0]
