"""Compound V3 markets on the devnet: a stand-in for Comet (`comet_stand_in.sol`) with a seeded history.

No package carries the real contract, so this is our own implementation of its ABI, rounding, packing and events.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from tests.devnet import compound_v3_scenario as scenario
from tests.devnet.contracts import Artifact, compile_contracts
from tests.devnet.node import Anvil
from tests.devnet.packages import package
from tests.devnet.scenario import Devnet
from tests.devnet.send import Reverted, Sender, Transaction, account, calldata

SOLC = "0.8.27"
SOURCES = ("common.sol", "comet_stand_in.sol")
USER_BASIC = "userBasic(address)(int104,uint64,uint64,uint16,uint8)"
TOTALS_BASIC = "totalsBasic()((uint64,uint64,uint64,uint64,uint104,uint104,uint40,uint8))"
COLLATERAL = "collateralBalanceOf(address,address)(uint128)"
ALL = 2**256 - 1  # "everything" as an amount
PERCENT = 10**16
FEED = 10**8
INDEX = 10**15
FACTOR = 10**18
DEAD = "DEAD"  # the collateral whose price feed dies in the scenario


@dataclass(frozen=True)
class Asset:
    """One collateral asset of the configuration; factors in percent, the price in the feed's 8 decimals."""

    symbol: str
    decimals: int
    price: int
    borrow_factor: int
    liquidate_factor: int
    liquidation_factor: int
    supply_cap: int = 10**10  # whole units


class Answer(NamedTuple):
    """What Comet says of one account; `liquidatable` is None where the question reverts (a dead feed)."""

    liquidatable: bool | None
    borrow_balance: int
    balance: int


USDC_ASSETS = (
    Asset("COMP", 18, 50 * FEED, 50, 70, 75),
    Asset("WBTC", 8, 60_000 * FEED, 70, 77, 90),
    Asset("WETH", 18, 2_500 * FEED, 82, 89, 95),
    Asset("UNI", 18, 8 * FEED, 68, 74, 83),
    Asset("LINK", 18, 15 * FEED, 75, 81, 90),
    Asset(DEAD, 18, 3 * FEED, 60, 70, 80),
)
WETH_ASSETS = (
    Asset("cbETH", 18, 107_000_000, 80, 88, 93),
    Asset("tBTC", 18, 24 * FEED, 76, 81, 90),
    Asset("wstETH", 18, 117_531_219, 82, 89, 95),
    Asset("WBTC", 8, 24 * FEED, 76, 81, 90),
    Asset("USDT", 6, 40_000, 75, 81, 90),
    Asset(DEAD, 18, 99_000_000, 60, 70, 80),
)
#: assets for the 24-bit map: they fill the offsets 6 to 19, with mixed decimals and odd prices
MORE_ASSETS = tuple(
    Asset(f"A{i:02}", (18, 8, 6)[i % 3], 123_456_789 * (i + 1) // 7, 60 + i % 10, 72 + i % 10, 85) for i in range(6, 20)
)


def contracts() -> dict[str, Artifact]:
    """The stand-ins, compiled once."""
    folder = Path(__file__).parent
    return compile_contracts(SOLC, {name: {"content": (folder / name).read_text()} for name in SOURCES})


def real_abi() -> list[dict[str, Any]]:
    """The real Comet's ABI from npm."""
    constants = package("@compound-finance/compound-js", "0.6.2") / "dist" / "nodejs" / "constants.js"
    script = "process.stdout.write(JSON.stringify(require(process.argv[1]).abi.Comet))"
    done = subprocess.run(["node", "-e", script, str(constants)], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


class CompoundV3(Devnet):
    """One Comet behind an upgradeable proxy, with its tokens and settable feeds.

    `roles` names the account of each situation; `holders` is everyone who ever had collateral; `assets` is the
    configuration: replace entries of it and `upgrade` puts it into force. Who owes and who holds is read from the contract after
    each action, so both are a ground truth.
    """

    protocol = "compound-v3"

    def __init__(self, node: Anvil, sender: Sender | None, *, base: str, extended: bool, name: str) -> None:
        super().__init__(node, sender)
        self.name = name or f"compound-v3-{base.lower()}{'-extended' if extended else ''}"
        self.base = base
        self.unit = 10**6 if base == "USDC" else 10**18
        self.extended = extended
        #: whether the next upgrade brings the variant that skips what has a factor of 0
        self.patched = False
        self.assets = list((USDC_ASSETS if base == "USDC" else WETH_ASSETS) + MORE_ASSETS * extended)
        self.roles: dict[str, str] = {}
        self.holders: set[str] = set()
        self.steps = 0
        self.tokens: dict[str, str] = {}
        self.feeds: dict[str, str] = {}
        self.governor = account(f"{self.name} governor")
        self.guardian = account(f"{self.name} guardian")
        self.proxy_admin = account(f"{self.name} proxy admin")
        self.borrow_minimum = 100 * self.unit if base == "USDC" else self.unit // 10
        #: one unit of a typical debt: a dollar, or the hundredth of an ether
        self.small = self.unit if base == "USDC" else self.unit // 100
        self.code = contracts()
        self.deploy()

    # ---- deployment and configuration

    def deploy(self) -> None:
        """Deploy tokens, feeds, extension, implementation and proxy."""
        # an ETH base is priced in ETH, so its feed says one like a dollar's does
        self.list_token(self.base, 6 if self.base == "USDC" else 18, FEED)
        for asset in self.assets:
            self.list_token(asset.symbol, asset.decimals, asset.price)
        # a market priced in ETH says nothing about dollars; this feed does
        self.eth_usd_feed = self.sender.deploy(self.code["Feed"], [8, 2_500 * FEED])
        name, symbol = (text.encode().ljust(32, b"\0") for text in (f"Compound {self.base}", f"c{self.base}v3"))
        self.extension = self.sender.deploy(self.code["CometExtStandIn"], [name, symbol, 24 if self.extended else 12])
        initialise = bytes.fromhex(calldata("initializeStorage()")[2:])
        implementation = self.deploy_implementation()
        self.comet = self.sender.deploy(self.code["CometProxyStandIn"], [implementation, self.proxy_admin, initialise])
        self.start_block = self.node.block_number()
        self.addresses = {"comet": self.comet}

    def list_token(self, symbol: str, decimals: int, price: int) -> None:
        self.tokens[symbol] = self.sender.deploy(self.code["Token"], [symbol, symbol, decimals])
        self.feeds[symbol] = self.sender.deploy(self.code["Feed"], [8, price])

    def deploy_implementation(self) -> str:
        configuration = (
            self.governor, self.guardian, self.tokens[self.base], self.feeds[self.base], self.extension,
            90 * PERCENT, 36 * PERCENT // 10, 320 * PERCENT, 0,  # supply: kink, low slope, high slope, base
            90 * PERCENT, 28 * PERCENT // 10, 527 * PERCENT, 15 * PERCENT // 10,  # borrow
            60 * PERCENT, 10**15, 289_351_851_851, 115_740_740_740,  # store front, tracking scale and speeds
            1_000 * self.unit, self.borrow_minimum, 5_000_000 * self.unit,
            [
                (
                    self.tokens[a.symbol], self.feeds[a.symbol], a.decimals, a.borrow_factor * PERCENT,
                    a.liquidate_factor * PERCENT, a.liquidation_factor * PERCENT, a.supply_cap * 10**a.decimals,
                )
                for a in self.assets
            ],
        )  # fmt: skip
        name = "CometPatchedStandIn" if self.patched else "CometExtendedStandIn" if self.extended else "CometStandIn"
        return self.sender.deploy(self.code[name], [configuration])

    def upgrade(self) -> str:
        """Put the present `assets` (new ones included) and feeds into force by a new implementation; its address."""
        for asset in self.assets:
            if asset.symbol not in self.tokens:
                self.list_token(asset.symbol, asset.decimals, asset.price)
        implementation = self.deploy_implementation()
        self.sender.send(self.comet, "upgradeTo(address)", [implementation], sender=self.proxy_admin)
        return implementation

    def pause(self, *, supply: bool = False, transfer: bool = False, withdraw: bool = False, absorb: bool = False,
              buy: bool = False) -> None:  # fmt: skip
        """Pause these actions and no others."""
        self.sender.send(
            self.comet,
            "pause(bool,bool,bool,bool,bool)",
            [supply, transfer, withdraw, absorb, buy],
            sender=self.guardian,
        )

    # ---- prices

    def price(self, symbol: str) -> int:
        return int(self.sender.call(self.feeds[symbol], "latestAnswer()(int256)"))

    def set_price(self, symbol: str, raw: int) -> None:
        """Set a feed's answer (8 decimals); 0 or less kills it: asking for the price then reverts with `BadPrice`."""
        self.sender.send(self.feeds[symbol], "set(int256)", [raw])

    def asset(self, symbol: str) -> Asset:
        return next(a for a in self.assets if a.symbol == symbol)

    def worth(self, symbol: str, value: int) -> int:
        """The amount of a collateral asset worth `value` of base (smallest units), at the present prices."""
        scale: int = 10 ** self.asset(symbol).decimals
        return value * self.price(self.base) * scale // (self.price(symbol) * self.unit)

    # ---- answers

    def answer(self, account: str, block: int | str = "latest") -> Answer:
        try:
            liquidatable = self.sender.call(self.comet, "isLiquidatable(address)(bool)", [account], block=block)
        except Reverted:
            liquidatable = None
        debt, balance = self.sender.calls(
            [
                (self.comet, "borrowBalanceOf(address)(uint256)", [account]),
                (self.comet, "balanceOf(address)(uint256)", [account]),
            ],
            block=block,
        )
        return Answer(liquidatable, debt, balance)

    def principal(self, account: str, block: int | str = "latest") -> int:
        """The stored, signed principal: below 0 is debt."""
        return int(self.sender.call(self.comet, USER_BASIC, [account], block=block)[0])

    def basics(self, accounts: Sequence[str], block: int | str = "latest") -> list[tuple[int, int, int, int, int]]:
        """`userBasic` of many accounts: principal, tracking index, accrued rewards, assetsIn, _reserved."""
        return self.sender.calls([(self.comet, USER_BASIC, [a]) for a in accounts], block=block)

    def totals(self, block: int | str = "latest") -> tuple[int, ...]:
        """`totalsBasic`: supply and borrow index, tracking indexes, total supply and borrow principal, time, pauses."""
        return tuple(self.sender.call(self.comet, TOTALS_BASIC, block=block))

    def collateral(self, account: str, symbol: str, block: int | str = "latest") -> int:
        return int(self.sender.call(self.comet, COLLATERAL, [account, self.tokens[symbol]], block=block))

    # ---- actions

    def note(self, *accounts: str) -> None:
        """Write down what the contract now says of these accounts: who owes, who holds collateral."""
        self.touched(*accounts)
        for who, (principal, _, _, assets_in, reserved) in zip(accounts, self.basics(accounts), strict=True):
            if principal < 0:
                self.borrowers.add(who)
            if assets_in or reserved:
                self.holders.add(who)

    def act(self, who: str, function: str, args: Sequence[Any], *others: str, check: bool = True) -> dict[str, Any]:
        """One transaction of `who` that may change `who` and `others`; its receipt."""
        receipt = self.sender.send(self.comet, function, args, sender=who, check=check)
        if receipt["status"] == "0x1":
            self.note(who, *others)
        return receipt

    def supply(self, who: str, symbol: str, amount: int, to: str | None = None) -> dict[str, Any]:
        """Supply base or collateral, for oneself or for `to`."""
        to = to or who
        return self.act(who, "supplyTo(address,address,uint256)", [to, self.tokens[symbol], amount], to)

    def withdraw(self, who: str, symbol: str, amount: int, check: bool = True) -> dict[str, Any]:
        """Withdraw collateral, or base: what is not there is borrowed."""
        return self.act(who, "withdraw(address,uint256)", [self.tokens[symbol], amount], check=check)

    def transfer(self, source: str, target: str, amount: int, check: bool = True) -> dict[str, Any]:
        """Move base between accounts, borrowing if `source` has too little."""
        return self.act(source, "transfer(address,uint256)", [target, amount], target, check=check)

    def transfer_collateral(self, source: str, target: str, symbol: str, amount: int) -> dict[str, Any]:
        function = "transferAsset(address,address,uint256)"
        return self.act(source, function, [target, self.tokens[symbol], amount], target)

    def accrue(self, keeper: str, who: str) -> dict[str, Any]:
        """Store the accrued indexes; nothing is logged."""
        return self.act(keeper, "accrueAccount(address)", [who], who)

    def absorb(self, liquidator: str, who: str, check: bool = True) -> dict[str, Any]:
        return self.act(liquidator, "absorb(address,address[])", [liquidator, [who]], who, check=check)

    def open_debt(self, who: str, symbol: str, debt: int, use: float) -> None:
        """Supply so much collateral that `debt` takes the share `use` of what may be borrowed, and borrow it."""
        allowed = Fraction(self.asset(symbol).borrow_factor, 100) * Fraction(round(use * 1_000), 1_000)
        self.supply(who, symbol, self.worth(symbol, int(debt / allowed) + 1) + 1)
        self.withdraw(who, self.base, debt)

    def market_transaction(self, who: str, function: str, *args: Any) -> Transaction:
        """A transaction for `Sender.bulk`; `note` its accounts afterwards."""
        return Transaction(who, self.comet, calldata(function, args))

    # ---- the scenario

    def populate(self, seed: int, users: int) -> None:
        """Play every situation once (`roles`) and fill up to `users` accounts with a random crowd."""
        scenario.populate(self, seed, users)

    def step(self, seed: int) -> None:
        """A few dozen random actions of some accounts and newcomers; prices and time move, all others do nothing."""
        self.steps += 1
        scenario.step(self, seed)


def deploy(
    node: Anvil, sender: Sender | None = None, *, base: str = "USDC", extended: bool = False, name: str = ""
) -> CompoundV3:
    """A Comet stand-in with a USDC base (6 decimals) or an ETH-priced WETH base; `extended`: 20 assets, 24-bit map."""
    return CompoundV3(node, sender, base=base, extended=extended, name=name)
