"""Aave V2 and its forks: stable and variable debt, prices in the oracle's own unit (ETH), rebasing aTokens."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from indexer.abi import abi
from indexer.adapter import ONE, Bounded, Line, Liquidation, Reader, Slot, Weight, required
from indexer.model import (
    RAY,
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
from protocols.aave.math import HALF_RAY, PERCENTAGE_FACTOR, compound_v2, percent_mul, ray_mul, wad_div
from protocols.aave_v2 import bounds, liquidation
from protocols.aave_v2.market import AaveV2Market, Reserve, read_market
from protocols.aave_v2.position import AaveV2Position

POOL = abi("aave_v2_pool")
A_TOKEN = abi("aave_v2_a_token")
VARIABLE_DEBT = abi("aave_v2_variable_debt_token")
STABLE_DEBT = abi("aave_stable_debt_token")

MAX_UINT = 2**256 - 1
#: How many holders of an aToken are asked at each snapshot whether their balances moved without an event.
WITNESSES = 3

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

#: kind of contract -> topic0 -> (topics, data words) that name an account which the event may have changed.
EVENTS: Mapping[str, Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]] = {
    "pool": {
        BORROW: ((2,), ()),  # onBehalfOf; `user` is only who called
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


class AaveV2(Liquidation[AaveV2Market, AaveV2Position], Bounded[AaveV2Market, AaveV2Position]):
    """One Aave V2 market, found through its LendingPoolAddressesProvider."""

    protocol = "aave-v2"
    market_type = AaveV2Market
    position_type = AaveV2Position
    required_addresses = ("lending_pool_addresses_provider",)

    def read_market(self, read: Reader, previous: AaveV2Market | None) -> AaveV2Market:
        provider = self.deployment.addresses["lending_pool_addresses_provider"].lower()
        return read_market(read, provider, previous)

    # logs -------------------------------------------------------------------------------------------------------------

    def logs(self, market: AaveV2Market, accounts: Accounts) -> Logs:
        """No debt begins without a Borrow of the pool; with all accounts also every receipt of aTokens."""
        discovery = [LogSource(frozenset({market.pool}), frozenset({BORROW}))]
        if accounts is Accounts.ALL:
            discovery.append(LogSource(contracts_of(market, "a"), frozenset({MINT, BALANCE_TRANSFER})))
        activity = [LogSource(contracts_of(market, kind), frozenset(events)) for kind, events in EVENTS.items()]
        return Logs(*([source for source in part if source.addresses] for part in (discovery, activity)))

    def touched(self, market: AaveV2Market, event: Event) -> Iterable[PositionKey]:
        place = market.tokens.get(event.address)
        where = EVENTS[place.kind].get(event.topic0) if place is not None else None
        if where is None or (event.topic0 == BALANCE_TRANSFER and event.word(0) == 0):
            return ()  # a transfer of nothing makes nobody a holder
        topics, words = where
        accounts = [event.topic_address(i) for i in topics] + [event.word_address(i) for i in words]
        return [PositionKey(account) for account in accounts if account is not None]

    # positions --------------------------------------------------------------------------------------------------------

    def read_positions(self, read: Reader, market: AaveV2Market, keys: Sequence[PositionKey]) -> list[AaveV2Position]:
        """Two rounds: flags and all aTokens of everyone, then the debts that the flags name."""
        a_tokens = [reserve.a_token for reserve in market.reserves]
        reads = []
        for account, _ in keys:
            reads.append(Read(market.pool, USER_CONFIGURATION, (account,)))
            reads += [Read(token, SCALED_BALANCE, (account,)) for token in a_tokens]
        answers = required(read, reads)
        width = 1 + len(a_tokens)
        rows = [answers[n * width : (n + 1) * width] for n in range(len(keys))]
        owed = [[r for r in market.reserves if flags & r.borrowing_flag] for flags, *_ in rows]
        reads = []
        for (account, _), reserves in zip(keys, owed, strict=True):
            for reserve in reserves:
                reads.append(Read(reserve.variable_debt_token, SCALED_BALANCE, (account,)))
                reads += [Read(reserve.stable_debt_token, function, (account,)) for function in STABLE]
        debts = iter(required(read, reads))
        positions = []
        for key, (flags, *scaled), reserves in zip(keys, rows, owed, strict=True):
            borrowed, stable = {}, {}
            for reserve in reserves:
                variable, principal, rate, last_update = (next(debts) for _ in range(4))
                if variable:
                    borrowed[reserve.variable_debt_token] = variable
                if principal:
                    stable[reserve.stable_debt_token] = (principal, rate, last_update)
            positions.append(
                AaveV2Position(
                    key=key,
                    block_number=read.block.number,
                    configuration=flags,
                    supplied={token: amount for token, amount in zip(a_tokens, scaled, strict=True) if amount},
                    borrowed=borrowed,
                    stable=stable,
                    offsets={},
                )
            )
        if not market.exact:
            read_offsets(read, market, positions)
        return list(positions)

    def changes_silently(self, market: AaveV2Market, position: AaveV2Position) -> bool:
        """Whether it holds tokens whose code is unknown."""
        return bool(position.offsets) or not (market.exact or position.empty)

    def fit(self, read: Reader, market: AaveV2Market, positions: Sequence[AaveV2Position]) -> AaveV2Market:
        """Finds aTokens that rebase, and asks all their holders what they have now."""
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

    def found_rebasing(self, read: Reader, market: AaveV2Market, positions: Sequence[AaveV2Position]) -> set[str]:
        """ATokens of which a large holder has another balance than the formula says, or, though no event touched any of
        them, all have other scaled balances than when they were read.
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
        # One of several may have changed in an omitted log; a rebase changes everyone.
        return found | {token for token, changes in changed.items() if all(changes)}

    # maths ------------------------------------------------------------------------------------------------------------

    def evaluate(self, market: AaveV2Market, position: AaveV2Position) -> Health:
        """GenericLogic.calculateUserAccountData at the market's block; all unknown where the code is unknown."""
        configuration, flags = position.configuration, market.flags
        has_debt = bool(position.borrowed or position.stable)
        blocked = (
            blocked_by(market, configuration) if has_debt and (market.paused or configuration & flags.inactive) else ()
        )
        if configuration & flags.unpriced or not market.exact:
            return Health(
                key=position.key,
                collateral_value=None,
                liquidation_limit=None,
                debt_value=None,
                health_factor=None,
                has_debt=has_debt,
                liquidatable=False,
                unpriceable=bool(configuration & flags.unpriced),
                blocked_by=blocked,
            )
        collateral = weighted = debt = 0
        supplies, moved = market.supplies, market.moved
        for token, scaled in position.supplied.items():
            supply = supplies.get(token)
            if supply is not None and configuration & supply[1]:
                _, _, income, price, unit, threshold = supply
                amount = (
                    formula_amount(market, position, token) if token in moved else (scaled * income + HALF_RAY) // RAY
                )
                value = amount * price // unit  # type: ignore[operator]  # priced, see above
                collateral += value
                weighted += value * threshold
        if position.stable:
            debt = self.mixed_debt(market, position)
        elif has_debt:
            debts = market.debts
            for token, scaled in position.borrowed.items():
                owed = debts.get(token)
                if owed is not None and configuration & owed[1]:
                    _, _, index, price, unit = owed
                    debt += (scaled * index + HALF_RAY) // RAY * price // unit  # type: ignore[operator]
        limit = percent_mul(collateral, weighted // collateral) if collateral else 0
        health_factor = wad_div(limit, debt) if debt else None
        return Health(
            key=position.key,
            collateral_value=collateral,
            liquidation_limit=limit,
            debt_value=debt,
            health_factor=health_factor,
            has_debt=has_debt,
            liquidatable=health_factor is not None and health_factor < WAD,
            unpriceable=bool(configuration & flags.worthless),
            blocked_by=blocked,
        )

    def mixed_debt(self, market: AaveV2Market, position: AaveV2Position) -> int:
        """The debt value of an account with stable debt, which is added to the variable one before the price."""
        total = 0
        for reserve in market.reserves:
            if position.configuration & reserve.borrowing_flag:
                amount = formula_amount(market, position, reserve.variable_debt_token)
                amount += formula_amount(market, position, reserve.stable_debt_token)
                assert reserve.price is not None, reserve.symbol
                total += amount * reserve.price // 10**reserve.decimals
        return total

    def balances(self, market: AaveV2Market, position: AaveV2Position) -> list[Balance]:
        """Amounts as the tokens' balanceOf at the market's block."""
        rows = []
        for token, before in position.supplied.items():
            supply = market.supplies.get(token)
            if supply is not None:
                scaled, _ = market.moved.get(token, {}).get(position.key.account, (before, 0))
                amount = formula_amount(market, position, token) + position.offsets.get(token, 0)
                if amount or scaled:
                    flagged = bool(position.configuration & supply.reserve.collateral_flag)
                    rows.append(balance(supply.reserve, token, "supply", scaled, amount, is_collateral=flagged))
        debts = {**position.borrowed, **{token: principal for token, (principal, _, _) in position.stable.items()}}
        for token, scaled in debts.items():
            place = market.tokens.get(token)
            if place is not None and place.reserve is not None:
                amount = formula_amount(market, position, token) + position.offsets.get(token, 0)
                rows.append(balance(place.reserve, token, "debt", scaled, amount, is_collateral=False))
        return rows

    # the contracts' own answers ---------------------------------------------------------------------------------------

    def contract_answers(self, read: Reader, market: AaveV2Market, keys: Sequence[PositionKey]) -> list[Answer]:
        """getUserAccountData, and balanceOf of every token."""
        places = [(token, "supply") for token in market.supplies]
        places += [(t, "debt") for r in market.reserves for t in (r.variable_debt_token, r.stable_debt_token)]
        data = read([Read(market.pool, ACCOUNT_DATA, (account,)) for account, _ in keys])
        reads = [Read(token, BALANCE, (account,)) for account, _ in keys for token, _ in places]
        amounts = iter(required(read, reads))
        return [
            answer(key, one, {place: next(amounts) for place in places}) for key, one in zip(keys, data, strict=True)
        ]

    def checks(self, market: AaveV2Market, positions: Iterable[AaveV2Position], accounts: Accounts) -> list[Check]:
        """Scaled balances of all known accounts are the tokens' scaled total supplies: debts always, supplies with all.

        Not so for rebasing aTokens, which round every balance, nor for stable debt, whose total counts interest apart.
        """
        sums = dict.fromkeys(market.tokens, 0)
        for position in positions:
            for scaled_balances in (position.borrowed, position.supplied):
                for token, scaled in scaled_balances.items():
                    sums[token] = sums.get(token, 0) + scaled
        checks = []
        for reserve in market.reserves:
            name, have = f"scaled variable debt of {reserve.symbol}", sums[reserve.variable_debt_token]
            checks.append(Check(name=name, have=have, want=reserve.scaled_debt))
            if reserve.a_token not in market.rebasing:
                name, have = f"scaled supply of {reserve.symbol}", sums[reserve.a_token]
                partial = accounts is not Accounts.ALL
                checks.append(Check(name=name, have=have, want=reserve.scaled_supply, at_most=partial))
        return checks

    # what if ----------------------------------------------------------------------------------------------------------

    def quotes(self, market: AaveV2Market) -> Quotes:
        """Counted in WETH where the oracle counts in ETH."""
        numeraire = next((r.asset for r in market.reserves if liquidation.is_unit(r)), None)
        return Quotes(prices=super().quotes(market).prices, numeraire=numeraire)

    def with_prices(self, market: AaveV2Market, prices: Mapping[str, int], numeraire: Fraction = ONE) -> AaveV2Market:
        """Prices in the oracle's unit by asset; that of USDC says what the unit is worth in USD."""
        reserves = tuple(replace(r, price=prices.get(r.asset, r.price)) for r in market.reserves)
        return replace(market, reserves=reserves).with_assets()

    def after(self, market: AaveV2Market, seconds: int, blocks: int) -> AaveV2Market:
        return market.at(market.block.after(seconds, blocks))

    def thresholds(self, market: AaveV2Market) -> dict[str, Fraction]:
        return {r.asset: Fraction(r.liquidation_threshold, PERCENTAGE_FACTOR) for r in market.reserves}

    def with_thresholds(self, market: AaveV2Market, thresholds: Mapping[str, Fraction]) -> AaveV2Market:
        """Cut to basis points."""
        return replace(
            market,
            reserves=tuple(
                replace(r, configuration=with_threshold(r.configuration, thresholds[r.asset]))
                if r.asset in thresholds
                else r
                for r in market.reserves
            ),
        ).with_assets()

    # liquidation ------------------------------------------------------------------------------------------------------

    def narrow(self, market: AaveV2Market, position: AaveV2Position) -> AaveV2Market:
        return liquidation.narrow(market, position)

    def interest_stored(self, market: AaveV2Market) -> AaveV2Market:
        """Aave's views are projected to the block already."""
        return market

    def exposure(self, market: AaveV2Market, position: AaveV2Position) -> list[Price]:
        return liquidation.exposure(market, position)

    def effect(self, market: AaveV2Market, position: AaveV2Position, balance: Balance, delta: int) -> Effect | None:
        return (
            liquidation.effect(market, position, balance, delta, formula_amount(market, position, balance.market))
            if market.exact
            else None
        )

    def liquidation_calls(self, market: AaveV2Market, position: AaveV2Position) -> list[LiquidationCall]:
        liquidatable = self.evaluate(market, position).liquidatable
        return liquidation.liquidation_calls(market, position, self.balances(market, position)) if liquidatable else []

    # bounds ---------------------------------------------------------------------------------------------------------

    def layout(self, market: AaveV2Market) -> Hashable:
        return bounds.layout(market)

    def lines(self, market: AaveV2Market, position: AaveV2Position) -> Sequence[Line] | None:
        return bounds.lines(market, position)

    def slot_weights(self, market: AaveV2Market, slots: Iterable[Slot]) -> list[Weight | None]:
        return bounds.weights(market, slots)


def with_threshold(configuration: int, threshold: Fraction) -> int:
    """ReserveConfiguration with another liquidation threshold (bits 16 to 31, basis points)."""
    return configuration & ~(0xFFFF << 16) | int(threshold * PERCENTAGE_FACTOR) << 16


def contracts_of(market: AaveV2Market, kind: str) -> frozenset[str]:
    return frozenset(address for address, place in market.tokens.items() if place.kind == kind)


def formula_amount(market: AaveV2Market, position: AaveV2Position, token: str) -> int:
    """A token's balanceOf at the market's block: rayMul of the scaled balance or principal, and what it rebased."""
    place = market.tokens.get(token)
    if place is None or place.reserve is None:
        return 0
    if token in position.stable:
        principal, rate, last_update = position.stable[token]
        return ray_mul(principal, compound_v2(rate, market.block.timestamp - last_update))
    if place.kind == "a":
        scaled, offset = position.supplied.get(token, 0), 0
        if token in market.moved:
            scaled, offset = market.moved[token].get(position.key.account, (scaled, 0))
        return ray_mul(scaled, place.reserve.income) + offset
    return ray_mul(position.borrowed.get(token, 0), place.reserve.debt_index)


def read_offsets(read: Reader, market: AaveV2Market, positions: Sequence[AaveV2Position]) -> None:
    """Ask every token what the positions have, where the code is unknown; keep what differs from the formula."""
    there = market if read.block == market.block else market.at(read.block)
    wanted = [(p, token) for p in positions for token in (*p.supplied, *p.borrowed, *p.stable)]
    amounts = required(read, [Read(token, BALANCE, (p.key.account,)) for p, token in wanted])
    for (p, token), amount in zip(wanted, amounts, strict=True):
        offset = amount - formula_amount(there, p, token)
        if offset:
            p.offsets[token] = offset


def blocked_by(market: AaveV2Market, configuration: int) -> tuple[str, ...]:
    """Why liquidationCall would refuse this account's reserves: "paused" (the pool), "inactive:WETH"."""
    inactive = [
        f"inactive:{reserve.symbol}"
        for reserve in market.reserves
        if not reserve.active and configuration & (reserve.borrowing_flag | reserve.collateral_flag)
    ]
    return ("paused", *inactive) if market.paused else tuple(inactive)


def balance(reserve: Reserve, token: str, side: str, scaled: int, amount: int, *, is_collateral: bool) -> Balance:
    return Balance(
        asset=reserve.asset,
        market=token,
        symbol=reserve.symbol,
        decimals=reserve.decimals,
        side=side,
        scaled=scaled,
        amount=amount,
        value=None if reserve.price is None else amount * reserve.price // 10**reserve.decimals,
        is_collateral=is_collateral,
    )


def answer(key: PositionKey, data: Any, amounts: Mapping[tuple[str, str], int]) -> Answer:
    """One account's answers; getUserAccountData fails where a price is missing."""
    names = "collateral_value_raw", "debt_value_raw", "liquidation_limit_raw", "health_factor_raw"
    if isinstance(data, Failed):
        return Answer(key=key, columns=dict.fromkeys(names), amounts=amounts)
    health_factor = None if data[5] == MAX_UINT else data[5]
    columns = dict(zip(names, (data[0], data[1], percent_mul(data[0], data[3]), health_factor), strict=True))
    liquidatable = health_factor is not None and health_factor < WAD
    return Answer(key=key, columns=columns, liquidatable=liquidatable, amounts=amounts)
