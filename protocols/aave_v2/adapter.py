"""Aave V2 and its forks: stable and variable debt, prices in the oracle's own unit (ETH), rebasing aTokens."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from indexer.abi import abi
from indexer.adapter import Reader, answered, required
from indexer.model import (
    Answer,
    Balance,
    Effect,
    Health,
    LiquidationCall,
    PositionKey,
    Price,
    Quotes,
    Read,
    Shape,
)
from protocols.aave.adapter import SCALED_BALANCE, STABLE_DEBT, AaveAdapter, Touches
from protocols.aave.math import ray_mul
from protocols.aave_v2 import liquidation
from protocols.aave_v2.answers import answer
from protocols.aave_v2.bounds import AaveV2Bounds
from protocols.aave_v2.market import AaveV2Market, Reserve, read_market
from protocols.aave_v2.position import AaveV2Position, balances, evaluate, formula_amount
from protocols.common import together

POOL = abi("aave_v2_pool")
A_TOKEN = abi("aave_v2_a_token")
VARIABLE_DEBT = abi("aave_v2_variable_debt_token")

#: How many holders of each aToken are checked at each snapshot for balances that moved without an event.
WITNESSES = 3
#: whoever holds at least one part in so many of an aToken may be one
LARGE = 1_000

USER_CONFIGURATION = POOL.function("getUserConfiguration")  # a struct of one word
ACCOUNT_DATA = POOL.function("getUserAccountData")
BALANCE = A_TOKEN.function("balanceOf")

BORROW = POOL.event("Borrow")
# The aToken's Mint has the topic0 of Compound's and Uniswap's: only the address tells them apart.
MINT = A_TOKEN.event("Mint")
BALANCE_TRANSFER = A_TOKEN.event("BalanceTransfer")

EVENTS: Mapping[str, Touches] = {
    "pool": {
        BORROW: ((2,), ()),  # onBehalfOf; `user` is only the caller
        POOL.event("LiquidationCall"): ((3,), (2,)),  # user, liquidator
        POOL.event("ReserveUsedAsCollateralEnabled"): ((2,), ()),
        POOL.event("ReserveUsedAsCollateralDisabled"): ((2,), ()),
        POOL.event("Swap"): ((2,), ()),
        POOL.event("RebalanceStableBorrowRate"): ((2,), ()),
    },
    "a": {
        MINT: ((1,), ()),
        A_TOKEN.event("Burn"): ((1,), ()),
        BALANCE_TRANSFER: ((1, 2), ()),
    },
    "variable": {
        VARIABLE_DEBT.event("Mint"): ((2,), ()),
        VARIABLE_DEBT.event("Burn"): ((1,), ()),
    },
    "stable": {
        STABLE_DEBT.event("Mint"): ((2,), ()),
        STABLE_DEBT.event("Burn"): ((1,), ()),
    },
}


class AaveV2(AaveAdapter[AaveV2Market, AaveV2Position], AaveV2Bounds):
    """One Aave V2 market, found through its LendingPoolAddressesProvider."""

    protocol = "aave-v2"
    market_type = AaveV2Market
    position_type = AaveV2Position
    required_addresses = ("lending_pool_addresses_provider",)
    events = EVENTS
    borrow = BORROW
    account_functions = (USER_CONFIGURATION,)
    receipts = (MINT, BALANCE_TRANSFER)
    receipt_shapes: ClassVar[Mapping[str, Shape]] = {
        MINT: Shape(topics=2, words=2, accounts=(1,)),
        BALANCE_TRANSFER: Shape(topics=3, words=2, accounts=(1, 2), unless_zero=0),
    }

    def read_market(self, read: Reader, previous: AaveV2Market | None) -> AaveV2Market:
        provider = self.deployment.addresses["lending_pool_addresses_provider"].lower()
        return read_market(read, provider, previous)

    # positions --------------------------------------------------------------------------------------------------------

    def own_fields(self, answers: Sequence[Any], debts: Sequence[tuple[Any, Sequence[Any]]]) -> dict[str, Any]:
        return {"offsets": {}}

    def read_unknown(self, read: Reader, market: AaveV2Market, positions: Sequence[AaveV2Position]) -> None:
        """Keeps what differs from the formula."""
        if market.exact:
            return
        there = market if read.block == market.block else market.at(read.block)
        wanted = [(p, token) for p in positions for token in p.held]
        amounts = required(read, [Read(token, BALANCE, (p.key.account,)) for p, token in wanted])
        for (p, token), amount in zip(wanted, amounts, strict=True):
            offset = amount - formula_amount(there, p, token)
            if offset:
                p.offsets[token] = offset

    def changes_silently(self, market: AaveV2Market, position: AaveV2Position) -> bool:
        """Whether the position holds tokens whose code is unknown."""
        return bool(position.offsets) or not (market.exact or position.empty)

    def fit(self, read: Reader, market: AaveV2Market, positions: Sequence[AaveV2Position]) -> AaveV2Market:
        """Finds aTokens that rebase, and asks for the present balances of all their holders."""
        rebasing = market.rebasing | self.found_rebasing(read, market, positions)
        holders = [(token, p) for p in positions for token in p.supplied if token in rebasing]
        answers = iter(
            required(read, [Read(t, f, (p.key.account,)) for t, p in holders for f in (SCALED_BALANCE, BALANCE)])
        )
        moved: dict[str, dict[str, tuple[int, int]]] = {}
        for (token, p), scaled, amount in zip(holders, answers, answers, strict=True):
            offset = amount - ray_mul(scaled, market.supplies[token].income)
            if offset or scaled != p.supplied[token]:
                moved.setdefault(token, {})[p.key.account] = (scaled, offset)
        return replace(market, rebasing=rebasing, moved=moved)

    def fit_group(self, market: AaveV2Market, position: AaveV2Position) -> Hashable | None:
        """All holders of a rebasing aToken, and every holder large enough to be a witness."""
        for token, scaled in position.supplied.items():
            supply = market.supplies.get(token)
            if token in market.rebasing or (supply and scaled * LARGE >= supply.reserve.scaled_supply):
                return position.key
        return None

    def found_rebasing(self, read: Reader, market: AaveV2Market, positions: Sequence[AaveV2Position]) -> set[str]:
        """The aTokens that rebase: a large holder's balance differs from the formula's, or all large holders' scaled
        balances have changed since they were read although no event touched any of them.
        """
        witnesses: dict[str, list[tuple[bool, int, str]]] = {}
        for p in positions:
            stale = p.block_number < market.block.number
            for token, scaled in p.supplied.items():
                if token in market.supplies and token not in market.rebasing:
                    witnesses.setdefault(token, []).append((stale, scaled, p.key.account))
        asked = [(t, *w) for t, holders in witnesses.items() for w in sorted(holders, reverse=True)[:WITNESSES]]
        answers = iter(
            required(read, [Read(t, f, (account,)) for t, *_, account in asked for f in (SCALED_BALANCE, BALANCE)])
        )
        found: set[str] = set()
        changed: dict[str, list[bool]] = {}
        for (token, stale, before, _), scaled, amount in zip(asked, answers, answers, strict=True):
            if amount != ray_mul(scaled, market.supplies[token].income):
                found.add(token)
            elif stale:
                changed.setdefault(token, []).append(scaled != before)
        # An omitted log may have changed one of several; a rebase changes all.
        return found | {token for token, changes in changed.items() if all(changes)}

    def evaluate(self, market: AaveV2Market, position: AaveV2Position) -> Health:
        return evaluate(market, position)

    def balances(self, market: AaveV2Market, position: AaveV2Position) -> list[Balance]:
        return balances(market, position)

    # the contracts' own answers ---------------------------------------------------------------------------------------

    def answers(
        self, read: Reader, market: AaveV2Market, wanted: Sequence[tuple[PositionKey, Sequence[str]]]
    ) -> list[Answer]:
        side = market.sides
        data, amounts = together(
            read,
            [Read(market.pool, ACCOUNT_DATA, (key.account,)) for key, _ in wanted],
            [Read(token, BALANCE, (key.account,)) for key, tokens in wanted for token in tokens],
        )
        answered_amounts = iter(answered(amounts))
        return [
            answer(key, one, {(token, side[token]): next(answered_amounts) for token in tokens})
            for (key, tokens), one in zip(wanted, data, strict=True)
        ]

    def stable_total(self, reserve: Reserve) -> int:
        return reserve.stable_debt

    def adds_up(self, market: AaveV2Market, a_token: str) -> bool:
        return a_token not in market.rebasing

    def quotes(self, market: AaveV2Market) -> Quotes:
        """Prices are counted in WETH where the oracle counts in ETH."""
        numeraire = next((r.asset for r in market.reserves if liquidation.is_unit(r)), None)
        return Quotes(prices=super().quotes(market).prices, numeraire=numeraire)

    # liquidation ------------------------------------------------------------------------------------------------------

    def exposure(self, market: AaveV2Market, position: AaveV2Position) -> list[Price]:
        return liquidation.exposure(market, position)

    def effect(self, market: AaveV2Market, position: AaveV2Position, balance: Balance, delta: int) -> Effect | None:
        return liquidation.effect(market, position, balance, delta)

    def liquidation_calls(self, market: AaveV2Market, position: AaveV2Position) -> list[LiquidationCall]:
        return liquidation.liquidation_calls(market, position)
