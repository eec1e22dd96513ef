"""JSON from strangers, limited in depth and in size to what this project can have use for."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

#: lists and objects inside each other; a node's answers have four or five
MAX_DEPTH = 64
#: bytes of memory that the parsed value may take
MAX_PARSED = 192 * 2**20

_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"?')
_NO_MARK = bytes(set(range(256)) - set(b'[]{}"'))


def loads(content: bytes | bytearray) -> Any:
    """The value of a JSON text in UTF-8. ValueError if it is not JSON, or deeper or larger than allowed.

    Depth and size are checked before anything is parsed.
    """
    require_size(content)
    if too_deep(content):
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    try:
        return _DECODER.decode(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def require_size(content: bytes | bytearray) -> None:
    """ValueError if the parsed value might take more memory than allowed; for other parsers, which bound the depth alone."""
    size = parsed_size(content)
    if size > MAX_PARSED:
        raise ValueError(f"it would take some {size >> 20} MB of memory, {MAX_PARSED >> 20} at most are allowed")


def parsed_size(content: bytes | bytearray) -> int:
    """About how many bytes the parsed value takes at most: there may be a string after each comma or bracket."""
    return len(content) + 312 * content.count(b"{") + 128 * content.count(b"[") + 64 * content.count(b",")


def too_deep(content: bytes | bytearray) -> bool:
    """Whether brackets are nested more than `MAX_DEPTH` levels deep, or too many of them are never closed."""
    marks = (_ESCAPED.sub(b"", content) if b"\\" in content else content).translate(None, _NO_MARK)
    marks = marks.replace(b'""', b"")  # two adjacent quotes leave whatever stands around them in or out of a string
    if b'"' in marks:
        marks = _STRING.sub(b"", marks)
    for _ in range(MAX_DEPTH // 2):
        without = marks.replace(b"[]", b"").replace(b"{}", b"")
        if len(without) == len(marks):
            break
        marks = without
    return len(marks) > MAX_DEPTH // 2


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refused)


@contextmanager
def same_recursion_limit() -> Iterator[None]:
    """Keeps the recursion limit while web3 is imported: its py_ecc raises it to 100,000, and deep input would then overflow
    the C stack.
    """
    limit = sys.getrecursionlimit()
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
