"""A position of Compound V3: an account as one Comet stores it."""

from dataclasses import dataclass, field

from indexer.model import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class CompoundV3Position(Position):
    """`principal` as `userBasic` stores it; `collateral`: asset -> balance, in the order of the asset map.

    `stranded` is what an absorption left behind: the asset map has lost it, so it backs no debt.
    """

    principal: int = 0
    collateral: dict[str, int] = field(default_factory=dict)
    stranded: dict[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return self.principal == 0 and not self.collateral and not self.stranded
