"""What the pages show beside lists of rows: counts by status, alerts, audits, stored forecasts."""

import sqlite3
from typing import Any

from indexer.queries.exports import IS_AT_RISK

#: rows of a table of what happened last
LAST = 50
#: of whom it is known that they are near liquidation, and of whom it is not known whether
AT_RISK_STATUSES, UNKNOWN_STATUSES = ("liquidatable", "at-risk"), ("unpriceable", "unverified")


def dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


SUMS = (
    "select status, count(*) as positions, count(distinct wallet) as wallets,"
    " case when count(debt_usd) > 0 or count(*) = 0 then total(debt_usd) end as debt_usd,"
    " count(*) - count(debt_usd) as unvalued from positions where "
)


def endangered(conn: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """By status, positions, wallets and known debt of those at risk and of those whose status is unknown, by their indexes."""
    rows = dicts(conn.execute(f"{SUMS}{IS_AT_RISK} group by status"))
    rows += dicts(conn.execute(f"{SUMS}status in ('unpriceable', 'unverified') group by status"))
    nobody = {"positions": 0, "wallets": 0, "debt_usd": 0.0, "unvalued": 0}
    found = {status: {"status": status, **nobody} for status in (*AT_RISK_STATUSES, *UNKNOWN_STATUSES)}
    return found | {row["status"]: row for row in rows}


def whole(conn: sqlite3.Connection) -> dict[str, Any]:
    """All positions: how many, how many with debt, and the sums of what is known in USD; it reads every row."""
    (found,) = dicts(
        conn.execute(
            "select count(*) as positions, count(*) filter (where status <> 'no-debt') as with_debt,"
            " total(debt_usd) as debt_usd, total(collateral_usd) as collateral_usd,"
            " (select max(block_number) from deployments) as block_number from positions"
        )
    )
    return found


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
    return dicts(
        conn.execute(
            "select at, deployment, kind, checked, mismatches, block_number, detail from audits order by id desc limit ?",
            (limit,),
        )
    )


def runs(conn: sqlite3.Connection, limit: int = 10) -> list[dict[str, Any]]:
    """The newest runs of a sync: what each of them asked and read."""
    return dicts(
        conn.execute(
            "select started_at, finished_at, chain_id, block_number, requests, retries, logs, positions_read"
            " from runs order by id desc limit ?",
            (limit,),
        )
    )


def forecasts(conn: sqlite3.Connection, limit: int) -> list[dict[str, Any]] | None:
    """The newest stored forecast of each position and horizon, what is pending first; None where none is stored."""
    if conn.execute("select 1 from sqlite_master where name = 'forecasts'").fetchone() is None:
        return None
    found = dicts(
        conn.execute(
            "select f.*, p.wallet, p.status, p.health_factor_raw, p.health_factor, p.debt_usd"
            " from forecasts f left join positions p using (chain_id, deployment, account, position_group)"
            " where f.block_number = (select max(block_number) from forecasts n where (n.chain_id, n.deployment, n.account,"
            " n.position_group, n.horizon_seconds) = (f.chain_id, f.deployment, f.account, f.position_group, f.horizon_seconds))"
            " order by f.pending_at is null, f.pending_at, coalesce(f.p_unsafe, f.p_unsafe_bound) desc, p.debt_usd desc limit ?",
            (limit,),
        )
    )
    return found or None
