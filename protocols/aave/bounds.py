"""The weight of a unit of scaled balance in a health factor of Aave, and how far rounding can move it."""

from indexer.adapter import Weight
from protocols.aave.math import PERCENTAGE_FACTOR

#: a reserve that backs nothing
NOTHING = Weight(0.0, 0.0, 0.0, 0.0, 0.0)


def supply_weight(value: float, step: float, threshold: int, *, average: bool) -> Weight:
    """The weight of a unit of scaled balance worth `value`; `step` is the price of the token's smallest unit.

    rayMul moves the amount by at most one smallest unit, the division by the token's unit moves the value by one, and
    percentMul or the division by 10,000 moves the limit by one. Where the limit is the collateral times the `average`
    threshold, rounded down to basis points, each unit of collateral loses at most one basis point.
    """
    share = threshold / PERCENTAGE_FACTOR
    low = (threshold - 1) / PERCENTAGE_FACTOR if average else share
    return Weight(value * low, value * share, 0.0, step + 3.0, 0.0)


def debt_weight(value: float, step: float) -> Weight:
    """The weight of a unit of scaled debt worth `value`: off by one smallest unit and one unit of value either way."""
    return Weight(0.0, 0.0, value, 0.0, step + 2.0)
