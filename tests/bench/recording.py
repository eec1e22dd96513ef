"""What of a followed block goes into the change stream and the trends: `python -m tests.bench.recording [--quick]`.

Against the fake node, as the bench `follow`, in a process that measures itself: CPU of the whole process, of the table `changes`
(the list before and after each commit, and its lines), and of `market_history` and `book_history` with the sums behind them.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from indexer.cli.main import main
from indexer.history.trends import Trends
from indexer.store import store
from indexer.store.book_sums import BookSums
from tests.bench.fake import Fake, fake, run_once, spent
from tests.bench.follow import BLOCKS, advance
from tests.bench.run import Result, run

SIZES = (2_000, 20_000, 100_000)
PARTS = ("changes", "trends")

spent_on: Counter[str] = Counter()


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose CPU counts for a part; so does what it returns, if that is a function to be called later."""

    def measured(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time_ns()
        try:
            found = function(*args, **kwargs)
        finally:
            spent_on[name] += time.process_time_ns() - began
        return timed(name, found) if callable(found) else found

    return measured


def measuring(report: Path) -> None:
    """Measures in this process, and writes the nanoseconds of each part to a file whenever it gets SIGUSR1."""
    noted = store.noted

    @contextmanager
    def measured(*args: Any, **kwargs: Any) -> Iterator[None]:
        began = time.process_time_ns()
        with noted(*args, **kwargs):
            spent_on["changes"] += time.process_time_ns() - began
            yield
            began = time.process_time_ns()
        spent_on["changes"] += time.process_time_ns() - began

    store.noted = measured  # type: ignore[assignment]
    Trends.__call__ = timed("trends", Trends.__call__)  # type: ignore[method-assign]
    for name in ("take_out", "put_in", "empty"):
        setattr(BookSums, name, timed("trends", getattr(BookSums, name)))
    signal.signal(signal.SIGUSR1, lambda *_: report.write_text(json.dumps(spent_on)))


def followed(node: Fake, report: Path) -> Iterator[Result]:
    """Some blocks of a live tail, each mined when the one before is committed."""
    run_once(node.command("sync", "--chain", "fake"))
    head = int(node.rpc("eth_blockNumber"), 16)
    words = [sys.executable, "-m", "tests.bench.recording", "--child", str(report), *node.command()[3:]]
    with subprocess.Popen(
        [*words, "sync", "--chain", "fake", "--follow"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            head = advance(node, process, head, 3)  # what it loads at the start is no block's
            first, before = snapshot_of(process.pid, report), spent(process.pid)
            for n in range(BLOCKS):
                head = advance(node, process, head, 4 + n)
            last, after = snapshot_of(process.pid, report), spent(process.pid)
        finally:
            process.terminate()
    whole = (after.cpu - before.cpu) / BLOCKS
    yield Result("CPU", whole, "s/block")
    for name in PARTS:
        seconds = (last.get(name, 0) - first.get(name, 0)) / 1e9 / BLOCKS
        yield Result(f"{name}: CPU", seconds, "s/block")
        yield Result(f"{name}: share", 100 * seconds / whole, "%")


def snapshot_of(pid: int, report: Path) -> dict[str, int]:
    """What the process has measured so far: it writes its report when it is sent SIGUSR1."""
    report.unlink(missing_ok=True)
    subprocess.run(["kill", "-USR1", str(pid)], check=True)
    limit = time.monotonic() + 30
    while not report.exists() or not report.read_text():
        if time.monotonic() > limit:
            raise RuntimeError("the process that is measured does not answer")
        time.sleep(0.02)
    found: dict[str, int] = json.loads(report.read_text())
    return found


def recording(quick: bool) -> Iterator[Result]:
    for users in SIZES[:1] if quick else SIZES[1:]:
        with tempfile.TemporaryDirectory() as name, fake(Path(name), users, 10 * users, 200_000) as node:
            for result in followed(node, Path(name) / "report.json"):
                yield result._replace(name=f"{users:,} borrowers, {result.name}")


if __name__ == "__main__" and sys.argv[1:2] == ["--child"]:
    measuring(Path(sys.argv[2]))
    main(sys.argv[3:])
elif __name__ == "__main__":
    run(recording)
