"""Liquidation prices, amounts and times: the contracts' own answers flip exactly where we say."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexer.chain.client import Chain
from indexer.chain.pace import seconds_per_block
from indexer.model import WAD, Health, PositionKey
from indexer.risk.liquidation import (
    Curve,
    LiquidationPrice,
    Remedy,
    boundary,
    liquidation_price,
    numeraire_price,
    outlook,
    remedies,
    repay_to,
    time_to_liquidation,
    why_not,
)
from protocols.aave.math import percent_mul, wad_div
from tests.devnet import aave_v3, aave_v3_variants, compound_v2
from tests.devnet.aave_v3_scenario import Actions, perform
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.send import Reverted, account
from tests.liquidating import MAX, AaveGround, Ground, MakerGround, ground_of, populated_ground

USERS = 60
ENOUGH = 3

MARKETS = [
    ("aave-3.0.2", 1),
    ("aave-3.0.2", 2),
    ("aave-3.6", 1),
    ("aave-3.6", 2),
    ("aave-v2", 1),
    ("aave-v2", 2),
    ("compound-v2 half-up", 1),
    ("compound-v2 truncating", 2),
    ("comet USDC", 1),
    ("comet WETH", 2),
    ("maker", 1),
    ("maker", 2),
]


@pytest.fixture(scope="module", params=MARKETS, ids="{0[0]} seed {0[1]}".format)
def populated(request: pytest.FixtureRequest, needs_node: None) -> Iterator[Ground]:
    with populated_ground(*request.param, USERS) as ground:
        yield ground


def debtors(ground: Ground) -> tuple[Any, list[tuple[Any, Health]]]:
    """The market at the head, and every position with a health factor."""
    ground.start()
    market = ground.market
    healths = [(position, ground.adapter.evaluate(market, position)) for position in ground.positions.values()]
    return market, [(position, health) for position, health in healths if health.health_factor is not None]


def found_prices(ground: Ground, market: Any, positions: list[Any]) -> list[tuple[PositionKey, LiquidationPrice]]:
    found = []
    for position in positions:
        for price in ground.adapter.exposure(market, position):
            flip = liquidation_price(ground.adapter, market, position, price)
            if flip is not None:
                found.append((position.key, flip))
    return found


@pytest.mark.parametrize("accrued", [False, True], ids=["stored", "accrued"])
def test_the_contract_flips_between_the_two_prices(ground: Ground, accrued: bool) -> None:
    """Every debtor and every price, at one block, with nothing in the state changed but the oracle's answer."""
    if isinstance(ground, MakerGround) or (accrued and not ground.lazy):
        pytest.skip("Maker's prices come into force by transactions; Aave accrues in every answer")
    market, owing = debtors(ground)
    if accrued:
        market = ground.adapter.interest_stored(market)
    flips = found_prices(ground, market, [position for position, _ in owing])
    asked = [
        (key.account, ground.override(flip.price, value))
        for key, flip in flips
        for value in (flip.safe, flip.liquidatable)
    ]
    answers = iter(ground.liquidatable(asked, market.block.number, accrued=accrued))
    wrong = [(key, flip) for key, flip in flips if (next(answers), next(answers)) != (False, True)]
    assert not wrong
    assert len(flips) > len(owing) > USERS // 5
    assert all(abs(flip.safe - flip.liquidatable) == 1 for _, flip in flips)
    if isinstance(ground.devnet, aave_v3.AaveV302):  # an e-mode with a price source of its own
        assert dict(ground.devnet.extra_feeds.values()).keys() <= {flip.price.key for _, flip in flips}
    kinds = {(flip.price.collateral, flip.price.debt) for _, flip in flips}
    assert kinds >= {(True, False), (False, True)}
    for _, flip in flips:
        one_sided = flip.price.collateral != flip.price.debt
        assert not one_sided or (flip.safe > flip.liquidatable) == flip.price.collateral


def test_where_the_oracle_counts_in_ether_the_contract_flips_between_two_prices_of_ether(ground: Ground) -> None:
    """All prices but that of WETH change in ETH, as they do when ETH alone moves in USD."""
    market, owing = debtors(ground)
    found = [(p.key, flip) for p, _ in owing if (flip := numeraire_price(ground.adapter, market, p))]
    if ground.devnet.protocol != "aave-v2":
        assert not found
        return
    usdc = next(row.price for row in market.assets if row.symbol == "USDC")
    weth = next(row.asset for row in market.assets if row.symbol == "WETH")
    assert {(flip.price.symbol, flip.price.unit, flip.price.price) for _, flip in found} == {
        ("ETH", "USD", 10**26 // usdc)
    }
    asked = []
    for key, flip in found:
        for value in (flip.safe, flip.liquidatable):
            override: dict[str, Any] = {}
            for row in market.assets:
                if row.asset != weth and row.price:
                    one = replace(flip.price, key=row.asset)
                    override |= ground.override(one, row.price * flip.price.price // value)
            asked.append((key.account, override))
    answers = iter(ground.liquidatable(asked, market.block.number, accrued=False))
    assert not [(key, flip) for key, flip in found if (next(answers), next(answers)) != (False, True)]
    assert len(found) >= 5
    assert all(abs(flip.safe - flip.liquidatable) == 1 for _, flip in found)


def test_every_price_without_a_flip_has_none(ground: Ground) -> None:
    """Where we find no liquidation price the contract agrees at a tiny price and at a huge one."""
    if isinstance(ground, MakerGround):
        pytest.skip("every vault with debt and a price has a liquidation price")
    market, owing = debtors(ground)
    asked = []
    for position, health in owing:
        if ground.always(position):
            continue
        for price in ground.adapter.exposure(market, position):
            if liquidation_price(ground.adapter, market, position, price) is None:
                tries = [ground.override(price, value) for value in (1, price.price * 10**6)]
                asked += [(health.liquidatable, (position.key.account, override)) for override in tries]
    answers = ground.liquidatable([question for _, question in asked], market.block.number, accrued=False)
    assert answers == [liquidatable for liquidatable, _ in asked]


def test_real_price_changes_flip_the_contract(ground: Ground) -> None:
    """The oracle is set by transactions; what time does meanwhile is foreseen."""
    rng = Random(1)
    market, owing = debtors(ground)
    chosen = rng.sample(owing, min(8, len(owing)))
    checked = 0
    for position, _ in chosen:
        for price in ground.adapter.exposure(market, position):
            if ground.adapter.evaluate(market, position).blocked_by:
                continue
            for side in ("safe", "liquidatable"):
                snapshot = ground.node.snapshot()
                # An Aave V2 source is new with each price, which takes a block more.
                blocks = 2 if ground.devnet.protocol == "aave-v2" else 1
                then = ground.adapter.after(market, blocks, blocks)
                flip = liquidation_price(ground.adapter, then, position, price)
                if flip is not None:
                    ground.set_price(price, getattr(flip, side))
                    if isinstance(ground, MakerGround):
                        answer: bool | None = ground.unsafe(position.key)
                    else:
                        block = ground.node.block_number()
                        (answer,) = ground.liquidatable([(position.key.account, {})], block, accrued=False)
                    assert answer is (side == "liquidatable"), (position.key, flip)
                    checked += 1
                ground.node.revert(snapshot)
    assert checked >= 8


def sink(ground: Ground, percent: int) -> None:
    """All prices of collateral that is not debt's fall, so that many can be liquidated."""
    devnet = ground.devnet
    if isinstance(ground, MakerGround):
        for symbol in ("ETH", "WBTC", "USDC"):
            devnet.move_price(symbol, percent / 100)
    elif devnet.protocol == "aave-v2":
        for symbol in ("WBTC", "LINK"):
            devnet.move_price(symbol, percent / 100)
        devnet.move_price("DAI", 100 / percent)
    elif devnet.protocol == "aave-v3":
        for symbol in ("WETH", "wstETH", "WBTC", "LINK"):
            devnet.move_price(symbol, percent / 100)
    elif devnet.protocol == "compound-v2":
        for symbol in ("ETH", "WBTC", "BAT", "ZRX"):
            if devnet.price(symbol):
                devnet.move_price(symbol, percent / 100)
    else:
        for asset in devnet.assets:
            devnet.move_price(asset.symbol, percent / 130)


# amounts


@pytest.mark.parametrize("target", [WAD, 21 * WAD // 10], ids=["1.0", "2.1"])
def test_the_amounts_reach_the_target_and_one_unit_less_does_not(ground: Ground, target: int) -> None:
    """Repaid, or added, by a real transaction in the block for which the amount was computed."""
    if target == WAD:  # somebody has to be below it
        sink(ground, 85)
    _, owing = debtors(ground)
    healths = {position.key: health for position, health in owing if not health.blocked_by}
    keys = [key for key, health in healths.items() if WAD // 2 < (health.health_factor or 0) < target]
    enough = 1 if isinstance(ground, MakerGround) else ENOUGH  # of each ilk: gems have different decimals
    acts: list[tuple[str, str]] = []
    for key in Random(2).sample(keys, len(keys)):
        for remedy in remedies(ground.adapter, *ground.next(key), target):
            act = remedy.act, key.group
            if not remedy.refused and acts.count(act) < enough:
                with ground.devnet.rewound():
                    pay_exactly(ground, key, remedy, target)
                acts.append(act)
    assert {act for act, _ in acts} == {"repay", "add"}
    assert len(acts) >= 4


def pay_exactly(ground: Ground, key: PositionKey, like: Remedy, target: int) -> None:
    """The same remedy once everything is prepared, when time has passed: its amount is that of the next block."""
    ground.new_payer()
    ground.prepare(key, like.balance)
    market, position = ground.next(key)

    def place(remedy: Remedy) -> tuple[str, str, str]:
        return remedy.act, remedy.balance.market, remedy.balance.asset

    (one,) = (r for r in remedies(ground.adapter, market, position, target) if place(r) == place(like))
    with ground.devnet.rewound():
        ground.pay(one.act, key, one.balance, one.amount)
        factor = ground.factor(key)
        assert factor == one.health_factor, one
        assert factor is None or factor >= target, one
    if 1 < one.amount < one.balance.amount or one.act == "add":
        ground.pay(one.act, key, one.balance, one.amount - 1)
        factor = ground.factor(key)
        assert factor is not None, one
        assert factor < target, (one, factor)


# what one call closes


def test_the_largest_debt_that_a_liquidation_closes(ground: Ground) -> None:
    """A real call for all there is closes exactly what we said; where more would leave dust, a unit more is refused."""
    sink(ground, 75)
    _, owing = debtors(ground)
    liquidatable = [position.key for position, health in owing if health.liquidatable]
    calls: list[str] = []
    for key in Random(3).sample(liquidatable, len(liquidatable)):
        for pair in range(len(ground.adapter.liquidation_calls(*ground.next(key)))):
            if len(calls) < 2 * ENOUGH:
                with ground.devnet.rewound():
                    calls.append(close_exactly(ground, key, pair))
    assert calls.count("closed") >= 2


def test_the_largest_debt_just_below_liquidation(ground: Ground) -> None:
    """Here close factors bind: debts of all sizes, each by a price that has just gone too far."""
    opened = ground.open_sizes()
    market, owing = debtors(ground)
    safe = [(p, h) for p, h in owing if not h.liquidatable and not h.blocked_by and ground.adapter.exposure(market, p)]
    safe.sort(key=lambda pair: pair[1].debt_value or 0)
    sizes = safe[:: max(1, len(safe) // ENOUGH)]
    sizes += [(position, health) for position, health in safe if position.key.account in opened]
    calls: list[str] = []
    for position, _ in sizes:
        with ground.devnet.rewound():
            price = next((p for p in ground.adapter.exposure(market, position) if p.collateral != p.debt), None)
            flip = price and liquidation_price(ground.adapter, market, position, price)
            if not price or not flip:
                continue
            way = 1 if price.debt else -1
            fallen = flip.liquidatable + way * (flip.liquidatable // 40 + 1)
            ground.set_price(price, fallen)
            ground.market = ground.adapter.with_prices(market, {price.key: fallen})
            for pair in range(len(ground.adapter.liquidation_calls(*ground.next(position.key)))):
                with ground.devnet.rewound():
                    calls.append(close_exactly(ground, position.key, pair))
    assert calls.count("closed") >= 2
    assert ("no more for dust" in calls) == isinstance(ground.devnet, aave_v3.AaveV36)


def close_exactly(ground: Ground, key: PositionKey, pair: int) -> str:
    """One liquidation of this pair of debt and collateral; what came of it."""
    devnet, refusals = ground.devnet, (Reverted, compound_v2.Refused)
    ground.new_payer()
    ground.closing(key, ground.adapter.liquidation_calls(*ground.next(key))[pair])
    one = ground.adapter.liquidation_calls(*ground.next(key))[pair]
    everything = isinstance(ground, AaveGround)  # debtToCover is cut to what is allowed
    if one.refused:
        with pytest.raises(refusals):
            ground.close(key, one, MAX if everything else 1)
        return one.refused
    dusty = False
    with devnet.rewound():
        try:
            said = ground.close(key, one, MAX if everything else one.repaid)
        except Reverted as error:
            dusty = everything and "MustNotLeaveDust" in error.reason
            if not dusty:
                raise
    if dusty:
        with devnet.rewound():
            said = ground.close(key, one, one.repaid)
    assert said == {name: getattr(one, name) for name in said}, one
    if dusty or devnet.protocol == "compound-v2":
        with pytest.raises(refusals):
            ground.close(key, one, one.repaid + 1)
    return "no more for dust" if dusty else "closed"


@pytest.mark.parametrize("version", ["3.0.2", "3.6"])
def test_the_whole_debt_is_closed_at_a_health_factor_of_exactly_95_percent(fresh_node: Anvil, version: str) -> None:
    """In a market without any interest yet, and with every block at the same time so that none comes."""
    devnet = aave_v3.deploy(fresh_node, version)
    act, who, ground = Actions(devnet), account("at the close factor"), ground_of(devnet)
    ground.new_payer()
    opening = [act.supply(account("lender"), "USDC", 10**11), act.supply(who, "WETH", 10 * WAD)]
    perform(devnet, Random(1), opening, must=True)
    perform(devnet, Random(1), [act.borrow(who, "USDC", 16_500 * 10**6)], must=True)
    fresh_node.set_next_timestamp(fresh_node.timestamp())
    devnet.set_price("WETH", 1_900 * 10**8)  # 19,000 at a threshold of 82.5 % for 16,500
    assert devnet.answer(who)[5] == 95 * WAD // 100
    market, (position,) = ground.read([PositionKey(who)])
    (foreseen,) = ground.adapter.liquidation_calls(market, position)
    fresh_node.set_next_timestamp(fresh_node.timestamp())
    done = ground.close_now(PositionKey(who), foreseen, MAX)
    assert done["repaid"] == 16_500 * 10**6
    assert done == {name: getattr(foreseen, name) for name in done}
    ground.connection.chain.close()


def long(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("version", "seed"),
    [
        ("3.1", 3),
        ("3.3", 4),
        ("3.5", 5),
        ("3.7", 6),
        ("spark-untruncated", 7),
        *(long(version, seed) for version in ("3.0.2", "3.6") for seed in (8, 9)),
        *(long(version, seed) for version in ("3.1", "3.2", "3.3", "3.4", "3.5", "3.7") for seed in (10, 11)),
        *(long(version, seed) for version in ("spark", "spark-untruncated") for seed in (12, 13)),
    ],
)
def test_every_version_of_aave_takes_and_pays_what_was_foreseen(fresh_node: Anvil, version: str, seed: int) -> None:
    """Every pair of everybody who can be liquidated, after one fall and another."""
    packaged = version in ("3.0.2", "3.6")
    devnet = (aave_v3 if packaged else aave_v3_variants).deploy(fresh_node, version)
    devnet.populate(seed, USERS)
    ground = ground_of(devnet)
    calls = []
    for percent in (90, 80, 70):
        sink(ground, percent)
        _, owing = debtors(ground)
        for key in [position.key for position, health in owing if health.liquidatable]:
            for pair in range(len(ground.adapter.liquidation_calls(*ground.next(key)))):
                with devnet.rewound():
                    calls.append(close_exactly(ground, key, pair))
    ground.connection.chain.close()
    assert Counter(calls)["closed"] >= 10, Counter(calls)


def test_a_blocked_liquidation_says_why(ground: Ground) -> None:
    """What governance paused is refused by the contracts, for every pair, and both say so before."""
    sink(ground, 75)
    ground.block()
    _, owing = debtors(ground)
    blocked = [position.key for position, health in owing if health.liquidatable and health.blocked_by]
    reasons = set()
    for key in blocked[:4]:
        market, position = ground.next(key)
        closable = tuple(ground.adapter.liquidation_calls(market, position))
        health = ground.adapter.evaluate(market, position)
        why = why_not(health, closable)
        assert bool(why) == all(one.refused for one in closable)
        reasons.update(one.refused for one in closable if one.refused)
        for pair in range(len(closable)):
            with ground.devnet.rewound():
                close_exactly(ground, key, pair)
    assert reasons & ground.reasons


# time


def test_interest_alone_makes_it_liquidatable_to_the_second(ground: Ground) -> None:
    """A price just above the liquidation price, then nothing but time: the contracts flip when we said."""
    market, owing = debtors(ground)
    checked = 0
    for position, health in Random(4).sample(owing, len(owing)):
        prices = [price for price in ground.adapter.exposure(market, position) if price.collateral != price.debt]
        if health.liquidatable or health.blocked_by or not prices or checked >= 3:
            continue
        with ground.devnet.rewound():
            price = prices[0]
            flip = liquidation_price(ground.adapter, ground.adapter.interest_stored(market), position, price)
            if flip is None:
                continue
            # A few blocks, or days, of interest away from it.
            margin = flip.safe // (2_000_000 if ground.devnet.protocol == "compound-v2" else 2_000)
            ground.set_price(price, flip.safe + (margin if flip.safe > flip.liquidatable else -margin))
            later, (held,) = ground.read([position.key])
            seconds = time_to_liquidation(ground.adapter, later, held, seconds_per_block=1)
            if not seconds or (ground.blocks and seconds > 60):
                continue
            assert not at(ground, position.key, seconds - 1)
            assert at(ground, position.key, seconds)
            checked += 1
    assert checked >= 2


def at(ground: Ground, key: PositionKey, seconds: int) -> bool:
    """Whether the contracts call it liquidatable that much later, once interest is accrued."""
    with ground.devnet.rewound():
        if ground.blocks:
            ground.node.mine(seconds)
        else:
            ground.node.elapse(seconds)
        if isinstance(ground, MakerGround):
            ground.node.set_next_timestamp(ground.node.timestamp())
            ground.devnet.drip(key.group)
            return ground.unsafe(key)
        block = ground.node.block_number()
        (answer,) = ground.liquidatable([(key.account, {})], block, accrued=ground.lazy)
    assert answer is not None
    return answer


def test_the_pace_of_blocks_is_the_chains_own(fresh_node: Anvil) -> None:
    with Chain("devnet", CHAIN_ID, [fresh_node.url], MULTICALL3) as chain:
        assert seconds_per_block(chain, chain.block("latest")) is None
        fresh_node.mine(130, interval=7)
        assert seconds_per_block(chain, chain.block("latest")) == 7
        fresh_node.mine(300, interval=3)
        assert seconds_per_block(chain, chain.block("latest")) == 3, "the last 256 blocks: it changes"


# the whole


def test_the_outlook_tells_everything_at_the_accrued_state(ground: Ground) -> None:
    market, owing = debtors(ground)
    for position, _ in owing:
        found = outlook(ground.adapter, market, position, target=3 * WAD)
        accrued = ground.adapter.interest_stored(market)
        assert found.health == ground.adapter.evaluate(accrued, position)
        if found.health.unpriceable:
            assert not found.prices
            continue
        assert (found.seconds == 0) == found.health.liquidatable
        assert bool(found.closable) <= found.health.liquidatable
        assert bool(found.blocked) <= found.health.liquidatable
        assert all(remedy.health_factor is None or remedy.health_factor >= 3 * WAD for remedy in found.remedies)
        if found.health.health_factor is not None and found.health.health_factor >= 3 * WAD:
            assert not found.remedies
        for flip in found.prices:
            assert (flip.price.price >= max(flip.safe, flip.liquidatable)) == (flip.distance < 0)
    nobody = next(p for p in ground.positions.values() if not ground.adapter.evaluate(market, p).has_debt)
    nothing = outlook(ground.adapter, market, nobody)
    assert (nothing.prices, nothing.closable, nothing.remedies, nothing.seconds) == ((), (), (), None)


def test_a_wipe_through_the_proxy_actions_reaches_the_target(ground: Ground) -> None:
    """The amount in DAI, paid by DssProxyActions.wipe, which knows nothing of `art`."""
    if not isinstance(ground, MakerGround):
        pytest.skip("only Maker has them")
    devnet, (ilk, urn) = ground.devnet, ground.devnet.roles["proxied"]
    key = PositionKey(urn, ilk)
    devnet.drip(ilk)
    ground.start()
    target = ground.adapter.evaluate(*ground.next(key)).health_factor
    assert target is not None
    target = target * 101 // 100
    market, position = ground.next(key)
    (debt,) = [row for row in ground.adapter.balances(market, position) if row.side == "debt"]
    repay = repay_to(ground.adapter, market, position, debt, target)
    assert repay is not None
    (cdp,) = [number for number, pair in devnet.vaults.items() if pair == (ilk, urn)]
    owner, wallet, _ = devnet.owners[urn]
    args = [devnet.addresses["cdp_manager"], devnet.contracts["MCD_JOIN_DAI"], cdp]
    for amount, reached in ((repay.amount, True), (repay.amount - 10**9, False)):
        with devnet.rewound():
            ground.node.set_next_timestamp(ground.node.timestamp())
            devnet.execute(owner, wallet, "wipe(address,address,uint256,uint256)", [*args, amount])
            factor = ground.factor(key)
            assert factor is not None
            assert (factor >= target) == reached


def test_what_would_leave_dust_is_repaid_whole(ground: Ground) -> None:
    """Vat.frob refuses a debt under the dust: then the way to the target is to pay all of it."""
    if not isinstance(ground, MakerGround):
        pytest.skip("only Maker refuses to keep a small debt")
    devnet = ground.devnet
    ilk, urn = devnet.roles["raw"]
    key = PositionKey(urn, ilk)
    ground.start()
    market, position = ground.next(key)
    (debt,) = [row for row in ground.adapter.balances(market, position) if row.side == "debt"]
    repay = repay_to(ground.adapter, market, position, debt, 10**6 * WAD)
    assert repay is not None
    assert (repay.amount, repay.health_factor, repay.refused) == (debt.amount, None, None)
    with devnet.rewound():
        ground.new_payer()
        ground.prepare(key, debt)
        (debt,) = [row for row in ground.adapter.balances(*ground.next(key)) if row.side == "debt"]
        with pytest.raises(Reverted, match="Vat/dust"):
            ground.pay("repay", key, debt, debt.amount - 10**18)
        ground.pay("repay", key, debt, debt.amount)
        assert devnet.position(ilk, urn).art == 0


# the search


@given(st.integers(0, 300), st.integers(1, 300), st.integers(-50, 400), st.booleans())
def test_a_boundary_is_found_from_either_side_whatever_the_guess(
    start: int, length: int, guess: int, upwards: bool
) -> None:
    way = 1 if upwards else -1
    end = start + way * length
    turn = start + way * ((guess * 7) % length + 1)
    asked: list[int] = []

    def test(place: int) -> bool:
        asked.append(place)
        return way * place >= way * turn

    assert boundary(start, end, test, guess) == (turn - way, turn)
    assert len(asked) <= 30


@given(
    st.integers(1, 400),
    st.integers(1_000, 9_999),
    st.integers(0, 40_000),
    st.integers(1, 9_999),
    st.integers(1, 40_000),
)
@example(13, 168, 2_385, 6_056, 1_484)  # three flips each
@example(251, 127, 21_210, 6_675, 14_403)
def test_the_nearest_flip_is_found_though_the_limit_jumps(
    amount: int, threshold: int, other: int, other_threshold: int, debt: int
) -> None:
    """Against brute force: Aave up to 3.4, where a growing collateral can lower the average threshold by a step."""

    def evaluated(price: int) -> Health:
        value = amount * price
        collateral = value + other
        average = (value * threshold + other * other_threshold) // collateral
        limit = percent_mul(collateral, average)
        factor = wad_div(limit, debt)
        return Health(
            key=PositionKey("0x"),
            collateral_value=collateral,
            liquidation_limit=limit,
            debt_value=debt,
            health_factor=factor,
            has_debt=True,
            liquidatable=factor < WAD,
        )

    here, end = 300, 1
    curve = Curve(evaluated, averages=True)
    if curve[here].liquidatable:
        here, end = end, here
    states = [evaluated(price).liquidatable for price in range(1, 301)]
    way = 1 if end > here else -1
    path = range(here, end + way, way)
    flips = [(a, a + way) for a in path[:-1] if states[a - 1] != states[a + way - 1]]
    slope = curve.margin(2 * here) - curve.margin(here)
    guess = here - curve.margin(here) * here // slope if slope else here
    found = curve.flip(here, end, guess, WAD)
    if states[here - 1] == states[end - 1]:
        assert found is None
    else:
        assert found == flips[0]
