"""Several databases, one a chain, read as one.

`Shards` is a connection to a small database in memory that holds what there is little of: deployments with their markets.
Everything else stays in the files: whoever reads it asks `each` file and puts the answers together, or the file `at` which
a chain is. A query that does neither fails, as the table is not there, rather than answer for a part.

    DIR/mainnet.db, DIR/base.db, ...    one chain each
    DIR/watch.db                        watched wallets, rules, alerts and deliveries, for all chains
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from indexer.errors import StoreError
from indexer.store.database import BUSY_TIMEOUT_MS, LARGEST_VALUE, open_readonly

WATCH_FILE = "watch.db"
#: tables of which each deployment has few rows
SMALL = ("deployments", "snapshots", "assets", "markets")
#: who is watched and by which rules, which `watch.db` holds
RULES = ("watches", "watch_rules", "watch_groups", "price_rules")
#: what the rules remember of each chain, which the chain's file holds
MEMORY = ("watch_states", "price_states")
#: tables of a person, which `watch.db` holds but for the memory of the rules
PERSONAL = (*RULES, *MEMORY, "alerts", "deliveries", "blind_deployments")
#: SQLite attaches no more files to one connection (SQLITE_MAX_ATTACHED)
MOST_ATTACHED = 10
#: of one position
KEY = ("chain_id", "deployment", "account", "position_group")


def make_folder(folder: Path) -> None:
    """Makes the folder if need be, readable for the user alone. StoreError where that is impossible."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror}; choose another place with --db") from None


def chain_files(folder: Path) -> list[Path]:
    """The databases of chains in a folder, by name. StoreError where there is no such folder."""
    if not folder.is_dir():
        raise StoreError(f"there is no folder {folder}: `indexer --db {folder}/ sync --chain all` makes it")
    return sorted(path for path in folder.glob("*.db") if path.name != WATCH_FILE)


def files(folder: Path) -> list[Path]:
    """All databases of a folder: those of chains, and that of watched wallets where there is one."""
    watching = folder / WATCH_FILE
    return [*chain_files(folder), *([watching] if watching.exists() else [])]


def chains_of(path: Path) -> list[int]:
    """The ids of the chains of which a file holds deployments; none while it is new."""
    with closing(open_readonly(path, current=False)) as conn:
        if not conn.execute("select 1 from sqlite_master where name = 'deployments'").fetchone():
            return []
        return [number for (number,) in conn.execute("select distinct chain_id from deployments order by 1")]


def places(files: Iterable[Path]) -> dict[int, Path]:
    """The file of each chain. StoreError naming both files where a chain is in two."""
    found: dict[int, Path] = {}
    for path in files:
        for chain_id in chains_of(path):
            if chain_id in found:
                raise StoreError(
                    f"chain id {chain_id} is in two files, {found[chain_id]} and {path}: move one of them out of the "
                    "folder, or its rows would be counted twice"
                )
            found[chain_id] = path
    return found


class TooManyFilesError(StoreError):
    """More files than one SQLite connection can read."""


class Shards(sqlite3.Connection):
    """The connection to the small database; `files` are those of the chains, `of_chain` the one of each."""

    files: Sequence[sqlite3.Connection] = ()
    of_chain: Mapping[int, sqlite3.Connection] = {}
    paths: Sequence[Path] = ()


def each(conn: sqlite3.Connection) -> Sequence[sqlite3.Connection]:
    """The connections to ask: the one given, or those of all files."""
    return conn.files if isinstance(conn, Shards) else (conn,)


def at(conn: sqlite3.Connection, chain_id: int) -> sqlite3.Connection:
    """The connection to the file that holds a chain."""
    return conn.of_chain[chain_id] if isinstance(conn, Shards) else conn


@contextmanager
def opened(folder: Path, busy_ms: int = BUSY_TIMEOUT_MS) -> Iterator[Shards]:
    """All chains' files of a folder, read-only, each as it is at one moment. StoreError where one cannot be read, and
    naming both where a chain is in two. It waits `busy_ms` for a file that is locked.
    """
    files = chain_files(folder)
    where = places(files)
    with ExitStack() as stack:
        front = stack.enter_context(closing(sqlite3.connect(":memory:", factory=Shards, isolation_level=None)))
        front.row_factory = sqlite3.Row
        front.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
        used = [path for path in files if path in where.values()]  # a file without a deployment is still new
        parts = {path: stack.enter_context(closing(open_readonly(path, busy_ms=busy_ms))) for path in used}
        for part in parts.values():
            part.execute("begin")
        front.paths = used
        front.files = list(parts.values())
        front.of_chain = {chain_id: parts[path] for chain_id, path in where.items()}
        if not parts:
            _lay_empty(front)
        for part in front.files:
            for table in SMALL:
                copy(part, front, table)
        _copy_personal(folder, front, front)
        yield front


def _copy_personal(folder: Path, front: Shards, into: sqlite3.Connection) -> None:
    watching = folder / WATCH_FILE
    with ExitStack() as stack:
        if watching.exists():
            source = stack.enter_context(closing(open_readonly(watching)))
            for table in PERSONAL:
                copy(source, into, table, "true" if table not in MEMORY else "false")
            for part, table in product(front.files, MEMORY):
                copy(part, into, table)
        else:
            for part, table in product(front.files[:1], PERSONAL):
                copy(part, into, table)


@contextmanager
def attached(folder: Path) -> Iterator[sqlite3.Connection]:
    """One connection whose tables and views are those of all chains' files, at most `MOST_ATTACHED` of them, read-only.

    StoreError beyond that.
    """
    with opened(folder) as front, closing(sqlite3.connect(":memory:", uri=True, isolation_level=None)) as conn:
        if len(front.paths) > MOST_ATTACHED:
            raise TooManyFilesError(
                f"{folder} holds {len(front.paths)} databases, and SQLite reads at most {MOST_ATTACHED} in one query: name a "
                f"chain with --chain, write them into one with `indexer merge {folder}/*.db --into all.db`, or into a lake with "
                "`indexer export --lake`"
            )
        conn.row_factory = sqlite3.Row
        conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
        for number, path in enumerate(front.paths):
            conn.execute(f"attach ? as s{number}", (f"{path.absolute().as_uri()}?mode=ro",))
        _copy_personal(folder, front, conn)
        for part in front.files[:1]:
            for kind, name, sql in part.execute(
                "select type, name, sql from sqlite_master where type in ('table', 'view') and name not like 'sqlite_%' "
                "order by type"
            ).fetchall():
                if kind == "view":
                    conn.execute(f"create temp view {name} {sql[sql.lower().index(' as') :]}")
                elif name not in PERSONAL:
                    rows = " union all ".join(f"select * from s{i}.{name}" for i in range(len(front.paths)))  # noqa: S608
                    conn.execute(f"create temp view {name} as {rows}")
        conn.execute("begin")
        yield conn


def _lay_empty(front: Shards) -> None:
    """The tables of a folder in which there is nothing yet."""
    from indexer.schema import migrations  # noqa: PLC0415 - slow, and hardly ever needed

    migrations.apply(front)


def copy(
    part: sqlite3.Connection, front: sqlite3.Connection, table: str, where: str = "true", values: Sequence[Any] = ()
) -> None:
    """Copies rows of a table, which is made with its indexes if it is not there."""
    if not front.execute("select 1 from sqlite_master where name = ?", (table,)).fetchone():
        for (sql,) in part.execute(
            "select sql from sqlite_master where tbl_name = ? and type in ('table', 'index') and sql is not null "
            "order by type = 'index'",
            (table,),
        ):
            front.execute(sql)
    names = stored_columns(part, table)
    rows = part.execute(f"select {', '.join(names)} from {table} where {where}", values)  # noqa: S608 - our own names
    front.executemany(
        f"insert or ignore into {table} ({', '.join(names)}) values ({', '.join('?' * len(names))})",  # noqa: S608
        map(tuple, rows),
    )


def stored_columns(conn: sqlite3.Connection, table: str) -> list[str]:
    """The columns of a table that are not computed from others."""
    found = conn.execute("select name from pragma_table_xinfo(?) where hidden = 0 order by cid", (table,))
    return [name for (name,) in found]


def lay_positions_of(conn: sqlite3.Connection, wallets: Sequence[str]) -> None:
    """Of several files: copies all that is stored about positions of these wallets into the small database.

    From then on it answers about them as one file would; about others it knows nothing. Of one file nothing is done.
    """
    if not isinstance(conn, Shards):
        return
    marks = ", ".join("?" * len(wallets))
    for part in conn.files:
        keys = part.execute(
            f"select {', '.join(KEY)} from positions where wallet in ({marks}) or owner in ({marks}) "  # noqa: S608
            f"or account in ({marks})",
            [*wallets] * 3,
        ).fetchall()
        names = part.execute("select name from main.sqlite_master where type = 'table' order by name").fetchall()
        for (table,) in names:
            if table in PERSONAL or not {*KEY} <= {*stored_columns(part, table)}:
                continue
            copy(part, conn, table, "false")
            for key in keys:
                copy(part, conn, table, f"({', '.join(KEY)}) = (?, ?, ?, ?)", tuple(key))
        copy(part, conn, "blocks")
