"""An Aave V3 account as lines, and the weight of a unit of each; see `indexer.adapter.Bounded`."""

from collections.abc import Hashable, Iterable
from typing import cast

from indexer.adapter import Bounded, Line, Slot, Weight
from indexer.model import RAY
from protocols.aave.bounds import NOTHING, debt_weight, supply_weight
from protocols.aave_v3.market import EVERY_FLAG, AaveV3Market
from protocols.aave_v3.position import AaveV3Position, misplaced


class AaveV3Bounds(Bounded[AaveV3Market, AaveV3Position]):
    """The capability of the adapter."""

    def layout(self, market: AaveV3Market) -> Hashable:
        """Tokens and flags decide which amounts are lines."""
        return tuple((r.id, r.a_token, r.variable_debt_token) for r in market.reserves)

    def lines(self, market: AaveV3Market, position: AaveV3Position) -> list[Line] | None:
        """Flagged supplies and debts by (token, e-mode). None with stable debt, which has a rate of its own, or a discount."""
        if position.stable or position.discounts or misplaced(market, position):
            return None
        configuration, mode, places = position.configuration, position.mode, market.tokens
        found = [
            Line((token, mode), float(scaled))
            for token, scaled in position.supplied.items()
            if configuration & places[token].flag
        ]
        return found + [
            Line((token, mode), float(scaled), debt=True)
            for token, scaled in position.borrowed.items()
            if configuration & places[token].flag
        ]

    def slot_weights(self, market: AaveV3Market, slots: Iterable[Slot]) -> list[Weight | None]:
        """GenericLogic.calculateUserAccountData as weights: index * price / unit, collateral times its threshold."""
        return [_weight(market, *cast("tuple[str, int]", slot)) for slot in slots]


def _weight(market: AaveV3Market, token: str, mode: int) -> Weight | None:
    plan = market.plan(mode)
    if market.version is None or plan.unpriced == EVERY_FLAG:
        return None
    supply, debt = plan.supplies.get(token), plan.debts.get(token)
    if supply is not None:
        if not supply.price:
            return None
        if not supply.counted:
            return NOTHING
        value = supply.income * supply.price / (RAY * supply.unit)
        return supply_weight(
            value, supply.price / supply.unit, supply.liquidation_threshold, average=plan.average_threshold
        )
    if debt is None or not debt.price:
        return None
    return debt_weight(debt.debt_index * debt.price / (RAY * debt.unit), debt.price / debt.unit)
