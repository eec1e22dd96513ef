"""Reads the database: any SQL of the user's, the state of the sync, one wallet. Nothing here can write."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from indexer.errors import IndexerError
from indexer.queries.exports import MIN_DEBT
from indexer.queries.scope import Scope, marks
from indexer.store.database import open_readonly
from indexer.store.progress import how_far
from indexer.store.rows import BALANCE_COLUMNS, OF_ADDRESSES, POSITION_COLUMNS
from indexer.store.shards import each, lay_positions_of
from indexer.text.values import Row

PRAGMAS = {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
#: SQLite steps between two checks for Ctrl-C
STEPS = 100_000


def only_reading(
    action: int, first: str | None, _second: str | None, _database: str | None, _trigger: str | None
) -> int:
    """SQLite's authorizer: allows SELECT and reading the schema only, as ATTACH, say, could create a file."""
    if action in READING or (action == sqlite3.SQLITE_PRAGMA and (first or "").lower() in PRAGMAS):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


@contextmanager
def told(sql: str) -> Iterator[None]:
    """Turns SQLite's errors in the user's own SQL into one line."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        message = str(error)
        if re.search("not authorized|authorization denied|prohibited|cannot VACUUM", message):
            message = "a query may only read: one SELECT, or a PRAGMA such as table_info(positions)"
        elif message == "interrupted":
            raise KeyboardInterrupt from error
        raise IndexerError(f"{message}: {' '.join(sql.split())[:200]}") from error


def run(
    conn: sqlite3.Connection, sql: str, reads: set[tuple[str, str]] | None = None
) -> tuple[list[str], Iterator[Row]]:
    """Columns and rows of one SELECT; what it reads is put into `reads` as (table or view, column).

    Raises `IndexerError` for anything else, and for SQLite's errors.
    """

    def noting(action: int, first: str | None, second: str | None, *rest: str | None) -> int:
        if reads is not None and action == sqlite3.SQLITE_READ and first and second:
            reads.add((first, second))
        return only_reading(action, first, second, *rest)

    conn.set_authorizer(noting)
    conn.set_progress_handler(lambda: 0, STEPS)
    with told(sql):
        cursor = conn.execute(sql)
    if cursor.description is None:
        raise IndexerError("that SQL returns no rows; a query is one SELECT")

    def rows() -> Iterator[Row]:
        with told(sql):
            for row in cursor:  # noqa: UP028 - `yield from` would close the cursor after its connection
                yield row

    return unique([column[0] for column in cursor.description]), rows()


def unique(names: Sequence[str]) -> list[str]:
    """The names, repeated ones with a number appended, so that JSON loses no column."""
    found: list[str] = []
    for name in names:
        number, candidate = 1, name
        while candidate in found:
            number += 1
            candidate = f"{name}_{number}"
        found.append(candidate)
    return found


STATUS_COLUMNS = (
    "chain deployment protocol accounts state block_number age_seconds positions at_risk requests revision block_hash "
    "block_timestamp block_time complete_from synced_at chain_id coverage percent blocks blocks_wanted logs positions_wanted "
    "seconds_left start_block start_block_found note"
).split()


#: the view `sync_status` without its counts, for which every row is read
UNCOUNTED = (
    "(select d.*, null as positions, null as at_risk, "
    "(select requests from runs r where r.chain_id = d.chain_id order by id desc limit 1) as requests from deployments d)"
)


def status(
    conn: sqlite3.Connection, chain_name: Callable[[int], str], now: float, *, counted: bool = True
) -> list[dict[str, Any]]:
    """One row per deployment; `age_seconds` is the age of its block, None before the first snapshot.

    `progress.how_far` explains the columns on its progress; `note` has them in words. Unless `counted`, `positions` and
    `at_risk` are None.
    """
    found = []
    source = "sync_status" if counted else UNCOUNTED
    rows = [(part, row) for part in each(conn) for row in part.execute(f"select * from {source}")]  # noqa: S608 - ours
    for part, row in sorted(rows, key=lambda one: (one[1]["chain_id"], one[1]["deployment"])):
        columns = dict(row)
        made = columns["block_timestamp"]
        columns |= {
            "chain": columns["chain"] or chain_name(columns["chain_id"]),
            "age_seconds": None if made is None else int(now - made),
        }
        far = how_far(part, columns)
        if far["progress"] is not None and columns["complete_from"] is None:
            words = f"{'first sync' if made is None else 'history'}: {far['progress']}"
            columns["note"] = f"{columns['note']}; {words}" if columns["note"] else words
        columns |= far
        found.append({name: columns[name] for name in STATUS_COLUMNS})
    return found


def deployments_of(conn: sqlite3.Connection, scope: Scope, min_debt: float | None) -> set[tuple[int, str]]:
    """Chain id and name of the deployments in which such a position is held; an unknown debt may be large enough."""
    conditions, values = scope.of_positions("p.block_timestamp")
    if min_debt is not None:
        conditions.append(MIN_DEBT)
        values.append(min_debt)
    where = " and ".join(["true", *conditions])
    return {
        (chain_id, name)
        for part in each(conn)
        for chain_id, name in part.execute(
            f"select distinct chain_id, deployment from positions p where {where}",  # noqa: S608 - question marks
            values,
        )
    }


def troubled(conn: sqlite3.Connection) -> bool:
    """Whether any deployment's state is not ok."""
    return bool(conn.execute("select exists (select 1 from deployments where state <> 'ok')").fetchone()[0])


def wallets(conn: sqlite3.Connection, addresses: Sequence[str]) -> list[dict[str, Any]]:
    """Every position whose wallet, owner or account is one of them, once, largest debt first, each with its `balances`."""
    lay_positions_of(conn, addresses)
    found = []
    for row in conn.execute(
        f"select {', '.join(POSITION_COLUMNS)} from ({OF_ADDRESSES}) "  # noqa: S608 - ours
        "order by debt_usd is null, debt_usd desc, collateral_usd desc, chain_id, deployment, account, position_group",
        (json.dumps([*addresses]),),
    ):
        key = tuple(row[name] for name in ("chain_id", "deployment", "account", "position_group"))
        balances = conn.execute(
            f"select {', '.join(BALANCE_COLUMNS)} from balances where (chain_id, deployment, account, position_group) "  # noqa: S608
            "= (?, ?, ?, ?) order by side desc, value_usd desc, market, asset",
            key,
        )
        found.append({**dict(row), "balances": [dict(balance) for balance in balances]})
    return found


def unlisted(
    conn: sqlite3.Connection, below: float, protocols: Sequence[str] = (), scope: Scope | None = None
) -> list[tuple[str, int, int, str]]:
    """Positions with debt whose status leaves open whether they are at risk.

    By status: how many, how many of them below that health factor, and the note of one.
    """
    conditions, values = (scope or Scope()).of_positions("p.block_timestamp")
    if protocols:
        conditions.append(f"p.protocol in ({', '.join('?' * len(protocols))})")
        values += protocols
    of_these = "".join(f"and {condition} " for condition in conditions)
    sql = (
        "select status, count(*), count(*) filter (where health_factor < ?), max(note) from positions p "  # noqa: S608 - question marks
        f"where status in ('unpriceable', 'unverified') and debt_value_raw is not '0' {of_these}group by status"
    )
    found: dict[str, list[Any]] = {}
    for part in each(conn):
        for status, count, lower, note in part.execute(sql, (below, *values)):
            one = found.setdefault(status, [0, 0, ""])
            found[status] = [one[0] + count, one[1] + lower, max(one[2], note or "")]
    return [
        (status, count, lower, note or "unknown before the next sync")
        for status, (count, lower, note) in sorted(found.items())
    ]


def _synced(path: Path) -> list[tuple[int, str, int]]:
    """Chain id, deployment and block of every snapshot that a database holds; none if there is no database yet."""
    if not path.exists():
        return []
    with closing(open_readonly(path, current=False)) as conn:
        if not conn.execute("select 1 from sqlite_master where name = 'deployments'").fetchone():
            return []
        return conn.execute(
            "select chain_id, deployment, block_number from deployments where block_number is not null"
        ).fetchall()


def known_deployments(path: Path) -> set[str]:
    """The deployments that were synced before."""
    return {name for _, name, _ in _synced(path)}


def last_block(path: Path, chain_id: int) -> int | None:
    """The block of a chain's newest snapshot, None before the first."""
    return max((block for chain, _, block in _synced(path) if chain == chain_id), default=None)


def names_table(sql: str, table: str) -> bool:
    """Whether SQL may read a table of that name."""
    return re.search(rf"\b{table}\b", sql, re.IGNORECASE) is not None


def lay_rows(into: sqlite3.Connection, table: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> None:
    """Makes a temporary table of these columns (name -> type) on a connection, and fills it."""
    typed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    into.execute(f"create temp table {table} ({typed}) strict")
    into.executemany(f"insert into temp.{table} values ({marks([*columns])})", rows)  # noqa: S608 - question marks
