"""How much each wallet holds of each asset and in each deployment: one pass over the rows, with wallets as numbers.

A million wallets as dictionary keys would take most of a gigabyte, so sums by wallet are arrays.
"""

import heapq
import sqlite3
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.queries.shards import chained
from indexer.store.shards import each


class Numbers:
    """A number for each wallet; rows of one wallet must follow each other unless it has several positions."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self.several = {wallet: number for number, wallet in enumerate(wallets_of_several(conn))}
        self.last, self.next = "", len(self.several)

    def __call__(self, wallet: str) -> int:
        number = self.several.get(wallet.lower())
        if number is not None:
            return number
        if wallet != self.last:
            self.last, self.next = wallet, self.next + 1
        return self.next


def wallets_of_several(conn: sqlite3.Connection) -> list[str]:
    """The wallets, in lower case, that have more than one position."""
    if len(each(conn)) == 1:
        sql = "select lower(wallet) from positions group by wallet having count(*) > 1"
        return [wallet for (wallet,) in chained(conn, sql, ())]
    sql = "select lower(wallet), count(*) from positions group by wallet order by 1"
    parts = [part.execute(sql) for part in each(conn)]
    found = groupby(heapq.merge(*parts, key=itemgetter(0)), itemgetter(0))
    return [wallet for wallet, rows in found if sum(count for _, count in rows) > 1]


@dataclass(slots=True)
class Holdings:
    """Sums of one asset or deployment by wallet, in USD."""

    wallets: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def sums(self) -> NDArray[np.float64]:
        """One sum per wallet."""
        _, places = np.unique(np.frombuffer(self.wallets, np.int64), return_inverse=True)
        values = np.frombuffer(self.values, np.float64)
        return np.asarray(np.bincount(places, values), np.float64) if len(places) else values


@dataclass(slots=True)
class Side:
    """What all positions hold or owe of one asset."""

    rows: int = 0
    known: int = 0
    amount: int = 0
    value_usd: float = 0.0

    def add(self, amount: str, value_usd: float | None) -> None:
        self.rows += 1
        self.amount += int(amount)
        if value_usd is not None:
            self.known += 1
            self.value_usd += value_usd

    @property
    def usd(self) -> float | None:
        """The sum of the known values; None where there are values and none is known."""
        return self.value_usd if self.known or not self.rows else None


@dataclass(slots=True)
class OfAsset:
    """One asset of a chain over all deployments."""

    symbol: str = ""
    supply: Side = field(default_factory=Side)
    collateral: Side = field(default_factory=Side)
    debt: Side = field(default_factory=Side)
    liquidatable_debt_usd: float = 0.0
    collaterals: Holdings = field(default_factory=Holdings)
    debts: Holdings = field(default_factory=Holdings)

    @property
    def unvalued(self) -> int:
        return self.supply.rows - self.supply.known + self.debt.rows - self.debt.known


def of_assets(conn: sqlite3.Connection, where: str, values: Sequence[Any]) -> dict[tuple[int, str], OfAsset]:
    """By chain and asset; `where` is a condition on the protocol and the deployment."""
    number = Numbers(conn)
    found: dict[tuple[int, str], OfAsset] = {}
    for chain_id, asset, symbol, side, backs, amount, usd, wallet, liquidatable in chained(
        conn,
        "select chain_id, b.asset, b.symbol, b.side, b.is_collateral, b.amount_raw, b.value_usd, p.wallet,"  # noqa: S608
        " p.status = 'liquidatable' from positions p cross join balances b"
        f" using (chain_id, deployment, account, position_group) where {where}",
        values,
    ):
        one = found.get((chain_id, asset))
        if one is None:
            one = found[chain_id, asset] = OfAsset()
        one.symbol = max(one.symbol, symbol)
        if side == "debt":
            one.debt.add(amount, usd)
            one.debts.wallets.append(number(wallet))
            one.debts.values.append(usd or 0.0)
            if liquidatable:
                one.liquidatable_debt_usd += usd or 0.0
            continue
        one.supply.add(amount, usd)
        if backs:
            one.collateral.add(amount, usd)
            one.collaterals.wallets.append(number(wallet))
            one.collaterals.values.append(usd or 0.0)
    return found


def of_deployments(
    conn: sqlite3.Connection, where: str, values: Sequence[Any]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The wallets' debts and collaterals by deployment, and of all deployments under `all`."""
    number = Numbers(conn)
    found: dict[str, tuple[Holdings, Holdings]] = {}
    whole = Holdings(), Holdings()
    for deployment, wallet, debt, collateral in chained(
        conn,
        f"select deployment, wallet, debt_usd, collateral_usd from positions where {where}",  # noqa: S608 - our own names
        values,
    ):
        own = found.get(deployment)
        if own is None:
            own = found[deployment] = Holdings(), Holdings()
        n = number(wallet)
        for holdings, value in zip(own, (debt, collateral), strict=True):
            holdings.wallets.append(n)
            holdings.values.append(value or 0.0)
    for own in found.values():
        for holdings, part in zip(whole, own, strict=True):
            holdings.wallets.extend(part.wallets)
            holdings.values.extend(part.values)
    sums = {name: (own[0].sums(), own[1].sums()) for name, own in found.items()}
    return {"all": (whole[0].sums(), whole[1].sums()), **sums} if sums else {}
