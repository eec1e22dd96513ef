"""What can be done to an Aave V2 account: deposit and repay in the tokens' rounding, and what a liquidationCall takes."""

from dataclasses import replace

from indexer.model import Balance, Effect, LiquidationCall, Price
from protocols.aave.market import bonus_of
from protocols.aave.math import PERCENTAGE_FACTOR, percent_div, percent_mul, ray_div, ray_mul
from protocols.aave_v2.market import AaveV2Market, Reserve
from protocols.aave_v2.position import AaveV2Position, balances, evaluate, formula_amount
from protocols.common import value_at, with_entry

#: LendingPoolCollateralManager.LIQUIDATION_CLOSE_FACTOR_PERCENT
CLOSE_FACTOR = 5_000
#: of a liquidationCall that pays out the collateral
GAS = 500_000
ETH = 10**18
#: the highest price of USDC that means that the oracle counts in USD with 8 decimals (Avalanche) and not in ETH
USDC_IN_USD = 2 * 10**8


def exposure(market: AaveV2Market, position: AaveV2Position) -> list[Price]:
    """Prices in the oracle's unit. Where that is ETH, ETH itself has no price that could move."""
    in_usd = market.usd is not None and market.usd[1] < USDC_IN_USD
    found = []
    for reserve in market.reserves:
        counted = position.configuration & market.supplies[reserve.a_token].counted
        collateral = bool(counted and reserve.a_token in position.supplied)
        tokens = (reserve.variable_debt_token in position.borrowed, reserve.stable_debt_token in position.stable)
        debt = bool(position.configuration & reserve.borrowing_flag and any(tokens))
        if (collateral or debt) and reserve.price is not None and not is_unit(reserve):
            found.append(
                Price(
                    key=reserve.asset,
                    symbol=reserve.symbol,
                    price=reserve.price,
                    decimals=8 if in_usd else 18,
                    unit="USD" if in_usd else "ETH",
                    collateral=collateral,
                    debt=debt,
                )
            )
    return found


def is_unit(reserve: Reserve) -> bool:
    """AaveOracle always answers 1 ether for WETH."""
    return reserve.symbol == "WETH" and reserve.price == ETH


# balances -------------------------------------------------------------------------------------------------------------


def effect(market: AaveV2Market, position: AaveV2Position, row: Balance, delta: int) -> Effect | None:
    """After LendingPool.deposit, withdraw, borrow or repay of `delta` now; None for aTokens that rebase."""
    place, token, refused = market.tokens.get(row.market), row.market, None
    rebases = token in market.moved or token in market.rebasing
    if place is None or place.reserve is None or rebases or not market.exact:
        return None
    reserve, balance = place.reserve, formula_amount(market, position, token)
    left = max(balance + delta, 0)
    if place.kind == "stable":
        _, rate, _ = position.stable[token]
        row_left = (left, rate, market.block.timestamp) if left else None
        after = replace(position, stable=with_entry(position.stable, token, row_left))
        refused = "stable-rate" if delta > 0 else None
    else:
        index = reserve.income if place.kind == "a" else reserve.debt_index
        scaled = ray_div(abs(delta) if left else balance, index)
        old = position.supplied if place.kind == "a" else position.borrowed
        kept = with_entry(old, token, max(old.get(token, 0) + (scaled if delta > 0 else -scaled), 0))
        after = replace(position, supplied=kept) if place.kind == "a" else replace(position, borrowed=kept)
        refused = "amount-too-small" if delta and not scaled else None
    flags = after.configuration
    if place.kind == "a" and token not in after.supplied:
        flags &= ~reserve.collateral_flag
    if reserve.variable_debt_token not in after.borrowed and reserve.stable_debt_token not in after.stable:
        flags &= ~reserve.borrowing_flag
    if market.paused:
        refused = "paused"
    elif not reserve.active:
        refused = "inactive"
    elif delta > 0 and reserve.frozen:
        refused = "frozen"
    return Effect(market=market, position=replace(after, configuration=flags), refused=refused)


# liquidationCall ------------------------------------------------------------------------------------------------------


def liquidation_calls(market: AaveV2Market, position: AaveV2Position) -> list[LiquidationCall]:
    """One call for each debt (stable and variable parts are liquidated together) and each collateral that counts."""
    rows = balances(market, position) if evaluate(market, position).liquidatable else []
    debts: dict[str, list[Balance]] = {}
    for row in rows:
        if row.side == "debt":
            debts.setdefault(row.asset, []).append(row)
    seizable = [
        row for row in rows if row.side == "supply" and position.configuration & market.supplies[row.market].counted
    ]
    return [pair(market, parts, collateral) for parts in debts.values() for collateral in seizable]


def pair(market: AaveV2Market, parts: list[Balance], collateral: Balance) -> LiquidationCall:
    """LendingPoolCollateralManager.liquidationCall with the largest debtToCover."""
    (owed, held) = (market.tokens[row.market].reserve for row in (parts[0], collateral))
    assert owed is not None
    assert held is not None
    bonus = held.liquidation_bonus
    refused = refusal(market, owed, held)
    repaid = received = 0
    if refused is None and not (bonus and owed.price and held.price):
        refused = "no-bonus" if not bonus else "no-price"
    if refused is None:
        assert owed.price is not None
        assert held.price is not None
        repaid = percent_mul(sum(row.amount for row in parts), CLOSE_FACTOR)
        debt_unit, unit = 10**owed.decimals, 10**held.decimals
        received = percent_mul(owed.price * repaid * unit, bonus) // (held.price * debt_unit)
        if received > collateral.amount:
            received = collateral.amount
            needed = percent_div(held.price * received * debt_unit // (owed.price * unit), bonus)
            repaid = min(repaid, needed)
    seized_scaled = ray_div(received, held.income)
    return LiquidationCall(
        debt=parts[0],
        collateral=collateral,
        repaid=repaid,
        seized=collateral.amount - ray_mul(collateral.scaled - seized_scaled, held.income),
        seized_scaled=seized_scaled,
        received=received,
        bonus=bonus_of(bonus),
        refused=refused,
        received_scaled=received,
        close_factor=CLOSE_FACTOR / PERCENTAGE_FACTOR,
        cost=value_at(repaid, owed.price, 10**owed.decimals),
        gain=value_at(received, held.price, 10**held.decimals),
        function="liquidationCall",
        gas=GAS,
    )


def refusal(market: AaveV2Market, debt: Reserve, collateral: Reserve) -> str | None:
    """Why LendingPool.liquidationCall refuses this pair, as in `blocked_by`."""
    if market.paused:
        return "paused"
    return next((f"inactive:{reserve.symbol}" for reserve in (collateral, debt) if not reserve.active), None)
