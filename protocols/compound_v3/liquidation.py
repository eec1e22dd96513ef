"""What can be done to a Comet account, at stored indexes: supply and repay in its rounding, and absorption."""

from dataclasses import replace
from fractions import Fraction

from indexer.auctions import Sale
from indexer.model import WAD, Balance, Effect, LiquidationCall, Price
from protocols.compound_v3.market import INDEX_SCALE, PRICE_SCALE, Collateral, CompoundV3Market
from protocols.compound_v3.position import CompoundV3Position, balances, evaluate

PRICE_DECIMALS = 8
#: gas of an absorb of one account
GAS = 250_000


def exposure(market: CompoundV3Market, position: CompoundV3Position) -> list[Price]:
    """Prices by asset, base and collateral, as the feeds answer: in USD, else in the unit that prices the base asset."""
    symbols = {row.asset: row.symbol for row in market.assets}
    unit = "USD" if market.usd == (1, PRICE_SCALE) else symbols[market.base]
    feeds = {one.asset: one.price for one in market.collaterals} | {market.base: market.base_price}
    wanted = [*position.collateral, *([market.base] if position.principal < 0 else [])]
    return [
        Price(
            key=asset,
            symbol=symbols[asset],
            price=price,
            decimals=PRICE_DECIMALS,
            unit=unit,
            collateral=asset != market.base,
            debt=asset == market.base,
        )
        for asset in wanted
        if (price := feeds.get(asset)) is not None
    ]


def effect(market: CompoundV3Market, position: CompoundV3Position, row: Balance, delta: int) -> Effect | None:
    """After Comet.supply or withdraw of `delta` now; a repayment is capped at the debt."""
    listed = next((asset for asset in market.assets if asset.asset == row.asset), None)
    if listed is None:
        return None
    refused = "supply-paused" if listed.paused and (delta > 0) == (row.side == "supply") and delta else None
    if row.asset == market.base:
        sign = 1 if row.side == "supply" else -1
        balance = max(sign * present_value(market, position.principal) + delta, 0)
        after = replace(position, principal=principal_value(market, sign * balance))
        return Effect(market=market, position=after, refused=refused)
    held = max(position.collateral.get(row.asset, 0) + delta, 0)
    collateral = {asset: held if asset == row.asset else other for asset, other in position.collateral.items()}
    after = replace(position, collateral={asset: balance for asset, balance in collateral.items() if balance})
    if delta > 0 and listed.supply_cap is not None and (listed.total_supply or 0) + delta > listed.supply_cap:
        refused = "supply-cap"
    return Effect(market=market, position=after, refused=refused)


def present_value(market: CompoundV3Market, principal: int) -> int:
    """CometCore.presentValue: rounds towards zero."""
    if principal >= 0:
        return principal * market.supply_index // INDEX_SCALE
    return -(-principal * market.borrow_index // INDEX_SCALE)


def principal_value(market: CompoundV3Market, balance: int) -> int:
    """CometCore.principalValue: rounds a supply down, a debt up."""
    if balance >= 0:
        return balance * INDEX_SCALE // market.supply_index
    return -((-balance * INDEX_SCALE + market.borrow_index - 1) // market.borrow_index)


def liquidation_calls(market: CompoundV3Market, position: CompoundV3Position) -> list[LiquidationCall]:
    """Comet.absorb closes the account: all of the debt, for all of each collateral.

    The collateral's value less the penalty, beyond the debt, is credited to the account as base principal
    (absorbInternal); the account then has the present value of that principal. Collateral whose factors are both 0 stays
    with the account, and its price is not needed.
    """
    if not evaluate(market, position).liquidatable:
        return []
    rows = balances(market, position)
    debt = next(row for row in rows if row.side == "debt")
    held = [(row, market.collateral_of[row.asset]) for row in rows if row.is_collateral]
    collateral = [(row, one) for row, one in held if one.liquidate_factor or one.liquidation_factor]
    refused = "absorb-paused" if market.absorb_paused else None
    if market.base_price is None or any(one.price is None for _, one in collateral):
        refused = refused or "no-price"
    credit = sum(
        (row.amount * (one.price or 0) // one.scale) * (one.liquidation_factor or 0) // WAD for row, one in collateral
    )
    credited = max(credit * market.base_scale // (market.base_price or 1) - debt.amount, 0)
    principal = principal_value(market, credited)
    returned = present_value(market, principal)
    reserves = reserves_after(market, position.principal, principal)
    found = []
    for row, one in collateral:
        discount = None
        if one.liquidation_factor is not None and market.store_front_price_factor is not None:
            discount = market.store_front_price_factor * (WAD - one.liquidation_factor) // WAD / WAD
        taken = 0 if refused else row.amount
        found.append(
            LiquidationCall(
                debt=debt,
                collateral=row,
                repaid=0 if refused else debt.amount,
                seized=taken,
                seized_scaled=taken,
                received=0,
                bonus=discount,
                whole=True,
                returned=0 if refused else returned,
                refused=refused,
                received_scaled=0,
                close_factor=1.0,
                cost=Fraction(0),
                gain=Fraction(0),
                function="absorb",
                gas=GAS,
                sale=None if refused else sale(market, reserves, one, row.amount),
            )
        )
    return found


def sale(market: CompoundV3Market, reserves: int | None, one: Collateral, seized: int) -> Sale | None:
    """Comet.buyCollateral with those reserves: the most of the seized collateral, in the rounding of quoteCollateral.

    None where the market lacks the Comet's holdings or its target reserves.
    """
    factor, target = market.store_front_price_factor, market.target_reserves
    if reserves is None or target is None or factor is None or one.liquidation_factor is None:
        return None
    if market.buy_paused:
        return Sale(paid=0, bought=0, profit=None, refused="buy-paused")
    if reserves >= target and reserves >= 0:
        return Sale(paid=0, bought=0, profit=None, refused="not-for-sale")
    assert one.price is not None
    assert market.base_price is not None
    discount = factor * (WAD - one.liquidation_factor) // WAD
    discounted = one.price * (WAD - discount) // WAD
    if not discounted:
        return None
    # quote(paid) = basePrice * paid * scale / discounted / baseScale, each division down
    over, under = market.base_price * one.scale, discounted * market.base_scale
    bought = ((seized + 1) * under - 1) // over * over // under
    paid = -(-bought * under // over)
    gain = Fraction(bought * one.price, one.scale) - Fraction(paid * market.base_price, market.base_scale)
    return Sale(paid=paid, bought=bought, profit=gain)


def reserves_after(market: CompoundV3Market, before: int, after: int) -> int | None:
    """Comet.getReserves once an account has gone from one principal to another (absorbInternal)."""
    if market.base_held is None:
        return None
    supplied = market.total_supply_base + max(after, 0) - max(before, 0)
    borrowed = market.total_borrow_base + min(before, 0) - min(after, 0)
    return market.base_held - present_value(market, supplied) - present_value(market, -borrowed)
