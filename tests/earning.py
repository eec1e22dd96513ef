"""What a real liquidation call takes and pays, by its caller's and the account's balances: no formula of ours in here.

A `Till` makes the call that a row of `indexer opportunities` announces in the very block of the row's snapshot: that block
was empty, is undone, and the same time passes again.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from eth_utils.crypto import keccak

from tests.devnet import compound_v2, compound_v3, maker
from tests.devnet.send import Reverted, account
from tests.liquidating import (
    MAX,
    AaveGround,
    AaveV2Ground,
    CometGround,
    CompoundV2Ground,
    Ground,
    MakerGround,
    event,
    words,
)

Row = Mapping[str, Any]
Shown = dict[str, Any]
REFUSALS = (Reverted, compound_v2.Refused)
BALANCE = "balanceOf(address)(uint256)"
RICH = 10**32
WAD = 10**18


class Till(ABC):
    """One market after its scene is set: an empty block at the head, in whose place each call is made."""

    def __init__(self, ground: Ground) -> None:
        self.ground, self.devnet, self.node = ground, ground.devnet, ground.node
        self.payer = account("searcher")
        self.call = self.devnet.sender.call
        self.devnet.sender.fund(self.payer)
        self.enrich()
        self.before_head = self.node.snapshot()
        self.time = self.pass_time()

    def enrich(self) -> None:  # noqa: B027 - some calls cost nothing
        """Give the payer whatever any call may cost, in blocks of its own."""

    def pass_time(self) -> int:
        """The empty block; its time."""
        self.node.mine()
        return self.node.timestamp()

    @contextmanager
    def instead_of_head(self) -> Iterator[None]:
        """What is done inside is in the place of the empty block, which afterwards is the head again."""
        self.node.revert(self.before_head)
        self.before_head = self.node.snapshot()
        self.node.set_next_timestamp(self.time)
        try:
            yield
        finally:
            self.node.revert(self.before_head)
            self.before_head = self.node.snapshot()
            self.node.set_next_timestamp(self.time)
            self.node.rpc("evm_mine")

    def made(self, row: Row, amount: int) -> Shown:
        """The columns of the row that the contracts and balances tell once `amount` is liquidated. Raises REFUSALS."""
        before = self.facts(row)
        with self.instead_of_head():
            receipt = self.liquidate(row, amount)
            return {**self.shown(row, receipt, before, self.facts(row)), "gas_used": int(receipt["gasUsed"], 16)}

    @abstractmethod
    def liquidate(self, row: Row, amount: int) -> dict[str, Any]:
        """One transaction that liquidates; its receipt. Raises REFUSALS."""

    @abstractmethod
    def facts(self, row: Row) -> dict[str, int]:
        """Balances and prices that the call may change, or that tell what they are worth."""

    @abstractmethod
    def shown(self, row: Row, receipt: dict[str, Any], before: dict[str, int], after: dict[str, int]) -> Shown:
        """Columns of the row by what changed."""

    def balance(self, token: str, who: str) -> int:
        return int(self.call(token, BALANCE, [who]))


class AaveTill(Till):
    ground: AaveGround

    def enrich(self) -> None:
        if isinstance(self.ground, AaveV2Ground):
            for symbol in self.devnet.tokens:
                self.devnet.give(self.payer, symbol)
        else:
            for reserve in self.devnet.reserves.values():
                self.devnet.sender.send(reserve.asset, "mint(address,uint256)", [self.payer, RICH])

    def liquidate(self, row: Row, amount: int) -> dict[str, Any]:
        args = [row["collateral_asset"], row["debt_asset"], row["account"], amount, False]
        call = "liquidationCall(address,address,address,uint256,bool)"
        receipt: dict[str, Any] = self.devnet.sender.send(self.ground.pool, call, args, sender=self.payer)
        return receipt

    def facts(self, row: Row) -> dict[str, int]:
        assets = {"debt": row["debt_asset"], "collateral": row["collateral_asset"]}
        return {
            **{f"{name}_balance": self.balance(asset, self.payer) for name, asset in assets.items()},
            **{f"{name}_price": self.price(asset) for name, asset in assets.items()},
            **{f"{name}_unit": 10 ** self.call(asset, "decimals()(uint8)") for name, asset in assets.items()},
            "held": self.balance(row["collateral_market"], row["account"]),
        }

    def oracle(self) -> str:
        return str(self.devnet.oracle if isinstance(self.ground, AaveV2Ground) else self.devnet.contracts.oracle)

    def price(self, asset: str) -> int:
        return int(self.call(self.oracle(), "getAssetPrice(address)(uint256)", [asset]))

    def usd(self) -> Fraction:
        """A value in USD; Aave V2 counts in ether, of which a dollar is as much as USDC costs."""
        if isinstance(self.ground, AaveV2Ground):
            return Fraction(1, self.price(self.devnet.tokens["USDC"].asset))
        return Fraction(1, 10**8)

    def shown(self, row: Row, receipt: dict[str, Any], before: dict[str, int], after: dict[str, int]) -> Shown:
        paid = before["debt_balance"] - after["debt_balance"]
        received = after["collateral_balance"] - before["collateral_balance"]
        if row["debt_asset"] == row["collateral_asset"]:  # a balance shows their difference alone
            (log,) = event(receipt, "LiquidationCall(address,address,address,uint256,uint256,address,bool)")
            repaid, taken, *_ = words(log)
            assert taken - repaid == received == -paid
            paid, received = repaid, taken
        cost = Fraction(paid * before["debt_price"], before["debt_unit"])
        gain = Fraction(received * before["collateral_price"], before["collateral_unit"])
        seized = before["held"] - after["held"]
        return {
            "repaid_raw": str(paid),
            "received_raw": str(received),
            "seized_raw": str(seized),
            "protocol_share_raw": str(seized - received),
            "paid_usd": float(cost * self.usd()),
            "received_usd": float(gain * self.usd()),
            "profit_before_gas_usd": float((gain - cost) * self.usd()),
        }


class CompoundV2Till(Till):
    ground: CompoundV2Ground

    def enrich(self) -> None:
        for symbol in self.devnet.markets:
            self.devnet.give(self.payer, symbol)

    def market(self, row: Row) -> Any:
        """The market of the debt: of several for one asset the one in which the account owes."""
        return next(
            market
            for market in self.devnet.markets.values()
            if market.listing.symbol == row["debt_symbol"] or market.underlying == row["debt_asset"]
        )

    def liquidate(self, row: Row, amount: int) -> dict[str, Any]:
        market = self.market(row)
        call, args = "liquidateBorrow(address,uint256,address)", [row["account"], amount, row["collateral_market"]]
        value = 0
        if market.underlying is None:
            call, args = "liquidateBorrow(address,address)", [row["account"], row["collateral_market"]]
            value = amount
        receipt: dict[str, Any] = self.devnet.sender.send(market.address, call, args, sender=self.payer, value=value)
        failures = event(receipt, "Failure(uint256,uint256,uint256)")
        if failures:
            raise compound_v2.Refused(call, *words(failures[0]))
        return receipt

    def facts(self, row: Row) -> dict[str, int]:
        market, c_token = self.market(row), row["collateral_market"]
        price = "getUnderlyingPrice(address)(uint256)"
        return {
            "balance": self.balance(market.underlying, self.payer)
            if market.underlying
            else int(self.node.rpc("eth_getBalance", self.payer, "latest"), 16),
            "c_tokens": self.balance(c_token, self.payer),
            "held": self.balance(c_token, row["account"]),
            "rate": self.call(c_token, "exchangeRateCurrent()(uint256)"),
            "debt_price": self.call(self.devnet.oracle, price, [market.address]),
            "collateral_price": self.call(self.devnet.oracle, price, [c_token]),
        }

    def shown(self, row: Row, receipt: dict[str, Any], before: dict[str, int], after: dict[str, int]) -> Shown:
        paid = before["balance"] - after["balance"]
        if self.market(row).underlying is None:
            paid -= int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
        tokens = after["c_tokens"] - before["c_tokens"]
        received = tokens * before["rate"] // WAD
        seized = (before["held"] - after["held"]) * before["rate"] // WAD
        cost, gain = Fraction(paid * before["debt_price"], WAD), Fraction(received * before["collateral_price"], WAD)
        return {
            "repaid_raw": str(paid),
            "received_scaled_raw": str(tokens),
            "received_raw": str(received),
            "seized_raw": str(seized),
            "protocol_share_raw": str(seized - received),
            "paid_usd": float(cost / WAD),
            "received_usd": float(gain / WAD),
            "profit_before_gas_usd": float((gain - cost) / WAD),
        }


class CometTill(Till):
    ground: CometGround
    devnet: compound_v3.CompoundV3

    def enrich(self) -> None:
        base = self.devnet.tokens[self.devnet.base]
        self.devnet.sender.send(base, "mint(address,uint256)", [self.payer, RICH])

    def liquidate(self, row: Row, amount: int) -> dict[str, Any]:
        args = [self.payer, [row["account"]]]
        return self.devnet.sender.send(self.devnet.comet, "absorb(address,address[])", args, sender=self.payer)

    def facts(self, row: Row) -> dict[str, int]:
        comet, asset = self.devnet.comet, row["collateral_asset"]
        symbols = {token: symbol for symbol, token in self.devnet.tokens.items()}
        return {
            "base": self.balance(self.devnet.tokens[self.devnet.base], self.payer),
            "gem": self.balance(asset, self.payer),
            "owed": self.call(comet, "borrowBalanceOf(address)(uint256)", [row["account"]]),
            "held": self.call(comet, "collateralBalanceOf(address,address)(uint128)", [row["account"], asset]),
            "reserves": self.call(comet, "getReserves()(int256)"),
            "target": self.call(comet, "targetReserves()(uint256)"),
            "base_price": self.devnet.price(self.devnet.base),
            "gem_price": self.devnet.price(symbols[asset]),
            "gem_unit": 10 ** self.call(asset, "decimals()(uint8)"),
        }

    def shown(self, row: Row, receipt: dict[str, Any], before: dict[str, int], after: dict[str, int]) -> Shown:
        assert (after["base"], after["gem"]) == (before["base"], before["gem"])
        assert receipt["status"] == "0x1"
        assert after["owed"] == 0
        seized = before["held"] - after["held"]
        return {
            "repaid_raw": str(before["owed"]),
            "seized_raw": str(seized),
            "received_raw": "0",
            "protocol_share_raw": str(seized),
            "profit_before_gas_usd": 0.0,
            **self.sold(row, after),
        }

    def sold(self, row: Row, then: dict[str, int]) -> Shown:
        """What buyCollateral sells behind the absorption, at the same time."""
        if row["sale_refused"] is not None:
            amount = self.devnet.unit
            try:
                self.buy(row, amount)
            except Reverted as error:
                return {"sale_refused": {"NotForSale()": "not-for-sale", "Paused()": "buy-paused"}[error.reason]}
            return {"sale_refused": None}
        paid = int(row["sale_paid_raw"])
        less = self.call(
            self.devnet.comet, "quoteCollateral(address,uint256)(uint256)", [row["collateral_asset"], paid - 1]
        )
        self.buy(row, paid)
        now = self.facts(row)
        cost, bought = then["base"] - now["base"], now["gem"] - then["gem"]
        assert less < bought
        gain = Fraction(bought * then["gem_price"], then["gem_unit"])
        gain -= Fraction(cost * then["base_price"], self.devnet.unit)
        in_usd = self.devnet.base == "USDC"
        return {
            "sale_paid_raw": str(cost),
            "sale_bought_raw": str(bought),
            "sale_profit_before_gas_usd": float(gain / 10**8) if in_usd else None,
            "sale_refused": None,
        }

    def buy(self, row: Row, amount: int) -> None:
        self.node.set_next_timestamp(self.time)
        args = [row["collateral_asset"], 0, amount, self.payer]
        call = "buyCollateral(address,uint256,uint256,address)"
        self.devnet.sender.send(self.devnet.comet, call, args, sender=self.payer)


class CatTill(Till):
    """Maker with its Cat: the stability fees are dripped at the time of the empty block, as nobody else does it."""

    ground: MakerGround
    devnet: maker.Maker

    def enrich(self) -> None:
        self.now = self.node.timestamp()
        for name in self.devnet.ilks:
            self.node.set_next_timestamp(self.now)
            self.devnet.drip(name)

    def pass_time(self) -> int:
        self.node.set_next_timestamp(self.now)
        self.node.rpc("evm_mine")
        return self.now

    def liquidate(self, row: Row, amount: int) -> dict[str, Any]:
        cat, ilk = self.devnet.contracts["MCD_CAT"], self.devnet.ilks[row["position_group"]].key
        return self.devnet.sender.send(cat, "bite(bytes32,address)", [ilk, row["account"]], sender=self.payer)

    def facts(self, row: Row) -> dict[str, int]:
        position = self.devnet.position(row["position_group"], row["account"])
        dai = self.call(self.devnet.addresses["vat"], "dai(address)(uint256)", [self.payer])
        return {"ink": position.ink, "art": position.art, "rate": position.rate, "dai": dai}

    def shown(self, row: Row, receipt: dict[str, Any], before: dict[str, int], after: dict[str, int]) -> Shown:
        topic = "0x" + keccak(text="Bite(bytes32,address,uint256,uint256,uint256,address,uint256)").hex()
        (log,) = [log for log in receipt["logs"] if log["topics"][0] == topic]
        ink, art, _, flip, number = words(log)
        assert (ink, art) == (before["ink"] - after["ink"], before["art"] - after["art"])
        bids = "bids(uint256)(uint256,uint256,address,uint48,uint48,address,address,uint256)"
        _, lot, *_, tab = self.call(f"0x{flip:040x}", bids, [number])
        return {
            "repaid_raw": str(-(-art * before["rate"] // maker.RAY)),
            "received_raw": "0",
            "auction_lot_raw": str(lot),
            "auction_tab_raw": str(tab),
            "auction_reward_raw": str(after["dai"] - before["dai"]),
            "profit_before_gas_usd": float(Fraction(after["dai"] - before["dai"], maker.RAD)),
        }


def till_of(ground: Ground) -> Till:
    kinds: dict[type[Ground], type[Till]] = {
        AaveGround: AaveTill,
        CompoundV2Ground: CompoundV2Till,
        CometGround: CometTill,
        MakerGround: CatTill,
    }
    return next(till for kind, till in kinds.items() if isinstance(ground, kind))(ground)


def everything(ground: Ground, row: Row) -> int:
    """What to ask for, to be given the most: Aave cuts what is too much, others want the exact amount."""
    return MAX if isinstance(ground, AaveGround) else int(row["repaid_raw"] or 1)
