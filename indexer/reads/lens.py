"""A program that the node runs over many accounts in one eth_call: its code, its input and its answer. Pure.

A read of what accounts' flags name takes two rounds of aggregates, of some 230 bytes for each call; the lens takes one
round and 20 bytes for each account (tests/bench/lens.py compares them). lens.yul is its source.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from indexer.adapter import Part
from indexer.model import Read
from indexer.reads.codec import encode_read

#: any address without code, and what it runs: lens.yul as solc 0.8.24 compiles it for the London EVM
LENS = "0x00000000000000000000000000000000c0ffee02"
LENS_CODE = (
    "0x60606020816000803560051b830190815b368110601f57605f1986016060f35b818135851c865b8581106036575050506014016010565b"
    "8035600481811a60ff600187831c169114176054575b505087016026565b99602487838684969e8e968452525afa15608857873d10608857"
    "8790818a146080575b8101989038604c565b805193506077565b8480fd"
)
#: the place of a function that is always asked; bits of flags are below it
ALWAYS = 255
#: functions of accounts in one call to begin with, and accounts at most
FIRST_FUNCTIONS, MOST_ACCOUNTS = 2_000, 2_000
ZERO = "0x" + "00" * 20
_ONE_NUMBER = re.compile(r"\w+\(address\)\(uint(\d{1,3})\)")


def encode(accounts: Sequence[str], always: Sequence[Part], by_bit: Mapping[int, Sequence[Part]]) -> bytes | None:
    """The input of the lens; None if it cannot ask this."""
    entries = [(ALWAYS, part) for part in always]
    entries += [(bit.bit_length() - 1, part) for bit in sorted(by_bit) for part in by_bit[bit]]
    if any(place > ALWAYS or (place == ALWAYS) != (i < len(always)) for i, (place, _) in enumerate(entries)):
        return None
    if not all(_ONE_NUMBER.fullmatch(signature) for _, (_, signature) in entries):
        return None
    words = [_word(place, *part) for place, part in entries]
    return b"".join((len(words).to_bytes(32), *words, *(bytes.fromhex(account[2:]) for account in accounts)))


def _word(place: int, target: str, signature: str) -> bytes:
    selector = encode_read(Read(target, signature, (ZERO,)))[:4]
    return b"".join((selector, bytes([place]), bytes(7), bytes.fromhex(target[2:])))


def _width(part: Part) -> int:
    """The bits of the number that a function answers."""
    found = _ONE_NUMBER.fullmatch(part[1])
    assert found is not None
    return int(found[1])


def decode(
    data: bytes, count: int, always: Sequence[Part], by_bit: Mapping[int, Sequence[Part]]
) -> list[list[Any]] | None:
    """The answers about each of `count` accounts; None unless there are exactly those that their flags call for."""
    words = [int.from_bytes(data[i : i + 32]) for i in range(0, len(data), 32)]
    first = [*map(_width, always)]
    named = {bit: [*map(_width, parts)] for bit, parts in by_bit.items()}
    narrow = min((*first, *(width for widths in named.values() for width in widths))) < 256
    rows: list[list[Any]] = []
    at = 0
    for _ in range(count):
        flags = words[at] if at < len(words) else 0
        widths = [*first]
        while flags:
            bit = flags & -flags
            flags ^= bit
            widths += named.get(bit, ())
        row = words[at : at + len(widths)]
        at += len(widths)
        if at > len(words) or (narrow and any(value >> width for value, width in zip(row, widths, strict=True))):
            return None
        rows.append(row)
    return rows if 32 * at == len(data) else None
