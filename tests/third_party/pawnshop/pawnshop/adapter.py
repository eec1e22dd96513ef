"""A whole protocol for lending-indexer: one contract that lends dollars against ether."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from indexer.abi import topic
from indexer.adapter import Adapter, Reader, required
from indexer.model import (
    WAD,
    Accounts,
    Answer,
    Asset,
    Balance,
    Event,
    Health,
    Logs,
    LogSource,
    Market,
    Position,
    PositionKey,
    Read,
)

PAWNED, REDEEMED = topic("Pawned(address)"), topic("Redeemed(address)")
ETHER, DOLLAR = "0x" + "e" * 40, "0x" + "d" * 40


@dataclass(frozen=True, slots=True, kw_only=True)
class PawnshopMarket(Market):
    """The one price, in whole dollars an ether."""

    price: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pawn(Position):
    """What the contract keeps of an account, in wei and in 1e-18 dollars."""

    collateral: int
    debt: int

    @property
    def empty(self) -> bool:
        return not (self.collateral or self.debt)


class Pawnshop(Adapter[PawnshopMarket, Pawn]):
    """See Pawnshop.sol."""

    protocol = "pawnshop"
    market_type = PawnshopMarket
    position_type = Pawn
    required_addresses = ("shop",)

    @property
    def shop(self) -> str:
        return self.deployment.addresses["shop"]

    def read_market(self, read: Reader, previous: PawnshopMarket | None) -> PawnshopMarket:
        (price,) = required(read, [Read(self.shop, "price()(uint256)")])
        ether = Asset(asset=ETHER, market=self.shop, symbol="ETH", decimals=18, price=price, price_usd=float(price))
        return PawnshopMarket(block=read.block, revision="1", usd=(1, WAD), assets=(ether,), price=price)

    def logs(self, market: PawnshopMarket, accounts: Accounts) -> Logs:
        pawned, redeemed = (LogSource(frozenset({self.shop}), frozenset({topic0})) for topic0 in (PAWNED, REDEEMED))
        return Logs(discovery=[pawned], activity=[redeemed])

    def touched(self, market: PawnshopMarket, event: Event) -> Iterable[PositionKey]:
        account = event.topic_address(1)
        if event.address == self.shop and event.topic0 in (PAWNED, REDEEMED) and account:
            yield PositionKey(account)

    def read_positions(self, read: Reader, market: PawnshopMarket, keys: Sequence[PositionKey]) -> list[Pawn]:
        names = ("collateral(address)(uint256)", "debt(address)(uint256)")
        words = iter(required(read, [Read(self.shop, name, (key.account,)) for key in keys for name in names]))
        return [Pawn(key=k, block_number=read.block.number, collateral=next(words), debt=next(words)) for k in keys]

    def evaluate(self, market: PawnshopMarket, position: Pawn) -> Health:
        value = position.collateral * market.price
        health = value // 2 * WAD // position.debt if position.debt else None  # Pawnshop.health
        return Health(
            key=position.key,
            collateral_value=value,
            liquidation_limit=value // 2,
            debt_value=position.debt,
            health_factor=health,
            has_debt=position.debt > 0,
            liquidatable=health is not None and health < WAD,
        )

    def balances(self, market: PawnshopMarket, position: Pawn) -> list[Balance]:
        ether, dollars = position.collateral, position.debt
        rows = [
            Balance(asset=ETHER, market=self.shop, symbol="ETH", decimals=18, side="supply", scaled=ether, amount=ether,
                    value=ether * market.price, is_collateral=True),
            Balance(asset=DOLLAR, market=self.shop, symbol="USD", decimals=18, side="debt", scaled=dollars,
                    amount=dollars, value=dollars, is_collateral=False),
        ]  # fmt: skip
        return [row for row in rows if row.amount]

    def contract_answers(self, read: Reader, market: PawnshopMarket, keys: Sequence[PositionKey]) -> list[Answer]:
        answers = required(read, [Read(self.shop, "health(address)(uint256)", (key.account,)) for key in keys])
        return [
            Answer(key=k, columns={"health_factor_raw": None if h == 2**256 - 1 else h}, liquidatable=h < WAD)
            for k, h in zip(keys, answers, strict=True)
        ]
