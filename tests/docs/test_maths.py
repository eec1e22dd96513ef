"""Every formula of docs/maths.md stands in the file and function of the contracts that it names, and in ours."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.devnet.packages import installed, package
from tests.docs.pages import DOCS, ROOT

PAGE = DOCS / "maths.md"
HEAD = "| what | contract file | function | here |"
PROTOCOLS = ("Aave V3", "Aave V2", "Compound V2", "Compound V3", "Maker")


class Row(NamedTuple):
    """One row of a section's table."""

    protocol: str
    what: str
    file: str
    functions: tuple[str, ...]
    here: tuple[str, ...]


def rows() -> Iterator[Row]:
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        table = text.partition(HEAD)[2].partition("\n\n")[0]
        for line in table.splitlines()[2:]:
            what, *cells = line.strip("| ").split(" | ")
            (file,), functions, here = (tuple(re.findall(r"`([^`]+)`", cell)) for cell in cells)
            yield Row(title, what, file, functions, here)


def test_every_protocol_has_its_table_and_every_row_says_where() -> None:
    found = list(rows())
    assert {row.protocol for row in found} == set(PROTOCOLS)
    assert all(row.functions and row.here for row in found)
    assert len({row[:3] for row in found}) >= 40


def test_the_code_is_where_the_page_says() -> None:
    wrong = []
    for row in rows():
        for place in row.here:
            path, _, name = place.partition(":")
            if not re.search(rf"^ *def {name}\(", (ROOT / path).read_text(), re.MULTILINE):
                wrong.append(place)
    assert wrong == []


def sources(protocol: str) -> list[Path]:
    """The folders of a protocol's published sources, every version that the tests run."""
    if protocol == "Aave V3":
        later = installed("@aave-dao/aave-v3-origin", "3.6.0") / "src" / "contracts"
        return [package("@aave/core-v3", "1.19.3") / "contracts", later]
    if protocol == "Aave V2":
        return [package("@aave/protocol-v2", "1.0.1") / "contracts"]
    return [package("@thenextblock/hardhat-compound", "0.0.14") / "dist" / "contracts" / "compound"]


def abi(protocol: str, file: str) -> set[str]:
    """The functions of a contract of which only the ABI is published as a package."""
    if protocol == "Compound V3":
        folder = package("@compound-finance/compound-js", "0.6.2") / "dist" / "nodejs" / "comet-artifacts"
        text = json.dumps(json.loads((folder / "comet-constants.json").read_text())["abi"])
        return set(re.findall(r"function (\w+)\(", text)) | set(re.findall(r'"name": "(\w+)"', text))
    names = {"vat": "Vat", "dog": "Dog", "cat": "Cat", "clip": "Clipper", "spot": "Spotter", "jug": "Jug", "osm": "OSM"}
    folder = package("@makerdao/dai-plugin-mcd", "1.8.5") / "dist" / "abis"
    entries = json.loads((folder / f"{names[file.removesuffix('.sol')]}.json").read_text())
    return {entry["name"] for entry in entries if entry["type"] == "function"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_contracts_have_what_the_page_cites(protocol: str, needs_node: None) -> None:
    wrong = []
    for row in rows():
        if row.protocol != protocol:
            continue
        if protocol in ("Compound V3", "Maker"):
            known = abi(protocol, row.file)
        else:
            texts = [(folder / row.file).read_text() for folder in sources(protocol) if (folder / row.file).exists()]
            known = {name for text in texts for name in re.findall(r"function (\w+)\s*\(", text)}
        wrong += [f"{row.file}: {name}" for name in row.functions if name not in known]
    assert wrong == []
