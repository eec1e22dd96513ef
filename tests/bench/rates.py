"""What the benches of the protocols share: made-up addresses, and how many positions a second."""

import statistics
import time
from collections.abc import Sequence

from indexer.adapter import Adapter
from indexer.model import Market, Position

WALLETS = 100_000


def address(n: int) -> str:
    return f"0x{n:040x}"


def print_rates(adapter: Adapter, market: Market, positions: Sequence[Position]) -> None:
    """CPU time, the median of five rounds."""
    for name in ("evaluate", "balances", "untracked"):
        function = getattr(adapter, name)
        times = []
        for _ in range(5):
            start = time.process_time()
            for position in positions:
                function(market, position)
            times.append(time.process_time() - start)
        print(f"{adapter.protocol} {name}: {len(positions) / statistics.median(times):,.0f} positions/s")
