"""How long the commands over a whole book take, each as a process of its own: `python -m tests.bench.book [--quick]`."""

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.database import command, large_database, largest_wallet
from tests.bench.run import Result, run

COMMANDS = (
    "at-risk --csv",
    "top --by debt --csv",
    "top --by risk --csv",
    "report book --format md",
    "report WALLET --format md",
    "export at-risk --csv",
    "export positions --csv",
    "export positions --parquet",
    "export balances --nl",
    "export wallets --csv",
)


def book(quick: bool) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        database, config, positions = large_database(Path(folder), quick)
        yield Result("positions", positions, "rows")
        yield Result("database", database.stat().st_size / 1e6, "MB")
        wallet = largest_wallet(database)
        for text in COMMANDS:
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            started = time.monotonic()
            command(database, config, text.replace("WALLET", wallet))
            yield Result(text, time.monotonic() - started, "s")
            yield Result(f"{text}: CPU", resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, "s")


if __name__ == "__main__":
    run(book)
