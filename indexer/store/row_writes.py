"""Writes rows of positions and their balances over those of an earlier block, touching as few pages as can be."""

import sqlite3
from collections.abc import Collection, Sequence

from indexer.store.book_sums import COUNTED, Counted
from indexer.store.chosen import rows_of
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS, BalanceRow, PositionRow

PEOPLE_BEFORE = "t.account, t.position_group, t.status, t.owner, t.owner_via, t.wallet"
BALANCES_BEFORE = ", ".join(f"t.{name}" for name in ("market", "side", *COUNTED))
PEOPLE = ("owner", "owner_via", "wallet")
KEY = ("chain_id", "deployment", "account", "position_group")


def insert(table: str, columns: int, verb: str = "insert") -> str:
    return f"{verb} into {table} values ({', '.join('?' * columns)})"


def _upsert(table: str, columns: Sequence[str], kept: Collection[str]) -> str:
    """Inserts a row, or sets all but the `kept` columns of the one that is there."""
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in kept)
    return f"{insert(table, len(columns))} on conflict do update set {changed}"


UPSERT_POSITION = _upsert("positions", POSITION_COLUMNS, (*KEY, *PEOPLE))
UPSERT_BALANCE = _upsert("balances", BALANCE_COLUMNS, (*KEY, "market", "asset", "side"))


def overwritten(
    conn: sqlite3.Connection,
    where: tuple[int, str],
    rows: Sequence[PositionRow],
    balances: Sequence[BalanceRow],
) -> tuple[dict[tuple[str, str], str], list[Counted]]:
    """Writes rows of positions, each with all of its balances, over those that are there.

    They are changed in place, and whose they are only where that differs: what is in an index costs a page each. Returns
    the statuses that were there by account and group, and the balances.

    Evidence for the balances that are deleted: the contracts' answers that `rows` were made of do not have them any more.
    Undone by the next snapshot that does.
    """
    keys = [row.key for row in rows]
    before = {
        (account, group): (status, people)
        for account, group, status, *people in rows_of(conn, PEOPLE_BEFORE, "positions", where, keys)
    }
    held = rows_of(conn, BALANCES_BEFORE, "balances", where, keys).fetchall()
    conn.executemany(UPSERT_POSITION, rows)
    moved = [row for row in rows if row.key in before and before[row.key][1] != [row.owner, row.owner_via, row.wallet]]
    conn.executemany(
        "update positions set owner = ?, owner_via = ?, wallet = ? where chain_id = ? and deployment = ? "
        "and account = ? and position_group = ?",
        [(row.owner, row.owner_via, row.wallet, *where, *row.key) for row in moved],
    )
    conn.executemany(UPSERT_BALANCE, balances)
    places = {(b.account, b.position_group, b.market, b.asset, b.side) for b in balances}
    gone = {(account, group, market, asset, side) for market, _, account, group, asset, _, side, *_ in held} - places
    conn.executemany(
        "delete from balances where chain_id = ? and deployment = ? and account = ? and position_group = ? "
        "and market = ? and asset = ? and side = ?",
        [(*where, *place) for place in gone],
    )
    return {key: status for key, (status, _) in before.items()}, [row[2:] for row in held]
