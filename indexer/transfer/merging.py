"""Several databases as one: every table that belongs to a chain, row by row; what belongs to a person is left out.

Two files may hold deployments of the same chain if their block hashes agree, but never the same deployment.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import StoreError
from indexer.store.database import open_readonly
from indexer.store.store import Store

#: tables with a chain_id that are about somebody's rules, or kept for a day for readers of one file
LEFT_OUT = frozenset({"alerts", "blind_deployments", "changes", "price_states", "watch_states"})
#: tables of which deployments of one chain share rows
SHARED = frozenset({"assets", "blocks", "feed_phases", "feed_prices", "feeds", "finality"})


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merged file holds."""

    chains: int
    deployments: int
    positions: int


def merge(paths: Sequence[Path], into: Path) -> Merged:
    """Writes all of these databases into a new one, which appears whole or not at all.

    StoreError where one cannot be read or is of another version, where two contradict each other, and where `into` exists.
    """
    for path in paths:
        open_readonly(path).close()  # says what is wrong with it
    if len({path.resolve() for path in paths}) < len(paths):
        raise StoreError("a file is named twice; name each once")
    with _replaced_by(into) as part:
        Store(part).close()
        with closing(sqlite3.connect(f"{part.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)) as conn:
            for path in paths:
                _add(conn, path)
            one = "select count(distinct chain_id), count(*), (select count(*) from positions) from deployments"
            return Merged(*conn.execute(one).fetchone())


@contextmanager
def _replaced_by(into: Path) -> Iterator[Path]:
    """A file beside `into` that gets its name in the end. StoreError if something has that name by then.

    Evidence for what is removed: it is this process's own file, and has its other name by then or is half made.
    """
    if into.exists():
        raise StoreError(f"{into} exists: merge writes a new file only, name another one with --into")
    part = into.with_name(f".{into.name}.{os.getpid()}")
    try:
        yield part
        try:
            os.link(part, into)  # never over another file
        except FileExistsError:
            raise StoreError(f"{into} exists by now: it was left as it is") from None
    finally:
        for ending in ("", "-wal", "-shm"):
            part.with_name(part.name + ending).unlink(missing_ok=True)


def _add(conn: sqlite3.Connection, path: Path) -> None:
    """Adds what one file holds, as it is at one moment."""
    conn.execute("attach ? as part", (f"{path.absolute().as_uri()}?mode=ro",))
    conn.execute("begin")
    try:
        _refuse_contradictions(conn, path)
        for table in _tables(conn):
            columns = ", ".join(_columns(conn, table))
            verb = "insert or ignore" if table in SHARED else "insert"
            conn.execute(f"{verb} into main.{table} ({columns}) select {columns} from part.{table}")  # noqa: S608 - ours
        # Of two final blocks of one chain the older one is final for both.
        conn.execute(
            "update main.finality as ours set (block_number, block_hash) = (select block_number, block_hash "
            "from part.finality theirs where theirs.chain_id = ours.chain_id) where exists (select 1 from part.finality "
            "theirs where theirs.chain_id = ours.chain_id and theirs.block_number < ours.block_number)"
        )
        conn.execute("commit")
    except BaseException:
        conn.execute("rollback")
        raise
    finally:
        conn.execute("detach part")


def _refuse_contradictions(conn: sqlite3.Connection, path: Path) -> None:
    twice = conn.execute(
        "select deployment, chain_id from main.deployments join part.deployments using (chain_id, deployment)"
    ).fetchone()
    if twice is not None:
        raise StoreError(
            f"{path} and a file before it both hold {twice[0]} on chain id {twice[1]}: leave one of them out"
        )
    other = conn.execute(
        "select chain_id, number from main.blocks ours join part.blocks theirs using (chain_id, number) "
        "where ours.hash <> theirs.hash order by number limit 1"
    ).fetchone()
    if other is not None:
        raise StoreError(
            f"{path} and a file before it saw different blocks {other[1]} of chain id {other[0]}: sync both, then merge"
        )


def _tables(conn: sqlite3.Connection) -> list[str]:
    """The tables that belong to a chain."""
    names = [name for (name,) in conn.execute("select name from main.sqlite_master where type = 'table' order by name")]
    return [name for name in names if name not in LEFT_OUT and "chain_id" in _columns(conn, name)]


def _columns(conn: sqlite3.Connection, table: str) -> list[str]:
    """The columns that are stored, without a number that counts the rows of one file."""
    found = conn.execute("select name, type, pk, hidden from pragma_table_xinfo(?, 'main')", (table,)).fetchall()
    keys = [name for name, _, key, _ in found if key]
    return [name for name, _, _, hidden in found if not hidden and not (keys == ["id"] and name == "id")]
