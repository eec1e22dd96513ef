"""An urn as lines, and the weight of a unit of each; see `indexer.adapter.Bounded`."""

from collections.abc import Hashable, Iterable
from typing import cast

from indexer.adapter import Bounded, Line, Slot, Weight
from protocols.maker.market import MakerMarket
from protocols.maker.position import Urn

INK, ART = "ink", "art"


class MakerBounds(Bounded[MakerMarket, Urn]):
    """The capability of the adapter."""

    def layout(self, market: MakerMarket) -> Hashable:
        """A proxy with a new owner changes the rows of its urns without an event of theirs."""
        return frozenset(market.wallets.items())

    def lines(self, market: MakerMarket, position: Urn) -> list[Line] | None:
        """Collateral and normalised debt of the urn's ilk."""
        now = market.wallets.get(position.owner)
        if now and now[0] > position.block_number and now[1] != position.wallet:
            return None
        group, found = position.key.group, []
        if position.ink:
            found.append(Line((group, INK), float(position.ink)))
        if position.art:
            found.append(Line((group, ART), float(position.art), debt=True))
        return found

    def slot_weights(self, market: MakerMarket, slots: Iterable[Slot]) -> list[Weight | None]:
        """Dog.bark's ink * spot and art * rate, without any rounding."""
        return [_weight(market, *cast("tuple[str, str]", slot)) for slot in slots]


def _weight(market: MakerMarket, name: str, of: str) -> Weight | None:
    ilk = market.ilks.get(name)
    if ilk is None or not ilk.spot:
        return None
    if of == INK:
        return Weight(float(ilk.spot), float(ilk.spot), 0.0, 0.0, 0.0)
    return Weight(0.0, 0.0, float(ilk.rate), 0.0, 0.0)
