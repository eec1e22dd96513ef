"""Reads what the flags of an account name: in one go where the node can, else in two rounds."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from indexer.adapter import Part, Reader, required
from indexer.model import Read
from protocols.common import chunks


def set_bits(bitmap: int) -> Iterator[int]:
    """Each bit that is set in a bitmap, as the power of two that it is, ascending."""
    while bitmap:
        bit = bitmap & -bitmap
        bitmap ^= bit
        yield bit


def flagged(
    read: Reader, accounts: Sequence[str], always: Sequence[Part], by_bit: Mapping[int, Sequence[Part]]
) -> list[list[Any]]:
    """For each account the answers to `always`, the first of which are its flags, and then to what each bit of them names."""
    seen = read.by_flags(accounts, always, by_bit)
    if seen is not None:
        return seen
    rows = chunks(required(read, [Read(to, f, (account,)) for account in accounts for to, f in always]), len(always))
    named = [[part for bit in set_bits(row[0]) for part in by_bit.get(bit, ())] for row in rows]
    more = [Read(to, f, (account,)) for account, parts in zip(accounts, named, strict=True) for to, f in parts]
    answers = iter(required(read, more))
    return [[*row, *islice(answers, len(parts))] for row, parts in zip(rows, named, strict=True)]
