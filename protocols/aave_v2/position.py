"""A position of Aave V2: an account as the pool and its tokens store it."""

from dataclasses import dataclass

from indexer.model import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class AaveV2Position(Position):
    """One account; balances are keyed by token, so that a reserve that is listed anew is not mixed up.

    `configuration` is the pool's bitmap (bit 2i: borrows reserve i, bit 2i+1: uses it as collateral). `supplied` and
    `borrowed` map aToken and variable debt token to the scaled balance, `stable` maps a stable debt token to
    (principal, ray rate, last update). `offsets`, for code that is unknown, maps a token to how much more its balanceOf
    was than the formula says at `block_number`.
    """

    configuration: int
    supplied: dict[str, int]
    borrowed: dict[str, int]
    stable: dict[str, tuple[int, int, int]]
    offsets: dict[str, int]

    @property
    def empty(self) -> bool:
        return not (self.supplied or self.borrowed or self.stable)
