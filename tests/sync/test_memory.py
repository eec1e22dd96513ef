"""A live tail keeps what it knows and no more: its memory does not grow with the blocks it has seen."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, Self

import pytest
import requests

from indexer.chain.client import Chain
from indexer.chain.heads import Heads
from indexer.memory import share_one_heap
from indexer.model import Accounts, Deployment
from indexer.settings import Settings
from indexer.store.store import Store
from indexer.sync.follow import follow
from indexer.sync.sync import Outcome, Sync
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, MULTICALL3
from tests.devnet.worlds import KINDS, alone
from tests.disturbed import FORKS
from tests.truth import adapter_of, deployment_of

SETTLED = 100
#: What each snapshot after the first SETTLED may add. Measured: 0 Python blocks, 3 bytes of malloc, and of resident memory
#: 2,200 bytes over 500 blocks and 1,400 over 2,000, which is fragmentation: free memory that a larger peak touches for the
#: first time. A codec that lost 80 to 160 bytes at each of some hundred encoded calls added 40,000.
BLOCKS = 0.5
ALLOCATED_BYTES = 200
RESIDENT_BYTES = 4_000
RESIDENT_BYTES_IN_THE_LONG_RUN = 3_000
#: SQLite keeps up to 2 MB of pages, and a small file fills that slowly; with so few, the cache is full from the start.
CACHED_PAGES = 16


class Memory(NamedTuple):
    """What a process holds: Python's own blocks, bytes that malloc has handed out (glibc; else 0), resident bytes."""

    blocks: int
    allocated: int
    resident: int

    @classmethod
    def now(cls) -> Self:
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return cls(sys.getallocatedblocks(), malloced(), resident)


class Mallinfo(ctypes.Structure):
    """What mallinfo2 of glibc 2.33 and later returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )


def malloced() -> int:
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = Mallinfo
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


@pytest.fixture(scope="module")
def market(needs_node: None) -> Iterator[AaveV3]:
    with alone(KINDS["aave-3.6"], 3, 12) as market:
        yield market


def follow_in_a_child(path: Path, url: str, deployments: list[Deployment], blocks: int, told: Connection) -> None:
    """A tail that gets the next block as soon as it has taken one; sends its memory after each SETTLED of them."""
    share_one_heap()
    seen = 0

    def tell(_outcome: Outcome, _lag: float) -> None:
        nonlocal seen
        seen += 1
        if seen % SETTLED == 0:
            told.send(Memory.now())

    def next_block() -> bool:
        requests.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "evm_mine", "params": []}, timeout=60)
        return seen >= blocks

    with closing(Chain("devnet", CHAIN_ID, [url], MULTICALL3)) as chain, Store(path) as store, store.lock():
        store.conn.execute(f"pragma cache_size = {CACHED_PAGES}")
        sync = Sync(store, chain, [adapter_of(d) for d in deployments], Accounts.ALL, Settings())
        with closing(Heads([])) as heads:
            follow(sync, heads, tell, poll_seconds=0.01, until=next_block)


def grown(market: AaveV3, path: Path, blocks: int, resident: int = RESIDENT_BYTES) -> None:
    """Follows that many blocks, and asserts that what the snapshots after the first SETTLED add is within the bounds."""
    told, theirs = FORKS.Pipe(duplex=False)
    arguments = (path, market.node.url, [deployment_of(market)], blocks, theirs)
    process = FORKS.Process(target=follow_in_a_child, args=arguments)
    process.start()
    theirs.close()
    found: list[Memory] = []
    try:
        while len(found) < blocks // SETTLED:
            found.append(told.recv())
    finally:
        process.kill()
        process.join()
    added = [(last - first) / (blocks - SETTLED) for first, last in zip(found[0], found[-1], strict=True)]
    print(f"a snapshot adds {Memory(*added)}; {found}")
    assert added[0] < BLOCKS
    assert added[1] < ALLOCATED_BYTES
    assert added[2] < resident


def test_memory_is_flat_over_hundreds_of_blocks(market: AaveV3, tmp_path: Path) -> None:
    grown(market, tmp_path / "flat.db", 500)


@pytest.mark.long
def test_memory_is_flat_over_thousands_of_blocks(market: AaveV3, tmp_path: Path) -> None:
    grown(market, tmp_path / "flat.db", 2_000, RESIDENT_BYTES_IN_THE_LONG_RUN)


def test_positions_stay_in_the_file_while_a_chain_is_followed(market: AaveV3, tmp_path: Path) -> None:
    adapter = adapter_of(market)
    with (
        closing(Chain("devnet", CHAIN_ID, [market.node.url], MULTICALL3)) as chain,
        Store(tmp_path / "lean.db") as store,
    ):
        sync = Sync(store, chain, [adapter], Accounts.ALL, Settings())
        sync.following = True
        for _ in range(3):
            outcome = sync.snapshot()
            market.node.mine(1)
        (tracked,) = sync.markets.tracked.values()
        assert tracked.screen is not None
        assert len(tracked.held()) == outcome.positions > 10
        gc.collect()
        held = [one for one in gc.get_objects() if type(one) is adapter.position_type]
    assert held == []
