"""A first sync from a node that is far away: `python -m tests.bench.flight [--quick]`.

The fake node takes 300 ms for each request and refuses more than 8 at a time. The fewest seconds possible are those of all
its requests, 8 at a time. Before positions are read, the market and past logs are read one after the other.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.fake import fake, run_once
from tests.bench.run import Result, run

LATENCY = 300.0
IN_FLIGHT = 8


def flight(quick: bool) -> Iterator[Result]:
    for users in (5_000,) if quick else (20_000, 100_000):
        for most in (1, IN_FLIGHT):
            with (
                tempfile.TemporaryDirectory() as name,
                fake(Path(name), users, users, 20_000, options=(f"--latency={LATENCY}", f"--in-flight={most}")) as node,
            ):
                started = time.monotonic()
                used = run_once(node.command("sync", "--chain", "fake"))
                seconds, stats = time.monotonic() - started, node.rpc("bench_stats")
                least = LATENCY / 1000 * stats["requests"] / most
                about = f"{users:,} borrowers, {most} at a time"
                yield Result(f"{about}: until the at-risk list is right", seconds, "s")
                yield Result(f"{about}: requests", stats["requests"], "requests")
                yield Result(f"{about}: refused requests", stats["refused"], "requests")
                yield Result(f"{about}: sub-calls", stats["calls"] / users, "calls/borrower")
                yield Result(f"{about}: CPU", used.cpu, "s")
                yield Result(f"{about}: ratio to latency x requests / {most}", seconds / least, "x")


if __name__ == "__main__":
    run(flight)
