"""What a liquidation call leads to where it does not pay collateral out itself; units as in `indexer.model`."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Auction:
    """What a liquidation auctions instead of paying collateral out (Maker).

    `lot` is for sale (wad of the gem, as the Vat keeps it) until the bids cover `tab` (rad of DAI); `reward` is what the
    caller is paid at once (rad of DAI): the Dog's tip + chip * tab, 0 of the Cat; None where the auction house does not
    say.
    """

    lot: int
    tab: int
    reward: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """The protocol's sale of seized collateral once the account is absorbed (Comet.buyCollateral).

    `paid` of the debt asset buys `bought` of the collateral: as much as possible of what was seized, for the least that
    buys it. `profit` is its worth less its cost at the feeds' prices, in the market's value unit. `refused` says why
    nothing is for sale; the amounts are then 0 and `profit` is None.
    """

    paid: int
    bought: int
    profit: Fraction | None
    refused: str | None = None
