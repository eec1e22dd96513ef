"""How much each wallet holds of each asset and in each deployment: one pass over the rows, with wallets as numbers.

A million wallets as dictionary keys would take most of a gigabyte, so what they hold stands in arrays.
"""

import math
import sqlite3
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.errors import StoreError
from indexer.store.shards import each

Floats = NDArray[np.float64]


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

    def sums(self) -> Floats:
        """One sum per wallet."""
        return by_wallet(np.frombuffer(self.wallets, np.int64), np.frombuffer(self.values, np.float64))


def by_wallet(wallets: NDArray[np.int64], values: Floats) -> Floats:
    """One sum of the values per wallet."""
    _, places = np.unique(wallets, return_inverse=True)
    return np.asarray(np.bincount(places, values), np.float64) if len(places) else values


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
    collaterals: Floats
    debts: Floats

    @property
    def unvalued(self) -> int:
        return self.supply.unvalued + self.debt.unvalued


@dataclass(slots=True)
class Held:
    """What the positions of some deployments hold and owe: the balances of each kind, and of each deployment by wallet."""

    kinds: dict[Kind, int] = field(default_factory=dict)
    amounts: list[int] = field(default_factory=list)
    places: "array[int]" = field(default_factory=lambda: array("i"))  # the kind of each balance
    balances: Holdings = field(default_factory=Holdings)  # NaN without a value
    deployments: dict[str, tuple[Holdings, Holdings]] = field(default_factory=dict)  # debts and collaterals

    def assets(self) -> dict[tuple[int, str], OfAsset]:
        """By chain and asset."""
        places = np.frombuffer(self.places, np.int32)
        wallets = np.frombuffer(self.balances.wallets, np.int64)
        values = np.frombuffer(self.balances.values, np.float64)
        known = ~np.isnan(values)
        rows, valued = (np.bincount(places[which], minlength=len(self.kinds)) for which in (slice(None), known))
        usd = np.bincount(places[known], values[known], len(self.kinds))

        def side(kinds: Sequence[Kind]) -> Side:
            here = [self.kinds[kind] for kind in kinds]
            count, some = int(rows[here].sum()), int(valued[here].sum())
            sum_usd = float(usd[here].sum()) if some or not count else None
            return Side(sum(self.amounts[place] for place in here), sum_usd, count - some)

        by_kind = np.argsort(places, kind="stable")
        begins = np.searchsorted(places[by_kind], np.arange(len(self.kinds) + 1))

        def each_wallet(kinds: Sequence[Kind]) -> Floats:
            parts = [by_kind[begins[place] : begins[place + 1]] for place in (self.kinds[kind] for kind in kinds)]
            which = np.sort(np.concatenate(parts)) if parts else by_kind[:0]
            which = which[known[which]]
            return by_wallet(wallets[which], values[which])

        found = {}
        for asset in dict.fromkeys((kind.chain_id, kind.asset) for kind in self.kinds):
            mine = [kind for kind in self.kinds if (kind.chain_id, kind.asset) == asset]
            owed, supplied = [kind for kind in mine if kind.owed], [kind for kind in mine if not kind.owed]
            backing = [kind for kind in supplied if kind.backs]
            found[asset] = OfAsset(
                max(kind.symbol for kind in mine),
                *(side(supplied), side(backing), side(owed)),
                side([kind for kind in owed if kind.liquidatable]).usd or 0.0,
                *(each_wallet(backing), each_wallet(owed)),
            )
        return found

    def sums(self) -> dict[str, tuple[Floats, Floats]]:
        """The wallets' debts and collaterals by deployment, and of all deployments under `all`."""
        whole = Holdings(), Holdings()
        for own in self.deployments.values():
            for holdings, part in zip(whole, own, strict=True):
                holdings.wallets.extend(part.wallets)
                holdings.values.extend(part.values)
        sums = {name: (debts.sums(), collaterals.sums()) for name, (debts, collaterals) in self.deployments.items()}
        return {"all": (whole[0].sums(), whole[1].sums()), **sums} if sums else {}


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
    amounts, places, wallets, values = found.amounts, found.places, found.balances.wallets, found.balances.values
    kinds: dict[tuple[Any, ...], int] = {}
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
        place = kinds.get(kind)
        if place is None:
            place = kinds[kind] = found.kinds.setdefault(Kind(chain_id, *kind), len(amounts))
            if place == len(amounts):
                amounts.append(0)
        amounts[place] += int(amount)
        places.append(place)
        wallets.append(number)
        values.append(math.nan if value is None else value)
    for _, _, wallet, _, debt, collateral in positions:
        debts.wallets.append(hash(wallet.lower()))
        debts.values.append(debt)
        collaterals.values.append(collateral)
    collaterals.wallets.extend(debts.wallets[len(collaterals.wallets) :])
