"""A program that the node runs over many accounts in one eth_call: its code, its input and its answer. Pure.

A read of what accounts' flags name takes two rounds of aggregates, of some 230 bytes for each call; the lens takes one
round and 20 bytes for each account (tests/bench/lens.py compares them). lens.yul is its source.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from indexer.adapter import Part
from indexer.model import Read
from indexer.reads.codec import codec, encode_read

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


def encode(accounts: Sequence[str], always: Sequence[Part], by_bit: Mapping[int, Sequence[Part]]) -> bytes | None:
    """The input of the lens; None if it cannot ask this."""
    entries = [(ALWAYS, part) for part in always]
    entries += [(bit.bit_length() - 1, part) for bit in sorted(by_bit) for part in by_bit[bit]]
    if any(place > ALWAYS or (place == ALWAYS) != (i < len(always)) for i, (place, _) in enumerate(entries)):
        return None
    words = [_word(place, *part) for place, part in entries]
    return b"".join((len(words).to_bytes(32), *words, *(bytes.fromhex(account[2:]) for account in accounts)))


def _word(place: int, target: str, signature: str) -> bytes:
    selector = encode_read(Read(target, signature, (ZERO,)))[:4]
    return b"".join((selector, bytes([place]), bytes(7), bytes.fromhex(target[2:])))


def decode(
    data: bytes, count: int, always: Sequence[Part], by_bit: Mapping[int, Sequence[Part]]
) -> list[list[Any]] | None:
    """The answers about each of `count` accounts; None unless there are exactly those that their flags call for."""
    first = [codec(signature).decode for _, signature in always]
    named = {bit: [codec(signature).decode for _, signature in parts] for bit, parts in by_bit.items()}
    rows: list[list[Any]] = []
    at = 0
    for _ in range(count):
        flags = int.from_bytes(data[at : at + 32])
        decoders: list[Callable[[bytes], Any]] = [*first]
        while flags:
            bit = flags & -flags
            flags ^= bit
            decoders += named.get(bit, ())
        try:
            rows.append([decoder(data[at + 32 * i : at + 32 * i + 32]) for i, decoder in enumerate(decoders)])
        except ValueError:  # too short, or no value of that type
            return None
        at += 32 * len(decoders)
    return rows if at == len(data) else None
