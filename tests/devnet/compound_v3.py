"""Compound V3 markets on the devnet: a stand-in for Comet (`comet_stand_in.sol`) with a seeded history.

No package carries the real contract, so this is our own implementation of its ABI, rounding, packing and events.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from tests.devnet.contracts import Artifact, compile_contracts
from tests.devnet.node import Anvil
from tests.devnet.scenario import Devnet
from tests.devnet.send import Reverted, Sender, Transaction, account, calldata

SOLC = "0.8.27"
SOURCE = Path(__file__).with_name("comet_stand_in.sol")
USER_BASIC = "userBasic(address)(int104,uint64,uint64,uint16,uint8)"
TOTALS_BASIC = "totalsBasic()((uint64,uint64,uint64,uint64,uint104,uint104,uint40,uint8))"
MAX = 2**256 - 1
YEAR = 31_536_000
DAY = 86_400
PERCENT = 10**16
FEED = 10**8
INDEX = 10**15
FACTOR = 10**18
DEAD = "DEAD"  # the collateral whose price feed dies at the end of the scenario


@dataclass
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


def usdc_assets() -> list[Asset]:
    return [
        Asset("COMP", 18, 50 * FEED, 50, 70, 75),
        Asset("WBTC", 8, 60_000 * FEED, 70, 77, 90),
        Asset("WETH", 18, 2_500 * FEED, 82, 89, 95),
        Asset("UNI", 18, 8 * FEED, 68, 74, 83),
        Asset("LINK", 18, 15 * FEED, 75, 81, 90),
        Asset(DEAD, 18, 3 * FEED, 60, 70, 80),
    ]


def weth_assets() -> list[Asset]:
    return [
        Asset("cbETH", 18, 107_000_000, 80, 88, 93),
        Asset("tBTC", 18, 24 * FEED, 76, 81, 90),
        Asset("wstETH", 18, 117_531_219, 82, 89, 95),
        Asset("WBTC", 8, 24 * FEED, 76, 81, 90),
        Asset("USDT", 6, 40_000, 75, 81, 90),
        Asset(DEAD, 18, 99_000_000, 60, 70, 80),
    ]


def more_assets(first: int, count: int) -> list[Asset]:
    """Assets for the 24-bit map: they fill the offsets from `first` on, with mixed decimals and odd prices."""
    return [
        Asset(f"A{i:02}", (18, 8, 6)[i % 3], 123_456_789 * (i + 1) // 7, 60 + i % 10, 72 + i % 10, 85)
        for i in range(first, first + count)
    ]


def contracts() -> dict[str, Artifact]:
    """The stand-ins, compiled once."""
    return compile_contracts(SOLC, {SOURCE.name: {"content": SOURCE.read_text()}})


class CompoundV3(Devnet):
    """One Comet behind an upgradeable proxy, with its tokens and settable feeds.

    `cast` names the account of each situation; `holders` is everyone who ever had collateral; `assets` is the
    configuration, which `upgrade` puts into force.
    """

    protocol = "compound-v3"

    def __init__(
        self, node: Anvil, sender: Sender | None = None, *, base: str = "USDC", extended: bool = False, name: str = ""
    ) -> None:
        super().__init__(node, sender)
        self.name = name or f"compound-v3-{base.lower()}{'-extended' if extended else ''}"
        self.base = base
        self.base_decimals = 6 if base == "USDC" else 18
        self.unit = 10**self.base_decimals
        self.extended = extended
        self.assets = usdc_assets() if base == "USDC" else weth_assets()
        if extended:
            self.assets += more_assets(len(self.assets), 20 - len(self.assets))
        self.cast: dict[str, str] = {}
        self.holders: set[str] = set()
        self.steps = 0
        self.approved: set[tuple[str, str]] = set()
        self.tokens: dict[str, str] = {}
        self.feeds: dict[str, str] = {}
        self.governor = account(f"{self.name} governor")
        self.proxy_admin = account(f"{self.name} proxy admin")
        self.code = contracts()
        self.install()

    # ---- deployment and configuration

    def install(self) -> None:
        base_price = FEED if self.base == "USDC" else 1 * FEED  # an ETH base is priced in ETH: always one
        self.list_token(self.base, self.base_decimals, base_price)
        for asset in self.assets:
            self.list_token(asset.symbol, asset.decimals, asset.price)
        # an ETH-priced market says nothing about dollars; this feed does
        self.eth_usd_feed = self.sender.deploy(self.code["PriceFeedStandIn"], ["ETH / USD", 2_500 * FEED])
        name, symbol = f"Compound {self.base}".encode().ljust(32, b"\0"), f"c{self.base}v3".encode().ljust(32, b"\0")
        limit = 24 if self.extended else 12
        self.extension = self.sender.deploy(self.code["CometExtStandIn"], [name, symbol, limit])
        initialise = bytes.fromhex(calldata("initializeStorage()")[2:])
        implementation = self.deploy_implementation()
        self.comet = self.sender.deploy(
            self.code["CometProxyStandIn"], [implementation, self.proxy_admin, initialise]
        )
        self.start_block = self.node.block_number()
        self.addresses = {"comet": self.comet}
        self.sender.know_errors(self.code["CometStandIn"].errors)

    def list_token(self, symbol: str, decimals: int, price: int) -> None:
        self.tokens[symbol] = self.sender.deploy(self.code["TokenStandIn"], [symbol, decimals])
        self.feeds[symbol] = self.sender.deploy(self.code["PriceFeedStandIn"], [f"{symbol} price", price])

    def deploy_implementation(self) -> str:
        configuration = (
            self.governor, account(f"{self.name} guardian"), self.tokens[self.base], self.feeds[self.base],
            self.extension,
            90 * PERCENT, 36 * PERCENT // 10, 320 * PERCENT, 0,
            90 * PERCENT, 28 * PERCENT // 10, 527 * PERCENT, 15 * PERCENT // 10,
            60 * PERCENT, 10**15, 289_351_851_851, 115_740_740_740,
            1_000 * self.unit, self.borrow_minimum, 5_000_000 * self.unit,
            [
                (
                    self.tokens[a.symbol], self.feeds[a.symbol], a.decimals, a.borrow_factor * PERCENT,
                    a.liquidate_factor * PERCENT, a.liquidation_factor * PERCENT, a.supply_cap * 10**a.decimals,
                )
                for a in self.assets
            ],
        )  # fmt: skip
        return self.sender.deploy(
            self.code["CometExtendedStandIn" if self.extended else "CometStandIn"], [configuration]
        )

    @property
    def borrow_minimum(self) -> int:
        return 100 * self.unit if self.base == "USDC" else self.unit // 10

    def upgrade(self) -> str:
        """Put the present `assets`, tokens and feeds into force through a new implementation; its address."""
        for asset in self.assets:
            if asset.symbol not in self.tokens:
                self.list_token(asset.symbol, asset.decimals, asset.price)
        implementation = self.deploy_implementation()
        self.sender.send(self.comet, "upgradeTo(address)", [implementation], sender=self.proxy_admin)
        return implementation

    # ---- prices

    def price(self, symbol: str) -> int:
        return int(self.sender.call(self.feeds[symbol], "answer()(int256)"))

    def set_price(self, symbol: str, raw: int) -> None:
        """Set a feed's answer (8 decimals); 0 or less kills it: asking for the price reverts with `BadPrice`."""
        self.sender.send(self.feeds[symbol], "set(int256)", [raw])

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

    def principals(self, accounts: Sequence[str], block: int | str = "latest") -> list[int]:
        """The stored, signed principals of many accounts."""
        return [row[0] for row in self.basics(accounts, block)]

    def basics(self, accounts: Sequence[str], block: int | str = "latest") -> list[tuple[int, int, int, int, int]]:
        return self.sender.calls([(self.comet, USER_BASIC, [a]) for a in accounts], block=block)

    def totals(self, block: int | str = "latest") -> tuple[int, ...]:
        """`totalsBasic`: supply and borrow index, tracking indexes, total supply and borrow principal, time, pauses."""
        return tuple(self.sender.call(self.comet, TOTALS_BASIC, block=block))

    # ---- actions

    def note(self, *accounts: str) -> None:
        """Write down what the contract now says of these accounts: who owes, who holds collateral."""
        self.touched(*accounts)
        for who, (principal, _, _, assets_in, reserved) in zip(accounts, self.basics(accounts), strict=True):
            if principal < 0:
                self.borrowers.add(who)
            if assets_in or reserved:
                self.holders.add(who)

    def act(self, who: str, function: str, args: Sequence[Any], *others: str, check: bool = True) -> bool:
        """One transaction of `who` that may change `who` and `others`; whether it succeeded."""
        receipt = self.sender.send(self.comet, function, args, sender=who, check=check)
        if receipt["status"] == "0x1":
            self.note(who, *others)
        return bool(receipt["status"] == "0x1")

    def hold(self, who: str, symbol: str, amount: int) -> None:
        """Give `who` tokens and let Comet take them."""
        self.sender.send(self.tokens[symbol], "mint(address,uint256)", [who, amount])
        if (who, symbol) not in self.approved:
            self.sender.send(self.tokens[symbol], "approve(address,uint256)", [self.comet, MAX], sender=who)
            self.approved.add((who, symbol))

    def supply(self, who: str, symbol: str, amount: int, to: str | None = None) -> None:
        """Supply base or collateral, for oneself or for `to`."""
        self.hold(who, symbol, amount)
        self.act(who, "supplyTo(address,address,uint256)", [to or who, self.tokens[symbol], amount], to or who)

    def withdraw(self, who: str, symbol: str, amount: int) -> None:
        """Withdraw collateral, or base: what is not there is borrowed."""
        self.act(who, "withdraw(address,uint256)", [self.tokens[symbol], amount])

    def transfer(self, source: str, target: str, amount: int) -> None:
        """Move base between accounts, borrowing if `source` has too little."""
        self.act(source, "transfer(address,uint256)", [target, amount], target)

    def worth(self, symbol: str, value: int) -> int:
        """The amount of a collateral asset worth `value` of base (smallest units), at the present prices."""
        scale = 10 ** next(a.decimals for a in self.assets if a.symbol == symbol)
        return value * self.price(self.base) * scale // (self.price(symbol) * self.unit)

    def open_debt(self, who: str, symbol: str, debt: int, use: float) -> None:
        """Supply so much collateral that `debt` takes the share `use` of what may be borrowed, and borrow it."""
        factor = next(a.borrow_factor for a in self.assets if a.symbol == symbol)
        self.supply(who, symbol, self.worth(symbol, int(debt * Fraction(100, factor) / Fraction(use))))
        self.withdraw(who, self.base, debt)

    def player(self, role: str) -> str:
        """The account that plays `role`."""
        return self.cast.setdefault(role, account(f"{self.name} {role}"))

    # ---- the scenario

    def populate(self, seed: int, users: int) -> None:
        """Play every situation once with an account of its own (`cast`), and fill up to `users` with a random crowd."""
        rng = random.Random(f"{self.name} {seed}")
        self.suppliers(rng, users)
        self.ordinary_lives(rng)
        self.silent_moves(rng)
        self.proxies_of_others()
        self.crowd(rng, users)
        self.node.elapse(rng.randrange(20, 60) * DAY)
        self.act(self.player("keeper"), "accrueAccount(address)", [self.cast["debtor"]], self.cast["debtor"])
        self.absorptions(rng)
        self.dust()
        self.dead_collateral()
        self.node.elapse(rng.randrange(1, 30) * DAY)
        self.act(self.player("keeper"), "accrueAccount(address)", [self.cast["supplier 0"]], self.cast["supplier 0"])
        self.edges()

    def suppliers(self, rng: random.Random, users: int) -> None:
        """Lenders; one of them got the base by a transfer and never supplied, one withdrew everything."""
        depth = (400_000 + users * 1_800) * self.debt_scale
        for i in range(3):
            self.supply(self.player(f"supplier {i}"), self.base, depth * rng.randrange(30, 40) // 100)
        self.transfer(self.cast["supplier 0"], self.player("gifted supplier"), 1_000 * self.debt_scale)
        self.supply(self.player("former supplier"), self.base, 500 * self.debt_scale)
        self.withdraw(self.cast["former supplier"], self.base, MAX)

    @property
    def debt_scale(self) -> int:
        """One unit of a typical debt: a dollar, or the hundredth of an ether."""
        return self.unit if self.base == "USDC" else self.unit // 100

    def ordinary_lives(self, rng: random.Random) -> None:
        """Collateral only, debt, debt out of supply, repaid, emptied, several collaterals, the last map bits."""
        symbols = [a.symbol for a in self.assets if a.symbol != DEAD]
        debt = rng.randrange(600, 900) * self.debt_scale
        self.supply(self.player("collateral only"), symbols[2], self.worth(symbols[2], debt))
        self.open_debt(self.player("debtor"), symbols[2], debt, 0.5)
        supplier = self.player("supplier turned debtor")
        self.supply(supplier, self.base, debt)
        self.supply(supplier, symbols[1], self.worth(symbols[1], 4 * debt))
        self.withdraw(supplier, self.base, 2 * debt)
        for role in ("repaid", "emptied"):
            who = self.player(role)
            self.open_debt(who, symbols[3], debt, 0.6)
            self.hold(who, self.base, 2 * debt)
            self.act(who, "supply(address,uint256)", [self.tokens[self.base], MAX])
        held = self.sender.call(
            self.comet,
            "collateralBalanceOf(address,address)(uint128)",
            [self.cast["emptied"], self.tokens[symbols[3]]],
        )
        self.withdraw(self.cast["emptied"], symbols[3], held)
        many = self.player("many collaterals")
        for symbol in symbols:
            self.supply(many, symbol, self.worth(symbol, debt // 4))
        self.withdraw(many, self.base, debt // 2)
        self.open_debt(self.player("last asset"), symbols[-1], debt, 0.7)
        self.supply(self.cast["debtor"], symbols[4], self.worth(symbols[4], 3 * debt))
        self.act(
            self.cast["debtor"], "transferAsset(address,address,uint256)",
            [self.player("gifted collateral"), self.tokens[symbols[4]], self.worth(symbols[4], debt)],
            self.cast["gifted collateral"],
        )  # fmt: skip

    def silent_moves(self, rng: random.Random) -> None:
        """Debt that moves without a log naming the debtor: PROTOCOLS section 4, trap (a)."""
        symbol = self.assets[2].symbol
        debt = rng.randrange(1_000, 2_000) * self.debt_scale
        part = debt // 4
        for role in ("silent sender", "silent receiver", "debtor paying supplier", "debtor paid by supplier"):
            self.open_debt(self.player(role), symbol, debt, 0.4)
        self.supply(self.player("silent newcomer"), symbol, self.worth(symbol, 3 * debt))
        self.transfer(self.cast["silent sender"], self.cast["silent receiver"], part)
        self.transfer(self.cast["silent newcomer"], self.cast["silent receiver"], part)
        self.transfer(self.cast["debtor paying supplier"], self.cast["supplier 1"], part)
        self.transfer(self.cast["supplier 1"], self.cast["debtor paid by supplier"], part)

    def proxies_of_others(self) -> None:
        """A manager acts for a debtor, and a stranger supplies for one."""
        owner, manager = self.player("managed"), self.player("manager")
        debt = 800 * self.debt_scale
        self.open_debt(owner, self.assets[1].symbol, debt, 0.3)
        self.act(owner, "allow(address,bool)", [manager, True])
        self.act(
            manager, "withdrawFrom(address,address,address,uint256)", [owner, manager, self.tokens[self.base], debt], owner
        )
        self.supply(self.player("stranger"), self.base, debt // 3, to=owner)

    def crowd(self, rng: random.Random, users: int) -> None:
        """Fill up to `users` accounts in a few big blocks: suppliers, holders of collateral, debtors of all healths."""
        symbols = [a for a in self.assets if a.symbol not in (DEAD, self.assets[0].symbol)]
        prices = {a.symbol: self.price(a.symbol) for a in symbols}
        base_price = self.price(self.base)
        people = [account(f"user {i}") for i in range(max(0, users - len(self.users) - 9))]  # 9 more players follow
        give: list[Transaction] = []
        use: list[Transaction] = []
        for who in people:
            kind = rng.random()
            if kind < 0.15:
                give += self.hold_transactions(who, self.base, amount := rng.randrange(1, 5_000 * self.debt_scale))
                use.append(self.market_transaction(who, "supply(address,uint256)", self.tokens[self.base], amount))
                continue
            debt = rng.randrange(self.borrow_minimum, 2_500 * self.debt_scale)
            limit = 0
            for asset in rng.sample(symbols, rng.choice((1, 1, 2))):
                value = rng.randrange(debt, 3 * debt)
                amount = value * base_price * 10**asset.decimals // (prices[asset.symbol] * self.unit)
                give += self.hold_transactions(who, asset.symbol, amount)
                use.append(
                    self.market_transaction(who, "supply(address,uint256)", self.tokens[asset.symbol], amount)
                )
                limit += value * asset.borrow_factor // 100
            if kind > 0.25:
                amount = min(debt, int(limit * rng.uniform(0.3, 0.999)))
                use.append(self.market_transaction(who, "withdraw(address,uint256)", self.tokens[self.base], amount))
        self.sender.bulk(give)
        self.sender.bulk(use)
        self.note_all(people)

    def note_all(self, people: Sequence[str]) -> None:
        for start in range(0, len(people), 500):
            self.note(*people[start : start + 500])

    def hold_transactions(self, who: str, symbol: str, amount: int) -> list[Transaction]:
        self.approved.add((who, symbol))
        token = self.tokens[symbol]
        return [
            Transaction(who, token, calldata("mint(address,uint256)", [who, amount])),
            Transaction(who, token, calldata("approve(address,uint256)", [self.comet, MAX])),
        ]

    def market_transaction(self, who: str, function: str, *args: Any) -> Transaction:
        return Transaction(who, self.comet, calldata(function, args))

    def absorptions(self, rng: random.Random) -> None:
        """One account absorbed with something left for it, one with a loss for the reserves; collateral sold on."""
        symbol = self.assets[0].symbol
        price = self.price(symbol)
        lucky, ruined, liquidator = self.player("absorbed"), self.player("absorbed at a loss"), self.player("liquidator")
        debt = rng.randrange(1_000, 3_000) * self.debt_scale
        self.open_debt(lucky, symbol, debt, 0.99)
        self.open_debt(ruined, symbol, debt, 0.99)
        self.set_price(symbol, price * 70 // 100)
        self.act(liquidator, "absorb(address,address[])", [liquidator, [lucky]], lucky)
        self.set_price(symbol, price * 30 // 100)
        self.act(liquidator, "absorb(address,address[])", [liquidator, [ruined]], ruined)
        self.hold(liquidator, self.base, debt // 8)
        self.act(
            liquidator, "buyCollateral(address,uint256,uint256,address)", [self.tokens[symbol], 0, debt // 8, liquidator]
        )
        self.set_price(symbol, price)

    def dust(self) -> None:
        """A debt of a few smallest units; with 18 decimals its value is 0 although the principal is negative."""
        who = self.player("dust debtor")
        left = 1 if self.base == "USDC" else 5 * 10**9
        self.open_debt(who, self.assets[2].symbol, 2 * self.borrow_minimum, 0.5)
        self.hold(who, self.base, 3 * self.borrow_minimum)
        self.act(who, "accrueAccount(address)", [who])
        debt = self.answer(who).borrow_balance
        self.node.set_next_timestamp(self.node.timestamp())  # no second more, so that exactly `left` stays
        self.act(who, "supply(address,uint256)", [self.tokens[self.base], debt - left])

    def dead_collateral(self) -> None:
        """A feed dies: one debtor depends on it, one is covered before the loop reaches it, one holds it without debt."""
        debt = 3 * self.borrow_minimum
        self.open_debt(self.player("on dead collateral"), DEAD, debt, 0.6)
        covered = self.player("covered before dead collateral")
        self.open_debt(covered, self.assets[1].symbol, debt, 0.4)
        self.supply(covered, DEAD, self.worth(DEAD, debt))
        self.supply(self.player("dead collateral only"), DEAD, self.worth(DEAD, debt))
        self.set_price(DEAD, 0)

    def edges(self) -> None:
        """Prices fall; one debtor then holds the least collateral that still covers the stored debt, one a unit less.

        Nothing here accrues interest afterwards, so the second that passes decides only once somebody does.
        """
        asset = self.assets[4]
        above, below = self.player("just above"), self.player("just below")
        for who in (above, below):
            self.open_debt(who, asset.symbol, 7 * self.borrow_minimum + 12_345, 0.98)
        self.move_price(asset.symbol, 0.7)
        self.move_price(self.assets[2].symbol, 0.85)
        self.move_price(self.assets[1].symbol, 0.9)
        for who, missing in ((above, 0), (below, 1)):
            self.top_up(who, asset, missing)

    def top_up(self, who: str, asset: Asset, missing: int) -> None:
        """Bring `who`'s only collateral to the least amount that covers its debt, less `missing` smallest units."""
        debt = -self.principals([who])[0] * self.totals()[1] // INDEX
        value = debt * self.price(self.base) // self.unit
        weighted = -(-value * FACTOR // (asset.liquidate_factor * PERCENT))
        least = -(-weighted * 10**asset.decimals // self.price(asset.symbol))
        held = self.sender.call(
            self.comet, "collateralBalanceOf(address,address)(uint128)", [who, self.tokens[asset.symbol]]
        )
        self.supply(who, asset.symbol, least - missing - held)

    # ---- later activity

    def step(self, seed: int) -> None:
        """A few dozen random actions of some accounts and newcomers, prices and time moving; all others do nothing."""
        self.steps += 1
        rng = random.Random(f"{self.name} step {seed} {self.steps}")
        self.node.elapse(rng.randrange(3_600, 20 * DAY))
        for asset in rng.sample([a for a in self.assets if a.symbol != DEAD], 2):
            self.move_price(asset.symbol, rng.uniform(0.85, 1.12))
        newcomers = [account(f"newcomer {seed} {self.steps} {i}") for i in range(2)]
        debt = rng.randrange(self.borrow_minimum * 2, 1_000 * self.debt_scale)
        for who in newcomers:
            self.open_debt(who, rng.choice(self.assets[1:5]).symbol, debt, rng.uniform(0.4, 0.99))
        active = rng.sample(self.users, min(len(self.users) // 4, 40))
        for who in active:
            self.act_at_random(rng, who, newcomers)
        self.absorb_some(rng, active)

    def act_at_random(self, rng: random.Random, who: str, others: Sequence[str]) -> None:
        """One thing `who` may or may not be allowed to do."""
        amount = rng.randrange(1, 600 * self.debt_scale)
        asset = rng.choice(self.assets[:5])
        match rng.choice(("supply", "withdraw", "withdraw", "transfer", "collateral", "take back", "repay", "accrue")):
            case "supply":
                self.supply(who, self.base, amount)
            case "withdraw":
                self.act(who, "withdraw(address,uint256)", [self.tokens[self.base], amount], check=False)
            case "transfer":
                other = rng.choice([o for o in (*others, *self.users[:20]) if o != who])
                self.act(who, "transfer(address,uint256)", [other, amount], other, check=False)
            case "collateral":
                self.supply(who, asset.symbol, self.worth(asset.symbol, amount))
            case "take back":
                taken = self.worth(asset.symbol, amount)
                self.act(who, "withdraw(address,uint256)", [self.tokens[asset.symbol], taken], check=False)
            case "repay":
                self.hold(who, self.base, 2 * self.answer(who).borrow_balance)
                self.act(who, "supply(address,uint256)", [self.tokens[self.base], MAX])
            case "accrue":
                self.act(self.player("keeper"), "accrueAccount(address)", [who], who)

    def absorb_some(self, rng: random.Random, candidates: Iterable[str]) -> None:
        liquidator = self.player("liquidator")
        for who in [c for c in candidates if self.answer(c).liquidatable][: rng.randrange(1, 4)]:
            self.act(liquidator, "absorb(address,address[])", [liquidator, [who]], who, check=False)


def deploy(
    node: Anvil, sender: Sender | None = None, *, base: str = "USDC", extended: bool = False, name: str = ""
) -> CompoundV3:
    """A Comet stand-in with a USDC base (6 decimals) or an ETH-priced WETH base; `extended`: 20 assets, 24-bit map."""
    return CompoundV3(node, sender, base=base, extended=extended, name=name)
