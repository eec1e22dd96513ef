"""At which price of an asset how much debt becomes liquidatable: a histogram of exact liquidation prices.

Each position's price is what `liquidation.liquidation_price` finds by the adapter's own `evaluate`, all other prices as they
are. Positions are sorted by how far that is from the present price of their own oracle, as oracles differ a little.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from indexer.adapter import AnyLiquidation
from indexer.model import Health, Market, Position
from indexer.risk.liquidation import known, liquidation_price
from indexer.risk.scenario import canonical

COLUMNS = (
    "direction change_percent_from change_percent_to price_usd_from price_usd_to positions debt_usd cumulative_debt_usd unvalued"
).split()
#: rises beyond this many per cent are one row
FARTHEST_PERCENT = 100
NOW, FALL, RISE = "now", "fall", "rise"


@dataclass(frozen=True, slots=True)
class Level:
    """Where one position becomes liquidatable: `change` of the present price (-0.1: it falls by 10 %), None if it is already."""

    change: Fraction | None
    debt_usd: float | None


def named(asset: str, key: str, symbol: str) -> bool:
    """Whether a price is that of the asset that somebody names by symbol or address; WETH and ETH are one."""
    return canonical(asset.upper() if not asset.startswith("0x") else asset) in (canonical(symbol.upper()), key.lower())


def levels_of(adapter: AnyLiquidation, market: Market, position: Position, asset: str) -> Iterator[Level]:
    """The level of a position for each price of the asset on which its health depends, with interest stored."""
    market = adapter.interest_stored(adapter.narrow(market, position))
    health = adapter.evaluate(market, position)
    if not known(market, health):
        return
    if health.liquidatable:
        if any(named(asset, price.key, price.symbol) for price in adapter.exposure(market, position)):
            yield Level(None, debt(market, health))
        return
    for price in adapter.exposure(market, position):
        if named(asset, price.key, price.symbol):
            found = liquidation_price(adapter, market, position, price)
            if found is not None:
                yield Level(Fraction(found.liquidatable, price.price) - 1, debt(market, health))


def debt(market: Market, health: Health) -> float | None:
    if health.debt_value is None or market.usd is None:
        return None
    return health.debt_value * market.usd[0] / market.usd[1]


def histogram(levels: Sequence[Level], step: int, price_usd: float | None) -> list[dict[str, Any]]:
    """Rows of COLUMNS in steps of `step` per cent, the nearest first; those without a position are left out.

    A fall of exactly one step is in the row that ends there. `price_usd` is the present price of a whole token.
    """
    buckets: dict[tuple[str, int], list[Level]] = {}
    for level in levels:
        buckets.setdefault(bucket(level.change, step), []).append(level)
    rows = []
    sums = dict.fromkeys((NOW, FALL, RISE), 0.0)
    for direction, number in sorted(buckets, key=lambda place: ((NOW, FALL, RISE).index(place[0]), place[1])):
        mine = buckets[direction, number]
        values = [level.debt_usd for level in mine if level.debt_usd is not None]
        sums[direction] += sum(values)
        start, end = bounds(direction, number, step)
        rows.append(
            dict(
                zip(
                    COLUMNS,
                    (
                        *(direction, start, end, at(price_usd, start), at(price_usd, end), len(mine)),
                        *(sum(values) if values else None, sums[direction], len(mine) - len(values)),
                    ),
                    strict=True,
                )
            )
        )
    return rows


def bucket(change: Fraction | None, step: int) -> tuple[str, int]:
    if change is None:
        return NOW, 0
    steps = abs(change) * 100 / step
    number = max(-(-steps.numerator // steps.denominator) - 1, 0)  # (number * step, (number + 1) * step]
    return (FALL, number) if change < 0 else (RISE, min(number, -(-FARTHEST_PERCENT // step)))


def bounds(direction: str, number: int, step: int) -> tuple[int | None, int | None]:
    """From which change in per cent to which; None where it is open."""
    if direction == NOW:
        return 0, 0
    start, end = number * step, (number + 1) * step
    if direction == FALL:
        return -start, -min(end, 100)
    return start, None if start >= FARTHEST_PERCENT else end


def at(price_usd: float | None, percent: int | None) -> float | None:
    return None if price_usd is None or percent is None else price_usd * (100 + percent) / 100
