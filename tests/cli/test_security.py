"""Nobody else can read what is stored, no key of an endpoint is told anywhere, and no name on the chain does harm."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from indexer.chain.client import Chain
from indexer.cli.main import main
from indexer.errors import IndexerError
from indexer.store.store import Store
from tests.devnet.aave_v3 import USD, AaveV3, Listing
from tests.devnet.aave_v3_scenario import Actions
from tests.devnet.node import CHAIN_ID, MULTICALL3
from tests.devnet.scenario import config_toml
from tests.devnet.send import account
from tests.devnet.worlds import aave, alone
from tests.faulty import FaultyNode
from tests.truth import raw, sync_once

#: what may be a key in a URL: user, password, path, query, and a name as some providers have it
KEYS = ("us3rn4me", "pa55w0rd", "p4thk3y0123456789abcdef", "qu3ryk3y99")
NOISY = {"429": 0.1, "500": 0.05, "html": 0.1, "truncated": 0.05, "reset": 0.1, "wrong-id": 0.05, "internal": 0.2}


@pytest.fixture(scope="module")
def populated(needs_node: None) -> Iterator[AaveV3]:
    with alone(aave, 9, 12) as market:
        yield market


@pytest.fixture
def market(populated: AaveV3) -> Iterator[AaveV3]:
    """The market; what a test does to it is undone."""
    with populated.rewound():
        yield populated


def invoke(path: Path, market: AaveV3, *arguments: str) -> Result:
    config = path.with_suffix(".toml")
    config.write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    return CliRunner().invoke(main, ["--config", str(config), "--db", str(path), *arguments])


# files -------------------------------------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_every_file_is_its_owners_alone(market: AaveV3, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "indexer.db"
        with Store(path) as store, store.lock():
            store.start_run(1)
            assert modes(tmp_path) == dict.fromkeys(
                ("indexer.db", "indexer.db-wal", "indexer.db-shm", "indexer.db.lock"), 0o600
            )
        sync_once(path, market.node.url, [market])
        assert set(modes(tmp_path).values()) == {0o600}
    finally:
        os.umask(before)


# keys --------------------------------------------------------------------------------------------------------------------


def with_keys(url: str) -> str:
    """The URL as a provider gives it out, with something secret in every part."""
    user, password, path, query = KEYS
    return url.replace("//", f"//{user}:{password}@") + f"/v2/{path}?apikey={query}"


def no_key_in(text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    for key in KEYS:
        assert key.encode() not in data, f"{key} is told: ...{data[max(data.find(key.encode()) - 200, 0) :][:260]!r}"


def command(path: Path, *arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "indexer",
        "--config",
        str(path.with_suffix(".toml")),
        "--db",
        str(path),
        *arguments,
    ]


def synced(path: Path) -> bool:
    return bool(raw(path, "select 1 from sqlite_master where name = 'deployments'")) and bool(
        raw(path, "select 1 from deployments where block_number is not null")
    )


class Telltale(FaultyNode):
    """A provider whose error messages repeat the whole URL, key included."""

    def _refusal(self, method: str, params: list[Any]) -> tuple[str, int, str] | None:
        if self._happens("internal"):
            return "internal", -32603, f"cannot serve {with_keys(self.url)} ({KEYS[2]}, {KEYS[3]}) now, try again"
        return super()._refusal(method, params)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_noisy_run_tells_no_key_anywhere(market: AaveV3, tmp_path: Path, log_format: str) -> None:
    path = tmp_path / "indexer.db"
    with Telltale(market.node.url, seed=3) as node:
        path.with_suffix(".toml").write_text(config_toml(CHAIN_ID, with_keys(node.url), [market]))
        arguments = ("-vv", "--log-format", log_format, "sync", "--chain", "devnet", "--follow")
        process = subprocess.Popen(command(path, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not path.exists() or not synced(path):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        node.faults = NOISY
        while node.injected.total() < 6 or node.injected["internal"] < 1:
            assert time.monotonic() < deadline, node.injected
            assert process.poll() is None, process.communicate()
            market.node.mine(1)
            time.sleep(0.1)
        stored = [file.read_bytes() for file in tmp_path.iterdir() if file.suffix != ".toml"]
        node.down = True  # and now for good
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert stderr.count("127.0.0.1") > 5, "the endpoint is named"
    assert "trying again" in stderr or "next in" in stderr
    for text in (stdout, stderr, *stored, *(f.read_bytes() for f in tmp_path.iterdir() if f.suffix != ".toml")):
        no_key_in(text)
    told = subprocess.run(command(path, "-vv", "status", "--json"), capture_output=True, check=True)
    no_key_in(told.stdout + told.stderr)


@pytest.mark.parametrize(
    "faults",
    [
        {"reset": 1.0},
        {"429": 1.0},
        {"html": 1.0},
        {"truncated": 1.0},
        {"internal": 1.0},
        {"pruned": 1.0},
        {"null": 1.0},
    ],
    ids=lambda faults: next(iter(faults)),
)
def test_no_error_carries_a_key(market: AaveV3, faults: dict[str, float]) -> None:
    with Telltale(market.node.url, faults=faults) as node:
        chain = Chain("devnet", CHAIN_ID, [with_keys(node.url)], MULTICALL3, attempts=2, backoff=0.01)
        with pytest.raises(IndexerError) as caught:
            chain.code(market.contracts.pool, Chain("devnet", CHAIN_ID, [market.node.url], MULTICALL3).block("latest"))
        chain.close()
    error: BaseException | None = caught.value
    while error is not None:
        no_key_in(f"{error} {error!r} {error.args}")
        error = error.__cause__
    assert "127.0.0.1" in str(caught.value)


# SQL ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "replace into assets values (1, '0x', 'X', 18)",
        "drop view at_risk",
        "vacuum",
        "reindex",
        "pragma writable_schema = 1",
        "pragma user_version = 7",
        "select load_extension('x')",
        "select writefile('x', 'y')",
        "select 1; delete from positions",
    ],
)
def test_no_query_writes_or_loads(market: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    path = tmp_path / "indexer.db"
    monkeypatch.chdir(tmp_path)
    sync_once(path, market.node.url, [market])
    before, files = path.read_bytes(), {*modes(tmp_path), "indexer.toml"}
    result = invoke(path, market, "query", sql)
    assert (result.exit_code, result.stdout, result.stderr[:7]) == (1, "", "Error: ")
    assert path.read_bytes() == before
    assert modes(tmp_path).keys() - {"indexer.db-wal", "indexer.db-shm"} == files


@pytest.mark.parametrize("name", ["x'; drop table positions; --", 'x" or 1=1', "%", "../../x"])
def test_no_argument_becomes_sql(market: AaveV3, tmp_path: Path, name: str) -> None:
    path = tmp_path / "indexer.db"
    sync_once(path, market.node.url, [market])
    before = raw(path, "select name, sql from sqlite_master"), raw(path, "select * from positions")
    for arguments in (
        ("at-risk", "--protocol", name),
        ("export", "positions", "--protocol", name),
        ("sync", "--chain", "devnet", "--deployment", name),
        ("show", name),
    ):
        result = invoke(path, market, *arguments)
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert "sqlite" not in result.output.lower() + result.stderr.lower()
        assert result.stdout.strip() in {"", "[]"}
    assert (raw(path, "select name, sql from sqlite_master"), raw(path, "select * from positions")) == before


# names on the chain --------------------------------------------------------------------------------------------------------

HOSTILE = (
    "=HYPERLINK(0)",
    "\x1b[2J\x1b]0;pwned\x07",
    "[red]x[/red]",
    "a,b\"c'd",
    "x\nERROR all is lost",
    "\u202egnp.exe",
    "'; drop table positions; --",
    "\x00\x01",
)


def test_hostile_symbols_do_no_harm(market: AaveV3, tmp_path: Path) -> None:
    path, who = tmp_path / "indexer.db", account("holder of hostile tokens")
    market.sender.fund(who)
    for symbol in HOSTILE:
        market.add_reserve(Listing(symbol, 18, 5 * USD, 7000, 7500, 10500))
        sender, to, data, _ = Actions(market).supply(who, symbol, 10**20).transaction
        market.sender.transact({"to": to, "data": data}, sender, "a supply", check=True)
    sender, to, data, _ = Actions(market).borrow(who, HOSTILE[0], 9 * 10**19).transaction
    market.sender.transact({"to": to, "data": data}, sender, "a loan", check=True)
    outcome = sync_once(path, market.node.url, [market], "borrowers")
    assert outcome.failed == {}
    for arguments in (("show", who, "--table"), ("at-risk", "--below", "9", "--table"), ("status", "--table")):
        result = invoke(path, market, *arguments)
        assert result.exit_code == 0, result.output
        assert re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", result.output) is None
    assert "[red]x[/red]" in invoke(path, market, "show", who, "--table").stdout
    rows = list(csv.DictReader(io.StringIO(invoke(path, market, "export", "balances", "--csv").stdout)))
    mine = [row for row in rows if row["account"] == who]
    assert len(mine) == len(HOSTILE) + 1
    assert not [
        cell for row in rows for cell in row.values() if cell[:1] in tuple("=@\t\r") or re.match(r"[+-]\D", cell)
    ]
    stored = json.loads(invoke(path, market, "query", "select distinct symbol from markets", "--json").stdout)
    assert {"=HYPERLINK(0)", "a,b\"c'd"} <= {row["symbol"] for row in stored}
