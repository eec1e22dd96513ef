"""Liquidation prices, amounts and times: the contracts' own answers flip exactly where we say."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from indexer.liquidation import (
    LiquidationPrice,
    liquidation_price,
)
from indexer.model import Health, PositionKey
from tests.devnet import aave_v2, aave_v3, compound_v2, compound_v3, maker
from tests.devnet.node import Anvil
from tests.devnet.scenario import Devnet
from tests.liquidating import Ground, MakerGround, ground_of

USERS = 60

MARKETS: dict[str, tuple[Callable[[Anvil], Devnet], int]] = {
    "aave-3.0.2 seed 1": (lambda node: aave_v3.deploy(node, "3.0.2"), 1),
    "aave-3.0.2 seed 2": (lambda node: aave_v3.deploy(node, "3.0.2"), 2),
    "aave-3.6 seed 1": (lambda node: aave_v3.deploy(node, "3.6"), 1),
    "aave-3.6 seed 2": (lambda node: aave_v3.deploy(node, "3.6"), 2),
    "aave-v2 seed 1": (aave_v2.deploy, 1),
    "aave-v2 seed 2": (aave_v2.deploy, 2),
    "compound-v2 half-up seed 1": (lambda node: compound_v2.deploy(node, generation="half-up"), 1),
    "compound-v2 half-up seed 2": (lambda node: compound_v2.deploy(node, generation="half-up"), 2),
    "compound-v2 truncating seed 1": (compound_v2.deploy, 1),
    "compound-v2 truncating seed 2": (compound_v2.deploy, 2),
    "comet USDC seed 1": (compound_v3.deploy, 1),
    "comet WETH seed 2": (lambda node: compound_v3.deploy(node, base="WETH", extended=True), 2),
    "maker seed 1": (maker.deploy, 1),
    "maker seed 2": (maker.deploy, 2),
}


@pytest.fixture(scope="module", params=MARKETS)
def populated(request: pytest.FixtureRequest, needs_node: None) -> Iterator[Ground]:
    deploy, seed = MARKETS[request.param]
    with Anvil() as node:
        node.place_multicall3()
        market = deploy(node)
        market.populate(seed, USERS)
        ground = ground_of(market)
        yield ground
        ground.connection.chain.close()


@pytest.fixture
def ground(populated: Ground) -> Iterator[Ground]:
    """A populated market; what a test does to it is undone."""
    with populated.devnet.rewound():
        yield populated


def debtors(ground: Ground) -> tuple[Any, list[tuple[Any, Health]]]:
    """The market at the head, and every position with a health factor."""
    market, positions = ground.read()
    healths = [(position, ground.adapter.evaluate(market, position)) for position in positions]
    return market, [(position, health) for position, health in healths if health.health_factor is not None]


def found_prices(ground: Ground, market: Any, positions: list[Any]) -> list[tuple[PositionKey, LiquidationPrice]]:
    found = []
    for position in positions:
        for price in ground.adapter.prices(market, position):
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
        market = ground.adapter.accrued(market)
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
    kinds = {(flip.price.collateral, flip.price.debt) for _, flip in flips}
    assert kinds >= {(True, False), (False, True)}
    for _, flip in flips:
        one_sided = flip.price.collateral != flip.price.debt
        assert not one_sided or (flip.safe > flip.liquidatable) == flip.price.collateral


def test_every_price_without_a_flip_has_none(ground: Ground) -> None:
    """Where we find no liquidation price the contract agrees at a tiny price and at a huge one."""
    if isinstance(ground, MakerGround):
        pytest.skip("every vault with debt and a price has a liquidation price")
    market, owing = debtors(ground)
    asked = []
    for position, health in owing:
        if ground.always(position):
            continue
        for price in ground.adapter.prices(market, position):
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
        for price in ground.adapter.prices(market, position):
            if ground.adapter.evaluate(market, position).blocked_by:
                continue
            for side in ("safe", "liquidatable"):
                snapshot = ground.node.snapshot()
                # An Aave V2 source is new with each price, which takes a block more.
                blocks = 2 if ground.devnet.protocol == "aave-v2" else 1
                then = ground.adapter.advance(market, blocks, blocks)
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
