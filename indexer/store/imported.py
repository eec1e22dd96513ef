"""Accounts that a file named: kept until the contracts were asked what they hold, and believed in nothing else."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from indexer.model import PositionKey
from indexer.store.block_ranges import Ranges

Where = tuple[int, str]


def imported(conn: sqlite3.Connection, where: Where) -> list[PositionKey]:
    """Those of a deployment (chain id, name) that wait for the next snapshot."""
    rows = conn.execute("select account, position_group from imported where chain_id = ? and deployment = ?", where)
    return [PositionKey(*row) for row in rows]


def keep(conn: sqlite3.Connection, where: Where, keys: Iterable[PositionKey]) -> int:
    """Adds those that are not known yet; how many."""
    before = conn.total_changes
    conn.executemany(
        "insert or ignore into imported select ?1, ?2, ?3, ?4 where not exists (select 1 from events "
        "where (chain_id, deployment, account, position_group) = (?1, ?2, ?3, ?4))",
        [(*where, *key) for key in keys],
    )
    return conn.total_changes - before


def forget(conn: sqlite3.Connection, where: Where) -> None:
    """Those of a deployment, of whom a snapshot that is being committed has asked.

    Evidence: that snapshot, which has a state of each of them; undone by importing them again.
    """
    conn.execute("delete from imported where chain_id = ? and deployment = ?", where)


def logged(conn: sqlite3.Connection) -> int:
    """How many positions logs have named, of all deployments."""
    found: tuple[int] = conn.execute("select count(*) from events").fetchone()
    return found[0]


class Known(NamedTuple):
    """One known position, and the first and last block in which a log named it or a snapshot found it."""

    chain_id: int
    chain: str | None
    deployment: str
    account: str
    position_group: str
    first_block: int
    last_block: int
    ranges: str


def known_accounts(conn: sqlite3.Connection, deployments: Sequence[Where]) -> Iterator[Known]:
    """Every known position of these deployments, with the block ranges whose logs named it ("100-250 300-900")."""
    for where in deployments:
        (chain,) = conn.execute("select chain from deployments where (chain_id, deployment) = (?, ?)", where).fetchone()
        ranges = " ".join(f"{first}-{last}" for first, last in discovered(conn, where))
        for row in conn.execute(
            "select account, position_group, first_block, last_block from events "
            "where chain_id = ? and deployment = ? order by account, position_group",
            where,
        ):
            yield Known._make((where[0], chain, where[1], *row, ranges))


def discovered(conn: sqlite3.Connection, where: Where) -> Ranges:
    """The blocks in which every log of discovery was looked for."""
    sources: dict[str, list[tuple[int, int]]] = {}
    for source, first, last in conn.execute(
        "select source, from_block, to_block from synced_ranges "
        "where chain_id = ? and deployment = ? and instr(source, ':')",
        where,
    ):
        sources.setdefault(source, []).append((first, last))
    found = [Ranges(spans) for spans in sources.values()]
    common = found[0] if found else Ranges()
    for ranges in found[1:]:
        common &= ranges
    return common
