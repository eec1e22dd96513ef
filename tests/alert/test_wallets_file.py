"""Whatever a file of wallets holds, it is either watched or refused in one line."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexer.alert.wallets_file import LARGEST_FILE, load_watches
from indexer.alert.watches import Watch
from indexer.boundary.bounded_json import MAX_DEPTH
from indexer.errors import ConfigError
from indexer.text.values import NAME_CHARACTERS

ADDRESS = "0x2c3dea55a6e837a9d4fa4d312a100b5d79369d3a"
OTHER = "0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503"


def resolve(name: str) -> tuple[str, str]:
    """A name service that knows one name, in whatever case."""
    if name.lower() != "vitalik.eth":
        raise ConfigError(f"the ENS name {name!a} points to no address")
    return OTHER, "vitalik.eth"


def load(name: str, data: bytes) -> list[Watch] | str:
    """The watches, or the one line of the error; anything else is a defect."""
    try:
        found = load_watches(Path(name), data, resolve)
    except ConfigError as error:
        return str(error)
    for watch in found:
        assert watch.wallet in (ADDRESS, OTHER) or len(watch.wallet) == 42
        json.dumps(watch.label, ensure_ascii=False).encode()  # no lone surrogates
        assert watch.label is None or (len(watch.label) <= NAME_CHARACTERS and "\0" not in watch.label)
    return found


names = st.sampled_from(["a.csv", "a.tsv", "a.json", "a.txt", "a"])
cells = st.one_of(
    st.sampled_from(
        [ADDRESS, ADDRESS.upper(), "eth:" + ADDRESS, "Vitalik.ETH ", "wallet", "address", "label", "below", "drop",
         "1.1", "10%", "", "=1+1", "sep=;", "chainId", "-1", "1e400", "nan", "\ud800", "\0", "﻿", '"', "#"]
    ),
    st.text(max_size=8),
)  # fmt: skip
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), cells),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["wallet", "label", "below", "drop", "x"]), inner, max_size=4),
    ),
    max_leaves=12,
)


@given(names, st.binary(max_size=300))
@example("a.csv", b"\xff\xfe" + "wallet\n".encode("utf-16-le") + b"\x00")
@example("a.txt", b"\xff\xfe")
@example("a.txt", b"\xef\xbb\xbf")
@example("a.csv", b'wallet\n"')
def test_any_bytes_are_watched_or_refused(name: str, data: bytes) -> None:
    load(name, data)


@given(
    names,
    st.lists(st.lists(cells, max_size=5), max_size=6),
    st.sampled_from(",;\t"),
    st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
)
def test_any_table_is_watched_or_refused(name: str, rows: list[list[str]], separator: str, encoding: str) -> None:
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator).writerows(rows)
    load(name, stream.getvalue().encode(encoding, errors="surrogatepass"))


@pytest.mark.slow
@given(names, values)
@settings(max_examples=200)
def test_any_json_is_watched_or_refused(name: str, value: Any) -> None:
    load(name, json.dumps(value).encode(errors="surrogatepass"))


@given(st.integers(MAX_DEPTH + 1, 300_000), st.sampled_from(["[", "{", '[{"wallet":', '[["x",']))
@settings(max_examples=20, deadline=None)
def test_json_that_is_nested_deeply_is_refused_before_it_is_parsed(depth: int, opening: str) -> None:
    found = load("a.json", (opening * depth).encode()[: LARGEST_FILE // 4])
    assert isinstance(found, str)
    assert "nested more than" in found


def test_a_name_of_ens_is_kept_in_its_one_spelling_with_the_address_it_points_to() -> None:
    for data in (b"  Vitalik.ETH  \n", b"wallet,label\nVITALIK.eth,him\n", b'["Vitalik.eth"]', b"Vitalik.eth,him\n"):
        (watch,) = load("a", data)
        assert isinstance(watch, Watch)
        assert (watch.wallet, watch.ens) == (OTHER, "vitalik.eth")
    assert "line 2" in str(load("a.txt", f"{ADDRESS}\nnobody.eth\n".encode()))


def test_a_file_that_no_list_of_wallets_can_be_is_not_read() -> None:
    assert "larger than" in str(load("a.txt", b"0" * (LARGEST_FILE + 1)))


@pytest.mark.parametrize("label", ["x" * 65, "x" * 100_000])
def test_a_long_label_is_cut(label: str) -> None:
    (watch,) = load("a.csv", f"wallet,label\n{ADDRESS},{label}\n".encode())
    assert isinstance(watch, Watch)
    assert watch.label == "x" * NAME_CHARACTERS
