"""Takes months of `health_history` out of a database once a lake holds them.

Month by month, in one transaction each: the month's rows are written to its Parquet file, which is flushed and renamed,
then read back and compared with the rows, value by value; only then are they deleted, and `pruned_history` names the
file. Whoever is killed in between finds the rows where they were.

A month leaves when it is over and as far as it is final. The last final point of each position stays: the next snapshot is
compared with it.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from indexer.boundary.files import replacing
from indexer.errors import StoreError
from indexer.store.reorgs import final_block
from indexer.store.store import Store
from indexer.text.values import many
from indexer.transfer.lake import (
    BATCH,
    HISTORY,
    history_file,
    month_begins,
    month_of,
    next_month,
    require_pyarrow,
    selected,
    write_rows,
)

#: rows that may go: a newer final point of the same position stays
GOES = """
chain_id = :chain and deployment = :name and block_timestamp >= :begin and block_timestamp < :end
and exists (
    select 1 from health_history n where n.chain_id = health_history.chain_id and n.deployment = health_history.deployment
    and n.account = health_history.account and n.position_group = health_history.position_group
    and n.block_number > health_history.block_number and n.block_number <= :final)
"""
IN_MONTH = "chain_id = :chain and deployment = :name and block_timestamp >= :begin and block_timestamp < :end"
#: positions of which a movement is unknown, which nobody can tell from the rows that stay
UNKNOWN = """
insert or ignore into unknown_movements select distinct chain_id, deployment, account, position_group from health_history
where chain_id = :chain and deployment = :name and supply_change_usd is null and block_number <= :final
and exists (select 1 from health_history o where o.chain_id = health_history.chain_id
    and o.deployment = health_history.deployment and o.account = health_history.account
    and o.position_group = health_history.position_group and o.block_number < health_history.block_number)
"""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What has left a database."""

    months: int = 0
    rows: int = 0

    def told(self, lake: Path) -> str:
        """What to say of it."""
        return f"{many(self.rows, 'row')} of {many(self.months, 'month')} of history have left it for {lake}"


def prune(store: Store, lake: Path) -> Pruned:
    """Takes out every month that may go. Evidence: a file that holds the rows, as it was read back.

    Nobody else may sync into the file meanwhile. StoreError where a file cannot be read back as it was written, or one that
    holds a part of a month is gone.
    """
    require_pyarrow()
    months = rows = 0
    for chain_id, name, now in store.conn.execute(
        "select chain_id, deployment, block_timestamp from deployments where block_number is not null order by 1, 2"
    ).fetchall():
        final = final_block(store.conn, chain_id)
        for month in _months(store.conn, chain_id, name, month_begins(month_of(now)), final):
            values = {
                "chain": chain_id, "name": name, "month": month, "final": final,
                "begin": month_begins(month), "end": month_begins(next_month(month)),
            }  # fmt: skip
            with store.transaction() as conn:
                gone = _prune_month(conn, lake, values)
            months, rows = months + bool(gone), rows + gone
    return Pruned(months, rows)


def _months(conn: sqlite3.Connection, chain_id: int, name: str, before: int, final: int) -> list[str]:
    """The months with rows that may go, the oldest first."""
    values = {"chain": chain_id, "name": name, "begin": 0, "end": before, "final": final}
    found = conn.execute(
        f"select distinct strftime('%Y-%m', block_timestamp, 'unixepoch') from health_history where {GOES} order by 1",  # noqa: S608
        values,
    )
    return [month for (month,) in found]


def _prune_month(conn: sqlite3.Connection, lake: Path, values: dict[str, Any]) -> int:
    """Takes out what may go of one month, inside a transaction; returns how many rows.

    Evidence: the month's file, read back and compared with every row of the month in the same transaction.
    """
    known = conn.execute(
        "select file, last_block from pruned_history where chain_id = :chain and deployment = :name and month = :month",
        values,
    ).fetchone()
    path = Path(known[0]) if known else history_file(lake, values["chain"], values["name"], values["month"]).absolute()
    wanted: Sequence[Sequence[Any]] | Iterator[Sequence[Any]]
    if known:
        if not path.exists():
            raise StoreError(
                f"{path} holds a part of {values['month']} and is not there: bring the lake back; nothing was pruned"
            )
        wanted = _together(conn, path, known[1], values)
        _write(conn, path, wanted)
    else:
        _write(conn, path, selected(conn, HISTORY, IN_MONTH, values)[1])
        wanted = selected(conn, HISTORY, IN_MONTH, values)[1]
    count, last = _compared(path, wanted)
    conn.execute(UNKNOWN, values)
    gone = conn.execute(f"delete from health_history where {GOES}", values).rowcount  # noqa: S608 - our own names
    conn.execute(
        "insert or replace into pruned_history values (:chain, :name, :month, :file, :rows, :last)",
        {**values, "file": str(path), "rows": count, "last": last},
    )
    return gone


def _together(conn: sqlite3.Connection, path: Path, last_block: int, values: dict[str, Any]) -> Sequence[Sequence[Any]]:
    """What the file of a month holds, up to the block until which it counts, and what the database holds of that month."""
    columns, rows = selected(conn, HISTORY, IN_MONTH, values)
    names = [name for name, _ in columns]
    places = [names.index(one) for one in ("account", "position_group", "block_number")]
    found = {tuple(row[i] for i in places): row for row in _rows(path) if row[places[2]] <= last_block}
    found |= {tuple(row[i] for i in places): row for row in rows}
    return [found[key] for key in sorted(found)]


def _write(conn: sqlite3.Connection, path: Path, rows: "Sequence[Sequence[Any]] | Iterator[Sequence[Any]]") -> None:
    columns, _ = selected(conn, HISTORY, "false", {})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        write_rows(stream, columns, iter(rows))
    with ExitStack() as stack:  # the name, too, is on the disk before the rows go
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, folder)
        os.fsync(folder)


def _compared(path: Path, wanted: "Sequence[Sequence[Any]] | Iterator[Sequence[Any]]") -> tuple[int, int]:
    """How many rows a file holds and the last block. StoreError unless they are those."""
    count, last = 0, None
    for ours, theirs in zip_longest(wanted, _rows(path)):
        if ours is None or theirs is None or tuple(ours) != tuple(theirs):
            raise StoreError(
                f"{path} does not hold what was written to it: row {count + 1} differs; nothing was pruned"
            )
        count, last = count + 1, ours[4] if last is None else max(last, ours[4])
    assert last is not None  # a month without rows has none that may go
    return count, last


def _rows(path: Path) -> Iterator[tuple[Any, ...]]:
    from pyarrow import parquet  # noqa: PLC0415 - an extra, and slow to import

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
