"""Says what of a failure is the database's fault; called only after reading it has failed."""

import sqlite3
from contextlib import closing
from pathlib import Path

from indexer.errors import StoreError
from indexer.store.database import open_readonly, unusable

#: the last second of the year 9999
LAST_SECOND = 253_402_300_799


def blame(path: Path, error: Exception) -> None:
    """Raises StoreError with what is wrong with the file and what to do, if that explains the error."""
    if isinstance(error, sqlite3.DatabaseError):
        raise unusable(path, error) from error
    found = damage(path)
    if found is not None:
        raise StoreError(
            f"{path} is damaged: {found}; restore a copy, or delete it and run `indexer sync` again"
        ) from error


def damage(path: Path) -> str | None:
    """Names the first malformed value: a `_raw` that is not a decimal integer, a time that no calendar has.

    None without such a value, or if the database cannot be read: then the failure has another cause.
    """
    try:
        with closing(open_readonly(path, current=False)) as conn:
            for (table,) in conn.execute("select name from sqlite_master where type = 'table'").fetchall():
                for (column,) in conn.execute("select name from pragma_table_info(?)", (table,)).fetchall():
                    condition = wrong(column)
                    if condition:
                        sql = f"select {column} from {table} where {condition} limit 1"  # noqa: S608 - names of our schema
                        found = conn.execute(sql).fetchone()
                        if found is not None:
                            return f"{table}.{column} is {str(found[0])[:40]!r}, which this program never writes"
    except (sqlite3.Error, StoreError):
        return None
    return None


def wrong(column: str) -> str:
    """The SQL condition of a wrong value, empty for a column that may hold any."""
    if column.endswith("_raw"):
        digits = f"substr({column}, 1 + (substr({column}, 1, 1) = '-'))"
        return f"{column} is not null and ({digits} = '' or {digits} glob '*[^0-9]*' or length({column}) > 100)"
    if column.endswith(("_timestamp", "_at")):
        return f"{column} not between 0 and {LAST_SECOND}"
    return ""
