"""The table `liquidations`: what logs tell of liquidations, one row a log, and from which block on all of them are there."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from indexer.model import Block
from indexer.store.rows import Snapshot
from indexer.store.shards import each

#: in `synced_ranges`: the blocks whose liquidations are in the table
SOURCE = "liquidations"


class LiquidationRow(NamedTuple):
    """One row of `liquidations`."""

    chain_id: int
    deployment: str
    protocol: str
    block_number: int
    block_hash: str
    log_index: int
    block_timestamp: int
    transaction_hash: str
    account: str
    position_group: str
    liquidator: str | None
    debt_asset: str | None
    repaid_raw: str | None
    repaid: float | None
    repaid_usd: float | None
    collateral_asset: str | None
    seized_raw: str | None
    seized: float | None
    seized_usd: float | None


LIQUIDATION_COLUMNS = LiquidationRow._fields


def save(conn: sqlite3.Connection, rows: Iterable[LiquidationRow]) -> None:
    """Rows that are not there yet, in the transaction that says their blocks are done."""
    marks = ", ".join("?" * len(LIQUIDATION_COLUMNS))
    conn.executemany(f"insert or ignore into liquidations values ({marks})", rows)  # noqa: S608 - question marks


def count(conn: sqlite3.Connection, chain_id: int) -> int:
    found: tuple[int] = conn.execute("select count(*) from liquidations where chain_id = ?", (chain_id,)).fetchone()
    return found[0]


def searched(conn: sqlite3.Connection, chain_id: int | None) -> list[sqlite3.Row]:
    """Each synced deployment of a chain, or of all, with the block from which on its liquidations are complete."""
    return conn.execute(
        "select chain_id, deployment, protocol, start_block, liquidations_from_block from deployments "
        "where block_number is not null and (?1 is null or chain_id = ?1)",
        (chain_id,),
    ).fetchall()


def roll_back(conn: sqlite3.Connection, chain_id: int, ancestor: int) -> None:
    """The rows of blocks that have left the chain go; those of the blocks in their place are fetched again.

    Evidence and confirmation are those of `reorgs.roll_back`, whose part it is; undone by fetching the logs again.
    """
    conn.execute("delete from liquidations where chain_id = ? and block_number > ?", (chain_id, ancestor))


def settle(conn: sqlite3.Connection, where: tuple[int, str], block: int) -> None:
    """Writes down from where on the table is complete up to `block`."""
    conn.execute(
        "update deployments set liquidations_from_block = (select from_block from synced_ranges r where "
        "r.chain_id = ?1 and r.deployment = ?2 and r.source = ?3 and r.from_block <= ?4 and r.to_block >= ?4) "
        "where chain_id = ?1 and deployment = ?2",
        (*where, SOURCE, block),
    )


def settling(conn: sqlite3.Connection, snapshots: Sequence[Snapshot], _block: Block) -> Callable[[], None]:
    """A rider: settles each deployment once its rows are those of the new block."""

    def rest() -> None:
        for snapshot in snapshots:
            settle(conn, snapshot.where, snapshot.block.number)

    return rest


#: the columns that `listed` adds
ADDED = "chain debt_symbol collateral_symbol".split()
SORTS = {
    "time": "block_number desc, log_index desc",
    "repaid": "repaid_usd is null, repaid_usd desc, block_number desc, log_index desc",
    "seized": "seized_usd is null, seized_usd desc, block_number desc, log_index desc",
}


def listed(
    conn: sqlite3.Connection,
    *,
    since_block: int | None = None,
    until_block: int | None = None,
    since: int | None = None,
    until: int | None = None,
    chain_id: int | None = None,
    deployments: Sequence[str] = (),
    protocols: Sequence[str] = (),
    wallets: Sequence[str] = (),
    sort: str = "time",
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Rows with their symbols, the newest first; blocks and times (unix seconds) include both ends.

    `wallets` are accounts, owners or wallets of the positions. A cToken's symbol is that of its market.
    """
    clauses: list[str] = ["true"]
    values: list[Any] = []
    for clause, value in (
        ("l.block_number >= ?", since_block),
        ("l.block_number <= ?", until_block),
        ("l.block_timestamp >= ?", since),
        ("l.block_timestamp <= ?", until),
        ("l.chain_id = ?", chain_id),
    ):
        if value is not None:
            clauses.append(clause)
            values.append(value)
    for column, names in (("deployment", deployments), ("protocol", protocols)):
        if names:
            clauses.append(f"l.{column} in ({', '.join('?' * len(names))})")
            values += names
    if wallets:
        marks = ", ".join("?" * len(wallets))
        clauses.append(f"(l.account in ({marks}) or p.wallet in ({marks}) or p.owner in ({marks}))")
        values += [*wallets] * 3
    symbol = (
        "coalesce((select symbol from assets a where (a.chain_id, a.asset) = (l.chain_id, l.{0})), "
        "(select 'c' || symbol from markets m where (m.chain_id, m.deployment, m.market) "
        "= (l.chain_id, l.deployment, l.{0})))"
    )
    sql = (
        f"select d.chain, l.*, {symbol.format('debt_asset')} as debt_symbol, "  # noqa: S608 - our own names
        f"{symbol.format('collateral_asset')} as collateral_symbol, p.wallet "
        "from liquidations l left join deployments d using (chain_id, deployment) "
        "left join positions p using (chain_id, deployment, account, position_group) "
        f"where {' and '.join(clauses)} order by {SORTS[sort]} limit ?"
    )
    parts = each(conn)
    rows = [dict(row) for part in parts for row in part.execute(sql, (*values, -1 if limit is None else limit))]
    if len(parts) > 1:
        usd = {"repaid": "repaid_usd", "seized": "seized_usd"}.get(sort)
        rows.sort(key=lambda row: (row["block_number"], row["log_index"]), reverse=True)
        if usd is not None:
            rows.sort(key=lambda row: (row[usd] is None, -(row[usd] or 0.0)))
    return rows[:limit]
