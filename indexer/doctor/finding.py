"""What one check found, in words and as a value."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a finding bears on a sync: no harm, slower or less checked, or it fails or its rows cannot be proven."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line about an endpoint (masked) of a chain; both are empty where it is about this installation.

    `value` is what was measured, None where nothing could be: a number (of blocks, calls, gas, seconds), a word, or
    whether it works.
    """

    check: str
    verdict: Verdict
    text: str
    value: Any = None
    chain: str = ""
    endpoint: str = ""
