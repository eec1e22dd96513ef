"""What each wallet holds of each asset and in each deployment: one pass over rows and balances, with wallets as numbers.

A million wallets as dictionary keys would take most of a gigabyte, so what they hold stands in arrays.
"""

import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappushpop
from math import fsum
from typing import Any, NamedTuple, TypeVar

from indexer.errors import StoreError
from indexer.model import Status
from indexer.queries.book import bucket_sql
from indexer.queries.spread import MANY, Spread, few_spreads, many_spreads
from indexer.store.shards import each

T = TypeVar("T", int, float)
#: of so many of the largest debts the wallet is remembered
REMEMBERED = 1_000


#: what a balance is to its position; debts are not told apart by whether they may be collateral
IDLE, BACKING, OWED = 0, 1, 2
ROLE = f"case when side = 'debt' then {OWED} else is_collateral <> 0 end"


class Kind(NamedTuple):
    """What a balance is: of which asset, in which role, and of a position that can be liquidated."""

    chain_id: int
    asset: str
    symbol: str
    role: int
    liquidatable: bool


@dataclass(slots=True)
class OfKind:
    """The balances of one kind: their exact sum, the value of each that has one and whose it is, and how many have none."""

    amount: int = 0
    unvalued: int = 0
    wallets: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))


@dataclass(frozen=True, slots=True)
class Side:
    """What all positions hold or owe of one asset; `usd` is the sum of known values, None where there are none of several."""

    amount: int
    usd: float | None
    unvalued: int


@dataclass(frozen=True, slots=True)
class OfAsset:
    """One asset of a chain over all deployments."""

    symbol: str
    supply: Side
    collateral: Side
    debt: Side
    liquidatable_debt_usd: float
    collaterals: Spread
    debts: Spread

    @property
    def unvalued(self) -> int:
        return self.supply.unvalued + self.debt.unvalued


@dataclass(slots=True)
class Group:
    """The positions of one status and bucket of health factors: whose, and USD owed and backing debt, 0 where unknown."""

    wallets: "array[int]" = field(default_factory=lambda: array("q"))
    debts: "array[float]" = field(default_factory=lambda: array("d"))
    collaterals: "array[float]" = field(default_factory=lambda: array("d"))
    unknown_debts: int = 0
    unknown_collaterals: int = 0

    def __len__(self) -> int:
        return len(self.wallets)


#: status, and the number of the bucket of health factors among `BOUNDS`, None without a health factor
Standing = tuple[str, int | None]


def debt_usd(groups: Sequence[Group]) -> float | None:
    """What these positions owe, of those of which it is known; None where there are some and it is known of none."""
    unknown = sum(one.unknown_debts for one in groups)
    return None if unknown and unknown == sum(map(len, groups)) else fsum(fsum(one.debts) for one in groups)


def collateral_usd(groups: Sequence[Group]) -> float | None:
    """The same of what backs their debt."""
    unknown = sum(one.unknown_collaterals for one in groups)
    return None if unknown and unknown == sum(map(len, groups)) else fsum(fsum(one.collaterals) for one in groups)


@dataclass(slots=True)
class OfDeployment:
    """The positions of one deployment."""

    protocol: str
    groups: dict[Standing, Group] = field(default_factory=dict)


@dataclass(slots=True)
class Held:
    """What the positions of some deployments hold and owe: the balances of each kind, the positions of each deployment."""

    kinds: dict[Kind, OfKind] = field(default_factory=dict)
    #: the largest debts and who owes them, as a heap
    largest: list[tuple[float, str]] = field(default_factory=lambda: [(0.0, "")] * REMEMBERED)
    deployments: dict[tuple[int, str], OfDeployment] = field(default_factory=dict)

    def assets(self) -> dict[tuple[int, str], OfAsset]:
        """By chain and asset."""
        of: dict[tuple[int, str], list[tuple[Kind, OfKind]]] = defaultdict(list)
        for kind, one in self.kinds.items():
            of[kind.chain_id, kind.asset].append((kind, one))
        found = {}
        for asset, mine in of.items():
            backing, owed = ([one for kind, one in mine if kind.role == role] for role in (BACKING, OWED))
            supplied = [one for kind, one in mine if kind.role != OWED]
            liquidatable = [one for kind, one in mine if kind.role == OWED and kind.liquidatable]
            found[asset] = OfAsset(
                max(kind.symbol for kind, _ in mine),
                *(side(supplied), side(backing), side(owed)),
                side(liquidatable).usd or 0.0,
                *self._spreads((one.wallets for one in backing), (one.values for one in backing)),
                *self._spreads((one.wallets for one in owed), (one.values for one in owed)),
            )
        return found

    def spreads(self) -> dict[str, list[Spread]]:
        """How debts and collaterals are spread, of all deployments under `all`, and of each."""
        parts = {"all": [group for one in self.deployments.values() for group in one.groups.values()]}
        parts |= {name: [*one.groups.values()] for (_, name), one in self.deployments.items()}
        if not self.deployments:
            return {}
        return {
            name: self._spreads(
                (one.wallets for one in groups), (one.debts for one in groups), (one.collaterals for one in groups)
            )
            for name, groups in parts.items()
        }

    def _spreads(self, wallets: "Iterable[array[int]]", *columns: "Iterable[array[float]]") -> list[Spread]:
        many = sum(len(one.values) for one in self.kinds.values()) >= MANY
        of = many_spreads if many else few_spreads
        return of(joined(array("q"), wallets), *(joined(array("d"), parts) for parts in columns))


def joined(found: "array[T]", parts: "Iterable[array[T]]") -> "array[T]":
    for part in parts:
        found.extend(part)
    return found


def side(parts: Sequence[OfKind]) -> Side:
    valued, unvalued = sum(len(part.values) for part in parts), sum(part.unvalued for part in parts)
    usd = fsum(fsum(part.values) for part in parts) if valued or not unvalued else None
    return Side(sum(part.amount for part in parts), usd, unvalued)


def held(conn: sqlite3.Connection, where: str, values: Sequence[Any], tell: Callable[[], None] = lambda: None) -> Held:
    """Of the deployments that `where`, a condition on the protocol and the deployment, selects; `tell` hears of each."""
    found = Held()
    for part in each(conn):
        selected = f"select chain_id, deployment, protocol from deployments where {where} order by 1, 2"  # noqa: S608 - our own names
        for chain_id, name, protocol in part.execute(selected, [*values]).fetchall():
            _add_deployment(part, chain_id, name, protocol, found)
            tell()
    return found


def _add_deployment(conn: sqlite3.Connection, chain_id: int, name: str, protocol: str, found: Held) -> None:
    """Goes through positions and balances side by side, in the order of the key that both are stored in.

    A join would look for the balances of each position, and give its wallet with each of them.
    """
    here = "where chain_id = ? and deployment = ? order by account, position_group"
    positions, balances = conn.cursor(), conn.cursor()
    positions.row_factory = balances.row_factory = None  # plain tuples are faster than rows with column names
    positions.execute(
        f"select account, position_group, wallet, status, {bucket_sql()}, debt_usd, collateral_usd "  # noqa: S608 - ours
        f"from positions {here}",
        (chain_id, name),
    )
    balances.execute(
        f"select account, position_group, asset, symbol, {ROLE}, amount_raw, value_usd from balances {here}",  # noqa: S608 - ours
        (chain_id, name),
    )
    of_name = found.deployments.setdefault((chain_id, name), OfDeployment(protocol))
    rows = _grouped(positions, of_name.groups, found.largest)
    kinds: dict[tuple[Any, ...], OfKind] = {}
    of, of_group, number, liquidatable = None, None, 0, False
    for account, group, asset, symbol, role, amount, value in balances:
        if account != of or group != of_group:
            for row in rows:
                if row[0] == account and row[1] == group:
                    of, of_group, number, liquidatable = row
                    break
            else:
                raise StoreError(
                    f"the balances of {account} in {name} have no position: restore a copy of the file, or delete it and run "
                    "`indexer sync` again"
                )
        kind = (asset, symbol, role, liquidatable)
        one = kinds.get(kind)
        if one is None:
            one = kinds[kind] = found.kinds.setdefault(Kind(chain_id, *kind), OfKind())
        one.amount += int(amount)
        if value is None:
            one.unvalued += 1
        else:
            one.wallets.append(number)
            one.values.append(value)
    for _ in rows:
        pass


def _grouped(
    rows: Iterable[Any], groups: dict[Standing, Group], largest: list[tuple[float, str]]
) -> Iterator[tuple[str, str, int, bool]]:
    """Puts each row of `positions` into its group; its key, the number of its wallet, and whether it can be liquidated."""
    for account, position_group, wallet, status, bucket, debt, collateral in rows:
        standing = (status, bucket)
        group = groups.get(standing)
        if group is None:
            group = groups[standing] = Group()
        number = hash(wallet.lower())
        group.wallets.append(number)
        group.debts.append(debt or 0.0)
        group.collaterals.append(collateral or 0.0)
        if debt is None:
            group.unknown_debts += 1
        elif debt > largest[0][0]:
            heappushpop(largest, (debt, wallet))
        if collateral is None:
            group.unknown_collaterals += 1
        yield account, position_group, number, status == Status.LIQUIDATABLE
