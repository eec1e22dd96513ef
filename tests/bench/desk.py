"""What pages cost on a large made-up database: `python -m tests.bench.desk [--quick]`.

Wall time of one client's requests to a server process: the first page cold (a new process) and warm, other pages when they
are warm, and what is sent for the first page, compressed as a browser asks for it.
"""

import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.bench.fake import run_once
from tests.bench.run import Result, run

SIZES = (10_000, 100_000, 1_000_000)
PAGES = ("/", "/?below=1.5", "/book", "/opportunities", "/sync", "/what-if?price.eth=-20")
WARM = 5
#: seconds for what is computed in the background to be there
PATIENCE = 300.0


def desk(quick: bool) -> Iterator[Result]:
    for size in SIZES[:1] if quick else SIZES:
        with tempfile.TemporaryDirectory() as name:
            database, config = Path(name) / "large.db", Path(name) / "bench.toml"
            run_once([sys.executable, "-m", "tests.bench.population", str(database), str(config), str(size)])
            yield from served(database, config, size)


def served(database: Path, config: Path, size: int) -> Iterator[Result]:
    command = [sys.executable, "-m", "indexer", "--config", str(config), "--db", str(database), "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            base = process.stderr.readline().split()[1].rstrip("/")
            seconds, weight = asked(base, "/")
            yield Result(f"{size:,} positions, first page, cold", seconds * 1000, "ms")
            weight += sum(
                asked(base, f"/static/{name}")[1] for name in ("report.css", "desk.css", "htmx.min.js", "desk.js")
            )
            yield Result(f"{size:,} positions, first page, sent", weight / 1000, "kB")
            for path in PAGES:
                settle(base, path)
                times = sorted(asked(base, path)[0] for _ in range(WARM))
                yield Result(f"{size:,} positions, {path}, warm", times[WARM // 2] * 1000, "ms")
        finally:
            process.terminate()


def asked(base: str, path: str) -> tuple[float, int]:
    """Seconds and bytes of one answer."""
    request = urllib.request.Request(base + path, headers={"Accept-Encoding": "gzip"})
    began = time.monotonic()
    with urllib.request.urlopen(request) as answer:
        body = answer.read()
    return time.monotonic() - began, len(body)


def settle(base: str, path: str) -> None:
    """Waits until nothing of the page is still being added up."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with urllib.request.urlopen(base + path) as answer:
            if b'hx-trigger="every' not in answer.read():
                return
        time.sleep(0.5)


if __name__ == "__main__":
    run(desk)
