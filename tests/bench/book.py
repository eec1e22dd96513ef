"""How long the commands over a whole book take: `python -m tests.bench.book [DATABASE] [POSITIONS]`.

The database is a synced one (`make demo` leaves `.devnet/demo.db`). Its rows are repeated with other addresses, whole
positions with their balances and states, until there are 100,000; each command then runs as a process of its own.
"""

import argparse
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TABLES = ("positions", "balances", "states", "events", "health_history", "accruals")
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


def renamed(value: object, old: str, new: str) -> object:
    return value.replace(old, new) if isinstance(value, str) else value


def copies(row: tuple[object, ...], place: int, count: int) -> Iterator[tuple[object, ...]]:
    """The row under `count` other addresses, each made from its own: 0x, the copy's number, the rest of it.

    Whoever owns or stands behind the position is renamed alike, so that wallets keep as many positions as they have.
    """
    for copy in range(1, count + 1):
        out = list(row)
        for i, value in enumerate(out):
            if isinstance(value, str) and i >= place and value.startswith("0x") and len(value) == 42:
                out[i] = f"0x{copy:08x}{value[10:]}"
        old = str(row[place])
        yield tuple(renamed(value, old, f"0x{copy:08x}{old[10:]}") for value in out)


def enlarged(source: Path, target: Path, wanted: int) -> int:
    """Copy a database and repeat its positions until there are at least `wanted`; how many there are."""
    with sqlite3.connect(source) as original, sqlite3.connect(target) as conn:
        original.backup(conn)
        conn.execute("pragma synchronous = off")
        (present,) = conn.execute("select count(*) from positions").fetchone()
        count = -(-wanted // present) - 1
        for table in TABLES:
            columns = [row[1] for row in conn.execute(f"pragma table_info({table})")]
            names, place = ", ".join(columns), columns.index("account")
            # an asset's and a contract's address stay what they are
            fixed = [i for i, name in enumerate(columns) if name in {"asset", "market", "block_hash"}]
            marks = ", ".join("?" * len(columns))
            rows = conn.execute(f"select {names} from {table}").fetchall()
            for row in rows:
                conn.executemany(
                    f"insert into {table} ({names}) values ({marks})",
                    (
                        tuple(row[i] if i in fixed else value for i, value in enumerate(copied))
                        for copied in copies(row, place, count)
                    ),
                )
        conn.commit()
        conn.execute("analyze")
        (total,) = conn.execute("select count(*) from positions").fetchone()
        return int(total)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.book", description=__doc__)
    parser.add_argument("database", type=Path, nargs="?", default=Path(".devnet/demo.db"))
    parser.add_argument("positions", type=int, nargs="?", default=100_000)
    parser.add_argument("--config", type=Path, default=Path(".devnet/demo.toml"), help="that names its deployments")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="leave the large database here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large = options.keep or Path(folder) / "large.db"
        total = enlarged(options.database, large, options.positions)
        print(f"{total:,} positions, {large.stat().st_size / 1e6:,.0f} MB")
        with sqlite3.connect(large) as conn:
            (wallet,) = conn.execute("select wallet from positions order by debt_usd desc limit 1").fetchone()
        for command in COMMANDS:
            arguments = command.replace("WALLET", wallet).split()
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            started = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "indexer", "--config", str(options.config), "--db", str(large), *arguments],
                capture_output=True,
                check=False,
            )
            spent = time.monotonic() - started
            used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
            told = f"{len(done.stdout) / 1e6:,.1f} MB" if done.returncode == 0 else done.stderr.decode().strip()
            print(f"{command:28} {spent:6.2f} s, {used:5.2f} s of CPU  {told}")


if __name__ == "__main__":
    main()
