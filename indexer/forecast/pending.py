"""What is already decided: a price that is on the chain and not yet in force, or interest alone, that ends a position.

No chance is in it. The health factor is exact at the present block; a price comes into force at the earliest (OSM) or at the
latest (SVR) at the time that is told, unless governance stops it or a later round replaces it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from indexer.forecast.exposures import Later
from indexer.forecast.factors import Priced
from indexer.model import Market, Position
from indexer.queries.prices import Pending
from indexer.risk.liquidation import time_to_liquidation

INTEREST = "interest"


class Coming(NamedTuple):
    """What makes a position liquidatable: `kind` osm, svr or interest; `price_raw` in the feed's own integer, None for interest.

    `at` in unix seconds, None where the time is unknown.
    """

    kind: str
    at: int | None
    price_raw: int | None = None


def coming(later: Later, position: Position, keys: Sequence[str], priced: Priced) -> Coming | None:
    """The first of what is pending that makes the position liquidatable within the horizon of `later`, None for nothing."""
    found = [one for one in (by_price(later, position, keys, priced), by_interest(later, position)) if one is not None]
    return min(found, key=lambda one: (one.at is None, one.at or 0), default=None)


def by_price(later: Later, position: Position, keys: Sequence[str], priced: Priced) -> Coming | None:
    """Prices that wait come into force one after the other, each with those before it."""
    waiting = [(answer, key) for key in keys for answer in priced.pending.get(key, ())]
    prices = {}
    for answer, key in sorted(waiting, key=lambda one: (one[0].at is None, one[0].at or 0, one[0].known_at)):
        prices[key] = price_then(later, key, answer, priced)
        if liquidatable(later, later.at(0, position, prices), position):
            return Coming(answer.kind, answer.at, answer.answer_raw)
    return None


def price_then(later: Later, key: str, answer: Pending, priced: Priced) -> int:
    """The price that an answer makes, in the oracle's own integer; exact where the oracle passes on what the feed says."""
    mover, now = priced.movers[key], later.prices[key]
    ((before, exponent),) = [
        (priced.answers[key][feed], exponent) for feed, exponent in mover.feeds if feed[1] == answer.feed
    ]
    up, down = (answer.answer_raw, before) if exponent > 0 else (before, answer.answer_raw)
    price: int = now * up ** abs(exponent) // down ** abs(exponent)
    return price if mover.cap is None else min(price, int(now * mover.cap))


def by_interest(later: Later, position: Position) -> Coming | None:
    """Interest at today's rates and prices, if it alone is enough before the horizon ends."""
    if not liquidatable(later, later.ends[-1], position):
        return None
    seconds = time_to_liquidation(later.adapter, later.market, position, later.pace)
    return None if seconds is None else Coming(INTEREST, later.market.block.timestamp + seconds)


def liquidatable(later: Later, market: Market, position: Position) -> bool:
    return later.adapter.evaluate(market, position).liquidatable
