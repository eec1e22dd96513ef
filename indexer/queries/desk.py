"""What the pages show beside lists of rows: counts by status, alerts, audits, stored forecasts."""

import sqlite3
from itertools import product
from typing import Any

from indexer.queries.exports import IS_AT_RISK
from indexer.store.shards import each

#: rows of a table of what happened last
LAST = 50
#: of whom it is known that they are near liquidation, and of whom it is not known whether
AT_RISK_STATUSES, UNKNOWN_STATUSES = ("liquidatable", "at-risk"), ("unpriceable", "unverified")


def dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


SUMS = (
    "select status, count(*) as positions, count(distinct wallet) as wallets, total(debt_usd) as debt_usd,"
    " count(*) - count(debt_usd) as unvalued from positions where "
)
UNKNOWN = "status in ('unpriceable', 'unverified')"


def endangered(conn: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """By status, positions, wallets and known debt of those at risk and of those whose status is unknown, by their indexes."""
    nobody = {"positions": 0, "wallets": 0, "debt_usd": 0.0, "unvalued": 0}
    found: dict[str, dict[str, Any]] = {
        status: {"status": status, **nobody} for status in (*AT_RISK_STATUSES, *UNKNOWN_STATUSES)
    }
    parts = each(conn)
    for part, where in product(parts, (IS_AT_RISK, UNKNOWN)):
        for row in dicts(part.execute(f"{SUMS}{where} group by status")):
            for name in nobody:
                found[row["status"]][name] += row[name]
    if len(parts) > 1:  # a wallet of several files is one
        for status, row in found.items():
            wallets = "select distinct lower(wallet) from positions where status = ?"
            row["wallets"] = len({wallet for part in parts for (wallet,) in part.execute(wallets, (status,))})
    for row in found.values():
        if row["positions"] and row["unvalued"] == row["positions"]:
            row["debt_usd"] = None
    return found


def whole(conn: sqlite3.Connection) -> dict[str, Any]:
    """All positions: how many, how many with debt, and the sums of what is known in USD; it reads every row."""
    sql = (
        "select count(*) as positions, count(*) filter (where status <> 'no-debt') as with_debt,"
        " total(debt_usd) as debt_usd, total(collateral_usd) as collateral_usd from positions"
    )
    (block,) = conn.execute("select max(block_number) from deployments").fetchone()
    found = {"positions": 0, "with_debt": 0, "debt_usd": 0.0, "collateral_usd": 0.0}
    for part in each(conn):
        (row,) = dicts(part.execute(sql))
        found = {name: found[name] + row[name] for name in found}
    return {**found, "block_number": block}


def rules(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    """Each watched wallet with its rules (none: those of the configuration) and groups."""
    return dicts(
        conn.execute(
            "select w.wallet, w.label, w.ens,"
            " (select group_concat(rule, ', ') from watch_rules r where r.wallet = w.wallet) as rules,"
            " (select group_concat('@' || name, ' ') from watch_groups g where g.wallet = w.wallet) as groups,"
            " (select count(*) from watch_states s where s.wallet = w.wallet and s.open) as open_crossings,"
            " w.added_at from watches w order by w.label is null, w.label, w.wallet"
        )
    )


def price_rules(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    """Each rule about a price, and what it remembers of each chain."""
    return dicts(
        conn.execute(
            "select r.rule, r.asset, r.threshold_usd, s.chain_id, s.price_usd, s.open, s.block_number"
            " from price_rules r left join price_states s using (rule) order by r.rule, s.chain_id"
        )
    )


def states(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    """What each rule remembers of each position, crossed ones first."""
    return dicts(
        conn.execute(
            "select w.label, s.wallet, s.deployment, s.position_group, s.rule, s.open, s.armed, s.health_factor_raw,"
            " cast(s.health_factor_raw as real) / 1e18 as health_factor, s.block_number"
            " from watch_states s left join watches w using (wallet)"
            " order by s.open desc, s.health_factor_raw is null, length(s.health_factor_raw), s.health_factor_raw"
        )
    )


def alerts(conn: sqlite3.Connection, limit: int = LAST) -> list[dict[str, Any]]:
    """The newest alerts, each with how many channels have it, wait for it or gave it up, and what went wrong last."""
    return dicts(
        conn.execute(
            "select a.number, a.created_at, a.kind, a.rule, a.event, a.wallet, w.label, a.deployment, a.position_group,"
            " a.health_factor_raw, a.health_factor, a.block_number,"
            " (select count(*) from deliveries d where d.number = a.number and d.state = 'delivered') as delivered,"
            " (select count(*) from deliveries d where d.number = a.number and d.state not in ('delivered', 'expired'))"
            " as waiting,"
            " (select count(*) from deliveries d where d.number = a.number and d.state = 'expired') as expired,"
            " (select max(d.error) from deliveries d where d.number = a.number and d.state <> 'delivered') as error"
            " from alerts a left join watches w on w.wallet = a.wallet order by a.number desc limit ?",
            (limit,),
        )
    )


def audits(conn: sqlite3.Connection, limit: int = LAST) -> list[dict[str, Any]]:
    """The newest comparisons of rows with the contracts' own answers."""
    sql = "select at, deployment, kind, checked, mismatches, block_number, detail from audits order by id desc limit ?"
    return newest(conn, sql, "at", limit)


def runs(conn: sqlite3.Connection, limit: int = 10) -> list[dict[str, Any]]:
    """The newest runs of a sync: what each of them asked and read."""
    sql = (
        "select started_at, finished_at, chain_id, block_number, requests, retries, logs, positions_read"
        " from runs order by id desc limit ?"
    )
    return newest(conn, sql, "started_at", limit)


def newest(conn: sqlite3.Connection, sql: str, at: str, limit: int) -> list[dict[str, Any]]:
    """The last rows of one file, or of several by their time."""
    parts = each(conn)
    rows = [row for part in parts for row in dicts(part.execute(sql, (limit,)))]
    return rows if len(parts) == 1 else sorted(rows, key=lambda row: row[at], reverse=True)[:limit]


def forecasts(conn: sqlite3.Connection, limit: int) -> list[dict[str, Any]] | None:
    """The newest stored forecast of each position and horizon, what is pending first; None where none is stored."""
    found = [
        row
        for part in each(conn)
        if part.execute("select 1 from sqlite_master where name = 'forecasts'").fetchone() is not None
        for row in dicts(part.execute(FORECASTS, (limit,)))
    ]
    found.sort(key=soonest)
    return found[:limit] or None


FORECASTS = (
    "select f.*, p.wallet, p.status, p.health_factor_raw, p.health_factor, p.debt_usd"
    " from forecasts f left join positions p using (chain_id, deployment, account, position_group)"
    " where f.block_number = (select max(block_number) from forecasts n where (n.chain_id, n.deployment, n.account,"
    " n.position_group, n.horizon_seconds) = (f.chain_id, f.deployment, f.account, f.position_group, f.horizon_seconds))"
    " order by f.pending_at is null, f.pending_at, coalesce(f.p_unsafe, f.p_unsafe_bound) desc, p.debt_usd desc limit ?"
)


def soonest(row: dict[str, Any]) -> tuple[Any, ...]:
    """The order of FORECASTS."""
    chance = row["p_unsafe"] if row["p_unsafe"] is not None else row["p_unsafe_bound"]
    return (
        *(row["pending_at"] is None, row["pending_at"] or 0),
        *(chance is None, -(chance or 0.0), row["debt_usd"] is None, -(row["debt_usd"] or 0.0)),
    )
