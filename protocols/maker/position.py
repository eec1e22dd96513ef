"""One urn: what the Vat stores, whose it is, and dss's own arithmetic about it. Pure functions."""

from dataclasses import dataclass

from indexer.model import RAY, WAD, Balance, Health, Position
from protocols.common import Token, balance
from protocols.maker.market import Ilk, MakerMarket
from protocols.maker.math import bark_refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Urn(Position):
    """An urn; `cdp` is CdpManager's number, None if it does not manage the urn; the rest are columns of `positions`."""

    ink: int
    art: int
    cdp: int | None
    owner: str
    owner_via: str
    wallet: str

    @property
    def empty(self) -> bool:
        return not self.ink and not self.art


def evaluate(market: MakerMarket, position: Urn) -> Health:
    """Dog.bark's test, ink * spot < art * rate, as a ratio; dss itself defines no health factor."""
    ink, art = position.ink, position.art
    ilk = market.ilks.get(position.key.group)
    spot, rate = (ilk.spot, ilk.rate) if ilk else (0, 0)
    limit, debt = ink * spot, art * rate
    health = accrued = upcoming = None
    if ilk and debt:
        if spot:
            health = limit * WAD // debt
            accrued_debt = art * ilk.accrued_rate
            accrued = limit * WAD // accrued_debt if accrued_debt else None
        if ilk.next_spot:
            upcoming = ink * ilk.next_spot * WAD // debt
    priced = spot > 0 or not ink
    now = market.wallets.get(position.owner) if market.wallets else None
    return Health(
        key=position.key,
        collateral_value=(ink * ilk.price if ilk else 0) if priced else None,
        liquidation_limit=limit if priced else None,
        debt_value=debt if ilk or not art else None,
        health_factor=health,
        health_factor_accrued=accrued,
        next_health_factor=upcoming,
        has_debt=art > 0,
        liquidatable=spot > 0 and limit < debt,
        unpriceable=not spot and art > 0,
        blocked_by=blocked_by(market, ilk, ink, art) if ilk and art else (),
        owner=position.owner,
        owner_via=position.owner_via,
        wallet=now[1] if now and now[0] > position.block_number else position.wallet,
    )


def blocked_by(market: MakerMarket, ilk: Ilk, ink: int, art: int) -> tuple[str, ...]:
    """What would prevent the auction of an urn with debt: End's cage, and the Dog's or Cat's limits where known."""
    if ilk.bark is None:
        return ("cage",) if not market.live else ilk.bite.blocked if ilk.bite else ()
    if ilk.bark.blocked or not ilk.spot or ink * ilk.spot >= art * ilk.rate:
        return ilk.bark.blocked
    refused = bark_refused(ink, art, ilk.rate, ilk.dust, room=ilk.bark.room, chop=ilk.bark.chop)
    return (refused,) if refused else ()


def gem_amount(ilk: Ilk, ink: int) -> int:
    """`ink` (wad) in the token's smallest unit, rounded down as a join does."""
    return int(ink // 10 ** (18 - ilk.gem.decimals))


def dai_amount(rad: int) -> int:
    """A debt (rad) in DAI wei, rounded up: what pays it off."""
    return -(-rad // RAY)


def balances(market: MakerMarket, position: Urn) -> list[Balance]:
    """Collateral in the gem's own unit, rounded down; debt at the stored rate in DAI wei, rounded up."""
    ilk, vat = market.ilks.get(position.key.group), market.contracts["vat"]
    if ilk is None:
        return []
    rows = []
    if position.ink:
        gem, amount = Token(ilk.asset, ilk.gem.symbol, ilk.gem.decimals), gem_amount(ilk, position.ink)
        value = position.ink * ilk.price if ilk.spot else None
        rows.append(balance(gem, vat, "supply", scaled=position.ink, amount=amount, value=value, is_collateral=True))
    if position.art:
        debt, dai = position.art * ilk.rate, Token(market.dai, "DAI", 18)
        rows.append(balance(dai, vat, "debt", scaled=position.art, amount=dai_amount(debt), value=debt))
    return rows
