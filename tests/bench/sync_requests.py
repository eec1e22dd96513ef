"""Requests and seconds of a first sync and of a refresh: `python -m tests.bench.sync_requests [--quick]`.

Every market of the devnet is synced alone; the refresh follows one empty block, with the self-audit off and on.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.run import Result, run
from tests.devnet.__main__ import MARKETS
from tests.devnet.node import Anvil
from tests.truth import raw, sync_once

SYNCS = (("first sync", {}), ("refresh", {"audit_sample": 0, "audit_at_risk": 0}), ("refresh with self-audit", {}))


def sync_requests(quick: bool) -> Iterator[Result]:
    for name, deploy in MARKETS.items():
        for users in (20,) if quick else (100, 5_000):
            with Anvil(states_in_memory=256) as node, tempfile.TemporaryDirectory() as folder:
                node.place_multicall3()
                market = deploy(node)
                market.populate(1, users)
                path, label = Path(folder) / "bench.db", f"{name}, {users:,} users"
                for what, settings in SYNCS:
                    started = time.perf_counter()
                    outcome = sync_once(path, node.url, [market], "all", **settings)
                    yield Result(f"{label}: {what}", time.perf_counter() - started, "s")
                    yield Result(f"{label}: {what}", outcome.requests, "requests")
                    node.mine(1)
                yield Result(f"{label}: positions", raw(path, "select count(*) from positions")[0][0], "rows")


if __name__ == "__main__":
    run(sync_requests)
