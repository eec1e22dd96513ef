"""Any file as a list of accounts is taken or refused in one line."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.errors import ConfigError
from indexer.transfer.accounts_file import Place, load

PLACES = {"here": Place(1, "mainnet", "here", "")}
CELLS = st.sampled_from(
    [
        "0x" + "1" * 40,
        "0X" + "a" * 40,
        "account",
        "deployment",
        "here",
        "1",
        "",
        "\x00",
        "=1+1",
        "\x1b[2J",
        '"',
        "x" * 5_000,
    ]
)
LINES = st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=5).map("\n".join) | st.lists(
    CELLS, min_size=1, max_size=3
).map(lambda cells: "account\n" + "\n".join(cells))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([".csv", ".tsv", ".txt", ".parquet", ".json"]), st.binary(max_size=300) | LINES.map(str.encode))
def test_any_bytes_are_taken_or_refused(tmp_path: Path, ending: str, data: bytes) -> None:
    path = tmp_path / f"accounts{ending}"
    path.write_bytes(data)
    message = ""
    try:
        found = load(path, PLACES, ["here"], None)
        assert all(key.account == key.account.lower() for keys in found.keys.values() for key in keys)
    except ConfigError as error:
        message = str(error)
    assert len(message) < 1_000
    assert "\n" not in message
    assert "\x1b" not in message


@pytest.mark.parametrize(
    "data", [b"PAR1" + b"\xff" * 100_000 + b"PAR1", b"account\n" + b'"' * 10**6, b"\x00" * 10**6, b"x," * 10**6]
)
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_large_nonsense_is_refused(tmp_path: Path, ending: str, data: bytes) -> None:
    path = tmp_path / f"accounts{ending}"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as raised:
        load(path, PLACES, ["here"], None)
    assert len(str(raised.value)) < 1_000
