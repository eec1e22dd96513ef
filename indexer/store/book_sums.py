"""What all stored positions supply and owe, by asset and status, kept up while rows are replaced.

Adding up every balance takes seconds where there are millions, and a sync that follows the chain replaces few rows a
block. So the sums of a deployment are computed from the rows of a whole snapshot, or from the file where they are not
known, and then follow each replaced row: its old balances are taken out, its new ones put in. Integers only, so that
nothing adds up over time; USD count in billionths.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from indexer.model import PositionKey
from indexer.store.rows import BalanceRow, PositionRow

Where = tuple[int, str]
Place = tuple[str, str]  # asset, status
BILLION = 10**9


class Held(NamedTuple):
    """What is counted of a balance."""

    asset: str
    symbol: str
    side: str
    is_collateral: int
    amount: int
    value_usd: float | None


@dataclass(slots=True)
class Amount:
    """A sum in smallest units and in billionths of USD; `unvalued` balances of it have no value in USD."""

    amount: int = 0
    billionths: int = 0
    unvalued: int = 0

    @property
    def usd(self) -> float | None:
        """The value of what has one; None where nothing has."""
        return None if self.unvalued and not self.billionths else self.billionths / BILLION


@dataclass(slots=True)
class Sum:
    """One asset in the positions of one status; `collateral` is the part of `supply` that backs debt."""

    positions: int = 0
    supply: Amount = field(default_factory=Amount)
    collateral: Amount = field(default_factory=Amount)
    debt: Amount = field(default_factory=Amount)

    def add(self, held: Held, sign: int) -> None:
        parts = [self.debt] if held.side == "debt" else [self.supply, self.collateral][: 1 + held.is_collateral]
        for part in parts:
            part.amount += sign * held.amount
            if held.value_usd is None:
                part.unvalued += sign
            else:
                part.billionths += sign * round(held.value_usd * BILLION)


@dataclass(slots=True)
class Sums:
    """The sums of one deployment, and the symbol of each asset."""

    by_place: dict[Place, Sum] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)

    def count(self, status: str, balances: Iterable[Held], sign: int = 1) -> None:
        """Puts in the balances of one position, or with sign -1 takes them out."""
        assets = set()
        for held in balances:
            self.symbols[held.asset] = held.symbol
            place = (held.asset, status)
            if place not in self.by_place:
                self.by_place[place] = Sum()
            self.by_place[place].add(held, sign)
            assets.add(held.asset)
        for asset in assets:
            place = (asset, status)
            self.by_place[place].positions += sign
            if not self.by_place[place].positions:
                del self.by_place[place]


class BookSums:
    """The sums of each deployment whose rows this store has written; whatever else changes them makes it forget."""

    def __init__(self) -> None:
        self.known: dict[Where, Sums] = {}
        self.version: int | None = None

    def forget(self) -> None:
        """Rows were changed by other hands, or a transaction that replaced some was abandoned."""
        self.known.clear()

    def look(self, conn: sqlite3.Connection) -> None:
        """Forgets the sums if another connection has written into the file since."""
        (version,) = conn.execute("pragma data_version").fetchone()
        if version != self.version:
            self.known.clear()
            self.version = version

    def of(self, conn: sqlite3.Connection, where: Where) -> Sums:
        """The sums of a deployment's rows as they are in the file."""
        if where not in self.known:
            self.known[where] = stored(conn, where)
        return self.known[where]

    def whole(self, where: Where, rows: Sequence[PositionRow], balances: Sequence[BalanceRow]) -> None:
        """All rows of a deployment are these."""
        self.known[where] = added(Sums(), rows, balances)

    def take_out(self, conn: sqlite3.Connection, where: Where, keys: Iterable[PositionKey]) -> None:
        """The rows of these positions are about to be replaced."""
        sums = self.known.get(where)
        if sums is not None:
            # One statement for all of them: one for each position takes twice as long.
            count_rows(sums, conn.execute(THESE, (*where, json.dumps([*keys]))), -1)

    def put_in(self, where: Where, rows: Sequence[PositionRow], balances: Sequence[BalanceRow]) -> None:
        """The rows that were put in the place of those taken out."""
        sums = self.known.get(where)
        if sums is not None:
            added(sums, rows, balances)


COUNTED = "b.asset, b.symbol, b.side, b.is_collateral, b.amount_raw, b.value_usd"
#: key, status and balance of every position of a deployment, and of those whose keys are in the JSON list ?3
ROWS = (
    f"select p.account, p.position_group, p.status, {COUNTED} from positions p "  # noqa: S608 - our own names
    "join balances b using (chain_id, deployment, account, position_group) where p.chain_id = ?1 and p.deployment = ?2"
)
THESE = ROWS.replace(
    "positions p join",
    "json_each(?3) k cross join positions p on p.account = json_extract(k.value, '$[0]') "
    "and p.position_group = json_extract(k.value, '$[1]') cross join",
)


def held(row: Sequence[object]) -> Held:
    """A row of COUNTED, as the file has it."""
    asset, symbol, side, is_collateral, amount, usd = row
    return Held(asset, symbol, side, is_collateral, int(amount), usd)  # type: ignore[arg-type, call-overload]


def added(sums: Sums, rows: Sequence[PositionRow], balances: Sequence[BalanceRow]) -> Sums:
    """The sums with these rows put in."""
    by_key: dict[tuple[str, str], list[Held]] = {}
    for b in balances:
        one = Held(b.asset, b.symbol, b.side, b.is_collateral, int(b.amount_raw), b.value_usd)
        by_key.setdefault((b.account, b.position_group), []).append(one)
    for row in rows:
        sums.count(row.status, by_key.get((row.account, row.position_group), ()))
    return sums


def stored(conn: sqlite3.Connection, where: Where) -> Sums:
    """The sums of a deployment, added up from every row in the file."""
    sums = Sums()
    count_rows(sums, conn.execute(f"{ROWS} order by p.account, p.position_group", where))
    return sums


def count_rows(sums: Sums, rows: Iterable[Sequence[Any]], sign: int = 1) -> None:
    """Counts balances with their position's key and status in front, those of a position behind each other."""
    for (_, _, status), found in groupby(rows, key=itemgetter(0, 1, 2)):
        sums.count(status, [held(row[3:]) for row in found], sign)
