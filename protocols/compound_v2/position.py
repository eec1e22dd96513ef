"""A position of Compound V2: an account's cTokens and debts as its markets store them."""

from dataclasses import dataclass, field

from indexer.model import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class CompoundV2Position(Position):
    """`c_tokens`: market -> cTokens; `borrows`: market -> (principal, interestIndex), as the cToken stores them.

    Where a debt's storage cannot be read `stored` is False and its pair is (debt, borrow index) of `block_number`,
    exact at that index only; `accrued` then has the debt after accruing to that block, as the cToken answers it.
    """

    entered: tuple[str, ...] = ()
    c_tokens: dict[str, int] = field(default_factory=dict)
    borrows: dict[str, tuple[int, int]] = field(default_factory=dict)
    stored: bool = True
    accrued: dict[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not self.c_tokens and not self.borrows
