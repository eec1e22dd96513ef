"""Aave's integer maths against its own libraries on a node, and against values worked out by hand."""

from collections.abc import Callable
from random import Random

import pytest

from protocols.aave import math as aave_math
from protocols.aave.math import RAY, WAD
from tests.devnet.contracts import hardhat_artifact
from tests.devnet.node import Anvil
from tests.devnet.packages import package
from tests.devnet.send import Sender

YEAR = 31_536_000


@pytest.mark.parametrize(
    ("function", "ours"),
    [("rayMul", aave_math.ray_mul), ("wadDiv", aave_math.wad_div)],
)
def test_rounding_is_the_library_s(fresh_node: Anvil, function: str, ours: Callable[[int, int], int]) -> None:
    """WadRayMathWrapper is core-v3's own contract around its WadRayMath."""
    folder = package("@aave/core-v3", "1.19.3") / "artifacts" / "contracts" / "mocks" / "tests"
    sender = Sender(fresh_node)
    library = sender.deploy(hardhat_artifact(folder / "WadRayMathWrapper.sol" / "WadRayMathWrapper.json"))
    rng = Random(function)
    pairs = [
        (rng.randrange(10 ** rng.randrange(1, 38)), 1 + rng.randrange(10 ** rng.randrange(1, 30))) for _ in range(300)
    ]
    # ties and their neighbours, where roundings differ
    pairs += [(n * 5 + d, 10**k) for n in (1, 3, 7) for d in (-1, 0, 1) for k in (3, 17, 26)]
    answers = sender.calls([(library, f"{function}(uint256,uint256)(uint256)", pair) for pair in pairs])
    assert [ours(*pair) for pair in pairs] == answers


def test_percentages_round_half_up() -> None:
    # PercentageMath.percentMul: "rounded half up" at 0.5 of the last unit.
    assert [aave_math.percent_mul(value, 5000) for value in (1, 2, 3)] == [1, 1, 2]
    assert aave_math.percent_mul(9999, 1) == 1
    assert aave_math.percent_mul(4999, 1) == 0
    assert aave_math.percent_mul(2 * RAY + 2, 5000) == RAY + 1


def test_products_and_quotients_round_half_up() -> None:
    # WadRayMath: (a * b + HALF_RAY) / RAY, (a * RAY + b / 2) / b, (a * WAD + b / 2) / b.
    assert [aave_math.ray_mul(1, b) for b in (RAY // 2 - 1, RAY // 2, 3 * RAY // 2)] == [0, 1, 2]
    # 1 / 3 = 0.33..., 2 / 3 = 0.66..., 0.5 and a little less than 0.5 of the last digit
    third, two_thirds = 333_333_333_333_333_333, 666_666_666_666_666_667
    assert [aave_math.wad_div(*pair) for pair in ((1, 3), (2, 3))] == [third, two_thirds]
    assert [aave_math.wad_div(1, b) for b in (2 * WAD, 2 * WAD + 2)] == [1, 0]
    assert [aave_math.ray_div(*pair) for pair in ((1, 3), (2, 3))] == [
        333_333_333_333_333_333_333_333_333,
        666_666_666_666_666_666_666_666_667,
    ]
    assert [aave_math.ray_div(1, b) for b in (2 * RAY, 2 * RAY + 2)] == [1, 0]
    # PercentageMath.percentDiv: 1 / 0.3 = 3.33, 1 / 0.4 = 2.5, 1 / 0.6 = 1.67
    assert [aave_math.percent_div(1, points) for points in (3000, 4000, 6000)] == [3, 3, 2]
    assert aave_math.percent_div(RAY + 1, 5000) == 2 * RAY + 2


@pytest.mark.parametrize("compound", [aave_math.compound_v2, aave_math.compound_v30, aave_math.compound_v34])
def test_no_time_is_no_interest(compound: Callable[[int, int], int]) -> None:
    assert compound(RAY, 0) == RAY


def test_a_second_earns_a_second_s_share() -> None:
    # Y does not divide a ray, so the truncation shows: 10**27 // 31_536_000.
    assert aave_math.linear_interest(RAY, 1) == RAY + 31_709_791_983_764_586_504
    # V3.0 with one second: no second and third term, as both carry a factor of exp - 1 = 0.
    assert aave_math.compound_v30(RAY, 1) == RAY + 31_709_791_983_764_586_504
    assert aave_math.compound_v2(RAY, 1) == RAY + 31_709_791_983_764_586_504


def test_a_year_at_ten_percent_by_each_formula() -> None:
    rate = RAY // 10
    # 3.4: 1 + x + x^2/2 + x^3/6 with x = 0.1, up to the half-up roundings of the two ray products.
    assert aave_math.compound_v34(rate, YEAR) == 1_105_166_666_666_666_666_666_666_667
    # The older ones step by seconds and cut in between: near that value, and not equal to each other.
    v30, v2 = aave_math.compound_v30(rate, YEAR), aave_math.compound_v2(rate, YEAR)
    assert v30 != v2
    for older in (v30, v2):
        assert 0 < abs(1_105_166_666_666_666_666_666_666_667 - older) < 10**22


def test_a_few_seconds_by_each_formula() -> None:
    # 0.002 a second, and a part of the yearly rate that V2 cuts off: powers 4e-6 and 8e-9. 5 seconds: 5 * 0.002, 5 * 4 / 2
    # times 4e-6, 5 * 4 * 3 / 6 times 8e-9. V3.0 cuts after the time: 5 * (YEAR - 1) / YEAR = 4 more of the last digit.
    rate = 2 * 10**24 * YEAR + YEAR - 1
    assert aave_math.compound_v2(rate, 5) == RAY + 10**25 + 4 * 10**22 + 8 * 10**19
    assert aave_math.compound_v30(rate, 5) == RAY + 10**25 + 4 + 4 * 10**22 + 8 * 10**19
    # 2 seconds: the square once, no cube yet.
    assert aave_math.compound_v2(rate, 2) == RAY + 4 * 10**24 + 4 * 10**21
    assert aave_math.compound_v30(rate, 2) == RAY + 4 * 10**24 + 1 + 4 * 10**21
    # V3.4, x = 0.3 and less than a digit: 1 + 0.3 + 0.3 * (0.15 + 0.3 * 0.05).
    assert aave_math.compound_v34(3 * 10**26 * YEAR + YEAR - 1, 1) == 13_495 * 10**23
    # Linear: one digit less than 5 * 0.002 and 5 digits.
    assert aave_math.linear_interest(rate, 5) == RAY + 10**25 + 4


def test_a_discount_waives_its_share_of_the_interest_only() -> None:
    # 1000 scaled, index 1.0 -> 1.1: 100 of interest, 30 % of it waived.
    debt = aave_math.discounted_debt(1000 * WAD, 11 * RAY // 10, RAY, 3000)
    assert debt == 1070 * WAD
    assert aave_math.discounted_debt(1000 * WAD, 11 * RAY // 10, RAY, 0) == 1100 * WAD
    assert aave_math.discounted_debt(1000 * WAD, 11 * RAY // 10, 11 * RAY // 10, 3000) == 1100 * WAD
    # a basis point of 100
    assert aave_math.discounted_debt(1000 * WAD, 11 * RAY // 10, RAY, 1) == 1100 * WAD - WAD // 100


def test_the_interest_that_gho_waives_is_rounded_half_up() -> None:
    # GhoVariableDebtToken.balanceOf: rayMul, less percentMul of what rayMul says it grew by. 10 grew to 13, 15 or 17.
    # 30 % of 3 is 0.9, of 5 is 1.5, of 7 is 2.1.
    grown = (13 * RAY // 10, 15 * RAY // 10, 17 * RAY // 10)
    assert [aave_math.discounted_debt(10, index, RAY, 3000) for index in grown] == [13 - 1, 15 - 2, 17 - 2]
    # 3 at 1.5 is 4.5 and counts as 5, at 1.1 it is 3.3 and counts as 3: it grew by 2, of which 1 is waived.
    assert aave_math.discounted_debt(3, 15 * RAY // 10, 11 * RAY // 10, 5000) == 4
