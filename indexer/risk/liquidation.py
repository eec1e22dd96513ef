"""A position's outlook: its liquidation prices, what a liquidator could close, how long it has, what would save it.

Nothing here has a formula of its own. Each answer comes from asking the adapter's exact `evaluate` about another price,
another time or another balance, until two neighbouring integers are found between which the answer changes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from indexer.adapter import AnyLiquidation
from indexer.model import WAD, Balance, Effect, Health, LiquidationCall, Market, Position, PositionKey, Price

SECONDS_PER_BLOCK = 12.0
#: "never": ten years of interest, in seconds
FOREVER = 10 * 31_536_000
#: the highest price or amount that is searched
FARTHEST = 2**160
TARGET = 3 * WAD // 2
#: how often the average threshold may jump between two answers before the search accepts any of them
JUMPS = 64
#: of a price in USD that no oracle says
USD_DECIMALS = 8
BASIS_POINTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LiquidationPrice:
    """Two neighbouring prices, in the oracle's own integer: at `safe` the position is safe, at `liquidatable` it is not.

    They are the pair nearest to the present price, with all other prices unchanged.
    """

    price: Price
    safe: int
    liquidatable: int

    @property
    def distance(self) -> float:
        """The change of the present price, in per cent, at which the answer changes; below 0 it is a fall."""
        here = self.price.price
        there = max(self.safe, self.liquidatable, key=lambda place: abs(place - here))
        return (there - here) / here * 100

    def whole(self, price: int) -> float:
        """A price in whole units (`price.unit`), for display."""
        return float(price / 10**self.price.decimals)

    def usd(self, market: Market, price: int) -> float | None:
        """The same in USD, at what the unit of the market's prices is worth now; None where nothing says that."""
        if self.price.unit == "USD":
            return self.whole(price)
        return None if market.usd is None else float(price * market.usd[0] / market.usd[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """The smallest amount (of `balance`, in its smallest units) to repay or add that reaches a target health factor.

    `health_factor` is the resulting one, None without debt. `refused` says why the contracts would not accept it now.
    """

    act: str  # "repay" or "add"
    balance: Balance
    amount: int
    health_factor: int | None
    refused: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Everything a person or an alert needs about one position with debt, at the market's block with interest stored.

    `seconds` until interest alone makes it liquidatable at today's rates: 0 if it is, None if not in ten years.
    `blocked` says why a liquidatable position cannot be liquidated now. `remedies` is empty where the target is reached.
    """

    key: PositionKey
    block_number: int
    health: Health
    prices: tuple[LiquidationPrice, ...] = ()
    closable: tuple[LiquidationCall, ...] = ()
    blocked: tuple[str, ...] = ()
    seconds: int | None = None
    target: int = TARGET
    remedies: tuple[Remedy, ...] = ()


def outlook(
    adapter: AnyLiquidation,
    market: Market,
    position: Position,
    *,
    target: int = TARGET,
    seconds_per_block: float = SECONDS_PER_BLOCK,
) -> Outlook:
    """The whole outlook; only `health` is set where there is no debt, or the market's code or a price is unknown.

    `target` is a health factor scaled by 1e18. Every act accrues interest first, so everything is computed with the
    interest up to the market's block stored. `seconds_per_block` matters where interest counts blocks.
    """
    as_read = adapter.narrow(market, position)
    market = adapter.interest_stored(as_read)
    health = adapter.evaluate(market, position)
    if not known(market, health):
        return Outlook(key=position.key, block_number=market.block.number, health=health, target=target)
    closable = tuple(adapter.liquidation_calls(market, position))
    found = [liquidation_price(adapter, market, position, price) for price in adapter.exposure(market, position)]
    found.append(numeraire_price(adapter, market, position))
    return Outlook(
        key=position.key,
        block_number=market.block.number,
        health=health,
        prices=tuple(price for price in found if price is not None),
        closable=closable,
        blocked=why_not(health, closable),
        seconds=time_to_liquidation(adapter, as_read, position, seconds_per_block),
        target=target,
        remedies=tuple(remedies(adapter, market, position, target)),
    )


def known(market: Market, health: Health) -> bool:
    """Whether there is debt, and the formula and all prices are known."""
    return market.exact and health.has_debt and not health.unpriceable and health.liquidation_limit is not None


def why_not(health: Health, closable: tuple[LiquidationCall, ...] = ()) -> tuple[str, ...]:
    """What keeps a liquidatable position from being liquidated now; () if nothing does, or it is not liquidatable."""
    if not health.liquidatable or any(one.refused is None for one in closable):
        return ()
    refused = [one.refused for one in closable if one.refused is not None]
    return tuple(dict.fromkeys([*health.blocked_by, *refused]))


# prices ---------------------------------------------------------------------------------------------------------------


def liquidation_price(
    adapter: AnyLiquidation, market: Market, position: Position, price: Price
) -> LiquidationPrice | None:
    """Where the contract's own health test flips if only this price moves; None if it never does."""
    market = adapter.narrow(market, position)

    def evaluated(value: int) -> Health:
        return adapter.evaluate(adapter.with_prices(market, {price.key: value}), position)

    curve = Curve(evaluated, averages=market.averages and price.collateral)
    here = price.price
    if here <= 0 or not known(market, curve[here]):
        return None
    # The margin is linear in a price, but for rounding.
    return flipped(curve, price, curve.margin(2 * here) - curve.margin(here))


def flipped(curve: "Curve", price: Price, slope: int) -> LiquidationPrice | None:
    """The flip nearest to the present price; `slope`: what doubling that adds to the margin, or to a multiple of it."""
    here = price.price
    if not slope:
        return None
    liquidatable = curve[here].liquidatable
    guess = here - curve.margin(here) * here // slope
    found = curve.flip(here, 1 if (slope > 0) != liquidatable else FARTHEST, guess, WAD)
    if found is None:
        return None
    before, after = found
    safe, unsafe = (after, before) if liquidatable else (before, after)
    return LiquidationPrice(price=price, safe=safe, liquidatable=unsafe)


def numeraire_price(adapter: AnyLiquidation, market: Market, position: Position) -> LiquidationPrice | None:
    """Where the health test flips if what prices are counted in moves in USD, and every other price in USD stays.

    An oracle that counts in ETH (Aave V2) has no price of ETH that could move: all its other prices move instead. None
    where prices are in USD or their unit is worth an unknown number of USD, and for a position without that asset, or
    whose exposure has it anyhow. The price is in USD with 8 decimals, made from the oracle's others.
    """
    key, exposure = adapter.quotes(market).numeraire, adapter.exposure(market, position)
    if key is None or market.usd is None or not exposure or key in {price.key for price in exposure}:
        return None
    held = [row for row in adapter.balances(market, position) if row.asset == key]
    collateral, debt = any(row.is_collateral for row in held), any(row.side == "debt" for row in held)
    here = market.usd[0] * 10 ** (exposure[0].decimals + USD_DECIMALS) // market.usd[1]
    if here <= 0 or not (collateral or debt):
        return None
    price = Price(
        key=key,
        symbol=exposure[0].unit,
        price=here,
        decimals=USD_DECIMALS,
        unit="USD",
        collateral=collateral,
        debt=debt,
    )
    market = adapter.narrow(market, position)
    others = {name: one for name, one in adapter.quotes(market).prices.items() if name != key}

    def evaluated(value: int) -> Health:
        moved = {name: one * here // value for name, one in others.items()}
        return adapter.evaluate(adapter.with_prices(market, moved), position)

    curve = Curve(evaluated, averages=market.averages)
    if not known(market, curve[here]):
        return None
    # Times the price, the margin is linear in it, but for rounding.
    return flipped(curve, price, 2 * curve.margin(2 * here) - curve.margin(here))


# amounts --------------------------------------------------------------------------------------------------------------


def remedies(adapter: AnyLiquidation, market: Market, position: Position, target: int) -> list[Remedy]:
    """Each way to reach the target health factor by repaying one debt, or adding to one collateral already held."""
    rows = sorted(adapter.balances(market, position), key=lambda row: -(row.value or 0))
    found = [repay_to(adapter, market, position, row, target) for row in rows if row.side == "debt"]
    found += [add_to(adapter, market, position, row, target) for row in rows if row.is_collateral]
    return [remedy for remedy in found if remedy is not None and remedy.amount]


def repay_to(adapter: AnyLiquidation, market: Market, position: Position, debt: Balance, target: int) -> Remedy | None:
    """The smallest repayment of this debt that reaches the target; None if even repaying all of it does not.

    Where the contracts would refuse the rest of the debt as dust, it is all of the debt.
    """
    return remedy("repay", adapter, market, position, debt, target)


def add_to(
    adapter: AnyLiquidation, market: Market, position: Position, collateral: Balance, target: int
) -> Remedy | None:
    """The smallest supply of this collateral that reaches the target; None if no amount does."""
    return remedy("add", adapter, market, position, collateral, target)


def remedy(
    act: str, adapter: AnyLiquidation, market: Market, position: Position, balance: Balance, target: int
) -> Remedy | None:
    """The search behind `repay_to` and `add_to`; amount 0 if the target is already reached."""
    market = adapter.narrow(market, position)
    sign = 1 if act == "add" else -1
    if adapter.effect(market, position, balance, sign) is None:
        return None

    def changed(amount: int) -> Effect:
        after = adapter.effect(market, position, balance, sign * amount)
        assert after is not None
        return after

    def evaluated(amount: int) -> Health:
        after = changed(amount)
        return adapter.evaluate(after.market, after.position)

    curve = Curve(evaluated, averages=market.averages and act == "add")
    if not known(market, curve[0]):
        return None
    amount = 0
    if not curve.reached(0, target):
        some = max(balance.amount // 2, 1)
        slope = curve.margin(some, target) - curve.margin(0, target)
        if slope <= 0:
            return None
        guess = -curve.margin(0, target) * some // slope
        found = curve.flip(0, FARTHEST if act == "add" else balance.amount, guess, target)
        if found is None:
            return None
        amount = found[1]
    after = changed(amount)
    if act == "repay" and after.refused and not changed(balance.amount).refused:
        amount = balance.amount
        after = changed(amount)
    return Remedy(
        act=act,
        balance=balance,
        amount=amount,
        health_factor=curve[amount].health_factor,
        refused=after.refused,
    )


# time -----------------------------------------------------------------------------------------------------------------


def time_to_liquidation(
    adapter: AnyLiquidation, market: Market, position: Position, seconds_per_block: float = SECONDS_PER_BLOCK
) -> int | None:
    """Seconds until interest alone, at today's rates and prices, makes the position liquidatable once it is accrued.

    0 if it already is, None if that takes more than ten years. It assumes that nobody acts meanwhile: Compound's interest
    compounds only when somebody does, so there it may come a little earlier.
    """
    market = adapter.narrow(market, position)

    def liquidatable(seconds: int) -> bool:
        later = adapter.interest_stored(adapter.after(market, seconds, int(seconds / seconds_per_block)))
        return adapter.evaluate(later, position).liquidatable

    if liquidatable(0):
        return 0
    return boundary(0, FOREVER, liquidatable)[1] if liquidatable(FOREVER) else None


# the search -----------------------------------------------------------------------------------------------------------


def boundary(start: int, end: int, test: Callable[[int], bool], guess: int | None = None) -> tuple[int, int]:
    """The two neighbouring integers, in this order, between which `test` turns true on the way from `start` to `end`.

    It must be false at `start` and true at `end`; if it turns several times, any of them is found. A good guess saves most
    of the tests.
    """
    way = 1 if end > start else -1
    if guess is not None:
        step = 1
        while way * start < way * guess < way * end:
            if test(guess):
                end, guess = guess, guess - way * step
            else:
                start, guess = guess, guess + way * step
            step *= 8
    while abs(end - start) > 1:
        middle = (start + end) // 2
        if test(middle):
            end = middle
        else:
            start = middle
    return start, end


class Curve:
    """A position's health as a function of one integer, a price or an amount; each value is evaluated once."""

    def __init__(self, evaluated: Callable[[int], Health], *, averages: bool) -> None:
        self.evaluated = evaluated
        self.averages = averages
        self.healths: dict[int, Health] = {}

    def __getitem__(self, place: int) -> Health:
        health = self.healths.get(place)
        if health is None:
            health = self.healths[place] = self.evaluated(place)
        return health

    def margin(self, place: int, target: int = WAD) -> int:
        """The limit less the debt (times the target), scaled by 1e18; its sign is the answer."""
        health = self[place]
        assert health.liquidation_limit is not None, place
        assert health.debt_value is not None, place
        return health.liquidation_limit * WAD - target * health.debt_value

    def reached(self, place: int, target: int) -> bool:
        """Whether the health factor is at least the target; for a target of 1.0 that is the contract's own test."""
        health = self[place]
        if target == WAD:
            return not health.liquidatable
        return health.health_factor is None or health.health_factor >= target

    def flip(self, start: int, end: int, guess: int, target: int) -> tuple[int, int] | None:
        """The two neighbouring integers nearest to `start`, on the way to `end`, between which `reached` changes, or None.

        If `end` is FARTHEST, the search goes no farther than it must.
        """
        before = self.reached(start, target)

        def changes(place: int) -> bool:
            return self.reached(place, target) != before

        if end == FARTHEST:
            end = 2 * max(guess, start, 1)
            while not changes(end):
                end *= 2**16
                if end > FARTHEST:
                    return None
        elif not changes(end):
            return None
        if not self.averages:
            return boundary(start, end, changes, guess)
        return self.nearest(start, end, guess, target, changes)

    def nearest(self, start: int, end: int, guess: int, target: int, changes: Callable[[int], bool]) -> tuple[int, int]:
        """The flip nearest to `start` where the limit jumps with the average threshold, which is up to a basis point low.

        Health is monotone between two jumps. There can be several flips only where the limit is within a basis point of
        the target, and few jumps fall there.
        """
        sign = 1 if self.reached(start, target) else -1

        def close(place: int) -> bool:
            collateral, debt = self[place].collateral_value, self[place].debt_value
            assert collateral is not None, place
            assert debt is not None, place
            slack = (collateral // BASIS_POINTS + 2) * WAD + debt
            return sign * self.margin(place, target) <= slack

        def threshold(place: int) -> int:
            limit, collateral = self[place].liquidation_limit, self[place].collateral_value
            assert limit is not None, place
            return (limit * BASIS_POINTS + (collateral or 0) // 2) // collateral if collateral else 0

        place = start if close(start) else boundary(start, end, close, guess)[0]
        before, after = boundary(place, end, changes, guess)
        for _ in range(JUMPS):
            here = threshold(place)
            if threshold(before) == here:
                break

            def jumped(other: int, here: int = here) -> bool:
                return threshold(other) != here

            last, following = boundary(place, before, jumped)
            if changes(last):
                return boundary(place, last, changes)
            if changes(following):
                return last, following
            place = following
        return before, after
