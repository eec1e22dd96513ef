"""Files of others are those of their packages, with their licences; everything else is ours and names no other host."""

import hashlib
import re
from pathlib import Path

from indexer.web.app import STATIC

OURS = {"desk.css", "desk.js", "icon.svg", "VENDORED.md"}
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (STATIC / "VENDORED.md").read_text().splitlines()
    if line.startswith("| ") and "sha512-" in line
]


def test_every_file_of_others_is_the_one_that_is_listed() -> None:
    assert {name: digest for name, _, _, _, digest, _ in ROWS} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in STATIC.iterdir()
        if path.name not in OURS and path.suffix != ".LICENSE"
    }


def test_every_licence_is_beside_its_file() -> None:
    for _, package, _, licence, _, _ in ROWS:
        (name,) = re.findall(r"\((\S+)\)", licence)
        assert len((STATIC / name).read_text()) > 500, package


def test_nothing_of_ours_names_another_host() -> None:
    for path in [*STATIC.iterdir(), *(Path(STATIC.parent) / "templates").iterdir()]:
        if path.name in OURS - {"VENDORED.md"} or path.suffix == ".html":
            urls = set(re.findall(r"https?://[^\s\"'<>)]+", path.read_text())) - {"http://www.w3.org/2000/svg"}
            assert urls == set(), path
