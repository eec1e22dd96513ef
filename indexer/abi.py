"""Event topics, and the functions and events of the package's ABI files."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from eth_hash.auto import keccak


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
    """The functions and events of one kind of contract, by name, from its JSON ABI.

    ValueError if two functions, or two events, share a name: they belong in separate ABIs.
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
        """The topic0 of Maker's LogNote for a call to this function: its selector, left-aligned."""
        return topic(name + _types(self._entry("function", name)["inputs"]))[:10] + 56 * "0"

    def _entry(self, kind: str, name: str) -> Mapping[str, Any]:
        entry = self._known.get((kind, name))
        if entry is None:
            raise LookupError(f"the ABI {self.name} has no {kind} {name}")
        return entry


def _types(parameters: Sequence[Mapping[str, Any]], *, lean: bool = False) -> str:
    return f"({','.join(_type(parameter, lean) for parameter in parameters)})"


def _type(parameter: Mapping[str, Any], lean: bool) -> str:
    """A parameter's canonical type. If `lean`, a struct of one word becomes that word: both are encoded alike."""
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


def mapping_slot(key: str, slot: int) -> int:
    """Where Solidity keeps `mapping(address => ...)` of `slot` for one address; a struct's members follow it."""
    return int.from_bytes(keccak(bytes.fromhex(key[2:]).rjust(32, b"\0") + slot.to_bytes(32)))
