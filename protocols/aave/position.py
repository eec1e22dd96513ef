"""What the positions of both versions of Aave share: an account as the pool and its tokens store it."""

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.model import Health, Position


@dataclass(frozen=True, slots=True, kw_only=True)
class AavePosition(Position):
    """One account; balances are keyed by token, so that reserves dropped or listed anew are not mixed up.

    `configuration` is the pool's bitmap (bit 2i: borrows reserve i, bit 2i+1: uses it as collateral). `supplied` and
    `borrowed` map aToken and variable debt token to the scaled balance, `stable` maps a stable debt token to
    (principal, ray rate, last update).
    """

    configuration: int
    supplied: dict[str, int]
    borrowed: dict[str, int]
    stable: dict[str, tuple[int, int, int]]

    @property
    def empty(self) -> bool:
        return not (self.supplied or self.borrowed or self.stable)

    @property
    def has_debt(self) -> bool:
        return bool(self.borrowed or self.stable)

    @property
    def held(self) -> tuple[str, ...]:
        """Every token that the account has a balance of."""
        return (*self.supplied, *self.borrowed, *self.stable)

    def asked(self, tokens: Sequence[str], block: int) -> list[str]:
        """Of these tokens those that the account has a balance of, and one that it has none of, in each block another."""
        held = set(self.held)
        others = [token for token in tokens if token not in held]
        other = (block + int(self.key.account, 16)) % len(others) if others else 0
        return [token for token in tokens if token in held] + others[other : other + 1]

    @property
    def scaled_debts(self) -> dict[str, int]:
        """The scaled balance, or the principal of a stable debt, by debt token."""
        if not self.stable:
            return self.borrowed
        return self.borrowed | {token: principal for token, (principal, _, _) in self.stable.items()}


def unknown_health(
    position: AavePosition, *, unpriceable: bool, blocked_by: tuple[str, ...], mode: str | None = None
) -> Health:
    """The health where a price is missing (getUserAccountData reverts) or the code is unknown."""
    return Health(
        key=position.key,
        collateral_value=None,
        liquidation_limit=None,
        debt_value=None,
        health_factor=None,
        has_debt=position.has_debt,
        liquidatable=False,
        unpriceable=unpriceable,
        blocked_by=blocked_by,
        mode=mode,
    )
