"""The tables `forecasts` and `calibrations`, written and read: all SQL of this package."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from indexer.text.values import iso

DAY = 86_400
#: how long one forecast a day is kept of whoever is watched, at risk, or has a chance of LIKELY
KEPT_DAYS = 400
LIKELY = 0.001


class ForecastRow(NamedTuple):
    """One row of `forecasts`."""

    chain_id: int
    deployment: str
    account: str
    position_group: str
    horizon_seconds: int
    hits: int | None
    p_unsafe: float | None
    p_unsafe_bound: float | None
    p_liquidated: float | None
    pending_price_raw: str | None
    pending_at: int | None
    pending_kind: str | None
    exposures: str | None
    model: str
    seed: int
    paths: int
    prices_until: int
    block_number: int
    block_timestamp: int
    note: str | None
    kept: int


def write(conn: sqlite3.Connection, rows: Sequence[ForecastRow]) -> None:
    """Writes forecasts, and drops what they replace.

    Evidence for what is dropped: a newer forecast of the same position and horizon, which is in the table by then. The last
    one of each UTC day stays for 400 days where `kept` says so, as the past is measured by it.
    """
    marks = ", ".join("?" * len(ForecastRow._fields))
    columns = ", ".join(ForecastRow._fields)
    conn.executemany(f"insert or replace into forecasts ({columns}) values ({marks})", rows)  # noqa: S608 - our own names
    newest = max((row.block_timestamp for row in rows), default=0)
    conn.executemany(
        "delete from forecasts as f where chain_id = ? and deployment = ? and account = ? and position_group = ? "
        "and horizon_seconds = ? and exists (select 1 from forecasts n where (n.chain_id, n.deployment, n.account, "
        "n.position_group, n.horizon_seconds) = (f.chain_id, f.deployment, f.account, f.position_group, "
        "f.horizon_seconds) and n.block_number > f.block_number and (not f.kept or f.block_timestamp < ? "
        "or n.block_timestamp / 86400 = f.block_timestamp / 86400))",
        [(*row[:5], newest - KEPT_DAYS * DAY) for row in rows],
    )


#: the readable columns of `forecasts` and what is known of the position
LISTED = (
    "chain_id deployment protocol position_group account owner wallet horizon_seconds p_unsafe p_unsafe_bound p_liquidated "
    "pending_kind pending_price_raw pending_at health_factor debt_usd note model seed paths hits prices_until block_number "
    "block_time"
).split()


def listed(conn: sqlite3.Connection, made: Iterable[ForecastRow]) -> Iterator[dict[str, Any]]:
    """Forecasts with what is known of the positions, whether they are written already or not; those without a row are left out."""
    sql = (
        "select protocol, owner, wallet, health_factor, debt_usd from positions "
        "where chain_id = ? and deployment = ? and account = ? and position_group = ?"
    )
    names = "protocol owner wallet health_factor debt_usd".split()
    for key, horizons in groupby(made, key=itemgetter(0, 1, 2, 3)):
        known = conn.execute(sql, key).fetchone()
        for row in horizons if known is not None else ():
            told = {**row._asdict(), **dict(zip(names, known, strict=True)), "block_time": iso(row.block_timestamp)}
            yield {name: told[name] for name in LISTED}


class Standing(NamedTuple):
    """What the row of a position says of it beside its state."""

    wallet: str
    status: str


def standings(
    conn: sqlite3.Connection, where: tuple[int, str], keys: Iterable[tuple[str, str]] | None = None
) -> Mapping[tuple[str, str], Standing]:
    """Of every position of a deployment that has a row and debt, or of these."""
    columns = "select account, position_group, wallet, status from positions where chain_id = ? and deployment = ?"
    if keys is None:
        rows: Iterable[Any] = conn.execute(f"{columns} and status <> 'no-debt'", where)
    else:
        rows = [
            row
            for key in keys
            for row in conn.execute(f"{columns} and account = ? and position_group = ?", (*where, *key))
        ]
    return {(account, group): Standing(wallet, status) for account, group, wallet, status in rows}


def watched(conn: sqlite3.Connection) -> frozenset[str]:
    """The watched wallets."""
    return frozenset(wallet for (wallet,) in conn.execute("select wallet from watches"))


def probability(hits: int | None, paths: int) -> tuple[float | None, float | None]:
    """The chance and its bound: p None where no path fails or all do, as the bound then says more: 3 / paths, by the rule of three."""
    if hits is None:
        return None, None
    if hits == 0:
        return None, 3 / paths
    return (None, 1 - 3 / paths) if hits == paths else (hits / paths, None)


#: forecasts whose horizon is over, with p_unsafe or what stands for it, and whether the position was liquidated in it;
#: only of times and deployments of which every liquidation is known
OUTCOMES = """
select case when f.hits in (0, f.paths) then (f.hits + 0.0) / f.paths else f.p_unsafe end,
    exists (select 1 from liquidations l where (l.chain_id, l.deployment, l.account, l.position_group)
        = (f.chain_id, f.deployment, f.account, f.position_group)
        and l.block_number > f.block_number and l.block_timestamp <= f.block_timestamp + f.horizon_seconds),
    f.block_timestamp
from forecasts f join deployments d using (chain_id, deployment)
where d.protocol = ?1 and f.horizon_seconds = ?2 and f.hits is not null and f.kept
    and d.liquidations_from_block <= f.block_number and f.block_timestamp + f.horizon_seconds < d.block_timestamp
    and f.block_timestamp + f.horizon_seconds < ?3
order by f.block_timestamp, f.chain_id, f.deployment, f.account, f.position_group
"""


def outcomes(conn: sqlite3.Connection, protocol: str, horizon: int, now: int) -> list[tuple[float, int, int]]:
    """(p, whether it was liquidated, time) of each forecast of a protocol and horizon that is over by `now`, by time."""
    return conn.execute(OUTCOMES, (protocol, horizon, now)).fetchall()


def last_fit(conn: sqlite3.Connection, protocol: str, horizon: int) -> int | None:
    """When a protocol and horizon was last calibrated (unix seconds)."""
    found: tuple[int | None] = conn.execute(
        "select max(fitted_at) from calibrations where protocol = ? and horizon_seconds = ?", (protocol, horizon)
    ).fetchone()
    return found[0]


def save_fit(conn: sqlite3.Connection, row: Sequence[Any]) -> None:
    """Writes one row of `calibrations`."""
    conn.execute("insert or replace into calibrations values (?, ?, ?, ?, ?, ?, ?, ?)", row)


def fits(conn: sqlite3.Connection, least: int) -> list[tuple[str, int, str]]:
    """(protocol, horizon, knots as JSON) of every fit that rests on so many liquidations, by age."""
    return conn.execute(
        "select protocol, horizon_seconds, knots from calibrations where events >= ? order by fitted_at", (least,)
    ).fetchall()
