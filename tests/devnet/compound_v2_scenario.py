"""What happens on the Compound V2 devnet: every situation the protocol knows, once on purpose and then at random."""

from __future__ import annotations

from fractions import Fraction
from random import Random
from typing import TYPE_CHECKING

from tests.devnet.send import Transaction, account, calldata

if TYPE_CHECKING:
    from tests.devnet.compound_v2 import CompoundV2

USD = WAD = 10**18
BLOCK_TIME = 13
#: users beyond the cast who act one by one; the others come in bulk
DETAILED = 120
#: users that appear after the random ones: the receiver, the liquidator, four near the edge
LATE_USERS = 6
WHALE_USD = 500_000_000 * USD


def populate(market: CompoundV2, seed: int, users: int) -> None:
    """The whole history: the cast, random users, a mass of simple ones, a crash, and what follows it."""
    from tests.devnet.compound_v2 import LATE_LISTING

    rng = Random(f"{market.name} {seed}")
    role = Cast(market, seed)
    whale = role("whale")
    for symbol in market.markets:
        market.supply(whale, symbol, market.amount(symbol, WHALE_USD))
    open_cast(market, role)
    wanted = max(users - len(market.users) - LATE_USERS, 0)
    detailed = min(wanted, DETAILED)
    for number in range(detailed):
        open_position(market, rng, account(f"{market.name} {seed} user {number}"))
    market.node.mine(10, BLOCK_TIME)
    change_cast(market, role)
    market.list_market(LATE_LISTING, "delegator" if market.generation == "truncating" else "old")
    market.supply(whale, LATE_LISTING.symbol, market.amount(LATE_LISTING.symbol, WHALE_USD))
    act_at_random(market, rng, detailed // 2)
    # the node keeps every block's whole state, so blocks are dear from here on
    mass(market, rng, [account(f"{market.name} {seed} mass {number}") for number in range(wanted - detailed)])
    for symbol in ("ETH", "DAI", "ZRX"):
        move_randomly(market, rng, symbol, 3)
    market.donate("USDC", market.amount("USDC", 250_000 * USD))
    market.set_collateral_factor("ETH", 82 * WAD // 100)
    market.node.mine(5, BLOCK_TIME)
    market.move_price("WBTC", Fraction(65, 100))
    after_the_crash(market, role)
    market.deprecate("BAT")
    if market.is_deprecated("BAT") and not market.liquidate(
        role("deprecated-and-liquidated"), liquidator=role("liquidator")
    ):
        raise RuntimeError("a healthy debtor of a deprecated market was not liquidated")
    near_one(market, role)
    market.node.mine(10, BLOCK_TIME)
    market.accrue("WBTC", by=role("accruer"))
    tell_generations_apart(market, role)
    if market.dead_price:
        market.set_price(market.dead_price, 0)


def step(market: CompoundV2, seed: int) -> None:
    """Up to 20 users do something, two newcomers appear, markets accrue, prices move; everyone else does nothing."""
    rng = Random(f"{market.name} step {seed}")
    for number in range(2):
        open_position(market, rng, account(f"{market.name} {seed} newcomer {number}"))
    act_at_random(market, rng, min(20, 2 + len(market.users) // 10))
    for symbol in rng.sample(["USDC", "DAI", "ZRX", "LINK"], 2):
        market.accrue(symbol, by=account(f"{market.name} accruer"))
    market.donate("DAI", market.amount("DAI", rng.randint(1, 10_000) * USD))
    for symbol in rng.sample(["ETH", "WBTC", "DAI", "ZRX", "LINK", "BAT"], 3):
        move_randomly(market, rng, symbol, 8)
    market.node.mine(rng.randint(2, 12), BLOCK_TIME)
    liquidate_some(market, rng, 3)


class Cast:
    """Names the accounts of special situations."""

    def __init__(self, market: CompoundV2, seed: int) -> None:
        self.market = market
        self.seed = seed

    def __call__(self, name: str) -> str:
        return self.market.cast.setdefault(name, account(f"{self.market.name} {self.seed} {name}"))


def open_cast(market: CompoundV2, role: Cast) -> None:
    """Open every special position."""

    def supply(name: str, symbol: str, usd: int, *, enter: bool = True) -> None:
        market.supply(role(name), symbol, market.amount(symbol, usd * USD), enter=enter)

    def borrow(name: str, symbol: str, usd: int) -> None:
        market.borrow(role(name), symbol, market.amount(symbol, usd * USD))

    supply("supplier", "USDC", 40_000, enter=False)
    supply("supplier", "ETH", 10_000, enter=False)
    supply("entered-supplier", "ETH", 10_000)
    for name, collateral, debt in (
        ("borrower", "ETH", "USDC"),
        ("ether-borrower", "DAI", "ETH"),
        ("repaid", "ETH", "DAI"),
        ("repaid-ether", "USDC", "ETH"),
        ("repaid-by-another", "ETH", "WBTC"),
        ("partly-repaid", "DAI", "BAT"),
        ("gone", "USDC", "ZRX"),
        ("same-asset", "DAI", "DAI"),
        ("deprecated-debtor", "ETH", "BAT"),
        ("deprecated-and-liquidated", "ETH", "BAT"),
        ("zrx-debtor", "ETH", "ZRX"),
        ("zrx-collateral", "ZRX", "DAI"),
        ("worthless-collateral", "BAT", "DAI"),
    ):
        supply(name, collateral, 20_000)
        borrow(name, debt, 6_000)
    supply("many-markets", "WBTC", 30_000)
    supply("many-markets", "DAI", 20_000)
    supply("many-markets", "USDC", 5_000, enter=False)
    borrow("many-markets", "BAT", 4_000)
    borrow("many-markets", "ETH", 9_000)
    supply("unentered-collateral", "USDC", 20_000)
    supply("unentered-collateral", "WBTC", 90_000, enter=False)
    borrow("unentered-collateral", "DAI", 5_000)
    market.enter(role("unentered-collateral"), "ZRX")
    supply("sender", "USDC", 8_000, enter=False)
    supply("left", "WBTC", 8_000)
    supply("dust-debtor", "ETH", 1_000)
    market.borrow(role("dust-debtor"), "BAT", 1)
    for name, debt in (("liquidated", "USDC"), ("liquidated-ether-debt", "ETH"), ("underwater", "DAI")):
        supply(name, "WBTC", 50_000)
        borrow(name, debt, 32_400)
    # these are seen in logs and never hold anything
    market.enter(role("entered-only"), "USDC", "DAI")
    if market.tried(market.borrow, role("refused"), "DAI", WAD):
        raise RuntimeError("a loan without collateral was not refused")
    market.borrow(role("borrowed-nothing"), "DAI", 0)
    market.supply(role("supplied-nothing"), "USDC", 0)


def change_cast(market: CompoundV2, role: Cast) -> None:
    """Repay, redeem, leave, transfer."""
    market.repay(role("repaid"), "DAI")
    market.repay(role("repaid-ether"), "ETH")
    market.repay(
        role("repaid-by-another"), "WBTC", market.debt(role("repaid-by-another"), "WBTC") // 2, by=role("whale")
    )
    market.repay(role("partly-repaid"), "BAT", market.amount("BAT", 2_000 * USD))
    gone = role("gone")
    market.repay(gone, "ZRX")
    market.leave(gone, "ZRX")
    market.leave(gone, "USDC")
    market.redeem(gone, "USDC")
    market.leave(role("left"), "WBTC")
    market.transfer(role("sender"), "USDC", role("receiver"), market.c_tokens(role("sender"), "USDC"))
    market.transfer(role("supplier"), "ETH", role("receiver"), market.c_tokens(role("supplier"), "ETH") // 3)
    market.transfer(role("supplier"), "USDC", role("receiver-of-nothing"), 0)


def after_the_crash(market: CompoundV2, role: Cast) -> None:
    for name in ("liquidated", "liquidated-ether-debt"):
        if not market.liquidate(role(name), liquidator=role("liquidator")):
            raise RuntimeError(f"{name} was not liquidated")


def near_one(market: CompoundV2, role: Cast) -> None:
    """Accounts next to the edge: one above, one pushed below by its interest, one that only accrual would push.

    REP's rate is steep; nobody may touch its market after the last of them, so that its stored index stays behind.
    """
    for name, symbol, part in (
        ("just-above", "USDC", 996),
        ("just-below", "REP", 1000),
        ("stored-above-accrued-below", "REP", 1000),
        ("empty-liquidity", "USDC", 1000),
    ):
        user = role(name)
        market.supply(user, "ETH", market.amount("ETH", 10_000 * USD), enter=True)
        liquidity = market.answer(user)[1]
        market.borrow(user, symbol, market.amount(symbol, liquidity * part // 1000))
        market.node.mine(3, BLOCK_TIME)


def tell_generations_apart(market: CompoundV2, role: Cast) -> None:
    """Choose USDC's collateral factor so that a Comptroller that rounds and one that truncates disagree about it now.

    Only few decimals make that visible: for ether a difference of one unit of tokensToDenom is lost in the sum.
    """
    rate = market.snapshot(role("whale"), "USDC")[3]
    factor = 80 * WAD // 100
    while factor * rate % WAD < WAD // 2:
        factor += 1
    market.set_collateral_factor("USDC", factor)


def open_position(market: CompoundV2, rng: Random, user: str) -> None:
    """Supply one to three assets, enter most of them, and most of the time borrow one or two."""
    for symbol in rng.sample(usual(market), rng.randint(1, 3)):
        market.supply(user, symbol, market.amount(symbol, random_usd(rng, 2, 5.5)), enter=rng.random() < 0.8)
    if rng.random() < 0.7:
        for _ in range(rng.randint(1, 2)):
            borrow_at_random(market, rng, user)


def usual(market: CompoundV2) -> list[str]:
    """The assets of random actions: not REP, whose stored index must stay behind, none without a price."""
    return [symbol for symbol in market.markets if symbol != "REP" and market.price(symbol)]


def borrow_at_random(market: CompoundV2, rng: Random, user: str) -> bool:
    """Borrow some part of what is left; False if the market refuses."""
    symbol = rng.choice(usual(market))
    error, liquidity, _ = market.answer(user)
    if error or liquidity < USD:
        return False
    return market.tried(market.borrow, user, symbol, market.amount(symbol, liquidity * rng.randint(200, 995) // 1000))


def random_usd(rng: Random, low: float, high: float) -> int:
    """Between 10**low and 10**high dollars (1e18 = 1), evenly in the exponent."""
    return int(10 ** rng.uniform(low, high) * 10**6) * 10**12


def move_randomly(market: CompoundV2, rng: Random, symbol: str, percent: int) -> None:
    market.move_price(symbol, Fraction(10_000 + rng.randint(-100 * percent, 100 * percent), 10_000))


def act_at_random(market: CompoundV2, rng: Random, count: int) -> None:
    """`count` random users without a special role each do one thing, where the market lets them."""
    special = {*market.cast.values(), *market.bystanders}
    candidates = [user for user in market.users if user not in special]
    for user in rng.sample(candidates, min(count, len(candidates))):
        supplied = sorted(market.supplied.get(user, frozenset()))
        borrowed = sorted(market.borrowed.get(user, frozenset()))
        action = rng.choice(["supply", "borrow", "redeem", "transfer", "enter", "leave", "repay", "repay"])
        if action == "borrow":
            borrow_at_random(market, rng, user)
        elif action == "repay" and borrowed:
            symbol = rng.choice(borrowed)
            part = max(1, market.debt(user, symbol) * rng.randint(1, 99) // 100)
            market.tried(market.repay, user, symbol, *([part] if rng.random() < 0.6 else []))
        elif action in ("redeem", "transfer", "enter", "leave") and supplied:
            symbol = rng.choice(supplied)
            part = max(1, market.c_tokens(user, symbol) * rng.randint(1, 60) // 100)
            if action == "redeem":
                market.tried(market.redeem, user, symbol, *([part] if rng.random() < 0.7 else []))
            elif action == "transfer":
                market.tried(market.transfer, user, symbol, rng.choice(candidates), part)
            else:
                market.tried(market.enter if action == "enter" else market.leave, user, symbol)
        else:
            symbol = rng.choice(usual(market))
            market.supply(user, symbol, market.amount(symbol, random_usd(rng, 2, 4.5)))


def liquidate_some(market: CompoundV2, rng: Random, count: int) -> None:
    """Liquidate up to `count` of those with a shortfall that have no special role."""
    special = set(market.cast.values())
    candidates = [user for user in market.users if user in market.borrowers and user not in special]
    candidates = rng.sample(candidates, min(len(candidates), 200))
    short = [user for user, (_, _, shortfall) in zip(candidates, market.answers(candidates), strict=True) if shortfall]
    for user in short[:count]:
        market.liquidate(user, liquidator=rng.choice([None, rng.choice(candidates)]), percent=rng.randint(10, 100))


def mass(market: CompoundV2, rng: Random, users: list[str]) -> None:
    """Many users who get cTokens (of ether by minting, else from the whale), and mostly borrow one asset."""
    if not users:
        return
    whale = market.cast["whale"]
    assets = [symbol for symbol in usual(market) if symbol not in ("BAT", "ZRX")]
    prices = {symbol: market.price(symbol) for symbol in assets}
    rates = {symbol: market.snapshot(whale, symbol)[3] for symbol in assets}
    comptroller = market.comptroller
    supplies, entries, borrows, plans = [], [], [], []
    for user in users:
        symbol, debt, usd = rng.choice(assets), rng.choice(assets), random_usd(rng, 2, 4.5)
        c_token = market.markets[symbol]
        amount = usd * WAD // prices[symbol]
        if c_token.underlying is None:
            supplies.append(Transaction(user, c_token.address, calldata("mint()"), amount))
        else:
            data = calldata("transfer(address,uint256)", [user, amount * WAD // rates[symbol]])
            supplies.append(Transaction(whale, c_token.address, data))
        market.touched(user)
        market.supplied[user] = frozenset({symbol})
        if rng.random() < 0.75:
            data = calldata("enterMarkets(address[])", [[c_token.address]])
            entries.append(Transaction(user, comptroller, data))
            owed = usd * c_token.listing.collateral_factor * rng.randint(200, 990) // 100_000 * WAD // prices[debt]
            data = calldata("borrow(uint256)", [owed])
            borrows.append(Transaction(user, market.markets[debt].address, data))
            plans.append((user, debt))
    for transactions in (supplies, entries, borrows):
        if not all(market.sender.bulk(transactions, gas=700_000)):
            raise RuntimeError("an action of the mass failed")
    debts = market.sender.calls(
        [(market.markets[s].address, "borrowBalanceStored(address)(uint256)", [user]) for user, s in plans]
    )
    for (user, symbol), debt in zip(plans, debts, strict=True):
        if debt:
            market.owes(user, symbol)
