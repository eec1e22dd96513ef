"""Compound V2 and its forks: one Comptroller with its cTokens.

A position is an account: the markets it entered, its cTokens and its debts. `getAccountLiquidity` works on the
indexes STORED at the last accrual of each market, `liquidateBorrow` accrues first: `health_factor` is the former,
`health_factor_accrued` has every market accrued to the block.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from indexer.abi import abi
from indexer.adapter import (
    ONE,
    HealthFirst,
    Liquidated,
    Liquidation,
    LiquidationLogs,
    PriceSource,
    PriceSources,
    Quantity,
    Reader,
    required,
)
from indexer.model import (
    WAD,
    Accounts,
    Answer,
    Asset,
    Balance,
    Check,
    Deployment,
    Effect,
    Event,
    Health,
    LiquidationCall,
    Logs,
    LogSource,
    PositionKey,
    Price,
    Read,
    Shape,
)
from protocols.common import ZERO_ADDRESS, chunks, quantity, sources, together
from protocols.compound_v2 import liquidation
from protocols.compound_v2.answers import agrees, answer
from protocols.compound_v2.bounds import CompoundV2Bounds
from protocols.compound_v2.market import (
    BALANCE_OF,
    BORROW_INDEX,
    DEPRECATED,
    PRICE,
    SECONDS_PER_BLOCK,
    CompoundV2Market,
    accruals,
    after,
    config_reads,
    configured_feeds,
    interest_stored,
    read_market,
    with_prices,
    with_thresholds,
)
from protocols.compound_v2.math import GENERATIONS, Weights
from protocols.compound_v2.position import CompoundV2Position, balances, evaluate
from protocols.compound_v2.storage import StoredDebts

COMPTROLLER = abi("compound_v2_comptroller")
C_TOKEN = abi("compound_v2_c_token")

ASSETS_IN = COMPTROLLER.function("getAssetsIn")
LIQUIDITY = COMPTROLLER.function("getAccountLiquidity")
SNAPSHOT = C_TOKEN.function("getAccountSnapshot")

MARKET_ENTERED = COMPTROLLER.event("MarketEntered")
MARKET_EXITED = COMPTROLLER.event("MarketExited")
MINT = C_TOKEN.event("Mint")
REDEEM = C_TOKEN.event("Redeem")
BORROW = C_TOKEN.event("Borrow")
REPAY_BORROW = C_TOKEN.event("RepayBorrow")
LIQUIDATE_BORROW = C_TOKEN.event("LiquidateBorrow")
TRANSFER = C_TOKEN.event("Transfer")

MEMBERSHIP = frozenset({MARKET_ENTERED, MARKET_EXITED})
# The data words that name the accounts whose cTokens or debt an event changes: only Transfer is indexed, a payer's own
# position does not change, and a liquidator receives the seized cTokens.
ACCOUNT_WORDS = {MINT: (0,), REDEEM: (0,), BORROW: (0,), REPAY_BORROW: (1,), LIQUIDATE_BORROW: (0, 1)}

BORROW_BALANCE = C_TOKEN.function("borrowBalanceStored")
C_TOKEN_DECIMALS = 8  # of every cToken, whatever it stands for
ACTIONS = 16  # the actions of one account for whose rounding the comparison of sums allows
ASKED = 12  # accounts for which the Comptroller is asked to fit its generation, and as many to check it


class CompoundV2(
    HealthFirst[CompoundV2Market, CompoundV2Position],
    Liquidation[CompoundV2Market, CompoundV2Position],
    LiquidationLogs[CompoundV2Market, CompoundV2Position],
    PriceSources[CompoundV2Market, CompoundV2Position],
    CompoundV2Bounds,
):
    """One Comptroller. Values in 1e18 = 1 USD, the oracle's own USD."""

    protocol = "compound-v2"
    market_type = CompoundV2Market
    position_type = CompoundV2Position
    required_addresses = ("comptroller",)
    concurrent = True
    options = {"native_symbol": str, "seconds_per_block": float}  # noqa: RUF012 - as Adapter declares it

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment)
        self.comptroller = deployment.addresses["comptroller"].lower()
        self.stored_debts = StoredDebts()

    def read_market(self, read: Reader, previous: CompoundV2Market | None) -> CompoundV2Market:
        """Reads the Comptroller and its markets, stored and accrued; keeps a fitted rounding until the implementation changes."""
        market = read_market(
            read,
            self.comptroller,
            {
                "native_symbol": self.deployment.native_symbol,
                "seconds_per_block": self.deployment.seconds_per_block or SECONDS_PER_BLOCK,
                **self.deployment.options,
            },
        )
        if previous is not None and previous.revision == market.revision:
            # without a readable implementation an upgrade would go unnoticed: then check each time
            checked = previous.checked and market.revision != self.comptroller
            return replace(market, rounding=previous.rounding, checked=checked)
        return market

    def logs(self, market: CompoundV2Market, accounts: Accounts) -> Logs:
        """No debt without a Borrow, no cTokens without a Transfer."""
        topics = {BORROW} if accounts is Accounts.BORROWERS else {BORROW, TRANSFER}
        c_tokens = frozenset(market.c_tokens)
        return Logs(
            discovery=sources((c_tokens, frozenset(topics))),
            activity=sources((frozenset({self.comptroller}), MEMBERSHIP), (c_tokens, [*ACCOUNT_WORDS, TRANSFER])),
        )

    def shapes(self, market: CompoundV2Market) -> Mapping[str, Shape]:
        return {BORROW: Shape(topics=1, words=4, account_words=(0,), unless_zero=2)}

    def touched(self, market: CompoundV2Market, event: Event) -> Iterable[PositionKey]:
        """A Borrow that leaves no debt (one of 0) touches nobody: discovery must not take its account for a borrower."""
        kind = event.topic0
        accounts: list[str | None] = []
        if event.address == self.comptroller:
            accounts = [event.word_address(1)] if kind in MEMBERSHIP else []
        elif event.address in market.c_tokens:
            if kind == TRANSFER:  # mints come from, redemptions go to the cToken itself; one of 0 makes nobody a holder
                accounts = [a for a in (event.topic_address(1), event.topic_address(2)) if a != event.address]
                accounts = accounts if event.word(0) else []
            elif kind != BORROW or event.word(2):
                accounts = [event.word_address(i) for i in ACCOUNT_WORDS.get(kind, ())]
        return [PositionKey(account) for account in accounts if account not in (None, ZERO_ADDRESS)]

    def liquidation_logs(self, market: CompoundV2Market) -> list[LogSource]:
        return sources((frozenset(market.c_tokens), [LIQUIDATE_BORROW]))

    def liquidated(self, market: CompoundV2Market, event: Event) -> Liquidated | None:
        """LiquidateBorrow of the cToken that was borrowed from. What is seized is cTokens, the protocol's share among them."""
        borrowed = market.c_tokens.get(event.address)
        if borrowed is None or event.topic0 != LIQUIDATE_BORROW:
            return None
        liquidator, account, collateral = (event.word_address(i) for i in (0, 1, 3))
        repaid, seized = event.word(2), event.word(4)
        if account is None or collateral is None or repaid is None or seized is None:
            return None
        usd, token = None, market.c_tokens.get(collateral)
        if token is not None:
            usd = quantity(market.assets, token.underlying, seized * token.exchange_rate_accrued // WAD).usd
        return Liquidated(
            PositionKey(account),
            liquidator,
            quantity(market.assets, borrowed.underlying, repaid),
            Quantity(collateral, seized, C_TOKEN_DECIMALS, usd),
        )

    def read_positions(
        self, read: Reader, market: CompoundV2Market, keys: Sequence[PositionKey]
    ) -> list[CompoundV2Position]:
        """Reads memberships and cTokens first, then the debts in entered markets (there are no others) and their storage."""
        return self._read(read, market, keys, list(market.c_tokens))

    def read_health(
        self, read: Reader, market: CompoundV2Market, keys: Sequence[PositionKey]
    ) -> list[CompoundV2Position]:
        """Reads memberships first, then cTokens and debts in entered markets: the Comptroller looks at no others."""
        return self._read(read, market, keys, None)

    def _read(
        self, read: Reader, market: CompoundV2Market, keys: Sequence[PositionKey], every: Sequence[str] | None
    ) -> list[CompoundV2Position]:
        """Positions with their balances of `every` cToken, or of those in entered markets if None."""
        tokens = every or ()
        reads = []
        for key in keys:
            reads.append(Read(self.comptroller, ASSETS_IN, (key.account,)))
            reads += [Read(token, BALANCE_OF, (key.account,)) for token in tokens]
        entered: list[tuple[str, ...]] = []
        held: list[dict[str, int]] = []
        for assets_in, *amounts in chunks(required(read, reads), 1 + len(tokens)):
            entered.append(tuple(assets_in))
            held.append({token: balance for token, balance in zip(tokens, amounts, strict=True) if balance})

        places = [(i, token) for i, assets_in in enumerate(entered) for token in assets_in]
        indexed = list(dict.fromkeys(token for _, token in places))
        unasked = [(i, token) for i, token in places if every is None or token not in market.c_tokens]
        answers = iter(
            required(
                read,
                [
                    *(Read(token, BORROW_INDEX) for token in indexed),
                    *(Read(token, BORROW_BALANCE, (keys[i].account,)) for i, token in places),
                    *(Read(token, BALANCE_OF, (keys[i].account,)) for i, token in unasked),
                ],
            )
        )
        indexes = {token: next(answers) for token in indexed}
        debts = [(i, token, debt) for i, token in places if (debt := next(answers))]
        for i, token in unasked:
            if balance := next(answers):
                held[i][token] = balance

        pairs = self.stored_debts.read(read, [(keys[i].account, token, debt) for i, token, debt in debts], indexes)
        borrows: list[dict[str, tuple[int, int]]] = [{} for _ in keys]
        for (i, token, debt), pair in zip(debts, pairs, strict=True):
            borrows[i][token] = pair or (debt, indexes[token])
        unread = [(i, token) for (i, token, _), pair in zip(debts, pairs, strict=True) if pair is None]
        accrued: list[dict[str, int]] = [{} for _ in keys]
        asked = [Read(token, BORROW_BALANCE, (keys[i].account,)) for i, token in unread]
        accruing = accruals(list(dict.fromkeys(token for _, token in unread)))
        for (i, token), debt in zip(unread, required(read, asked, accruing), strict=True):
            accrued[i][token] = debt
        return [
            CompoundV2Position(
                key=key,
                block_number=read.block.number,
                entered=entered[i],
                c_tokens=held[i],
                borrows=borrows[i],
                stored=not accrued[i],
                accrued=accrued[i],
                supplies_complete=every is not None,
            )
            for i, key in enumerate(keys)
        ]

    def changes_silently(self, market: CompoundV2Market, position: CompoundV2Position) -> bool:
        return not position.stored

    def evaluate(self, market: CompoundV2Market, position: CompoundV2Position) -> Health:
        return evaluate(market, position)

    def price_source(self, market: CompoundV2Market, asset: Asset) -> str | None:
        return market.oracle

    def source_reads(self, market: CompoundV2Market) -> list[Read]:
        return config_reads(market)

    def sources(self, read: Reader, market: CompoundV2Market) -> list[PriceSource]:
        return [PriceSource(asset, feed) for asset, feed in configured_feeds(read, market)]

    def balances(self, market: CompoundV2Market, position: CompoundV2Position) -> list[Balance]:
        return balances(market, position)

    def fit(self, read: Reader, market: CompoundV2Market, positions: Sequence[CompoundV2Position]) -> CompoundV2Market:
        """Finds the Comptroller's rounding: asks `getAccountLiquidity` about accounts on which the generations differ.

        Accounts that differ only after accruing are asked about after an accrual. A new implementation is also asked about
        some accounts with debt. If neither generation gives its answers, the market is not `exact`.
        """
        if market.rounding is not None and market.checked:
            return market
        state, prelude = market, []
        deciding, others = self.to_ask(market, positions)
        if not deciding:
            accrued = interest_stored(market)
            deciding, _ = self.to_ask(accrued, positions)
            if deciding:
                state, prelude = accrued, accruals(list(market.c_tokens))
                deciding, others = ([after_accruing(accrued, p) for p in group] for group in (deciding, others))
        asked = deciding + others
        if not asked or (market.checked and not deciding):
            return market
        answers = read([Read(self.comptroller, LIQUIDITY, (position.key.account,)) for position in asked], prelude)
        fitting = []
        for rounding in GENERATIONS:
            candidate = replace(state, rounding=rounding)
            ours = [self.evaluate(candidate, position) for position in asked]
            if all(agrees(health, answer) for health, answer in zip(ours, answers, strict=True)):
                fitting.append(rounding)
        if not fitting:
            note = f"the Comptroller at {market.revision} answers getAccountLiquidity by an unknown formula"
            return replace(market, exact=False, note=note)
        proven = fitting[0] if len(fitting) == 1 else market.rounding
        return replace(market, rounding=proven, checked=True)

    def fit_group(self, market: CompoundV2Market, position: CompoundV2Position) -> Hashable | None:
        """Everyone until the rounding is known."""
        return None if market.rounding is not None and market.checked else position.key

    def to_ask(
        self, market: CompoundV2Market, positions: Iterable[CompoundV2Position]
    ) -> tuple[list[CompoundV2Position], list[CompoundV2Position]]:
        """Some positions whose sumCollateral differs between the generations, and some others that have debt."""
        tables = [replace(market, rounding=rounding).weights for rounding in GENERATIONS]
        deciding: list[CompoundV2Position] = []
        others: list[CompoundV2Position] = []
        for position in positions:
            if not position.c_tokens or not all(tables[0].get(token) for token in position.entered):
                continue
            if len({sum_collateral(table, position) for table in tables}) > 1:
                deciding.append(position)
                if len(deciding) == ASKED:
                    break
            elif position.borrows and len(others) < ASKED:
                others.append(position)
        return deciding, others

    def checks(
        self, market: CompoundV2Market, positions: Iterable[CompoundV2Position], accounts: Accounts
    ) -> list[Check]:
        """All cTokens, once all are read, add up to the supply; debts to totalBorrows, but for what both round off at each
        accrual.
        """
        supply, debt, count = dict.fromkeys(market.c_tokens, 0), dict.fromkeys(market.c_tokens, 0), 0
        complete = True
        for position in positions:
            count += 1
            complete = complete and position.supplies_complete
            for address, tokens in position.c_tokens.items():
                if address in supply:
                    supply[address] += tokens
            for address, (principal, index) in position.borrows.items():
                if address in debt:
                    debt[address] += principal * market.c_tokens[address].borrow_index // index
        found = []
        blocks = market.block.number - self.deployment.start_block + 1
        for address, token in market.c_tokens.items():
            borrowers_only = accounts is Accounts.BORROWERS
            owned = token.total_supply - token.unowned
            if complete:
                found.append(
                    Check(name=f"{token.symbol} cTokens", have=supply[address], want=owned, at_most=borrowers_only)
                )
            # Both round off up to a unit, and 1e-18 of the index, at each accrual: at most one a block. A debt loses
            # up to one more when it is read and each time its account acts, of which many fit into one block.
            rounding = 4 * blocks + ACTIONS * count + token.total_borrows * blocks // WAD
            drift = max(abs(debt[address] - token.total_borrows) - rounding, 0)
            found.append(Check(name=f"{token.symbol} debt apart from totalBorrows", have=drift, want=0, debt=True))
        return found

    def discovers(self, position: CompoundV2Position, accounts: Accounts) -> bool:
        return bool(position.borrows) if accounts is Accounts.BORROWERS else not position.empty

    def contract_answers(self, read: Reader, market: CompoundV2Market, keys: Sequence[PositionKey]) -> list[Answer]:
        """Asks for getAccountSnapshot in every market and getAccountLiquidity, as stored and after accruing all.

        The Comptroller returns only the difference of its two sums: sumBorrow is added up from the snapshots and the
        oracle's prices, and sumCollateral follows from the difference. An account that fails has amounts only.
        """
        tokens = list(market.c_tokens)
        (oracle,) = required(read, [Read(self.comptroller, COMPTROLLER.function("oracle"))])
        reads = []
        for key in keys:
            reads += [
                Read(self.comptroller, ASSETS_IN, (key.account,)),
                Read(self.comptroller, LIQUIDITY, (key.account,)),
            ]
            reads += [Read(token, SNAPSHOT, (key.account,)) for token in tokens]
        width = 2 + len(tokens)
        quoted, flags, found = together(
            read,
            [Read(oracle, PRICE, (token,)) for token in tokens],
            [Read(self.comptroller, DEPRECATED, (token,)) for token in tokens],
            reads,
        )
        prices = {token: price or None for token, price in zip(tokens, quoted, strict=True)}
        deprecated = {token for token, flag in zip(tokens, flags, strict=True) if flag}
        stored = chunks(found, width)
        accrued = chunks(read(reads, prelude=accruals(tokens)), width)
        return [
            answer(key, tokens, prices, deprecated, before, after)
            for key, before, after in zip(keys, stored, accrued, strict=True)
        ]

    def with_prices(
        self, market: CompoundV2Market, prices: Mapping[str, int], numeraire: Fraction = ONE
    ) -> CompoundV2Market:
        return with_prices(market, prices)

    def after(self, market: CompoundV2Market, seconds: int, blocks: int) -> CompoundV2Market:
        return after(market, seconds, blocks)

    def thresholds(self, market: CompoundV2Market) -> dict[str, Fraction]:
        """Collateral factors; the lower one if two cTokens have the same underlying asset."""
        found: dict[str, Fraction] = {}
        for token in market.c_tokens.values():
            factor = Fraction(token.collateral_factor, WAD)
            found[token.underlying] = min(found.get(token.underlying, factor), factor)
        return found

    def with_thresholds(self, market: CompoundV2Market, thresholds: Mapping[str, Fraction]) -> CompoundV2Market:
        return with_thresholds(market, thresholds)

    # liquidation ------------------------------------------------------------------------------------------------------

    def narrow(self, market: CompoundV2Market, position: CompoundV2Position) -> CompoundV2Market:
        return liquidation.narrow(market, position)

    def interest_stored(self, market: CompoundV2Market) -> CompoundV2Market:
        return interest_stored(market)

    def exposure(self, market: CompoundV2Market, position: CompoundV2Position) -> list[Price]:
        return liquidation.exposure(market, position)

    def effect(
        self, market: CompoundV2Market, position: CompoundV2Position, balance: Balance, delta: int
    ) -> Effect | None:
        return liquidation.effect(market, position, balance, delta)

    def liquidation_calls(self, market: CompoundV2Market, position: CompoundV2Position) -> list[LiquidationCall]:
        return liquidation.liquidation_calls(market, position)


def after_accruing(market: CompoundV2Market, position: CompoundV2Position) -> CompoundV2Position:
    """The position with debts of unreadable storage brought to the indexes of `market`, which has just accrued."""
    owed = {token: (debt, market.c_tokens[token].borrow_index) for token, debt in position.accrued.items()}
    return replace(position, borrows=position.borrows | owed)


def sum_collateral(table: Mapping[str, Weights | None], position: CompoundV2Position) -> int:
    """The sumCollateral of a position whose entered markets all have a price."""
    return sum(
        weight.limit * position.c_tokens.get(token, 0) // WAD
        for token in position.entered
        if (weight := table[token]) is not None
    )
