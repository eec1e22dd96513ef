"""An Aave V2 account as lines, and the weight of a unit of each; see `indexer.adapter.Bounded`."""

from collections.abc import Hashable, Iterable
from typing import cast

from indexer.adapter import Bounded, Line, Slot, Weight
from indexer.model import RAY
from protocols.aave.bounds import NOTHING, debt_weight, supply_weight
from protocols.aave_v2.market import AaveV2Market
from protocols.aave_v2.position import AaveV2Position


class AaveV2Bounds(Bounded[AaveV2Market, AaveV2Position]):
    """The capability of the adapter."""

    def layout(self, market: AaveV2Market) -> Hashable:
        """Tokens and flags decide which amounts are lines; holders of a rebasing token stay open."""
        return tuple((r.id, r.a_token, r.variable_debt_token) for r in market.reserves), frozenset(market.moved)

    def lines(self, market: AaveV2Market, position: AaveV2Position) -> list[Line] | None:
        """Flagged supplies and variable debts by token. None with stable debt, which grows by a rate of its own."""
        if position.stable or position.offsets or not market.moved.keys().isdisjoint(position.supplied):
            return None
        left = position.configuration & sum(r.borrowing_flag | r.collateral_flag for r in market.reserves)
        found = []
        for token, scaled in (*position.supplied.items(), *position.borrowed.items()):
            supply, owed = market.supplies.get(token), market.debts.get(token)
            flag = supply.reserve.collateral_flag if supply else owed.reserve.borrowing_flag if owed else 0
            if not flag:
                return None  # a reserve that was dropped or listed anew
            if position.configuration & flag:
                found.append(Line(token, float(scaled), debt=supply is None))
            left &= ~flag
        return None if left else found  # a flag without a balance may need a price that is missing

    def slot_weights(self, market: AaveV2Market, slots: Iterable[Slot]) -> list[Weight | None]:
        """GenericLogic.calculateUserAccountData as weights: index * price / unit, collateral times its threshold."""
        return [_weight(market, cast("str", slot)) for slot in slots]


def _weight(market: AaveV2Market, token: str) -> Weight | None:
    supply, owed = market.supplies.get(token), market.debts.get(token)
    if supply is not None:
        if not supply.price or not market.exact:
            return None
        if not supply.counted:
            return NOTHING
        value = supply.income * supply.price / (RAY * supply.unit)
        return supply_weight(value, supply.price / supply.unit, supply.liquidation_threshold, average=True)
    if owed is None or not owed.price or not market.exact:
        return None
    return debt_weight(owed.debt_index * owed.price / (RAY * owed.unit), owed.price / owed.unit)
