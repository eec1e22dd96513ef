"""One Aave V3 account: what it holds, and the pool's own arithmetic about it. Pure functions of market and position."""

from dataclasses import dataclass

from indexer.model import RAY, WAD, Balance, Health
from protocols.aave.math import PERCENTAGE_FACTOR, discounted_debt, percent_mul, wad_div
from protocols.aave.position import AavePosition, unknown_health
from protocols.aave_v3.market import (
    AaveV3Market,
    Debt,
    Plan,
    Reserve,
    debt_balance,
    reserve_blocks,
    stable_balance,
)

#: ValidationLogic.MINIMUM_HEALTH_FACTOR_LIQUIDATION_THRESHOLD: below it the sentinel is not asked.
SENTINEL_BELOW = 95 * 10**16


@dataclass(frozen=True, slots=True, kw_only=True)
class AaveV3Position(AavePosition):
    """An account with its e-mode (`mode`); `discounts` maps a debt token that waives interest to (index of the last
    action, percentage in basis points). `amounts` is each token's balanceOf at `block_number`, read only where the
    market's code is unknown.
    """

    mode: int
    discounts: dict[str, tuple[int, int]]
    amounts: dict[str, int]


def evaluate(market: AaveV3Market, position: AaveV3Position) -> Health:
    """GenericLogic.calculateUserAccountData at the market's block; values are None where the code is unknown."""
    plan = market.plan(position.mode)
    configuration = position.configuration
    has_debt = bool(position.borrowed or position.stable)
    mode = str(position.mode) if position.mode else None
    if configuration & plan.unpriced or market.version is None:
        blocked = blocked_by(market, plan, configuration, None) if has_debt else ()
        unpriceable = bool(configuration & plan.unpriced)
        return unknown_health(position, unpriceable=unpriceable, blocked_by=blocked, mode=mode)
    collateral = weighted = debt = 0
    supplies, bias = plan.supplies, plan.supply_bias
    for token, scaled in position.supplied.items():
        supply = supplies.get(token)  # None: a dropped reserve, which the pool passes over
        if supply is not None and configuration & supply[1]:
            _, _, income, price, unit, threshold, _ = supply
            value = (scaled * income + bias) // RAY * price // unit
            collateral += value
            weighted += value * threshold
    if position.stable or position.discounts:
        debt = mixed_debt(market, plan, position)
    elif has_debt:
        debts, bias = plan.debts, plan.debt_bias
        for token, scaled in position.borrowed.items():
            owed = debts.get(token)
            if owed is not None and configuration & owed[1]:
                _, _, index, price, unit, up, _ = owed
                debt += ((scaled * index + bias) // RAY * price + up) // unit
    health_factor = None
    if plan.average_threshold:
        limit = percent_mul(collateral, weighted // collateral) if collateral else 0
        if debt:
            health_factor = wad_div(limit, debt)
    else:
        limit = weighted // PERCENTAGE_FACTOR
        if debt:
            health_factor = wad_div(weighted, debt) // PERCENTAGE_FACTOR
    blocked = ()
    if has_debt and (configuration & plan.blocked or not market.liquidation_allowed):
        blocked = blocked_by(market, plan, configuration, health_factor)
    return Health(
        key=position.key,
        collateral_value=collateral,
        liquidation_limit=limit,
        debt_value=debt,
        health_factor=health_factor,
        has_debt=has_debt,
        liquidatable=health_factor is not None and health_factor < WAD,
        unpriceable=bool(configuration & plan.worthless),
        blocked_by=blocked,
        mode=mode,
    )


def mixed_debt(market: AaveV3Market, plan: Plan, position: AaveV3Position) -> int:
    """The debt value of an account with stable debt (added to the variable one before the price) or discounts."""
    amounts: dict[str, int] = {}
    for token in (*position.borrowed, *position.stable):
        reserve = market.reserve_of(token)
        if reserve is not None and position.configuration & reserve.borrowing_flag:
            variable = reserve.variable_debt_token
            amount = debt_amount(market, position, token, reserve, for_health=True)
            amounts[variable] = amounts.get(variable, 0) + amount
    return sum(value_of(plan.debts[token], amount) for token, amount in amounts.items())


def debt_amount(
    market: AaveV3Market, position: AaveV3Position, token: str, reserve: Reserve, *, for_health: bool = False
) -> int:
    """A debt token's balanceOf at the market's block; `for_health` as the health factor counts it.

    Up to 3.2 the health factor ignores GHO's discount, 3.3 asks balanceOf where virtual accounting is off.
    """
    if token in position.stable:
        return stable_balance(*position.stable[token], market.block.timestamp)
    rules, scaled = market.rules, position.borrowed[token]
    discount = position.discounts.get(token)
    ignored = for_health and (not rules.balance_without_accounting or reserve.virtual_accounting)
    if discount is None or ignored:
        return debt_balance(rules, scaled, reserve.debt_index)
    return discounted_debt(scaled, reserve.debt_index, *discount)


def value_of(debt: Debt, amount: int) -> int:
    """A debt in base currency: rounded down, from 3.5 on up. The caller has checked that there is a price."""
    return (amount * debt.price + debt.bias) // debt.unit


def blocked_by(market: AaveV3Market, plan: Plan, configuration: int, health_factor: int | None) -> tuple[str, ...]:
    """Why liquidationCall would refuse reserves of this account: "paused:WETH", "grace-period:USDC", "sentinel"."""
    flags = configuration & plan.blocked
    reasons = [
        f"{reserve_blocks(reserve, market.block.timestamp)}:{reserve.symbol}"
        for reserve in market.reserves
        if flags & (reserve.borrowing_flag | reserve.collateral_flag)
    ]
    if not market.liquidation_allowed and (health_factor is None or health_factor >= SENTINEL_BELOW):
        reasons.append("sentinel")
    return tuple(reasons)


def balances(market: AaveV3Market, position: AaveV3Position) -> list[Balance]:
    """Amounts as each token's balanceOf at the market's block.

    A token that the market does not know belongs to a dropped reserve, and the pool drops only reserves without balances.
    """
    plan = market.plan(position.mode)
    supplies, bias, places = plan.supplies, plan.supply_bias, market.tokens
    amounts, configuration = position.amounts, position.configuration
    rows = []
    for token, scaled in position.supplied.items():
        supply = supplies.get(token)
        if supply is not None:
            reserve, _, income, price, unit, _, priced = supply
            amount = amounts.get(token) if amounts else None
            if amount is None:
                amount = (scaled * income + bias) // RAY
            value = amount * price // unit if priced else None
            flagged = bool(configuration & reserve.collateral_flag)
            rows.append(
                Balance(
                    reserve.asset, token, reserve.symbol, reserve.decimals, "supply", scaled, amount, value, flagged
                )
            )
    for token, scaled in position.scaled_debts.items():
        place = places.get(token)
        if place is not None and place.reserve is not None:
            debt = plan.debts[place.reserve.variable_debt_token]
            reserve, _, _, price, unit, up, priced = debt
            amount = amounts.get(token) if amounts else None
            if amount is None:
                amount = debt_amount(market, position, token, reserve)
            value = (amount * price + up) // unit if priced else None
            rows.append(
                Balance(reserve.asset, token, reserve.symbol, reserve.decimals, "debt", scaled, amount, value, False)
            )
    return rows


def misplaced(market: AaveV3Market, position: AaveV3Position) -> bool:
    """Whether the account's tokens or flags do not match the market's reserves (dropped, listed or replaced ones)."""
    flags = position.configuration & market.flags
    places = market.tokens
    for token in position.held:
        place = places.get(token)
        if place is None:
            return True
        flags &= ~place.flag
    return flags != 0  # a flag without a balance is legal and rare: reading such an account again costs little
