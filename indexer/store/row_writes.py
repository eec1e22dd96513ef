"""Writes rows of positions and their balances over those of an earlier block, touching as few pages as can be."""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter

from indexer.store.book_sums import COUNTED, Counted
from indexer.store.chosen import rows_of
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS, BalanceValues, PositionRow, pair_of

PEOPLE_BEFORE = "t.account, t.position_group, t.status, t.owner, t.owner_via, t.wallet"
BALANCES_BEFORE = ", ".join(f"t.{name}" for name in ("market", "side", *COUNTED))
PEOPLE = ("owner", "owner_via", "wallet")
KEY = ("chain_id", "deployment", "account", "position_group")
people_of: Callable[[PositionRow], tuple[str, str, str]] = itemgetter(*map(POSITION_COLUMNS.index, PEOPLE))
#: where a balance stands among those of a deployment, of a row of `balances` and of one of BALANCES_BEFORE
PLACE = ("account", "position_group", "market", "asset", "side")
place_of: Callable[[BalanceValues], tuple[str, ...]] = itemgetter(*map(BALANCE_COLUMNS.index, PLACE))
place_before = itemgetter(*map(("market", "side", *COUNTED).index, PLACE))


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
    balances: Sequence[BalanceValues],
) -> tuple[dict[tuple[str, str], str], list[Counted]]:
    """Writes rows of positions, each with all of its balances, over those that are there.

    They are changed in place, and whose they are only where that differs: what is in an index costs a page each. Returns
    the statuses that were there by account and group, and the balances.

    Evidence for the balances that are deleted: the contracts' answers that `rows` were made of do not have them any more.
    Undone by the next snapshot that does.
    """
    keys = [*map(pair_of, rows)]
    before = {row[:2]: row for row in rows_of(conn, PEOPLE_BEFORE, "positions", where, keys)}
    held = rows_of(conn, BALANCES_BEFORE, "balances", where, keys).fetchall()
    conn.executemany(UPSERT_POSITION, map(tuple, rows))  # SQLite takes plain ones faster
    moved = [row for key, row in zip(keys, rows, strict=True) if key in before and before[key][3:] != people_of(row)]
    conn.executemany(
        "update positions set owner = ?, owner_via = ?, wallet = ? where chain_id = ? and deployment = ? "
        "and account = ? and position_group = ?",
        [(row.owner, row.owner_via, row.wallet, *where, *row.key) for row in moved],
    )
    conn.executemany(UPSERT_BALANCE, balances)
    gone = set(map(place_before, held)).difference(map(place_of, balances))
    conn.executemany(
        "delete from balances where chain_id = ? and deployment = ? and account = ? and position_group = ? "
        "and market = ? and asset = ? and side = ?",
        [(*where, *place) for place in gone],
    )
    return {key: row[2] for key, row in before.items()}, [row[2:] for row in held]
