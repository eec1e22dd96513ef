"""`health_history`: each position's past health, written with every snapshot and thinned with age.

A snapshot adds a point for every position that is at risk or watched, and for any other one when something happened to
it: it is new, its status changed, its health factor moved by at least 1 % since its last point, or its stored balances
changed. Older points are kept more sparsely, but always the last one and the lowest health factor of each interval and
status:

    age             kept
    up to 2 hours   every point
    up to a day     one in 10 minutes
    up to 30 days   one an hour
    beyond          one a day

A point takes about 125 bytes. After a year, a position at risk at every block has at most 600 points of the first, 132 of
the second, 696 of the third and 335 of the fourth kind, about 220 kB in all; a healthy one that moves by 1 % once a day
takes 46 kB, an idle one at stable prices 125 bytes. README has the measured sizes.
"""

import random
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from indexer.history import pruned
from indexer.history.flows import (
    BEFORE,
    Key,
    Moved,
    Reread,
    any_reread,
    balances_of,
    change_of,
    change_of_incomplete,
    has_points,
    reread_of,
)
from indexer.model import ENDANGERED, Accounts, Block
from indexer.store.chosen import OF_KEY, rows_of
from indexer.store.reorgs import earlier, recorded
from indexer.store.rows import PositionRow, Snapshot, pair_of
from indexer.store.shards import each
from indexer.text.values import iso

#: (up to this age, one point per so many seconds); each interval divides the next, so a minimum is never thinned away
TIERS = ((7_200, 0), (86_400, 600), (30 * 86_400, 3_600))
OLDEST = 86_400
#: rows examined for thinning at each snapshot: at least so many, and so many for each row that was added
SLICE, PER_ADDED = 5_000, 3
LAST = 2**63 - 1
FIRST = ("", "")  # before the first position
HERE = "chain_id = ? and deployment = ?"


class Point(NamedTuple):
    """The part of a row that thinning needs; changes in USD, None where unknown."""

    block_number: int
    timestamp: int
    health_factor: int | None
    status: str
    supply_change: float | None
    debt_change: float | None


@dataclass(slots=True)
class Plan:
    """What is known before the rows are replaced. `previous` is the block to compare with, None if there is none.

    Positions that were read after block `since` count as changed if their balances are; None if nobody was. `added` counts
    the points that were written; `first` if there are none of an earlier block.
    """

    snapshot: Snapshot
    previous: int | None
    watched: set[str]
    since: int | None
    first: bool = False
    added: int = 0

    def reread(self, conn: sqlite3.Connection, keys: Iterable[Key]) -> dict[Key, Reread]:
        """Those of these positions that were read since."""
        return {} if self.since is None else reread_of(conn, self.snapshot.where, self.since, keys)

    def watches(self, row: PositionRow) -> bool:
        return bool(self.watched) and not self.watched.isdisjoint(row.people)


class History:
    """The rider that writes points, part by part of the rows."""

    def __init__(self) -> None:
        self.plans: dict[tuple[int, str], Plan] = {}
        self.cursors: dict[tuple[int, str], tuple[str, str]] = {}
        self.random = random.Random()  # noqa: S311 - where thinning begins, not a secret

    def __call__(self, conn: sqlite3.Connection, snapshots: Sequence[Snapshot], block: Block) -> Callable[[], None]:
        watched = {wallet.lower() for (wallet,) in conn.execute("select wallet from watches")}
        plans = [plan for snapshot in snapshots if (plan := self._plan(conn, snapshot, watched))]
        self.plans = {plan.snapshot.where: plan for plan in plans}

        def rest() -> None:
            for plan in plans:
                if plan.first:  # a single point always stays
                    continue
                self._thin(conn, plan.snapshot, earlier(block), max(SLICE, PER_ADDED * plan.added))

        return rest

    def _plan(self, conn: sqlite3.Connection, snapshot: Snapshot, watched: set[str]) -> Plan | None:
        """None if the block's history is already written, because the user went back to that block."""
        where = snapshot.where
        found = conn.execute(
            "select block_number, block_hash from deployments where chain_id = ? and deployment = ?", where
        ).fetchone()
        at = (found[0], found[1]) if found is not None and found[0] is not None else None
        end = recorded(conn, where)
        went_back = at is not None and at[0] < end
        if snapshot.block.number < end + went_back:
            return None
        # A rollback makes all rows unverified, as their balances are of blocks that are gone.
        rolled_back = at is not None and not trusted(conn, where)
        previous = None if at is None or rolled_back or went_back else at[0]
        first = previous is None and not has_points(conn, where)
        # Without earlier points everybody is new, whoever was read since.
        since = snapshot.block.number - 1 if previous is None else previous
        asked = not first and any_reread(conn, where, since)
        return Plan(snapshot, previous, watched, since if asked else None, first)

    def take(
        self,
        conn: sqlite3.Connection,
        snapshot: Snapshot,
        rows: Sequence[PositionRow],
        settled: Collection[Key] = (),
    ) -> Mapping[Key, tuple[str, str | None]]:
        """Writes the points of rows that were just written; returns the last point of each: status and health factor.

        Those that are `settled` are left out, whose last point is known to be near: they make one only if they are
        watched or were read again.
        """
        plan, where, block = self.plans.get(snapshot.where), snapshot.where, snapshot.block
        read = {} if plan is None else plan.reread(conn, map(pair_of, rows))
        if settled:
            rows = [
                row
                for row in rows
                if pair_of(row) not in settled or pair_of(row) in read or (plan is not None and plan.watches(row))
            ]
        keys = [*map(pair_of, rows)]
        points = {} if plan is not None and plan.first else last_points(conn, where, keys)
        if plan is None:
            return points
        moved = self._moved(conn, plan, [row for row in rows if pair_of(row) in read] if read else [], read, points)
        new = []
        for key, row in zip(keys, rows, strict=True):
            status, health = row.status, row.health_factor_raw
            last = points.get(key)
            if not (plan.watches(row) or key in moved or worth_keeping(last, status, health)):
                continue
            points[key] = (status, health)
            change = moved.get(key, Moved(0.0, 0.0) if last else Moved(None, None))
            new.append(
                (
                    *(*where, *key, block.number, block.timestamp, health),
                    *(row.collateral_usd, row.debt_usd, status, *change),
                )
            )
        conn.executemany(
            "insert into health_history (chain_id, deployment, account, position_group, block_number, block_timestamp, "
            "health_factor_raw, collateral_usd, debt_usd, status, supply_change_usd, debt_change_usd) "
            "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do update set "
            "health_factor_raw = excluded.health_factor_raw, collateral_usd = excluded.collateral_usd, "
            "debt_usd = excluded.debt_usd, status = excluded.status, "
            "supply_change_usd = supply_change_usd + excluded.supply_change_usd, "
            "debt_change_usd = debt_change_usd + excluded.debt_change_usd",
            new,
        )
        plan.added += len(new)
        return points

    @staticmethod
    def _moved(
        conn: sqlite3.Connection,
        plan: Plan,
        rows: Sequence[PositionRow],
        read: Mapping[Key, Reread],
        points: Mapping[Key, object],
    ) -> dict[Key, Moved]:
        """What was added or taken since the last snapshot, of the positions of these rows, which were `read` again."""
        snapshot, previous, keys = plan.snapshot, plan.previous, [*map(pair_of, rows)]
        if previous is None or not rows:
            return dict.fromkeys(keys, Moved(None, None))
        before, after = (balances_of(conn, snapshot.where, keys, table) for table in (BEFORE, "balances"))
        found = {}
        for key, row in zip(keys, rows, strict=True):
            old, new = before.get(key, {}), after.get(key, {})
            if read[key].incomplete:
                change = change_of_incomplete(old, new, complete=bool(row.supplies_complete))
            else:
                change = change_of(old, new)
            if change is None:
                continue
            if key not in points and (snapshot.accounts == Accounts.WATCHED or read[key].first_block <= previous):
                change = Moved(None, None)  # the position existed before it was found
            found[key] = change
        return found

    def _thin(self, conn: sqlite3.Connection, snapshot: Snapshot, now: int, limit: int) -> None:
        """Thins the next `limit` rows of the deployment in the order of accounts, starting anywhere, up to the last."""
        where = snapshot.where
        for left in range(limit, 0, -SLICE):
            start = self.cursors.get(where) or (f"0x{self.random.getrandbits(160):040x}", "")
            self.cursors[where] = thin(conn, where, now, start, min(SLICE, left))
            if self.cursors[where] == FIRST:
                return


def worth_keeping(last: tuple[str, str | None] | None, status: str, health: str | None) -> bool:
    """Whether (status, health factor) deserves a new point after the `last` one."""
    if last is None or status in ENDANGERED or status != last[0]:
        return True
    if health == last[1]:
        return False
    if health is None or last[1] is None:
        return True
    before = int(last[1])
    return abs(int(health) - before) * 100 >= before


def trusted(conn: sqlite3.Connection, where: tuple[int, str]) -> bool:
    """Whether any row of the deployment is verified, or it has no rows."""
    found = conn.execute(
        "select exists (select 1 from positions where chain_id = ?1 and deployment = ?2 and status <> 'unverified') "
        "or not exists (select 1 from positions where chain_id = ?1 and deployment = ?2)",
        where,
    ).fetchone()
    return bool(found[0])


def last_points(
    conn: sqlite3.Connection, where: tuple[int, str], keys: Iterable[Key]
) -> dict[Key, tuple[str, str | None]]:
    """The newest point of each of these positions that has one: status and health factor."""
    # of the key, not of each point `t`, so that it is looked up once however many points there are
    newest = f"t.block_number = (select max(n.block_number) from health_history n where {OF_KEY.format(t='n')})"  # noqa: S608
    rows = rows_of(
        conn, "t.account, t.position_group, t.status, t.health_factor_raw", "health_history", where, keys, newest
    )
    return {(account, group): (status, health) for account, group, status, health in rows}


# thinning ---------------------------------------------------------------------------------------------------------------


def interval(age: int) -> int:
    """The interval, in seconds, in which one point of this age is kept; 0 keeps all."""
    return next((size for limit, size in TIERS if age <= limit), OLDEST)


def thinned(points: Sequence[Point], now: int) -> list[Point]:
    """The points of one position that stay, which come in the order of their blocks: the last, with which the next row is
    compared, and of those before it, for each interval and status, the lowest health factor.

    This is the one deletion that cannot be undone; it goes by age alone, by the block's clock or the machine's, whichever
    is behind, so that no node ages it by a wrong time. The changes of dropped points are added to the
    one that stays. Where no point has a health factor, the last one stays.
    """
    groups: dict[tuple[int, int, str], list[Point]] = {}
    kept = [*points[-1:]]
    for point in points[:-1]:
        size = interval(now - point.timestamp)
        if size:
            groups.setdefault((size, point.timestamp // size, point.status), []).append(point)
        else:
            kept.append(point)
    for group in groups.values():
        known = [point for point in group if point.health_factor is not None]
        stays = min(known, key=lambda p: (p.health_factor, p.block_number)) if known else group[-1]
        kept.append(
            stays._replace(
                supply_change=total(p.supply_change for p in group), debt_change=total(p.debt_change for p in group)
            )
        )
    return sorted(kept)


def total(changes: Iterable[float | None]) -> float | None:
    """The sum of the known values, None if none is known."""
    known = [change for change in changes if change is not None]
    return sum(known) if known else None


def thin(
    conn: sqlite3.Connection, where: tuple[int, str], now: int, start: tuple[str, str], limit: int
) -> tuple[str, str]:
    """Thins about `limit` rows of a deployment after the position `start`; returns the position to continue after.

    Evidence: the points' own times and `now`, which no single clock can put ahead. Each interval keeps its minimum.
    """
    columns = (
        "account, position_group, block_number, block_timestamp, health_factor_raw, status, supply_change_usd, "
        "debt_change_usd"
    )
    rows = conn.execute(
        f"select {columns} from health_history where {HERE} and (account, position_group, block_number) > (?, ?, ?) "  # noqa: S608 - our names
        "order by account, position_group, block_number limit ?",
        (*where, *start, LAST, limit),
    ).fetchall()
    end = FIRST
    if len(rows) == limit:  # the last position may have more rows
        end = (rows[-1][0], rows[-1][1])
        rows = [row for row in rows if (row[0], row[1]) != end]
        rows += conn.execute(
            f"select {columns} from health_history where {HERE} and account = ? and position_group = ? "  # noqa: S608
            "order by block_number",
            (*where, *end),
        ).fetchall()
    dropped, merged = [], []
    for key, points in by_position(rows):
        stay = {point.block_number: point for point in thinned(points, now)}
        for point in points:
            kept = stay.get(point.block_number)
            if kept is None:
                dropped.append((*where, *key, point.block_number))
            elif kept != point:
                merged.append((kept.supply_change, kept.debt_change, *where, *key, point.block_number))
    at = f"{HERE} and account = ? and position_group = ? and block_number = ?"
    conn.executemany(f"delete from health_history where {at}", dropped)  # noqa: S608 - our names
    conn.executemany(f"update health_history set supply_change_usd = ?, debt_change_usd = ? where {at}", merged)  # noqa: S608
    return end


def by_position(rows: Iterable[Sequence[object]]) -> Iterator[tuple[Key, list[Point]]]:
    """Groups rows, ordered by key, into the points of each position that has several: a single one always stays."""
    for key, group in groupby(rows, key=itemgetter(0, 1)):
        mine = [*group]
        if len(mine) > 1:
            yield key, [Point(row[2], row[3], None if row[4] is None else int(row[4]), *row[5:]) for row in mine]  # type: ignore[arg-type, call-overload]


# reading ----------------------------------------------------------------------------------------------------------------

MOVEMENT_COLUMNS = (
    "chain_id deployment protocol wallet positions supply_change_usd debt_change_usd first_block_number "
    "last_block_number last_block_timestamp collateral_usd debt_usd health_factor_raw health_factor status last_block_time"
).split()


def movements(
    conn: sqlite3.Connection,
    *,
    since_block: int | None = None,
    since: int | None = None,
    until_block: int | None = None,
    until: int | None = None,
    min_usd: float = 0.0,
    chain_id: int | None = None,
    protocols: Sequence[str] = (),
) -> list[dict[str, object]]:
    """Wallets that added at least `min_usd` to a deployment or took it out, largest first; liquidations count as taking.

    After block `since_block` or time `since` (unix seconds), up to `until_block` or `until`. Changes are net sums in
    USD at the prices of their snapshots, without the effect of prices and interest; those of thinned points count at the
    point kept for their interval. `collateral_usd`, `debt_usd` and the health factor are of the last snapshot.
    """
    for part in each(conn):
        pruned.lay(part, since=since, since_block=since_block, moved=True)
    filters, values = ["(h.supply_change_usd <> 0 or h.debt_change_usd <> 0)"], []
    for condition, value in (
        ("h.block_number > ?", since_block),
        ("h.block_timestamp > ?", since),
        ("h.block_number <= ?", until_block),
        ("h.block_timestamp <= ?", until),
        ("h.chain_id = ?", chain_id),
    ):
        if value is not None:
            filters.append(condition)
            values.append(value)
    if protocols:
        filters.append(f"p.protocol in ({', '.join('?' * len(protocols))})")
        values += protocols  # type: ignore[arg-type]
    sql = (
        "select p.chain_id, p.deployment, p.wallet, total(h.supply_change_usd), total(h.debt_change_usd), "  # noqa: S608 - ours
        "min(h.block_number), max(h.block_number), max(h.block_timestamp) from health_history h "
        "cross join positions p using (chain_id, deployment, account, position_group) "
        f"where {' and '.join(filters)} group by p.chain_id, p.deployment, p.wallet "
        "having abs(total(h.supply_change_usd)) >= ? or abs(total(h.debt_change_usd)) >= ?"
    )
    found = {
        tuple(row[:3]): list(row[3:]) for part in each(conn) for row in part.execute(sql, (*values, min_usd, min_usd))
    }
    # Their present positions, in one pass.
    totals = (
        "select chain_id, deployment, wallet, protocol, count(*), sum(collateral_usd), sum(debt_usd), "
        "health_factor_raw, min(health_factor), status from positions group by chain_id, deployment, wallet"
    )
    rows = []
    for row in (row for part in each(conn) for row in part.execute(totals)):
        where = tuple(row[:3])
        if where in found:
            chain, deployment, wallet, protocol, count, collateral, debt, *health = row
            moved = found[where]
            rows.append(
                [chain, deployment, protocol, wallet, count, *moved, collateral, debt, *health, iso(int(moved[-1]))]
            )
    rows.sort(key=lambda row: (-max(abs(row[5]), abs(row[6])), *row[:4]))
    return [dict(zip(MOVEMENT_COLUMNS, row, strict=True)) for row in rows]


def unknown_movements(conn: sqlite3.Connection, chain_id: int | None = None) -> int:
    """How many positions have a point after a reorganisation or a late discovery, whose movement is unknown."""
    sql = (
        "select count(*) from (select chain_id, deployment, account, position_group from main.health_history h "
        "where supply_change_usd is null "
        "and (?1 is null or chain_id = ?1) and exists (select 1 from main.health_history o where o.chain_id = h.chain_id "
        "and o.deployment = h.deployment and o.account = h.account and o.position_group = h.position_group "
        "and o.block_number < h.block_number) union select chain_id, deployment, account, position_group "
        "from unknown_movements where ?1 is null or chain_id = ?1)"
    )
    return sum(part.execute(sql, (chain_id,)).fetchone()[0] for part in each(conn))


def movement_remarks(conn: sqlite3.Connection, chain_id: int | None = None) -> list[str]:
    """What a reader of movements must know: of how many positions some are unknown."""
    unknown = unknown_movements(conn, chain_id)
    if not unknown:
        return []
    return [
        f"of {unknown:,} positions some movement is unknown: a price is missing, they were found late, or the snapshot "
        "to compare with was orphaned"
    ]
