"""Writes rows as Apache Parquet."""

from collections.abc import Iterable, Sequence
from typing import BinaryIO

from indexer.api.arrow import batches
from indexer.text.values import Row


def write_parquet(columns: Sequence[str], rows: Iterable[Row], stream: BinaryIO) -> None:
    """Write all rows to a stream, part by part; `IndexerError` says what to install if pyarrow is missing."""
    schema, parts = batches(columns, rows)
    from pyarrow import parquet

    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        for batch in parts:
            writer.write_batch(batch)
