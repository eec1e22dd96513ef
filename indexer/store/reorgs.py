"""What is deleted after a reorg, and which blocks are final and need more than one answer before that.

There are two kinds of steps back. A reorg (`roll_back`) undoes what was learnt from blocks that have left the chain:
positions, events, contracts, numbers and ranges are deleted, as they can be read again; points of history and measured
interest, which cannot, move to `orphaned_history` and `orphaned_accruals` for 30 days. An older target on the same chain
(`go_back`, `sync --to`) deletes only the former: the history of later blocks stays true.
"""

import sqlite3
import time
from collections.abc import Sequence

from indexer.model import Block
from indexer.store import liquidations
from indexer.store.changes import Place, noted
from indexer.store.rows import Snapshot
from indexer.store.synced_ranges import SyncedRanges

#: blocks below a snapshot that count as final where the chain does not say what is
FINAL_BELOW = 128
KEPT_SECONDS = 30 * 86_400

HISTORY = (
    "chain_id, deployment, account, position_group, block_number, block_timestamp, health_factor_raw, collateral_usd, "
    "debt_usd, status, supply_change_usd, debt_change_usd"
)
ACCRUALS = (
    "chain_id, deployment, account, position_group, market, asset, side, first_block, first_timestamp, start_block, "
    "start_timestamp, scaled_raw, start_amount_raw, interest_raw, unmeasured_seconds"
)
MARKET_POINTS = (
    "chain_id, deployment, position_group, asset, market, block_number, block_timestamp, symbol, price_raw, price_usd, "
    "supply_index_raw, debt_index_raw, supply_rate, borrow_rate, total_supply_raw, total_debt_raw, decimals"
)
BOOK_POINTS = (
    "chain_id, deployment, asset, status, block_number, block_timestamp, symbol, positions, supply_raw, supply_usd, "
    "collateral_raw, collateral_usd, debt_raw, debt_usd, unvalued"
)
#: what no chain tells again: the table, where its rows go, its columns, and the column of the block that decides
KEPT_APART = (
    ("health_history", "orphaned_history", HISTORY, "block_number"),
    ("accruals", "orphaned_accruals", ACCRUALS, "start_block"),
    ("market_history", "orphaned_market_history", MARKET_POINTS, "block_number"),
    ("book_history", "orphaned_book_history", BOOK_POINTS, "block_number"),
)
HERE = "chain_id = ?1 and deployment = ?2"

# What is final ------------------------------------------------------------------------------------------------------------


def final_block(conn: sqlite3.Connection, chain_id: int) -> int:
    """The newest block that only a second opinion can undo; -1 where nothing is final yet."""
    found = conn.execute("select block_number from finality where chain_id = ?", (chain_id,)).fetchone()
    if found is not None:
        return int(found[0])
    (newest,) = conn.execute("select max(block_number) from deployments where chain_id = ?", (chain_id,)).fetchone()
    return -1 if newest is None else max(newest - FINAL_BELOW, -1)


def settle(conn: sqlite3.Connection, chain_id: int, final: Block) -> None:
    """Records the final block with its hash; a block once final stays final."""
    conn.execute(
        "insert into finality values (?, ?, ?) on conflict do update set block_number = excluded.block_number, "
        "block_hash = excluded.block_hash where excluded.block_number > block_number",
        (chain_id, final.number, final.hash),
    )
    conn.execute(
        "insert or ignore into blocks values (?, ?, ?, ?)", (chain_id, final.number, final.hash, final.timestamp)
    )


# Up to where history is written -------------------------------------------------------------------------------------------


def recorded(conn: sqlite3.Connection, where: tuple[int, str]) -> int:
    """The newest block whose history and interest are written, -1 before the first."""
    found = conn.execute("select block_number from recorded where chain_id = ? and deployment = ?", where).fetchone()
    return -1 if found is None else int(found[0])


def record(conn: sqlite3.Connection, snapshot: Snapshot) -> None:
    conn.execute(
        "insert into recorded values (?, ?, ?) on conflict do update set block_number = excluded.block_number "
        "where excluded.block_number > block_number",
        (*snapshot.where, snapshot.block.number),
    )


def earlier(block: Block) -> int:
    """The time (unix seconds) by which what is kept grows old: that of the newest block, or of the clock if it is earlier.

    A clock that is wrong for a moment, or a block from the future, must delete nothing: it does not come back.
    """
    return min(block.timestamp, int(time.time()))


# Steps back ---------------------------------------------------------------------------------------------------------------


def roll_back(conn: sqlite3.Connection, chain_id: int, ancestor: int, orphaned_hash: str) -> None:
    """Takes every deployment of a chain back to block `ancestor` (-1: before the first); call it in a transaction.

    Evidence: the chain's different hashes at the kept blocks, from an endpoint whose chain id was checked right before; for
    final blocks also those of a second endpoint, or the operator's word. Undone by the next sync, which fetches everything
    again but the history, which is in the orphaned tables under `orphaned_hash`.
    """
    left = _place(conn, chain_id, ancestor)
    with noted(conn, chain_id, left, gone="reorged"):
        _take_back(conn, chain_id, ancestor, orphaned_hash)


def _place(conn: sqlite3.Connection, chain_id: int, number: int) -> Place:
    """A block whose hash is kept; else one without hash and time."""
    found = conn.execute(
        "select hash, block_timestamp from blocks where chain_id = ? and number = ?", (chain_id, number)
    )
    return Place(number, *(found.fetchone() or ("", None)))


def _take_back(conn: sqlite3.Connection, chain_id: int, ancestor: int, orphaned_hash: str) -> None:
    """Evidence: that of `roll_back`, which alone calls it."""
    now = int(time.time())
    conn.execute("delete from blocks where chain_id = ? and number > ?", (chain_id, ancestor))
    conn.execute("delete from finality where chain_id = ? and block_number > ?", (chain_id, ancestor))
    liquidations.roll_back(conn, chain_id, ancestor)
    _take_back_prices(conn, chain_id, ancestor)
    # What was said of a state that never was; the next `indexer forecast` says it of the one that is.
    conn.execute("delete from forecasts where chain_id = ? and block_number > ?", (chain_id, ancestor))
    for (name,) in conn.execute("select deployment from deployments where chain_id = ?", (chain_id,)).fetchall():
        where = (chain_id, name, ancestor)
        _forget_state(conn, where)
        for source, orphaned, columns, block in KEPT_APART:
            conn.execute(
                f"insert into {orphaned} ({columns}, orphaned_at, orphaned_from_hash) "  # noqa: S608 - our names
                f"select {columns}, ?4, ?5 from {source} where {HERE} and {block} > ?3",
                (*where, now, orphaned_hash),
            )
            conn.execute(f"delete from {source} where {HERE} and {block} > ?3", where)  # noqa: S608
        conn.execute(f"update recorded set block_number = ?3 where {HERE} and block_number > ?3", where)  # noqa: S608
        conn.execute(f"update pruned_history set last_block = ?3 where {HERE} and last_block > ?3", where)  # noqa: S608


def _take_back_prices(conn: sqlite3.Connection, chain_id: int, ancestor: int) -> None:
    """Rounds of blocks that have left the chain go, and so does what came into force in them.

    A round that was read from state has no block: its time decides, against that of the newest kept block up to the ancestor.
    Evidence: that of `roll_back`, whose part it is; undone by the next `sync --prices`.
    """
    (moment,) = conn.execute(
        "select coalesce(max(block_timestamp), -1) from blocks where chain_id = ? and number <= ?", (chain_id, ancestor)
    ).fetchone()
    values = {"chain": chain_id, "ancestor": ancestor, "moment": moment}
    for statement in (
        "delete from feed_prices where chain_id = :chain "
        "and (block_number > :ancestor or (block_number is null and block_timestamp > :moment))",
        "update feed_prices set in_force_timestamp = null where chain_id = :chain and in_force_timestamp > :moment",
        "update feeds set known_until = nullif(:moment, -1) where chain_id = :chain and known_until > :moment",
        "update feed_phases set to_block = :ancestor where chain_id = :chain and to_block > :ancestor",
        "update feed_phases set from_block = null, to_block = null where chain_id = :chain and from_block > to_block",
    ):
        conn.execute(statement, values)


def go_back(conn: sqlite3.Connection, chain_id: int, target: int, deployments: Sequence[str]) -> None:
    """Takes these deployments back to an older block of the same chain; call it in a transaction.

    Evidence: the user asked for that block, and the newest kept hash is on the chain. Undone by syncing on, which fetches
    everything deleted again. Kept hashes, history and measured interest stay.
    """
    with noted(conn, chain_id, _place(conn, chain_id, target), always=False):
        for name in deployments:
            _forget_state(conn, (chain_id, name, target))


def _forget_state(conn: sqlite3.Connection, where: tuple[int, str, int]) -> None:
    """Deletes what can be read from the chain again. The rows of the last snapshot stay until the next commit replaces them
    as a whole, but become unverified. Evidence: that of `roll_back` or `go_back`, which call it.
    """
    # A state read above the ancestor also holds at the ancestor only if all activity in between is known and none of it
    # touched the position. Activity is not known in the first block of its range: positions were read after it.
    conn.execute(
        "delete from states where chain_id = ?1 and deployment = ?2 and block_number > ?3 and ("
        "  not exists (select 1 from synced_ranges r where r.chain_id = ?1 and r.deployment = ?2"
        "     and r.source = 'activity' and r.from_block <= ?3 and r.to_block >= states.block_number)"
        "  or exists (select 1 from events e where e.chain_id = ?1 and e.deployment = ?2"
        "     and e.account = states.account and e.position_group = states.position_group"
        "     and e.last_block > ?3))",
        where,
    )
    for statement in (
        "update states set block_number = ?3 where {here} and block_number > ?3",
        "delete from events where {here} and first_block > ?3",
        "update events set last_block = ?3 where {here} and last_block > ?3",
        # Whatever block a row names, its status is that of the deployment's block.
        "update positions set status = 'unverified', note = 'its block was orphaned by a reorganisation' where {here} "
        "and exists (select 1 from deployments d where d.chain_id = ?1 and d.deployment = ?2 and d.block_number > ?3)",
        "delete from registry where {here} and block_number > ?3",
        "delete from contracts where {here} and first_block > ?3",
    ):
        conn.execute(statement.format(here=HERE), where)
    SyncedRanges(conn, where[0], where[1]).forget_from(where[2] + 1)


def expire(conn: sqlite3.Connection, now: int) -> None:
    """Deletes for good what was orphaned 30 days ago: users had that long to copy it back.

    Evidence: `now`, which neither the clock here nor the newest block's time alone can put ahead (`earlier`).
    """
    for _, table, _, _ in KEPT_APART:
        conn.execute(
            f"delete from {table} where orphaned_at < ?",  # noqa: S608 - our names
            (now - KEPT_SECONDS,),
        )
