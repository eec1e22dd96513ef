"""One Comet account: what it holds, and the contract's own arithmetic about it. Pure functions of market and position."""

from dataclasses import dataclass, field

from indexer.model import WAD, Asset, Balance, Health, Position
from protocols.common import balance
from protocols.compound_v3.market import INDEX_SCALE, CompoundV3Market


@dataclass(frozen=True, slots=True, kw_only=True)
class CompoundV3Position(Position):
    """An account; `principal` as `userBasic` stores it; `collateral`: asset -> balance, in the order of the asset map.

    `stranded` is collateral that an absorption left behind: the asset map has lost it, so it backs no debt.
    """

    principal: int = 0
    collateral: dict[str, int] = field(default_factory=dict)
    stranded: dict[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return self.principal == 0 and not self.collateral and not self.stranded


def evaluate(market: CompoundV3Market, position: CompoundV3Position) -> Health:
    """Comet.isLiquidatable without its early exit: `liquidation_limit` counts all of the collateral.

    A dead feed (price None) makes a position unpriceable if the contract's loop reaches it, that is, unless the
    collateral before it covers the debt; the health factor is unknown either way. Collateral without weight needs no
    price: the versions that can be configured so skip it.
    """
    table = market.collateral_of
    debt = debt_accrued = 0
    has_debt = position.principal < 0
    unpriceable = has_debt and market.base_price is None
    if has_debt and market.base_price is not None:
        principal, price, scale = -position.principal, market.base_price, market.base_scale
        debt = (principal * market.borrow_index // INDEX_SCALE) * price // scale
        debt_accrued = (principal * market.borrow_index_accrued // INDEX_SCALE) * price // scale
    collateral = limit = 0
    priced = weighed = True
    for asset, held in position.collateral.items():
        of = table.get(asset)
        if of is None or of.price is None:
            priced = False
            if of is None or of.liquidate_factor:
                unpriceable = unpriceable or limit < debt
                weighed = False
            continue
        value = held * of.price // of.scale
        collateral += value
        limit += value * of.liquidate_factor // WAD
    known = weighed and not unpriceable
    return Health(
        key=position.key,
        collateral_value=collateral if priced else None,
        liquidation_limit=limit if weighed else None,
        debt_value=None if has_debt and market.base_price is None else debt,
        health_factor=limit * WAD // debt if debt and known else None,
        health_factor_accrued=limit * WAD // debt_accrued if debt_accrued and known else None,
        has_debt=has_debt,
        liquidatable=limit < debt and not unpriceable,
        unpriceable=unpriceable,
        blocked_by=("absorb-paused",) if has_debt and market.absorb_paused else (),
    )


def balances(market: CompoundV3Market, position: CompoundV3Position) -> list[Balance]:
    """Base supply and debt as `balanceOf` and `borrowBalanceOf` return them (accrued), and the collateral."""
    rows, principal = [], position.principal
    if principal:
        side = "supply" if principal > 0 else "debt"
        index = market.supply_index_accrued if principal > 0 else market.borrow_index_accrued
        amount = abs(principal) * index // INDEX_SCALE
        rows.append(row(market, market.assets[0], side, abs(principal), amount))
    for asset, held in (position.collateral | position.stranded).items():
        if asset in market.collateral_of:  # an asset listed after `market` was read is left out
            listed = market.assets[1 + market.collateral_of[asset].offset]
            rows.append(row(market, listed, "supply", held, held, is_collateral=asset in position.collateral))
    return rows


def row(
    market: CompoundV3Market, of: Asset, side: str, scaled: int, amount: int, *, is_collateral: bool = False
) -> Balance:
    value = None if of.price is None else amount * of.price // 10**of.decimals
    return balance(of, market.comet, side, scaled=scaled, amount=amount, value=value, is_collateral=is_collateral)
