"""A live tail holds what it knows and no more: its memory does not grow with the blocks it has seen."""

import gc
import os
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import requests

from indexer.chain.client import Chain
from indexer.chain.heads import Heads
from indexer.model import Accounts, Deployment
from indexer.settings import Settings
from indexer.store.store import Store
from indexer.sync.follow import follow
from indexer.sync.sync import Outcome, Sync
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.disturbed import FORKS
from tests.truth import adapter_of, deployment_of

SETTLED = 100
#: of resident memory that the blocks behind SETTLED may add, in bytes a snapshot; 80 to 160 bytes lost at each of some
#: hundred encoded calls were 40,000
ADDED = 4_000


@pytest.fixture(scope="module")
def market(needs_node: None) -> Iterator[AaveV3]:
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.6")
        market.populate(3, 12)
        yield market


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def follow_in_a_child(path: Path, url: str, deployments: list[Deployment], blocks: int, told: Connection) -> None:
    """A tail that is given the next block as soon as it has taken one; sends its memory after each SETTLED of them."""
    seen = 0

    def tell(_outcome: Outcome, _lag: float) -> None:
        nonlocal seen
        seen += 1
        if seen % SETTLED == 0:
            told.send(resident_bytes())

    def next_block() -> bool:
        requests.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "evm_mine", "params": []}, timeout=60)
        return seen >= blocks

    with closing(Chain("devnet", CHAIN_ID, [url], MULTICALL3)) as chain, Store(path) as store, store.lock():
        sync = Sync(store, chain, [adapter_of(d) for d in deployments], Accounts.ALL, Settings())
        with closing(Heads([])) as heads:
            follow(sync, heads, tell, poll_seconds=0.01, until=next_block)


def grown(market: AaveV3, path: Path, blocks: int) -> tuple[float, list[int]]:
    """Bytes a snapshot that were added behind the first SETTLED, and the sizes."""
    told, theirs = FORKS.Pipe(duplex=False)
    arguments = (path, market.node.url, [deployment_of(market)], blocks, theirs)
    process = FORKS.Process(target=follow_in_a_child, args=arguments)
    process.start()
    theirs.close()
    sizes = []
    try:
        while len(sizes) < blocks // SETTLED:
            sizes.append(told.recv())
    finally:
        process.kill()
        process.join()
    return (sizes[-1] - sizes[0]) / (blocks - SETTLED), sizes


def test_memory_is_flat_over_hundreds_of_blocks(market: AaveV3, tmp_path: Path) -> None:
    added, sizes = grown(market, tmp_path / "flat.db", 500)
    print(f"{added:,.0f} bytes a snapshot; {', '.join(f'{size / 2**20:.1f}' for size in sizes)} MiB")
    assert added < ADDED


@pytest.mark.long
def test_memory_is_flat_over_thousands_of_blocks(market: AaveV3, tmp_path: Path) -> None:
    added, sizes = grown(market, tmp_path / "flat.db", 2_000)
    print(f"{added:,.0f} bytes a snapshot; {', '.join(f'{size / 2**20:.1f}' for size in sizes)} MiB")
    assert added < ADDED / 4
