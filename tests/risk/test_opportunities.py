"""`indexer opportunities` against real calls: each row says exactly what one liquidation takes and pays."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from indexer.cli.main import main
from indexer.cli.opportunities import COLUMNS
from tests.devnet import aave_v2, aave_v3, compound_v2, compound_v3, maker
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import Devnet, config_toml
from tests.devnet.send import Reverted
from tests.earning import Row, Till, everything, till_of
from tests.liquidating import Ground, ground_of
from tests.risk.test_liquidation import sink

USERS = 60
MARKETS: dict[str, tuple[Callable[[Anvil], Devnet], int]] = {
    "aave-3.0.2 seed 3": (lambda node: aave_v3.deploy(node, "3.0.2"), 3),
    "aave-3.6 seed 3": (lambda node: aave_v3.deploy(node, "3.6"), 3),
    "aave-v2 seed 3": (aave_v2.deploy, 3),
    "compound-v2 half-up seed 3": (lambda node: compound_v2.deploy(node, generation="half-up"), 3),
    "compound-v2 truncating seed 4": (compound_v2.deploy, 4),
    "comet USDC seed 3": (compound_v3.deploy, 3),
    "comet WETH seed 4": (lambda node: compound_v3.deploy(node, base="WETH", extended=True), 4),
    "maker seed 3": (maker.deploy, 3),
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


def listed(ground: Ground, folder: Path, *flags: str) -> list[dict[str, Any]]:
    """What the command lists of the market at its head."""
    config = folder / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, ground.node.url, [ground.devnet]))
    options = ["--config", str(config), "--db", str(folder / "indexer.db")]
    for command in (["sync", "--chain", "devnet", "--accounts", "all"], ["opportunities", "--json", *flags]):
        result = CliRunner().invoke(main, [*options, *command])
        assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    assert all(list(row) == COLUMNS for row in found)
    return found


def liquidate(till: Till, row: Row) -> dict[str, Any]:
    """The most that the contracts take; where that would leave dust behind, what the row says."""
    try:
        return till.made(row, everything(till.ground, row))
    except Reverted as error:
        if "MustNotLeaveDust" not in error.reason:
            raise
        return till.made(row, int(row["repaid_raw"]))


def differing(row: Row, shown: dict[str, Any]) -> dict[str, Any]:
    return {name: (row[name], value) for name, value in shown.items() if row[name] != value}


@pytest.mark.parametrize("percent", [90, 70])
def test_each_row_says_what_the_call_takes_and_pays(ground: Ground, percent: int, tmp_path: Path) -> None:
    sink(ground, percent)
    till = till_of(ground)
    rows = listed(ground, tmp_path)
    wrong, made = {}, 0
    for row in rows:
        key = row["account"], row["position_group"]
        if row["refused"] is not None:
            assert row["profit_before_gas_usd"] is row["profit_after_gas_usd"] is row["repaid_raw"] is None
            continue
        shown = liquidate(till, row)
        used = shown.pop("gas_used")
        assert row["gas"] / 2 < used < row["gas"] * 2, (row["function"], used)
        if differing(row, shown):
            wrong[key] = differing(row, shown)
        made += 1
    assert not wrong
    assert made >= 2, [row["refused"] for row in rows]
