"""A Comet account as lines, and the weight of a unit of each; see `indexer.adapter.Bounded`."""

from collections.abc import Hashable, Iterable

from indexer.adapter import Bounded, Line, Slot, Weight
from indexer.model import WAD
from protocols.compound_v3.market import INDEX_SCALE, Collateral, CompoundV3Market
from protocols.compound_v3.position import CompoundV3Position

DEBT = "debt"


class CompoundV3Bounds(Bounded[CompoundV3Market, CompoundV3Position]):
    """The capability of the adapter."""

    def layout(self, market: CompoundV3Market) -> Hashable:
        """Nothing: an account names its assets itself."""
        return ()

    def lines(self, market: CompoundV3Market, position: CompoundV3Position) -> list[Line]:
        """Collateral by asset, and the principal of a debt."""
        found = [Line(asset, float(balance)) for asset, balance in position.collateral.items()]
        if position.principal < 0:
            found.append(Line(DEBT, float(-position.principal), debt=True))
        return found

    def slot_weights(self, market: CompoundV3Market, slots: Iterable[Slot]) -> list[Weight | None]:
        """Comet.isLiquidatable at the stored index: present value times the base price, collateral times its factor."""
        return [_debt(market) if slot == DEBT else _collateral(market.collateral_of.get(str(slot))) for slot in slots]


def _debt(market: CompoundV3Market) -> Weight | None:
    if market.base_price is None:
        return None
    step = market.base_price / market.base_scale
    return Weight(
        0.0, 0.0, market.borrow_index * market.base_price / (INDEX_SCALE * market.base_scale), 0.0, step + 1.0
    )


def _collateral(of: Collateral | None) -> Weight | None:
    if of is None or of.price is None:
        return None
    share = of.price * of.liquidate_factor / (of.scale * WAD)
    return Weight(share, share, 0.0, 2.0, 0.0)
