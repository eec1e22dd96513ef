"""What was added to positions or taken from them between two snapshots.

Of the positions that were read since the last snapshot, a few or all of millions, the old rows wait in temporary tables.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from indexer.model import Block
from indexer.store.chosen import rows_of
from indexer.store.rows import Snapshot

Key = tuple[str, str]  # account, position_group
Where = tuple[int, str]  # chain_id, deployment


class Held(NamedTuple):
    """A balance before or after a snapshot."""

    scaled: str
    amount: int
    value_usd: float | None


class Moved(NamedTuple):
    """What was added to a position in USD (below 0: taken from it); None where a price is missing."""

    supply: float | None
    debt: float | None


class Reread(NamedTuple):
    """A position that was read since: the first block that named it, and whether its old row lacks some supplies."""

    first_block: int
    incomplete: bool


REREAD, BEFORE = "temp.reread", "temp.balances_before"
KEY = "chain_id, deployment, account, position_group"
#: with the types and collations of the tables that they are joined with, without which SQLite would not use their keys
KEY_COLUMNS = "chain_id integer, deployment text, account text collate nocase, position_group text"
TABLES = (
    f"create table if not exists {REREAD} ({KEY_COLUMNS}, read_block integer, first_block integer, incomplete integer, "
    f"primary key ({KEY})) without rowid",
    f"create table if not exists {BEFORE} ({KEY_COLUMNS}, market text collate nocase, asset text collate nocase, side text, "
    f"scaled_raw text, amount_raw text, value_usd real, primary key ({KEY}, market, asset, side)) without rowid",
)


def remember(conn: sqlite3.Connection, snapshots: Sequence[Snapshot], block: Block) -> None:
    """The rider that keeps, until the next snapshot, who was read since the last one, and their balances then.

    Evidence for what is deleted: the tables are temporary, and only the snapshot before asked them.
    """
    for sql in TABLES:
        conn.execute(sql)
    for table in (REREAD, BEFORE):
        conn.execute(f"delete from {table}")  # noqa: S608 - our own names
    for snapshot in snapshots:
        (last,) = conn.execute(
            "select max(block_number) from deployments where chain_id = ? and deployment = ?", snapshot.where
        ).fetchone()
        if last is None and not has_points(conn, snapshot.where):
            continue  # everybody is new
        # after a reorg the chain may be shorter than it was
        since = block.number - 1 if last is None else min(last, block.number - 1)
        conn.execute(
            f"insert into {REREAD} select {KEY}, s.block_number, e.first_block, "  # noqa: S608 - our own names
            f"coalesce(p.supplies_complete = 0, 0) from states s join events e using ({KEY}) "
            f"left join positions p using ({KEY}) where s.chain_id = ? and s.deployment = ? and s.block_number > ?",
            (*snapshot.where, since),
        )
        conn.execute(
            f"insert into {BEFORE} select {KEY}, t.market, t.asset, t.side, t.scaled_raw, t.amount_raw, t.value_usd "  # noqa: S608
            f"from {REREAD} r cross join balances t using ({KEY}) where r.chain_id = ? and r.deployment = ?",
            snapshot.where,
        )


def has_points(conn: sqlite3.Connection, where: Where) -> bool:
    """Whether a deployment has any history."""
    sql = "select exists (select 1 from health_history where chain_id = ? and deployment = ?)"
    return bool(conn.execute(sql, where).fetchone()[0])


def any_reread(conn: sqlite3.Connection, where: Where, since: int) -> bool:
    """Whether any position was read after block `since`."""
    sql = f"select exists (select 1 from {REREAD} where chain_id = ? and deployment = ? and read_block > ?)"  # noqa: S608
    return bool(conn.execute(sql, (*where, since)).fetchone()[0])


def reread_of(conn: sqlite3.Connection, where: Where, since: int, keys: Iterable[Key]) -> dict[Key, Reread]:
    """Those of these positions that were read after block `since`."""
    columns = "t.account, t.position_group, t.first_block, t.incomplete"
    rows = rows_of(conn, columns, REREAD, where, keys, f"t.read_block > {since:d}")
    return {(account, group): Reread(first, bool(lacks)) for account, group, first, lacks in rows}


def reread(conn: sqlite3.Connection, where: Where, since: int) -> sqlite3.Cursor:
    """The positions that were read after block `since` and still have a state, in the order of their keys."""
    return conn.execute(
        f"select r.account, r.position_group from {REREAD} r cross join states s using ({KEY}) "  # noqa: S608 - our own names
        "where r.chain_id = ? and r.deployment = ? and r.read_block > ? order by r.account, r.position_group",
        (*where, since),
    )


def balances_of(
    conn: sqlite3.Connection, where: Where, keys: Iterable[Key], table: str = "balances"
) -> dict[Key, dict[tuple[str, ...], Held]]:
    """The stored balances of these positions, by (market, asset, side); in BEFORE, those of the last snapshot."""
    columns = "t.account, t.position_group, t.market, t.asset, t.side, t.scaled_raw, t.amount_raw, t.value_usd"
    found: dict[Key, dict[tuple[str, ...], Held]] = {}
    rows: Iterable[tuple[Any, ...]] = rows_of(conn, columns, table, where, keys)
    for account, group, market, asset, side, scaled, amount, value in rows:
        found.setdefault((account, group), {})[market, asset, side] = Held(scaled, int(amount), value)
    return found


def change_of(before: dict[tuple[str, ...], Held], after: dict[tuple[str, ...], Held]) -> Moved | None:
    """What was added to a position's balances, in USD at the later prices; None if none of them changed.

    A balance with the same stored (scaled) value only earned or cost interest. Where that value changed, the difference
    includes the interest between the two snapshots.
    """
    sums: dict[str, float | None] = {"supply": 0.0, "debt": 0.0}
    changed = False
    for place in sorted(before.keys() | after.keys()):  # floats add up to the same in every process
        old, new = before.get(place), after.get(place)
        if old is not None and new is not None and old.scaled == new.scaled:
            continue
        changed = True
        side, total = place[2], sums[place[2]]
        measure = new if new is not None and new.amount else old
        delta = (new.amount if new else 0) - (old.amount if old else 0)
        if measure is None or not measure.amount:
            continue
        if measure.value_usd is None or total is None:
            sums[side] = None
        else:
            sums[side] = total + delta / measure.amount * measure.value_usd
    return Moved(sums["supply"], sums["debt"]) if changed else None


def change_of_incomplete(
    before: dict[tuple[str, ...], Held], after: dict[tuple[str, ...], Held], *, complete: bool
) -> Moved | None:
    """Like `change_of` where not every supply was known before.

    Supplies that are only now read were not moved. While some are still unread (not `complete`), one that appears or
    vanishes may only have begun or ceased to back debt: what was supplied is then unknown.
    """
    supplies = [{place for place in held if place[2] == "supply"} for held in (before, after)]
    if complete:
        appeared = supplies[1] - supplies[0]
        return change_of(before, {place: held for place, held in after.items() if place not in appeared})
    change = change_of(before, after)
    return change if change is None or supplies[0] == supplies[1] else change._replace(supply=None)
