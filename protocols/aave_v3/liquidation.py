"""What can be done to an Aave V3 account: supply and repay in the tokens' rounding, and what a liquidationCall takes."""

from dataclasses import replace

from indexer.model import RAY, Balance, Effect, Health, LiquidationCall, Price
from protocols.aave.math import PERCENTAGE_FACTOR, percent_div, percent_mul, ray_div
from protocols.aave_v3.market import (
    AaveV3Market,
    Reserve,
    Supply,
    debt_balance,
    reserve_blocks,
    stable_balance,
    supply_balance,
)
from protocols.aave_v3.position import SENTINEL_BELOW, AaveV3Position, balances, debt_amount, evaluate
from protocols.aave_v3.rules import DEFICIT, Rules
from protocols.common import value_at, with_entry

#: LiquidationLogic.CLOSE_FACTOR_HF_THRESHOLD, DEFAULT_LIQUIDATION_CLOSE_FACTOR
WHOLE_UP_TO = 95 * 10**16
CLOSE_FACTOR = 5_000
#: of a liquidationCall that pays out the collateral
GAS = 400_000
#: LiquidationLogic.MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD, MIN_LEFTOVER_BASE (3.3): base currency with 8 decimals
SMALL = 2_000 * 10**8
LEFTOVER = 1_000 * 10**8


def exposure(market: AaveV3Market, position: AaveV3Position) -> list[Price]:
    """Prices by asset; if the account's e-mode has a price of its own (up to 3.1), one for all assets in the category."""
    plan = market.plan(position.mode)
    category = next((e for e in market.e_modes if e.id == position.mode), None)
    found: dict[str, Price] = {}
    for reserve in market.reserves:
        supply, flags = plan.supplies[reserve.a_token], position.configuration
        collateral = bool(flags & supply.counted and reserve.a_token in position.supplied)
        tokens = (reserve.variable_debt_token in position.borrowed, reserve.stable_debt_token in position.stable)
        debt = bool(flags & reserve.borrowing_flag and any(tokens))
        if not (collateral or debt) or not supply.priced:
            continue
        key, symbol = reserve.asset, reserve.symbol
        inside = category is not None and category.collateral_bitmap >> reserve.id & 1
        if category is not None and inside and category.price_source and category.price:
            key, symbol = category.price_source, f"e-mode {category.id} ({category.label})"
        old = found.get(key)
        found[key] = Price(
            key=key,
            symbol=symbol,
            price=supply.price,
            decimals=len(str(market.base_unit or 1)) - 1,
            unit="USD" if market.usd else "base currency",
            collateral=collateral or bool(old and old.collateral),
            debt=debt or bool(old and old.debt),
        )
    return list(found.values())


# balances -------------------------------------------------------------------------------------------------------------


def effect(market: AaveV3Market, position: AaveV3Position, row: Balance, delta: int) -> Effect | None:
    """After Pool.supply, withdraw, borrow or repay of `delta` now; None for debts with a discount."""
    reserve = market.reserve_of(row.market)
    if reserve is None or market.version is None or position.discounts:
        return None
    if row.side == "supply":
        after, refused = supplied(market, position, reserve, delta)
    elif row.market in position.stable:
        after, refused = stable(market, position, reserve, delta)
    else:
        after, refused = borrowed(market, position, reserve, delta)
    if not reserve.active:
        refused = "inactive"
    elif reserve.paused:
        refused = "paused"
    elif delta > 0 and reserve.frozen:
        refused = "frozen"
    return Effect(market=market, position=after, refused=refused)


def supplied(
    market: AaveV3Market, position: AaveV3Position, reserve: Reserve, delta: int
) -> tuple[AaveV3Position, str | None]:
    scaled = to_scaled(market.rules, abs(delta), reserve.income, up=delta < 0)
    held = position.supplied.get(reserve.a_token, 0)
    left = max(held + scaled, 0) if delta > 0 else max(held - scaled, 0)
    after = replace(position, supplied=with_entry(position.supplied, reserve.a_token, left))
    if not left:
        after = replace(after, configuration=after.configuration & ~reserve.collateral_flag)
    refused = "amount-too-small" if delta and not scaled else None
    row = next((row for row in market.assets if row.market == reserve.a_token), None)
    if delta > 0 and row and row.supply_cap and (row.total_supply or 0) + delta > row.supply_cap:
        refused = "supply-cap"
    return after, refused


def borrowed(
    market: AaveV3Market, position: AaveV3Position, reserve: Reserve, delta: int
) -> tuple[AaveV3Position, str | None]:
    token, index = reserve.variable_debt_token, reserve.debt_index
    held = position.borrowed.get(token, 0)
    amount = min(-delta, debt_balance(market.rules, held, index)) if delta < 0 else delta
    scaled = to_scaled(market.rules, amount, index, up=delta > 0)
    left = held + scaled if delta > 0 else max(held - scaled, 0)
    after = replace(position, borrowed=with_entry(position.borrowed, token, left))
    return with_borrowing_flag(after, reserve), "amount-too-small" if delta and not scaled else None


def stable(
    market: AaveV3Market, position: AaveV3Position, reserve: Reserve, delta: int
) -> tuple[AaveV3Position, str | None]:
    """StableDebtToken.burn; a new stable loan would change the account's rate, which is not computed here."""
    token, now = reserve.stable_debt_token, market.block.timestamp
    principal, rate, last_update = position.stable[token]
    left = max(stable_balance(principal, rate, last_update, now) + delta, 0)
    after = replace(position, stable=with_entry(position.stable, token, (left, rate, now) if left else None))
    return with_borrowing_flag(after, reserve), "stable-rate" if delta > 0 else None


def to_scaled(rules: Rules, amount: int, index: int, *, up: bool) -> int:
    """TokenMath of 3.5 rounds against the account, `up` or down; earlier versions use rayDiv, half up."""
    if not rules.explicit_rounding:
        return ray_div(amount, index)
    return -(-amount * RAY // index) if up else amount * RAY // index


def with_borrowing_flag(position: AaveV3Position, reserve: Reserve) -> AaveV3Position:
    owes = reserve.variable_debt_token in position.borrowed or reserve.stable_debt_token in position.stable
    flags = position.configuration & ~reserve.borrowing_flag
    return replace(position, configuration=flags | (reserve.borrowing_flag if owes else 0))


# liquidationCall ------------------------------------------------------------------------------------------------------


class Call:
    """LiquidationLogic.executeLiquidationCall for one account, debt and collateral, as its version computes it."""

    def __init__(
        self, market: AaveV3Market, position: AaveV3Position, health: Health, debt: Reserve, supply: Supply
    ) -> None:
        self.rules = market.rules
        self.health = health
        category = next((e for e in market.e_modes if e.id == position.mode), None)
        inside = category is not None and bool(category.collateral_bitmap >> supply.reserve.id & 1)
        self.bonus = category.liquidation_bonus if category and inside else supply.reserve.liquidation_bonus
        self.collateral_price = supply.price
        # Up to 3.1 a debt in the account's e-mode counts at the e-mode's price.
        own = market.plan(position.mode).debts[debt.variable_debt_token].price
        self.debt_price = category.price if category is not None and category.price else own
        self.collateral_unit: int = 10**supply.reserve.decimals
        self.debt_unit: int = 10**debt.decimals
        self.fee = supply.reserve.liquidation_protocol_fee
        tokens = [debt.variable_debt_token] if debt.variable_debt_token in position.borrowed else []
        tokens += [debt.stable_debt_token] if debt.stable_debt_token in position.stable else []
        self.debt = sum(debt_amount(market, position, token, debt) for token in tokens)
        self.income = supply.income
        self.scaled = position.supplied[supply.reserve.a_token]
        self.collateral = supply_balance(self.rules, self.scaled, self.income)

    def value_of_debt(self, amount: int) -> int:
        bias = self.debt_unit - 1 if self.rules.explicit_rounding else 0
        return (amount * self.debt_price + bias) // self.debt_unit

    def value_of_collateral(self, amount: int) -> int:
        return amount * self.collateral_price // self.collateral_unit

    def allowed(self) -> int:
        """The most that debtToCover counts for."""
        factor, total = self.health.health_factor, self.health.debt_value
        assert factor is not None
        assert total is not None
        if self.rules.level < DEFICIT:
            return percent_mul(self.debt, CLOSE_FACTOR if factor > WHOLE_UP_TO else PERCENTAGE_FACTOR)
        value = self.value_of_debt(self.debt)
        if self.value_of_collateral(self.collateral) >= SMALL and value >= SMALL and factor > WHOLE_UP_TO:
            half = percent_mul(total, CLOSE_FACTOR)
            if value > half:
                return half * self.debt_unit // self.debt_price
        return self.debt

    def taken(self, amount: int) -> tuple[int, int, int]:
        """(debt repaid, collateral taken in all, part of it for the treasury) if `amount` is to be covered.

        _calculateAvailableCollateralToLiquidate.
        """
        base = self.debt_price * amount * self.collateral_unit // (self.collateral_price * self.debt_unit)
        down = self.rules.received_down
        collateral = base * self.bonus // PERCENTAGE_FACTOR if down else percent_mul(base, self.bonus)
        if collateral > self.collateral:
            collateral = self.collateral
            worth = self.collateral_price * collateral * self.debt_unit // (self.debt_price * self.collateral_unit)
            amount = percent_div(worth, self.bonus)
            if self.rules.repaid_up:
                amount = -(-worth * PERCENTAGE_FACTOR // self.bonus)
        if down:
            fee = -(-(collateral - collateral * PERCENTAGE_FACTOR // self.bonus) * self.fee // PERCENTAGE_FACTOR)
        else:
            fee = percent_mul(collateral - percent_div(collateral, self.bonus), self.fee)
        return amount, collateral, fee

    def lost(self, received: int, fee: int) -> tuple[int, int]:
        """What the account's aToken loses to the liquidator and the treasury, as (balanceOf, scaled balance).

        Each part is scaled by itself, the treasury's at most what is left (executeLiquidationCall,
        AToken.burn and transferOnLiquidation).
        """
        parts = [to_scaled(self.rules, part, self.income, up=True) for part in (received, fee)]
        scaled = min(sum(parts), self.scaled)
        return self.collateral - supply_balance(self.rules, self.scaled - scaled, self.income), scaled

    def leaves_dust(self, amount: int) -> bool:
        """Whether too little debt and collateral, but some of each, would be left (MustNotLeaveDust, 3.3)."""
        repaid, collateral, _ = self.taken(amount)
        if self.rules.level < DEFICIT or repaid >= self.debt or collateral >= self.collateral:
            return False
        debt_left = self.value_of_debt(self.debt - repaid)
        return min(debt_left, self.value_of_collateral(self.collateral - collateral)) < LEFTOVER

    def most(self) -> int:
        """The largest debtToCover that is accepted, 0 if none is."""
        most = self.allowed()
        if not self.leaves_dust(most):
            return most
        low, high = 0, most  # once a call leaves dust, covering more leaves dust too, short of covering everything
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.leaves_dust(middle) else (middle, high)
        return low


def liquidation_calls(market: AaveV3Market, position: AaveV3Position) -> list[LiquidationCall]:
    """One call for each debt (stable and variable parts are liquidated together) and each collateral that counts."""
    health = evaluate(market, position)
    if not health.liquidatable or market.version is None:
        return []
    rows, plan = balances(market, position), market.plan(position.mode)
    debts: dict[str, Balance] = {}
    for row in rows:
        if row.side == "debt":
            debts.setdefault(row.asset, row)
    found = []
    for debt in debts.values():
        for collateral in rows:
            if collateral.side != "supply":
                continue
            supply, reserve = plan.supplies[collateral.market], market.reserve_of(debt.market)
            assert reserve is not None
            if not position.configuration & supply.counted:
                continue
            found.append(pair(market, position, health, (debt, reserve), (collateral, supply)))
    return found


def pair(
    market: AaveV3Market,
    position: AaveV3Position,
    health: Health,
    debt: tuple[Balance, Reserve],
    collateral: tuple[Balance, Supply],
) -> LiquidationCall:
    call = Call(market, position, health, debt[1], collateral[1])
    held = collateral[1].reserve
    refused = refusal(market, health, debt[1], held)
    repaid = received = seized = seized_scaled = 0
    if refused is None and not (call.bonus and call.debt_price and call.collateral_price):
        refused = "no-bonus" if not call.bonus else "no-price"
    if refused is None:
        most = call.most()
        refused = None if most else "must-not-leave-dust"
        if most:
            repaid, taken, fee = call.taken(most)
            received = taken - fee
            seized, seized_scaled = call.lost(received, fee)
    return LiquidationCall(
        debt=debt[0],
        collateral=collateral[0],
        repaid=repaid,
        seized=seized,
        seized_scaled=seized_scaled,
        received=received,
        bonus=(call.bonus - PERCENTAGE_FACTOR) / PERCENTAGE_FACTOR if call.bonus else None,
        refused=refused,
        received_scaled=received,
        close_factor=call.allowed() / call.debt if call.debt and call.debt_price else None,
        cost=value_at(repaid, debt[1].price, call.debt_unit),
        gain=value_at(received, held.price, call.collateral_unit),
        function="liquidationCall",
        gas=GAS,
    )


def refusal(market: AaveV3Market, health: Health, debt: Reserve, collateral: Reserve) -> str | None:
    """Why ValidationLogic.validateLiquidationCall refuses this pair, as in `blocked_by`."""
    for reserve in (collateral, debt):
        reason = reserve_blocks(reserve, market.block.timestamp)
        if reason is not None:
            return f"{reason}:{reserve.symbol}"
    factor = health.health_factor
    if not market.liquidation_allowed and (factor is None or factor >= SENTINEL_BELOW):
        return "sentinel"
    return None
