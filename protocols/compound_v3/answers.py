"""What a Comet says about an account, to compare with what we compute."""

from collections.abc import Sequence
from typing import Any

from indexer.model import WAD, Answer, Failed, PositionKey
from protocols.compound_v3.market import INDEX_SCALE, CompoundV3Market


def answer(
    market: CompoundV3Market,
    key: PositionKey,
    given: Sequence[Any],
    liquidatable_accrued: Any,
    prices: Sequence[Any],
    borrow_index: int,
) -> Answer:
    """One account's Answer from (isLiquidatable, borrowBalanceOf, balanceOf, userBasic, a balance a collateral).

    `prices` are those of the base and of each collateral, a Failed for a dead feed; `borrow_index` is the stored one.
    """
    liquidatable, debt, supply, basic, *held = given
    base = market.base
    amounts = {(base, "supply"): supply, (base, "debt"): debt}
    scaled = {(base, "supply"): max(basic[0], 0), (base, "debt"): max(-basic[0], 0)}
    for one, balance in zip(market.collaterals, held, strict=True):
        amounts[one.asset, "supply"] = scaled[one.asset, "supply"] = balance
    columns: dict[str, int | str | None] = {}
    if not isinstance(liquidatable_accrued, Failed):
        columns["liquidatable_accrued"] = liquidatable_accrued
    base_price, *collateral_prices = prices
    assets = basic[3] | basic[4] << 16
    wanted = [
        (one, balance, price)
        for one, balance, price in zip(market.collaterals, held, collateral_prices, strict=True)
        if assets >> one.offset & 1
    ]
    if all(price or not one.liquidate_factor for one, _, price in wanted) and (base_price or not basic[0] < 0):
        values = [(one, balance * price // one.scale) for one, balance, price in wanted if price]
        limit = sum(value * one.liquidate_factor // WAD for one, value in values)
        stored = (max(-basic[0], 0) * borrow_index // INDEX_SCALE) * (base_price or 0) // market.base_scale
        accrued = debt * (base_price or 0) // market.base_scale
        if len(values) == len(wanted):
            columns["collateral_value_raw"] = sum(value for _, value in values)
        columns["liquidation_limit_raw"] = limit
        columns["debt_value_raw"] = stored
        columns["health_factor_raw"] = limit * WAD // stored if stored else None
        columns["health_factor_accrued_raw"] = limit * WAD // accrued if accrued else None
    return Answer(
        key=key,
        columns=columns,
        liquidatable=None if isinstance(liquidatable, Failed) else liquidatable,
        amounts=amounts,
        scaled=scaled,
    )
