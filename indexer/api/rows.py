"""What the answers have in common: records whose exact integers are `int`, and rows of any columns."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

from indexer.errors import IndexerError
from indexer.extras import how_to_install
from indexer.model import WAD
from indexer.text.values import Row

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# A program that sets up no logging hears nothing; one that does hears the loggers below `indexer`.
logging.getLogger("indexer").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class BlockRef:
    """The block that a value is of; `timestamp` in unix seconds, None in rows that an older version wrote."""

    number: int
    hash: str
    timestamp: int | None

    @property
    def time(self) -> datetime | None:
        """When the block was made, UTC."""
        return None if self.timestamp is None else datetime.fromtimestamp(self.timestamp, UTC)


class Record:
    """A row as the commands print it in JSON, with exact integers (`_raw`) as `int` and flags as `bool`."""

    __slots__ = ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The record of a row that has its fields."""
        kinds = {field.name: field.type for field in fields(cls)}  # type: ignore[arg-type] # every record is a dataclass
        return cls(**{name: typed(name, kind, row[name]) for name, kind in kinds.items() if name in row})

    def as_row(self) -> dict[str, Any]:
        """The row as a command prints it: exact integers as decimal text, as JSON readers would round them."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: untyped(name, value) for name, value in named.items()}


def typed(name: str, kind: object, value: Any) -> Any:
    if value is not None and name.endswith("_raw"):
        return int(value)
    return bool(value) if kind is bool else value


def untyped(name: str, value: Any) -> Any:
    if value is not None and name.endswith("_raw"):
        return str(value)
    return int(value) if isinstance(value, bool) else value


def exact(health_factor_raw: int | None) -> Fraction | None:
    """A health factor without a rounding error."""
    return None if health_factor_raw is None else Fraction(health_factor_raw, WAD)


class Rows:
    """Rows of any columns, each a dict as the commands print it in JSON; they are read while they are iterated, and once.

    Exact integers (`_raw`) are decimal text. `remarks` say what a reader must know: what is left out, what is unknown.
    """

    def __init__(self, columns: Sequence[str], rows: Iterator[Row], remarks: Sequence[str] = ()) -> None:
        self.columns = tuple(columns)
        self.remarks = tuple(remarks)
        self._rows = rows

    @classmethod
    def of(cls, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], remarks: Sequence[str] = ()) -> Self:
        """Rows of dicts that have these columns."""
        return cls(columns, ([row[name] for name in columns] for row in rows), remarks)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self._rows:
            yield dict(zip(self.columns, row, strict=True))

    def pandas(self) -> "pd.DataFrame":
        """A DataFrame of the rows. Raises `IndexerError` without the extra `pandas`."""
        try:
            import pandas as pd
        except ImportError as error:
            raise IndexerError(f"a DataFrame needs pandas: {how_to_install('pandas')}") from error
        return pd.DataFrame.from_records([tuple(row) for row in self._rows], columns=[*self.columns])

    def arrow(self) -> "pa.Table":
        """An Arrow table, typed as in Parquet files. Raises `IndexerError` without the extra `parquet`."""
        from indexer.api.arrow import batches

        schema, parts = batches(self.columns, self._rows)
        import pyarrow as pa

        return pa.Table.from_batches(list(parts), schema)
