"""What the report of a person and that of the book have in common."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from indexer.queries.known import chain_names
from indexer.report.document import Section
from indexer.text.values import Row


def as_of(conn: sqlite3.Connection, rows: Iterable[sqlite3.Row | Mapping[str, Any]]) -> str:
    """The block and time of all numbers; each deployment's own where they differ."""
    chains = chain_names(conn)
    places: dict[tuple[int, int, str], list[str]] = defaultdict(list)
    for row in rows:
        places[row["chain_id"], row["block_number"], row["block_time"]].append(row["deployment"])
    if len(places) == 1:
        ((chain_id, number, at),) = places
        return f"Chain {chains[chain_id]}, block {number} of {at} (UTC)"
    several = len({chain_id for chain_id, _, _ in places}) > 1
    return "; ".join(
        f"{', '.join(names)}: {f'chain {chains[chain_id]}, ' if several else ''}block {number} of {at} (UTC)"
        for (chain_id, number, at), names in places.items()
    )


def percent(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else 100 * (part / whole)  # of the whole exactly 100


def labelled(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[str, float | None]]:
    """One bar per asset, labelled with its symbol, and with its address where two share a symbol."""
    symbols = Counter(row["symbol"] for row in rows)
    return [
        (row["symbol"] if symbols[row["symbol"]] == 1 else f"{row['symbol']} {row['asset'][:10]}…", row[name])
        for row in rows
    ]


def section(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], **extra: Any) -> Section:
    lines: list[Row] = [[row[name] for name in columns] for row in rows]
    return Section(title, columns, lines, **extra)
