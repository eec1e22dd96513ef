"""Whom a scenario can reach: who certainly stays healthy in it need not be loaded and evaluated."""

import math
from collections.abc import Sequence

from indexer.adapter import Bounded
from indexer.model import Market
from indexer.store.books import Book, Holding

#: How far a health factor may be off. Prices are rounded to the oracle's integers, values to integers, Aave's average
#: threshold to a basis point, which is 1 % of a threshold of 1 %; a row of an older block is at most 1 % off. Two such
#: steps and some room.
MARGIN = 1.03


def span(book: Book, later: Sequence[Market]) -> tuple[float, float] | None:
    """The least and the most that a price is of its present value in any of these markets, 1 included.

    None where more than prices differ, or the protocol's limit and debt are no sums over lines (`Bounded`).
    """
    least, most = 1.0, 1.0
    if not isinstance(book.adapter, Bounded) or not book.market.exact:
        return None
    prices, limits = book.adapter.quotes(book.market).prices, book.adapter.thresholds(book.market)
    for market in later:
        new = book.adapter.quotes(market).prices
        same = market.block == book.market.block and new.keys() == prices.keys()
        if not same or book.adapter.thresholds(market) != limits or not all(prices.values()):
            return None
        shares = [new[key] / price for key, price in prices.items()]
        least, most = min([least, *shares]), max([most, *shares])
    return least, most


def reach(book: Book, later: Sequence[Market]) -> float:
    """The health factor from which on no position becomes liquidatable in any of these markets; infinite if unknown.

    If no price falls below f times or rises above g times its present value, the limit is at least f times and the debt at
    most g times as large, so a health factor of g / f or more stays above 1, apart from rounding, which MARGIN covers.
    """
    found = span(book, later)
    return math.inf if found is None or found[0] <= 0 else found[1] / found[0] * MARGIN


def moved(book: Book, later: Sequence[Market]) -> frozenset[Holding] | None:
    """The assets whose price differs in any of these markets.

    None where a price that is not an asset's does, and where most do: to look for them would take longer than it saves.
    """
    prices = {(row.group, row.asset, row.market): row.price for row in book.market.assets}
    rows = {
        (row.group, row.asset)
        for market in later
        for row in market.assets
        if row.price != prices[row.group, row.asset, row.market]
    }
    quoted = book.adapter.quotes(book.market).prices
    keys = {
        key for market in later for key, price in book.adapter.quotes(market).prices.items() if price != quoted[key]
    }
    few = len(rows) < len(prices) / 2 and keys <= {group or asset for group, asset in rows}
    return frozenset(rows) if few else None


def endangered(book: Book, later: Sequence[Market]) -> Book:
    """The book without who is unverified, and without who stays healthy in all of these markets.

    Those are who is far enough from liquidation, and who holds and owes nothing whose price differs. Debt that is worth
    nothing stays so where no price rises.
    """
    book = book.trusted()
    found = span(book, later)
    if found is None:
        return book
    left = book.below(reach(book, later), moved(book, later))
    return left.worth() if found[1] <= 1 else left
