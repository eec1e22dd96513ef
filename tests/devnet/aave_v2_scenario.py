"""What happens on the Aave V2 devnet: every situation the protocol knows, once on purpose and then at random."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from random import Random
from typing import TYPE_CHECKING, Any

from tests.devnet.send import Reverted, Transaction, account, calldata

if TYPE_CHECKING:
    from tests.devnet.aave_v2 import AaveV2

E = 10**18
STABLE, VARIABLE = 1, 2
HOUR, DAY = 3_600, 86_400
#: users beyond the special ones who act one by one; the others come in bulk
DETAILED = 120
WHALE_VALUE = 400_000 * E


def populate(market: AaveV2, seed: int, users: int) -> None:
    """The whole history: special situations, random users, a mass of simple ones, a crash, and what follows it."""
    rng = Random(f"{market.name} {seed}")
    role = Cast(market, seed)
    whale = role("whale")
    for symbol, reserve in market.reserves.items():
        if symbol != "GUSD":
            market.supply(whale, symbol, WHALE_VALUE * 10**reserve.decimals // market.price(symbol))
    open_specials(market, role)
    wanted = users - len(market.users) - LATE_USERS
    detailed = min(max(wanted, 0), DETAILED)
    for number in range(detailed):
        open_position(market, rng, account(f"{market.name} {seed} user {number}"))
    market.node.elapse(5 * DAY)
    change_specials(market, role)
    act_at_random(market, rng, detailed // 2)
    # the node keeps every block's whole state, so blocks are dear from here on
    mass(market, rng, [account(f"{market.name} {seed} mass {number}") for number in range(max(wanted, 0) - detailed)])
    for symbol in ("WBTC", "USDC", "DAI"):
        move_randomly(market, rng, symbol, 4)
    market.node.elapse(2 * DAY)
    market.move_price("LINK", Fraction(65, 100))
    after_the_crash(market, role)
    rebalance(market, role)
    if market.rebasing:
        market.rebase(1_000_876, 1_000_000)
    near_one(market, role)
    market.node.elapse(3 * DAY)
    market.note_treasury()


def step(market: AaveV2, seed: int) -> None:
    """Up to 20 users do something, two newcomers appear, prices move, days pass; everyone else does nothing."""
    rng = Random(f"{market.name} step {seed}")
    for number in range(2):
        open_position(market, rng, account(f"{market.name} {seed} newcomer {number}"))
    act_at_random(market, rng, min(20, 2 + len(market.users) // 10))
    for symbol in rng.sample(["WBTC", "USDC", "DAI", "LINK", "GUSD"], 3):
        move_randomly(market, rng, symbol, 8)
    if market.rebasing:
        market.rebase(1_000_000 + rng.randint(-200, 900), 1_000_000)
    market.node.elapse(rng.randint(HOUR, 3 * DAY))
    liquidate_some(market, rng, 3)
    market.note_treasury()


class Cast:
    """Names the accounts of special situations."""

    def __init__(self, market: AaveV2, seed: int) -> None:
        self.market = market
        self.seed = seed

    def __call__(self, name: str) -> str:
        return self.market.cast.setdefault(name, account(f"{self.market.name} {self.seed} {name}"))


#: users that appear after the random ones: the receiver, the aToken liquidator, five of GUSD, two near 1, the treasury
LATE_USERS = 10


def open_specials(market: AaveV2, role: Cast) -> None:
    """Open every special position."""

    def supply(name: str, symbol: str, value: int) -> None:
        market.supply(role(name), symbol, market.amount(symbol, value))

    def borrow(name: str, symbol: str, value: int, mode: int = VARIABLE) -> None:
        market.borrow(role(name), symbol, market.amount(symbol, value), mode)

    supply("supplier", "USDC", 20 * E)
    supply("supplier", "WETH", 5 * E)
    market.supply(role("gift"), "DAI", market.amount("DAI", 3 * E), by=role("whale"))
    for name, collateral, debt, mode in (
        ("variable-borrower", "WETH", "USDC", VARIABLE),
        ("stable-borrower", "WETH", "DAI", STABLE),
        ("to-stable", "WETH", "LINK", VARIABLE),
        ("to-variable", "WBTC", "DAI", STABLE),
        ("repaid", "WETH", "USDC", VARIABLE),
        ("repaid-stable", "WBTC", "USDC", STABLE),
        ("gone", "DAI", "WETH", VARIABLE),
        ("partly-repaid", "USDC", "WBTC", VARIABLE),
    ):
        supply(name, collateral, 10 * E)
        borrow(name, debt, 4 * E, mode)
    supply("both-modes", "WBTC", 20 * E)
    borrow("both-modes", "USDC", 3 * E)
    borrow("both-modes", "USDC", 2 * E, STABLE)
    supply("sender", "LINK", 8 * E)
    supply("toggled", "USDC", 5 * E)
    supply("toggled", "DAI", 5 * E)
    supply("delegator", "WBTC", 20 * E)
    supply("flash-debtor", "WETH", 10 * E)
    market.flash_borrow(role("flash-debtor"), "DAI", market.amount("DAI", 3 * E))
    supply("unusable-collateral", "GUSD", 3 * E)
    supply("mixed-collateral", "GUSD", 5 * E)
    supply("mixed-collateral", "WETH", 5 * E)
    borrow("mixed-collateral", "DAI", 3 * E)
    supply("dust-debtor", "WETH", E)
    market.borrow(role("dust-debtor"), "DAI", 1)
    for name, debt in (
        ("liquidated", "USDC"), ("liquidated-to-a-token", "DAI"), ("bad-debt", "WETH"), ("underwater", "DAI"),
    ):  # fmt: skip
        supply(name, "LINK", 10 * E)
        borrow(name, debt, 69 * E // 10)
    if market.rebasing:
        supply("steth-holder", "STETH", 12 * E)
        supply("steth-borrower", "STETH", 12 * E)
        borrow("steth-borrower", "USDC", 5 * E)


def change_specials(market: AaveV2, role: Cast) -> None:
    """Swap rates, repay, withdraw, transfer, toggle, delegate."""
    market.swap_rate_mode(role("to-stable"), "LINK", VARIABLE)
    market.swap_rate_mode(role("to-variable"), "DAI", STABLE)
    market.repay(role("repaid"), "USDC")
    market.repay(role("repaid-stable"), "USDC", mode=STABLE)
    market.repay(role("gone"), "WETH")
    market.withdraw(role("gone"), "DAI")
    market.repay(role("partly-repaid"), "WBTC", market.amount("WBTC", E))
    market.transfer(role("sender"), "LINK", role("receiver"), market.balance(role("sender"), "LINK", "pending"))
    market.transfer(role("supplier"), "USDC", role("receiver"), market.amount("USDC", 2 * E))
    market.transfer(role("supplier"), "USDC", role("receiver-of-nothing"), 0)
    market.use_as_collateral(role("toggled"), "DAI", False)
    market.borrow(role("toggled"), "WETH", 2 * E)
    delegator, delegatee = role("delegator"), role("delegatee")
    for symbol, mode in (("USDC", VARIABLE), ("DAI", STABLE)):
        amount = market.amount(symbol, 3 * E)
        market.delegate(delegator, delegatee, symbol, amount, mode)
        market.borrow(delegator, symbol, amount, mode, by=delegatee)
    market.flash_loan(role("flash-debtor"), "WBTC", market.amount("WBTC", 1_000 * E))


def after_the_crash(market: AaveV2, role: Cast) -> None:
    """Liquidate for underlying and for aTokens, and one account until debt without collateral is left."""
    done = market.liquidate(role("liquidated"))
    taker = role("a-token-liquidator")
    done &= market.liquidate(role("liquidated-to-a-token"), receive_a_token=True, liquidator=taker)
    while done and market.balance(role("bad-debt"), "LINK"):
        done = market.liquidate(role("bad-debt"))
    if not done:
        raise RuntimeError("a liquidation of the cast was refused")


def rebalance(market: AaveV2, role: Cast) -> None:
    """Use the GUSD reserve above 95 %, rebalance a cheap stable loan, and bring the use down again."""
    supplier, hungry = role("gusd-supplier"), role("gusd-borrower")
    market.supply(supplier, "GUSD", market.amount("GUSD", 1_000 * E))
    for name in ("rebalanced", "gusd-stable-borrower", "gusd-stable-borrower-2"):
        market.supply(role(name), "WETH", 500 * E)
        liquidity = market.balance_of("GUSD", market.tokens["GUSD"].a_token)
        market.borrow(role(name), "GUSD", liquidity * 24 // 100, STABLE)
    market.supply(hungry, "WETH", 1_500 * E)
    liquidity = market.balance_of("GUSD", market.tokens["GUSD"].a_token)
    market.borrow(hungry, "GUSD", liquidity * 90 // 100)
    market.node.elapse(HOUR)
    market.rebalance(role("rebalanced"), "GUSD")
    market.repay(hungry, "GUSD", market.debt(hungry, "GUSD") * 9 // 10)


def near_one(market: AaveV2, role: Cast) -> None:
    """Two health factors next to 1: one stays above, the other is pushed below by its interest alone."""
    for name, distance in (("just-above", 4_000), ("just-below", 1)):
        user = role(name)
        market.supply(user, "WETH", 10 * E)
        market.borrow(user, "DAI", market.amount("DAI", 79 * E // 10), STABLE)
        collateral, debt, _, threshold, _, _ = market.answer(user)
        needed = debt * (1_000_000 + distance) * 10_000 // (1_000_000 * threshold)
        market.withdraw(user, "WETH", collateral - needed)


def open_position(market: AaveV2, rng: Random, user: str) -> None:
    """Supply one to three assets, and most of the time borrow one or two."""
    assets = [s for s, r in market.reserves.items() if r.liquidation_threshold]
    for symbol in rng.sample(assets, rng.randint(1, 3)):
        market.supply(user, symbol, market.amount(symbol, random_value(rng, -1, 2.5)))
    if rng.random() < 0.1:
        market.supply(user, "GUSD", market.amount("GUSD", random_value(rng, -1, 1)))
    if rng.random() < 0.7:
        for _ in range(rng.randint(1, 2)):
            borrow_at_random(market, rng, user)


def borrow_at_random(market: AaveV2, rng: Random, user: str) -> bool:
    """Borrow some part of what is left; False if the market refuses (a stable loan of one's own collateral, ...)."""
    symbol = rng.choice([s for s, r in market.reserves.items() if r.borrowing and s != "GUSD"])
    available = market.answer(user)[2]
    amount = market.amount(symbol, available * rng.randint(200, 980) // 1000)
    return tried(market.borrow, user, symbol, amount, rng.choice([STABLE, VARIABLE, VARIABLE]))


def random_value(rng: Random, low: float, high: float) -> int:
    """ETH wei between 10**low and 10**high ether, evenly in the exponent."""
    return int(10 ** rng.uniform(low, high) * 10**6) * 10**12


def move_randomly(market: AaveV2, rng: Random, symbol: str, percent: int) -> None:
    market.move_price(symbol, Fraction(10_000 + rng.randint(-100 * percent, 100 * percent), 10_000))


def act_at_random(market: AaveV2, rng: Random, count: int) -> None:
    """`count` random users without a special role each do one thing, where the market lets them."""
    special = {*market.cast.values(), market.treasury, *market.bystanders}
    candidates = [user for user in market.users if user not in special]
    for user in rng.sample(candidates, min(count, len(candidates))):
        supplied = sorted(market.supplied.get(user, frozenset()))
        borrowed = sorted(market.borrowed.get(user, frozenset()))
        action = rng.choice(["supply", "borrow", "withdraw", "transfer", "toggle", "repay", "repay", "swap"])
        if action == "borrow":
            borrow_at_random(market, rng, user)
        elif action in ("repay", "swap") and borrowed:
            symbol, mode = rng.choice(borrowed)
            debt = market.debt(user, symbol, mode)
            if action == "swap":
                tried(market.swap_rate_mode, user, symbol, mode)
            elif rng.random() < 0.4:
                tried(market.repay, user, symbol, mode=mode)
            else:
                tried(market.repay, user, symbol, max(1, debt * rng.randint(1, 99) // 100), mode)
        elif action in ("withdraw", "transfer", "toggle") and supplied:
            symbol = rng.choice(supplied)
            part = max(1, market.balance(user, symbol) * rng.randint(1, 60) // 100)
            if action == "withdraw":
                tried(market.withdraw, user, symbol, *([part] if rng.random() < 0.7 else []))
            elif action == "transfer":
                tried(market.transfer, user, symbol, rng.choice(candidates), part)
            else:
                flag = bool(market.user_data(user, symbol)[8])
                tried(market.use_as_collateral, user, symbol, not flag)
        else:
            symbol = rng.choice(list(market.reserves))
            market.supply(user, symbol, market.amount(symbol, random_value(rng, -1, 1.5)))


def tried(action: Callable[..., None], *args: Any, **options: Any) -> bool:
    """Whether the market let it happen."""
    try:
        action(*args, **options)
    except Reverted:
        return False
    return True


def liquidate_some(market: AaveV2, rng: Random, count: int) -> None:
    """Liquidate up to `count` of those below 1 that have no special role."""
    special = set(market.cast.values())
    candidates = [user for user in market.users if user in market.borrowers and user not in special]
    candidates = rng.sample(candidates, min(len(candidates), 200))
    below = [user for user, data in zip(candidates, market.answers(candidates), strict=True) if data[0] and data[5] < E]
    for user in below[:count]:
        liquidator = rng.choice([None, rng.choice(candidates)])
        market.liquidate(user, receive_a_token=liquidator is not None, liquidator=liquidator)


def mass(market: AaveV2, rng: Random, users: list[str]) -> None:
    """Many users who supply one asset (the whale pays) and mostly borrow one, a few thousand transactions a second."""
    if not users:
        return
    whale = market.cast["whale"]
    assets = [s for s, r in market.reserves.items() if r.liquidation_threshold]
    debts = [s for s in assets if market.reserves[s].borrowing]
    prices = {s: market.price(s) for s in assets}
    deposits, borrows, plans = [], [], []
    for user in users:
        symbol, debt = rng.choice(assets), rng.choice(debts)
        value, mode = random_value(rng, -1, 1.7), rng.choice([STABLE, VARIABLE, VARIABLE, VARIABLE])
        amount = value * 10 ** market.reserves[symbol].decimals // prices[symbol]
        data = calldata("deposit(address,uint256,address,uint16)", [market.tokens[symbol].asset, amount, user, 0])
        deposits.append(Transaction(whale, market.pool, data))
        market.touched(user)
        market.supplied[user] = frozenset({symbol})
        if rng.random() < 0.75 and (mode == VARIABLE or debt != symbol):
            owed = value * market.reserves[symbol].ltv * rng.randint(200, 990) // 10_000_000
            owed = owed * 10 ** market.reserves[debt].decimals // prices[debt]
            args = [market.tokens[debt].asset, owed, mode, 0, user]
            borrows.append(
                Transaction(user, market.pool, calldata("borrow(address,uint256,uint256,uint16,address)", args))
            )
            plans.append((user, debt, mode))
    for symbol in assets:
        market.give(whale, symbol)
    if not all(market.sender.bulk(deposits)):
        raise RuntimeError("a deposit of the mass failed")
    for (user, debt, mode), done in zip(plans, market.sender.bulk(borrows), strict=True):
        if done:
            market.owes(user, debt, mode)
