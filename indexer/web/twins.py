"""The rows of a page for programs, in the columns that `export` has, as JSON and CSV."""

import io
from collections.abc import Iterable, Sequence
from typing import Any

from starlette.responses import Response

from indexer.terminal.output import Format, write
from indexer.text.values import Row

TYPES = {"json": "application/json", "csv": "text/csv; charset=utf-8"}


def twin(columns: Sequence[str], rows: Iterable[Row], form: str) -> Response:
    """All rows, written by what writes those of the command line."""
    stream = io.StringIO()
    write(columns, rows, Format(form), stream)
    return Response(stream.getvalue(), media_type=TYPES[form])


def of_dicts(rows: Sequence[Any], columns: Sequence[str], form: str) -> Response:
    """Rows of one shape; CSV leaves out nested values."""
    names = list(rows[0]) if rows else list(columns)
    if form == "csv":
        names = [name for name in names if not any(isinstance(row[name], list | dict) for row in rows)]
    return twin(names, ([row[name] for name in names] for row in rows), form)
