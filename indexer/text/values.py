"""Values as text for people and for JSON, without control characters and without losing a digit."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

Row = Sequence[Any]
#: characters kept of a label or a token's symbol: a contract can return one of 200 kB
NAME_CHARACTERS = 64
#: health factors from here on are shown by their magnitude: their digits tell nobody anything
FAR_FROM_DANGER = 10_000


def json_value(value: Any) -> Any:
    """A value as JSON can carry it exactly: integers beyond 2**53 and non-finite numbers as strings, bytes as 0x hex."""
    match value:
        case str() | None | bool():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case int():
            return value if abs(value) <= 2**53 else str(value)
        case bytes():
            return "0x" + value.hex()
        case Mapping():
            return {str(key): json_value(inner) for key, inner in value.items()}
        case _:
            return [json_value(inner) for inner in value]


# What a terminal would obey rather than print: controls, and the marks that hide or turn text around.
STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with all control characters spelt out, as in \x1b."""
    return STEERING.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def plain(value: Any) -> str:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value if isinstance(value, str) else json.dumps(json_value(value)) if is_nested(value) else str(value)


def is_nested(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def for_people(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """The columns of each row, with health factors from their exact integers: as a float, 1 - 1e-18 is 1."""
    for row in rows:
        exact = {name: row[f"{name}_raw"] for name in columns if row.get(f"{name}_raw") and "health_factor" in name}
        yield [Decimal(exact[name]).scaleb(-18) if name in exact else row[name] for name in columns]


def short_address(text: str) -> str:
    """An address or a hash by its ends, for people: 0x47ac..d503."""
    return f"{text[:6]}..{text[-4:]}"


def shown(column: str, value: Any) -> str:
    """A value as a table shows it. A health factor is rounded down, so that 0.99999 never reads as 1."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return "\n".join(f"{printable(str(key))} {shown('', inner)}" for key, inner in value.items())
    if not isinstance(value, float | Decimal):
        return printable(plain(value))
    number = float(value)
    if not math.isfinite(number):
        return str(number)
    if "health_factor" in column:
        return f"{math.floor(value * 10_000) / 10_000:,.4f}" if number < FAR_FROM_DANGER else f"{number:.3g}"
    if column.endswith(("usd", "percent", "hhi")):
        return f"{round(number, 2) + 0.0:,.2f}"  # no -0.00
    if abs(number) >= 1e15:
        return f"{number:.6g}"
    return f"{number:,.6f}".rstrip("0").rstrip(".") if abs(number) >= 1e-4 or number == 0 else f"{number:.3g}"


def many(count: int, one: str) -> str:
    """So many of something: 1 position, 2,300 positions."""
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def iso(timestamp: int) -> str:
    """Unix seconds as a time in UTC, such as 2026-01-31T12:00:00Z."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def age(seconds: float | None) -> str:
    """A time span in its largest unit: 45 s, 12 min, 3 h, 5 days."""
    if seconds is None:
        return "-"
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


# A spreadsheet reads such a cell as a formula (OWASP, CSV injection); a plain number is harmless.
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")  # fmt: skip
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


# Most cells are hex addresses, decimal digits and plain names, which need no closer look.
harmless = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.:-]*").fullmatch
NUMBERS = (float, int)


def cell_text(value: Any) -> str:
    """A CSV or TSV cell: empty for NULL, with a leading apostrophe where a spreadsheet would see a formula."""
    if value is None:
        return ""
    if isinstance(value, str):
        if not value or harmless(value):
            return value
    elif isinstance(value, NUMBERS):
        return str(value)
    text = printable(plain(value))
    return "'" + text if isinstance(value, str) and FORMULA.match(text) and not NUMBER.fullmatch(text) else text
