"""A protocol with every capability but LiquidationLogs: numbered loans, a feed that only a log names, interest, liquidations, bounds."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from indexer.abi import topic
from indexer.adapter import ONE, Bounded, Line, Liquidation, Reader, Registry, Slot, Weight, required
from indexer.model import (
    WAD,
    Accounts,
    Answer,
    Asset,
    Balance,
    Check,
    Effect,
    Event,
    Health,
    LiquidationCall,
    Logs,
    LogSource,
    Market,
    Position,
    PositionKey,
    Price,
    Read,
)

FEED_SET, OPENED, CHANGED = topic("FeedSet(address)"), topic("Opened(uint256,address)"), topic("Changed(uint256)")
ETHER, DOLLAR = "0x" + "e" * 40, "0x" + "d" * 40
FEED = 10**8  # prices have 8 decimals
POINTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LombardMarket(Market):
    """`index` is the stored one, `index_now` what poke() would store; `price` is None before a feed is known."""

    count: int
    index: int
    index_now: int
    updated: int
    rate: int
    threshold: int
    price: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan(Position):
    """What the contract keeps of a loan: wei, and dollars (1e-18) at the index 1e18."""

    collateral: int
    principal: int

    @property
    def empty(self) -> bool:
        return not (self.collateral or self.principal)


class Lombard(Registry[LombardMarket, Loan], Liquidation[LombardMarket, Loan], Bounded[LombardMarket, Loan]):
    """See Lombard.sol. A position is a loan: its owner, and its number as the group."""

    protocol = "lombard"
    market_type = LombardMarket
    position_type = Loan
    required_addresses = ("lombard",)

    @property
    def lombard(self) -> str:
        return self.deployment.addresses["lombard"].lower()

    def reads(self, *names: str) -> list[Read]:
        return [Read(self.lombard, f"{name}()(uint256)") for name in names]

    def loans(self, read: Reader, function: str, numbers: Iterable[str | int]) -> list[int]:
        return required(read, [Read(self.lombard, f"{function}(uint256)(uint256)", (int(n),)) for n in numbers])

    # the seven --------------------------------------------------------------------------------------------------------

    def read_market(self, read: Reader, previous: LombardMarket | None) -> LombardMarket:
        names = ("count", "index", "updated", "rate", "threshold")
        count, index, updated, rate, threshold = required(read, self.reads(*names))
        market = LombardMarket(
            block=read.block, revision="1", usd=(1, WAD), count=count, index=index, index_now=index, updated=updated,
            rate=rate, threshold=threshold,
        )  # fmt: skip
        return self.after(market, 0, 0)

    def logs(self, market: LombardMarket, accounts: Accounts) -> Logs:
        here = frozenset({self.lombard})
        return Logs([LogSource(here, frozenset({OPENED, FEED_SET}))], [LogSource(here, frozenset({CHANGED}))])

    def touched(self, market: LombardMarket, event: Event) -> Iterable[PositionKey]:
        if event.address == self.lombard and event.topic0 in (OPENED, CHANGED):
            key = market.registry.keys.get(int(event.topics[1], 16))
            if key is not None:
                yield key

    def read_positions(self, read: Reader, market: LombardMarket, keys: Sequence[PositionKey]) -> list[Loan]:
        signature = "loans(uint256)(address,uint256,uint256)"
        rows = required(read, [Read(self.lombard, signature, (int(key.group),)) for key in keys])
        return [
            Loan(key=key, block_number=read.block.number, collateral=collateral, principal=principal)
            for key, (_, collateral, principal) in zip(keys, rows, strict=True)
        ]

    def evaluate(self, market: LombardMarket, position: Loan) -> Health:
        price = market.price
        value = None if price is None else position.collateral * price // FEED
        limit = None if value is None else value * market.threshold // POINTS  # Lombard.limit
        debt, owed = position.principal * market.index // WAD, position.principal * market.index_now // WAD
        health = limit * WAD // debt if limit is not None and debt else None  # Lombard.health
        return Health(
            key=position.key,
            collateral_value=value,
            liquidation_limit=limit,
            debt_value=debt,
            health_factor=health,
            health_factor_accrued=limit * WAD // owed if limit is not None and owed else None,
            has_debt=position.principal > 0,
            liquidatable=health is not None and health < WAD,
            unpriceable=price is None and position.principal > 0,
        )

    def balances(self, market: LombardMarket, position: Loan) -> list[Balance]:
        ether, dollars = position.collateral, position.principal * market.index // WAD
        value = None if market.price is None else ether * market.price // FEED
        rows = [
            Balance(asset=ETHER, market=self.lombard, symbol="ETH", decimals=18, side="supply", scaled=ether,
                    amount=ether, value=value, is_collateral=True),
            Balance(asset=DOLLAR, market=self.lombard, symbol="USD", decimals=18, side="debt",
                    scaled=position.principal, amount=dollars, value=dollars, is_collateral=False),
        ]  # fmt: skip
        return [row for row in rows if row.scaled]

    def contract_answers(self, read: Reader, market: LombardMarket, keys: Sequence[PositionKey]) -> list[Answer]:
        numbers = [key.group for key in keys]
        health, debt, limit = (self.loans(read, function, numbers) for function in ("health", "debt", "limit"))
        poke = [Read(self.lombard, "poke()()")]
        accrued = required(
            read, [Read(self.lombard, "health(uint256)(uint256)", (int(n),)) for n in numbers], prelude=poke
        )
        return [
            Answer(
                key=key,
                columns={
                    "health_factor_raw": None if h == 2**256 - 1 else h,
                    "health_factor_accrued_raw": None if a == 2**256 - 1 else a,
                    "debt_value_raw": d,
                    "liquidation_limit_raw": most,
                },
                liquidatable=h < WAD,
            )
            for key, h, a, d, most in zip(keys, health, accrued, debt, limit, strict=True)
        ]

    def checks(self, market: LombardMarket, positions: Iterable[Loan], accounts: Accounts) -> list[Check]:
        """Every number that the contract gave is known."""
        return [Check(name="loans", have=sum(1 for _ in positions), want=market.count, at_most=True)]

    # Registry ---------------------------------------------------------------------------------------------------------

    def enumerate(self, read: Reader, market: LombardMarket, after: int) -> list[PositionKey]:
        return self.keys_of(read, range(after + 1, market.count + 1))

    def keys_of(self, read: Reader, numbers: Iterable[int]) -> list[PositionKey]:
        order = list(numbers)
        rows = required(read, [Read(self.lombard, "loans(uint256)(address,uint256,uint256)", (n,)) for n in order])
        return [PositionKey(owner, str(number)) for number, (owner, _, _) in zip(order, rows, strict=True)]

    def contracts(self, event: Event) -> Iterable[str]:
        feed = event.word_address(0)
        if event.address == self.lombard and event.topic0 == FEED_SET and feed:
            yield feed

    def with_keys(self, read: Reader, market: LombardMarket, keys: Iterable[PositionKey]) -> LombardMarket:
        """The price of the feed that was named last."""
        if not market.registry.contracts:
            return market
        (price,) = required(read, [Read(market.registry.contracts[-1], "price()(uint256)")])
        return self.with_prices(market, {ETHER: price})

    def of_wallets(
        self, read: Reader, market: LombardMarket, wallets: Sequence[str]
    ) -> tuple[LombardMarket, list[PositionKey]]:
        reads = [Read(self.lombard, "loansOf(address)(uint256[])", (wallet,)) for wallet in wallets]
        numbers = [number for owned in required(read, reads) for number in owned]
        found = dict(zip(numbers, self.keys_of(read, numbers), strict=True))
        registry = replace(
            market.registry,
            keys={**market.registry.keys, **found},
            numbers={**market.registry.numbers, **{key: number for number, key in found.items()}},
        )
        return replace(market, registry=registry), list(found.values())

    # WhatIf -----------------------------------------------------------------------------------------------------------

    def with_prices(self, market: LombardMarket, prices: Mapping[str, int], numeraire: Fraction = ONE) -> LombardMarket:
        price = prices.get(ETHER, market.price)
        usd = None if price is None else price / FEED
        share = market.threshold / POINTS
        ether = Asset(asset=ETHER, market=self.lombard, symbol="ETH", decimals=18, price=price, price_usd=usd,
                      liquidation_threshold=share)  # fmt: skip
        return replace(market, price=price, assets=(ether,))

    def thresholds(self, market: LombardMarket) -> dict[str, Fraction]:
        return {ETHER: Fraction(market.threshold, POINTS)}

    def with_thresholds(self, market: LombardMarket, thresholds: Mapping[str, Fraction]) -> LombardMarket:
        share = thresholds.get(ETHER, Fraction(market.threshold, POINTS))
        return self.with_prices(replace(market, threshold=int(share * POINTS)), {})

    def after(self, market: LombardMarket, seconds: int, blocks: int) -> LombardMarket:
        block = market.block.after(seconds, blocks)
        grown = market.index + market.index * market.rate * (block.timestamp - market.updated) // WAD  # Lombard.poke
        return replace(market, block=block, index_now=grown)

    # Liquidation ------------------------------------------------------------------------------------------------------

    def exposure(self, market: LombardMarket, position: Loan) -> list[Price]:
        if market.price is None or not position.collateral:
            return []
        return [Price(key=ETHER, symbol="ETH", price=market.price, decimals=8, unit="USD", collateral=True, debt=False)]

    def interest_stored(self, market: LombardMarket) -> LombardMarket:
        return replace(market, index=market.index_now, updated=market.block.timestamp)

    def effect(self, market: LombardMarket, position: Loan, balance: Balance, delta: int) -> Effect | None:
        if balance.side == "supply":
            return Effect(market=market, position=replace(position, collateral=max(position.collateral + delta, 0)))
        if delta > 0:
            return None  # nothing can be borrowed on an old loan
        left = max(position.principal - -delta * WAD // market.index, 0)
        return Effect(market=market, position=replace(position, principal=left))

    def liquidation_calls(self, market: LombardMarket, position: Loan) -> list[LiquidationCall]:
        """Lombard.liquidate pays all of the debt."""
        if not self.evaluate(market, position).liquidatable or market.price is None:
            return []
        ether, dollars = self.balances(market, position)
        seized = min(dollars.amount * FEED // market.price * 105 // 100, ether.amount)
        return [
            LiquidationCall(debt=dollars, collateral=ether, repaid=dollars.amount, seized=seized,
                            seized_scaled=seized, received=seized, bonus=0.05)
        ]  # fmt: skip

    # Bounded ----------------------------------------------------------------------------------------------------------

    def layout(self, market: LombardMarket) -> Hashable:
        return ()

    def lines(self, market: LombardMarket, position: Loan) -> Sequence[Line] | None:
        return [Line("ether", float(position.collateral)), Line("dollars", float(position.principal), debt=True)]

    def slot_weights(self, market: LombardMarket, slots: Iterable[Slot]) -> list[Weight | None]:
        if market.price is None:
            return [None for _ in slots]
        share = market.price / FEED * market.threshold / POINTS
        weights: dict[Slot, Weight] = {
            "ether": Weight(share, share, 0.0, 2.0, 0.0),  # two divisions round down
            "dollars": Weight(0.0, 0.0, market.index / WAD, 0.0, 1.0),
        }
        return [weights[slot] for slot in slots]
