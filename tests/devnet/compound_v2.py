"""Compound V2 on a local node: real Comptrollers and cTokens of two generations, and what can be done to them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any, Literal

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from tests.devnet import aave_v2, compound_v2_scenario
from tests.devnet.contracts import Artifact, hardhat_artifact
from tests.devnet.node import MULTICALL3, Anvil, block_tag
from tests.devnet.packages import package
from tests.devnet.scenario import Devnet
from tests.devnet.send import Reverted, Sender, account, calldata

#: the Comptroller of 2020 (COMP, multiplies with `mulExp`) and the first cTokens; `npm install` of it fails, a pack does
OLD = ("@setprotocol/set-protocol-v2", "0.1.16")
#: the Comptroller of 2022 (`mul_`, `isDeprecated`) and the later cTokens, from compound-finance/compound-protocol
LATER = ("@thenextblock/hardhat-compound", "0.0.14")

WAD = 10**18
UINT_MAX = 2**256 - 1
RICHES = 2**128
ZERO = "0x" + "00" * 20
CLOSE_FACTOR = WAD // 2
LIQUIDATION_INCENTIVE = 108 * WAD // 100
FAILURE = "0x" + keccak(text="Failure(uint256,uint256,uint256)").hex()
MARKET_ENTERED = "0x" + keccak(text="MarketEntered(address,address)").hex()

#: how a Comptroller rounds each product of getHypotheticalAccountLiquidityInternal's tokensToDenom
Generation = Literal["half-up", "truncating"]
#: the first cTokens (CErc20 and CEther, AccrueInterest with 3 arguments), or the later ones: CErc20Immutable or CEther,
#: and CErc20Delegator with CErc20Delegate behind it; "seconds" is a CErc20Immutable that counts them, as some forks do
Code = Literal["old", "immutable", "delegator", "seconds"]

#: storage slots of (borrowIndex, accountBorrows): `accountBorrows[a]` is principal and, a slot on, interestIndex
BORROW_SLOTS: dict[Code, tuple[int, int]] = {
    "old": (11, 17),
    "immutable": (10, 16),
    "delegator": (10, 16),
    "seconds": (10, 16),
}


class Refused(Exception):  # noqa: N818 -- the protocol's own word is Failure, and it does not revert
    """A function answered with an error code instead of reverting; numbers as in Compound's ErrorReporter."""

    def __init__(self, function: str, error: int, info: int = 0, detail: int = 0) -> None:
        self.error = error
        self.info = info
        self.detail = detail
        super().__init__(f"{function} refused: error {error}, info {info}, detail {detail}")


@dataclass(frozen=True)
class Listing:
    """A market's setting; `usd` is cents per 100 whole tokens, rates are per cent a year, factors per cent."""

    symbol: str
    decimals: int
    usd: int
    collateral_factor: int
    base_rate: int = 2
    slope: int = 20
    reserve_factor: int = 10


@dataclass(frozen=True)
class CToken:
    """A listed market's addresses (`underlying` None for ether) and the code behind it."""

    address: str
    underlying: str | None
    code: Code
    listing: Listing


LISTINGS = (
    Listing("ETH", 18, 2_000_12_34, 75),
    Listing("USDC", 6, 1_00_00, 80),
    Listing("DAI", 18, 1_00_07, 75, base_rate=0, slope=5),
    Listing("WBTC", 8, 30_123_45_67, 65, slope=30, reserve_factor=20),
    Listing("BAT", 18, 25_37, 65, reserve_factor=0),
    Listing("ZRX", 18, 51_29, 65),
    # near the highest rate a cToken allows, so that a few blocks push a health factor over an edge
    Listing("REP", 18, 10_11_13, 40, base_rate=400, slope=300),
)
LATE_LISTING = Listing("LINK", 18, 7_13_17, 70)

#: which cToken code a market gets; a Comptroller of 2022 serves old cTokens too, as the mainnet one does
CODES: dict[Generation, dict[str, Code]] = {
    "half-up": {},
    "truncating": {
        "ETH": "immutable", "DAI": "delegator", "WBTC": "immutable", "ZRX": "delegator", "LINK": "delegator",
    },
}  # fmt: skip


@cache
def old_artifact(name: str) -> Artifact:
    """A contract of the OLD package; its oracle is a mock of its own with one settable price a cToken."""
    root = package(*OLD)
    if name == "CompoundPriceOracleMock":
        return hardhat_artifact(root / f"artifacts/contracts/mocks/external/{name}.sol/{name}.json")
    return hardhat_artifact(root / f"external/abi/compound/{name}.json")


@cache
def later_artifact(name: str) -> Artifact:
    """A contract of the LATER package."""
    return hardhat_artifact(package(*LATER) / f"dist/artifacts/contracts/compound/{name}.sol/{name}.json")


@cache
def counting_seconds(name: str) -> Artifact:
    """A contract of the LATER package whose `getBlockNumber` is the block's timestamp: NUMBER made TIMESTAMP."""
    found = later_artifact(name)
    code, place = bytearray.fromhex(found.bytecode), 0
    while place < len(code):
        if code[place] == 0x43:
            code[place] = 0x42
        pushed = code[place] - 0x5F  # PUSH1 to PUSH32 carry data
        place += 1 + (pushed if 0 < pushed <= 32 else 0)
    return replace(found, bytecode=code.hex())


class CompoundV2(Devnet):
    """One Compound V2 market behind a Unitroller; every action records who touched it and who had debt.

    `cast` names the accounts of special situations. `bystanders` show in the logs but never held a cToken or a debt (a
    refused borrower is left entered in a market, a borrow, mint or transfer of 0 emits its event): not among `users`.
    """

    protocol = "compound-v2"

    def __init__(
        self, node: Anvil, sender: Sender | None, name: str, generation: Generation, dead_price: str | None
    ) -> None:
        super().__init__(node, sender)
        self.name = name
        self.generation: Generation = generation
        #: the asset whose price `populate` sets to 0 at its end
        self.dead_price = dead_price
        self.markets: dict[str, CToken] = {}
        self.bystanders: set[str] = set()
        self.cast: dict[str, str] = {}
        #: what the scenario believes it supplied and borrowed; a hint for its next random action
        self.supplied: dict[str, frozenset[str]] = {}
        self.borrowed: dict[str, frozenset[str]] = {}
        self.rich: set[tuple[str, str]] = set()

    def touched(self, *accounts: str) -> None:
        super().touched(*accounts)
        self.bystanders.difference_update(accounts)

    def passed_by(self, user: str) -> None:
        """Write down an account that shows in a log and holds nothing, unless it held something before."""
        if user not in self.seen:
            self.bystanders.add(user)

    def populate(self, seed: int, users: int) -> None:
        compound_v2_scenario.populate(self, seed, users)

    def step(self, seed: int) -> None:
        compound_v2_scenario.step(self, seed)

    # Deployment and administration

    def deploy(self) -> None:
        """Deploy Unitroller, Comptroller and oracle, without markets."""
        self.start_block = self.node.block_number()
        if self.node.rpc("eth_getCode", MULTICALL3, "latest") == "0x":
            self.node.place_multicall3()
        self.comptroller = self.sender.deploy(old_artifact("Unitroller"))
        self.addresses = {"comptroller": self.comptroller}
        self.install_comptroller(self.generation)
        self.oracle = self.sender.deploy(old_artifact("CompoundPriceOracleMock"))
        self.act(self.comptroller, "_setPriceOracle(address)", [self.oracle])
        if self.generation == "half-up":
            self.act(self.comptroller, "_setMaxAssets(uint256)", [20])
        self.act(self.comptroller, "_setCloseFactor(uint256)", [CLOSE_FACTOR])
        self.act(self.comptroller, "_setLiquidationIncentive(uint256)", [LIQUIDATION_INCENTIVE])

    def install_comptroller(self, generation: Generation) -> None:
        """Put a Comptroller behind the Unitroller; also upgrades a running market, as mainnet's was."""
        old = generation == "half-up"
        implementation = self.sender.deploy(old_artifact("Comptroller") if old else later_artifact("Comptroller"))
        self.act(self.comptroller, "_setPendingImplementation(address)", [implementation])
        if old:
            args = [self.comptroller, 0, [], []]
            self.act(implementation, "_become(address,uint256,address[],address[])", args)
        else:
            self.act(implementation, "_become(address)", [self.comptroller])
        self.generation = generation

    def list_market(self, listing: Listing, code: Code = "old") -> None:
        """List a new market, with a new token behind it unless it is ether."""
        deploy, symbol = self.sender.deploy, f"c{listing.symbol}"
        rates = [listing.base_rate * WAD // 100, listing.slope * WAD // 100]
        if code == "old":
            model = deploy(old_artifact("WhitePaperInterestRateModel"), rates)
        elif code in ("immutable", "seconds"):
            model = deploy(later_artifact("WhitePaperInterestRateModel"), rates)
        else:
            args = [*rates, 3 * WAD, 8 * WAD // 10, self.sender.default]
            model = deploy(later_artifact("JumpRateModelV2"), args)
        initial = 2 * 10 ** (listing.decimals + 18 - 8 - 2)
        tail: list[Any] = [self.comptroller, model, initial, symbol, symbol, 8]
        admin = self.sender.default
        underlying = None
        if listing.symbol != "ETH":
            token = aave_v2.artifact("MintableERC20")
            underlying = deploy(token, [listing.symbol, listing.symbol, listing.decimals])
            tail = [underlying, *tail]
        if code == "old":
            address = deploy(old_artifact("CERc20" if underlying else "CEther"), tail)
        elif code == "immutable":
            address = deploy(later_artifact("CErc20Immutable" if underlying else "CEther"), [*tail, admin])
        elif code == "seconds":
            address = deploy(counting_seconds("CErc20Immutable"), [*tail, admin])
        else:
            delegate = deploy(later_artifact("CErc20Delegate"))
            address = deploy(later_artifact("CErc20Delegator"), [*tail, admin, delegate, b""])
        self.markets[listing.symbol] = CToken(address, underlying, code, listing)
        self.act(self.comptroller, "_supportMarket(address)", [address])
        self.set_price(listing.symbol, listing.usd * 10 ** (36 - listing.decimals - 4))
        self.set_collateral_factor(listing.symbol, listing.collateral_factor * WAD // 100)
        if listing.reserve_factor:
            self.act(address, "_setReserveFactor(uint256)", [listing.reserve_factor * WAD // 100])

    def set_collateral_factor(self, symbol: str, factor: int) -> None:
        """Change a collateral factor (1e18 = 1); a market without a price takes only 0."""
        args = [self.markets[symbol].address, factor]
        self.act(self.comptroller, "_setCollateralFactor(address,uint256)", args)

    def deprecate(self, symbol: str) -> None:
        """Collateral factor 0, borrowing paused, reserve factor 100 %: a later Comptroller's `isDeprecated`."""
        self.set_collateral_factor(symbol, 0)
        self.pause("Borrow", symbol)
        self.act(self.markets[symbol].address, "_setReserveFactor(uint256)", [WAD])

    def pause(self, action: Literal["Mint", "Borrow", "Seize", "Transfer"], symbol: str = "") -> None:
        """Pause minting or borrowing of one market, or seizing or transfers of all."""
        if action in ("Mint", "Borrow"):
            args = [self.markets[symbol].address, True]
            self.act(self.comptroller, f"_set{action}Paused(address,bool)", args)
        else:
            self.act(self.comptroller, f"_set{action}Paused(bool)", [True])

    def replace_oracle(self) -> None:
        """A new oracle with the same prices (NewPriceOracle)."""
        prices = {symbol: self.price(symbol) for symbol in self.markets}
        self.oracle = self.sender.deploy(old_artifact("CompoundPriceOracleMock"))
        for symbol, price in prices.items():
            self.set_price(symbol, price)
        self.act(self.comptroller, "_setPriceOracle(address)", [self.oracle])

    def price(self, symbol: str) -> int:
        """USD times 1e(36 - decimals)."""
        function = "getUnderlyingPrice(address)(uint256)"
        return int(self.sender.call(self.oracle, function, [self.markets[symbol].address]))

    def set_price(self, symbol: str, raw: int) -> None:
        """Set a price; 0 makes every account that entered the market unpriceable, with no event."""
        args = [self.markets[symbol].address, raw]
        self.sender.send(self.oracle, "setUnderlyingPrice(address,uint256)", args)

    # What users do; each raises `Reverted` or `Refused` when the market does not let them

    def act(
        self, to: str, function: str, args: Sequence[Any] = (), *, sender: str | None = None, value: int = 0
    ) -> None:
        """Send a transaction and look for the error it may have answered with."""
        receipt = self.sender.send(to, function, args, sender=sender, value=value)
        for log in receipt["logs"]:
            if log["topics"][0] == FAILURE:
                words = bytes.fromhex(log["data"][2:])
                raise Refused(function, *(int.from_bytes(words[i : i + 32], "big") for i in (0, 32, 64)))

    def tried(self, action: Callable[..., None], *args: Any, **options: Any) -> bool:
        """Whether the market let it happen."""
        try:
            action(*args, **options)
        except (Refused, Reverted):
            return False
        return True

    def amount(self, symbol: str, usd: int) -> int:
        """USD (1e18 = 1) to units of the underlying at today's price, at least one unit."""
        return max(1, usd * WAD // self.price(symbol))

    def give(self, user: str, symbol: str) -> None:
        """Make `user` rich in an underlying token and let the market take it, once; ether everyone has."""
        market = self.markets[symbol]
        if market.underlying is not None and (user, symbol) not in self.rich:
            self.rich.add((user, symbol))
            approval = calldata("approve(address,uint256)", [market.address, UINT_MAX])
            mint = calldata("mint(uint256)", [RICHES])
            self.sender.bulk([(user, market.underlying, mint), (user, market.underlying, approval)])

    def supply(self, user: str, symbol: str, amount: int, *, enter: bool = False) -> None:
        """Mint cTokens, and enter the market if asked to."""
        self.give(user, symbol)
        if self.markets[symbol].underlying is None:
            self.act(self.markets[symbol].address, "mint()", sender=user, value=amount)
        else:
            self.act(self.markets[symbol].address, "mint(uint256)", [amount], sender=user)
        if amount:
            self.touched(user)
            self.supplied[user] = self.supplied.get(user, frozenset()) | {symbol}
        else:
            self.passed_by(user)
        if enter:
            self.enter(user, symbol)

    def enter(self, user: str, *symbols: str) -> None:
        """Enter markets. An account that only does this is a bystander."""
        addresses = [self.markets[symbol].address for symbol in symbols]
        self.act(self.comptroller, "enterMarkets(address[])", [addresses], sender=user)
        self.passed_by(user)

    def leave(self, user: str, symbol: str) -> None:
        self.act(self.comptroller, "exitMarket(address)", [self.markets[symbol].address], sender=user)

    def redeem(self, user: str, symbol: str, c_tokens: int | None = None) -> None:
        """Give back cTokens, or all of them."""
        if c_tokens is None:
            c_tokens = self.c_tokens(user, symbol)
            self.act(self.markets[symbol].address, "redeem(uint256)", [c_tokens], sender=user)
            self.supplied[user] -= {symbol}
        else:
            self.act(self.markets[symbol].address, "redeem(uint256)", [c_tokens], sender=user)

    def borrow(self, user: str, symbol: str, amount: int) -> None:
        """Borrow. Even when it is refused the account is left entered in the market."""
        try:
            self.act(self.markets[symbol].address, "borrow(uint256)", [amount], sender=user)
        except Refused:
            self.passed_by(user)
            raise
        if amount:
            self.owes(user, symbol)
        else:
            self.passed_by(user)

    def owes(self, user: str, symbol: str) -> None:
        self.touched(user)
        self.borrowers.add(user)
        self.borrowed[user] = self.borrowed.get(user, frozenset()) | {symbol}

    def repay(self, user: str, symbol: str, amount: int = UINT_MAX, *, by: str | None = None) -> None:
        """Repay an amount, or all of it, with new tokens, by oneself or for another."""
        payer, market = by or user, self.markets[symbol]
        self.give(payer, symbol)
        if market.underlying is None:
            # more than the debt is refused, so it is asked for at the block the transaction will be in
            owed = self.debt_current(user, symbol) if amount == UINT_MAX else amount
            self.act(market.address, "repayBorrowBehalf(address)", [user], sender=payer, value=owed)
        else:
            self.act(market.address, "repayBorrowBehalf(address,uint256)", [user, amount], sender=payer)
        if amount == UINT_MAX:
            self.borrowed[user] -= {symbol}

    def transfer(self, user: str, symbol: str, to: str, c_tokens: int) -> None:
        """Send cTokens to another account."""
        self.act(self.markets[symbol].address, "transfer(address,uint256)", [to, c_tokens], sender=user)
        if c_tokens:
            self.touched(to)
            self.supplied[to] = self.supplied.get(to, frozenset()) | {symbol}
        else:
            self.passed_by(to)

    def accrue(self, symbol: str, *, by: str | None = None) -> None:
        """Anybody may bring a market's stored index up to date."""
        self.act(self.markets[symbol].address, "accrueInterest()", sender=by)

    def donate(self, symbol: str, amount: int) -> None:
        """Send underlying tokens straight to the cToken: its exchange rate moves and it logs nothing."""
        market = self.markets[symbol]
        assert market.underlying is not None, "ether sent to cETH is a mint"
        donor = account(f"{self.name} donor")
        self.give(donor, symbol)
        self.sender.send(market.underlying, "transfer(address,uint256)", [market.address, amount], sender=donor)

    def liquidate(self, user: str, *, liquidator: str | None = None, percent: int = 100) -> bool:
        """Repay as much as allowed (or some per cent of it) of the largest debt for the largest collateral; whether done.

        A liquidator holds cTokens afterwards, so it is a user.
        """
        liquidator = liquidator or account(f"{self.name} liquidator")
        owed = self.largest({symbol: self.debt(user, symbol) for symbol in self.markets})
        held = self.largest({symbol: self.underlying_of(user, symbol) for symbol in self.markets})
        debt, collateral = self.markets[owed], self.markets[held]
        deprecated = self.is_deprecated(owed)
        amount = self.debt(user, owed) * percent // 100
        amount = amount if deprecated else amount * CLOSE_FACTOR // WAD
        # seizing more than there is reverts: never try for more than 99 % of it
        worth = self.underlying_of(user, held) * self.price(held) // WAD * 99 // 100
        amount = min(amount, worth * WAD // LIQUIDATION_INCENTIVE * WAD // max(1, self.price(owed)))
        if amount == 0:
            return False
        self.give(liquidator, owed)
        try:
            if debt.underlying is None:
                args: list[Any] = [user, collateral.address]
                self.act(debt.address, "liquidateBorrow(address,address)", args, sender=liquidator, value=amount)
            else:
                args = [user, amount, collateral.address]
                self.act(debt.address, "liquidateBorrow(address,uint256,address)", args, sender=liquidator)
        except (Refused, Reverted):
            return False
        self.touched(liquidator)
        self.supplied[liquidator] = self.supplied.get(liquidator, frozenset()) | {held}
        return True

    def largest(self, amounts: Mapping[str, int]) -> str:
        """The asset of which an amount is worth most."""
        return max(amounts, key=lambda symbol: Fraction(amounts[symbol] * self.price(symbol)))

    # What the contracts say

    def answer(self, account: str, block: int | str = "latest") -> Any:
        """`getAccountLiquidity` at the stored indexes: error code, liquidity, shortfall (USD, 1e18 = 1)."""
        function = "getAccountLiquidity(address)(uint256,uint256,uint256)"
        return self.sender.call(self.comptroller, function, [account], block=block)

    def answers(self, accounts: Sequence[str], block: int | str = "latest") -> list[Any]:
        """`answer` of many accounts in one batch."""
        function = "getAccountLiquidity(address)(uint256,uint256,uint256)"
        return self.sender.calls([(self.comptroller, function, [a]) for a in accounts], block=block)

    def accrued_answer(self, account: str, block: int | str = "latest") -> Any:
        """`getAccountLiquidity` after every market accrued to that block, in one eth_call."""
        calls = [(market.address, True, calldata("accrueInterest()")) for market in self.markets.values()]
        calls.append((self.comptroller, False, calldata("getAccountLiquidity(address)", [account])))
        function = "aggregate3((address,bool,bytes)[])((bool,bytes)[])"
        answers = self.sender.call(
            MULTICALL3,
            function,
            [[(to, may_fail, bytes.fromhex(data[2:])) for to, may_fail, data in calls]],
            block=block,
        )
        words = answers[-1][1]
        return tuple(int.from_bytes(words[i : i + 32], "big") for i in (0, 32, 64))

    def snapshot(self, account: str, symbol: str, block: int | str = "latest") -> Any:
        """`getAccountSnapshot`: error code, cTokens, debt at the stored index, exchange rate."""
        function = "getAccountSnapshot(address)(uint256,uint256,uint256,uint256)"
        return self.sender.call(self.markets[symbol].address, function, [account], block=block)

    def c_tokens(self, account: str, symbol: str, block: int | str = "latest") -> int:
        return int(self.snapshot(account, symbol, block)[1])

    def debt(self, account: str, symbol: str, block: int | str = "latest") -> int:
        """Debt at the stored index."""
        return int(self.snapshot(account, symbol, block)[2])

    def debt_current(self, account: str, symbol: str) -> int:
        """Debt as the next transaction would find it."""
        function = "borrowBalanceCurrent(address)(uint256)"
        return int(self.sender.call(self.markets[symbol].address, function, [account], block="pending"))

    def underlying_of(self, account: str, symbol: str, block: int | str = "latest") -> int:
        """What an account's cTokens are worth at the stored exchange rate, in units of the underlying."""
        _, tokens, _, rate = self.snapshot(account, symbol, block)
        return int(tokens * rate // WAD)

    def entered(self, account: str, block: int | str = "latest") -> list[str]:
        """The symbols of the markets an account is in, in the Comptroller's order."""
        symbols = {market.address: symbol for symbol, market in self.markets.items()}
        assets = self.sender.call(self.comptroller, "getAssetsIn(address)(address[])", [account], block=block)
        return [symbols[asset.lower()] for asset in assets]

    def is_deprecated(self, symbol: str) -> bool:
        """Whether the Comptroller lets anybody liquidate this market's debts; older ones do not know the notion."""
        if self.generation == "half-up":
            return False
        args = [self.markets[symbol].address]
        return bool(self.sender.call(self.comptroller, "isDeprecated(address)(bool)", args))

    def stored_borrow(self, account: str, symbol: str, block: int | str = "latest") -> tuple[int, int]:
        """(principal, interestIndex) of `accountBorrows`, read from storage: no function tells them."""
        market = self.markets[symbol]
        _, mapping = BORROW_SLOTS[market.code]
        first = int.from_bytes(keccak(encode(["address", "uint256"], [account, mapping])), "big")
        tag = block_tag(block)
        words = self.node.batch([("eth_getStorageAt", [market.address, hex(first + i), tag]) for i in (0, 1)])
        return int(words[0], 16), int(words[1], 16)


def deploy(
    node: Anvil,
    *,
    sender: Sender | None = None,
    name: str = "compound-v2-devnet",
    generation: Generation = "truncating",
    dead_price: str | None = None,
) -> CompoundV2:
    """Deploy a Compound V2 market with the markets of `LISTINGS`.

    `generation` chooses the Comptroller; the "truncating" one has `isDeprecated` and serves cTokens of every code.
    """
    market = CompoundV2(node, sender, name, generation, dead_price)
    market.deploy()
    for listing in LISTINGS:
        market.list_market(listing, CODES[generation].get(listing.symbol, "old"))
    return market
