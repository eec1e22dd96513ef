"""Compound V3: one Comet per base asset, with its collateral.

A position is an account: a signed principal of the base asset (below 0 is debt) and balances of collateral.
`isLiquidatable` works on the index STORED at the last accrual, `absorb` accrues first: `health_factor` is the former,
`health_factor_accrued` has interest up to the block.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from indexer.abi import abi, mapping_slot
from indexer.adapter import (
    ONE,
    Liquidated,
    Liquidation,
    LiquidationLogs,
    PriceSource,
    PriceSources,
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
    Failed,
    Health,
    LiquidationCall,
    Logs,
    LogSource,
    PositionKey,
    Price,
    Quotes,
    Read,
    Shape,
)
from protocols.common import ZERO_ADDRESS, chunks, needed, quantity, sources, together
from protocols.compound_v3 import liquidation
from protocols.compound_v3.answers import answer
from protocols.compound_v3.bounds import CompoundV3Bounds
from protocols.compound_v3.market import (
    INDEX_SCALE,
    PRICE,
    TOTALS_BASIC,
    CompoundV3Market,
    after,
    interest_stored,
    read_market,
    with_prices,
    with_thresholds,
    with_usd,
)
from protocols.compound_v3.position import CompoundV3Position, balances, evaluate

COMET = abi("comet")

USER_BASIC = COMET.function("userBasic")
USER_COLLATERAL = COMET.function("userCollateral")
LIQUIDATABLE = COMET.function("isLiquidatable")
BORROW_BALANCE = COMET.function("borrowBalanceOf")
ASKED = 50  # debtors with whom a new implementation is checked

# CometStorage: its variables keep their slots, new versions only append.
USER_BASIC_SLOT = 5
USER_COLLATERAL_SLOT = 6

SUPPLY = COMET.event("Supply")
WITHDRAW = COMET.event("Withdraw")
TRANSFER = COMET.event("Transfer")
SUPPLY_COLLATERAL = COMET.event("SupplyCollateral")
WITHDRAW_COLLATERAL = COMET.event("WithdrawCollateral")
TRANSFER_COLLATERAL = COMET.event("TransferCollateral")
ABSORB_DEBT = COMET.event("AbsorbDebt")
ABSORB_COLLATERAL = COMET.event("AbsorbCollateral")

# The topics that name the accounts an event changes; payers, receivers and absorbers are not among them.
ACCOUNT_TOPICS = {
    SUPPLY: (2,),
    WITHDRAW: (1,),
    TRANSFER: (1, 2),
    SUPPLY_COLLATERAL: (2,),
    WITHDRAW_COLLATERAL: (1,),
    TRANSFER_COLLATERAL: (1, 2),
    ABSORB_DEBT: (2,),
    ABSORB_COLLATERAL: (2,),
}
COLLATERAL_RECEIVED = frozenset({SUPPLY_COLLATERAL, TRANSFER_COLLATERAL})


class CompoundV3(
    Liquidation[CompoundV3Market, CompoundV3Position],
    LiquidationLogs[CompoundV3Market, CompoundV3Position],
    PriceSources[CompoundV3Market, CompoundV3Position],
    CompoundV3Bounds,
):
    """One Comet. Values in the unit of its feeds, with 8 decimals.

    That unit is USD unless addresses of feeds are given, whose product is its price in USD: `eth_usd_feed` (WETH
    base), `btc_usd_feed` (WBTC base), `base_eth_feed` with `eth_usd_feed` (a base such as wstETH priced as 1). Without
    them, a base of ether or bitcoin whose price is a few units has no values in USD.
    """

    protocol = "compound-v3"
    market_type = CompoundV3Market
    position_type = CompoundV3Position
    required_addresses = ("comet",)
    concurrent = True
    optional_addresses = ("base_eth_feed", "eth_usd_feed", "btc_usd_feed")

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment)
        self.comet = deployment.addresses["comet"].lower()

    def read_market(self, read: Reader, previous: CompoundV3Market | None) -> CompoundV3Market:
        """Reads the Comet's configuration (part of the implementation, so read each time), prices and indexes."""
        addresses = self.deployment.addresses
        feeds = [addresses[name].lower() for name in self.optional_addresses if addresses.get(name)]
        market = read_market(read, self.comet, feeds)
        # without a readable implementation an upgrade would go unnoticed: then check each time
        if previous is not None and previous.revision == market.revision != self.comet:
            return replace(market, checked=previous.checked, layout_known=previous.layout_known)
        return market

    def logs(self, market: CompoundV3Market, accounts: Accounts) -> Logs:
        """No debt without collateral (but for dust), and no collateral without these events.

        A base balance begins with a Supply or, in a transfer, with a Transfer.
        """
        topics = {SUPPLY_COLLATERAL, TRANSFER_COLLATERAL}
        if accounts is Accounts.ALL:
            topics |= {SUPPLY, TRANSFER}
        comet = frozenset({self.comet})
        return Logs(discovery=sources((comet, frozenset(topics))), activity=sources((comet, [*ACCOUNT_TOPICS])))

    def shapes(self, market: CompoundV3Market) -> Mapping[str, Shape]:
        return {
            topic: Shape(topics=4, words=1, accounts=tuple(ACCOUNT_TOPICS[topic]), unless_zero=0)
            for topic in (SUPPLY_COLLATERAL, TRANSFER_COLLATERAL)
        }

    def touched(self, market: CompoundV3Market, event: Event) -> Iterable[PositionKey]:
        """Far from everyone who changed (see `changes_silently`), but everyone who may no longer be empty."""
        if event.address != self.comet:
            return []
        if event.topic0 in COLLATERAL_RECEIVED and not event.word(0):
            return []  # anybody can supply 0 for anybody: that makes nobody a holder, and changes nothing
        accounts = [event.topic_address(i) for i in ACCOUNT_TOPICS.get(event.topic0, ())]
        minted = (
            event.topic0 == TRANSFER
        )  # only mints and burns; otherwise the zero address is an account like any other
        return [PositionKey(a) for a in accounts if a is not None and not (minted and a == ZERO_ADDRESS)]

    def liquidation_logs(self, market: CompoundV3Market) -> list[LogSource]:
        return sources((frozenset({self.comet}), [ABSORB_DEBT, ABSORB_COLLATERAL]))

    def liquidated(self, market: CompoundV3Market, event: Event) -> Liquidated | None:
        """AbsorbDebt or AbsorbCollateral, each of which tells its value in the unit of the feeds at that block."""
        if event.address != self.comet or event.topic0 not in (ABSORB_DEBT, ABSORB_COLLATERAL):
            return None
        of_debt = event.topic0 == ABSORB_DEBT
        absorber, account = event.topic_address(1), event.topic_address(2)
        asset = market.base if of_debt else event.topic_address(3)
        amount, value = event.word(0), event.word(1)
        if account is None or asset is None or amount is None or value is None:
            return None
        usd = None if market.usd is None else value * market.usd[0] / market.usd[1]
        taken = quantity(market.assets, asset, amount)._replace(usd=usd)
        feeds = any(self.deployment.addresses.get(name) for name in self.optional_addresses)
        return Liquidated(
            PositionKey(account), absorber, taken if of_debt else None, None if of_debt else taken, told_usd=not feeds
        )

    def read_positions(
        self, read: Reader, market: CompoundV3Market, keys: Sequence[PositionKey]
    ) -> list[CompoundV3Position]:
        """Reads everyone's `userBasic`, then the collateral that its asset map names or that an absorption leaves behind.

        From storage if the layout is known and the node supports it: one request carries 5,000 words.
        """
        from_storage = self.stored_basics(read, keys) if market.layout_known else None
        basics = from_storage
        if basics is None:
            raw = required(read, [Read(self.comet, USER_BASIC, (key.account,)) for key in keys])
            basics = [(principal, assets_in | reserved << 16) for principal, _, _, assets_in, reserved in raw]
        kept = [one for one in market.collaterals if one.liquidation_factor == 0]
        held = [
            (i, one.asset, bool(assets >> one.offset & 1))
            for i, (_, assets) in enumerate(basics)
            for one in (market.collaterals if assets else kept)
            if assets >> one.offset & 1 or one in kept
        ]
        amounts = self.stored_collateral(read, [(keys[i].account, a) for i, a, _ in held]) if from_storage else None
        if amounts is None:
            reads = [Read(self.comet, USER_COLLATERAL, (keys[i].account, asset)) for i, asset, _ in held]
            amounts = [balance for balance, _ in required(read, reads)]
        collateral: list[dict[str, int]] = [{} for _ in keys]
        stranded: list[dict[str, int]] = [{} for _ in keys]
        for (i, asset, named), balance in zip(held, amounts, strict=True):
            if named:
                collateral[i][asset] = balance
            elif balance:
                stranded[i][asset] = balance
        return [
            CompoundV3Position(
                key=key, block_number=read.block.number, principal=principal, collateral=assets, stranded=rest
            )
            for key, (principal, _), assets, rest in zip(keys, basics, collateral, stranded, strict=True)
        ]

    def stored_basics(self, read: Reader, keys: Sequence[PositionKey]) -> list[tuple[int, int]] | None:
        """(principal, asset map) of each account from storage: int104, two uint64, the map's 24 bits on top.

        In the extended variant the map's upper byte is what plain Comets call _reserved.
        """
        words = read.storage([(self.comet, mapping_slot(key.account, USER_BASIC_SLOT)) for key in keys])
        if words is None:
            return None
        return [((word & (1 << 104) - 1) - (word >> 103 & 1) * (1 << 104), word >> 232) for word in words]

    def stored_collateral(self, read: Reader, places: Sequence[tuple[str, str]]) -> list[int] | None:
        """The balance of each (account, collateral asset) from storage: the lower half of the word."""
        slots = [
            (self.comet, mapping_slot(asset, mapping_slot(account, USER_COLLATERAL_SLOT))) for account, asset in places
        ]
        words = read.storage(slots)
        return None if words is None else [word & (1 << 128) - 1 for word in words]

    def changes_silently(self, market: CompoundV3Market, position: CompoundV3Position) -> bool:
        """Everyone who holds something: debt can move without a log that names the debtor (compound-finance/comet #816).

        Suppliers too: a transfer of 0 to them rounds their principal down by a unit and logs nothing. An empty account
        can only become a silent debtor where the smallest loan is worth 0: a loan needs collateral otherwise.
        """
        if not position.empty:
            return True
        return market.base_price is None or market.base_borrow_min * market.base_price // market.base_scale == 0

    def evaluate(self, market: CompoundV3Market, position: CompoundV3Position) -> Health:
        return evaluate(market, position)

    def price_source(self, market: CompoundV3Market, asset: Asset) -> str | None:
        return market.feeds.get(asset.asset)

    def sources(self, read: Reader, market: CompoundV3Market) -> list[PriceSource]:
        """The price feeds of baseTokenPriceFeed and getAssetInfo, as the market has them."""
        return [PriceSource(asset, feed) for asset, feed in market.feeds.items()]

    def balances(self, market: CompoundV3Market, position: CompoundV3Position) -> list[Balance]:
        return balances(market, position)

    def fit(self, read: Reader, market: CompoundV3Market, positions: Sequence[CompoundV3Position]) -> CompoundV3Market:
        """Checks a new implementation with some debtors; the market is not `exact` if it disagrees.

        The same accounts show whether the storage has the known layout.
        """
        if market.checked and market.layout_known:
            return market
        asked: list[CompoundV3Position] = []
        for position in positions:
            if position.principal < 0 and len(asked) < ASKED:
                asked.append(position)
        if not asked:
            return market
        answers = read(
            [
                Read(self.comet, signature, (position.key.account,))
                for signature in (LIQUIDATABLE, BORROW_BALANCE)
                for position in asked
            ]
        )
        for position, liquidatable, debt in zip(asked, answers[: len(asked)], answers[len(asked) :], strict=True):
            health = self.evaluate(market, position)
            ours = None if health.unpriceable else health.liquidatable
            theirs = None if isinstance(liquidatable, Failed) else liquidatable
            if ours != theirs or debt != -position.principal * market.borrow_index_accrued // INDEX_SCALE:
                note = f"the Comet at {market.revision} answers isLiquidatable or borrowBalanceOf by an unknown formula"
                return replace(market, exact=False, note=note)
        return replace(market, checked=True, layout_known=self.layout_fits(read, asked))

    def fit_group(self, market: CompoundV3Market, position: CompoundV3Position) -> Hashable | None:
        """Everyone until the implementation is known."""
        return None if market.checked and market.layout_known else position.key

    def layout_fits(self, read: Reader, positions: Sequence[CompoundV3Position]) -> bool:
        """Whether storage says the same of these debtors as the getters did; at least one must hold collateral."""
        stored = self.stored_basics(read, [position.key for position in positions])
        held = [(p.key.account, asset, balance) for p in positions for asset, balance in p.collateral.items()]
        amounts = self.stored_collateral(read, [(account, asset) for account, asset, _ in held])
        return (
            stored is not None
            and bool(held)
            and [principal for principal, _ in stored] == [position.principal for position in positions]
            and [assets.bit_count() for _, assets in stored] == [len(position.collateral) for position in positions]
            and amounts == [balance for _, _, balance in held]
        )

    def checks(
        self, market: CompoundV3Market, positions: Iterable[CompoundV3Position], accounts: Accounts
    ) -> list[Check]:
        """Debts and collateral add up exactly; supply adds up to at most its total, which drifts up by rounding."""
        supply = debt = 0
        held = dict.fromkeys((one.asset for one in market.collaterals), 0)
        for position in positions:
            supply += max(position.principal, 0)
            debt += max(-position.principal, 0)
            for asset, balance in (position.collateral | position.stranded).items():
                if asset in held:
                    held[asset] += balance
        return [
            Check(name="principals of debt", have=debt, want=market.total_borrow_base, debt=True),
            Check(name="principals of supply", have=supply, want=market.total_supply_base, at_most=True),
            *(
                Check(name=f"collateral {row.symbol}", have=held[one.asset], want=one.total_supply, debt=True)
                for row, one in zip(market.assets[1:], market.collaterals, strict=True)
            ),
        ]

    def discovers(self, position: CompoundV3Position, accounts: Accounts) -> bool:
        """Collateral cannot appear without an event that names its account; a debt has some, but for dust."""
        if accounts is Accounts.BORROWERS:
            return bool(position.collateral or position.stranded or position.principal < 0)
        return not position.empty

    def contract_answers(self, read: Reader, market: CompoundV3Market, keys: Sequence[PositionKey]) -> list[Answer]:
        """Asks for the Comet's views, and sums up their answers, as the contract returns no values itself.

        `liquidatable` is `isLiquidatable` as stored, the column `liquidatable_accrued` after an accrual in the same call.
        `amounts` and `scaled` are by (asset, side), as one contract keeps all assets.
        """
        assets = [one.asset for one in market.collaterals]
        reads = []
        for key in keys:
            account = (key.account,)
            reads += [
                Read(self.comet, LIQUIDATABLE, account),
                Read(self.comet, BORROW_BALANCE, account),
                Read(self.comet, COMET.function("balanceOf"), account),
                Read(self.comet, USER_BASIC, account),
                *(Read(self.comet, COMET.function("collateralBalanceOf"), (*account, a)) for a in assets),
            ]
        (base_feed, totals), infos, found = together(
            read,
            [Read(self.comet, COMET.function("baseTokenPriceFeed")), Read(self.comet, TOTALS_BASIC)],
            [Read(self.comet, COMET.function("getAssetInfo"), (i,)) for i in range(len(assets))],
            reads,
        )
        rows = chunks(found, 4 + len(assets))
        accrual = [Read(self.comet, COMET.function("accrueAccount"), (self.comet,))]
        accrued = read([Read(self.comet, LIQUIDATABLE, (key.account,)) for key in keys], prelude=accrual)
        feeds = (needed(base_feed), *(needed(info)[2] for info in infos))
        prices = read([Read(self.comet, PRICE, (feed,)) for feed in feeds])
        return [
            answer(market, key, row, liquidatable, prices, needed(totals)[1])
            for key, row, liquidatable in zip(keys, rows, accrued, strict=True)
        ]

    def quotes(self, market: CompoundV3Market) -> Quotes:
        """Prices are counted in the base asset if they are in its unit, with or without feeds that lead from there to USD."""
        feeds = any(self.deployment.addresses.get(name) for name in self.optional_addresses)
        numeraire = market.base if feeds or market.usd is None else None
        return Quotes(prices=super().quotes(market).prices, numeraire=numeraire)

    def with_prices(
        self, market: CompoundV3Market, prices: Mapping[str, int], numeraire: Fraction = ONE
    ) -> CompoundV3Market:
        repriced = with_prices(market, prices)
        if market.usd is None or numeraire == 1:
            return repriced
        dollars, units = market.usd
        return with_usd(repriced, (int(dollars * numeraire), units))

    def after(self, market: CompoundV3Market, seconds: int, blocks: int) -> CompoundV3Market:
        return after(market, seconds, blocks)

    def thresholds(self, market: CompoundV3Market) -> dict[str, Fraction]:
        return {one.asset: Fraction(one.liquidate_factor, WAD) for one in market.collaterals}

    def with_thresholds(self, market: CompoundV3Market, thresholds: Mapping[str, Fraction]) -> CompoundV3Market:
        return with_thresholds(market, thresholds)

    # liquidation ------------------------------------------------------------------------------------------------------

    def interest_stored(self, market: CompoundV3Market) -> CompoundV3Market:
        return interest_stored(market)

    def exposure(self, market: CompoundV3Market, position: CompoundV3Position) -> list[Price]:
        return liquidation.exposure(market, position)

    def effect(
        self, market: CompoundV3Market, position: CompoundV3Position, balance: Balance, delta: int
    ) -> Effect | None:
        return liquidation.effect(market, position, balance, delta)

    def liquidation_calls(self, market: CompoundV3Market, position: CompoundV3Position) -> list[LiquidationCall]:
        return liquidation.liquidation_calls(market, position)
