"""Topics, raw JSON logs and words to events; the ABI files of the package."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
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


class Abi:
    """What one kind of contract can be asked, and what it logs, by name: a JSON ABI's functions and events.

    ValueError if two functions, or two events, have one name: they belong to ABIs of their own.
    """

    def __init__(self, name: str, entries: Iterable[Mapping[str, Any]]) -> None:
        self.name = name
        self._known: dict[tuple[str, str], Mapping[str, Any]] = {}
        for entry in entries:
            key = (entry["type"], entry["name"])
            if key in self._known:
                raise ValueError(f"two {entry['type']}s named {entry['name']} in the ABI {name}")
            self._known[key] = entry

    def function(self, name: str) -> str:
        """A function as `Read` takes it, "name(inputs)(outputs)". LookupError if there is none."""
        entry = self._entry("function", name)
        return f"{name}{_types(entry['inputs'])}{_types(entry['outputs'], lean=True)}"

    def event(self, name: str) -> str:
        """The topic0 of an event. LookupError if there is none."""
        return topic(name + _types(self._entry("event", name)["inputs"]))

    def note(self, name: str) -> str:
        """What Maker's LogNote of a call to this function has for topic0: the selector, left-aligned."""
        return topic(name + _types(self._entry("function", name)["inputs"]))[:10] + 56 * "0"

    def _entry(self, kind: str, name: str) -> Mapping[str, Any]:
        entry = self._known.get((kind, name))
        if entry is None:
            raise LookupError(f"the ABI {self.name} has no {kind} {name}")
        return entry


def _types(parameters: Sequence[Mapping[str, Any]], *, lean: bool = False) -> str:
    return f"({','.join(_type(parameter, lean) for parameter in parameters)})"


def _type(parameter: Mapping[str, Any], lean: bool) -> str:
    """A parameter's canonical type. If `lean`, a struct of one word is that word, as it is encoded alike."""
    kind, members = str(parameter["type"]), parameter.get("components", ())
    if not kind.startswith("tuple"):
        return kind
    if lean and kind == "tuple" and len(members) == 1 and re.fullmatch(r"u?int\d+", members[0]["type"]):
        return str(members[0]["type"])
    return _types(members, lean=lean) + kind.removeprefix("tuple")


@cache
def abi(name: str) -> Abi:
    """The ABI kept as abis/<name>.json. FileNotFoundError if there is none."""
    return Abi(name, json.loads(resources.files("abis").joinpath(f"{name}.json").read_text("utf-8")))


class LogParser:
    """Reads the raw logs of one answer, strictly; what repeats in them (hashes, topics, addresses) is checked once."""

    def __init__(self) -> None:
        self._words: dict[str, str] = {}
        self._addresses: dict[str, str] = {}
        self._numbers: dict[str, int] = {}

    def __call__(self, raw: Mapping[str, Any]) -> Event:
        """One log of eth_getLogs or of a receipt.

        RetryableError if it is not the JSON that the execution API promises: the node's answer cannot be trusted then.
        """
        try:
            topics, data = raw["topics"], raw["data"]
            words, addresses = self._words, self._addresses
            payload = bytes.fromhex(data[2:])
            if not isinstance(topics, list) or len(topics) > 4 or data[:2] != "0x" or len(data) != 2 + 2 * len(payload):
                raise TypeError("topics or data")
            address, block_hash, transaction_hash = raw["address"], raw["blockHash"], raw["transactionHash"]
            return Event(
                addresses.get(address) or _checked(address, 20, addresses),
                tuple([words.get(topic) or _checked(topic, 32, words) for topic in topics]),
                payload,
                self._number(raw["blockNumber"]),
                words.get(block_hash) or _checked(block_hash, 32, words),
                words.get(transaction_hash) or _checked(transaction_hash, 32, words),
                self._number(raw["logIndex"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RetryableError(f"malformed log in the answer ({error})") from None

    def _number(self, text: Any) -> int:
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = quantity(text)
        return number


def _checked(text: Any, size: int, known: dict[str, str]) -> str:
    """A hex string of so many bytes in lower case, remembered. ValueError or TypeError if it is none."""
    if (
        not isinstance(text, str)
        or len(text) != 2 + 2 * size
        or text[:2] != "0x"
        or len(bytes.fromhex(text[2:])) != size
    ):
        raise ValueError(f"not {size} bytes")
    known[text] = text.lower()
    return known[text]


def mapping_slot(key: str, slot: int) -> int:
    """Where Solidity keeps `mapping(address => ...)` of `slot` for one address; a struct's members follow it."""
    return int.from_bytes(keccak(bytes.fromhex(key[2:]).rjust(32, b"\0") + slot.to_bytes(32)))


def quantity(value: Any) -> int:
    """A JSON-RPC quantity ("0x1f") as an int. ValueError or TypeError for anything else, null included."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise ValueError(f"not a quantity: {str(value)[:80]!r}")
    return int(value, 16)
