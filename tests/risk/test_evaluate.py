"""What the integers of an evaluation are called."""

from random import Random

import pytest

from indexer.model import Health, PositionKey
from indexer.risk.evaluate import status
from indexer.units import least_at
from tests.aave import adapter_of, snapshot
from tests.compound import Connection
from tests.devnet import aave_v3
from tests.devnet.aave_v3_scenario import Actions, perform
from tests.devnet.node import Anvil
from tests.devnet.send import account


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
    assert least_at(1e-19) == 1


def test_a_debt_worth_nothing_is_no_debt(fresh_node: Anvil) -> None:
    """A unit of DAI is worth less than a unit of base currency, which Aave 3.0.2 rounds down."""
    devnet = aave_v3.deploy(fresh_node, "3.0.2")
    act, who = Actions(devnet), account("debtor of nothing")
    opening = [act.supply(account("lender"), "DAI", 10**21), act.supply(who, "WETH", 10**18)]
    perform(devnet, Random(1), opening, must=True)
    perform(devnet, Random(1), [act.borrow(who, "DAI", 1)], must=True)
    answer = devnet.answer(who)
    assert (answer[1], answer[5]) == (0, aave_v3.MAX_UINT)
    node, adapter = Connection(fresh_node), adapter_of(devnet)
    market, positions = snapshot(devnet, node.reader())
    node.chain.close()
    found = adapter.evaluate(market, positions[who])
    assert (found.has_debt, found.debt_value, found.health_factor) == (True, 0, None)
    assert status(found, verified=True) == "no-debt"
