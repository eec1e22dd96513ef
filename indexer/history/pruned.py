"""Months of `health_history` that have left the file for a lake, read together with what has stayed.

A month leaves once a Parquet file holds all of its rows (`indexer.transfer.pruning`), and `pruned_history` names that file.
The last final point of each position stays, as the next snapshot is compared with it; so a row may be in both, and counts once.
"""

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indexer.extras import how_to_install

log = logging.getLogger(__name__)

COLUMNS = (
    "chain_id", "deployment", "account", "position_group", "block_number", "block_timestamp", "health_factor_raw",
    "collateral_usd", "debt_usd", "status", "supply_change_usd", "debt_change_usd",
)  # fmt: skip
NAMES = ", ".join(COLUMNS)
TABLE = """
create temp table history_of_a_lake (
    chain_id integer not null, deployment text not null, account text not null collate nocase, position_group text not null,
    block_number integer not null, block_timestamp integer not null, health_factor_raw text, collateral_usd real,
    debt_usd real, status text not null, supply_change_usd real, debt_change_usd real,
    primary key (chain_id, deployment, account, position_group, block_number)
) without rowid
"""
VIEW = (
    f"create temp view health_history as select {NAMES} from main.health_history "  # noqa: S608 - our own names
    f"union all select {NAMES} from temp.history_of_a_lake"
)
HERE_TOO = (
    "delete from temp.history_of_a_lake as l where exists (select 1 from main.health_history h where h.chain_id = l.chain_id "
    "and h.deployment = l.deployment and h.account = l.account and h.position_group = l.position_group "
    "and h.block_number = l.block_number)"
)
#: rows of one group of a file, and bytes of one row; the path of a file comes from the database, and that from anywhere
LARGEST_GROUP, LARGEST_ROW = 100_000, 2_000


def lay(
    conn: sqlite3.Connection,
    *,
    since: int | None = None,
    since_block: int | None = None,
    accounts: Sequence[str] | None = None,
    moved: bool = False,
) -> None:
    """Has this connection read `health_history` with the rows that are in a lake, if there are any.

    Of those only what is of or after the month of `since` (unix seconds) and after `since_block`; of these accounts, or what
    `moved`. What cannot be read is logged as a warning that says from when the history is incomplete.
    """
    months = [
        row
        for row in conn.execute(
            "select deployment, month, file, last_block from main.pruned_history order by month desc"
        )
        if (since is None or row[1] >= datetime.fromtimestamp(since, UTC).strftime("%Y-%m"))
        and (since_block is None or row[3] > since_block)
    ]
    if not months:
        return
    for statement in ("view if exists temp.health_history", "table if exists temp.history_of_a_lake"):
        conn.execute(f"drop {statement}")
    conn.execute(TABLE)
    missing: set[str] = set()
    for deployment, month, file, last_block in months:
        if deployment in missing:
            continue
        try:
            for rows in _parts(Path(file), accounts, moved=moved):
                conn.executemany(
                    f"insert or ignore into temp.history_of_a_lake ({NAMES}) values ({', '.join('?' * len(COLUMNS))})",  # noqa: S608 - our own names
                    (row for row in rows if row[4] <= last_block),
                )
        except (ImportError, OSError, ValueError) as error:
            missing.add(deployment)
            log.warning("the history of %s is incomplete before %s: %s", deployment, _after(month), _why(file, error))
    conn.execute(HERE_TOO)  # Evidence: the same row is in the file itself
    conn.execute(VIEW)


def _parts(path: Path, accounts: Sequence[str] | None, *, moved: bool) -> Iterator[Iterator[tuple[Any, ...]]]:
    """The rows that are asked for, a group at a time. ValueError for a file that this program did not write."""
    from pyarrow import compute, parquet  # noqa: PLC0415 - an extra, and slow to import

    wanted = None if accounts is None else compute.field("account").isin(list(accounts))
    if moved:
        wanted = (compute.field("supply_change_usd") != 0) | (compute.field("debt_change_usd") != 0)
    with parquet.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            if group.num_rows > LARGEST_GROUP or group.total_byte_size > LARGEST_GROUP * LARGEST_ROW:
                raise ValueError(
                    f"a group of {group.num_rows:,} rows and {group.total_byte_size:,} bytes is none of this program's"
                )
            part = file.read_row_group(number, columns=list(COLUMNS))
            part = part if wanted is None else part.filter(wanted)
            yield zip(*(column.to_pylist() for column in part.columns), strict=True)


def _after(month: str) -> str:
    """The first day after a month."""
    year, number = map(int, month.split("-"))
    return f"{year + number // 12}-{number % 12 + 1:02}-01"


def _why(file: str, error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"it is in a lake, and reading that needs the extra `lake`: {how_to_install('lake')}"
    if isinstance(error, FileNotFoundError):
        return f"it was moved to {file}, which is not there; bring the lake back to that place"
    return f"it was moved to {file}, which cannot be read ({' '.join(str(error).split())[:200]})"
