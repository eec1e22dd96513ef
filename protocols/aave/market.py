"""What the markets of both versions of Aave share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Generic, NamedTuple, Self, TypeVar

from indexer.model import RAY, Asset, Block, Market
from protocols.aave.math import PERCENTAGE_FACTOR
from protocols.aave.reserve import AaveReserve
from protocols.common import price_usd

R = TypeVar("R", bound=AaveReserve)


class Place(NamedTuple, Generic[R]):
    """A contract of the market: its kind ("pool", "a", "variable", "discounting", "stable"), a token's reserve and flag."""

    kind: str
    reserve: R | None = None
    flag: int = 0


@dataclass(frozen=True, kw_only=True)  # no slots: the cached properties live in the instance
class AaveMarket(Market, Generic[R]):
    """One pool of Aave at one block; prices are in the oracle's unit."""

    pool: str
    oracle: str
    pool_revision: int | None
    reserves: tuple[R, ...] = ()

    @cached_property
    def tokens(self) -> Mapping[str, Place[R]]:
        """Every contract of the market that keeps balances or emits events."""
        places: dict[str, Place[R]] = {self.pool: Place("pool")}
        for reserve in self.reserves:
            places[reserve.a_token] = Place("a", reserve, reserve.collateral_flag)
            places[reserve.variable_debt_token] = Place(reserve.debt_kind, reserve, reserve.borrowing_flag)
            if reserve.stable_debt_token:
                places[reserve.stable_debt_token] = Place("stable", reserve, reserve.borrowing_flag)
        return places

    @property
    def sides(self) -> dict[str, str]:
        """The tokens of the reserves, and the side of the balances that each keeps."""
        reserved = {token: place.kind for token, place in self.tokens.items() if place.reserve is not None}
        return {token: "supply" if kind == "a" else "debt" for token, kind in reserved.items()}

    def contracts_of(self, kind: str) -> frozenset[str]:
        return frozenset(address for address, place in self.tokens.items() if place.kind == kind)

    def reserve_of(self, token: str) -> R | None:
        """The reserve that a token belongs to, None if there is none."""
        place = self.tokens.get(token)
        return None if place is None else place.reserve

    @property
    def thresholds(self) -> dict[str, Fraction]:
        """Liquidation thresholds by asset."""
        return {r.asset: Fraction(r.liquidation_threshold, PERCENTAGE_FACTOR) for r in self.reserves}

    def with_thresholds(self, thresholds: Mapping[str, Fraction]) -> Self:
        """With other liquidation thresholds, rounded down to basis points."""
        reserves = tuple(
            r.with_threshold(int(thresholds[r.asset] * PERCENTAGE_FACTOR)) if r.asset in thresholds else r
            for r in self.reserves
        )
        return self.with_reserves(reserves)

    def with_reserves(self, reserves: tuple[Any, ...]) -> Self:
        """With others in the place of the reserves, in their order."""
        return replace(self, reserves=reserves).with_assets()

    def at(self, block: Block) -> Self:
        """With the indexes of a later `block` if nobody acts."""
        raise NotImplementedError

    def with_assets(self) -> Self:
        """With the rows of `assets` that follow from the reserves."""
        raise NotImplementedError

    def narrowed(self, flags: int, held: Sequence[str]) -> Self:
        """With only the reserves of these user flags and tokens; the conversion to USD stays."""
        tokens = set(held)
        reserves = tuple(
            r
            for r in self.reserves
            if flags & (r.borrowing_flag | r.collateral_flag)
            or not tokens.isdisjoint((r.a_token, r.variable_debt_token, r.stable_debt_token))
        )
        assets = {r.asset for r in reserves}
        return replace(self, reserves=reserves, assets=tuple(row for row in self.assets if row.asset in assets))


def asset_row(market: Market, reserve: AaveReserve, **others: Any) -> Asset:
    """One reserve as a row of `assets` and `markets`; bonuses are what is added (0.05 = 5 %)."""
    bonus = reserve.liquidation_bonus
    return Asset(
        asset=reserve.asset,
        market=reserve.a_token,
        symbol=reserve.symbol,
        decimals=reserve.decimals,
        price=reserve.price,
        price_usd=price_usd(market, reserve.price),
        supply_index=reserve.income,
        debt_index=reserve.debt_index,
        supply_rate=reserve.liquidity_rate / RAY,
        borrow_rate=reserve.variable_borrow_rate / RAY,
        ltv=reserve.ltv / PERCENTAGE_FACTOR,
        liquidation_threshold=reserve.liquidation_threshold / PERCENTAGE_FACTOR,
        liquidation_bonus=bonus_of(bonus),
        active=reserve.active,
        frozen=reserve.frozen,
        **others,
    )


def bonus_of(points: int) -> float | None:
    """A liquidation bonus as the fraction added (10,500 basis points: 0.05), None where there is none."""
    return (points - PERCENTAGE_FACTOR) / PERCENTAGE_FACTOR if points else None
