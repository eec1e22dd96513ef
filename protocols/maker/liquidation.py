"""What can be done to an urn: lock and wipe in the Vat's rounding, and what a bark or a bite takes. At the stored rate."""

from dataclasses import replace
from fractions import Fraction

from indexer.auctions import Auction
from indexer.model import RAY, WAD, Balance, Effect, LiquidationCall, Price
from protocols.maker.market import Ilk, MakerMarket
from protocols.maker.math import barked, bitten, feed_of
from protocols.maker.position import Urn, balances, evaluate

FEED_DECIMALS = 18
#: of Dog.bark and Cat.bite
GAS = {"bark": 300_000, "bite": 250_000}


def narrow(market: MakerMarket, urn: Urn) -> MakerMarket:
    group = urn.key.group
    ilks = {name: ilk for name, ilk in market.ilks.items() if name == group}
    return replace(market, ilks=ilks, assets=tuple(row for row in market.assets if row.group in ("", group)))


def exposure(market: MakerMarket, urn: Urn) -> list[Price]:
    """The value of the ilk's feed, from which Spotter.poke computes the Vat's spot. DAI is at par."""
    ilk = market.ilks.get(urn.key.group)
    if ilk is None or not ilk.spot or not urn.ink:
        return []
    feed = feed_of(ilk.spot, market.par, ilk.mat)
    symbol = ilk.gem.symbol
    return [
        Price(
            key=urn.key.group,
            symbol=symbol,
            price=feed,
            decimals=FEED_DECIMALS,
            unit="USD",
            collateral=True,
            debt=False,
        )
    ]


def effect(market: MakerMarket, urn: Urn, row: Balance, delta: int) -> Effect | None:
    """After DssProxyActions.lockGem, freeGem, draw or wipe of `delta` now (gem or DAI in their smallest units).

    Vat.frob refuses to leave less debt than the ilk's dust, whatever else it changes.
    """
    ilk = market.ilks.get(urn.key.group)
    if ilk is None or not ilk.rate:
        return None
    ink, art = urn.ink, urn.art
    if row.side == "supply":
        ink = max(ink + delta * 10 ** (18 - ilk.gem.decimals), 0)
    elif delta < 0:
        art = max(art - (-delta * RAY) // ilk.rate, 0)
    else:
        art += -(-delta * RAY // ilk.rate)
    refused = "dust" if 0 < art * ilk.rate < ilk.dust else None
    return Effect(market=market, position=replace(urn, ink=ink, art=art), refused=refused if market.live else "cage")


def liquidation_calls(market: MakerMarket, urn: Urn) -> list[LiquidationCall]:
    """The auction that the Dog starts, or the Cat where there is no Dog; none where neither is known."""
    if not evaluate(market, urn).liquidatable:
        return []
    rows = balances(market, urn)
    ilk = market.ilks[urn.key.group]
    debt = next((row for row in rows if row.side == "debt"), None)
    gem = next((row for row in rows if row.side == "supply"), None)
    house = ilk.bark or ilk.bite
    if debt is None or gem is None or house is None:
        return []
    dart, refused = taken(ilk, urn)
    dink = 0 if refused else urn.ink * dart // urn.art
    seized = dink // 10 ** (18 - ilk.gem.decimals)
    function = "bark" if ilk.bark else "bite"
    started = None if refused else auction(ilk, dink, dart)
    return [
        LiquidationCall(
            debt=debt,
            collateral=gem,
            repaid=0 if refused else -(-dart * ilk.rate // RAY),
            seized=seized,
            seized_scaled=dink,
            received=seized,
            bonus=house.chop / WAD - 1 if house.chop else None,
            refused=refused,
            cost=Fraction(0),
            gain=None if started is None or started.reward is None else Fraction(started.reward),
            function=function,
            gas=GAS[function],
            auction=started,
        )
    ]


def auction(ilk: Ilk, dink: int, dart: int) -> Auction:
    """The arguments of Clipper.kick or Flipper.kick, and what Clipper.kick pays the caller of Dog.bark."""
    house = ilk.bark or ilk.bite
    assert house is not None
    tab = dart * ilk.rate * house.chop // WAD
    reward: int | None = 0
    if ilk.bark is not None:
        tip, chip = ilk.bark.tip, ilk.bark.chip
        reward = None if tip is None or chip is None else tip + tab * chip // WAD
    return Auction(lot=dink, tab=tab, reward=reward)


def taken(ilk: Ilk, urn: Urn) -> tuple[int, str | None]:
    """The normalised debt that one auction takes, and why it cannot start."""
    house = ilk.bark or ilk.bite
    assert house is not None
    if house.blocked:
        return 0, house.blocked[0]
    if ilk.bark is not None:
        return barked(urn.ink, urn.art, ilk.rate, ilk.dust, room=house.room, chop=house.chop)
    return bitten(urn.ink, urn.art, ilk.rate, room=house.room, chop=house.chop)
