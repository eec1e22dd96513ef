"""How much each wallet holds of each asset and in each deployment: one pass over the rows, with wallets as numbers.

A million wallets as dictionary keys would take most of a gigabyte, so what they hold stands in arrays.
"""

import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any, NamedTuple

from indexer.errors import StoreError
from indexer.store.shards import each

#: so many values are added up by NumPy, which takes as long to import as Python takes to add up fewer
MANY = 100_000


class Kind(NamedTuple):
    """What a balance is: of which asset, owed or held, backing debt or not, and of a position that can be liquidated."""

    chain_id: int
    asset: str
    symbol: str
    side: str
    backs: int
    liquidatable: int

    @property
    def owed(self) -> bool:
        return self.side == "debt"


@dataclass(slots=True)
class Holdings:
    """Sums by wallet, in USD. A wallet's number is the hash of its address: 64 bits that nobody can choose."""

    wallets: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def extend(self, other: "Holdings") -> None:
        self.wallets.extend(other.wallets)
        self.values.extend(other.values)

    def sums(self) -> Sequence[float]:
        """One sum per wallet, in no order."""
        return many_by_wallet(self) if len(self.values) >= MANY else few_by_wallet(self)


def few_by_wallet(held: Holdings) -> list[float]:
    found: dict[int, float] = {}
    for wallet, value in zip(held.wallets, held.values, strict=True):
        found[wallet] = found.get(wallet, 0.0) + value
    return list(found.values())


def many_by_wallet(held: Holdings) -> "array[float]":
    """The same without a dictionary of all wallets."""
    import numpy as np  # noqa: PLC0415 - slow to import, and few books are as large

    _, places = np.unique(np.frombuffer(held.wallets, np.int64), return_inverse=True)
    return array("d", np.bincount(places, np.frombuffer(held.values, np.float64)).tobytes())


def together(parts: Iterable[Holdings]) -> Holdings:
    found = Holdings()
    for part in parts:
        found.extend(part)
    return found


@dataclass(slots=True)
class OfKind:
    """The balances of one kind: their exact sum, the value of each that has one, and how many have none."""

    amount: int = 0
    unvalued: int = 0
    valued: Holdings = field(default_factory=Holdings)


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
    collaterals: Sequence[float]  # USD, one sum per wallet
    debts: Sequence[float]

    @property
    def unvalued(self) -> int:
        return self.supply.unvalued + self.debt.unvalued


@dataclass(slots=True)
class Held:
    """What the positions of some deployments hold and owe: the balances of each kind, and of each deployment by wallet."""

    kinds: dict[Kind, OfKind] = field(default_factory=dict)
    deployments: dict[str, tuple[Holdings, Holdings]] = field(default_factory=dict)  # debts and collaterals

    def assets(self) -> dict[tuple[int, str], OfAsset]:
        """By chain and asset."""
        found = {}
        for asset in dict.fromkeys((kind.chain_id, kind.asset) for kind in self.kinds):
            mine = {kind: one for kind, one in self.kinds.items() if (kind.chain_id, kind.asset) == asset}
            owed, supplied = ([one for kind, one in mine.items() if kind.owed is owed] for owed in (True, False))
            backing = [one for kind, one in mine.items() if not kind.owed and kind.backs]
            liquidatable = [one for kind, one in mine.items() if kind.owed and kind.liquidatable]
            found[asset] = OfAsset(
                max(kind.symbol for kind in mine),
                *(side(supplied), side(backing), side(owed)),
                side(liquidatable).usd or 0.0,
                *(together(one.valued for one in part).sums() for part in (backing, owed)),
            )
        return found

    def sums(self) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
        """The wallets' debts and collaterals by deployment, and of all deployments under `all`."""
        debts, collaterals = zip(*self.deployments.values(), strict=True) if self.deployments else ((), ())
        whole = {"all": (together(debts).sums(), together(collaterals).sums())} if self.deployments else {}
        return whole | {name: (own[0].sums(), own[1].sums()) for name, own in self.deployments.items()}


def side(parts: Sequence[OfKind]) -> Side:
    valued, unvalued = sum(len(part.valued.values) for part in parts), sum(part.unvalued for part in parts)
    usd = fsum(fsum(part.valued.values) for part in parts) if valued or not unvalued else None
    return Side(sum(part.amount for part in parts), usd, unvalued)


def held(conn: sqlite3.Connection, where: str, values: Sequence[Any]) -> Held:
    """Of the deployments that `where`, a condition on the protocol and the deployment, selects."""
    found = Held()
    for part in each(conn):
        selected = f"select chain_id, deployment from deployments where {where} order by 1, 2"  # noqa: S608 - our own names
        for chain_id, name in part.execute(selected, [*values]).fetchall():
            _add_deployment(part, chain_id, name, found)
    return found


def _add_deployment(conn: sqlite3.Connection, chain_id: int, name: str, found: Held) -> None:
    """Goes through positions and balances side by side, in the order of the key that both are stored in.

    A join would look for the balances of each position, and give its wallet with each of them.
    """
    here = "where chain_id = ? and deployment = ? order by account, position_group"
    positions, balances = conn.cursor(), conn.cursor()
    positions.row_factory = balances.row_factory = None  # plain tuples are faster than rows with column names
    positions.execute(
        "select account, position_group, wallet, status = 'liquidatable', coalesce(debt_usd, 0.0), "  # noqa: S608 - ours
        f"coalesce(collateral_usd, 0.0) from positions {here}",
        (chain_id, name),
    )
    balances.execute(
        "select account, position_group, asset, symbol, side, is_collateral, amount_raw, value_usd "  # noqa: S608 - ours
        f"from balances {here}",
        (chain_id, name),
    )
    debts, collaterals = found.deployments.setdefault(name, (Holdings(), Holdings()))
    kinds: dict[tuple[Any, ...], OfKind] = {}
    of, of_group, number, liquidatable = None, None, 0, 0
    for account, group, asset, symbol, side, backs, amount, value in balances:
        if account != of or group != of_group:
            for of, of_group, wallet, status, debt, collateral in positions:
                number, liquidatable = hash(wallet.lower()), status
                debts.wallets.append(number)
                debts.values.append(debt)
                collaterals.values.append(collateral)
                if of == account and of_group == group:
                    break
            else:
                raise StoreError(
                    f"the balances of {account} in {name} have no position: restore a copy of the file, or delete it and run "
                    "`indexer sync` again"
                )
        kind = (asset, symbol, side, backs, liquidatable)
        one = kinds.get(kind)
        if one is None:
            one = kinds[kind] = found.kinds.setdefault(Kind(chain_id, *kind), OfKind())
        one.amount += int(amount)
        if value is None:
            one.unvalued += 1
        else:
            one.valued.wallets.append(number)
            one.valued.values.append(value)
    for _, _, wallet, _, debt, collateral in positions:
        debts.wallets.append(hash(wallet.lower()))
        debts.values.append(debt)
        collaterals.values.append(collateral)
    collaterals.wallets.extend(debts.wallets[len(collaterals.wallets) :])
