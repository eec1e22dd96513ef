"""What wrong bloom filters cost: requests and seconds of a first sync and of three followed blocks, by kind of wrongness.

python -m tests.bench.wrong_blooms [MARKET]
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.devnet.__main__ import MARKETS
from tests.devnet.node import Anvil
from tests.faulty import FaultyNode
from tests.faulty_modes import BLOOM_FAULTS
from tests.truth import sync_once


def main(name: str) -> None:
    with Anvil() as node, tempfile.TemporaryDirectory() as folder:
        node.place_multicall3()
        market = MARKETS[name](node)
        market.populate(1, 50)
        node.mine(100)
        for fault in (None, *BLOOM_FAULTS):
            with FaultyNode(node.url, faults={fault: 1} if fault else {}) as faulty, market.rewound():
                path = Path(folder) / f"{fault}.db"
                started = time.perf_counter()
                sync_once(path, faulty.url, [market])
                first = time.perf_counter() - started
                requests = faulty.requests
                for seed in range(3):
                    market.step(seed)
                    sync_once(path, faulty.url, [market])
                seconds = time.perf_counter() - started
                print(
                    f"{fault or 'undisturbed':14} first sync {requests:4} requests {first:6.2f} s, "
                    f"with three more {faulty.requests:4} requests {seconds:6.2f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "aave-v3-6")
