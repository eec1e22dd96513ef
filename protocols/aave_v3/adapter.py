"""Aave V3 and its forks (Spark), 3.0 to 3.7; `rules` recognises the version by the contracts' functions and totals."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from typing import Any, ClassVar

from indexer.abi import abi
from indexer.adapter import ONE, Part, Reader, required
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
from protocols.aave.adapter import STABLE_DEBT, AaveAdapter, Touches
from protocols.aave_v3 import liquidation
from protocols.aave_v3.answers import agrees, answer
from protocols.aave_v3.bounds import AaveV3Bounds
from protocols.aave_v3.market import AaveV3Market, Reserve
from protocols.aave_v3.position import AaveV3Position, balances, evaluate, misplaced
from protocols.aave_v3.read import read_market, with_modes

POOL = abi("aave_v3_pool")
TOKEN = abi("aave_v3_token")
GHO_DEBT = abi("aave_gho_debt_token")

#: How many accounts with debt are asked when the contracts' totals leave several versions open.
CALIBRATION_ACCOUNTS = 32

USER_CONFIGURATION = POOL.function("getUserConfiguration")
USER_E_MODE = POOL.function("getUserEMode")
ACCOUNT_DATA = POOL.function("getUserAccountData")
BALANCE = TOKEN.function("balanceOf")
DISCOUNT = (GHO_DEBT.function("getPreviousIndex"), GHO_DEBT.function("getDiscountPercent"))

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
    account_functions = (USER_CONFIGURATION, USER_E_MODE)
    receipts = (MINT, BALANCE_TRANSFER)
    receipt_shapes: ClassVar[Mapping[str, Shape]] = {
        MINT: Shape(topics=3, words=3, accounts=(2,)),
        BALANCE_TRANSFER: Shape(topics=3, words=2, accounts=(1, 2), unless_zero=0),
    }

    def read_market(self, read: Reader, previous: AaveV3Market | None) -> AaveV3Market:
        provider = self.deployment.addresses["pool_addresses_provider"].lower()
        return read_market(read, provider, previous)

    # positions --------------------------------------------------------------------------------------------------------

    def debt_reads(self, reserve: Reserve) -> list[Part]:
        waived = [(reserve.variable_debt_token, function) for function in DISCOUNT] if reserve.discount else []
        return [*super().debt_reads(reserve), *waived]

    def own_fields(self, answers: Sequence[Any], debts: Sequence[tuple[Any, Sequence[Any]]]) -> dict[str, Any]:
        (mode,) = answers
        discounts = {r.variable_debt_token: (parts[-2], parts[-1]) for r, parts in debts if r.discount and parts[0]}
        return {"mode": mode, "discounts": discounts, "amounts": {}}

    def read_unknown(self, read: Reader, market: AaveV3Market, positions: Sequence[AaveV3Position]) -> None:
        """Rounding is unknown where the version is."""
        if market.version is not None:
            return
        wanted = [(p, token) for p in positions for token in p.held]
        amounts = required(read, [Read(token, BALANCE, (p.key.account,)) for p, token in wanted])
        for (p, token), amount in zip(wanted, amounts, strict=True):
            p.amounts[token] = amount

    def changes_silently(self, market: AaveV3Market, position: AaveV3Position) -> bool:
        """Also true where the code is unknown: amounts then come from balanceOf alone, and grow old."""
        return market.version is None or misplaced(market, position)

    def evaluate(self, market: AaveV3Market, position: AaveV3Position) -> Health:
        return evaluate(market, position)

    def balances(self, market: AaveV3Market, position: AaveV3Position) -> list[Balance]:
        return balances(market, position)

    # what the contracts say -------------------------------------------------------------------------------------------

    def answers(
        self, read: Reader, market: AaveV3Market, wanted: Sequence[tuple[PositionKey, Sequence[str]]]
    ) -> list[Answer]:
        """Asks for the e-mode too."""
        side, average = market.sides, market.exact and market.averages
        reads = []
        for (address, _), tokens in wanted:
            reads += [Read(market.pool, ACCOUNT_DATA, (address,)), Read(market.pool, USER_E_MODE, (address,))]
            reads += [Read(token, BALANCE, (address,)) for token in tokens]
        answers = iter(read(reads))
        return [
            answer(key, [(token, side[token]) for token in tokens], list(islice(answers, 2 + len(tokens))), average)
            for key, tokens in wanted
        ]

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
        found = super().with_prices(market, prices)
        if prices.keys().isdisjoint(e.price_source for e in market.e_modes):
            return found
        e_modes = tuple(
            e if e.price_source is None else replace(e, price=prices.get(e.price_source, e.price))
            for e in market.e_modes
        )
        return replace(found, e_modes=e_modes)

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


def undecided(market: AaveV3Market, position: AaveV3Position) -> bool:
    """Whether all versions agree on this account anyway: it has no debt, or a price is missing."""
    return not position.has_debt or bool(position.configuration & market.plan(position.mode).unpriced)
