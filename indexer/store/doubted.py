"""Accounts that an older version named, perhaps without cause: the table `doubted`, which a migration fills."""

import sqlite3
from collections.abc import Iterable

from indexer.model import PositionKey
from indexer.store.store import Store


def doubted(conn: sqlite3.Connection, where: tuple[int, str]) -> dict[PositionKey, tuple[int, int]]:
    """The doubted accounts of a deployment (chain id, name), and in which blocks they were named first and last."""
    rows = conn.execute(
        "select account, position_group, e.first_block, e.last_block from doubted d "
        "join events e using (chain_id, deployment, account, position_group) where chain_id = ? and deployment = ?",
        where,
    )
    return {PositionKey(account, group): (first, last) for account, group, first, last in rows}


def settle(store: Store, where: tuple[int, str], dropped: Iterable[PositionKey]) -> None:
    """Nobody of a deployment is doubted any more; the `dropped` are known no longer.

    Evidence: all discovery logs between the blocks that named them, of every endpoint that has them, and no debt now.
    Undone by any log that names them; `audits` of the kind never-borrowed lists them, their history stays.
    """
    keys = [(*where, *key) for key in dropped]
    here = "where chain_id = ? and deployment = ? and account = ? and position_group = ?"
    with store.transaction() as conn:
        conn.executemany(f"delete from events {here}", keys)  # noqa: S608 - our own names
        conn.executemany(f"delete from states {here}", keys)  # noqa: S608 - our own names
        conn.execute("delete from doubted where chain_id = ? and deployment = ?", where)
