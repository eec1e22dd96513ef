"""Writes rows of positions and their balances over those of an earlier block, touching as few pages as can be."""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from operator import itemgetter

from indexer.store.book_sums import COUNTED, Counted
from indexer.store.chosen import rows_of
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS, BalanceValues, PositionRow, pair_of

PEOPLE = ("owner", "owner_via", "wallet")
PEOPLE_BEFORE = ", ".join(f"t.{name}" for name in ("account", "position_group", "status", *PEOPLE))
BALANCES_BEFORE = ", ".join(f"t.{name}" for name in COUNTED)
KEY = ("chain_id", "deployment", "account", "position_group")
people_of: Callable[[PositionRow], tuple[str, str, str]] = itemgetter(*map(POSITION_COLUMNS.index, PEOPLE))


#: rows that one statement inserts: to begin and to end it takes as long as a few of them
TOGETHER = 64


def insert(table: str, columns: int, verb: str = "insert") -> str:
    return f"{verb} into {table} values ({', '.join('?' * columns)})"


def insert_all(conn: sqlite3.Connection, table: str, columns: int, rows: Sequence[tuple[object, ...]]) -> None:
    """Inserts rows of so many columns, many of them with each statement."""
    one, whole = insert(table, columns), len(rows) // TOGETHER * TOGETHER
    marks = one[one.index("(") :]
    values = [*chain.from_iterable(rows[:whole])]
    width = TOGETHER * columns
    conn.executemany(
        ", ".join([one, *[marks] * (TOGETHER - 1)]), [values[at : at + width] for at in range(0, len(values), width)]
    )
    conn.executemany(one, map(tuple, rows[whole:]))  # SQLite takes plain ones faster than named ones


def _update(table: str, columns: Sequence[str], kept: Collection[str]) -> str:
    """Sets all but the `kept` columns of the row with the key of a whole row of values."""
    place = {name: f"{name} = ?{number}" for number, name in enumerate(columns, 1)}
    changed = ", ".join(place[name] for name in columns if name not in kept)
    return f"update {table} set {changed} where {' and '.join(place[name] for name in KEY)}"  # noqa: S608 - our own names


UPDATE_POSITION = _update("positions", POSITION_COLUMNS, (*KEY, *PEOPLE))
OF_POSITION = " and ".join(f"{name} = ?" for name in KEY)


def overwritten(
    conn: sqlite3.Connection,
    where: tuple[int, str],
    rows: Sequence[PositionRow],
    balances: Sequence[BalanceValues],
) -> tuple[dict[tuple[str, str], str], list[Counted]]:
    """Writes rows of positions, each with all of its balances, over those that are there.

    Positions are changed in place, and whose they are only where that differs: what is in an index costs a page each.
    Balances have no other index; those of a position stand together. Returns the statuses that were there by account and
    group, and the balances.

    Evidence for the balances that are deleted: the contracts' answers that `rows` were made of, and with them the balances
    that take their place. Undone by the next snapshot that has others.
    """
    keys = [*map(pair_of, rows)]
    before = {row[:2]: row for row in rows_of(conn, PEOPLE_BEFORE, "positions", where, keys)}
    held = rows_of(conn, BALANCES_BEFORE, "balances", where, keys).fetchall()
    there = [(row, before[key]) for key, row in zip(keys, rows, strict=True) if key in before]
    conn.executemany(UPDATE_POSITION, [tuple(row) for row, _ in there])  # SQLite takes plain ones faster
    conn.executemany(
        f"update positions set owner = ?, owner_via = ?, wallet = ? where {OF_POSITION}",  # noqa: S608 - our own names
        [(*people_of(row), *where, *pair_of(row)) for row, old in there if old[3:] != people_of(row)],
    )
    insert_all(conn, "positions", len(POSITION_COLUMNS), [row for row in rows if pair_of(row) not in before])
    conn.executemany(f"delete from balances where {OF_POSITION}", [(*where, *key) for key in keys])  # noqa: S608
    insert_all(conn, "balances", len(BALANCE_COLUMNS), balances)
    return {key: row[2] for key, row in before.items()}, held
