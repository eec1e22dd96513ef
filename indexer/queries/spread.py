"""How values are spread over the wallets that they belong to: the share of the largest, and an index of concentration.

A wallet's number is the hash of its address: 64 bits that nobody can choose, and that differ from run to run. So sums over
wallets are exact and rounded once, whatever their order.
"""

from array import array
from collections.abc import Sequence
from heapq import nlargest
from math import fsum
from typing import NamedTuple

#: so many values are added up by NumPy, which takes as long to import as Python takes to add up fewer
MANY = 100_000
#: of so many wallets the share is told
LARGEST = 10


class Spread(NamedTuple):
    """How what all wallets together have is spread over them; shares and index are None where they have nothing.

    `hhi` is the Herfindahl-Hirschman index: the sum of the squared shares in per cent, 10,000 for a single wallet.
    `largest` are what LARGEST wallets have, and the next one, the most first.
    """

    wallets: int  # that have more than nothing
    top10_percent: float | None
    hhi: float | None
    largest: tuple[float, ...]


def few_spreads(wallets: "array[int]", *columns: "array[float]") -> list[Spread]:
    """The spread of each column of values, which stand beside the numbers of their wallets."""
    found = []
    for values in columns:
        by_wallet: dict[int, float] = {}
        for wallet, value in zip(wallets, values, strict=True):
            by_wallet[wallet] = by_wallet.get(wallet, 0.0) + value
        sums = list(by_wallet.values())
        whole = fsum(sums)
        shares = [100 * value / whole for value in sums] if whole else []
        found.append(_spread(whole, sum(value > 0 for value in sums), sums, [x * x for x in shares]))
    return found


def many_spreads(wallets: "array[int]", *columns: "array[float]") -> list[Spread]:
    """The same without a dictionary of all wallets."""
    import numpy as np  # noqa: PLC0415 - slow to import, and few books are as large

    found = []
    _, places = np.unique(np.frombuffer(wallets, np.int64), return_inverse=True)
    for values in columns:
        sums = np.bincount(places, np.frombuffer(values, np.float64))
        whole = fsum(sums.tolist())
        shares = 100 * sums / (whole or 1.0)
        most = np.partition(sums, -LARGEST - 1)[-LARGEST - 1 :] if len(sums) > LARGEST else sums
        found.append(_spread(whole, int((sums > 0).sum()), most.tolist(), (shares * shares).tolist()))
    return found


def _spread(whole: float, wallets: int, most: Sequence[float], squares: Sequence[float]) -> Spread:
    largest = tuple(nlargest(LARGEST + 1, most))
    if not whole:
        return Spread(0, None, None, largest)
    return Spread(wallets, 100 * (fsum(largest[:LARGEST]) / whole), fsum(squares), largest)  # of the whole exactly 100
