"""Rows in dispute: two nodes contradict each other about them, so neither is believed."""

from collections.abc import Collection

from indexer.model import PositionKey, Status
from indexer.store.store import Store

#: the note of such a row
NOTE = "two endpoints contradict each other about it: `audits` of the kind cross-check has both answers"


def mark(store: Store, where: tuple[int, str], keys: Collection[PositionKey]) -> None:
    """Marks these rows of a deployment (chain id, name) `unverified`; their numbers stay for inspection."""
    if keys:
        store.sums.forget()
    with store.transaction() as conn:
        conn.executemany(
            "update positions set status = ?, note = ? where chain_id = ? and deployment = ? and account = ? and position_group = ?",
            [(Status.UNVERIFIED.value, NOTE, *where, *key) for key in keys],
        )


def marked(store: Store, where: tuple[int, str]) -> set[PositionKey]:
    """The rows of a deployment that were in dispute at its last snapshot."""
    rows = store.conn.execute(
        "select account, position_group from positions p join deployments d using (chain_id, deployment) "
        "where chain_id = ?1 and deployment = ?2 and p.status = 'unverified' and d.state <> 'unverified' "
        "and exists (select 1 from audits where chain_id = ?1 and deployment = ?2 and kind = 'cross-check' and mismatches > 0)",
        where,
    )
    return {PositionKey(*row) for row in rows}
