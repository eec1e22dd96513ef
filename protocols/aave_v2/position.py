"""One Aave V2 account: what it holds, and the pool's own arithmetic about it. Pure functions of market and position."""

from dataclasses import dataclass

from indexer.model import RAY, WAD, Balance, Health
from protocols.aave.math import HALF_RAY, compound_v2, percent_mul, ray_mul, wad_div
from protocols.aave.position import AavePosition, unknown_health
from protocols.aave_v2.market import AaveV2Market, Reserve
from protocols.common import balance


@dataclass(frozen=True, slots=True, kw_only=True)
class AaveV2Position(AavePosition):
    """An account; `offsets` maps a token of unknown code to how much more its balanceOf was than the formula says."""

    offsets: dict[str, int]


def evaluate(market: AaveV2Market, position: AaveV2Position) -> Health:
    """GenericLogic.calculateUserAccountData at the market's block; everything is unknown where the code is unknown."""
    configuration, flags = position.configuration, market.flags
    has_debt = bool(position.borrowed or position.stable)
    blocked = (
        blocked_by(market, configuration) if has_debt and (market.paused or configuration & flags.inactive) else ()
    )
    if configuration & flags.unpriced or not market.exact:
        return unknown_health(position, unpriceable=bool(configuration & flags.unpriced), blocked_by=blocked)
    collateral = weighted = debt = 0
    supplies, moved = market.supplies, market.moved
    for token, scaled in position.supplied.items():
        supply = supplies.get(token)
        if supply is not None and configuration & supply[1]:
            _, _, income, price, unit, threshold = supply
            amount = formula_amount(market, position, token) if token in moved else (scaled * income + HALF_RAY) // RAY
            value = amount * price // unit  # type: ignore[operator]  # priced, see above
            collateral += value
            weighted += value * threshold
    if position.stable:
        debt = mixed_debt(market, position)
    elif has_debt:
        debts = market.debts
        for token, scaled in position.borrowed.items():
            owed = debts.get(token)
            if owed is not None and configuration & owed[1]:
                _, _, index, price, unit = owed
                debt += (scaled * index + HALF_RAY) // RAY * price // unit  # type: ignore[operator]
    limit = percent_mul(collateral, weighted // collateral) if collateral else 0
    health_factor = wad_div(limit, debt) if debt else None
    return Health(
        key=position.key,
        collateral_value=collateral,
        liquidation_limit=limit,
        debt_value=debt,
        health_factor=health_factor,
        has_debt=has_debt,
        liquidatable=health_factor is not None and health_factor < WAD,
        unpriceable=bool(configuration & flags.worthless),
        blocked_by=blocked,
    )


def mixed_debt(market: AaveV2Market, position: AaveV2Position) -> int:
    """The debt value of an account with stable debt, which is added to the variable one before the price."""
    total = 0
    for reserve in market.reserves:
        if position.configuration & reserve.borrowing_flag:
            amount = formula_amount(market, position, reserve.variable_debt_token)
            amount += formula_amount(market, position, reserve.stable_debt_token)
            assert reserve.price is not None, reserve.symbol
            total += amount * reserve.price // 10**reserve.decimals
    return total


def blocked_by(market: AaveV2Market, configuration: int) -> tuple[str, ...]:
    """Why liquidationCall would refuse this account's reserves: "paused" (the pool), "inactive:WETH"."""
    inactive = [
        f"inactive:{reserve.symbol}"
        for reserve in market.reserves
        if not reserve.active and configuration & (reserve.borrowing_flag | reserve.collateral_flag)
    ]
    return ("paused", *inactive) if market.paused else tuple(inactive)


def formula_amount(market: AaveV2Market, position: AaveV2Position, token: str) -> int:
    """A token's balanceOf at the market's block: rayMul of the scaled balance or principal, and what it rebased."""
    reserve = market.reserve_of(token)
    if reserve is None:
        return 0
    if token in position.stable:
        principal, rate, last_update = position.stable[token]
        return ray_mul(principal, compound_v2(rate, market.block.timestamp - last_update))
    if token == reserve.a_token:
        scaled, offset = position.supplied.get(token, 0), 0
        if token in market.moved:
            scaled, offset = market.moved[token].get(position.key.account, (scaled, 0))
        return ray_mul(scaled, reserve.income) + offset
    return ray_mul(position.borrowed.get(token, 0), reserve.debt_index)


def balances(market: AaveV2Market, position: AaveV2Position) -> list[Balance]:
    """Amounts as the tokens' balanceOf at the market's block."""
    rows = []
    for token, before in position.supplied.items():
        supply = market.supplies.get(token)
        if supply is not None:
            scaled, _ = market.moved.get(token, {}).get(position.key.account, (before, 0))
            amount = formula_amount(market, position, token) + position.offsets.get(token, 0)
            if amount or scaled:
                flagged = bool(position.configuration & supply.reserve.collateral_flag)
                rows.append(row(supply.reserve, token, "supply", scaled, amount, is_collateral=flagged))
    for token, scaled in position.scaled_debts.items():
        reserve = market.reserve_of(token)
        if reserve is not None:
            amount = formula_amount(market, position, token) + position.offsets.get(token, 0)
            rows.append(row(reserve, token, "debt", scaled, amount, is_collateral=False))
    return rows


def row(reserve: Reserve, token: str, side: str, scaled: int, amount: int, *, is_collateral: bool) -> Balance:
    value = None if reserve.price is None else amount * reserve.price // 10**reserve.decimals
    return balance(reserve, token, side, scaled=scaled, amount=amount, value=value, is_collateral=is_collateral)
