"""A node's raw blocks, parsed strictly, and how a request names a block."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from indexer.chain.errors import BadAnswerError, UnknownBlockError
from indexer.errors import ReorgError
from indexer.model import Block

#: the last second that has a date, in the year 9999
LATEST_TIME = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Header:
    """A block and the bloom filter of its logs (256 bytes, None where the node serves none)."""

    block: Block
    bloom: bytes | None


def block_parameter(block: Block) -> dict[str, Any]:
    """EIP-1898: the state of exactly this block, and only while it is canonical."""
    return {"blockHash": block.hash, "requireCanonical": True}


def parse_hex(raw: Any) -> bytes:
    """A JSON-RPC byte string. BadAnswerError for anything else."""
    if not isinstance(raw, str) or not raw.startswith("0x"):
        raise BadAnswerError("no hexadecimal value in the answer")
    try:
        return bytes.fromhex(raw[2:])
    except ValueError:
        raise BadAnswerError("no hexadecimal value in the answer") from None


def block_request(which: int | str) -> tuple[str, list[Any]]:
    if isinstance(which, int):
        return "eth_getBlockByNumber", [hex(which), False]
    return ("eth_getBlockByHash" if len(which) == 66 else "eth_getBlockByNumber"), [which, False]


def check_header(raw: Any, which: int | str | None) -> dict[str, Any]:
    """A raw header, which must be the one asked for; UnknownBlockError for a missing block."""
    if raw is None:
        raise UnknownBlockError(f"block {which} is not known")
    header = parse_header(raw)
    if isinstance(which, int) and header.block.number != which:
        raise BadAnswerError(f"answer with block {header.block.number} instead of {which}")
    if isinstance(which, str) and len(which) == 66 and header.block.hash != which.lower():
        raise BadAnswerError(f"answer with block {header.block.hash} instead of {which}")
    found: dict[str, Any] = raw
    return found


def parse_block(raw: Any) -> Block:
    return parse_header(raw).block


def parse_header(raw: Any) -> Header:
    """A raw header, parsed strictly. BadAnswerError if it is malformed."""
    try:
        block = Block(
            number=quantity(raw["number"]),
            hash=raw["hash"].lower(),
            parent_hash=raw["parentHash"].lower(),
            timestamp=quantity(raw["timestamp"]),
        )
        well_formed = len(bytes.fromhex(block.hash[2:] + block.parent_hash[2:])) == 64
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadAnswerError(f"malformed block in the answer ({error})") from None
    if not well_formed:
        raise BadAnswerError("malformed block in the answer")
    if block.number >> 63 or block.timestamp > LATEST_TIME:
        raise BadAnswerError(f"a block in the answer has the number {block.number} and the time {block.timestamp}")
    return Header(block, _bloom(raw.get("logsBloom")))


def _bloom(raw: Any) -> bytes | None:
    """A header's bloom filter; None where it is missing ("0x", null, absent) or malformed."""
    try:
        bloom = bytes.fromhex(raw[2:])
    except (TypeError, ValueError):
        return None
    return bloom if len(bloom) == 256 else None


_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}", re.ASCII)


def quantity(value: Any) -> int:
    """A JSON-RPC quantity ("0x1f") as an int. ValueError or TypeError for anything else, null included."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise ValueError(f"not a quantity: {str(value)[:80]!r}")
    return int(value, 16)


def check_linked(headers: Sequence[Header]) -> None:
    """ReorgError unless each block is the child of the one before."""
    for parent, child in pairwise(headers):
        if child.block.parent_hash != parent.block.hash:
            raise ReorgError(f"block {child.block.number} is not a child of block {parent.block.number} as read before")
