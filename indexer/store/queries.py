"""Reading the database: whatever SQL the user asks, the state of the sync, one wallet. Nothing here can write."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from indexer.errors import IndexerError
from indexer.store.database import open_readonly
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS
from indexer.text import Row, age

PRAGMAS = {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
#: SQLite steps between two looks at whether the user has pressed Ctrl-C
STEPS = 100_000


def only_reading(
    action: int, first: str | None, _second: str | None, _database: str | None, _trigger: str | None
) -> int:
    """SQLite's authorizer: SELECT and looking at the schema, nothing else; ATTACH could create a file."""
    if action in READING or (action == sqlite3.SQLITE_PRAGMA and (first or "").lower() in PRAGMAS):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


@contextmanager
def told(sql: str) -> Iterator[None]:
    """SQLite's errors in the user's own SQL as one line."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        message = str(error)
        if re.search("not authorized|authorization denied|prohibited|cannot VACUUM", message):
            message = "a query may only read: one SELECT, or a PRAGMA such as table_info(positions)"
        elif message == "interrupted":
            raise KeyboardInterrupt from error
        raise IndexerError(f"{message}: {' '.join(sql.split())[:200]}") from error


def run(conn: sqlite3.Connection, sql: str) -> tuple[list[str], Iterator[Row]]:
    """Columns and rows of one SELECT. Raises `IndexerError` for anything else, and for what SQLite cannot do."""
    conn.set_authorizer(only_reading)
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
    """The names with a number behind repeated ones, so that JSON loses no column."""
    found: list[str] = []
    for name in names:
        number, candidate = 1, name
        while candidate in found:
            number += 1
            candidate = f"{name}_{number}"
        found.append(candidate)
    return found


#: the positions whose wallet, owner or account is one of the JSON list ?1, each once and found by an index: only an owner
#: that is no account has one
OF_ADDRESSES = """
select * from positions where wallet in (select value from json_each(?1))
union select * from positions where owner in (select value from json_each(?1)) and owner_via <> 'self'
union select * from positions where account in (select value from json_each(?1))
    and (chain_id, deployment) in (select chain_id, deployment from deployments)
"""

STATUS_COLUMNS = (
    "chain deployment protocol accounts state block_number age_seconds positions at_risk requests revision block_hash "
    "block_timestamp complete_from synced_at chain_id percent seconds_left note"
).split()


def status(conn: sqlite3.Connection, chain_name: Callable[[int], str], now: float) -> list[dict[str, Any]]:
    """One row a deployment; `age_seconds` is how long ago its block was made, None before the first snapshot.

    Until then `percent` of its logs are fetched, and `seconds_left` is what the rest takes at the pace so far; None where
    that is unknown, and afterwards.
    """
    found = []
    for row in conn.execute("select * from sync_status order by chain_id, deployment"):
        columns = dict(row)
        made = columns["block_timestamp"]
        columns |= {
            "chain": columns["chain"] or chain_name(columns["chain_id"]),
            "age_seconds": None if made is None else int(now - made),
        }
        columns |= first_sync(conn, columns, now) if made is None else {"percent": None, "seconds_left": None}
        found.append({name: columns[name] for name in STATUS_COLUMNS})
    return found


def first_sync(conn: sqlite3.Connection, deployment: Mapping[str, Any], now: float) -> dict[str, Any]:
    """How far the first sync of a deployment is: `percent`, `seconds_left` and a `note` that says so."""
    where = (deployment["chain_id"], deployment["deployment"])
    (target,) = conn.execute("select max(number) from blocks where chain_id = ?", where[:1]).fetchone()
    fetched, reached = conn.execute(
        "select min(blocks), max(last) from (select sum(to_block - from_block + 1) as blocks, max(to_block) as last "
        "from synced_ranges where chain_id = ? and deployment = ? and source <> 'activity' group by source)",
        where,
    ).fetchone()
    start = deployment["start_block"]
    if target is None or start is None or not fetched:
        note = deployment["note"] or "first sync: no logs are fetched yet"
        return {"percent": None if target is None else 0, "seconds_left": None, "note": note}
    wanted = max(target - start + 1, 1)
    share = min(fetched / wanted, 1)
    runs, began = conn.execute("select count(*), min(started_at) from runs where chain_id = ?", where[:1]).fetchone()
    left = int((now - began) * (1 - share) / share) if runs == 1 else None
    note = f"first sync: {100 * share:.0f} % of its logs are fetched, up to block {reached} of {target}"
    note += "" if left is None else f", about {age(left)} left"
    return {"percent": round(100 * share, 1), "seconds_left": left, "note": deployment["note"] or note}


def troubled(conn: sqlite3.Connection) -> bool:
    """Whether the last sync of any deployment did not go well, or not yet."""
    return bool(conn.execute("select exists (select 1 from deployments where state <> 'ok')").fetchone()[0])


def wallets(conn: sqlite3.Connection, addresses: Sequence[str]) -> list[dict[str, Any]]:
    """Every position whose wallet, owner or account is one of them, once, largest debt first, each with its `balances`."""
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


def unlisted(conn: sqlite3.Connection, below: float, protocols: Sequence[str] = ()) -> list[tuple[str, int, int, str]]:
    """Positions with debt that no status tells to be at risk or not.

    The status, how many, how many below that health, and the note of one of them.
    """
    of_these = f"and protocol in ({', '.join('?' * len(protocols))}) " if protocols else ""
    rows = conn.execute(
        "select status, count(*), count(*) filter (where health_factor < ?), max(note) from positions "  # noqa: S608 - question marks
        f"where status in ('unpriceable', 'unverified') and debt_value_raw is not '0' {of_these}group by status",
        (below, *protocols),
    )
    return [(status, count, lower, note or "unknown before the next sync") for status, count, lower, note in rows]


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
