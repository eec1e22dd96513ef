"""What was added to positions or taken from them between two snapshots."""

import sqlite3
from collections.abc import Iterable
from typing import Any, NamedTuple

from indexer.store.chosen import rows_of

Key = tuple[str, str]  # account, position_group


class Held(NamedTuple):
    """A balance before or after a snapshot."""

    scaled: str
    amount: int
    value_usd: float | None


class Moved(NamedTuple):
    """What was added to a position in USD (below 0: taken from it); None where a price is missing."""

    supply: float | None
    debt: float | None


def reread(conn: sqlite3.Connection, where: tuple[int, str], previous: int) -> dict[Key, int]:
    """Positions that were read after block `previous`, with the first block that named them."""
    rows = conn.execute(
        "select s.account, s.position_group, e.first_block from states s "
        "join events e using (chain_id, deployment, account, position_group) "
        "where s.chain_id = ? and s.deployment = ? and s.block_number > ?",
        (*where, previous),
    )
    return {(account, group): first for account, group, first in rows}


def balances(conn: sqlite3.Connection, where: tuple[int, str], previous: int) -> dict[Key, dict[tuple[str, ...], Held]]:
    """The stored balances of the positions that were read after block `previous`, by (market, asset, side)."""
    rows = conn.execute(
        f"select {HELD} from states s cross join balances t using (chain_id, deployment, account, position_group) "  # noqa: S608
        "where s.chain_id = ? and s.deployment = ? and s.block_number > ?",
        (*where, previous),
    )
    return by_position(rows)


def balances_of(
    conn: sqlite3.Connection, where: tuple[int, str], keys: Iterable[Key]
) -> dict[Key, dict[tuple[str, ...], Held]]:
    """The stored balances of these positions, by (market, asset, side)."""
    return by_position(rows_of(conn, HELD, "balances", where, keys))


HELD = "t.account, t.position_group, t.market, t.asset, t.side, t.scaled_raw, t.amount_raw, t.value_usd"


def by_position(rows: Iterable[tuple[Any, ...]]) -> dict[Key, dict[tuple[str, ...], Held]]:
    """Rows of HELD."""
    found: dict[Key, dict[tuple[str, ...], Held]] = {}
    for account, group, market, asset, side, scaled, amount, value in rows:
        found.setdefault((account, group), {})[market, asset, side] = Held(scaled, int(amount), value)
    return found


def incomplete(conn: sqlite3.Connection, where: tuple[int, str], previous: int) -> set[Key]:
    """The positions that were read after block `previous` and whose present rows do not have every supply."""
    waiting = "positions p indexed by positions_incomplete where p.chain_id = ? and p.deployment = ? and p.supplies_complete = 0"
    if conn.execute(f"select 1 from {waiting} limit 1", where).fetchone() is None:  # noqa: S608 - our own names
        return set()
    rows = conn.execute(
        "select account, position_group from states s join positions p using (chain_id, deployment, account, position_group) "
        "where s.chain_id = ? and s.deployment = ? and s.block_number > ? and p.supplies_complete = 0",
        (*where, previous),
    )
    return {(account, group) for account, group in rows}


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
