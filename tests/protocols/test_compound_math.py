"""Compound V2's formulas, worked by hand from its contracts' source."""

from dataclasses import replace

import pytest

from indexer.model import WAD
from protocols.compound_v2.math import (
    HALF_UP,
    TRUNCATE,
    CToken,
    accrue,
    accrued_totals,
    exchange_rate,
    multiply,
    proves,
    tokens_to_denom,
    weigh,
)

TOKEN = CToken(
    address="0x" + "c" * 40,
    underlying="0x" + "a" * 40,
    symbol="cTOK",
    decimals=18,
    deprecated=False,
    collateral_factor=WAD // 2,
    price=3 * WAD // 4,
    exchange_rate=3,
    borrow_index=1_090,
    exchange_rate_accrued=5,
    borrow_index_accrued=1_122,
    cash=5_000,
    total_borrows=1_050,
    total_reserves=7,
    total_supply=12_345,
    reserve_factor=WAD // 2,
    rate=WAD // 100,
    per_second=False,
    accrued_at=0,
    unowned=0,
)


def test_the_old_exponential_rounds_half_up_and_the_new_one_cuts() -> None:
    products = [(1, WAD // 2 - 1), (1, WAD // 2), (1, WAD - 1), (3, WAD // 2), (2, WAD)]
    assert [multiply(*pair, HALF_UP) for pair in products] == [0, 1, 1, 2, 2]
    assert [multiply(*pair, TRUNCATE) for pair in products] == [0, 0, 0, 1, 2]
    assert [multiply(*pair, None) for pair in products] == [0, 0, 0, 1, 2]


def test_a_market_weighs_what_the_comptroller_multiplies() -> None:
    # 0.5 * 3 is 1.5, half up 2; 2 * 0.75 is 1.5, half up 2. Cut each time: 1, then 0.
    assert tokens_to_denom(WAD // 2, 3, 3 * WAD // 4, HALF_UP) == 2
    assert tokens_to_denom(WAD // 2, 3, 3 * WAD // 4, TRUNCATE) == 0
    # Unweighted it is 3 * 0.75 = 2.25, or 4 * 0.7 = 2.8, which is cut under either generation.
    # After accruing: 0.5 * 5 is 2.5, half up 3; 3 * 0.75 is 2.25, half up 2.
    half_up = weigh(TOKEN, HALF_UP)
    assert half_up == (2, 2, 2, 3 * WAD // 4, 1_090, 1_122)
    assert weigh(TOKEN, TRUNCATE) == weigh(TOKEN, None) == (2, 0, 1, 3 * WAD // 4, 1_090, 1_122)
    other = weigh(replace(TOKEN, exchange_rate=4, price=7 * WAD // 10), HALF_UP)
    assert other is not None
    assert other.value == 2
    assert weigh(replace(TOKEN, price=None), HALF_UP) is None


def test_interest_accrues_as_in_accrue_interest() -> None:
    # 3 blocks at 1 %: 3 % of 1,050 owed is 31.5, cut to 31; half of that is 15.5, cut to 15; 3 % of 1,090 is 32.7, cut to 32.
    assert accrued_totals(TOKEN, 3) == (1_122, 1_081, 22)
    assert accrued_totals(TOKEN, 0) == (1_090, 1_050, 7)
    # (5,000 + 1,081 - 22) / 12,345 = 0.490805994329688132...
    assert accrue(TOKEN, 3) == (1_122, 490_805_994_329_688_132)


def test_without_supply_the_exchange_rate_is_the_initial_one() -> None:
    assert exchange_rate(TOKEN, 1_081, 22) == 490_805_994_329_688_132
    assert exchange_rate(replace(TOKEN, total_supply=1), 1_081, 22) == 6_059 * WAD
    assert exchange_rate(replace(TOKEN, total_supply=0), 1_081, 22) == 3


@pytest.mark.parametrize(
    ("pair", "borrow_index", "debt", "proven"),
    [
        ((100, 3), 7, 233, True),  # 700 / 3 = 233.3
        ((100, 3), 7, 232, False),
        ((100, 3), 7, 234, False),
        ((5, 7), 7, 5, True),  # borrowed in this very block
        ((1, 1), 1, 1, True),
        ((0, 3), 7, 0, False),  # words of zeros prove nothing
        ((5, 0), 7, 5, False),
        ((0, 0), 7, 0, False),
    ],
)
def test_a_debt_is_proven_by_what_the_c_token_makes_of_it(
    pair: tuple[int, int], borrow_index: int, debt: int, proven: bool
) -> None:
    assert proves(pair, borrow_index, debt) is proven
