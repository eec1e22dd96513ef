"""What all stored positions supply and owe, by asset and status, kept up while rows are replaced.

Adding up every balance takes seconds where there are millions, and a sync that follows the chain replaces few rows a
block. So the sums of a deployment are computed from the rows of a whole snapshot, or from the file where they are not
known, and then follow each replaced row: its old balances are taken out, its new ones put in. Integers only, so that
nothing adds up over time; USD count in billionths.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from indexer.store.rows import BALANCE_COLUMNS, BalanceValues, PositionRow, pair_of

Where = tuple[int, str]
Place = tuple[str, str]  # asset, status
Key = tuple[str, str]  # account, position_group
BILLION = 10**9


#: what is counted of a balance: a row of `balances` has it in these columns
COUNTED = ("account", "position_group", "asset", "symbol", "side", "is_collateral", "amount_raw", "value_usd")
#: a row of COUNTED
Counted = tuple[str, str, str, str, str, int, str, float | None]
counted_of: Callable[[BalanceValues], Counted] = itemgetter(*map(BALANCE_COLUMNS.index, COUNTED))


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
    """One asset in the positions of one status; of what they supply `collateral` backs debt, and `idle` does not."""

    positions: int = 0
    collateral: Amount = field(default_factory=Amount)
    idle: Amount = field(default_factory=Amount)
    debt: Amount = field(default_factory=Amount)

    @property
    def supply(self) -> Amount:
        backing, idle = self.collateral, self.idle
        return Amount(
            backing.amount + idle.amount, backing.billionths + idle.billionths, backing.unvalued + idle.unvalued
        )


@dataclass(slots=True)
class Sums:
    """The sums of one deployment, and the symbol of each asset."""

    by_place: dict[Place, Sum] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)

    def count(self, statuses: Mapping[Key, str], balances: Iterable[Counted], sign: int = 1) -> None:
        """Puts in the balances of positions with these statuses, or with sign -1 takes them out.

        Those of one position stand together.
        """
        last, status, seen = ("", ""), "", set[str]()
        for account, group, asset, symbol, side, is_collateral, amount_raw, usd in balances:
            if (account, group) != last:
                last, seen = (account, group), set()
                status = statuses[last]
            place = (asset, status)
            found = self.by_place.get(place)
            if found is None:
                found = self.by_place[place] = Sum()
                self.symbols[asset] = symbol
            if asset not in seen:
                seen.add(asset)
                found.positions += sign
            part = found.debt if side == "debt" else found.collateral if is_collateral else found.idle
            part.amount += sign * int(amount_raw)
            if usd is None:
                part.unvalued += sign
            else:
                part.billionths += sign * round(usd * BILLION)
        if sign < 0:
            for place in [place for place, found in self.by_place.items() if not found.positions]:
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

    def empty(self, where: Where) -> None:
        """The rows of a deployment are about to be put in anew."""
        self.known[where] = Sums()

    def take_out(self, where: Where, statuses: Mapping[Key, str], balances: Iterable[Counted]) -> None:
        """The rows of these positions, with all of their balances, have left the file."""
        sums = self.known.get(where)
        if sums is not None:
            sums.count(statuses, balances, -1)

    def put_in(self, where: Where, rows: Sequence[PositionRow], balances: Sequence[BalanceValues]) -> None:
        """These rows were put in the place of those taken out."""
        sums = self.known.get(where)
        if sums is not None:
            sums.count({pair_of(row): row.status for row in rows}, map(counted_of, balances))


def stored(conn: sqlite3.Connection, where: Where) -> Sums:
    """The sums of a deployment, added up from every row in the file."""
    sums, statuses = Sums(), dict[Key, str]()
    rows = conn.execute(
        f"select p.status, {', '.join(f'b.{name}' for name in COUNTED)} from positions p "  # noqa: S608 - our own names
        "join balances b using (chain_id, deployment, account, position_group) "
        "where p.chain_id = ? and p.deployment = ? order by p.account, p.position_group",
        where,
    )

    def balances() -> Iterator[Counted]:
        for status, *counted in rows:
            statuses.clear()  # only that of the position in hand is asked for
            statuses[counted[0], counted[1]] = status
            yield tuple(counted)

    sums.count(statuses, balances())
    return sums
