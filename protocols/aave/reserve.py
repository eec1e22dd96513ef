"""What a reserve is in every version of Aave."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from protocols.aave.math import linear_interest, ray_mul


@dataclass(frozen=True, slots=True, kw_only=True)
class AaveReserve:
    """One reserve as the pool and its tokens answer it.

    `stable_debt_token` is "" where there is none. `id` is its place in the user bitmaps; `configuration` the pool's 256-bit
    word. Indexes and rates are in ray, stored as of `last_update`; `income` and `debt_index` are projected to the market's
    block. Totals are scaled. `price` is in the oracle's unit, None if the oracle has none.
    """

    id: int
    asset: str
    symbol: str
    configuration: int
    a_token: str
    variable_debt_token: str
    stable_debt_token: str = ""
    liquidity_index: int
    liquidity_rate: int
    variable_borrow_index: int
    variable_borrow_rate: int
    last_update: int
    income: int
    debt_index: int
    scaled_supply: int
    scaled_debt: int
    price: int | None = None

    def bits(self, first: int, width: int) -> int:
        return (self.configuration >> first) & ((1 << width) - 1)

    # ReserveConfiguration: the masks have kept their places in all versions.
    @property
    def ltv(self) -> int:
        return self.bits(0, 16)

    @property
    def liquidation_threshold(self) -> int:
        return self.bits(16, 16)

    @property
    def liquidation_bonus(self) -> int:
        return self.bits(32, 16)

    @property
    def decimals(self) -> int:
        return self.configuration >> 48 & 0xFF  # as `bits` has it: this one is asked for with every balance

    @property
    def active(self) -> bool:
        return bool(self.bits(56, 1))

    @property
    def frozen(self) -> bool:
        return bool(self.bits(57, 1))

    @property
    def borrowing_flag(self) -> int:
        return 1 << (2 * self.id)

    @property
    def collateral_flag(self) -> int:
        return 2 << (2 * self.id)

    @property
    def debt_kind(self) -> str:
        """The kind of its variable debt token (`Place.kind`)."""
        return "variable"

    def with_threshold(self, points: int) -> Self:
        """With another liquidation threshold, in basis points."""
        return replace(self, configuration=self.configuration & ~(0xFFFF << 16) | points << 16 & 0xFFFF << 16)

    def projected(self, compound: Callable[[int, int], int], timestamp: int) -> Self:
        """With the indexes of ReserveLogic.getNormalizedIncome and getNormalizedDebt at `timestamp`.

        `compound` is the version's MathUtils.calculateCompoundedInterest: (yearly ray rate, seconds) to a growth factor.
        """
        seconds = timestamp - self.last_update
        if seconds == 0:
            return replace(self, income=self.liquidity_index, debt_index=self.variable_borrow_index)
        return replace(
            self,
            income=ray_mul(linear_interest(self.liquidity_rate, seconds), self.liquidity_index),
            debt_index=ray_mul(compound(self.variable_borrow_rate, seconds), self.variable_borrow_index),
        )
