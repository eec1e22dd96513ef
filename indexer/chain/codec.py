"""Reads to calldata and return data to values; Multicall3's `aggregate3` around them. Pure.

Common shapes go by fixed words (see tests/bench/multicall.py), the rest through multicall's `Signature`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from faster_eth_abi.exceptions import DecodingError, EncodingError
from multicall import Signature

from indexer.chain.errors import BadAnswerError
from indexer.model import Failed, Read
from indexer.text import NAME_CHARACTERS

AGGREGATE3 = bytes.fromhex("82ad56cb")


@dataclass(frozen=True, slots=True)
class Codec:
    """How one function is encoded and decoded; common shapes by fixed words, the rest by multicall's Signature."""

    encode: Callable[[Sequence[Any]], bytes]
    decode: Callable[[bytes], Any]


@cache
def codec(signature: str) -> Codec:
    """The codec of "name(inputs)(outputs)". ValueError if the text cannot be parsed."""
    try:
        parsed = Signature(signature)
    except (IndexError, ValueError, TypeError) as error:
        raise ValueError(f"not a function signature: {signature} ({error})") from None
    return Codec(_encoder(parsed), _decoder(parsed))


def _encoder(parsed: Signature) -> Callable[[Sequence[Any]], bytes]:
    selector = bytes(parsed.fourbyte)
    types = [str(kind) for kind in parsed.input_types]

    def generic(args: Sequence[Any]) -> bytes:
        if len(args) != len(types):
            raise ValueError(f"{parsed.signature} takes {len(types)} arguments, not {len(args)}")
        return bytes(parsed.encode_data(tuple(args)))

    if types == ["address"]:
        prefix = selector + bytes(12)

        def one_address(args: Sequence[Any]) -> bytes:
            (address,) = args
            if isinstance(address, str) and len(address) == 42:
                encoded = prefix + bytes.fromhex(address[2:])
                if len(encoded) == 36:
                    return encoded
            return generic(args)

        return one_address
    if types == ["uint256"]:

        def one_uint(args: Sequence[Any]) -> bytes:
            (value,) = args
            return selector + value.to_bytes(32) if type(value) is int and value >= 0 else generic(args)

        return one_uint
    return generic


def _decoder(parsed: Signature) -> Callable[[bytes], Any]:
    types = [str(kind) for kind in parsed.output_types]
    if not types:
        return lambda _: ()
    if types == ["uint256"]:

        def one_uint(data: bytes) -> int:
            if len(data) < 32:
                raise ValueError("too short")
            return int.from_bytes(data[:32])

        return one_uint
    if all(kind == "uint256" for kind in types):
        count = len(types)
        spans = [slice(32 * i, 32 * i + 32) for i in range(count)]

        def uints(data: bytes) -> tuple[int, ...]:
            if len(data) < 32 * count:
                raise ValueError("too short")
            return tuple([int.from_bytes(data[span]) for span in spans])

        return uints

    named = any("string" in kind for kind in types)

    def generic(data: bytes) -> Any:
        values = parsed.decode_data(data)
        if named:
            values = _cut(values)
        return values[0] if len(types) == 1 else tuple(values)

    return generic


def _cut(value: Any) -> Any:
    """Texts within a decoded value cut to a name's length: symbols and labels come from strangers' contracts."""
    if isinstance(value, str):
        return value[:NAME_CHARACTERS]
    return type(value)(map(_cut, value)) if isinstance(value, list | tuple) else value


def encode_read(read: Read) -> bytes:
    """The calldata of a read. ValueError if the arguments do not fit the signature: that is the caller's mistake."""
    try:
        return codec(read.signature).encode(read.args)
    except (EncodingError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{read.signature} cannot take {read.args!r}: {error}") from None


def decode_read(read: Read, success: bool, data: bytes) -> Any:
    """The answer of a read: its value, or Failed."""
    if not success:
        return Failed(read, data, _revert_reason(data))
    try:
        return codec(read.signature).decode(data)
    except (DecodingError, ValueError, OverflowError, IndexError) as error:
        return Failed(read, data, f"undecodable: {type(error).__name__}" if data else "no data (no such contract?)")


def _revert_reason(data: bytes) -> str:
    if not data:
        return "reverted without a reason"
    if data[:4] == bytes.fromhex("08c379a0") and len(data) >= 68:
        length = int.from_bytes(data[36:68])
        text = data[68 : 68 + min(length, 200)].decode(errors="replace")
        return "".join(char if char.isprintable() else "?" for char in text)
    return f"reverted with 0x{data[:4].hex()}"


def encode_aggregate(calls: Sequence[tuple[str, bytes]]) -> bytes:
    """Calldata of aggregate3 for (target, calldata) pairs, every one allowed to fail."""
    heads, tails = [], []
    offset = 32 * len(calls)
    flags = (1).to_bytes(32) + (96).to_bytes(32)
    for target, data in calls:
        heads.append(offset.to_bytes(32))
        size = len(data)
        padding = -size % 32
        tails.append(b"".join((bytes(12), bytes.fromhex(target[2:]), flags, size.to_bytes(32), data, bytes(padding))))
        offset += 128 + size + padding
    return b"".join((AGGREGATE3, (32).to_bytes(32), len(calls).to_bytes(32), *heads, *tails))


def decode_aggregate(data: bytes, count: int) -> list[tuple[bool, bytes]]:
    """The (success, return data) pairs of aggregate3. BadAnswerError unless there are exactly `count` whole ones."""
    if len(data) < 64 + 32 * count or int.from_bytes(data[:32]) != 32 or int.from_bytes(data[32:64]) != count:
        raise BadAnswerError(f"the aggregate does not answer {count} calls")
    results = []
    for i in range(count):
        start = 64 + int.from_bytes(data[64 + 32 * i : 96 + 32 * i])
        success = data[start : start + 32]
        size = int.from_bytes(data[start + 64 : start + 96])
        end = start + 96 + size
        if end > len(data) or any(success[:31]) or success[31:] not in {b"\0", b"\1"}:
            raise BadAnswerError("the aggregate's answer is malformed")
        results.append((success[31] == 1, data[start + 96 : end]))
    return results
