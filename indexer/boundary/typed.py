"""A table that somebody wrote as the value that a type describes, and in words what is wrong with one that does not fit."""

import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

T = TypeVar("T")

#: what msgspec calls a type, in words
NAMES = {"int": "integer", "float": "number", "str": "string", "bool": "boolean", "array": "list", "object": "table"}
BOUNDS = {">=": "greater than or equal to", ">": "greater than", "<=": "less than or equal to", "<": "less than"}
PLACE = re.compile(r"\.(\w+)|\[(\d+)\]")


class UnfitError(ValueError):
    """The first value that does not fit: `path` to it within the table, and the value `given`; `missing` where it lacks."""

    def __init__(self, message: str, path: tuple[str, ...], given: object, *, missing: bool = False) -> None:
        super().__init__(message)
        self.path, self.given, self.missing = path, given, missing


def typed(kind: type[T], table: object) -> T:
    """The table as a dataclass or another type that msgspec knows. Raises `UnfitError`; numbers must be finite."""
    try:
        found = msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        told, _, place = str(error).partition(" - at `$")
        path = tuple(name or number for name, number in PLACE.findall(place))
        lacking = re.fullmatch(r"Object missing required field `(\w+)`", told)
        if lacking:
            raise UnfitError("is missing", (*path, lacking[1]), None, missing=True) from error
        given = _at(table, path)
        raise UnfitError(_wanted(told, given, kind, path), path, given) from error
    for field in fields(found) if is_dataclass(found) else ():
        value = getattr(found, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise UnfitError("should be a finite number", (field.name,), number)
    return found


def _at(table: Any, path: tuple[str, ...]) -> object:
    for part in path:
        table = table[part] if isinstance(table, Mapping) else table[int(part)]
    return table


def _wanted(told: str, given: object, kind: type[Any], path: tuple[str, ...]) -> str:
    """What a value should be, after msgspec's word of it."""
    if isinstance(given, float) and not math.isfinite(given):
        return "should be a finite number"
    bound = re.fullmatch(r"Expected `(\w+)(?: \| null)?`( of length)? (>=|>|<=|<) (\S+)", told)
    if bound and bound[2]:
        least = "at least" if bound[3] == ">=" else "at most"
        things = "item" if bound[1] == "array" else "character"
        return f"should have {least} {bound[4]} {things}{'' if bound[4] == '1' else 's'}"
    if bound:
        return f"should be {BOUNDS[bound[3]]} {float(bound[4]):g}"
    if told.startswith("Invalid enum value") and is_dataclass(kind):
        *first, last = map(repr, get_args(get_type_hints(kind)[path[-1]]))
        return f"should be {', '.join(first)} or {last}"
    word = re.match(r"Expected `(\w+)", told)
    if word and word[1] in NAMES:
        return f"should be a valid {NAMES[word[1]]}"
    return f"does not fit ({told})"
