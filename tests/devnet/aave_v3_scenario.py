"""A seeded history of an Aave V3 market: a cast with one account per situation, and a crowd that acts at random."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, NamedTuple

from tests.devnet.send import Transaction, account, calldata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.devnet.aave_v3 import AaveV3

MAX_UINT = 2**256 - 1
USD = 10**8
STABLE, VARIABLE = 1, 2
ETH_MODE, STABLE_MODE, SUSDE_MODE, SHRUNK_MODE = 1, 2, 3, 4
LENDERS = 3
# Supplied more often than the rest, so that most of the crowd has collateral that counts.
POPULAR = ("WETH", "WETH", "WETH", "USDC", "USDC", "WBTC", "WBTC", "DAI", "wstETH", "wstETH", "LINK", "USDT", "sUSDe")


class Action(NamedTuple):
    """One transaction and what it means if it succeeds: who owes then, and who else holds something."""

    transaction: Transaction
    debtor: str | None = None
    receiver: str | None = None


class Actions:
    """Builds the transactions of one market."""

    def __init__(self, market: AaveV3) -> None:
        self.market = market
        self.pool = market.contracts.pool
        self.prices = {symbol: market.price(symbol) for symbol in market.reserves}

    def amount(self, symbol: str, usd: float) -> int:
        """Smallest units of an asset worth `usd` dollars at the prices of this object's making, at least 1."""
        decimals = self.market.reserves[symbol].listing.decimals
        return max(1, int(round(usd * USD) * 10**decimals // self.prices[symbol]))

    def pool_call(self, sender: str, function: str, *args: object) -> Transaction:
        return Transaction(sender, self.pool, calldata(function, args))

    def supply(self, sender: str, symbol: str, amount: int) -> Action:
        asset = self.market.reserves[symbol].asset
        return Action(self.pool_call(sender, "supply(address,uint256,address,uint16)", asset, amount, sender, 0))

    def withdraw(self, sender: str, symbol: str, amount: int = MAX_UINT) -> Action:
        asset = self.market.reserves[symbol].asset
        return Action(self.pool_call(sender, "withdraw(address,uint256,address)", asset, amount, sender))

    def borrow(
        self, sender: str, symbol: str, amount: int, *, mode: int = VARIABLE, debtor: str | None = None
    ) -> Action:
        asset, debtor = self.market.reserves[symbol].asset, debtor or sender
        function = "borrow(address,uint256,uint256,uint16,address)"
        return Action(self.pool_call(sender, function, asset, amount, mode, 0, debtor), debtor)

    def repay(self, sender: str, symbol: str, amount: int = MAX_UINT, *, mode: int = VARIABLE) -> Action:
        asset = self.market.reserves[symbol].asset
        return Action(self.pool_call(sender, "repay(address,uint256,uint256,address)", asset, amount, mode, sender))

    def swap_rate(self, sender: str, symbol: str, mode: int) -> Action:
        asset = self.market.reserves[symbol].asset
        return Action(self.pool_call(sender, "swapBorrowRateMode(address,uint256)", asset, mode), sender)

    def flash_borrow(self, sender: str, symbol: str, amount: int) -> Action:
        asset = self.market.reserves[symbol].asset
        function = "flashLoan(address,address[],uint256[],uint256[],address,bytes,uint16)"
        args = (self.market.flash_receiver, [asset], [amount], [VARIABLE], sender, b"", 0)
        return Action(self.pool_call(sender, function, *args), sender)

    def use_as_collateral(self, sender: str, symbol: str, use: bool) -> Action:
        asset = self.market.reserves[symbol].asset
        return Action(self.pool_call(sender, "setUserUseReserveAsCollateral(address,bool)", asset, use))

    def emode(self, sender: str, category: int) -> Action:
        return Action(self.pool_call(sender, "setUserEMode(uint8)", category))

    def transfer(self, sender: str, symbol: str, amount: int, receiver: str) -> Action:
        token = self.market.reserves[symbol].a_token
        data = calldata("transfer(address,uint256)", (receiver, amount))
        return Action(Transaction(sender, token, data), receiver=receiver)

    def delegate(self, sender: str, symbol: str, amount: int, delegatee: str) -> Action:
        token = self.market.reserves[symbol].variable_debt
        return Action(Transaction(sender, token, calldata("approveDelegation(address,uint256)", (delegatee, amount))))

    def mint_to_treasury(self, sender: str) -> Action:
        assets = [reserve.asset for reserve in self.market.reserves.values()]
        return Action(self.pool_call(sender, "mintToTreasury(address[])", assets))


def perform(market: AaveV3, rng: Random, actions: Sequence[Action], *, must: bool = False) -> list[bool]:
    """Send actions in order, several a block, and write down what the successful ones did.

    With `must` every one has to succeed; otherwise failed transactions are part of the history.
    """
    per_block = max(12, min(300, len(actions) // 6))
    done = market.sender.bulk(
        [action.transaction for action in actions], per_block=per_block, interval=rng.randint(12, 900)
    )
    for action, succeeded in zip(actions, done, strict=True):
        if not succeeded:
            if must:
                raise AssertionError(f"a transaction of {market.name}'s cast failed: {action}")
            continue
        market.touched(action.transaction.sender)
        if action.receiver:
            market.touched(action.receiver)
        if action.debtor:
            market.touched(action.debtor)
            market.borrowers.add(action.debtor)
    return done


def dollars(rng: Random) -> float:
    """A position size between 100 and 1,000,000 dollars, small ones as likely as large ones."""
    return float(10 ** rng.uniform(2, 6))


def populate(market: AaveV3, seed: int, users: int) -> None:
    """The whole history: lenders, cast and crowd supply, borrow, change things; prices move; some are liquidated.

    Afterwards `market.cast` names one account per situation and `market.crowd` lists the others.
    """
    rng = Random(f"{market.name} {seed}")
    cast = market.cast = {name: account(f"{market.name} {name}") for name in cast_names(market)}
    market.crowd = [account(f"wallet {i}") for i in range(max(0, users - len(cast)))]
    act = Actions(market)
    lenders = [account(f"{market.name} lender {i}") for i in range(LENDERS)]
    depth = 20_000_000 + 100_000 * users
    perform(
        market, rng, [act.supply(who, s, act.amount(s, depth)) for who in lenders for s in market.reserves], must=True
    )
    crowd_enters(market, rng, act)
    cast_enters(market, rng, act)
    crowd_borrows(market, rng, act)
    cast_borrows(market, rng, act)
    market.node.mine(3, 7 * 86_400)
    for symbol in ("WETH", "wstETH", "LINK"):
        market.move_price(symbol, rng.uniform(0.99, 1.01))
    crowd_changes(market, rng)
    cast_changes(market, rng)
    bad_debt(market, rng)
    market.node.elapse(rng.randint(3600, 86_400))
    for symbol, factor in (("WETH", 0.93), ("wstETH", 0.935), ("WBTC", 0.96), ("LINK", 0.9)):
        market.move_price(symbol, factor)
    for name in ("liquidated", "liquidated-a-token"):
        if not liquidate(market, cast[name], name.endswith("a-token"), market.liquidator):
            raise AssertionError(f"{name} could not be liquidated")
    liquidate_some(market, rng, max(2, min(20, users // 50)))
    borrow_to_the_limit(market, rng, [cast["near-liquidation"]])
    perform(market, rng, [act.mint_to_treasury(lenders[0])], must=True)
    market.node.mine(2, rng.randint(12, 3600))


def cast_names(market: AaveV3) -> list[str]:
    """The situations of this version's cast."""
    names = [
        "supplier", "collateral-off", "e-mode-eth", "e-mode-stable", "e-mode-mixed", "e-mode-left", "e-mode-lt-zero",
        "delegator", "delegatee", "flash-borrower", "near-liquidation", "under-water", "liquidated",
        "liquidated-a-token", "bad-debt", "receiver", "repaid", "emptied", "dust-debt", "many-assets",
    ]  # fmt: skip
    return names + (["stable-only", "both-rates"] if market.stable_rates else ["e-mode-susde", "e-mode-shrunk"])


def crowd_enters(market: AaveV3, rng: Random, act: Actions) -> None:
    """Everybody supplies one to three assets; some enter an e-mode or switch collateral off."""
    supplies, choices = [], []
    for who in market.crowd:
        held = list(dict.fromkeys(rng.choices(POPULAR, k=rng.randint(1, 3))))
        if rng.random() < 0.12:
            category = rng.choice([ETH_MODE, STABLE_MODE])
            held = [rng.choice(market.emodes[category].collateral), *held[: rng.randint(0, 1)]]
            choices.append(act.emode(who, category))
        supplies += [act.supply(who, symbol, act.amount(symbol, dollars(rng))) for symbol in dict.fromkeys(held)]
        if rng.random() < 0.08:
            choices.append(act.use_as_collateral(who, rng.choice(held), False))
    perform(market, rng, supplies + choices)


def crowd_borrows(market: AaveV3, rng: Random, act: Actions) -> None:
    """Three of four borrow a share of what they may, in one or two assets, a few to the limit."""
    actions = []
    for who, answer in zip(market.crowd, market.answers(market.crowd), strict=True):
        if answer[2] == 0 or rng.random() < 0.25:
            continue
        share = 0.999 if rng.random() < 0.12 else rng.uniform(0.05, 0.97)
        symbols = rng.sample(["WETH", "USDC", "DAI", "USDT", "WBTC", "wstETH"], rng.randint(1, 2))
        for symbol in symbols:
            usd = answer[2] / USD * share / len(symbols)
            mode = STABLE if market.stable_rates and rng.random() < 0.15 else VARIABLE
            actions.append(act.borrow(who, symbol, act.amount(symbol, usd), mode=mode))
    perform(market, rng, actions)


def crowd_changes(market: AaveV3, rng: Random) -> None:
    """A third of the crowd does one thing more each; what is not allowed fails."""
    act = Actions(market)
    chosen = rng.sample(market.crowd, min(len(market.crowd) // 3, 400))
    perform(market, rng, [action for who in chosen for action in random_action(market, rng, act, who)])


def random_action(market: AaveV3, rng: Random, act: Actions, who: str) -> list[Action]:
    """One act an account can think of in its position, or none if it has none."""
    positions = market.user_reserves(who)
    supplied = [symbol for symbol, row in positions.items() if row[0] > 0]
    owed = [(s, mode) for s, row in positions.items() for mode in (STABLE, VARIABLE) if row[mode] > 0]
    kind = rng.choice(["supply", "withdraw", "borrow", "repay", "transfer", "collateral", "e-mode", "swap", "flash"])
    if kind == "supply" or not supplied:
        symbol = rng.choice(POPULAR)
        return [act.supply(who, symbol, act.amount(symbol, dollars(rng)))]
    symbol = rng.choice(supplied)
    part = int(positions[symbol][0] * rng.uniform(0.01, 0.9)) or 1
    if kind == "withdraw":
        return [act.withdraw(who, symbol, MAX_UINT if rng.random() < 0.3 else part)]
    if kind == "transfer":
        receiver = rng.choice(market.users) if rng.random() < 0.7 else account(f"{market.name} receiver {rng.random()}")
        return [act.transfer(who, symbol, part, receiver)]
    if kind == "collateral":
        return [act.use_as_collateral(who, symbol, not positions[symbol][8])]
    if kind == "e-mode":
        return [act.emode(who, rng.choice([0, ETH_MODE, STABLE_MODE]))]
    if kind in {"borrow", "flash"}:
        usd = market.answer(who)[2] / USD * rng.uniform(0.1, 0.99)
        symbol = rng.choice(["WETH", "USDC", "DAI", "USDT"])
        amount = act.amount(symbol, usd)
        return [act.flash_borrow(who, symbol, amount) if kind == "flash" else act.borrow(who, symbol, amount)]
    if not owed:
        return []
    symbol, mode = rng.choice(owed)
    if kind == "swap" and market.stable_rates:
        return [act.swap_rate(who, symbol, mode)]
    debt = positions[symbol][mode]
    return [act.repay(who, symbol, MAX_UINT if rng.random() < 0.3 else max(1, debt // rng.randint(2, 9)), mode=mode)]


def cast_enters(market: AaveV3, rng: Random, act: Actions) -> None:
    """The cast supplies its collateral and sets its flags and modes."""
    cast = market.cast
    supplies = [
        ("supplier", "WETH", 10_000.5), ("collateral-off", "USDC", 5_000.25), ("e-mode-eth", "wstETH", 50_000),
        ("e-mode-stable", "USDC", 20_000), ("e-mode-mixed", "WBTC", 10_000), ("e-mode-mixed", "WETH", 10_000),
        ("e-mode-left", "wstETH", 10_000), ("e-mode-lt-zero", "USDT", 5_000), ("e-mode-lt-zero", "USDC", 5_000),
        ("delegator", "WETH", 30_000), ("flash-borrower", "WETH", 30_000), ("near-liquidation", "WETH", 12_345.67),
        ("under-water", "WETH", 10_000), ("liquidated", "WETH", 9_000), ("liquidated-a-token", "WETH", 11_000),
        ("bad-debt", "LINK", 500), ("repaid", "DAI", 4_000), ("emptied", "WBTC", 4_000), ("dust-debt", "USDC", 100),
        *(("many-assets", symbol, 3_000.75) for symbol in ("WETH", "USDC", "WBTC", "DAI", "wstETH", "LINK", "USDT")),
        *((("stable-only", "WETH", 10_000), ("both-rates", "WETH", 20_000)) if market.stable_rates else ()),
    ]  # fmt: skip
    actions = [act.supply(cast[who], symbol, act.amount(symbol, usd)) for who, symbol, usd in supplies]
    actions += [
        act.use_as_collateral(cast["collateral-off"], "USDC", False),
        act.emode(cast["e-mode-eth"], ETH_MODE),
        act.emode(cast["e-mode-stable"], STABLE_MODE),
        act.emode(cast["e-mode-mixed"], ETH_MODE),
        act.emode(cast["e-mode-left"], ETH_MODE),
        act.emode(cast["e-mode-lt-zero"], STABLE_MODE),
    ]
    if not market.stable_rates:
        actions += [
            # The mode comes first: only inside it does supplying sUSDe make it collateral.
            act.emode(cast["e-mode-susde"], SUSDE_MODE),
            act.supply(cast["e-mode-susde"], "sUSDe", act.amount("sUSDe", 30_000)),
            act.emode(cast["e-mode-shrunk"], SHRUNK_MODE),
            act.supply(cast["e-mode-shrunk"], "wstETH", act.amount("wstETH", 20_000)),
            act.supply(cast["e-mode-shrunk"], "USDC", act.amount("USDC", 10_000)),
        ]
    perform(market, rng, actions, must=True)


def cast_borrows(market: AaveV3, rng: Random, act: Actions) -> None:
    """The cast goes into debt in every way there is."""
    cast = market.cast
    debts = [
        ("e-mode-eth", "WETH", 40_000, VARIABLE), ("e-mode-stable", "DAI", 17_000, VARIABLE),
        ("e-mode-mixed", "WETH", 12_000, VARIABLE), ("e-mode-lt-zero", "DAI", 3_000, VARIABLE),
        ("repaid", "USDC", 1_000, VARIABLE), ("emptied", "USDC", 1_000, VARIABLE),
        ("many-assets", "USDT", 2_000, VARIABLE), ("many-assets", "WBTC", 1_500, VARIABLE),
        ("many-assets", "DAI", 1_000, VARIABLE),
        *((("stable-only", "DAI", 3_000, STABLE), ("both-rates", "USDC", 3_000, VARIABLE),
           ("both-rates", "USDC", 2_000, STABLE)) if market.stable_rates else
          (("e-mode-susde", "USDC", 24_000, VARIABLE), ("e-mode-shrunk", "DAI", 12_000, VARIABLE))),
    ]  # fmt: skip
    actions = [act.borrow(cast[who], symbol, act.amount(symbol, usd), mode=mode) for who, symbol, usd, mode in debts]
    delegated = act.amount("USDC", 5_000)
    actions += [
        act.borrow(cast["dust-debt"], "DAI", 1),
        act.emode(cast["e-mode-left"], 0),
        act.borrow(cast["e-mode-left"], "USDC", act.amount("USDC", 2_000)),
        act.delegate(cast["delegator"], "USDC", delegated, cast["delegatee"]),
        act.borrow(cast["delegatee"], "USDC", delegated, debtor=cast["delegator"]),
        act.flash_borrow(cast["flash-borrower"], "USDC", act.amount("USDC", 9_000)),
    ]
    perform(market, rng, actions, must=True)
    borrow_to_the_limit(
        market, rng, [cast[name] for name in ("under-water", "liquidated", "liquidated-a-token", "bad-debt")]
    )


def borrow_to_the_limit(market: AaveV3, rng: Random, accounts: Sequence[str]) -> None:
    """Borrow as much USDC as the loan-to-value ratio allows, less a thousandth."""
    act = Actions(market)
    answers = market.answers(accounts)
    actions = [
        act.borrow(who, "USDC", act.amount("USDC", answer[2] / USD * 0.999))
        for who, answer in zip(accounts, answers, strict=True)
    ]
    perform(market, rng, actions, must=True)


def cast_changes(market: AaveV3, rng: Random) -> None:
    """The cast repays, leaves and gives away; a category loses an asset somebody uses in it."""
    cast, act = market.cast, Actions(market)
    actions = [
        act.transfer(cast["supplier"], "WETH", act.amount("WETH", 1_234.5), cast["receiver"]),
        act.repay(cast["repaid"], "USDC"),
        act.repay(cast["emptied"], "USDC"),
        act.withdraw(cast["emptied"], "WBTC"),
    ]
    perform(market, rng, actions, must=True)
    if not market.stable_rates:
        market.set_emode_collateral(SHRUNK_MODE, "wstETH", False)


def bad_debt(market: AaveV3, rng: Random) -> None:
    """Crash LINK, liquidate an account whose collateral is all LINK and cannot cover its debt, restore the price.

    Up to 3.2 the rest of the debt stays with no collateral behind it (health factor 0); from 3.3 it becomes a deficit.
    """
    price = market.price("LINK")
    market.set_price("LINK", price * 3 // 10)
    if not liquidate(market, market.cast["bad-debt"], False, market.liquidator):
        raise AssertionError("bad-debt could not be liquidated")
    market.set_price("LINK", price)


def liquidate(market: AaveV3, victim: str, receive_a_token: bool, liquidator: str) -> bool:
    """Liquidate the largest debt for the largest collateral; the token lets the liquidator pay without funds."""
    prices = Actions(market).prices
    debts, collaterals = {}, {}
    for symbol, row in market.user_reserves(victim).items():
        scale = prices[symbol] / 10 ** market.reserves[symbol].listing.decimals
        debts[symbol] = (row[1] + row[2]) * scale
        collaterals[symbol] = row[0] * scale if row[8] else 0.0
    collateral, debt = max(collaterals, key=collaterals.__getitem__), max(debts, key=debts.__getitem__)
    reserves = market.reserves
    succeeded = market.sender.try_send(
        market.contracts.pool,
        "liquidationCall(address,address,address,uint256,bool)",
        [reserves[collateral].asset, reserves[debt].asset, victim, MAX_UINT, receive_a_token],
        sender=liquidator,
    )
    if succeeded:
        market.touched(liquidator)
        market.liquidated.add(victim)
    return succeeded


def liquidate_some(market: AaveV3, rng: Random, at_most: int) -> None:
    """Liquidate a few of the crowd that can be, half of them for aTokens."""
    answers = market.answers(market.crowd)
    liquidatable = [
        who for who, answer in zip(market.crowd, answers, strict=True) if answer[1] > 0 and answer[5] < 10**18
    ]
    for who in rng.sample(liquidatable, min(at_most, len(liquidatable) // 2)):
        liquidate(market, who, rng.random() < 0.5, market.liquidator)


def step(market: AaveV3, seed: int) -> None:
    """Time passes, some prices move, about one in six accounts acts, one newcomer arrives, a few are liquidated."""
    rng = Random(f"{market.name} step {seed}")
    market.node.elapse(rng.randint(600, 5 * 86_400))
    for symbol in rng.sample(list(market.reserves), 3):
        market.move_price(symbol, rng.uniform(0.97, 1.03))
    act = Actions(market)
    everybody = [*market.crowd, *market.cast.values()]
    chosen = rng.sample(everybody, max(1, min(200, len(everybody) // 6)))
    newcomer = account(f"{market.name} newcomer {seed}")
    actions = [act.supply(newcomer, "WETH", act.amount("WETH", dollars(rng)))]
    for who in chosen:
        actions += random_action(market, rng, act, who)
    perform(market, rng, actions)
    borrow_to_the_limit(market, rng, [newcomer])
    market.crowd.append(newcomer)
    liquidate_some(market, rng, 2)
