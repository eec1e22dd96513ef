"""What an Aave V3 pool and its tokens say about an account, to compare with what we compute."""

from collections.abc import Sequence
from typing import Any

from indexer.model import WAD, Answer, Failed, Health, PositionKey
from protocols.aave.math import percent_mul
from protocols.common import needed

MAX_UINT = 2**256 - 1


def agrees(health: Health, data: Any) -> bool:
    """Whether getUserAccountData answered what we computed."""
    if isinstance(data, Failed):
        return False
    health_factor = MAX_UINT if health.health_factor is None else health.health_factor
    return bool((health.collateral_value, health.debt_value, health_factor) == (data[0], data[1], data[5]))


def answer(key: PositionKey, tokens: Sequence[tuple[str, str]], answers: Sequence[Any], average: bool) -> Answer:
    """One account's answers: account data, e-mode, then balanceOf of each of `tokens`.

    The limit follows from them only where the health factor is computed from the `average` threshold (up to 3.4).
    """
    data, mode, *amounts = answers
    columns: dict[str, int | str | None] = {}
    liquidatable = None
    if not isinstance(mode, Failed):
        columns["mode"] = str(mode) if mode else None
    reverts = isinstance(data, Failed)  # a price is missing: then nothing has a value
    columns["collateral_value_raw"] = None if reverts else data[0]
    columns["debt_value_raw"] = None if reverts else data[1]
    columns["health_factor_raw"] = health_factor = None if reverts or data[5] == MAX_UINT else data[5]
    if average:
        columns["liquidation_limit_raw"] = None if reverts else percent_mul(data[0], data[3])
    if not reverts:
        liquidatable = health_factor is not None and health_factor < WAD
    return Answer(
        key=key,
        columns=columns,
        liquidatable=liquidatable,
        amounts={place: needed(amount) for place, amount in zip(tokens, amounts, strict=True)},
    )
