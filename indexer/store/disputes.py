"""Rows that nobody believes, because two nodes contradict each other about them: the table `disputes`.

A dispute is opened by the contradiction and ended by nothing but two nodes that say the same of the row. A later snapshot
from one of the two, which knows no better, does not end it, nor does a reorganisation.
"""

import sqlite3
from collections.abc import Collection

from indexer.model import PositionKey, Status
from indexer.store.changes import Place, noted
from indexer.store.store import Store

#: what such a row says of itself
NOTE = (
    "two endpoints contradict each other about it: `audits` of the kind cross-check has both answers, "
    "`indexer verify --against URL` asks again"
)


def opened(store: Store, where: tuple[int, str], keys: Collection[PositionKey], block_number: int) -> None:
    """These rows of a deployment (chain id, name) are in dispute from that block on, if they are not already."""
    with store.transaction() as conn:
        conn.executemany(
            "insert or ignore into disputes values (?, ?, ?, ?, ?)", [(*where, *key, block_number) for key in keys]
        )


def ended(store: Store, where: tuple[int, str], keys: Collection[PositionKey]) -> None:
    """These rows are in dispute no more; the next snapshot says what they are.

    Evidence: two endpoints gave the same answers about the row, and the row has them too. Undone by the next contradiction;
    `audits` keeps both answers of the last ones.
    """
    with store.transaction() as conn:
        conn.executemany(
            "delete from disputes where chain_id = ? and deployment = ? and account = ? and position_group = ?",
            [(*where, *key) for key in keys],
        )


def mark(store: Store, where: tuple[int, str], keys: Collection[PositionKey]) -> None:
    """Marks these rows of a deployment (chain id, name) `unverified`; their numbers stay for inspection."""
    if keys:
        store.sums.forget()
    row = store.deployment(*where)
    assert row is not None
    place = Place(row["block_number"], row["block_hash"], row["block_timestamp"])
    with store.transaction() as conn, noted(conn, where[0], place, always=False):
        conn.executemany(
            "update positions set status = ?, note = ? where chain_id = ? and deployment = ? and account = ? and position_group = ?",
            [(Status.UNVERIFIED.value, NOTE, *where, *key) for key in keys],
        )


def disputed(conn: sqlite3.Connection, where: tuple[int, str]) -> set[PositionKey]:
    """The rows of a deployment that are in dispute."""
    rows = conn.execute("select account, position_group from disputes where chain_id = ? and deployment = ?", where)
    return {PositionKey(*row) for row in rows}
