"""Interest that balances have earned or cost, measured exactly between snapshots.

The value that a contract stores for a balance (a scaled balance, cTokens, a principal, art) stays the same until somebody
acts on it, while the amount it stands for grows. So between two snapshots with the same stored value, the difference of
the amounts is interest and nothing else, to the last unit. Around a change there is no such pair: the interest between the
last snapshot before it and the first one after it is unknown, and only its time is counted.

`accruals` has one row per balance that can earn or cost interest, written when it is first seen and when its stored value
changes: `start_amount_raw` is the amount at the snapshot `start_block`, since which `scaled_raw` is the same, and
`interest_raw` is what was measured before. A row takes about 260 bytes.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.history.flows import BEFORE, Key, Where, reread
from indexer.history.history import trusted
from indexer.model import Block
from indexer.store.chosen import OF_KEY, members
from indexer.store.reorgs import recorded
from indexer.store.rows import Snapshot

#: debts, and supply of assets with a supply index; gems and plain collateral earn nothing
NEW = (
    "insert or ignore into accruals select b.chain_id, b.deployment, b.account, b.position_group, b.market, b.asset, "
    "b.side, ?4, ?5, ?4, ?5, b.scaled_raw, b.amount_raw, '0', 0 from {balances} "
    "where b.chain_id = ?1 and b.deployment = ?2 and (b.side = 'debt' or (b.market, b.asset) in (select market, asset "
    "from markets where chain_id = ?1 and deployment = ?2 and supply_index_raw is not null))"
)
EVERYONE = NEW.format(balances="balances b")
CHOSEN = NEW.format(balances=f"json_each(?3) k cross join balances b on {OF_KEY.format(t='b')}")
#: what stands for another stored value by now, with the one and the amount of now and of the last snapshot
OVER = (
    "select a.account, a.position_group, a.market, a.asset, a.side, a.start_timestamp, a.scaled_raw, a.start_amount_raw, "
    "a.interest_raw, a.unmeasured_seconds, coalesce(b.scaled_raw, '0') as now, coalesce(b.amount_raw, '0'), "
    "t.scaled_raw, t.amount_raw from json_each(?3) k cross join accruals a on {of_key} "
    "left join balances b using (chain_id, deployment, account, position_group, market, asset, side) "
    "left join {before} t using (chain_id, deployment, account, position_group, market, asset, side) "
    "where now <> a.scaled_raw"
)
ENDED = OVER.format(of_key=OF_KEY.format(t="a"), before=BEFORE)
#: positions that are compared together
PART = 2_000


@dataclass(frozen=True, slots=True)
class Before:
    """A deployment's last snapshot, whose balances wait for those that were read since (`flows.remember`)."""

    where: Where
    since: int  # positions read after this block may have changed
    block_number: int
    timestamp: int
    known: bool  # False: those balances are of blocks that are gone


def accrue(conn: sqlite3.Connection, snapshots: Sequence[Snapshot], block: Block) -> Callable[[], None]:
    """The rider that keeps `accruals`: reads the old rows before they are replaced, and writes afterwards.

    A snapshot of an older block, to which the user went back, changes nothing.
    """
    before = {}
    for snapshot in snapshots:
        last, end = last_snapshot(conn, snapshot.where, block), recorded(conn, snapshot.where)
        if block.number >= end + (last is not None and last.block_number < end):
            before[snapshot.where] = last

    def write() -> None:
        for where, last in before.items():
            if last is not None:
                changed(conn, last, block)
            if last is None or not last.known or not any_rows(conn, where):
                conn.execute(EVERYONE, (*where, None, block.number, block.timestamp))

    return write


def any_rows(conn: sqlite3.Connection, where: Where) -> bool:
    sql = "select exists (select 1 from accruals where chain_id = ? and deployment = ?)"
    return bool(conn.execute(sql, where).fetchone()[0])


def last_snapshot(conn: sqlite3.Connection, where: Where, block: Block) -> Before | None:
    found = conn.execute(
        "select block_number, block_timestamp from deployments where chain_id = ? and deployment = ?", where
    ).fetchone()
    if found is None or found[0] is None:
        return None
    since = min(found[0], block.number - 1)  # after a reorg the chain may be shorter than it was
    return Before(where, since, found[0], found[1], trusted(conn, where))


def changed(conn: sqlite3.Connection, last: Before, block: Block) -> None:
    """Ends the measured stretch of each stored value that changed, and begins the next."""
    keys = reread(conn, last.where, last.since)
    while part := keys.fetchmany(PART):
        _changed(conn, last, block, part)


def _changed(conn: sqlite3.Connection, last: Before, block: Block, keys: Sequence[Key]) -> None:
    """The same for some of the positions that were read since."""
    chosen, ended = (*last.where, members(keys)), []
    for (
        *place, start, scaled, amount, interest, unmeasured, now_scaled, now_amount, then_scaled, then_amount
    ) in conn.execute(ENDED, chosen).fetchall():  # fmt: skip
        measured, gap = int(interest), block.timestamp - start
        if scaled == "0":
            gap = min(gap, block.timestamp - last.timestamp)
        elif last.known and then_scaled == scaled and start <= last.timestamp:
            measured += int(then_amount) - int(amount)
            gap = block.timestamp - last.timestamp
        stretch = (block.number, block.timestamp, now_scaled, now_amount, str(measured), unmeasured + max(gap, 0))
        ended.append((*stretch, *last.where, *place))
    conn.executemany(
        "update accruals set start_block = ?, start_timestamp = ?, scaled_raw = ?, start_amount_raw = ?, "
        "interest_raw = ?, unmeasured_seconds = ? where chain_id = ? and deployment = ? and account = ? "
        "and position_group = ? and market = ? and asset = ? and side = ?",
        ended,
    )
    conn.execute(CHOSEN, (*chosen, block.number, block.timestamp))


@dataclass(frozen=True, slots=True)
class Measured:
    """The interest of one balance since `first_block` in smallest units; None where the stored values do not match."""

    symbol: str
    side: str
    interest: int | None
    decimals: int | None
    price_usd: float | None
    first_block: int
    first_timestamp: int
    unmeasured_seconds: int


def measured(conn: sqlite3.Connection, key: Sequence[Any]) -> list[Measured]:
    """The interest of every balance of one position (chain_id, deployment, account, position_group)."""
    rows = conn.execute(
        "select a.*, s.symbol, s.decimals, coalesce(b.scaled_raw, '0') as present_raw, "
        "coalesce(b.amount_raw, '0') as amount_raw, (select max(m.price_usd) from markets m "
        "where m.chain_id = a.chain_id and m.deployment = a.deployment and m.asset = a.asset) as price_usd "
        "from accruals a left join balances b "
        "using (chain_id, deployment, account, position_group, market, asset, side) "
        "left join assets s on (s.chain_id, s.asset) = (a.chain_id, a.asset) "
        "where (a.chain_id, a.deployment, a.account, a.position_group) = (?, ?, ?, ?) order by a.side desc, s.symbol",
        tuple(key),
    )
    found = []
    for row in rows:
        interest = int(row["interest_raw"]) + int(row["amount_raw"]) - int(row["start_amount_raw"])
        found.append(
            Measured(
                row["symbol"] or row["asset"],
                row["side"],
                interest if row["present_raw"] == row["scaled_raw"] else None,
                row["decimals"],
                row["price_usd"],
                row["first_block"],
                row["first_timestamp"],
                row["unmeasured_seconds"],
            )
        )
    return found
