"""A large database for the benches of commands: a synced devnet, its rows repeated with other addresses."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.devnet.__main__ import MARKETS, deployed
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import config_toml
from tests.truth import sync_once

TABLES = ("positions", "balances", "states", "events", "health_history", "accruals")


def large_database(folder: Path, quick: bool) -> tuple[Path, Path, int]:
    """A database of at least 100,000 positions (2,000 if `quick`), its configuration, and how many there are."""
    small, large, config = folder / "small.db", folder / "large.db", folder / "bench.toml"
    with Anvil(states_in_memory=256) as node:
        markets = list(deployed(node, list(MARKETS), seed=1, users=40))
        config.write_text(config_toml(CHAIN_ID, node.url, markets))
        sync_once(small, node.url, markets)
    return large, config, enlarged(small, large, 2_000 if quick else 100_000)


def largest_wallet(database: Path) -> str:
    """Who owes most."""
    with closing(sqlite3.connect(database)) as conn:
        return str(conn.execute("select wallet from positions order by debt_usd desc limit 1").fetchone()[0])


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
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as conn:
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


def command(database: Path, config: Path, text: str) -> None:
    """Run one command of the indexer in a process of its own. Raises RuntimeError, with its message, if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "indexer", "--config", str(config), "--db", str(database), *text.split()],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"indexer {text}: {done.stderr.decode().strip()}")
