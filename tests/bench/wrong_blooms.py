"""What wrong bloom filters cost: `python -m tests.bench.wrong_blooms [--quick]`.

Requests and seconds of a first sync and of followed blocks, undisturbed and with a filter that is wrong on every block.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.run import Result, run
from tests.devnet.__main__ import MARKETS
from tests.devnet.node import Anvil
from tests.faulty import FaultyNode
from tests.faulty_modes import BLOOM_FAULTS
from tests.truth import sync_once


def wrong_blooms(quick: bool) -> Iterator[Result]:
    with Anvil() as node, tempfile.TemporaryDirectory() as folder:
        node.place_multicall3()
        market = MARKETS["aave-v3-6"](node)
        market.populate(1, 20 if quick else 100)
        node.mine(10 if quick else 200)
        for fault in (None, *BLOOM_FAULTS):
            with FaultyNode(node.url, faults={fault: 1} if fault else {}) as faulty, market.rewound():
                path, label = Path(folder) / f"{fault}.db", fault or "undisturbed"
                started = time.perf_counter()
                sync_once(path, faulty.url, [market])
                yield Result(f"{label}: first sync", time.perf_counter() - started, "s")
                yield Result(f"{label}: first sync", faulty.requests, "requests")
                for seed in range(1 if quick else 10):
                    market.step(seed)
                    sync_once(path, faulty.url, [market])
                yield Result(f"{label}: with the blocks that follow", time.perf_counter() - started, "s")
                yield Result(f"{label}: with the blocks that follow", faulty.requests, "requests")


if __name__ == "__main__":
    run(wrong_blooms)
