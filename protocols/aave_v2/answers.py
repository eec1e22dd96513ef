"""What an Aave V2 pool and its tokens say about an account, to compare with what we compute."""

from collections.abc import Mapping
from typing import Any

from indexer.model import WAD, Answer, Failed, PositionKey
from protocols.aave.math import percent_mul

MAX_UINT = 2**256 - 1


def answer(key: PositionKey, data: Any, amounts: Mapping[tuple[str, str], int]) -> Answer:
    """One account's answers; getUserAccountData fails where a price is missing."""
    names = "collateral_value_raw", "debt_value_raw", "liquidation_limit_raw", "health_factor_raw"
    if isinstance(data, Failed):
        return Answer(key=key, columns=dict.fromkeys(names), amounts=amounts)
    health_factor = None if data[5] == MAX_UINT else data[5]
    columns = dict(zip(names, (data[0], data[1], percent_mul(data[0], data[3]), health_factor), strict=True))
    liquidatable = health_factor is not None and health_factor < WAD
    return Answer(key=key, columns=columns, liquidatable=liquidatable, amounts=amounts)
