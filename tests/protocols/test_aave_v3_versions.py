"""The versions between 3.0.2 and 3.7, and SparkLend's line: their account arithmetic on a node, and told apart."""

import pytest

from protocols.aave_v3.rules import REVISIONS, RULES
from tests.aave import adapter_of, snapshot, summary, wrong
from tests.compound import Connection
from tests.devnet import aave_v3, aave_v3_variants
from tests.devnet.node import Anvil

DAY = 86_400


def everything_is_right(devnet: aave_v3.AaveV3, version: str) -> None:
    """At once, after steps, and after time that passed with nobody acting."""
    node, adapter = Connection(devnet.node), adapter_of(devnet)
    market, positions = snapshot(devnet, node.reader())
    assert (market.version, market.exact, market.settled) == (version, True, True)
    seen = summary(devnet, market, positions)
    assert min(seen["debt"], seen["no debt"], seen["e-mode"]) > 0
    assert wrong(devnet, market, positions) == []
    devnet.node.elapse(50 * DAY)
    devnet.move_price("WETH", 0.83)
    later = adapter.read_market(node.reader(), market)
    assert later.version == version  # kept, even where one block's rounding could be another version's
    assert wrong(devnet, later, positions) == []
    supposed = adapter.after(market, later.block.timestamp - market.block.timestamp, 1)
    assert [a.debt_index for a in supposed.assets] == [a.debt_index for a in later.assets]


def long(*values: str) -> object:
    """Compiled from source like the others, a third of a minute each on a new machine, and nearly like a neighbour."""
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize("version", ["3.1", long("3.2"), "3.3", long("3.4"), "3.5", long("3.7")])
def test_each_version_is_recognised_and_computed(fresh_node: Anvil, version: str) -> None:
    devnet = aave_v3_variants.deploy(fresh_node, version)
    devnet.populate(1, users=60)
    devnet.step(1)
    everything_is_right(devnet, version)


@pytest.mark.parametrize(
    ("variant", "version"),
    [long("spark", "3.0-explicit-rounding"), ("spark-untruncated", "3.0-explicit-rounding-untruncated")],
)
def test_what_totals_leave_open_accounts_decide(fresh_node: Anvil, variant: str, version: str) -> None:
    devnet = aave_v3_variants.deploy(fresh_node, variant)
    devnet.populate(1, users=60)
    market = adapter_of(devnet).read_market(Connection(fresh_node).reader(), None)
    assert not market.settled
    assert len(market.candidates) == 2
    everything_is_right(devnet, version)


def test_every_revision_leads_to_rules() -> None:
    assert {version for versions in REVISIONS.values() for version in versions} == set(RULES)
    assert list(REVISIONS) == list(range(1, 12))
