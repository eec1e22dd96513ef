"""Encodes reads as calldata, decodes return data to values, and wraps both in Multicall3's `aggregate3`. Pure.

Values of one word each are coded directly, which is faster (see tests/bench/multicall.py), the rest by eth-abi.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NoReturn

from eth_abi.codec import ABICodec
from eth_abi.decoding import ContextFramesBytesIO
from eth_abi.exceptions import DecodingError, EncodingError, ParseError
from eth_abi.grammar import TupleType, parse
from eth_abi.registry import registry
from eth_hash.auto import keccak

from indexer.chain.errors import BadAnswerError
from indexer.model import Failed, Read
from indexer.text.values import NAME_CHARACTERS

_NUMBER = re.compile(r"(u?int)(\d{1,3})")

AGGREGATE3 = bytes.fromhex("82ad56cb")


#: how often each byte of an answer may be read: many pointers to one array would decode to a huge value
MOST_READS = 8


class _Metered(ContextFramesBytesIO):
    """Return data that limits how much is read from it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)  # type: ignore[no-untyped-call]
        self._left = MOST_READS * len(data) + 1024

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise DecodingError("it repeats itself")
        return piece


class _Abi(ABICodec):
    stream_class = _Metered


_ABI = _Abi(registry)


@dataclass(frozen=True, slots=True)
class Codec:
    """How one function's arguments are encoded and its answer is decoded."""

    encode: Callable[[Sequence[Any]], bytes]
    decode: Callable[[bytes], Any]


@cache
def codec(signature: str) -> Codec:
    """The codec of "name(inputs)(outputs)". ValueError if the text cannot be parsed."""
    name, opened, groups = signature.partition("(")
    inputs, between, outputs = groups.partition(")(")
    if not name.isidentifier() or not opened or not between or not outputs.endswith(")"):
        raise ValueError(f"not a function signature: {signature} (it is written as name(inputs)(outputs))")
    try:
        given, returned = _types(inputs), _types(outputs[:-1])
    except (ParseError, ValueError) as error:
        raise ValueError(f"not a function signature: {signature} ({error})") from None
    selector = keccak(f"{name}({inputs})".encode())[:4]
    return Codec(_encoder(signature, selector, given), _decoder(returned))


def _types(inside: str) -> list[str]:
    """The types of a list like "address,(uint256,bool)[]"; ValueError or eth-abi's ParseError if one is none."""
    if not inside:
        return []
    whole = parse(f"({inside})")
    whole.validate()
    types = [one.to_type_str() for one in whole.components] if isinstance(whole, TupleType) else []
    for kind in types:
        if not _ABI.is_encodable_type(kind):
            raise ValueError(f"{kind} is no type")
    return types


def _encoder(signature: str, selector: bytes, types: list[str]) -> Callable[[Sequence[Any]], bytes]:
    words = [_word_encoder(kind) for kind in types]

    def generic(args: Sequence[Any]) -> bytes:
        if len(args) != len(types):
            raise ValueError(f"{signature} takes {len(types)} arguments, not {len(args)}")
        return selector + _ABI.encode(types, args)

    def by_words(args: Sequence[Any]) -> bytes:
        try:
            return b"".join([selector, *[word(value) for word, value in zip(words, args, strict=True) if word]])
        except (ValueError, TypeError, AttributeError, OverflowError):
            return generic(args)  # eth-abi says what is wrong with them

    return by_words if all(words) else generic


def _word_encoder(kind: str) -> Callable[[Any], bytes] | None:
    """A value of an elementary type as one word, None for other types. Raises for a value that does not plainly fit."""
    if kind == "address":
        return _address
    number = _NUMBER.fullmatch(kind)
    if number and number[1] == "uint":
        bits = int(number[2])

        def uint(value: Any) -> bytes:
            if type(value) is not int or value < 0 or value >> bits:
                raise TypeError
            return value.to_bytes(32)

        return uint
    if kind == "bytes32":

        def bytes32(value: Any) -> bytes:
            if not isinstance(value, bytes) or len(value) != 32:
                raise TypeError
            return value

        return bytes32
    return None


@lru_cache(4_096)
def _address(value: Any) -> bytes:
    """An address as a word; cached, as several reads in a row are about the same account."""
    if not isinstance(value, str) or len(value) != 42 or value[:2] != "0x":
        raise TypeError
    raw = bytes.fromhex(value[2:])
    if len(raw) != 20:  # blanks among the digits
        raise ValueError
    return bytes(12) + raw


def _decoder(types: list[str]) -> Callable[[bytes], Any]:
    if not types:
        return lambda _: ()
    if types == ["uint256"]:

        def one_uint(data: bytes) -> int:
            if len(data) < 32:
                raise ValueError("too short")
            return int.from_bytes(data[:32])

        return one_uint
    flat = _flat(types)
    words = [_word_decoder(kind) for kind in flat or ()]
    if words and all(words):
        spans = [(slice(32 * i, 32 * i + 32), word) for i, word in enumerate(words) if word]
        tuples = flat is not types

        def by_words(data: bytes) -> Any:
            if len(data) < 32 * len(spans):
                raise ValueError("too short")
            values = tuple([word(data[span]) for span, word in spans])
            return values if tuples or len(values) > 1 else values[0]

        return by_words

    named = any("string" in kind for kind in types)

    def generic(data: bytes) -> Any:
        values = _ABI.decode(types, data)
        if named:
            values = _cut(values)
        return values[0] if len(types) == 1 else tuple(values)

    return generic


def _flat(types: list[str]) -> list[str]:
    """The types of the only tuple of a list, if it has no tuples itself: as words they are that value; else the list."""
    whole = parse(types[0]) if len(types) == 1 else None
    if isinstance(whole, TupleType) and not whole.arrlist:
        return [one.to_type_str() for one in whole.components]
    return types


def _word_decoder(kind: str) -> Callable[[bytes], Any] | None:
    """One word as a value of an elementary type, None for other types. ValueError if the word does not encode one."""
    if kind == "uint256":
        return int.from_bytes
    if kind == "address":
        return lambda word: "0x" + word[12:].hex() if not any(word[:12]) else _not(kind)
    if kind == "bool":
        return lambda word: word[31] == 1 if word[31] < 2 and not any(word[:31]) else _not(kind)
    if kind == "bytes32":
        return lambda word: word
    number = _NUMBER.fullmatch(kind)
    if number is None:
        return None
    bits, signed = int(number[2]), number[1] == "int"

    def integer(word: bytes) -> int:
        value = int.from_bytes(word, signed=signed)
        return value if (value + (1 << (bits - 1)) if signed else value) >> bits == 0 else _not(kind)

    return integer


def _not(kind: str) -> NoReturn:
    raise ValueError(f"no {kind}")


def _cut(value: Any) -> Any:
    """Cuts the texts in a decoded value to the length of a name: symbols and labels come from strangers' contracts."""
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


#: what the compiler itself checks, by the number in Panic(uint256) (docs.soliditylang.org, "Panic via assert")
PANICS = {
    0x00: "the compiler gave no reason",
    0x01: "an assertion failed",
    0x11: "a number overflowed or fell below zero",
    0x12: "division by zero",
    0x21: "no such value of an enum",
    0x22: "badly encoded bytes in storage",
    0x31: "pop of an empty array",
    0x32: "an index beyond the end of an array",
    0x41: "too much memory",
    0x51: "a call of a function that was never set",
}


def _revert_reason(data: bytes) -> str:
    """What the contract said, in words; at most 200 characters of its own."""
    if not data:
        return "reverted without a reason"
    if data[:4] == bytes.fromhex("08c379a0") and len(data) >= 68:
        length = int.from_bytes(data[36:68])
        text = data[68 : 68 + min(length, 200)].decode(errors="replace")
        return "".join(char if char.isprintable() else "?" for char in text)
    if data[:4] == bytes.fromhex("4e487b71") and len(data) >= 36:
        number = int.from_bytes(data[4:36])
        return f"panicked: {PANICS.get(number, 'for a reason that Solidity does not name')} (0x{number:02x})"
    return f"reverted with 0x{data[:4].hex()}"


#: words of true and false, and where the data of a call begins: allowFailure and an offset
TRUE, FALSE = (1).to_bytes(32), bytes(32)
FLAGS = TRUE + (96).to_bytes(32)


def encode_aggregate(calls: Sequence[tuple[str, bytes]]) -> bytes:
    """Calldata of aggregate3 for (target, calldata) pairs, each of which may fail."""
    heads: list[bytes] = []
    tails: list[bytes] = []
    offset = 32 * len(calls)
    kinds: dict[tuple[str, int], tuple[bytes, bytes, int]] = {}  # of one target and size: what goes before and after
    for target, data in calls:
        heads.append(offset.to_bytes(32))
        size = len(data)
        kind = kinds.get((target, size))
        if kind is None:
            before = b"".join((bytes(12), bytes.fromhex(target[2:]), FLAGS, size.to_bytes(32)))
            padding = bytes(-size % 32)
            kind = kinds[target, size] = before, padding, 128 + size + len(padding)
        tails += (kind[0], data, kind[1])
        offset += kind[2]
    return b"".join((AGGREGATE3, (32).to_bytes(32), len(calls).to_bytes(32), *heads, *tails))


def decode_aggregate(data: bytes, count: int) -> list[tuple[bool, bytes]]:
    """The (success, return data) pairs of aggregate3. BadAnswerError unless there are exactly `count` whole ones."""
    if len(data) < 64 + 32 * count or int.from_bytes(data[:32]) != 32 or int.from_bytes(data[32:64]) != count:
        raise BadAnswerError(f"the aggregate does not answer {count} calls")
    results = []
    for at in range(64, 64 + 32 * count, 32):
        start = 64 + int.from_bytes(data[at : at + 32])
        success = data[start : start + 32]
        end = start + 96 + int.from_bytes(data[start + 64 : start + 96])
        if end > len(data) or success not in (TRUE, FALSE):
            raise BadAnswerError("the aggregate's answer is malformed")
        results.append((success == TRUE, data[start + 96 : end]))
    return results
