"""Rows as Arrow record batches, with pyarrow, which the extra `parquet` installs.

Exact integers stay strings, as everywhere; readable numbers are doubles, `block_time` is a timestamp in UTC. A column has
the same type whatever rows there are: by its name, if a table has it, else by its values. Its unit, meaning and source are
in its metadata.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from indexer.errors import IndexerError
from indexer.extras import how_to_install
from indexer.schema.dictionary import dictionary
from indexer.text.values import Row, plain

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 10_000
#: units that say more than SQLite's type
UNITS = {"flag": "bool", "UTC": "time"}


def batches(columns: Sequence[str], rows: Iterable[Row]) -> "tuple[pa.Schema, Iterator[pa.RecordBatch]]":
    """The schema, and the rows in parts; `IndexerError` says what to install if pyarrow is missing."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise IndexerError(f"Parquet and Arrow need pyarrow: {how_to_install('parquet')}") from error
    types = {name: by_name(name) for name in columns}
    if None in types.values():
        rows = [tuple(row) for row in rows]
        for place, name in enumerate(columns):
            types[name] = types[name] or by_values(row[place] for row in rows)
    arrow = {"int": pa.int64(), "bool": pa.bool_(), "real": pa.float64(), "text": pa.string()}
    arrow["time"] = pa.timestamp("ms", tz="UTC")
    told = {
        name: {"unit": c.unit, "meaning": c.meaning, "source": c.source} for name, c in dictionary().of(columns).items()
    }
    schema = pa.schema([pa.field(name, arrow[types[name] or "text"], metadata=told.get(name)) for name in columns])
    kinds = [types[name] or "text" for name in columns]
    return schema, (record_batch(schema, kinds, part) for part in parts(rows))


def parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def record_batch(schema: "pa.Schema", types: Sequence[str], rows: Sequence[Row]) -> "pa.RecordBatch":
    import pyarrow as pa

    arrays = []
    for place, (field, name) in enumerate(zip(schema, types, strict=True)):
        try:
            arrays.append(pa.array([as_type(row[place], name) for row in rows], field.type))
        except (ValueError, TypeError) as error:  # a query can name any column debt_usd
            raise IndexerError(f"column {field.name} does not hold what its name says; rename it: {error}") from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def by_name(name: str) -> str | None:
    """The type of a column that a table or a list has: int, bool, real, text or time; None for any other name."""
    told = dictionary().column(name)
    if told is None:
        return "text" if name.endswith("_raw") else "real" if name.endswith("_usd") else None
    if told.unit in UNITS:
        return UNITS[told.unit]
    return {"integer": "int", "real": "real"}.get(told.type, "text")


def by_values(values: Iterable[Any]) -> str:
    """The narrowest type that holds every value exactly: 64-bit integers, doubles, else text."""
    largest, reals = 0, False
    for value in values:
        if isinstance(value, float):
            reals = True
        elif isinstance(value, int) and not isinstance(value, bool):
            largest = max(largest, abs(value))
        elif value is not None:
            return "text"
    return "text" if largest >= (2**53 if reals else 2**63) else "real" if reals else "int"


def as_type(value: Any, name: str) -> Any:
    if value is None:
        return None
    match name:
        case "text":
            return plain(value)
        case "real":
            return float(value)
        case "bool":
            return bool(value)
        case "time":
            return datetime.fromisoformat(value).astimezone(UTC)
        case _:
            return value
