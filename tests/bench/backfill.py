"""How fast past logs become touched keys, and what more deployments of a chain cost: `python -m tests.bench.backfill [--quick]`.

Windows are counted against the fewest possible under caps of 10,000 logs and blocks. A first sync of few borrowers with many logs, less a sync one block later, is the back-fill. It is compared with a bare
loop over the same windows: post the request, decode the answer, cut the debtor out of each log, write the distinct ones.
"""

import http.client
import json
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.bench.fake import Fake, fake, run_once
from tests.bench.fakemarket import BORROW
from tests.bench.follow import advance
from tests.bench.run import Result, run

BLOCKS = 200_000
WINDOW = 10_000
TAIL = 3
CAP = 10_000


def bare_loop(node: Fake, folder: Path) -> float:
    """Seconds of CPU."""
    started = time.process_time()
    connection = http.client.HTTPConnection(node.url.removeprefix("http://"))
    with closing(sqlite3.connect(folder / "bare.db")) as conn:
        conn.execute("create table events (account text primary key, first integer, last integer) without rowid")
        for first in range(0, BLOCKS, WINDOW):
            asked = {"fromBlock": hex(first), "toBlock": hex(first + WINDOW - 1), "topics": [BORROW]}
            body = {"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [asked]}
            connection.request("POST", "/", json.dumps(body))
            logs = json.loads(connection.getresponse().read())["result"]
            touched = [("0x" + log["topics"][2][26:], int(log["blockNumber"], 16)) for log in logs]
            with conn:
                conn.executemany(
                    "insert into events values (?1, ?2, ?2) on conflict do update set last = excluded.last", touched
                )
    connection.close()
    return time.process_time() - started


def history(node: Fake, folder: Path, logs: int) -> Iterator[Result]:
    first = run_once(node.command("sync", "--chain", "fake"))
    node.rpc("bench_mine", 1, 0, 1_000_000)
    later = run_once(node.command("sync", "--chain", "fake"))
    own, bare = first.cpu - later.cpu, bare_loop(node, folder)
    yield Result("back-fill", logs / own, "logs/s of CPU")
    yield Result("back-fill: bare loop", logs / bare, "logs/s of CPU")
    yield Result("back-fill: ratio to the bare loop", bare / own, "x")
    yield Result("back-fill: memory", first.memory, "MB")


def windows(name: str, logs: int, blocks: int) -> Iterator[Result]:
    """Requests for logs under a provider's caps, against the fewest possible: logs are spread evenly here."""
    caps = [f"--max-logs={CAP}", f"--max-blocks={CAP}"]
    with tempfile.TemporaryDirectory() as folder, fake(Path(folder), 100, logs, blocks, options=caps) as node:
        plan = subprocess.run(
            node.command("sync", "--chain", "fake", "--dry-run"), capture_output=True, check=True
        ).stdout
        node.rpc("bench_reset")
        run_once(node.command("sync", "--chain", "fake"))
        methods = node.rpc("bench_stats")["methods"]
    recent = 64  # asked by hash, one call each
    asked = methods["eth_getLogs"] - recent
    yield Result(f"windows, {name}: requests", asked, "requests")
    planned = sum(row["log_requests"] for row in json.loads(plan))
    yield Result(f"windows, {name}: planned by --dry-run", planned / asked, "x")
    yield Result(f"windows, {name}: against the fewest", asked / max(-(-logs // CAP), -(-blocks // CAP)), "x")
    yield Result(f"windows, {name}: headers", methods["eth_getBlockByNumber"] - recent, "calls")


def deployments(count: int) -> Iterator[Result]:
    """A live tail of so many deployments of a chain; here they are the same contracts under as many names."""
    with tempfile.TemporaryDirectory() as name, fake(Path(name), 200, 1_000, BLOCKS, deployments=count) as node:
        run_once(node.command("sync", "--chain", "fake"))
        head = int(node.rpc("eth_blockNumber"), 16)
        with subprocess.Popen(
            node.command("sync", "--chain", "fake", "--follow"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                head = advance(node, process, head, 1)
                node.rpc("bench_reset")
                for step in range(TAIL):
                    head = advance(node, process, head, 2 + step)
                stats = node.rpc("bench_stats")
            finally:
                process.terminate()
        yield Result(f"{count} deployments, follow: requests", stats["requests"] / TAIL, "requests/block")


def backfill(quick: bool) -> Iterator[Result]:
    logs = 50_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory() as name, fake(Path(name), 1_000, logs, BLOCKS) as node:
        yield Result("logs", logs, "logs")
        yield from history(node, Path(name), logs)
    yield from windows("dense", 10 * logs, BLOCKS)
    yield from windows("sparse", logs // 10, 10 * BLOCKS)
    for count in (1, 4) if quick else (1, 4, 14):
        yield from deployments(count)


if __name__ == "__main__":
    run(backfill)
