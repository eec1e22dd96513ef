"""What the benches of the protocols share: made-up addresses, and how many positions a second."""

import statistics
import time
from collections.abc import Iterator, Sequence

from indexer.adapter import Adapter
from indexer.model import Market, Position
from tests.bench.run import Result


def address(n: int) -> str:
    return f"0x{n:040x}"


def wallets(quick: bool) -> int:
    """How many made-up positions are measured."""
    return 5_000 if quick else 100_000


def rates(name: str, adapter: Adapter, market: Market, positions: Sequence[Position], quick: bool) -> Iterator[Result]:
    """Positions a second of CPU time, the median of five rounds (one if `quick`)."""
    for method in ("evaluate", "balances", "changes_silently"):
        function = getattr(adapter, method)
        times = []
        for _ in range(1 if quick else 5):
            start = time.process_time()
            for position in positions:
                function(market, position)
            times.append(time.process_time() - start)
        yield Result(f"{name} {method}", len(positions) / statistics.median(times), "positions/s")
