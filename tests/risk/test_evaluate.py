"""What the integers of an evaluation are called."""

import pytest

from indexer.model import Health, PositionKey
from indexer.risk.evaluate import status
from indexer.units import scaled


def health(factor: int) -> Health:
    return Health(
        key=PositionKey("0x" + "11" * 20),
        collateral_value=2,
        liquidation_limit=2,
        debt_value=1,
        health_factor=factor,
        has_debt=True,
        liquidatable=False,
    )


@pytest.mark.parametrize(("bound", "digits"), [(1.1, "1100000000000000000"), (1.13, "1130000000000000000")])
def test_at_risk_is_below_the_bound_as_it_was_written_to_the_last_digit(bound: float, digits: str) -> None:
    assert status(health(int(digits)), verified=True, at_risk_below=bound) == "healthy"
    assert status(health(int(digits) - 1), verified=True, at_risk_below=bound) == "at-risk"


def test_a_bound_finer_than_1e_18_is_rounded_up() -> None:
    assert scaled(1e-19) == 1
