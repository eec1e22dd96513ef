"""What happens on a Compound V3 devnet: every situation the protocol knows, once on purpose and then at random."""

from __future__ import annotations

from fractions import Fraction
from random import Random
from typing import TYPE_CHECKING

from tests.devnet.send import Transaction, account

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.devnet.compound_v3 import Asset, CompoundV3

DAY = 86_400
INDEX = 10**15
FACTOR = 10**18
PERCENT = 10**16
ALL = 2**256 - 1
DEAD = "DEAD"
#: accounts that appear after the crowd: keeper, two absorbed, liquidator, dust, three of the dead feed, two at the edge
LATE_ROLES = 10


def populate(market: CompoundV3, seed: int, users: int) -> None:
    """The whole history: special situations, a crowd, months, absorptions, a dying feed, falling prices, edges."""
    rng = Random(f"{market.name} {seed}")
    suppliers(market, rng, users)
    ordinary_lives(market, rng)
    silent_moves(market, rng)
    acting_for_others(market)
    crowd(market, rng, [account(f"user {i}") for i in range(max(0, users - len(market.users) - LATE_ROLES))])
    market.node.elapse(rng.randrange(20, 60) * DAY)
    market.accrue(role(market, "keeper"), market.roles["debtor"])
    absorptions(market, rng)
    dust(market)
    dead_collateral(market)
    squeeze(market, rng)
    edges(market)


def role(market: CompoundV3, name: str) -> str:
    """The account that plays this role."""
    return market.roles.setdefault(name, account(f"{market.name} {name}"))


def suppliers(market: CompoundV3, rng: Random, users: int) -> None:
    """Lenders; one of them got the base by a transfer and never supplied, one withdrew everything."""
    depth = (30_000 + users * 1_150) * market.small
    for i in range(3):
        market.supply(role(market, f"supplier {i}"), market.base, depth * rng.randrange(30, 40) // 100)
    market.transfer(market.roles["supplier 0"], role(market, "gifted supplier"), 1_000 * market.small)
    market.supply(role(market, "former supplier"), market.base, 500 * market.small)
    market.withdraw(market.roles["former supplier"], market.base, ALL)


def ordinary_lives(market: CompoundV3, rng: Random) -> None:
    """Collateral only, debt, debt out of a supply, repaid, emptied, every collateral, the last asset, a gift."""
    symbols = [a.symbol for a in market.assets if a.symbol != DEAD]
    debt = rng.randrange(600, 900) * market.small
    market.supply(role(market, "collateral only"), symbols[2], market.worth(symbols[2], debt))
    market.open_debt(role(market, "debtor"), symbols[2], debt, 0.5)
    turned = role(market, "supplier turned debtor")
    market.supply(turned, market.base, debt)
    market.supply(turned, symbols[1], market.worth(symbols[1], 4 * debt))
    market.withdraw(turned, market.base, 2 * debt)
    for name in ("repaid", "emptied"):
        who = role(market, name)
        market.open_debt(who, symbols[3], debt, 0.6)
        market.supply(who, market.base, ALL)
    emptied = market.roles["emptied"]
    market.withdraw(emptied, symbols[3], market.collateral(emptied, symbols[3]))
    many = role(market, "many collaterals")
    for symbol in symbols:
        market.supply(many, symbol, market.worth(symbol, debt // 4))
    market.withdraw(many, market.base, debt // 2)
    market.open_debt(role(market, "last asset"), symbols[-1], debt, 0.7)
    gift = market.worth(symbols[4], debt)
    market.supply(market.roles["debtor"], symbols[4], 3 * gift)
    market.transfer_collateral(market.roles["debtor"], role(market, "gifted collateral"), symbols[4], gift)


def silent_moves(market: CompoundV3, rng: Random) -> None:
    """Debt that moves without a log naming the debtor: between debtors, to and from a supplier, to a new debtor."""
    symbol = market.assets[2].symbol
    debt = rng.randrange(1_000, 2_000) * market.small
    part = debt // 4
    for name in ("silent sender", "silent receiver", "debtor paying supplier", "debtor paid by supplier"):
        market.open_debt(role(market, name), symbol, debt, 0.4)
    market.supply(role(market, "silent newcomer"), symbol, market.worth(symbol, 3 * debt))
    market.transfer(market.roles["silent sender"], market.roles["silent receiver"], part)
    market.transfer(market.roles["silent newcomer"], market.roles["silent receiver"], part)
    market.transfer(market.roles["debtor paying supplier"], market.roles["supplier 1"], part)
    market.transfer(market.roles["supplier 1"], market.roles["debtor paid by supplier"], part)


def acting_for_others(market: CompoundV3) -> None:
    """A manager borrows for an account that allowed it; a stranger repays for it."""
    owner, manager = role(market, "managed"), role(market, "manager")
    debt = 8 * market.borrow_minimum
    market.open_debt(owner, market.assets[1].symbol, debt, 0.3)
    market.act(owner, "allow(address,bool)", [manager, True])
    function = "withdrawFrom(address,address,address,uint256)"
    market.act(manager, function, [owner, manager, market.tokens[market.base], debt], owner)
    market.supply(role(market, "stranger"), market.base, debt // 3, to=owner)


def crowd(market: CompoundV3, rng: Random, people: Sequence[str]) -> None:
    """Many accounts in a few big blocks: suppliers, holders of collateral, debtors of all healths."""
    assets = [a for a in market.assets if a.symbol not in (DEAD, market.assets[0].symbol)]
    # worth of the asset's smallest unit in the base's, as a fraction
    rates = {
        a.symbol: Fraction(market.price(a.symbol) * market.unit, market.price(market.base) * 10**a.decimals)
        for a in assets
    }
    base = market.tokens[market.base]
    actions: list[Transaction] = []
    for who in people:
        kind = rng.random()
        if kind < 0.15:
            amount = rng.randrange(1, 5_000 * market.small)
            actions.append(market.market_transaction(who, "supply(address,uint256)", base, amount))
            continue
        debt = rng.randrange(market.borrow_minimum, 2_500 * market.small)
        allowed = 0
        for asset in rng.sample(assets, rng.choice((1, 1, 2))):
            value = rng.randrange(debt, 3 * debt)
            token, amount = market.tokens[asset.symbol], int(value / rates[asset.symbol])
            actions.append(market.market_transaction(who, "supply(address,uint256)", token, amount))
            allowed += value * asset.borrow_factor // 100
        if kind > 0.25:
            amount = min(debt, int(allowed * rng.uniform(0.3, 0.999)))
            actions.append(market.market_transaction(who, "withdraw(address,uint256)", base, amount))
    market.sender.bulk(actions)
    market.note(*people)


def absorptions(market: CompoundV3, rng: Random) -> None:
    """One account absorbed with something left for it, one with a loss for the reserves; collateral sold on."""
    asset = market.assets[0]
    price = market.price(asset.symbol)
    lucky, ruined = role(market, "absorbed"), role(market, "absorbed at a loss")
    liquidator = role(market, "liquidator")
    debt = rng.randrange(10, 20) * market.borrow_minimum
    market.open_debt(lucky, asset.symbol, debt, 0.99)
    market.open_debt(ruined, asset.symbol, debt, 0.99)
    # halfway between "not liquidatable any more" and "nothing left for the account"
    middle = (Fraction(1, asset.liquidate_factor) + Fraction(1, asset.liquidation_factor)) / 2
    market.move_price(asset.symbol, asset.borrow_factor * Fraction(99, 100) * middle)
    market.absorb(liquidator, lucky)
    market.set_price(asset.symbol, price * 30 // 100)
    market.absorb(liquidator, ruined)
    function = "buyCollateral(address,uint256,uint256,address)"
    market.act(liquidator, function, [market.tokens[asset.symbol], 0, debt // 8, liquidator])
    market.set_price(asset.symbol, price)


def dust(market: CompoundV3) -> None:
    """A debt of a few smallest units: with 18 decimals its value is 0 although the principal is negative."""
    who = role(market, "dust debtor")
    left = 1 if market.base == "USDC" else 5 * 10**9
    market.open_debt(who, market.assets[2].symbol, 2 * market.borrow_minimum, 0.5)
    market.accrue(who, who)
    debt = market.answer(who).borrow_balance
    market.node.set_next_timestamp(market.node.timestamp())  # not a second more, so that exactly `left` stays
    market.supply(who, market.base, debt - left)


def dead_collateral(market: CompoundV3) -> None:
    """A feed dies: one debtor depends on it, one is covered before the loop reaches it, one has it without debt."""
    debt = 3 * market.borrow_minimum
    amount = market.worth(DEAD, debt)
    market.open_debt(role(market, "on dead collateral"), DEAD, debt, 0.6)
    covered = role(market, "covered before dead collateral")
    market.open_debt(covered, market.assets[1].symbol, debt, 0.4)
    market.supply(covered, DEAD, amount)
    market.supply(role(market, "dead collateral only"), DEAD, amount)
    market.set_price(DEAD, 0)


def squeeze(market: CompoundV3, rng: Random) -> None:
    """Lenders leave until 95 % are lent out, beyond the kink of both rates; weeks pass; they come back."""
    supplied, borrowed = (
        market.sender.call(market.comet, f"{total}()(uint256)") for total in ("totalSupply", "totalBorrow")
    )
    rest = supplied - borrowed * 100 // 95
    token = market.tokens[market.base]
    cash = market.sender.call(token, "balanceOf(address)(uint256)", [market.comet])
    if cash < rest:  # absorbed bad debt left the reserves negative; they are filled up
        market.sender.send(token, "mint(address,uint256)", [market.comet, rest - cash])
    taken: dict[str, int] = {}
    for lender in (market.roles[f"supplier {i}"] for i in range(3)):
        taken[lender] = min(rest, market.answer(lender).balance)
        rest -= taken[lender]
        market.withdraw(lender, market.base, taken[lender])
    market.node.elapse(rng.randrange(7, 30) * DAY)
    market.accrue(market.roles["keeper"], market.roles["supplier 0"])
    for lender, amount in taken.items():
        market.supply(lender, market.base, amount)


def edges(market: CompoundV3) -> None:
    """Prices fall; one debtor then holds the least collateral that still covers the stored debt, one a unit less.

    Nothing here accrues interest afterwards: the one just above is liquidatable as soon as somebody does.
    """
    asset = market.assets[4]
    above, below = role(market, "just above"), role(market, "just below")
    for who in (above, below):
        market.open_debt(who, asset.symbol, 7 * market.borrow_minimum + 12_345, 0.98)
    market.move_price(asset.symbol, 0.7)
    market.move_price(market.assets[2].symbol, 0.85)
    market.move_price(market.assets[1].symbol, 0.9)
    top_up(market, above, asset, 0)
    top_up(market, below, asset, 1)


def top_up(market: CompoundV3, who: str, asset: Asset, missing: int) -> None:
    """Bring the only collateral of `who` to the least amount that covers the debt, less `missing` smallest units."""
    debt = -market.principal(who) * market.totals()[1] // INDEX
    value = debt * market.price(market.base) // market.unit
    weighted = -(-value * FACTOR // (asset.liquidate_factor * PERCENT))
    least = -(-weighted * 10**asset.decimals // market.price(asset.symbol))
    market.supply(who, asset.symbol, least - missing - market.collateral(who, asset.symbol))


def step(market: CompoundV3, seed: int) -> None:
    """Up to 40 accounts do something, two newcomers appear, prices move, days pass; everyone else does nothing."""
    rng = Random(f"{market.name} step {seed} {market.steps}")
    market.node.elapse(rng.randrange(3_600, 20 * DAY))
    for asset in rng.sample([a for a in market.assets if a.symbol != DEAD], 2):
        market.move_price(asset.symbol, rng.uniform(0.85, 1.12))
    newcomers = [account(f"newcomer {seed} {market.steps} {i}") for i in range(2)]
    debt = rng.randrange(market.borrow_minimum * 2, 1_000 * market.small)
    for who in newcomers:
        market.supply(market.roles["supplier 0"], market.base, debt)  # so that there is something to borrow
        market.open_debt(who, rng.choice(market.assets[1:5]).symbol, debt, rng.uniform(0.4, 0.99))
    active = rng.sample(market.users, min(len(market.users) // 4, 40))
    for who in active:
        act_at_random(market, rng, who, newcomers)
    liquidatable = [who for who in active if market.answer(who).liquidatable]
    for who in liquidatable[: rng.randrange(1, 4)]:
        market.absorb(role(market, "liquidator"), who, check=False)


def act_at_random(market: CompoundV3, rng: Random, who: str, others: Sequence[str]) -> None:
    """One thing that `who` may or may not be allowed to do."""
    amount = rng.randrange(1, 600 * market.small)
    symbol = rng.choice(market.assets[:5]).symbol
    match rng.choice(("supply", "borrow", "borrow", "transfer", "collateral", "take back", "repay", "accrue")):
        case "supply":
            market.supply(who, market.base, amount)
        case "borrow":
            market.withdraw(who, market.base, amount, check=False)
        case "transfer":
            other = rng.choice([o for o in (*others, *market.users[:20]) if o != who])
            market.transfer(who, other, amount, check=False)
        case "collateral":
            market.supply(who, symbol, market.worth(symbol, amount))
        case "take back":
            market.withdraw(who, symbol, market.worth(symbol, amount), check=False)
        case "repay":
            market.supply(who, market.base, ALL)
        case "accrue":
            market.accrue(role(market, "keeper"), who)
