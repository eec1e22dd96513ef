"""The tables `forecasts` and `calibrations`, written and read."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from indexer.store.rows import OF_ADDRESSES

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


def newest(
    conn: sqlite3.Connection, where: tuple[int, str], horizons: Sequence[int], wallets: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The newest forecast of each position of a deployment, or of those that these wallets hold, for each horizon."""
    source = f"({OF_ADDRESSES.replace('?1', ':wallets')})" if wallets else "positions"
    columns = ", ".join(
        f"{'p' if name in {'protocol', 'owner', 'wallet', 'health_factor', 'debt_usd'} else 'f'}.{name}"
        for name in LISTED
    )
    rows = conn.execute(
        f"select {columns} from {source} p join forecasts f using (chain_id, deployment, account, position_group) "  # noqa: S608 - our own names
        "where f.chain_id = :chain_id and f.deployment = :deployment "
        "and f.horizon_seconds in (select value from json_each(:horizons)) and not exists (select 1 from forecasts n "
        "where (n.chain_id, n.deployment, n.account, n.position_group, n.horizon_seconds) = (f.chain_id, f.deployment, "
        "f.account, f.position_group, f.horizon_seconds) and n.block_number > f.block_number)",
        {
            "chain_id": where[0],
            "deployment": where[1],
            "wallets": json.dumps([*wallets]),
            "horizons": json.dumps([*horizons]),
        },
    )
    return [dict(zip(LISTED, row, strict=True)) for row in rows]


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
