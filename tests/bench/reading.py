"""What reading commands cost on a large made-up database: `python -m tests.bench.reading [--quick]`.

Each command is a process of its own, its output thrown away. Wall time depends on what else the machine does and on
whether the file is in memory; CPU hardly does.
"""

import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.bench.fake import run_once
from tests.bench.run import Result, run

SIZES = (10_000, 100_000, 1_000_000)
COMMANDS = (
    "--help",
    "status",
    "at-risk --csv",
    "at-risk --below 1.2 --csv",
    "top --csv",
    "top --by risk --csv",
    "top --by collateral --csv",
    "show WALLET --json",
    "report WALLET --format md",
    "report book --format md",
    "simulate --shock WETH=-20% --csv",
    "simulate --sweep eth=0..-60%:20% --csv",
    "export at-risk --csv",
    "export positions --csv",
    "export wallets --csv",
)


def reading(quick: bool) -> Iterator[Result]:
    for size in SIZES[:1] if quick else SIZES:
        with tempfile.TemporaryDirectory() as name:
            database, config = Path(name) / "large.db", Path(name) / "bench.toml"
            # in a process of its own, as a process that starts another one counts its own memory as that one's too
            run_once([sys.executable, "-m", "tests.bench.population", str(database), str(config), str(size)])
            with closing(sqlite3.connect(database)) as conn:
                (wallet,) = conn.execute("select wallet from positions order by debt_usd desc limit 1").fetchone()
            yield Result(f"{size:,} positions, database", database.stat().st_size / 1e6, "MB")
            for text in COMMANDS:
                words = text.replace("WALLET", wallet).split()
                started = time.monotonic()
                used = run_once(
                    [sys.executable, "-m", "indexer", "--config", str(config), "--db", str(database), *words]
                )
                label = f"{size:,} positions, {text}"
                yield Result(label, time.monotonic() - started, "s")
                yield Result(f"{label}: CPU", used.cpu, "s")
                yield Result(f"{label}: memory", used.memory, "MB")
            yield from one_wallet(database, wallet, size)


def one_wallet(database: Path, wallet: str, size: int) -> Iterator[Result]:
    """The view `wallets`: one wallet of it, and all."""
    with closing(sqlite3.connect(database)) as conn:
        for what, sql in (
            ("one wallet", "select * from wallets where wallet = ?"),
            ("all wallets", "select * from wallets where ? is not null"),
        ):
            started = time.process_time()
            for _ in conn.execute(sql, (wallet,)):
                pass
            yield Result(f"{size:,} positions, view wallets, {what}: CPU", time.process_time() - started, "s")


if __name__ == "__main__":
    run(reading)
