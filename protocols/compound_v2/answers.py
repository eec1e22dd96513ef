"""What a Compound V2 Comptroller and its cTokens say about an account, to compare with what we compute."""

from collections.abc import Mapping, Sequence
from typing import Any

from indexer.model import WAD, Answer, Failed, Health, PositionKey


def agrees(health: Health, answer: Any) -> bool:
    """Whether getAccountLiquidity says what we computed."""
    if isinstance(answer, Failed) or health.liquidation_limit is None or health.debt_value is None:
        return False
    difference = health.liquidation_limit - health.debt_value
    return bool(tuple(answer) == (0, max(difference, 0), max(-difference, 0)))


def answer(
    key: PositionKey,
    tokens: Sequence[str],
    prices: Mapping[str, int | None],
    deprecated: set[str],
    before: Sequence[Any],
    after: Sequence[Any],
) -> Answer:
    """One account's Answer from (getAssetsIn, getAccountLiquidity, a snapshot a market) before and after accruing."""
    columns: dict[str, int | str | None] = {}
    shortfall = None
    for suffix, (entered, liquidity, *snapshots) in (("", before), ("_accrued", after)):
        if not liquidity or liquidity[0] != 0:
            continue
        difference = liquidity[1] - liquidity[2]
        debt = collateral = 0
        for token, snapshot in zip(tokens, snapshots, strict=True):
            price = prices[token]
            if token in entered and price is not None:
                _, c_tokens, borrow, exchange_rate = snapshot
                debt += price * borrow // WAD
                collateral += exchange_rate * price // WAD * c_tokens // WAD
        columns[f"health_factor{suffix}_raw"] = (debt + difference) * WAD // debt if debt else None
        columns[f"liquidity{suffix}_raw"], columns[f"shortfall{suffix}_raw"] = liquidity[1], liquidity[2]
        if not suffix:
            shortfall = liquidity[2] > 0
            columns["collateral_value_raw"] = collateral
            columns["liquidation_limit_raw"] = debt + difference
            columns["debt_value_raw"] = debt
    answered = {
        token: snapshot for token, snapshot in zip(tokens, before[2:], strict=True) if snapshot and not snapshot[0]
    }
    amounts = {(token, "supply"): snapshot[3] * snapshot[1] // WAD for token, snapshot in answered.items()}
    amounts |= {(token, "debt"): snapshot[2] for token, snapshot in answered.items()}
    forced = any(amounts.get((token, "debt")) for token in deprecated)
    return Answer(
        key=key,
        columns=columns,
        liquidatable=True if forced else shortfall,
        amounts=amounts,
        scaled={(token, "supply"): snapshot[1] for token, snapshot in answered.items()},
    )
