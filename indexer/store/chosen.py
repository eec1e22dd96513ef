"""One statement for many positions: their keys go along as JSON, which costs a third of what a statement for each does."""

import json
import sqlite3
from collections.abc import Iterable

quoted = json.encoder.encode_basestring_ascii

#: rows `t` of the key in hand: ?1 and ?2 are chain and deployment, `k` is one of the members of ?3: account and group
OF_KEY = "{t}.chain_id = ?1 and {t}.deployment = ?2 and {t}.account = k.key and {t}.position_group = k.value"


def rows_of(
    conn: sqlite3.Connection,
    columns: str,
    table: str,
    where: tuple[int, str],
    keys: Iterable[tuple[str, str]],
    condition: str = "true",
) -> sqlite3.Cursor:
    """`columns` of the rows `t` that a table keyed by positions has of these, in their order."""
    source = f"from json_each(?3) k cross join {table} t on {OF_KEY.format(t='t')}"
    return conn.execute(f"select {columns} {source} where {condition}", (*where, members(keys)))


def members(keys: Iterable[tuple[str, str]]) -> str:
    """A JSON object, whose members SQLite takes apart by itself; an account may stand in it several times."""
    return f"{{{','.join([f'{quoted(account)}:{quoted(group)}' for account, group in keys])}}}"
