"""What each price adds to a position's limit and debt, taken from the adapter's exact `evaluate` itself.

Limit, debt and collateral are linear in the prices up to rounding. Evaluated once as it is and once with each price
`RAISED` times as high, a position shows its coefficients, and no formula of a protocol is repeated. How far rounding can
carry the exact answer away from the sum is bounded here, so that whoever uses the sum knows when to ask `evaluate`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from indexer.adapter import AnyLiquidation
from indexer.model import Balance, Health, Market, Position
from indexer.risk.bounds import Floats

#: so many times its price, an asset outweighs the rounding of what it is added to
RAISED = 2**20
#: relative error of the sum apart from what is bounded below: floats, and fixed-point factors of 18 digits
RELATIVE = 1e-8
#: the average threshold of Aave is rounded down to this
BASIS_POINT = 1e-4
#: smallest units that one balance may be off, and units of value that one line may be off
AMOUNTS, VALUES = 2.0, 4.0


@dataclass(frozen=True, slots=True)
class Slack:
    """How far limit less debt may be from the sum, in the value unit, by position; prices are relative to those of now.

    `average` times what collateral weighs, where the limit is an average threshold rounded down; `unit` for the rounding of
    values and prices, and `time` for amounts between the two times, both times the largest price.
    """

    average: float
    unit: Floats
    time: Floats


@dataclass(frozen=True, slots=True)
class Exposures:
    """Sums over prices of some positions, in the value unit; row: position, column: price of `keys`, the last one constant.

    The first index of `limit`, `debt` and `collateral` is the time: that of each of `Later.ends`, with all interest stored
    as a liquidation would. A price that a position does not depend on has 0.
    """

    keys: tuple[str, ...]
    limit: Floats
    debt: Floats
    collateral: Floats
    slack: Slack

    @property
    def net(self) -> Floats:
        """Limit less debt: below 0 the position fails the contract's health test."""
        return self.limit - self.debt


class Later:
    """One market now and at later times, each with interest stored, and with any of its prices changed."""

    def __init__(self, adapter: AnyLiquidation, market: Market, seconds: int, seconds_per_block: float) -> None:
        self.adapter, self.market = adapter, market
        self.prices = adapter.quotes(market).prices
        self.blocks = int(seconds / seconds_per_block)
        self.pace = seconds_per_block
        self._after: dict[int, Market] = {0: market}
        self.ends = tuple(self.at(time) for time in (0, seconds))
        self._raised: dict[str, tuple[Market, ...]] = {}

    def then(self, position: Position, seconds: int) -> "Later":
        """The same at one time only, with nothing in the market but what this position needs."""
        found = Later(self.adapter, self.adapter.narrow(self.market, position), 0, self.pace)
        found.ends = (self.at(seconds, position),)
        return found

    def at(self, seconds: int, position: Position | None = None, prices: Mapping[str, int] | None = None) -> Market:
        """The market that much later with interest stored; at other prices, and with what one position needs, if given."""
        if seconds not in self._after:
            self._after[seconds] = self.adapter.after(self.market, seconds, int(seconds / self.pace))
        later = self._after[seconds]
        if position is not None:
            later = self.adapter.narrow(later, position)
        if prices:
            later = self.adapter.with_prices(later, prices)
        stored: Market = self.adapter.interest_stored(later)
        return stored

    def raised(self, key: str) -> tuple[Market, ...]:
        """Both ends with one price `RAISED` times as high."""
        if key not in self._raised:
            price = {key: self.prices[key] * RAISED}
            self._raised[key] = tuple(
                self.adapter.interest_stored(self.adapter.with_prices(end, price)) for end in self.ends
            )
        return self._raised[key]


def relevant(later: Later, position: Position) -> tuple[str, ...]:
    """The prices that the position's health depends on and that can move."""
    found = dict.fromkeys(price.key for price in later.adapter.exposure(later.market, position))
    return tuple(key for key in found if later.prices.get(key))


def exposures(later: Later, positions: Sequence[Position], keys: Sequence[str]) -> Exposures:
    """The sums of positions that have debt and all needed prices; `keys` are all prices that any of them depends on.

    Source: Adapter.evaluate in the markets of `later`.
    """
    count, width = len(positions), len(keys) + 1
    shape = (len(later.ends), count, width)
    limit, debt, collateral = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    evaluate = later.adapter.evaluate
    held: dict[str, list[int]] = {key: [] for key in keys}
    for i, position in enumerate(positions):
        for key in relevant(later, position):
            held[key].append(i)
    for time, end in enumerate(later.ends):
        # An adapter may cache the last market it was asked about: all positions in one market, then in the next.
        healths = [evaluate(end, position) for position in positions]
        now = [values(health) for health in healths]
        for column, key in enumerate(keys):
            market = later.raised(key)[time]
            for i in held[key]:
                up = values(evaluate(market, positions[i]))
                for into, before, after in zip((limit, debt, collateral), now[i], up, strict=True):
                    into[time, i, column] = (after - before) / (RAISED - 1)
        for into, which in ((limit, 0), (debt, 1), (collateral, 2)):
            whole = np.array([one[which] for one in now], np.float64)
            into[time, :, -1] = whole - into[time, :, :-1].sum(axis=1)
    return Exposures(tuple(keys), limit, debt, collateral, slack_of(later, positions, keys, limit, debt))


def values(health: Health) -> tuple[int, int, int]:
    """Limit, debt and collateral of a health that is known."""
    return health.liquidation_limit or 0, health.debt_value or 0, health.collateral_value or 0


def slack_of(later: Later, positions: Sequence[Position], keys: Sequence[str], limit: Floats, debt: Floats) -> Slack:
    """The bounds of rounding.

    A line is off by few units of value, whatever the prices, and a price that is a small integer is rounded to it. An
    amount is off by few of its smallest units between the two times; interest is taken as linear there, and a growth g that
    compounds is below that by g**2 / 8 at most; where interest counts blocks, it is off by one block.
    """
    rounding = [units(later.adapter.balances(later.ends[-1], position)) for position in positions]
    steps = np.array([1 / later.prices[key] for key in keys] + [0.0])
    gross = np.abs(limit).max(axis=0) + np.abs(debt).max(axis=0)
    unit = np.array([values for values, _ in rounding]) + gross @ steps + RELATIVE * gross.sum(axis=1)
    time = np.array([amounts for _, amounts in rounding])
    for of in (limit, debt):
        now, end = of[0].sum(axis=1), of[-1].sum(axis=1)
        growth = np.divide(end - now, now, out=np.zeros_like(now), where=now > 0)
        time += np.abs(end) * (growth**2 / 4 + np.abs(growth) / max(later.blocks, 1))
    return Slack(BASIS_POINT if later.market.averages else 0.0, unit, time)


def units(balances: Sequence[Balance]) -> tuple[float, float]:
    """How far the rounding of values, and that of amounts, can move limit and debt together, in the value unit."""
    by_value, by_amount = VALUES, 0.0
    for balance in balances:
        if balance.value is not None and balance.amount and (balance.side == "debt" or balance.is_collateral):
            by_value += VALUES
            by_amount += AMOUNTS * (balance.value + 1) / balance.amount
    return by_value, by_amount
