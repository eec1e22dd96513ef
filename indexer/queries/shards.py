"""Lists over several files: rows of each merged in their order, and wallets that hold something in more than one added up."""

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any

from indexer.queries.scope import Scope, marks
from indexer.store.shards import each
from indexer.text.values import Row


def run(
    conn: sqlite3.Connection,
    names: Sequence[str],
    source: str,
    filters: Sequence[str],
    order: str,
    values: Sequence[Any],
    scope: Scope,
) -> tuple[list[str], Iterable[Row]]:
    """Columns and rows of one SELECT over all files; `order` holds where the scope names no other, and among equals."""
    columns = [name.rpartition(" as ")[2].rpartition(".")[2] for name in names]
    order = scope.ordered(columns, names, order)
    where = f" where {' and '.join(filters)}" if filters else ""
    limit = "" if scope.limit is None else f" limit {scope.limit:d}"
    parts = each(conn)
    if len(parts) == 1:
        cursor = parts[0].execute(f"select {', '.join(names)} from {source}{where} order by {order}{limit}", values)  # noqa: S608 - ours
        return [column[0] for column in cursor.description], cursor
    terms = split(order)
    keys = [term.removesuffix(" desc").removesuffix(" asc") for term in terms]
    sql = f"select {', '.join([*names, *keys])} from {source}{where} order by {order}{limit}"  # noqa: S608 - our own names
    place = sort_key(len(names), [term.endswith(" desc") for term in terms])
    merged = heapq.merge(*(part.execute(sql, values) for part in parts), key=place)
    return columns, (tuple(row)[: len(names)] for row in islice(merged, scope.limit))


def split(order: str) -> list[str]:
    """The terms of an ORDER BY, at the commas outside brackets."""
    terms, depth, begin = [], 0, 0
    for place, char in enumerate(order):
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            terms.append(order[begin:place].strip())
            begin = place + 1
    return [*terms, order[begin:].strip()]


class Reverse:
    """A text that sorts the other way round."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __lt__(self, other: "Reverse") -> bool:
        return other.text < self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reverse) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def sort_key(first: int, descending: Sequence[bool]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """The key that sorts rows as SQLite does by its columns from `first` on: NULL, then numbers, then texts."""

    def key(row: Sequence[Any]) -> tuple[Any, ...]:
        parts: list[Any] = []
        for place, down in enumerate(descending, first):
            value = row[place]
            kind = 0 if value is None else 2 if isinstance(value, str) else 1
            if down:
                kind = -kind
                value = None if value is None else Reverse(value) if isinstance(value, str) else -value
            parts += (kind, 0 if value is None else value)
        return tuple(parts)

    return key


# wallets ----------------------------------------------------------------------------------------------------------------


def added_up(
    conn: sqlite3.Connection,
    names: Sequence[str],
    source: str,
    filters: Sequence[str],
    order: str,
    values: Sequence[Any],
    scope: Scope,
    among: Sequence[str] | None = None,
) -> tuple[list[str], Iterable[Row]]:
    """As `run`, of the view `wallets` or what is like it, `among` these or all; each wallet once over all files.

    Of several files the wallets are added up in memory: whoever asks for all of them needs the room for it.
    """
    if len(each(conn)) > 1:
        return run(_together(conn, names, source, among), names, "together p", filters, order, values, scope)
    chosen, given = _among(among)
    return run(conn, names, source, [*filters, *chosen], order, [*values, *given], scope)


def _among(wallets: Sequence[str] | None) -> tuple[list[str], Sequence[str]]:
    # SQLite pushes a list of values down into the view, but not a table of them.
    return ([], []) if wallets is None else ([f"p.wallet in ({marks(wallets)})"], wallets)


def _together(
    conn: sqlite3.Connection, names: Sequence[str], source: str, among: Sequence[str] | None
) -> sqlite3.Connection:
    """A database in memory with the table `together` of the sums, and `positions` with what filters of wallets ask for."""
    columns = [name.removeprefix("p.") for name in names]
    memory = sqlite3.connect(":memory:")
    memory.row_factory = sqlite3.Row
    typed = ", ".join(
        f"{name} text collate nocase" if name in ("wallet", "worst_account") else name for name in columns
    )
    memory.execute(f"create table together ({typed})")
    chosen, given = _among(among)
    where = f" where {' and '.join(chosen)}" if chosen else ""
    sql = f"select {', '.join(names)} from {source}{where} order by lower(p.wallet)"  # noqa: S608 - our own names
    rows = heapq.merge(
        *(part.execute(sql, given) for part in each(conn)), key=lambda row: (row["wallet"] or "").lower()
    )
    sums = (
        _sum(columns, [dict(row) for row in mine])
        for _, mine in groupby(rows, lambda row: (row["wallet"] or "").lower())
    )
    memory.executemany(f"insert into together values ({', '.join('?' * len(columns))})", sums)  # noqa: S608
    held = "wallet, chain_id, deployment, protocol"
    memory.execute("create table positions (wallet text collate nocase, chain_id, deployment, protocol)")
    for part in each(conn):
        found = part.execute(f"select distinct {held} from positions p{where}", given)  # noqa: S608 - our own names
        memory.executemany("insert into positions values (?, ?, ?, ?)", map(tuple, found))
    return memory


#: columns of the view that are of the position nearest to liquidation
WORST = "health_factor_raw health_factor worst_chain_id worst_deployment worst_account worst_position_group".split()
RANKED = itemgetter("worst_chain_id", "worst_deployment", "worst_account", "worst_position_group")


def _sum(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[Any]:
    """The row of one wallet from those of each file; a sum with an unknown part is unknown."""
    worst = min(rows, key=lambda row: (row["health_factor"] is None, row["health_factor"] or 0.0, RANKED(row)))
    found: dict[str, Any] = {"wallet": rows[0]["wallet"], **{name: worst[name] for name in WORST}}
    for name in columns:
        if name in found or name == "net_usd":
            continue
        values = [row[name] for row in rows]
        if name.startswith("oldest_"):
            found[name] = min((value for value in values if value is not None), default=None)
        else:
            found[name] = None if None in values else sum(values)
    supply, debt = found["supply_usd"], found["debt_usd"]
    found["net_usd"] = None if supply is None or debt is None else supply - debt
    return [found[name] for name in columns]


def chained(conn: sqlite3.Connection, sql: str, values: Sequence[Any]) -> Iterator[Row]:
    """Rows of each file, one after the other, as plain tuples, which are faster than rows with column names.

    Some may be left unread: a generator would close its cursor then, perhaps after the connection.
    """

    def rows(part: sqlite3.Connection) -> sqlite3.Cursor:
        cursor = part.cursor()
        cursor.row_factory = None
        return cursor.execute(sql, [*values])

    return chain.from_iterable(map(rows, each(conn)))
