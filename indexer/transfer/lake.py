"""The lake: a folder of Parquet files beside the databases, for whoever reads all chains at once.

    LAKE/positions/CHAIN_ID/DEPLOYMENT.parquet              likewise balances and markets: the last snapshot, replaced whole
    LAKE/health_history/CHAIN_ID/DEPLOYMENT/2026-10.parquet a month that is over and final, in UTC

Rows and columns are those of the tables, integers of any size as text. A file appears under its name whole or not at all.
"""

import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from indexer.boundary.files import replacing
from indexer.errors import IndexerError, StoreError
from indexer.executors import results
from indexer.extras import how_to_install
from indexer.store.database import open_readonly
from indexer.store.reorgs import final_block

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = ("positions", "balances", "markets")
HISTORY = "health_history"
#: rows in memory at a time
BATCH = 20_000
#: seconds between two writings of a sync that follows its chain
PAUSE = 60.0
#: and between two looks for months that can leave the database
PRUNE_PAUSE = 86_400.0
#: beside the months of a deployment: the last one that was copied
THROUGH = ".through"
MONTH = re.compile(rb"[0-9]{4}-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True)
class Written:
    """A file of the lake and how many rows it holds."""

    path: str
    rows: int


def write(database: str, lake: str, chain_id: int, deployment: str) -> list[Written]:
    """Writes what a file holds of one deployment, as it is at one moment."""
    where = (chain_id, deployment)
    with closing(open_readonly(database)) as conn:
        conn.execute("begin")
        found = [_table(conn, Path(lake), table, where) for table in TABLES]
        return found + _months(conn, Path(lake), where)


def write_all(
    databases: Sequence[Path], lake: Path, where: str | None = None, *, insecure: bool = False
) -> list[Written]:
    """Writes every deployment that has a snapshot, each as a task of its own; `where` as `executors.executor` has it.

    StoreError where the lake cannot be written.
    """
    require_pyarrow()
    try:
        lake.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {lake}: {error.strerror}; name another one with --lake") from None
    tasks = []
    for path in databases:
        with closing(open_readonly(path)) as conn:
            synced = conn.execute(
                "select chain_id, deployment from deployments where block_number is not null order by 1, 2"
            )
            tasks += [(str(path.absolute()), str(lake.absolute()), *row) for row in synced]
    return [one for part in results(where, write, tasks, insecure=insecure) for one in part]


def require_pyarrow() -> None:
    """IndexerError that says what to install where pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 - an extra, and slow to import
    except ImportError:
        raise IndexerError(f"a lake needs the extra `lake`: {how_to_install('lake')}") from None


class Pauses:
    """A lake that a sync writes after its commits, at most once in so many seconds."""

    def __init__(self, database: Path, lake: Path, pause: float, prune: Callable[[], object] | None = None) -> None:
        require_pyarrow()
        self.database, self.lake, self.pause, self.due = database, lake, pause, 0.0
        #: called once and then once a day behind a writing
        self.prune, self.pruning_due = prune, 0.0

    def committed(self, _sample: object) -> None:
        """There is a new snapshot."""
        if time.monotonic() >= self.due:
            write_all([self.database], self.lake)
            self.due = time.monotonic() + self.pause
            if self.prune is not None and time.monotonic() >= self.pruning_due:
                self.prune()
                self.pruning_due = time.monotonic() + PRUNE_PAUSE


def _table(conn: sqlite3.Connection, lake: Path, table: str, where: tuple[int, str]) -> Written:
    path = lake / table / str(where[0]) / f"{where[1]}.parquet"
    return _file(conn, path, table, "chain_id = ? and deployment = ?", where)


def history_file(lake: Path, chain_id: int, deployment: str, month: str) -> Path:
    """Where a lake has a month of a deployment's history."""
    return lake / HISTORY / str(chain_id) / deployment / f"{month}.parquet"


def _months(conn: sqlite3.Connection, lake: Path, where: tuple[int, str]) -> list[Written]:
    """Copies each month of history that is over by the time of what is final, and is not there yet.

    Evidence for what is never written again: no reorganisation takes back a block that is final (`store.reorgs.final_block`).
    """
    folder = history_file(lake, *where, "").parent
    (now,) = conn.execute(
        "select min((select block_timestamp from deployments where chain_id = ?1 and deployment = ?2), (select "
        "max(block_timestamp) from blocks where chain_id = ?1 and number <= ?3))",
        (*where, final_block(conn, where[0])),
    ).fetchone()
    through = folder / THROUGH
    last = "" if now is None else month_of(month_begins(month_of(now)) - 1)
    done = _copied(through)
    if done >= last:
        return []
    (first,) = conn.execute(
        f"select min(block_timestamp) from {HISTORY} where chain_id = ? and deployment = ?",  # noqa: S608 - our own names
        where,
    ).fetchone()
    found = []
    pruned = dict(
        conn.execute("select month, file from pruned_history where chain_id = ? and deployment = ?", where).fetchall()
    )
    folder.mkdir(parents=True, exist_ok=True)
    for known, file in pruned.items():
        if known > done:
            _copy(Path(file), folder / f"{known}.parquet")
    month = month_of(first) if first is not None else ""
    while first is not None and month <= last:
        path = folder / f"{month}.parquet"
        if month > done and not path.exists():
            begin, end = month_begins(month), month_begins(next_month(month))
            found.append(
                _file(
                    conn,
                    path,
                    HISTORY,
                    "chain_id = ? and deployment = ? and block_timestamp >= ? and block_timestamp < ?",
                    (*where, begin, end),
                )
            )
        month = next_month(month)
    with replacing(through) as stream:
        stream.write(last.encode())
    return found


def _copied(through: Path) -> str:
    """The last month that was copied, empty before the first or where the file holds anything else."""
    try:
        with through.open("rb") as stream:
            found = MONTH.fullmatch(stream.read(16).strip())
    except FileNotFoundError:
        return ""
    return found[0].decode() if found else ""


def _copy(source: Path, path: Path) -> None:
    """A month that has left the database for another lake, or for this one, where it is already."""
    if not source.exists():
        raise StoreError(f"{source} holds history that has left the database, and is not there: bring that lake back")
    if source.resolve() != path.resolve():
        with source.open("rb") as old, replacing(path) as stream:
            shutil.copyfileobj(old, stream)


def month_of(timestamp: int) -> str:
    """The month of a time in UTC, such as 2026-10."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m")


def month_begins(month: str) -> int:
    """The first second of a month, unix seconds."""
    return int(datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).timestamp())


def next_month(month: str) -> str:
    return month_of(month_begins(month) + 32 * 86_400)


def _file(conn: sqlite3.Connection, path: Path, table: str, condition: str, values: Sequence[Any]) -> Written:
    """Writes the rows of a table that meet a condition, in the order of its key."""
    columns, rows = selected(conn, table, condition, values)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        return Written(str(path), write_rows(stream, columns, rows))


def selected(
    conn: sqlite3.Connection, table: str, condition: str, values: Sequence[Any] | Mapping[str, Any]
) -> tuple[list[tuple[str, str]], Iterator[tuple[Any, ...]]]:
    """The columns of a table as (name, type), and the rows that meet a condition, in the order of its key."""
    columns = conn.execute("select name, type, pk from pragma_table_xinfo(?) where hidden <> 1", (table,)).fetchall()
    key = ", ".join(name for name, _, place in sorted(columns, key=lambda one: one[2]) if place)
    names = ", ".join(name for name, *_ in columns)
    cursor = conn.cursor()
    cursor.row_factory = None
    rows = cursor.execute(f"select {names} from {table} where {condition} order by {key}", values)  # noqa: S608 - ours
    return [(name, kind) for name, kind, _ in columns], rows


def write_rows(stream: BinaryIO, columns: Sequence[tuple[str, str]], rows: Iterator[Sequence[Any]]) -> int:
    """Writes rows as Parquet; returns how many there were."""
    from pyarrow import parquet  # noqa: PLC0415 - an extra, and slow to import

    schema, count = _schema(columns), 0
    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        for part in _parts(rows):
            writer.write_batch(_batch(schema, part))
            count += len(part)
    return count


def _schema(columns: Sequence[tuple[str, str]]) -> "pa.Schema":
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

    kinds = {"INTEGER": pa.int64(), "REAL": pa.float64()}
    return pa.schema([(name, kinds.get(kind.upper(), pa.string())) for name, kind in columns])


def _batch(schema: "pa.Schema", rows: Sequence[Sequence[Any]]) -> "pa.RecordBatch":
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

    columns = zip(*rows, strict=True)
    return pa.record_batch([pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)], schema)


def _parts(rows: Iterator[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    while part := list(islice(rows, BATCH)):
        yield part
