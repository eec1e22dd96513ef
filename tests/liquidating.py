"""What the liquidation tests do to each devnet market, and what they ask its contracts: no formula of ours in here."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from indexer.adapter import AnyLiquidation, Liquidation
from indexer.model import WAD, Balance, LiquidationCall, Market, Position, PositionKey, Price
from indexer.snapshot.everyone import build
from indexer.snapshot.known import KnownDeployment
from protocols.maker.market import with_ilks
from tests.compound import Connection
from tests.devnet import aave_v2, aave_v3, compound_v2, compound_v3, maker
from tests.devnet.aave_v3_scenario import Actions, perform
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil, block_tag
from tests.devnet.scenario import Devnet
from tests.devnet.send import Reverted, account, calldata
from tests.devnet.worlds import KINDS, alone
from tests.truth import adapter_of

AGGREGATE = "aggregate3((address,bool,bytes)[])"
MAX = 2**256 - 1
Question = tuple[str, str]  # contract and calldata
Override = dict[str, Any]


def answering(price: int) -> str:
    """Code that answers every call with the price, as a single word and as the answer of a feed's latest round."""
    return "0x7f" + price.to_bytes(32).hex() + "805f5260205260a05ff3"


class Ground(ABC):
    """One populated market: its adapter, its contracts' own health test, and real transactions on it.

    `lazy` markets answer from stored indexes until somebody accrues interest.
    """

    lazy = True
    blocks = False  # interest counts blocks, not seconds
    reasons: frozenset[str]  # why nothing can be liquidated after `block`

    def __init__(self, devnet: Any) -> None:
        self.devnet = devnet
        self.node: Anvil = devnet.node
        self.connection = Connection(devnet.node)
        adapter = adapter_of(devnet)
        assert isinstance(adapter, Liquidation)
        self.adapter: AnyLiquidation = adapter
        self.payer, self.payers = "", 0
        self.market: Any = None
        self.positions: dict[PositionKey, Position] = {}

    # our side

    def keys(self) -> list[PositionKey]:
        return [PositionKey(user) for user in sorted(self.devnet.users)]

    def read(self, keys: Sequence[PositionKey] | None = None) -> tuple[Market, list[Position]]:
        """The market and these positions at the head."""
        reader = self.connection.reader()
        wanted = self.keys() if keys is None else keys
        deployment = KnownDeployment(CHAIN_ID, self.adapter, wallets=list)
        deployment.touch(dict.fromkeys(wanted, (0, 0)))
        build(deployment, reader)
        return deployment.market, deployment.held()

    def start(self) -> None:
        """Read everything once, as it is after a test has set its scene; from then on only time passes."""
        self.market, positions = self.read()
        self.positions = {position.key: position for position in positions}

    def next(self, key: PositionKey) -> tuple[Market, Position]:
        """The market as the next transaction finds it, a second and a block after the head, and a position in it."""
        head, block = self.node.block(), self.market.block
        seconds, blocks = int(head["timestamp"], 16) - block.timestamp, int(head["number"], 16) - block.number
        later = self.adapter.after(self.adapter.narrow(self.market, self.positions[key]), seconds + 1, blocks + 1)
        return self.adapter.interest_stored(later), self.positions[key]

    def new_payer(self) -> None:
        """Somebody who was never here before: anvil keeps waiting for a transaction that it has once seen and undone."""
        self.payers += 1
        self.payer = account(f"payer {self.payers}")

    def factor(self, key: PositionKey) -> int | None:
        """The health factor the contracts tell at the head, interest accrued."""
        narrowed = self.adapter.narrow(self.market, self.positions[key])
        (answer,) = self.adapter.contract_answers(self.connection.reader(), narrowed, [key])
        name = "health_factor_accrued_raw" if self.lazy else "health_factor_raw"
        found = answer.columns[name]
        return None if found is None else int(found)

    # the contracts' own test, with other prices

    @abstractmethod
    def question(self, who: str) -> Question:
        """The health test of one account."""

    @abstractmethod
    def verdict(self, answer: bytes) -> bool:
        """Whether that answer says liquidatable."""

    @abstractmethod
    def override(self, price: Price, value: int) -> Override:
        """State in which the oracle answers this price."""

    def accruals(self) -> list[Question]:
        return []

    def liquidatable(self, asked: Sequence[tuple[str, Override]], block: int, *, accrued: bool) -> list[bool | None]:
        """The contracts' verdicts for each account under each override; None where they revert."""
        requests = []
        for who, override in asked:
            to, data = self.question(who)
            if accrued:
                calls = [(c, True, bytes.fromhex(d[2:])) for c, d in [*self.accruals(), (to, data)]]
                to, data = MULTICALL3, calldata(AGGREGATE, [calls])
            requests.append(("eth_call", [{"to": to, "data": data}, block_tag(block), override]))
        found: list[bool | None] = []
        for answer in self.node.batch_answers(requests):
            if "error" in answer:
                found.append(None)
                continue
            raw = bytes.fromhex(answer["result"][2:])
            if accrued:
                done, raw = decode(["(bool,bytes)[]"], raw)[0][-1]
                if not done:
                    found.append(None)
                    continue
            found.append(self.verdict(raw))
        return found

    # transactions

    @abstractmethod
    def set_price(self, price: Price, value: int) -> None:
        """Bring a price into force by transactions."""

    @abstractmethod
    def block(self) -> None:
        """Governance stops liquidations."""

    def open_sizes(self) -> list[str]:
        """Opens accounts of sizes that the market's rules tell apart, if they do; who they are."""
        return []

    def always(self, position: Any) -> bool:
        """Whether the position can be liquidated whatever the prices."""
        return False

    def prepare(self, key: PositionKey, row: Balance) -> None:  # noqa: B027 - most need nothing
        """Whatever the next `pay` needs that takes blocks of its own."""

    @abstractmethod
    def pay(self, act: str, key: PositionKey, row: Balance, amount: int) -> None:
        """Repay ("repay") or supply ("add") in one transaction, in the next block. Raises if it is refused."""

    @abstractmethod
    def close(self, key: PositionKey, one: LiquidationCall, amount: int) -> dict[str, int]:
        """One liquidation call for that debt and collateral, in the next block; what it did. Raises if refused.

        `repaid`, `received`, `seized`, `seized_scaled` or `returned`, whichever the contracts' events and balances show.
        """

    def closing(self, key: PositionKey, one: LiquidationCall) -> None:  # noqa: B027 - most need nothing
        """Whatever the next `close` needs that takes blocks of its own."""

    def stop_the_clock(self) -> None:
        """An empty block at the time for which `next` reckons; the next transaction's block has the same time.

        What the contracts then answer before and after that transaction differs by what it does alone.
        """
        self.node.mine()
        self.node.set_next_timestamp(self.node.timestamp())


def words(log: dict[str, Any]) -> list[int]:
    raw = bytes.fromhex(log["data"][2:])
    return [int.from_bytes(raw[i : i + 32]) for i in range(0, len(raw), 32)]


def event(receipt: dict[str, Any], signature: str) -> list[dict[str, Any]]:
    topic = "0x" + keccak(text=signature).hex()
    return [log for log in receipt["logs"] if log["topics"] and log["topics"][0] == topic]


class AaveGround(Ground):
    lazy = False
    pool: str
    supply: str

    def question(self, who: str) -> Question:
        return self.pool, calldata(aave_v3.ACCOUNT_DATA, [who])

    def verdict(self, answer: bytes) -> bool:
        return int.from_bytes(answer[160:192]) < WAD

    def mode(self, row: Balance) -> int:
        raise NotImplementedError

    def pay(self, act: str, key: PositionKey, row: Balance, amount: int) -> None:
        if act == "repay":
            args = [row.asset, amount, self.mode(row), key.account]
            self.devnet.sender.send(self.pool, "repay(address,uint256,uint256,address)", args, sender=self.payer)
        else:
            args = [row.asset, amount, key.account, 0]
            self.devnet.sender.send(self.pool, self.supply, args, sender=self.payer)

    def close(self, key: PositionKey, one: LiquidationCall, amount: int) -> dict[str, int]:
        self.stop_the_clock()
        return self.close_now(key, one, amount)

    def close_now(self, key: PositionKey, one: LiquidationCall, amount: int) -> dict[str, int]:
        before = self.held(key, one)
        args = [one.collateral.asset, one.debt.asset, key.account, amount, False]
        call = "liquidationCall(address,address,address,uint256,bool)"
        receipt = self.devnet.sender.send(self.pool, call, args, sender=self.payer)
        (log,) = event(receipt, "LiquidationCall(address,address,address,uint256,uint256,address,bool)")
        repaid, received, *_ = words(log)
        lost = {name: before[name] - left for name, left in self.held(key, one).items()}
        return {"repaid": repaid, "received": received, **lost}

    def held(self, key: PositionKey, one: LiquidationCall) -> dict[str, int]:
        """The account's balance of the collateral's aToken, and what the token keeps of it."""
        names = {"seized": "balanceOf(address)(uint256)", "seized_scaled": "scaledBalanceOf(address)(uint256)"}
        call, token = self.devnet.sender.call, one.collateral.market
        return {name: call(token, function, [key.account]) for name, function in names.items()}


class AaveV3Ground(AaveGround):
    devnet: aave_v3.AaveV3
    reasons = frozenset({"paused:WETH", "grace-period:USDC"})
    supply = "supply(address,uint256,address,uint16)"

    def __init__(self, devnet: aave_v3.AaveV3) -> None:
        super().__init__(devnet)
        self.pool = devnet.contracts.pool

    def block(self) -> None:
        self.devnet.pause("WETH")
        if isinstance(self.devnet, aave_v3.AaveV36):
            self.devnet.grant_grace("USDC", 3_600)

    def open_sizes(self) -> list[str]:
        """Dollars: all is closed below 2,000 of debt or collateral, and at least 1,000 of both have to stay (3.3)."""
        sizes = [(3_000, [1_500]), (1_900, [1_100]), (5_000, [2_600, 900]), (9_000, [4_100, 2_500]), (2_700, [2_050])]
        actions = Actions(self.devnet)
        people = [account(f"size {number}") for number in range(len(sizes))]
        opened = [
            actions.supply(who, "WETH", actions.amount("WETH", usd))
            for who, (usd, _) in zip(people, sizes, strict=True)
        ]
        for who, (_, debts) in zip(people, sizes, strict=True):
            for symbol, usd in zip(("USDC", "DAI"), debts, strict=False):
                opened.append(actions.borrow(who, symbol, actions.amount(symbol, usd)))
        perform(self.devnet, Random(1), opened, must=True)
        return people

    def feed(self, price: Price) -> str:
        feeds = {reserve.asset: reserve.feed for reserve in self.devnet.reserves.values()}
        return (feeds | dict(self.devnet.extra_feeds.values()))[price.key]

    def override(self, price: Price, value: int) -> Override:
        return {self.feed(price): {"code": answering(value)}}

    def set_price(self, price: Price, value: int) -> None:
        self.devnet.sender.send(self.feed(price), "set(int256)", [value])

    def mode(self, row: Balance) -> int:
        return 1 if row.market in {r.stable_debt for r in self.devnet.reserves.values()} else 2


class AaveV2Ground(AaveGround):
    devnet: aave_v2.AaveV2
    reasons = frozenset({"paused"})
    supply = "deposit(address,uint256,address,uint16)"

    def __init__(self, devnet: aave_v2.AaveV2) -> None:
        super().__init__(devnet)
        self.pool = devnet.pool

    def block(self) -> None:
        self.devnet.pause()

    def override(self, price: Price, value: int) -> Override:
        source = self.devnet.sender.call(self.devnet.oracle, "getSourceOfAsset(address)(address)", [price.key])
        return {source: {"code": answering(value)}}

    def symbol(self, asset: str) -> str:
        return next(symbol for symbol, tokens in self.devnet.tokens.items() if tokens.asset == asset)

    def set_price(self, price: Price, value: int) -> None:
        self.devnet.set_price(self.symbol(price.key), value)

    def mode(self, row: Balance) -> int:
        return 1 if row.market in {tokens.stable_debt for tokens in self.devnet.tokens.values()} else 2

    def prepare(self, key: PositionKey, row: Balance) -> None:
        self.devnet.give(self.payer, self.symbol(row.asset))

    def closing(self, key: PositionKey, one: LiquidationCall) -> None:
        self.devnet.give(self.payer, self.symbol(one.debt.asset))


class CompoundV2Ground(Ground):
    devnet: compound_v2.CompoundV2
    blocks = True
    reasons = frozenset({"seize-paused"})

    def block(self) -> None:
        self.devnet.pause("Seize")

    def question(self, who: str) -> Question:
        return self.devnet.comptroller, calldata("getAccountLiquidity(address)", [who])

    def verdict(self, answer: bytes) -> bool:
        error, _, shortfall = (int.from_bytes(answer[i : i + 32]) for i in (0, 32, 64))
        assert error == 0
        return shortfall > 0

    def accruals(self) -> list[Question]:
        return [(market.address, calldata("accrueInterest()")) for market in self.devnet.markets.values()]

    def symbol(self, c_token: str) -> str:
        return next(symbol for symbol, market in self.devnet.markets.items() if market.address == c_token)

    def always(self, position: Any) -> bool:
        return any(self.devnet.is_deprecated(self.symbol(token)) for token in position.borrows)

    def priced(self, price: Price) -> compound_v2.CToken:
        return next(
            market
            for symbol, market in self.devnet.markets.items()
            if market.underlying == price.key or (market.underlying is None and symbol == price.symbol)
        )

    def override(self, price: Price, value: int) -> Override:
        token = self.priced(price).address
        for mapping in range(8):
            slot = "0x" + keccak(encode(["address", "uint256"], [token, mapping])).hex()
            if int(self.node.rpc("eth_getStorageAt", self.devnet.oracle, slot, "latest"), 16) == price.price:
                return {self.devnet.oracle: {"stateDiff": {slot: "0x" + value.to_bytes(32).hex()}}}
        raise AssertionError("the oracle keeps its prices elsewhere")

    def set_price(self, price: Price, value: int) -> None:
        args = [self.priced(price).address, value]
        self.devnet.sender.send(self.devnet.oracle, "setUnderlyingPrice(address,uint256)", args)

    def prepare(self, key: PositionKey, row: Balance) -> None:
        for who in (self.payer, key.account):
            self.devnet.give(who, self.symbol(row.market))

    def pay(self, act: str, key: PositionKey, row: Balance, amount: int) -> None:
        market = self.devnet.markets[self.symbol(row.market)]
        if act == "repay" and market.underlying is None:
            call = "repayBorrowBehalf(address)"
            self.devnet.act(market.address, call, [key.account], sender=self.payer, value=amount)
        elif act == "repay":
            call = "repayBorrowBehalf(address,uint256)"
            self.devnet.act(market.address, call, [key.account, amount], sender=self.payer)
        elif market.underlying is None:
            self.devnet.act(market.address, "mint()", sender=key.account, value=amount)
        else:
            self.devnet.act(market.address, "mint(uint256)", [amount], sender=key.account)

    def closing(self, key: PositionKey, one: LiquidationCall) -> None:
        self.devnet.give(self.payer, self.symbol(one.debt.market))

    def close(self, key: PositionKey, one: LiquidationCall, amount: int) -> dict[str, int]:
        market = self.devnet.markets[self.symbol(one.debt.market)]
        call, args, value = "liquidateBorrow(address,uint256,address)", [key.account, amount, one.collateral.market], 0
        if market.underlying is None:
            call, args, value = "liquidateBorrow(address,address)", [key.account, one.collateral.market], amount
        receipt = self.devnet.sender.send(market.address, call, args, sender=self.payer, value=value)
        if event(receipt, "Failure(uint256,uint256,uint256)"):
            raise compound_v2.Refused(call, *words(event(receipt, "Failure(uint256,uint256,uint256)")[0]))
        (log,) = event(receipt, "LiquidateBorrow(address,address,uint256,address,uint256)")
        _, _, repaid, _, seized = words(log)
        return {"repaid": repaid, "seized_scaled": seized}


class CometGround(Ground):
    devnet: compound_v3.CompoundV3
    reasons = frozenset({"absorb-paused"})

    def block(self) -> None:
        self.devnet.pause(absorb=True)

    def question(self, who: str) -> Question:
        return self.devnet.comet, calldata("isLiquidatable(address)", [who])

    def verdict(self, answer: bytes) -> bool:
        return bool(int.from_bytes(answer))

    def accruals(self) -> list[Question]:
        return [(self.devnet.comet, calldata("accrueAccount(address)", [self.devnet.comet]))]

    def feed(self, price: Price) -> str:
        return next(self.devnet.feeds[symbol] for symbol, token in self.devnet.tokens.items() if token == price.key)

    def override(self, price: Price, value: int) -> Override:
        return {self.feed(price): {"code": answering(value)}}

    def set_price(self, price: Price, value: int) -> None:
        self.devnet.sender.send(self.feed(price), "set(int256)", [value])

    def pay(self, act: str, key: PositionKey, row: Balance, amount: int) -> None:
        args = [key.account, row.asset, amount]
        self.devnet.sender.send(self.devnet.comet, "supplyTo(address,address,uint256)", args, sender=self.payer)

    def close(self, key: PositionKey, one: LiquidationCall, amount: int) -> dict[str, int]:
        self.stop_the_clock()
        owed = self.balance("borrowBalanceOf", key)
        call = "absorb(address,address[])"
        receipt = self.devnet.sender.send(self.devnet.comet, call, [self.payer, [key.account]], sender=self.payer)
        seized = {
            "0x" + log["topics"][3][26:]: words(log)[0]
            for log in event(receipt, "AbsorbCollateral(address,address,address,uint256,uint256)")
        }
        returned = self.balance("balanceOf", key)
        assert self.balance("borrowBalanceOf", key) == 0
        credited = [words(log)[0] for log in event(receipt, "Transfer(address,address,uint256)")]
        assert credited == ([returned] if returned else [])
        return {"repaid": owed, "returned": returned, "seized": seized[one.collateral.asset]}

    def balance(self, function: str, key: PositionKey) -> int:
        return int(self.devnet.sender.call(self.devnet.comet, f"{function}(address)(uint256)", [key.account]))


class MakerGround(Ground):
    devnet: maker.Maker
    reasons = frozenset({"box"})

    def __init__(self, devnet: maker.Maker) -> None:
        devnet.addresses["cat"] = devnet.contracts["MCD_CAT"]
        super().__init__(devnet)

    def next(self, key: PositionKey) -> tuple[Market, Position]:
        """Neither bite nor frob drips: the next block gets the time of this one, so that a drip in this one counts."""
        reader, narrowed = self.connection.reader(), self.adapter.narrow(self.market, self.positions[key])
        market = with_ilks(reader, replace(narrowed, ilks={}, block=reader.block), [key.group])  # type: ignore[type-var]
        return self.adapter.interest_stored(self.adapter.after(market, 0, 1)), self.positions[key]

    def keys(self) -> list[PositionKey]:
        return [PositionKey(urn, ilk) for ilk, urn in sorted(self.devnet.positions)]

    def question(self, who: str) -> Question:
        raise NotImplementedError

    verdict = override = question  # type: ignore[assignment]

    def block(self) -> None:
        self.devnet.govern(self.devnet.contracts["MCD_CAT"], "file(bytes32,uint256)", maker.word("box"), 0)

    def unsafe(self, key: PositionKey) -> bool:
        """What Cat.bite requires, from the Vat's own words, and whether it then lets an auction begin."""
        answer = self.devnet.position(key.group, key.account)
        cat, ilk = self.devnet.contracts["MCD_CAT"], self.devnet.ilks[key.group].key
        try:
            self.devnet.sender.call(cat, "bite(bytes32,address)(uint256)", [ilk, key.account])
            begins = True
        except Reverted as reverted:
            begins = reverted.reason != "Cat/not-unsafe"
        assert answer.unsafe == begins
        return begins

    def set_price(self, price: Price, value: int) -> None:
        self.devnet.set_price(price.symbol, value)

    def prepare(self, key: PositionKey, row: Balance) -> None:
        vat, vow = self.devnet.addresses["vat"], self.devnet.contracts["MCD_VOW"]
        self.devnet.govern(vat, "suck(address,address,uint256)", vow, key.account, maker.RAD * 10**9)
        if row.side == "supply":
            self.devnet.join(key.group, key.account, 4 * row.amount * 10 ** (18 - row.decimals))
        self.devnet.drip(key.group)

    def closing(self, key: PositionKey, one: LiquidationCall) -> None:
        self.devnet.drip(key.group)

    def pay(self, act: str, key: PositionKey, row: Balance, amount: int) -> None:
        # As DssProxyActions reckon: gems in wad, and no more `art` than the DAI pays for.
        position = self.devnet.position(key.group, key.account)
        dink = amount * 10 ** (18 - row.decimals) if act == "add" else 0
        dart = -min(position.art, amount * maker.RAY // position.rate) if act == "repay" else 0
        args = [self.devnet.ilks[key.group].key, key.account, key.account, key.account, dink, dart]
        self.node.set_next_timestamp(self.node.timestamp())
        self.devnet.sender.send(self.devnet.addresses["vat"], maker.FROB, args, sender=key.account)

    def close(self, key: PositionKey, one: LiquidationCall, amount: int) -> dict[str, int]:
        before = self.devnet.position(key.group, key.account)
        self.node.set_next_timestamp(self.node.timestamp())
        self.devnet.bite(key.group, key.account)
        after = self.devnet.position(key.group, key.account)
        rad = (before.art - after.art) * after.rate
        return {"repaid": -(-rad // maker.RAY), "seized_scaled": before.ink - after.ink}


def ground_of(devnet: Devnet) -> Ground:
    kinds: dict[str, type[Any]] = {
        "aave-v3": AaveV3Ground,
        "aave-v2": AaveV2Ground,
        "compound-v2": CompoundV2Ground,
        "compound-v3": CometGround,
        "maker": MakerGround,
    }
    return kinds[devnet.protocol](devnet)  # type: ignore[no-any-return]


@contextmanager
def populated_ground(kind: str, seed: int, users: int) -> Iterator[Ground]:
    """A populated market of a kind of `tests.devnet.worlds`, on a node of its own."""
    with alone(KINDS[kind], seed, users) as market:
        ground = ground_of(market)
        yield ground
        ground.connection.chain.close()
