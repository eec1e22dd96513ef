"""Requests and seconds of a first sync and of a refresh, by number of users: python -m tests.bench.sync_requests [USERS...]

Every market of the devnet is synced alone; the refresh follows one empty block, with the self-audit on and off.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.devnet.__main__ import MARKETS
from tests.devnet.node import Anvil
from tests.truth import raw, sync_once


def main(counts: list[int], names: list[str]) -> None:
    print(f"{'market':20} {'users':>6} {'rows':>6}  first sync        refresh      refresh with self-audit")
    for name in names:
        for users in counts:
            with Anvil(states_in_memory=256) as node, tempfile.TemporaryDirectory() as folder:
                node.place_multicall3()
                market = MARKETS[name](node)
                market.populate(1, users)
                path = Path(folder) / "bench.db"
                cells = []
                for settings in ({}, {"audit_sample": 0, "audit_at_risk": 0}, {}):
                    started = time.perf_counter()
                    outcome = sync_once(path, node.url, [market], "all", **settings)
                    cells.append(f"{outcome.requests:4} req {time.perf_counter() - started:6.2f} s")
                    node.mine(1)
                rows = raw(path, "select count(*) from positions")[0][0]
                print(f"{name:20} {users:6} {rows:6}  {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdecimal()]
    main(numbers or [100, 5000], [word for word in sys.argv[1:] if not word.isdecimal()] or list(MARKETS))
