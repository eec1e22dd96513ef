"""The table `changes`: how the list of who is at risk changed, written in the transaction that changed it.

One row a position and step, and behind each step one of the kind `block`: the list is now that of this block. Applied in
the order of their ids to an empty list, the rows give the view `at_risk` of each block; see docs/searcher-stream.md.
"""

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, NamedTuple

from indexer.boundary.stored_json import stored_object
from indexer.store.chosen import rows_of
from indexer.store.rows import POSITION_COLUMNS, PositionRow, pair_of

#: the version of the lines made of these rows; a new one means that old readers would misread them
VERSION = 1
#: seconds that rows are kept, by the time of their blocks, and how many at most
KEPT_SECONDS = 86_400
KEPT_ROWS = 2_000_000
#: characters kept of a text: symbols and notes come from strangers' contracts
LONGEST_TEXT = 1_000

#: the columns that name a row's block; a row has changed only if others differ
BLOCK_COLUMNS = ("block_number", "block_hash", "block_timestamp")
KEY_COLUMNS = ("deployment", "protocol", "account", "position_group", "wallet")
COLUMNS = [name for name in POSITION_COLUMNS if name not in BLOCK_COLUMNS]

Key = tuple[str, str, str]  # deployment, account, position group
Row = dict[str, Any]


class Place(NamedTuple):
    """The block of the list; number -1 and an empty hash if a reorganisation left none."""

    number: int
    hash: str
    timestamp: int | None


def at_risk(conn: sqlite3.Connection, chain_id: int) -> dict[Key, PositionRow]:
    """The rows of the view `at_risk` of one chain."""
    return {_key(row): row for row in _rows(conn, "status in ('at-risk', 'liquidatable') and chain_id = ?", chain_id)}


def _rows(conn: sqlite3.Connection, where: str, *values: Any) -> list[PositionRow]:
    cursor = conn.cursor()
    cursor.row_factory = None
    cursor.execute(f"select {', '.join(POSITION_COLUMNS)} from positions where {where}", values)  # noqa: S608 - our names
    return [*map(PositionRow._make, cursor)]


def _row(row: PositionRow) -> Row:
    """A row as readers get it."""
    return {name: _plain(value) for name, value in zip(POSITION_COLUMNS, row, strict=True)}


def _plain(value: Any) -> Any:
    """A column's value as JSON can hold it."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else value[: LONGEST_TEXT - 1] + "…"
    return None if isinstance(value, float) and not math.isfinite(value) else value


_key: Callable[[PositionRow], Key] = itemgetter(
    *map(POSITION_COLUMNS.index, ("deployment", "account", "position_group"))
)


def _among(conn: sqlite3.Connection, rows: Sequence[PositionRow]) -> dict[Key, PositionRow]:
    """What the list has of the positions of these rows, which are of one deployment."""
    where, columns = (rows[0].chain_id, rows[0].deployment), ", ".join(f"t.{name}" for name in POSITION_COLUMNS)
    found = rows_of(conn, columns, "positions", where, map(pair_of, rows), "t.status in ('at-risk', 'liquidatable')")
    return {_key(row): row for row in map(PositionRow._make, found)}


@contextmanager
def noted(
    conn: sqlite3.Connection,
    chain_id: int,
    place: Place,
    *,
    gone: str = "left",
    always: bool = True,
    only: Sequence[PositionRow] = (),
) -> Iterator[None]:
    """Records what the context does to the list of one chain, within the caller's transaction.

    `gone` is the kind for whoever leaves the list: `reorged` where their block left the chain. Unless `always`, a step
    that changes nothing is not written. With `only`, the context writes these rows of one deployment and no others.
    """
    before = _among(conn, only) if only else at_risk(conn, chain_id)
    yield
    after = _among(conn, only) if only else at_risk(conn, chain_id)
    stayed = sorted(key for key in before.keys() & after.keys() if before[key] != after[key])
    entries = [
        *((gone, _row(before[key]), _now(conn, chain_id, key)) for key in sorted(before.keys() - after.keys())),
        *(("changed", _row(before[key]), _row(after[key])) for key in stayed),
        *(("entered", None, _row(after[key])) for key in sorted(after.keys() - before.keys())),
    ]
    bodies = [(kind, _body(place, kind, old, new)) for kind, old, new in entries if not _same(old, new)]
    if bodies or always:
        bodies.append(("block", json.dumps({"block_timestamp": place.timestamp})))
    conn.executemany(
        "insert into changes (chain_id, block_number, block_hash, kind, body) values (?, ?, ?, ?, ?)",
        [(chain_id, place.number, place.hash, kind, body) for kind, body in bodies],
    )
    _expire(conn, chain_id, place.timestamp)


def _now(conn: sqlite3.Connection, chain_id: int, key: Key) -> Row | None:
    """The present row of a position that is no longer on the list."""
    found = _rows(conn, "chain_id = ? and deployment = ? and account = ? and position_group = ?", chain_id, *key)
    return _row(found[0]) if found else None


def _same(old: Row | None, new: Row | None) -> bool:
    return old is not None and new is not None and all(old[name] == new[name] for name in COLUMNS)


def _body(place: Place, kind: str, old: Row | None, new: Row | None) -> str:
    """The rest of a line: for `changed` only the columns that differ, else whole rows."""
    row = new or old
    assert row is not None
    if kind == "changed" and old is not None and new is not None:
        differing = [name for name in POSITION_COLUMNS if old[name] != new[name]]
        old, new = ({name: one[name] for name in differing} for one in (old, new))
    return json.dumps(
        {
            "block_timestamp": place.timestamp,
            "position": {name: row[name] for name in KEY_COLUMNS},
            "before": old,
            "after": new,
        },
        separators=(",", ":"),
    )


def _expire(conn: sqlite3.Connection, chain_id: int, now: int | None) -> None:
    """Drops whole steps that are too old or too many; the newest always stays, so that no id is ever given twice.

    Evidence: the times of their blocks against `now`, the time of the newest one or the clock's if that is earlier. A
    reader that they were dropped for gets the whole list.
    """
    now = None if now is None else min(now, int(time.time()))
    (newest,) = conn.execute("select max(id) from changes where chain_id = ?", (chain_id,)).fetchone()
    cut = 0
    for number, body in conn.execute(
        "select id, body from changes where chain_id = ? and kind = 'block' order by id", (chain_id,)
    ):
        at = stored_object(body, f"changes.body of id {number}").get("block_timestamp")
        old = isinstance(at, int) and now is not None and at < now - KEPT_SECONDS
        if number == newest or not (old or newest - number > KEPT_ROWS):
            break
        cut = number
    if cut:
        conn.execute("delete from changes where chain_id = ? and id <= ?", (chain_id, cut))


# what readers get -----------------------------------------------------------------------------------------------------


def lines_after(conn: sqlite3.Connection, chain_id: int, after: int, most: int) -> list[Row] | None:
    """The next lines after the id `after`; None if some of them have been dropped already."""
    conn.execute("begin")
    try:
        kept = conn.execute("select 1 from changes where id = ? and chain_id = ?", (after, chain_id)).fetchone()
        rows = conn.execute(
            "select id, kind, chain_id, block_number, block_hash, body from changes where chain_id = ? and id > ? "
            "order by id limit ?",
            (chain_id, after, most),
        ).fetchall()
    finally:
        conn.execute("commit")
    return None if after and kept is None else [_line(*row) for row in rows]


def _line(number: int, kind: str, chain_id: int, block: int, block_hash: str, body: str) -> Row:
    return {
        "version": VERSION,
        "id": number,
        "kind": kind,
        "chain_id": chain_id,
        "block_number": block,
        "block_hash": block_hash,
        **stored_object(body, f"changes.body of id {number}"),
    }


def start_of(conn: sqlite3.Connection, chain_id: int, block: int) -> int | None:
    """The id after which the lines of this block and all later steps follow; None if not all of them are kept."""
    ends = conn.execute(
        "select id, block_number from changes where chain_id = ? and kind = 'block' order by id", (chain_id,)
    ).fetchall()
    before = 0
    for place, (number, at) in enumerate(ends):
        if at >= block:
            return before if place or at == block else None
        before = number
    return None


def snapshot(conn: sqlite3.Connection, chain_id: int) -> tuple[int, list[Row], Row]:
    """The whole list: the id of the last line it includes, its rows, and the other fields of its line."""
    conn.execute("begin")
    try:
        (last,) = conn.execute("select coalesce(max(id), 0) from changes where chain_id = ?", (chain_id,)).fetchone()
        rows = [*map(_row, at_risk(conn, chain_id).values())]
        block = conn.execute(
            "select block_number, block_hash, block_timestamp from deployments where chain_id = ? and block_number is not null "
            "order by block_number desc limit 1",
            (chain_id,),
        ).fetchone()
    finally:
        conn.execute("commit")
    head = {"version": VERSION, "id": last, "kind": "snapshot", "chain_id": chain_id}
    return last, rows, {**head, **dict(zip(BLOCK_COLUMNS, block or (None, None, None), strict=True))}
