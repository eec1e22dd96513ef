"""Topics, raw JSON logs and words to events; the ABI files of the package."""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from eth_hash.auto import keccak

from indexer.errors import RetryableError
from indexer.model import Event

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}", re.ASCII)


@cache
def topic(signature: str) -> str:
    """topic0 of an event by its canonical text, e.g. "Transfer(address,address,uint256)".

    ValueError if the text is not canonical (blanks, parameter names, `indexed`, `uint`): it would hash to another topic.
    """
    name, _, types = signature.partition("(")
    words = types.replace("(", ",").replace(")", ",").split(",")
    if (
        not name.isidentifier()
        or not types.endswith(")")
        or not signature.isascii()
        or " " in signature
        or any(word.removesuffix("[]") in {"uint", "int", "byte", "fixed", "ufixed"} for word in words)
    ):
        raise ValueError(f"not a canonical event signature: {signature}")
    return "0x" + keccak(signature.encode()).hex()


@cache
def load(name: str) -> list[dict[str, Any]]:
    """The ABI kept as abis/<name>.json. FileNotFoundError if there is none."""
    entries: list[dict[str, Any]] = json.loads(resources.files("abis").joinpath(f"{name}.json").read_text("utf-8"))
    return entries


def parse_log(raw: Mapping[str, Any]) -> Event:
    """One log of eth_getLogs or of a receipt, strictly read.

    RetryableError if it is not the JSON that the execution API promises: the node's answer cannot be trusted then.
    """
    try:
        address, topics, data = raw["address"].lower(), tuple([topic.lower() for topic in raw["topics"]]), raw["data"]
        block_hash, transaction_hash = raw["blockHash"].lower(), raw["transactionHash"].lower()
        payload = bytes.fromhex(data[2:])
        words = (block_hash, transaction_hash, *topics)
        well_formed = (
            len(address) == 42
            and isinstance(raw["topics"], list)
            and len(topics) <= 4
            and len(data) == 2 + 2 * len(payload)
            and all(len(word) == 66 for word in words)
            and all(text[:2] == "0x" for text in (address, data, *words))
            and len(bytes.fromhex("".join([address[2:], *[word[2:] for word in words]]))) == 20 + 32 * len(words)
        )
        event = Event(
            address,
            topics,
            payload,
            quantity(raw["blockNumber"]),
            block_hash,
            transaction_hash,
            quantity(raw["logIndex"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RetryableError(f"malformed log in the answer ({error})") from None
    if not well_formed:
        raise RetryableError("malformed log in the answer")
    return event


def mapping_slot(key: str, slot: int) -> int:
    """Where Solidity keeps `mapping(address => ...)` of `slot` for one address; a struct's members follow it."""
    return int.from_bytes(keccak(bytes.fromhex(key[2:]).rjust(32, b"\0") + slot.to_bytes(32)))


def quantity(value: Any) -> int:
    """A JSON-RPC quantity ("0x1f") as an int. ValueError or TypeError for anything else, null included."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise ValueError(f"not a quantity: {str(value)[:80]!r}")
    return int(value, 16)
