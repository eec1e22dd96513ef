"""The change stream as its readers see it: the schema that every line keeps to, and the list that lines lead to."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tests.truth import raw

SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "searcher-stream.schema.json"
#: which block a row is of: a row whose other columns stay the same is not told again
BLOCK = ("block_number", "block_hash", "block_timestamp", "block_time")
Listed = dict[tuple[str, str, str], dict[str, Any]]


@cache
def validator() -> Any:
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def key_of(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["deployment"], row["account"], row["position_group"]


def replayed(lines: Iterable[Mapping[str, Any]]) -> Listed:
    """The list that lines lead to from an empty one, each of them checked against the schema; without block columns."""
    held: Listed = {}
    for line in lines:
        validator().validate(line)
        kind = line["kind"]
        if kind == "snapshot":
            held = {} if line["part"] == 1 else held
            held |= {key_of(row): dict(row) for row in line["rows"]}
        elif kind == "entered":
            assert key_of(line["position"]) not in held
            held[key_of(line["position"])] = dict(line["after"])
        elif kind == "changed":
            row = held[key_of(line["position"])]
            assert {name: row[name] for name in line["before"] if name not in BLOCK} == {
                name: value for name, value in line["before"].items() if name not in BLOCK
            }
            row |= line["after"]
        elif kind in ("left", "reorged"):
            gone = held.pop(key_of(line["position"]))
            assert all(gone[name] == line["before"][name] for name in gone if name not in BLOCK)
    return {key: {n: v for n, v in row.items() if n not in BLOCK} for key, row in held.items()}


def at_risk(path: Path) -> Listed:
    """The view `at_risk` of the database, without block columns."""
    columns = [name for (name,) in raw(path, "select name from pragma_table_info('at_risk')")]
    rows = [dict(zip(columns, row, strict=True)) for row in raw(path, "select * from at_risk")]
    return {key_of(row): {n: v for n, v in row.items() if n not in BLOCK} for row in rows}
