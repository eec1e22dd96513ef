"""From which block on a first sync reads logs: what the configuration says, unless the chain proves an earlier block."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.sync import start_blocks
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import Anvil
from tests.faulty import FaultyNode
from tests.truth import deployment_of, raw, sync_once, wrong_aave_rows

STORED = "select start_block, start_block_found from deployments"


@pytest.fixture(autouse=True)
def short_chains_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_blocks, "FEWEST_BLOCKS", 0)


@pytest.fixture(scope="module")
def market(needs_node: None) -> Iterator[AaveV3]:
    """A small market on a chain that is older than it."""
    with Anvil() as node:
        node.place_multicall3()
        node.mine(10)
        market = aave_v3.deploy(node, "3.0.2")
        market.populate(1, 12)
        yield market


@pytest.fixture
def created_in(market: AaveV3) -> int:
    """The block whose receipts name the addresses provider as created."""
    provider = market.addresses["pool_addresses_provider"].lower()
    for number in range(market.start_block, market.node.block_number()):
        receipts = market.node.rpc("eth_getBlockReceipts", hex(number))
        if any((receipt["contractAddress"] or "").lower() == provider for receipt in receipts):
            return number
    raise AssertionError("never created")


def test_no_start_block_becomes_the_one_that_the_chain_proves(market: AaveV3, created_in: int, tmp_path: Path) -> None:
    path = tmp_path / "indexer.db"
    deployment = replace(deployment_of(market), start_block=0)
    sync_once(path, market.node.url, [deployment], "borrowers")
    assert created_in > 10
    assert raw(path, STORED) == [(created_in, created_in)]
    assert raw(path, "select min(from_block) from synced_ranges") == [(created_in,)]
    assert wrong_aave_rows(path, market, market.borrowers) == []
    with FaultyNode(market.node.url) as counting:
        sync_once(path, counting.url, [deployment], "borrowers")
        assert counting.calls["eth_getCode"] == 1  # whether it is there at all: what was found is kept
    assert raw(path, STORED) == [(created_in, created_in)]


def test_a_start_block_that_is_too_late_is_moved_and_nobody_is_missing(
    market: AaveV3, created_in: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, late = tmp_path / "indexer.db", market.node.block_number() - 5
    sync_once(path, market.node.url, [replace(deployment_of(market), start_block=late)], "borrowers")
    assert raw(path, STORED) == [(created_in, created_in)]
    assert wrong_aave_rows(path, market, market.borrowers) == []
    assert f"exists since block {created_in}, before its start_block {late}" in caplog.text


def test_an_early_start_block_stays(market: AaveV3, created_in: int, tmp_path: Path) -> None:
    path, early = tmp_path / "indexer.db", created_in - 1
    sync_once(path, market.node.url, [replace(deployment_of(market), start_block=early)], "borrowers")
    assert raw(path, STORED) == [(early, None)]


@pytest.mark.parametrize("start", [0, 30])
def test_a_node_without_old_state_changes_no_start_block(market: AaveV3, tmp_path: Path, start: int) -> None:
    path = tmp_path / "indexer.db"
    with FaultyNode(market.node.url) as forgetful:
        forgetful.code_from = market.node.block_number() - 20
        sync_once(path, forgetful.url, [replace(deployment_of(market), start_block=start)], "borrowers")
    assert raw(path, STORED) == [(start, None)]
