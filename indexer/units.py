"""Decimal numbers as integers scaled by 1e18, exactly, and back; the health factor below which a position is at risk."""

import math
import re
from decimal import Decimal, InvalidOperation
from functools import cache

from indexer.model import WAD

DIGITS = 18


def scaled(text: str | float) -> int:
    """A decimal number scaled by 1e18, exactly. ValueError if it is not a number or has more than 18 decimals."""
    written = str(text).strip()
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+|\d+(\.\d+)?e-?\d{1,2}", written):
        raise ValueError(f"{text!r} is no number")
    try:
        value = Decimal(written).scaleb(DIGITS)
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is no number") from error
    if value != value.to_integral_value():
        raise ValueError(f"{text} has more than {DIGITS} decimals")
    return int(value)


def decimal_text(value: int) -> str:
    """An integer scaled by 1e18 as an exact decimal number without trailing zeros."""
    text = f"{value // WAD}.{value % WAD:018d}".rstrip("0")
    return text.removesuffix(".")


AT_RISK_BELOW = 1.1


@cache
def least_at(bound: float) -> int:
    """The lowest health factor, scaled by 1e18, that is not below `bound`, read as the decimal number it was written as."""
    return math.ceil(Decimal(str(bound)) * WAD)
