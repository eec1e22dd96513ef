"""Aave V3 and its forks (Spark): 3.0 to 3.7, told apart in aave_v3_rules by what the contracts show."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from indexer.abi import abi
from indexer.adapter import ONE, Bounded, Line, Liquidation, Reader, Slot, Weight
from indexer.model import (
    WAD,
    Accounts,
    Answer,
    Balance,
    Check,
    Effect,
    Event,
    Failed,
    Health,
    LiquidationCall,
    Logs,
    LogSource,
    PositionKey,
    Price,
    Quotes,
    Read,
)
from protocols.aave.math import percent_mul
from protocols.aave_v3 import bounds, liquidation
from protocols.aave_v3 import position as account
from protocols.aave_v3.market import AaveV3Market, Reserve
from protocols.aave_v3.position import AaveV3Position, misplaced
from protocols.aave_v3.read import read_market, required

POOL = abi("aave_v3_pool")
TOKEN = abi("aave_v3_token")
STABLE_DEBT = abi("aave_stable_debt_token")
GHO_DEBT = abi("aave_gho_debt_token")

MAX_UINT = 2**256 - 1
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

#: kind of contract -> topic0 -> (topics, data words) that name an account which the event may have changed.
EVENTS: Mapping[str, Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]] = {
    "pool": {
        BORROW: ((2,), ()),  # onBehalfOf; `user` is only who called
        LIQUIDATION: ((3,), (2,)),  # user, liquidator
        POOL.event("ReserveUsedAsCollateralEnabled"): ((2,), ()),
        POOL.event("ReserveUsedAsCollateralDisabled"): ((2,), ()),
        POOL.event("UserEModeSet"): ((1,), ()),
        POOL.event("DeficitCreated"): ((1,), ()),
        POOL.event("SwapBorrowRateMode"): ((2,), ()),
        POOL.event("RebalanceStableBorrowRate"): ((2,), ()),
    },
    "a": {MINT: ((2,), ()), BURN: ((1,), ()), BALANCE_TRANSFER: ((1, 2), ())},
    "variable": {MINT: ((2,), ()), BURN: ((1,), ()), DISCOUNT_UPDATED: ((1,), ())},
    "stable": {STABLE_MINT: ((2,), ()), STABLE_BURN: ((1,), ())},
}


class AaveV3(Liquidation[AaveV3Market, AaveV3Position], Bounded[AaveV3Market, AaveV3Position]):
    """One Aave V3 market, found through its PoolAddressesProvider."""

    protocol = "aave-v3"
    market_type = AaveV3Market
    position_type = AaveV3Position
    required_addresses = ("pool_addresses_provider",)

    def read_market(self, read: Reader, previous: AaveV3Market | None) -> AaveV3Market:
        provider = self.deployment.addresses["pool_addresses_provider"].lower()
        return read_market(read, provider, previous)

    # logs -------------------------------------------------------------------------------------------------------------

    def logs(self, market: AaveV3Market, accounts: Accounts) -> Logs:
        """No debt begins without a Borrow of the pool; with all accounts also every receipt of aTokens."""
        discovery = [LogSource(frozenset({market.pool}), frozenset({BORROW}))]
        if accounts is Accounts.ALL:
            discovery.append(LogSource(contracts_of(market, "a"), frozenset({MINT, BALANCE_TRANSFER})))
        discounting = frozenset(r.variable_debt_token for r in market.reserves if r.discount)
        activity = [
            LogSource(contracts_of(market, "pool"), frozenset(EVENTS["pool"])),
            LogSource(contracts_of(market, "a"), frozenset(EVENTS["a"])),
            LogSource(contracts_of(market, "variable"), frozenset({MINT, BURN})),
            LogSource(discounting, frozenset({DISCOUNT_UPDATED})),
            LogSource(contracts_of(market, "stable"), frozenset(EVENTS["stable"])),
        ]
        return Logs(discovery, [source for source in activity if source.addresses])

    def touched(self, market: AaveV3Market, event: Event) -> Iterable[PositionKey]:
        place = market.tokens.get(event.address)
        if place is None:
            return ()
        where = EVENTS[place.kind].get(event.topic0)
        if where is None or (event.topic0 == BALANCE_TRANSFER and event.word(0) == 0):
            return ()  # a transfer of nothing makes nobody a holder
        topics, words = where
        named = [event.topic_address(i) for i in topics] + [event.word_address(i) for i in words]
        return [PositionKey(address) for address in named if address is not None]

    # positions --------------------------------------------------------------------------------------------------------

    def read_positions(self, read: Reader, market: AaveV3Market, keys: Sequence[PositionKey]) -> list[AaveV3Position]:
        """Two rounds: flags, e-mode and all aTokens of everyone, then the debts that the flags name."""
        a_tokens = [reserve.a_token for reserve in market.reserves]
        width = 2 + len(a_tokens)
        reads = []
        for address, _ in keys:
            args = (address,)
            reads.append(Read(market.pool, USER_CONFIGURATION, args))
            reads.append(Read(market.pool, USER_E_MODE, args))
            reads += [Read(token, SCALED_BALANCE, args) for token in a_tokens]
        first = read(reads)
        borrowing = [(reserve.borrowing_flag, debt_signatures(reserve)) for reserve in market.reserves]
        reads = []
        for n, (address, _) in enumerate(keys):
            flags = required(first[n * width])
            for flag, signatures in borrowing:
                if flags & flag:
                    reads += [Read(token, signature, (address,)) for token, signature in signatures]
        debts = iter(read(reads) if reads else ())
        positions: list[AaveV3Position] = []
        for n, key in enumerate(keys):
            flags, mode, *balances = first[n * width : (n + 1) * width]
            supplied = {
                token: required(scaled) for token, scaled in zip(a_tokens, balances, strict=True) if scaled != 0
            }
            position = AaveV3Position(
                key=key,
                block_number=read.block.number,
                configuration=flags,
                mode=required(mode),
                supplied=supplied,
                borrowed={},
                stable={},
                discounts={},
                amounts={},
            )
            for reserve in market.reserves:
                if flags & reserve.borrowing_flag:
                    add_debt(position, reserve, [required(next(debts)) for _ in debt_signatures(reserve)])
            positions.append(position)
        if market.version is None:
            read_amounts(read, positions)
        return list(positions)

    def changes_silently(self, market: AaveV3Market, position: AaveV3Position) -> bool:
        """Also where the code is unknown: amounts then come from balanceOf alone, and age."""
        return market.version is None or misplaced(market, position)

    def evaluate(self, market: AaveV3Market, position: AaveV3Position) -> Health:
        return account.evaluate(market, position)

    def balances(self, market: AaveV3Market, position: AaveV3Position) -> list[Balance]:
        return account.balances(market, position)

    # what the contracts say -------------------------------------------------------------------------------------------

    def contract_answers(self, read: Reader, market: AaveV3Market, keys: Sequence[PositionKey]) -> list[Answer]:
        tokens = [
            (token, "supply" if place.kind == "a" else "debt")
            for token, place in market.tokens.items()
            if place.reserve is not None
        ]
        reads = []
        for address, _ in keys:
            reads += [Read(market.pool, ACCOUNT_DATA, (address,)), Read(market.pool, USER_E_MODE, (address,))]
            reads += [Read(token, BALANCE, (address,)) for token, _ in tokens]
        answers = read(reads)
        width = 2 + len(tokens)
        average = market.exact and market.averages
        return [answer(key, tokens, answers[n * width : (n + 1) * width], average) for n, key in enumerate(keys)]

    def fit(self, read: Reader, market: AaveV3Market, positions: Sequence[AaveV3Position]) -> AaveV3Market:
        """Where several versions agree with the contracts' totals, the one that accounts with debt agree with too."""
        if len(market.candidates) < 2 or not market.exact:
            return market
        chosen = [p for p in positions if not untold(market, p)][:CALIBRATION_ACCOUNTS]
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

    def checks(self, market: AaveV3Market, positions: Iterable[AaveV3Position], accounts: Accounts) -> list[Check]:
        """Scaled balances of all known accounts are the tokens' scaled total supplies: debts always, supplies with all."""
        sums = dict.fromkeys(market.tokens, 0)
        for position in positions:
            for token, scaled in position.borrowed.items():
                sums[token] = sums.get(token, 0) + scaled
            for token, scaled in position.supplied.items():
                sums[token] = sums.get(token, 0) + scaled
        checks = []
        for reserve in market.reserves:
            debt = Check(
                name=f"scaled variable debt of {reserve.symbol}",
                have=sums[reserve.variable_debt_token],
                want=reserve.scaled_debt,
            )
            supply = Check(
                name=f"scaled supply of {reserve.symbol}",
                have=sums[reserve.a_token],
                want=reserve.scaled_supply,
                at_most=accounts is not Accounts.ALL,
            )
            checks += [debt, supply]
        return checks

    # what if ----------------------------------------------------------------------------------------------------------

    def quotes(self, market: AaveV3Market) -> Quotes:
        sources = {e.price_source: e.price for e in market.e_modes if e.price_source and e.price is not None}
        return Quotes(prices={**sources, **super().quotes(market).prices})

    def with_prices(self, market: AaveV3Market, prices: Mapping[str, int], numeraire: Fraction = ONE) -> AaveV3Market:
        """Prices in base currency by asset; an e-mode with a price of its own takes one for its price source."""
        return replace(
            market,
            reserves=tuple(replace(r, price=prices.get(r.asset, r.price)) for r in market.reserves),
            e_modes=tuple(
                e if e.price_source is None else replace(e, price=prices.get(e.price_source, e.price))
                for e in market.e_modes
            ),
        ).with_assets()

    def after(self, market: AaveV3Market, seconds: int, blocks: int) -> AaveV3Market:
        return market.at(market.block.after(seconds, blocks))

    def thresholds(self, market: AaveV3Market) -> dict[str, Fraction]:
        return market.thresholds

    def with_thresholds(self, market: AaveV3Market, thresholds: Mapping[str, Fraction]) -> AaveV3Market:
        """An e-mode's threshold is its own: `e-mode:1`. Whoever is in it is not moved by the reserve's."""
        return market.with_thresholds(thresholds)

    # liquidation ------------------------------------------------------------------------------------------------------

    def narrow(self, market: AaveV3Market, position: AaveV3Position) -> AaveV3Market:
        return liquidation.narrow(market, position)

    def interest_stored(self, market: AaveV3Market) -> AaveV3Market:
        """Aave's views are projected to the block already."""
        return market

    def exposure(self, market: AaveV3Market, position: AaveV3Position) -> list[Price]:
        return liquidation.exposure(market, position)

    def effect(self, market: AaveV3Market, position: AaveV3Position, balance: Balance, delta: int) -> Effect | None:
        return liquidation.effect(market, position, balance, delta)

    def liquidation_calls(self, market: AaveV3Market, position: AaveV3Position) -> list[LiquidationCall]:
        return liquidation.liquidation_calls(market, position, self.balances(market, position))

    # bounds ---------------------------------------------------------------------------------------------------------

    def layout(self, market: AaveV3Market) -> Hashable:
        return bounds.layout(market)

    def lines(self, market: AaveV3Market, position: AaveV3Position) -> Sequence[Line] | None:
        return bounds.lines(market, position)

    def slot_weights(self, market: AaveV3Market, slots: Iterable[Slot]) -> list[Weight | None]:
        return bounds.weights(market, slots)


def contracts_of(market: AaveV3Market, kind: str) -> frozenset[str]:
    return frozenset(address for address, place in market.tokens.items() if place.kind == kind)


def debt_signatures(reserve: Reserve) -> list[tuple[str, str]]:
    """(token, read) for everything that an account's debt in this reserve consists of."""
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
    """Ask each token for what the positions hold, for code whose rounding is unknown."""
    wanted = [(p, token) for p in positions for token in (*p.supplied, *p.borrowed, *p.stable)]
    amounts = read([Read(token, BALANCE, (p.key.account,)) for p, token in wanted])
    for (p, token), amount in zip(wanted, amounts, strict=True):
        p.amounts[token] = required(amount)


def answer(key: PositionKey, tokens: Sequence[tuple[str, str]], answers: Sequence[Any], average: bool) -> Answer:
    """One account's answers: account data, e-mode, then balanceOf of each of `tokens`.

    The limit follows from them only where the health factor goes through the `average` threshold (up to 3.4).
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
        amounts={place: required(amount) for place, amount in zip(tokens, amounts, strict=True)},
    )


def untold(market: AaveV3Market, position: AaveV3Position) -> bool:
    """Whether this account can tell no versions apart: no debt, or a price is missing."""
    return not (position.borrowed or position.stable) or bool(
        position.configuration & market.plan(position.mode).unpriced
    )


def agrees(health: Health, data: Any) -> bool:
    """Whether getUserAccountData answered what we computed."""
    if isinstance(data, Failed):
        return False
    health_factor = MAX_UINT if health.health_factor is None else health.health_factor
    return bool((health.collateral_value, health.debt_value, health_factor) == (data[0], data[1], data[5]))
