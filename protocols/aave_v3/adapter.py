"""Aave V3 and its forks (Spark), 3.0 to 3.7; `rules` recognises the version by the contracts' functions and totals."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from typing import ClassVar

from indexer.abi import abi
from indexer.adapter import ONE, Reader
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
from protocols.aave_v3 import liquidation
from protocols.aave_v3.answers import agrees, answer
from protocols.aave_v3.bounds import AaveV3Bounds
from protocols.aave_v3.market import AaveV3Market, Reserve
from protocols.aave_v3.position import AaveV3Position, balances, evaluate, misplaced
from protocols.aave_v3.read import read_market, with_modes
from protocols.common import chunks, needed

POOL = abi("aave_v3_pool")
TOKEN = abi("aave_v3_token")
STABLE_DEBT = abi("aave_stable_debt_token")
GHO_DEBT = abi("aave_gho_debt_token")

#: How many accounts with debt are asked when the contracts' totals leave several versions open.
CALIBRATION_ACCOUNTS = 32

USER_CONFIGURATION = POOL.function("getUserConfiguration")
USER_E_MODE = POOL.function("getUserEMode")
ACCOUNT_DATA = POOL.function("getUserAccountData")
SCALED_BALANCE = TOKEN.function("scaledBalanceOf")
BALANCE = TOKEN.function("balanceOf")

BORROW = POOL.event("Borrow")
MINT = TOKEN.event("Mint")
BURN = TOKEN.event("Burn")
BALANCE_TRANSFER = TOKEN.event("BalanceTransfer")
STABLE_MINT = STABLE_DEBT.event("Mint")
STABLE_BURN = STABLE_DEBT.event("Burn")
DISCOUNT_UPDATED = GHO_DEBT.event("DiscountPercentUpdated")
LIQUIDATION = POOL.event("LiquidationCall")

EVENTS: Mapping[str, Touches] = {
    "pool": {
        BORROW: ((2,), ()),  # onBehalfOf; `user` is only the caller
        LIQUIDATION: ((3,), (2,)),  # user, liquidator
        POOL.event("ReserveUsedAsCollateralEnabled"): ((2,), ()),
        POOL.event("ReserveUsedAsCollateralDisabled"): ((2,), ()),
        POOL.event("UserEModeSet"): ((1,), ()),
        POOL.event("DeficitCreated"): ((1,), ()),
        POOL.event("SwapBorrowRateMode"): ((2,), ()),
        POOL.event("RebalanceStableBorrowRate"): ((2,), ()),
    },
    "a": {MINT: ((2,), ()), BURN: ((1,), ()), BALANCE_TRANSFER: ((1, 2), ())},
    "variable": {MINT: ((2,), ()), BURN: ((1,), ())},
    "discounting": {MINT: ((2,), ()), BURN: ((1,), ()), DISCOUNT_UPDATED: ((1,), ())},  # GHO before 3.4
    "stable": {STABLE_MINT: ((2,), ()), STABLE_BURN: ((1,), ())},
}


class AaveV3(AaveAdapter[AaveV3Market, AaveV3Position], AaveV3Bounds):
    """One Aave V3 market, found through its PoolAddressesProvider."""

    protocol = "aave-v3"
    market_type = AaveV3Market
    position_type = AaveV3Position
    required_addresses = ("pool_addresses_provider",)
    events = EVENTS
    borrow = BORROW
    receipts = (MINT, BALANCE_TRANSFER)
    receipt_shapes: ClassVar[Mapping[str, Shape]] = {
        MINT: Shape(topics=3, words=3, accounts=(2,)),
        BALANCE_TRANSFER: Shape(topics=3, words=2, accounts=(1, 2), unless_zero=0),
    }

    def read_market(self, read: Reader, previous: AaveV3Market | None) -> AaveV3Market:
        provider = self.deployment.addresses["pool_addresses_provider"].lower()
        return read_market(read, provider, previous)

    # positions --------------------------------------------------------------------------------------------------------

    def read_positions(self, read: Reader, market: AaveV3Market, keys: Sequence[PositionKey]) -> list[AaveV3Position]:
        """Two rounds: everyone's flags, e-mode and all of their aTokens, then the debts that the flags name."""
        return self._read(read, market, keys, [reserve.a_token for reserve in market.reserves])

    def read_health(self, read: Reader, market: AaveV3Market, keys: Sequence[PositionKey]) -> list[AaveV3Position]:
        """Two rounds: everyone's flags and e-mode, then the aTokens and debts that the flags name.

        GenericLogic.calculateUserAccountData passes over every reserve whose two flags are not set.
        """
        return self._read(read, market, keys, None)

    def _read(
        self, read: Reader, market: AaveV3Market, keys: Sequence[PositionKey], every: Sequence[str] | None
    ) -> list[AaveV3Position]:
        """Positions with their balances of `every` aToken, or of those that back debt if None."""
        a_tokens = every or ()
        reads = []
        for address, _ in keys:
            args = (address,)
            reads.append(Read(market.pool, USER_CONFIGURATION, args))
            reads.append(Read(market.pool, USER_E_MODE, args))
            reads += [Read(token, SCALED_BALANCE, args) for token in a_tokens]
        rows = chunks(read(reads), 2 + len(a_tokens))
        flagged = [(reserve.borrowing_flag, debt_signatures(reserve)) for reserve in market.reserves]
        if every is None:
            flagged += [(reserve.collateral_flag, [(reserve.a_token, SCALED_BALANCE)]) for reserve in market.reserves]
        reads = []
        for (address, _), row in zip(keys, rows, strict=True):
            flags = needed(row[0])
            for flag, signatures in flagged:
                if flags & flag:
                    reads += [Read(token, signature, (address,)) for token, signature in signatures]
        rest = iter(read(reads) if reads else ())
        positions: list[AaveV3Position] = []
        for key, (flags, mode, *amounts) in zip(keys, rows, strict=True):
            supplied = {token: needed(scaled) for token, scaled in zip(a_tokens, amounts, strict=True) if scaled != 0}
            position = AaveV3Position(
                key=key,
                block_number=read.block.number,
                configuration=flags,
                mode=needed(mode),
                supplied=supplied,
                borrowed={},
                stable={},
                discounts={},
                amounts={},
                supplies_complete=every is not None,
            )
            for reserve in market.reserves:
                if flags & reserve.borrowing_flag:
                    add_debt(position, reserve, [needed(next(rest)) for _ in debt_signatures(reserve)])
            for reserve in market.reserves if every is None else ():
                if flags & reserve.collateral_flag and (scaled := needed(next(rest))):
                    position.supplied[reserve.a_token] = scaled
            positions.append(position)
        if market.version is None:
            read_amounts(read, positions)
        return list(positions)

    def changes_silently(self, market: AaveV3Market, position: AaveV3Position) -> bool:
        """Also true where the code is unknown: amounts then come from balanceOf alone, and grow old."""
        return market.version is None or misplaced(market, position)

    def evaluate(self, market: AaveV3Market, position: AaveV3Position) -> Health:
        return evaluate(market, position)

    def price_source(self, market: AaveV3Market, asset: Asset) -> str | None:
        return market.oracle

    def balances(self, market: AaveV3Market, position: AaveV3Position) -> list[Balance]:
        return balances(market, position)

    # what the contracts say -------------------------------------------------------------------------------------------

    def contract_answers(self, read: Reader, market: AaveV3Market, keys: Sequence[PositionKey]) -> list[Answer]:
        tokens = [*listed_tokens(market)]
        return answers_of(read, market, [(key, tokens) for key in keys])

    def audit_answers(self, read: Reader, market: AaveV3Market, positions: Sequence[AaveV3Position]) -> list[Answer]:
        tokens = [*listed_tokens(market)]
        return answers_of(read, market, [(p.key, p.asked(tokens, read.block.number)) for p in positions])

    def fit(self, read: Reader, market: AaveV3Market, positions: Sequence[AaveV3Position]) -> AaveV3Market:
        """Asks for e-modes that accounts have entered since they were configured; where several versions agree with the
        contracts' totals, picks the one that accounts with debt agree with too.
        """
        if not market.exact:
            return market
        entered = {p.mode for p in positions} - {0, *(e.id for e in market.e_modes)}
        if entered:
            market = with_modes(read, market, sorted(entered))
        if len(market.candidates) < 2:
            return market
        chosen = [p for p in positions if not undecided(market, p)][:CALIBRATION_ACCOUNTS]
        if not chosen:
            return market
        given = read([Read(market.pool, ACCOUNT_DATA, (p.key.account,)) for p in chosen])
        fitting = []
        for version in market.candidates:
            tried = replace(market, version=version)
            ours = [self.evaluate(tried, p) for p in chosen]
            if all(agrees(health, data) for health, data in zip(ours, given, strict=True)):
                fitting.append(version)
        if not fitting:
            names = " or ".join(market.candidates)
            note = f"POOL_REVISION {market.pool_revision}: accounts are not as Aave {names} computes them"
            note += "; rows carry the contract's own answers"
            return replace(
                market, exact=False, version=None, note=note, revision=f"POOL_REVISION {market.pool_revision}"
            )
        return replace(
            market,
            version=fitting[0],
            candidates=tuple(fitting),
            settled=len(fitting) == 1,
            revision=f"{fitting[0]} (POOL_REVISION {market.pool_revision})",
        ).with_assets()

    def fit_group(self, market: AaveV3Market, position: AaveV3Position) -> Hashable | None:
        """Its e-mode; everyone while several versions are possible."""
        return position.key if len(market.candidates) > 1 else position.mode or None

    def stable_total(self, reserve: Reserve) -> int:
        return reserve.stable_supply[0]

    def adds_up(self, market: AaveV3Market, a_token: str) -> bool:
        return True

    # what if ----------------------------------------------------------------------------------------------------------

    def quotes(self, market: AaveV3Market) -> Quotes:
        """Includes e-modes with a price source of their own (up to 3.1)."""
        sources = {e.price_source: e.price for e in market.e_modes if e.price_source and e.price is not None}
        return Quotes(prices={**sources, **super().quotes(market).prices})

    def with_prices(self, market: AaveV3Market, prices: Mapping[str, int], numeraire: Fraction = ONE) -> AaveV3Market:
        """`prices` are in base currency by asset; those of e-modes with their own price are by price source."""
        e_modes = tuple(
            e if e.price_source is None else replace(e, price=prices.get(e.price_source, e.price))
            for e in market.e_modes
        )
        return replace(super().with_prices(market, prices), e_modes=e_modes)

    # liquidation ------------------------------------------------------------------------------------------------------

    def narrow(self, market: AaveV3Market, position: AaveV3Position) -> AaveV3Market:
        return replace(
            super().narrow(market, position), e_modes=tuple(e for e in market.e_modes if e.id == position.mode)
        )

    def exposure(self, market: AaveV3Market, position: AaveV3Position) -> list[Price]:
        return liquidation.exposure(market, position)

    def effect(self, market: AaveV3Market, position: AaveV3Position, balance: Balance, delta: int) -> Effect | None:
        return liquidation.effect(market, position, balance, delta)

    def liquidation_calls(self, market: AaveV3Market, position: AaveV3Position) -> list[LiquidationCall]:
        return liquidation.liquidation_calls(market, position)


def listed_tokens(market: AaveV3Market) -> dict[str, str]:
    """The tokens of the reserves, and the side of the balances that each keeps."""
    return {
        token: "supply" if place.kind == "a" else "debt"
        for token, place in market.tokens.items()
        if place.reserve is not None
    }


def answers_of(read: Reader, market: AaveV3Market, wanted: Sequence[tuple[PositionKey, Sequence[str]]]) -> list[Answer]:
    """Ask for account data, the e-mode and balanceOf of the tokens named with each key."""
    side, average = listed_tokens(market), market.exact and market.averages
    reads = []
    for (address, _), tokens in wanted:
        reads += [Read(market.pool, ACCOUNT_DATA, (address,)), Read(market.pool, USER_E_MODE, (address,))]
        reads += [Read(token, BALANCE, (address,)) for token in tokens]
    answers = iter(read(reads))
    return [
        answer(key, [(token, side[token]) for token in tokens], list(islice(answers, 2 + len(tokens))), average)
        for key, tokens in wanted
    ]


def debt_signatures(reserve: Reserve) -> list[tuple[str, str]]:
    """(token, read) for each part of an account's debt in this reserve."""
    reads = [(reserve.variable_debt_token, SCALED_BALANCE)]
    if reserve.stable_debt_token:
        reads += [
            (reserve.stable_debt_token, STABLE_DEBT.function("principalBalanceOf")),
            (reserve.stable_debt_token, STABLE_DEBT.function("getUserStableRate")),
            (reserve.stable_debt_token, STABLE_DEBT.function("getUserLastUpdated")),
        ]
    if reserve.discount:
        reads += [
            (reserve.variable_debt_token, GHO_DEBT.function("getPreviousIndex")),
            (reserve.variable_debt_token, GHO_DEBT.function("getDiscountPercent")),
        ]
    return reads


def add_debt(position: AaveV3Position, reserve: Reserve, answers: Sequence[int]) -> None:
    """Fill in the answers to `debt_signatures`."""
    scaled, *rest = answers
    if scaled:
        position.borrowed[reserve.variable_debt_token] = scaled
    if reserve.stable_debt_token:
        principal, rate, last_update, *rest = rest
        if principal:
            position.stable[reserve.stable_debt_token] = (principal, rate, last_update)
    if reserve.discount and scaled:
        previous_index, percent = rest
        position.discounts[reserve.variable_debt_token] = (previous_index, percent)


def read_amounts(read: Reader, positions: Sequence[AaveV3Position]) -> None:
    """Ask each token for the positions' balances, for code whose rounding is unknown."""
    wanted = [(p, token) for p in positions for token in p.held]
    amounts = read([Read(token, BALANCE, (p.key.account,)) for p, token in wanted])
    for (p, token), amount in zip(wanted, amounts, strict=True):
        p.amounts[token] = needed(amount)


def undecided(market: AaveV3Market, position: AaveV3Position) -> bool:
    """Whether all versions agree on this account anyway: it has no debt, or a price is missing."""
    return not position.has_debt or bool(position.configuration & market.plan(position.mode).unpriced)
