"""A Compound V2 account as lines, and the weight of a unit of each; see `indexer.adapter.Bounded`."""

from collections.abc import Hashable, Iterable
from typing import cast

from indexer.adapter import Bounded, Line, Slot, Weight
from indexer.model import WAD
from protocols.compound_v2.market import CompoundV2Market
from protocols.compound_v2.position import CompoundV2Position

SUPPLY, DEBT = "supply", "debt"


class CompoundV2Bounds(Bounded[CompoundV2Market, CompoundV2Position]):
    """The capability of the adapter."""

    def layout(self, market: CompoundV2Market) -> Hashable:
        """Nothing: an account names its markets itself."""
        return ()

    def lines(self, market: CompoundV2Market, position: CompoundV2Position) -> list[Line] | None:
        """The cTokens in every entered market, each of which must have a price, and debts as principal / interestIndex."""
        entered = position.entered
        if any(token not in entered for token in position.borrows):
            return None
        found = [Line((token, SUPPLY), float(position.c_tokens.get(token, 0))) for token in entered]
        return found + [
            Line((token, DEBT), principal / index, debt=True) for token, (principal, index) in position.borrows.items()
        ]

    def slot_weights(self, market: CompoundV2Market, slots: Iterable[Slot]) -> list[Weight | None]:
        """Comptroller.getHypotheticalAccountLiquidityInternal; every debt in a deprecated market can be liquidated."""
        return [_weight(market, *cast("tuple[str, str]", slot)) for slot in slots]


def _weight(market: CompoundV2Market, token: str, side: str) -> Weight | None:
    of = market.weights.get(token)
    if of is None:
        return None
    if side == SUPPLY:
        share = of.limit / WAD
        return Weight(share, share, 0.0, 1.0, 0.0)
    if token in market.deprecated:
        return None
    # borrowBalanceStored drops up to one smallest unit, the product with the price up to one unit of value
    return Weight(0.0, 0.0, of.price * of.borrow_index / WAD, 0.0, of.price / WAD + 1.0)
