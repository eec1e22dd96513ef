"""Aave V2 and its forks: stable and variable debt, prices in the oracle's own unit (ETH), rebasing aTokens."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from indexer.abi import abi
from indexer.adapter import Reader, answered, required
from indexer.model import (
    Answer,
    Asset,
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
from protocols.aave.adapter import AaveAdapter, Touches
from protocols.aave.math import ray_mul
from protocols.aave_v2 import liquidation
from protocols.aave_v2.answers import answer
from protocols.aave_v2.bounds import AaveV2Bounds
from protocols.aave_v2.market import AaveV2Market, Reserve, read_market
from protocols.aave_v2.position import AaveV2Position, balances, evaluate, formula_amount
from protocols.common import chunks, together

POOL = abi("aave_v2_pool")
A_TOKEN = abi("aave_v2_a_token")
VARIABLE_DEBT = abi("aave_v2_variable_debt_token")
STABLE_DEBT = abi("aave_stable_debt_token")

#: How many holders of each aToken are checked at each snapshot for balances that moved without an event.
WITNESSES = 3
#: whoever holds at least one part in so many of an aToken may be one
LARGE = 1_000

USER_CONFIGURATION = POOL.function("getUserConfiguration")  # a struct of one word
ACCOUNT_DATA = POOL.function("getUserAccountData")
SCALED_BALANCE = A_TOKEN.function("scaledBalanceOf")
BALANCE = A_TOKEN.function("balanceOf")
STABLE = (
    STABLE_DEBT.function("principalBalanceOf"),
    STABLE_DEBT.function("getUserStableRate"),
    STABLE_DEBT.function("getUserLastUpdated"),
)

BORROW = POOL.event("Borrow")
# The aToken's Mint has the topic0 of Compound's and Uniswap's: only the address tells them apart.
MINT = A_TOKEN.event("Mint")
BALANCE_TRANSFER = A_TOKEN.event("BalanceTransfer")

EVENTS: Mapping[str, Touches] = {
    "pool": {
        BORROW: ((2,), ()),  # onBehalfOf; `user` is only the caller
        POOL.event("LiquidationCall"): (
            (3,),
            (2,),
        ),  # user, liquidator
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
    receipts = (MINT, BALANCE_TRANSFER)
    receipt_shapes: ClassVar[Mapping[str, Shape]] = {
        MINT: Shape(topics=2, words=2, accounts=(1,)),
        BALANCE_TRANSFER: Shape(topics=3, words=2, accounts=(1, 2), unless_zero=0),
    }

    def read_market(self, read: Reader, previous: AaveV2Market | None) -> AaveV2Market:
        provider = self.deployment.addresses["lending_pool_addresses_provider"].lower()
        return read_market(read, provider, previous)

    # positions --------------------------------------------------------------------------------------------------------

    def read_positions(self, read: Reader, market: AaveV2Market, keys: Sequence[PositionKey]) -> list[AaveV2Position]:
        """Two rounds: everyone's flags and all of their aTokens, then the debts that the flags name."""
        return self._read(read, market, keys, [reserve.a_token for reserve in market.reserves])

    def read_health(self, read: Reader, market: AaveV2Market, keys: Sequence[PositionKey]) -> list[AaveV2Position]:
        """Two rounds: everyone's flags, then the aTokens and debts that the flags name.

        GenericLogic.calculateUserAccountData passes over every reserve whose two flags are not set.
        """
        return self._read(read, market, keys, None)

    def _read(
        self, read: Reader, market: AaveV2Market, keys: Sequence[PositionKey], every: Sequence[str] | None
    ) -> list[AaveV2Position]:
        """Positions with their balances of `every` aToken, or of those that back debt if None."""
        a_tokens = every or ()
        reads = []
        for address, _ in keys:
            reads.append(Read(market.pool, USER_CONFIGURATION, (address,)))
            reads += [Read(token, SCALED_BALANCE, (address,)) for token in a_tokens]
        answers = required(read, reads)
        rows = chunks(answers, 1 + len(a_tokens))
        owed = [[r for r in market.reserves if flags & r.borrowing_flag] for flags, *_ in rows]
        backing = [
            [r.a_token for r in market.reserves if every is None and flags & r.collateral_flag] for flags, *_ in rows
        ]
        reads = []
        for (address, _), reserves, tokens in zip(keys, owed, backing, strict=True):
            for reserve in reserves:
                reads.append(Read(reserve.variable_debt_token, SCALED_BALANCE, (address,)))
                reads += [Read(reserve.stable_debt_token, function, (address,)) for function in STABLE]
            reads += [Read(token, SCALED_BALANCE, (address,)) for token in tokens]
        debts = iter(required(read, reads))
        positions = []
        for key, (flags, *scaled), reserves, tokens in zip(keys, rows, owed, backing, strict=True):
            borrowed, stable = {}, {}
            for reserve in reserves:
                variable, principal, rate, last_update = (next(debts) for _ in range(4))
                if variable:
                    borrowed[reserve.variable_debt_token] = variable
                if principal:
                    stable[reserve.stable_debt_token] = (principal, rate, last_update)
            held = dict(zip(a_tokens, scaled, strict=True)) | {token: next(debts) for token in tokens}
            positions.append(
                AaveV2Position(
                    key=key,
                    block_number=read.block.number,
                    configuration=flags,
                    supplied={token: amount for token, amount in held.items() if amount},
                    borrowed=borrowed,
                    stable=stable,
                    offsets={},
                    supplies_complete=every is not None,
                )
            )
        if not market.exact:
            read_offsets(read, market, positions)
        return list(positions)

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

    def price_source(self, market: AaveV2Market, asset: Asset) -> str | None:
        return market.oracle

    def balances(self, market: AaveV2Market, position: AaveV2Position) -> list[Balance]:
        return balances(market, position)

    # the contracts' own answers ---------------------------------------------------------------------------------------

    def contract_answers(self, read: Reader, market: AaveV2Market, keys: Sequence[PositionKey]) -> list[Answer]:
        """Asks for getUserAccountData, and for balanceOf in every token."""
        tokens = [*listed_tokens(market)]
        return answers_of(read, market, [(key, tokens) for key in keys])

    def audit_answers(self, read: Reader, market: AaveV2Market, positions: Sequence[AaveV2Position]) -> list[Answer]:
        tokens = [*listed_tokens(market)]
        return answers_of(read, market, [(p.key, p.asked(tokens, read.block.number)) for p in positions])

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


def listed_tokens(market: AaveV2Market) -> dict[str, str]:
    """The tokens of the reserves, and the side of the balances that each keeps."""
    debts = [token for r in market.reserves for token in (r.variable_debt_token, r.stable_debt_token)]
    return dict.fromkeys(market.supplies, "supply") | dict.fromkeys(debts, "debt")


def answers_of(read: Reader, market: AaveV2Market, wanted: Sequence[tuple[PositionKey, Sequence[str]]]) -> list[Answer]:
    """Ask for getUserAccountData, and for balanceOf of the tokens named with each key."""
    side = listed_tokens(market)
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


def read_offsets(read: Reader, market: AaveV2Market, positions: Sequence[AaveV2Position]) -> None:
    """Ask every token of unknown code for the positions' balances, and keep what differs from the formula."""
    there = market if read.block == market.block else market.at(read.block)
    wanted = [(p, token) for p in positions for token in p.held]
    amounts = required(read, [Read(token, BALANCE, (p.key.account,)) for p, token in wanted])
    for (p, token), amount in zip(wanted, amounts, strict=True):
        offset = amount - formula_amount(there, p, token)
        if offset:
            p.offsets[token] = offset
