"""Compiled contracts: bytecode with its link references, from npm artifacts or from the compiler."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.devnet.packages import solc


@dataclass(frozen=True)
class Artifact:
    """One contract: ABI, creation code as hex without 0x, and library name -> byte offsets of its address."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: str
    links: Mapping[str, Sequence[int]]

    @property
    def constructor_types(self) -> list[str]:
        """The constructor's argument types as eth-abi writes them."""
        inputs: list[dict[str, Any]] = next((e["inputs"] for e in self.abi if e["type"] == "constructor"), [])
        return [abi_type(entry) for entry in inputs]

    @property
    def errors(self) -> list[str]:
        """Signatures of the contract's custom errors."""
        return [
            f"{entry['name']}({','.join(abi_type(i) for i in entry['inputs'])})"
            for entry in self.abi
            if entry["type"] == "error"
        ]

    def linked(self, libraries: Mapping[str, str]) -> str:
        """The creation code with library addresses filled in. Raises KeyError for a library that is not given."""
        code = self.bytecode
        for library, offsets in self.links.items():
            address = libraries[library].removeprefix("0x").lower()
            for offset in offsets:
                code = code[: 2 * offset] + address + code[2 * offset + 40 :]
        return code


def abi_type(entry: Mapping[str, Any]) -> str:
    """The canonical type of an ABI input, tuples written out."""
    if not entry["type"].startswith("tuple"):
        return str(entry["type"])
    inner = ",".join(abi_type(component) for component in entry["components"])
    return f"({inner}){entry['type'].removeprefix('tuple')}"


def interface(abi: Iterable[Mapping[str, Any]], kind: str) -> set[tuple[Any, ...]]:
    """Functions or events with the types, index flags and results that callers and logs depend on."""
    return {
        (
            entry["name"],
            tuple((abi_type(i), i.get("indexed", False)) for i in entry["inputs"]),
            tuple(abi_type(o) for o in entry.get("outputs", [])),
        )
        for entry in abi
        if entry["type"] == kind
    }


def link_offsets(references: Mapping[str, Mapping[str, Sequence[Mapping[str, int]]]]) -> dict[str, list[int]]:
    """Library name -> byte offsets, from solc's `linkReferences` (file -> library -> positions)."""
    return {
        library: [position["start"] for position in positions]
        for file in references.values()
        for library, positions in file.items()
    }


def hardhat_artifact(path: Path) -> Artifact:
    """Read one hardhat artifact JSON file."""
    raw = json.loads(path.read_text())
    return Artifact(
        raw["contractName"], raw["abi"], raw["bytecode"].removeprefix("0x"), link_offsets(raw.get("linkReferences", {}))
    )


def compile_contracts(
    version: str, sources: Mapping[str, Mapping[str, str]], settings: Mapping[str, Any] | None = None
) -> dict[str, Artifact]:
    """Compile Solidity with npm `solc` (cached); contract name -> artifact.

    `sources` is the `sources` of a standard-json input: unit name -> `{"content": text}`.
    """
    chosen = {
        "optimizer": {"enabled": True, "runs": 200},
        "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "evm.bytecode.linkReferences"]}},
        **(settings or {}),
    }
    output = solc(version, {"language": "Solidity", "sources": dict(sources), "settings": chosen})
    return {
        name: Artifact(
            name,
            contract["abi"],
            contract["evm"]["bytecode"]["object"],
            link_offsets(contract["evm"]["bytecode"]["linkReferences"]),
        )
        for contracts in output["contracts"].values()
        for name, contract in contracts.items()
        if "evm" in contract
    }


def common_contracts() -> dict[str, Artifact]:
    """`Token(name, symbol, decimals)`, `Feed(decimals, answer)` and `FlashReceiver()` of common.sol."""
    source = (Path(__file__).parent / "common.sol").read_text()
    return compile_contracts("0.8.27", {"common.sol": {"content": source}}, {"evmVersion": "paris"})
