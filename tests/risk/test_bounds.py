"""No position of any protocol lies outside the bounds of its book, however its market and its amounts are chosen.

The truth is the adapters' exact `evaluate`, which other tests hold against the contracts' own answers.
"""

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.adapter import AnyAdapter, Bounded, Line, Weight
from indexer.model import RAY, WAD, Block, Deployment, PositionKey
from indexer.risk.bounds import Book
from indexer.risk.evaluate import status
from protocols.aave_v2 import AaveV2
from protocols.aave_v2.market import AaveV2Market
from protocols.aave_v2.market import Reserve as ReserveV2
from protocols.aave_v2.position import AaveV2Position
from protocols.aave_v3 import AaveV3
from protocols.aave_v3.market import AaveV3Market, EMode
from protocols.aave_v3.market import Reserve as ReserveV3
from protocols.aave_v3.position import AaveV3Position
from protocols.aave_v3.rules import RULES
from protocols.compound_v2 import CompoundV2
from protocols.compound_v2.market import CompoundV2Market
from protocols.compound_v2.math import GENERATIONS, CToken
from protocols.compound_v2.position import CompoundV2Position
from protocols.compound_v3 import CompoundV3
from protocols.compound_v3.market import Collateral, CompoundV3Market
from protocols.compound_v3.position import CompoundV3Position
from protocols.maker import Maker
from protocols.maker.market import Gem, Ilk, MakerMarket
from protocols.maker.position import Urn
from tests.bench import aave_v2 as bench_v2
from tests.bench import aave_v3 as bench_v3
from tests.bench import compound as bench_compound
from tests.bench import maker as bench_maker

BLOCK = Block(1, "0x" + "11" * 32, "0x" + "22" * 32, 1_700_000_000)
KEY = PositionKey("0x" + "ab" * 20)


def address(n: int) -> str:
    return f"0x{n:040x}"


def amount(rng: Random, digits: int) -> int:
    """Dust and fortunes alike."""
    return rng.randrange(1, 10 ** rng.randint(1, digits))


def maybe_price(rng: Random, digits: int) -> int | None:
    return None if rng.random() < 0.03 else 0 if rng.random() < 0.02 else amount(rng, digits)


def reserve(rng: Random, i: int) -> dict[str, Any]:
    decimals = rng.choice((0, 2, 6, 8, 18))
    threshold = rng.choice((0, 1, rng.randrange(10_001)))
    return {
        "id": i,
        "asset": address(1000 + i),
        "symbol": f"A{i}",
        "configuration": 7500 | threshold << 16 | 10500 << 32 | decimals << 48 | 1 << 56,
        "a_token": address(2000 + i),
        "variable_debt_token": address(3000 + i),
        "liquidity_index": RAY,
        "liquidity_rate": 0,
        "variable_borrow_index": RAY,
        "variable_borrow_rate": 0,
        "last_update": BLOCK.timestamp,
        "income": RAY + rng.randrange(RAY),
        "debt_index": RAY + rng.randrange(RAY),
        "scaled_supply": 0,
        "scaled_debt": 0,
        "price": maybe_price(rng, 20),
    }


def aave_amounts(rng: Random, reserves: Any) -> dict[str, Any]:
    supplied = rng.sample(reserves, rng.randint(0, len(reserves)))
    borrowed = rng.sample(reserves, rng.randint(0, len(reserves)))
    flagged = [r for r in supplied if rng.random() < 0.9]
    return {
        "key": KEY,
        "block_number": 1,
        "configuration": sum(r.collateral_flag for r in flagged) | sum(r.borrowing_flag for r in borrowed),
        "supplied": {r.a_token: amount(rng, 30) for r in supplied},
        "borrowed": {r.variable_debt_token: amount(rng, 30) for r in borrowed},
    }


def aave_v3(rng: Random) -> tuple[AnyAdapter, Any, Any]:
    reserves = tuple(ReserveV3(**reserve(rng, i)) for i in range(rng.randint(1, 6)))
    modes = tuple(
        EMode(
            id=i,
            ltv=9000,
            liquidation_threshold=rng.randrange(10_001),
            liquidation_bonus=10_100,
            collateral_bitmap=rng.randrange(64),
            price_source=address(5) if rng.random() < 0.1 else None,
            price=maybe_price(rng, 20),
        )
        for i in (1, 2)
    )
    market = AaveV3Market(
        block=BLOCK, revision="", pool=address(1), oracle=address(2), pool_revision=0, usd=(1, 10**8),
        version=rng.choice(list(RULES)), reserves=reserves, e_modes=modes,
    )  # fmt: skip
    position = AaveV3Position(
        **aave_amounts(rng, reserves), mode=rng.choice((0, 0, 1, 2)), stable={}, discounts={}, amounts={}
    )
    return AaveV3(Deployment("", "aave-v3", "", 0, {"pool_addresses_provider": address(0)})), market, position


def aave_v2(rng: Random) -> tuple[AnyAdapter, Any, Any]:
    reserves = tuple(
        ReserveV2(**reserve(rng, i), stable_debt_token=address(4000 + i), stable_debt=0)
        for i in range(rng.randint(1, 6))
    )
    market = AaveV2Market(
        block=BLOCK, revision="", pool=address(1), oracle=address(2), pool_revision=1, reserves=reserves
    )
    position = AaveV2Position(**aave_amounts(rng, reserves), stable={}, offsets={})
    return AaveV2(Deployment("", "aave-v2", "", 0, {"lending_pool_addresses_provider": address(0)})), market, position


def compound_v2(rng: Random) -> tuple[AnyAdapter, Any, Any]:
    tokens = {}
    for i in range(rng.randint(1, 6)):
        index, rate = WAD + rng.randrange(WAD), amount(rng, 28)
        tokens[address(i)] = CToken(
            address=address(i), underlying=address(100 + i), symbol="T", decimals=18, deprecated=rng.random() < 0.05,
            collateral_factor=rng.choice((0, rng.randrange(WAD))), price=maybe_price(rng, 36) or None,
            exchange_rate=rate, borrow_index=index, exchange_rate_accrued=rate + 1, borrow_index_accrued=index + 1,
            cash=0, total_borrows=0, total_reserves=0, total_supply=1, reserve_factor=0, rate=0, per_second=False,
            accrued_at=0, unowned=0,
        )  # fmt: skip
    market = CompoundV2Market(
        block=BLOCK, revision="", comptroller=address(999), c_tokens=tokens, rounding=rng.choice(GENERATIONS)
    )
    entered = tuple(rng.sample(list(tokens), rng.randint(0, len(tokens))))
    held, owed = rng.sample(entered, rng.randint(0, len(entered))), rng.sample(entered, rng.randint(0, len(entered)))
    position = CompoundV2Position(
        key=KEY, block_number=1, entered=entered, c_tokens={token: amount(rng, 24) for token in held},
        borrows={token: (amount(rng, 30), WAD + rng.randrange(tokens[token].borrow_index - WAD + 1)) for token in owed},
    )  # fmt: skip
    return CompoundV2(Deployment("", "compound-v2", "", 0, {"comptroller": address(999)})), market, position


def compound_v3(rng: Random) -> tuple[AnyAdapter, Any, Any]:
    collaterals = tuple(
        Collateral(
            asset=address(i), offset=i, scale=10 ** rng.choice((6, 8, 18)), liquidate_factor=rng.randrange(WAD + 1),
            price=maybe_price(rng, 14) or None, total_supply=0,
        )
        for i in range(rng.randint(1, 12))
    )  # fmt: skip
    market = CompoundV3Market(
        block=BLOCK, revision="", comet=address(999), base=address(998), base_scale=10 ** rng.choice((6, 18)),
        base_price=maybe_price(rng, 14) or None, base_borrow_min=1, supply_index=10**15,
        borrow_index=10**15 + rng.randrange(10**15), supply_index_accrued=10**15, borrow_index_accrued=2 * 10**15,
        supply_rate=1, borrow_rate=1, accrued_at=0, total_supply_base=0, total_borrow_base=0, absorb_paused=False,
        collaterals=collaterals,
    )  # fmt: skip
    held = rng.sample(collaterals, rng.randint(0, len(collaterals)))
    principal = rng.choice((0, amount(rng, 24), -amount(rng, 24), -amount(rng, 24)))
    position = CompoundV3Position(
        key=KEY, block_number=1, principal=principal,
        collateral={c.asset: amount(rng, 26) for c in sorted(held, key=lambda c: c.offset)},
    )  # fmt: skip
    return CompoundV3(Deployment("", "compound-v3", "", 0, {"comet": address(999)})), market, position


def maker(rng: Random) -> tuple[AnyAdapter, Any, Any]:
    spot = 0 if rng.random() < 0.05 else amount(rng, 31)
    ilk = Ilk(
        Art=0, rate=RAY + rng.randrange(RAY), spot=spot, line=0, dust=0, pip=address(5), mat=3 * RAY // 2, duty=RAY,
        rho=0, accrued_rate=2 * RAY, gem=Gem("GEM"),
    )  # fmt: skip
    contracts = {"vat": address(1), "spotter": address(2), "jug": address(3), "cdp_manager": address(4)}
    market = MakerMarket(
        block=BLOCK, revision="", usd=(1, 10**45), contracts=contracts, live=1, debt=0, vice=0, surplus=0, par=RAY,
        base=0, ilks={"GEM-A": ilk},
    )  # fmt: skip
    held = {"owner": KEY.account, "owner_via": "self", "wallet": KEY.account}
    key = PositionKey(KEY.account, rng.choice(("GEM-A", "GEM-A", "GEM-A", "GONE-A")))
    ink, art = (rng.choice((0, amount(rng, 30), amount(rng, 30))) for _ in range(2))
    return Maker(Deployment("", "maker", "", 0, contracts)), market, Urn(
        key=key, block_number=1, ink=ink, art=art, cdp=None, **held
    )  # fmt: skip


WORLDS = {
    "aave-v2": aave_v2,
    "aave-v3": aave_v3,
    "compound-v2": compound_v2,
    "compound-v3": compound_v3,
    "maker": maker,
}
every_protocol = pytest.mark.parametrize("protocol", WORLDS)


def bounded(adapter: AnyAdapter, market: Any, position: Any, tighten: float = 0.0) -> tuple[bool, dict[str, Any]]:
    """Whether the position is left open, and its bounds; `tighten` raises the lower bound of the limit by so much."""
    assert isinstance(adapter, Bounded)
    book = Book()
    book.put(0, adapter.lines(market, position))
    weights = adapter.slot_weights(market, book.slots)
    if tighten:
        weights = [w and w._replace(limit_low=w.limit_low * (1 + tighten)) for w in weights]
    bounds = book.bounds(weights)
    names = ("limit_low", "limit_high", "debt_low", "debt_high", "health_low", "health_high")
    return bool(bounds.open[0]), {name: float(getattr(bounds, name)[0]) for name in names} | {
        "has_debt": bool(book.has_debt[0])
    }


def outside(adapter: AnyAdapter, market: Any, position: Any, tighten: float = 0.0) -> str | None:
    """What of the exact evaluation lies outside the bounds."""
    left_open, of = bounded(adapter, market, position, tighten)
    if left_open:
        return None
    health = adapter.evaluate(market, position)
    if health.unpriceable:
        return "unpriceable, and not open"
    if health.has_debt != of["has_debt"]:
        return "debt"
    if not of["limit_low"] <= health.liquidation_limit <= of["limit_high"]:
        return f"limit {health.liquidation_limit} in {of}"
    if not of["debt_low"] <= health.debt_value <= of["debt_high"]:
        return f"debt {health.debt_value} in {of}"
    if health.health_factor is None:
        return None
    if not of["health_low"] * WAD <= health.health_factor <= of["health_high"] * WAD:
        return f"health factor {health.health_factor} in {of}"
    name = status(health, verified=True)
    if of["health_low"] >= 1.25 and name != "healthy":
        return f"{name} at {of['health_low']}"
    return None


@pytest.mark.slow
@every_protocol
@settings(max_examples=1_000)
@given(st.integers(0, 2**64))
def test_nobody_lies_outside_the_bounds(protocol: str, seed: int) -> None:
    assert outside(*WORLDS[protocol](Random(seed))) is None


@pytest.mark.long
@every_protocol
@settings(max_examples=100_000)
@given(st.integers(0, 2**64))
def test_nobody_of_very_many_lies_outside_the_bounds(protocol: str, seed: int) -> None:
    assert outside(*WORLDS[protocol](Random(seed))) is None


@every_protocol
def test_a_bound_that_is_too_tight_is_noticed(protocol: str) -> None:
    cases = [WORLDS[protocol](Random(seed)) for seed in range(300)]
    found = [outside(*case, tighten=0.01) for case in cases]
    assert sum(one is not None for one in found) > 20


@every_protocol
def test_typical_positions_are_bounded_closely(protocol: str) -> None:
    """Bounds that leave everybody open, or are wide, would hold as well and be of no use."""
    v2, v3, vat, count = bench_v2.market(), bench_v3.market("3.0"), bench_maker.market(), 500
    adapter, market, positions = {
        "aave-v2": lambda: (aave_v2(Random(0))[0], v2, bench_v2.positions(v2, count)),
        "aave-v3": lambda: (aave_v3(Random(0))[0], v3, bench_v3.positions(v3, count)),
        "compound-v2": lambda: bench_compound.compound_v2(count),
        "compound-v3": lambda: bench_compound.compound_v3(count),
        "maker": lambda: (maker(Random(0))[0], vat, bench_maker.positions(vat, count)),
    }[protocol]()
    book = Book()
    for row, position in enumerate(positions):
        book.put(row, adapter.lines(market, position))
    bounds = book.bounds(adapter.slot_weights(market, book.slots))
    assert bounds.open.mean() < 0.1  # stable debt
    debtors = book.has_debt & ~bounds.open
    assert debtors.sum() > 200
    width = bounds.health_high[debtors] / bounds.health_low[debtors] - 1
    assert np.quantile(width, 0.95) < 5e-4


@every_protocol
def test_lines_are_replaced_row_by_row(protocol: str) -> None:
    """A book that was changed many times says what a new one says."""
    rng = Random(5)
    adapter, *_ = WORLDS[protocol](rng)
    assert isinstance(adapter, Bounded)
    book, rows = Book(), {}
    for _ in range(4_000):
        row = rng.choice((len(book), rng.randrange(len(book) + 1)))
        lines = rng.choice(
            (None, [], [Line(rng.randrange(9), rng.random(), debt=rng.random() < 0.5)] * rng.randint(1, 4))
        )
        book.put(row, lines)
        rows[row] = lines
    fresh = Book()
    for row in range(len(book)):
        fresh.put(row, rows[row])
    weight = {slot: Weight(slot, slot + 1, slot + 2, 0.0, 0.0) for slot in range(9)}
    ours, theirs = (of.bounds([weight[slot] for slot in of.slots]) for of in (book, fresh))
    for name in ("limit_low", "limit_high", "debt_low", "debt_high", "open"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-12)
    np.testing.assert_array_equal(book.has_debt, fresh.has_debt)


def test_nothing_is_left_of_lines_that_were_replaced() -> None:
    """Neither what they weigh, nor what their rounding adds, nor that no weight bounds them."""
    book = Book()
    book.put(0, [Line("gone", 5.0, debt=True), Line("gone", 5.0, debt=False)])
    book.put(1, [Line("kept", 3.0, debt=False)])
    book.put(0, [Line("kept", 2.0, debt=False)])
    for gone in (None, Weight(7.0, 7.0, 7.0, 7.0, 7.0)):
        bounds = book.bounds([{"gone": gone, "kept": Weight(1.0, 1.0, 0.0, 0.0, 0.0)}[slot] for slot in book.slots])
        assert bounds.open.tolist() == [False, False]
        assert bounds.limit_high.tolist() == pytest.approx([2.0, 3.0])
        assert bounds.limit_low.tolist() == pytest.approx([2.0, 3.0])
        assert bounds.debt_high.tolist() == [0.0, 0.0]


def test_a_row_that_nothing_bounds_is_open_until_it_has_lines() -> None:
    book = Book()
    book.put(0, None)
    book.put(1, [])
    assert book.bounds([]).open.tolist() == [True, False]
    book.put(0, [])
    assert book.bounds([]).open.tolist() == [False, False]
    book.put(3, [])
    assert book.bounds([]).open.tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="1 weights for 0 slots"):
        book.bounds([None])


def test_a_book_does_not_grow_with_its_history() -> None:
    book = Book()
    for amount in range(5_000):
        book.put(0, [Line("slot", float(amount))])
    assert book._used < 1_500


@pytest.mark.parametrize("lines", [4_096, 4_097, 10_000])
def test_one_row_may_have_more_lines_than_a_book_begins_with(lines: int) -> None:
    book = Book()
    book.put(0, [Line("one", 1.0)])
    book.put(1, [Line("many", 1.0)] * lines)
    book.put(2, [Line("two", 2.0)])
    bounds = book.bounds([Weight(1.0, 1.0, 0.0, 0.0, 0.0)] * 3)
    assert bounds.limit_low == pytest.approx([1, lines, 2], rel=1e-10)


def test_a_market_that_lost_a_price_leaves_its_holders_open() -> None:
    adapter, market, position = next(
        world
        for world in (aave_v3(Random(seed)) for seed in range(100))
        if not bounded(*world)[0] and world[2].borrowed
    )
    dead = replace(market, reserves=tuple(replace(r, price=None) for r in market.reserves))
    assert bounded(adapter, dead, position)[0]
