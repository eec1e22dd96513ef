"""`forecast` of a whole book and of one wallet, time and memory: `python -m tests.bench.forecast [--quick]`.

The positions are made up, 2 % of them below a health factor of 1.25; the prices are random walks of 400 days.
"""

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.database import command, largest_wallet
from tests.bench.population import populate
from tests.bench.run import Result, run
from tests.forecast.past import fill

DAYS, NEAR = 400, 0.02


def forecast(quick: bool) -> Iterator[Result]:
    count = 2_000 if quick else 100_000
    with tempfile.TemporaryDirectory() as name:
        database, config = Path(name) / "large.db", Path(name) / "bench.toml"
        populate(database, config, count, near=NEAR)
        fill(database, config, days=DAYS)
        one = f"forecast {largest_wallet(database)} --csv"
        for what, text in (
            ("one wallet, right after the file was written", one),
            ("one wallet, again", one),
            (f"{count:,} wallets, 2,000 paths, 7d", "forecast book --within 7d --csv"),
        ):
            started = time.monotonic()
            command(database, config, text)
            yield Result(what, time.monotonic() - started, "s")
            # the largest of the processes that were waited for; that of the book is the largest
            yield Result(f"{what}: memory", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, "MB")


if __name__ == "__main__":
    run(forecast)
