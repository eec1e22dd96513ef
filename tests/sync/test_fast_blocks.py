"""Chains whose blocks take less than a second: few requests, a snapshot every so often, and hashes kept by time."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer.chain.client import Chain
from indexer.chain.heads import Heads
from indexer.model import Accounts
from indexer.settings import Settings
from indexer.store.store import Store
from indexer.sync.follow import EVERY_SECONDS, follow, pace_of
from indexer.sync.sync import Outcome, Sync
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.aave_v3_scenario import Actions
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.faulty import FaultyNode
from tests.truth import adapter_of, raw, token_holders, wrong_aave_rows

A_SECOND = 4
SNAPSHOTS = 5


def mine_fast(node: Anvil, blocks: int) -> None:
    """Blocks of 250 ms."""
    began = node.timestamp()
    for number in range(1, blocks + 1):
        node.set_next_timestamp(began + number // A_SECOND)
        node.rpc("evm_mine")


def withdraw(market: AaveV3) -> None:
    """A little, in a block of its own."""
    sender, to, data, _ = Actions(market).withdraw(market.cast["supplier"], "WETH", 10**12).transaction
    market.sender.transact({"to": to, "data": data}, sender, "a withdrawal", check=True)


@pytest.fixture(scope="module")
def quick_market(needs_node: None) -> Iterator[AaveV3]:
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.6")
        market.populate(1, 12)
        mine_fast(node, 260)
        yield market


def snapshots(market: AaveV3, path: Path, blocks: int, *, fast: bool) -> int:
    """The JSON-RPC calls of later snapshots, so many blocks apart, each with something that somebody did."""
    node = market.node
    with (
        FaultyNode(node.url) as counting,
        Store(path) as store,
        store.lock(),
        closing(Chain("devnet", CHAIN_ID, [counting.url], MULTICALL3)) as chain,
    ):
        sync = Sync(store, chain, [adapter_of(market)], Accounts.ALL, Settings())
        sync.following = True
        if fast:
            assert pace_of(sync) == EVERY_SECONDS
        sync.snapshot()
        counting.calls.clear()
        for _ in range(SNAPSHOTS):
            withdraw(market)
            mine_fast(node, blocks - 1)
            sync.snapshot()
        return sum(counting.calls.values())


def test_a_minute_costs_at_most_three_times_what_it_costs_with_slow_blocks(
    quick_market: AaveV3, tmp_path: Path
) -> None:
    slow = snapshots(quick_market, tmp_path / "slow.db", 1, fast=False)  # a minute of blocks of 12 s
    quick = snapshots(quick_market, tmp_path / "quick.db", 12 * A_SECOND, fast=True)  # a minute of blocks of 250 ms
    assert quick <= 3 * slow
    assert wrong_aave_rows(tmp_path / "quick.db", quick_market, token_holders(quick_market)) == []


def test_a_chain_of_a_block_a_second_is_followed_block_by_block(needs_node: None, tmp_path: Path) -> None:
    with Anvil() as node, Store(tmp_path / "indexer.db") as store:
        node.mine(140)
        with closing(Chain("devnet", CHAIN_ID, [node.url], MULTICALL3)) as chain:
            sync = Sync(store, chain, [], Accounts.BORROWERS, Settings())
            assert pace_of(sync) == 0
            assert not sync.missing.by_range


def test_hashes_are_kept_for_a_time_and_not_fewer_than_before(quick_market: AaveV3, tmp_path: Path) -> None:
    node = quick_market.node
    for name, seconds, kept in (("hour.db", 3600.0, 4), ("blocks.db", 0.0, 3)):
        path, targets = tmp_path / name, []
        with closing(Chain("devnet", CHAIN_ID, [node.url], MULTICALL3)) as chain, Store(path) as store, store.lock():
            settings = Settings(keep_blocks=256, keep_seconds=seconds)
            sync = Sync(store, chain, [adapter_of(quick_market)], Accounts.BORROWERS, settings)
            for _ in range(4):
                targets.append(sync.snapshot().block.number)
                mine_fast(node, 100)
        found = {number for (number,) in raw(path, "select number from blocks")}
        assert len(found & set(targets)) == kept


@pytest.mark.parametrize("every", [0.0, 3600.0])
def test_snapshots_are_as_far_apart_as_told(quick_market: AaveV3, tmp_path: Path, every: float) -> None:
    """An hour apart there is one, and block by block there are more, while fifty blocks come after the first."""
    node, ended = quick_market.node, threading.Event()
    came: list[Outcome] = []

    def mine() -> None:
        while not ended.wait(0.02):
            node.rpc("evm_mine")

    def enough() -> bool:
        return bool(came) and node.block_number() >= came[0].block.number + 50

    miner = threading.Thread(target=mine)
    with (
        closing(Chain("devnet", CHAIN_ID, [node.url], MULTICALL3)) as chain,
        closing(Heads([node.url])) as heads,
        Store(tmp_path / "indexer.db") as store,
        store.lock(),
    ):
        settings = Settings(every_seconds=every)
        sync = Sync(store, chain, [adapter_of(quick_market)], Accounts.BORROWERS, settings)
        miner.start()
        try:
            follow(sync, heads, lambda outcome, _: came.append(outcome), until=enough, poll_seconds=0.05)
        finally:
            ended.set()
            miner.join()
    assert (len(came) == 1) == (every > 0)
