"""The commands as people use them, against real contracts on a local node: what they print, and how they fail."""

import csv
import io
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from eth_utils.address import to_checksum_address

from indexer.chain import connect
from indexer.chain.client import Chain
from indexer.cli.main import main
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS
from indexer.store.store import Store
from indexer.store.synced_ranges import SyncedRanges
from indexer.text import console
from tests.cli.invoking import Run, one_line, rows
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import config_toml
from tests.faulty import FaultyNode

ROOT = Path(__file__).parents[2]
KINDS = ["at-risk", "positions", "balances", "markets", "wallets"]
MAX = 2**256 - 1


@pytest.fixture(scope="module")
def market(needs_node: None) -> Iterator[AaveV3]:
    """An Aave 3.6 market on a node of its own, which no test here changes."""
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.6")
        market.populate(seed=1, users=50)
        yield market


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory, market: AaveV3) -> Path:
    """A folder with indexer.toml and an indexer.db holding every account of an Aave 3.6 market."""
    folder = tmp_path_factory.mktemp("synced")
    (folder / "indexer.toml").write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    options = ["--config", str(folder / "indexer.toml"), "--db", str(folder / "indexer.db")]
    result = CliRunner().invoke(main, [*options, "sync", "--chain", "devnet", "--accounts", "all"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def run(synced: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in the synced folder."""
    monkeypatch.chdir(synced)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


# what the commands print -------------------------------------------------------------------------------------------


def test_status_tells_block_and_counts(run: Run, market: AaveV3) -> None:
    (row,) = rows(run("status"))
    assert row["chain"] == "devnet"
    assert row["deployment"] == market.name
    assert row["state"] == "ok"
    assert row["block_number"] == market.node.block_number()
    assert row["positions"] == len(rows(run("export", "positions")))
    assert row["requests"] > 0
    assert row["age_seconds"] > 0


def test_at_risk_lists_whom_the_contract_says_are_below_1_1(run: Run, market: AaveV3) -> None:
    answers = {user: market.answer(user)[5] for user in market.users}
    found = rows(run("at-risk"))
    assert {row["account"] for row in found} == {user for user, health in answers.items() if health < 11 * 10**17}
    assert [row["debt_usd"] for row in found] == sorted((row["debt_usd"] for row in found), reverse=True)
    for row in found:
        assert int(row["health_factor_raw"]) == answers[row["account"]]
        assert (row["status"] == "liquidatable") == (answers[row["account"]] < 10**18)


def test_at_risk_below_and_its_exit_code(run: Run, market: AaveV3) -> None:
    healths = [market.answer(user)[5] for user in market.users]
    assert len(rows(run("at-risk", "--below", "2"))) == sum(health < 2 * 10**18 for health in healths)
    assert run("at-risk", "--exit-code").exit_code == 3
    assert run("at-risk", "--exit-code", "--min-debt", "1e12", "--max-age", "9999d").exit_code == 0


def test_old_rows_are_no_good_news(
    run: Run, market: AaveV3, synced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The devnet's chain is of 2023: nobody listed of rows that old means nothing, for who asks by the exit code."""
    shutil.copy(synced / "indexer.db", tmp_path)
    monkeypatch.chdir(tmp_path)
    nobody = ("at-risk", "--min-debt", "1e12")
    result = run(*nobody)
    assert (result.exit_code, rows(result)) == (0, [])
    assert re.search(rf"{market.name}: block [\d,]+, [\d,]+ days old", result.stderr)
    for flags in (["--exit-code"], ["--max-age", "2h"], ["--exit-code", "--max-age", "600"]):
        result = run(*nobody, *flags)
        assert result.exit_code == 1
        assert f"{market.name} has rows that are" in result.stderr
        assert run("at-risk", *flags).exit_code == 3  # somebody is listed, however old
    assert run(*nobody, "--max-age", "soon").exit_code == 2
    with sqlite3.connect(tmp_path / "indexer.db") as conn:
        conn.execute("update deployments set block_timestamp = ?", (int(time.time()) - 60,))
    assert run(*nobody, "--exit-code").exit_code == 0
    with sqlite3.connect(tmp_path / "indexer.db") as conn:
        conn.execute("update deployments set block_timestamp = block_timestamp + 7200")
    result = run(*nobody, "--exit-code")
    assert result.exit_code == 1
    assert "ahead: set this machine's clock" in result.stderr
    for state in ("failed", "incomplete"):
        with sqlite3.connect(tmp_path / "indexer.db") as conn:
            conn.execute("update deployments set state = ?, note = 'out of reach'", (state,))
        result = run(*nobody, "--exit-code")
        assert result.exit_code == 1
        assert f"is {state} (out of reach)" in result.stderr
        assert run("at-risk", "--exit-code").exit_code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["at-risk"],
        ["show", "0x"],
        ["export", "positions"],
        ["top"],
        ["query", "select 1"],
        ["movements"],
        ["report", "book"],
    ],
)
def test_people_are_told_of_which_block_rows_are(run: Run, market: AaveV3, arguments: list[str]) -> None:
    arguments = [market.users[0] if argument == "0x" else argument for argument in arguments]
    flags = [] if arguments[0] == "report" else ["--table"]
    result = run(*arguments, *flags)
    assert result.exit_code == 0, result.stderr
    assert re.search(rf"{market.name}: block [\d,]+, [\d,]+ days old", result.stderr)
    if arguments[0] != "at-risk":
        assert run(*arguments, "--max-age", "9999d").exit_code == 0
        assert run(*arguments, "--max-age", "1h").exit_code == 1


@pytest.mark.parametrize(
    "arguments", [["simulate", "--shock", "WETH=-1%"], ["levels", "WETH"], ["opportunities"], ["liquidations"]]
)
def test_old_rows_of_every_list_are_told_by_the_exit_code(run: Run, arguments: list[str]) -> None:
    assert run(*arguments, "--max-age", "9999d").exit_code == 0
    result = run(*arguments, "--max-age", "1h")
    assert result.exit_code == 1
    assert "its present state is unknown" in result.stderr


def test_an_unknown_movement_is_not_blamed_on_a_reorganisation(
    run: Run, synced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(synced / "indexer.db", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "unknown" not in run("movements").stderr
    with sqlite3.connect(tmp_path / "indexer.db") as conn:
        names = ", ".join(name for (name,) in conn.execute("select name from pragma_table_info('health_history')"))
        conn.execute(f"create temp table older as select {names} from health_history limit 2")
        conn.execute("update older set block_number = block_number - 1")
        conn.execute(f"insert into health_history ({names}) select {names} from older")
        conn.execute("update health_history set supply_change_usd = null")
    told = run("movements").stderr
    assert "of 2 positions some movement is unknown: a price is missing, they were found late, or" in told
    assert "reorgani" not in told


def test_protocols_lists_addresses_and_start_blocks(run: Run, market: AaveV3) -> None:
    (row,) = rows(run("protocols", "--chain", "devnet"))
    assert row == {
        "chain": "devnet",
        "deployment": market.name,
        "protocol": "aave-v3",
        "start_block": market.start_block,
        "addresses": {key: address.lower() for key, address in market.addresses.items()},
    }
    assert len(rows(run("protocols"))) > 10
    (address,) = market.addresses.values()
    assert address.lower() in run("protocols", "--chain", "devnet", "--csv").stdout


@pytest.mark.parametrize("spelling", [str.lower, to_checksum_address])
def test_show_gives_the_contract_s_numbers(run: Run, market: AaveV3, spelling: Callable[[str], str]) -> None:
    for user in market.users[:5]:
        collateral, debt, _, _, _, health = market.answer(user)
        (row,) = rows(run("show", spelling(user)))
        assert (row["collateral_value_raw"], row["debt_value_raw"]) == (str(collateral), str(debt))
        assert row["health_factor_raw"] == (None if health == MAX else str(health))
        assert list(row) == [*POSITION_COLUMNS, "balances", "outlook"]
        assert all(list(balance) == list(BALANCE_COLUMNS) for balance in row["balances"])
        assert all(balance["account"] == user for balance in row["balances"])


def test_show_live_needs_no_database_and_agrees_with_it(run: Run, market: AaveV3, tmp_path: Path) -> None:
    borrower = next(iter(sorted(market.borrowers)))
    stored = rows(run("show", borrower))
    live = rows(run("--db", tmp_path / "none.db", "show", "--live", "--chain", "devnet", borrower))
    for row in (*stored, *live):
        row["balances"].sort(key=lambda balance: (balance["market"], balance["side"]))
    assert live == stored
    assert not (tmp_path / "none.db").exists()


def test_show_in_a_table_has_positions_and_balances(run: Run, market: AaveV3) -> None:
    borrower = next(iter(sorted(market.borrowers)))
    result = run("show", borrower, "--table")
    assert result.stdout.startswith("deployment  ") or "health_factor" in result.stdout.splitlines()[0]
    assert "symbol" in result.stdout


def test_show_tells_what_liquidates_and_what_prevents_it(run: Run, market: AaveV3) -> None:
    """The prices are proven elsewhere; here a real one takes effect, and the amount for the target is the contract's."""
    nodes = [(user, market.answer(user)) for user in sorted(market.borrowers)]
    borrower = next(user for user, answer in nodes if 11 * 10**17 < answer[5] < 2 * 10**18)
    (row,) = rows(run("show", borrower, "--target", "2.5"))
    outlook = row["outlook"]
    assert outlook["target_health_factor"] == 2.5
    assert {way["act"] for way in outlook["to_target"]} == {"repay", "add"}
    assert all(int(way["health_factor_raw"] or MAX) >= 25 * 10**17 for way in outlook["to_target"])
    assert outlook["seconds_to_liquidation_by_interest"] != 0
    assert outlook["closable"] == []
    one = next(price for price in outlook["liquidation_prices"] if price["role"] == "collateral")
    assert one["unit"] == "USD"
    assert one["liquidation_price"] == int(one["liquidation_price_raw"]) / 10 ** one["price_decimals"]
    assert one["distance_percent"] == pytest.approx(100 * (one["liquidation_price"] / one["price"] - 1))
    with market.rewound():
        market.set_price(one["symbol"], int(one["liquidation_price_raw"]))
        assert market.answer(borrower)[5] < 10**18


def test_show_in_a_table_has_what_liquidates(run: Run, market: AaveV3) -> None:
    answers = [(user, market.answer(user)) for user in sorted(market.borrowers)]
    safe = next(user for user, answer in answers if 11 * 10**17 < answer[5] < 14 * 10**17)
    printed = run("show", safe, "--table").stdout
    for column in ("liquidation_by_interest", "distance_percent", "target_health_factor"):
        assert column in printed
    assert re.search(r"  repay  .*  1\.5000  ", printed)
    assert re.search(r"  add +.*  1\.5000  ", printed)
    below = next(user for user, answer in answers if answer[1] and answer[5] < 10**18)
    printed = run("show", below, "--table").stdout
    assert "bonus_percent" in printed
    assert " now " in printed


def test_show_of_an_older_file_without_a_configuration_leaves_the_outlook_out(
    run: Run, market: AaveV3, synced: Path, tmp_path: Path
) -> None:
    borrower = next(iter(sorted(market.borrowers)))
    other = tmp_path / "other.toml"
    other.write_text("")
    (row,) = rows(run("--config", other, "show", borrower))
    assert row["outlook"] is not None, "the file explains itself"
    shutil.copy(synced / "indexer.db", tmp_path / "older.db")
    with sqlite3.connect(tmp_path / "older.db") as older:
        older.execute("update deployments set addresses = null")
    result = run("--config", other, "--db", tmp_path / "older.db", "show", borrower)
    (row,) = rows(result)
    assert row["outlook"] is None
    assert f"the addresses of {market.name} are unknown" in result.stderr


def test_show_of_a_stranger_says_so(run: Run) -> None:
    result = run("show", "0x" + "12" * 20)
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    assert "has no position in indexer.db" in result.stderr


def test_query_runs_sql(run: Run) -> None:
    assert rows(run("query", "select count(*) as n from positions")) == [{"n": len(rows(run("export", "positions")))}]
    assert rows(run("query", "select 1 as a, 2 as a")) == [{"a": 1, "a_2": 2}]
    assert rows(run("query", "pragma table_info(positions)"))[0]["name"] == "chain_id"


@pytest.mark.parametrize(
    "sql",
    [
        "delete from positions",
        "create table x (y)",
        "create temp table x (y)",
        "attach 'other.db' as other",
        "vacuum into 'other.db'",
        "pragma journal_mode = delete",
        "begin",
        "insert into positions select * from positions",
        "with x as (select 1) delete from positions",
    ],
)
def test_query_cannot_write(run: Run, synced: Path, sql: str) -> None:
    before = (synced / "indexer.db").read_bytes()
    assert "only read" in one_line(run("query", sql), 1)
    assert (synced / "indexer.db").read_bytes() == before
    assert not (synced / "other.db").exists()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select nope from positions", "no such column: nope: select nope from positions"),
        ("select 1; select 2", "one statement at a time"),
        ("", "returns no rows"),
        ("selec 1", 'near "selec": syntax error'),
    ],
)
def test_query_tells_what_is_wrong_with_the_sql(run: Run, sql: str, message: str) -> None:
    assert message in one_line(run("query", sql), 1)


@pytest.mark.parametrize("what", KINDS)
def test_export_writes_each_kind_in_each_format(run: Run, what: str) -> None:
    expected = rows(run("export", what, "--json"))
    assert expected
    assert [json.loads(line) for line in run("export", what, "--nl").stdout.splitlines()] == expected
    for flag, dialect in (("--csv", "excel"), ("--tsv", "excel-tab")):
        found = list(csv.DictReader(io.StringIO(run("export", what, flag).stdout), dialect=dialect))
        assert [list(row) for row in found] == [list(row) for row in expected]
        assert [{k: v or None for k, v in row.items()} for row in found] == [
            {k: None if v in {None, ""} else str(v) for k, v in row.items()} for row in expected
        ]


def test_export_to_a_file(run: Run, tmp_path: Path) -> None:
    result = run("export", "positions", "--output", tmp_path / "positions.json")
    assert (result.exit_code, result.output) == (0, "")
    assert json.loads((tmp_path / "positions.json").read_text()) == rows(run("export", "positions"))


def test_verify_finds_no_difference(run: Run) -> None:
    (row,) = rows(run("verify", "--all"))
    assert (row["checked"], row["differ"], row["mismatches"]) == (len(rows(run("export", "positions"))), 0, [])
    (row,) = rows(run("verify", "--sample", "7"))
    assert row["checked"] == 7
    (row,) = rows(run("verify", "--at-risk"))
    assert row["checked"] == len(rows(run("at-risk")))


def test_verify_asks_which_of_several_chains_is_meant(run: Run, synced: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with sqlite3.connect(synced / "indexer.db") as source, sqlite3.connect(copy) as target:
        source.backup(target)
        target.execute("create temp table other as select * from deployments")
        target.execute("alter table other drop column block_time")  # which SQLite computes
        target.execute("update other set chain_id = 4242")
        target.execute("insert into deployments select * from other")
    target.close()
    message = one_line(run("--db", copy, "verify", "--all"), 2)
    assert "holds several chains (4242, devnet); name one with --chain" in message
    assert run("--db", copy, "verify", "--all", "--chain", "devnet").exit_code == 0


def test_verify_prints_both_sides_of_a_difference_and_exits_1(run: Run, synced: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with sqlite3.connect(synced / "indexer.db") as source, sqlite3.connect(copy) as target:
        source.backup(target)
        account, right = target.execute(
            "select account, debt_value_raw from positions where debt_value_raw > '0' limit 1"
        ).fetchone()
        wrong = str(int(right) + 1)
        target.execute("update positions set debt_value_raw = ? where account = ?", (wrong, account))
    source.close()
    target.close()
    result = run("--db", copy, "verify", "--all")
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout)
    assert row["differ"] == 1
    told, last = result.stderr.splitlines()
    assert account in told
    assert wrong in told
    assert right in told
    assert re.fullmatch(r"Error: 1 of \d+ positions differ", last)


def test_a_second_sync_changes_nothing_and_asks_little(run: Run) -> None:
    before = rows(run("export", "positions"))
    result = run("sync", "--chain", "devnet", "--accounts", "all")
    assert result.exit_code == 0, result.output
    assert "0 logs, 0 read" in result.stderr
    assert rows(run("export", "positions")) == before


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_without_a_terminal_a_long_sync_says_how_far_it_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    monkeypatch.setattr(console, "TELL_SECONDS", 0.02)
    result = run("--log-format", log_format, "--db", tmp_path / "new.db", "sync", "--chain", "devnet")
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()[:-2]  # the last ones say what came out
    if log_format == "json":
        told = [json.loads(line) for line in lines]
        assert {"connecting", "markets"} & {line["stage"] for line in told}
        for line in told:
            assert line["level"] == "info"
            assert 0 <= line["done"] <= line["total"]
            assert {"unit", "seconds_left", "message", "at"} <= line.keys()
    else:
        assert lines
        for line in lines:
            assert re.search(r" info +\w+(: [\d,]+ of [\d,]+ [a-z]+ \(\d+ %\).*)?$", line), line


def test_the_first_sync_says_how_far_it_is(market: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved, add = [], SyncedRanges.add

    def three_times(ranges: SyncedRanges, sources: Iterable[str], first: int, last: int) -> None:
        if len(saved) == 3:
            raise KeyboardInterrupt
        add(ranges, sources, first, last)
        saved.append(last)

    with FaultyNode(market.node.url, seed=1) as node:
        node.range_cap = 40
        Path("indexer.toml").write_text(config_toml(CHAIN_ID, node.url, [market]))
        monkeypatch.setattr(SyncedRanges, "add", three_times)
        assert CliRunner().invoke(main, ["sync", "--chain", "devnet"]).exit_code == 130
    head = market.node.block_number()
    percent = 100 * (saved[-1] - market.start_block + 1) / (head - market.start_block + 1)
    assert 0 < percent < 100
    (row,) = rows(CliRunner().invoke(main, ["status"]))
    assert (row["state"], row["percent"]) == ("new", pytest.approx(percent, abs=0.06))
    assert row["seconds_left"] >= 0
    assert f"first sync: {int(percent)} %" in row["note"]
    listed = CliRunner().invoke(main, ["at-risk", "--exit-code"])
    assert (listed.exit_code, listed.stdout) == (1, "[]\n")
    assert f"is in its first sync, and nothing can be listed before that is through ({market.name} " in listed.stderr


def test_dry_run_prints_the_plan_and_does_nothing(run: Run, market: AaveV3, tmp_path: Path) -> None:
    (row,) = rows(run("--db", tmp_path / "new.db", "sync", "--chain", "devnet", "--dry-run"))
    assert row["deployment"] == market.name
    assert row["from_block"] == market.start_block
    assert row["to_block"] == market.node.block_number()
    assert row["log_requests"] >= 1
    assert list(tmp_path.iterdir()) == []


def test_dry_run_counts_what_is_shared_once_and_what_the_provider_gives_at_once(
    market: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with FaultyNode(market.node.url, seed=1) as node:
        node.range_cap = 40
        text = config_toml(CHAIN_ID, node.url, [market])
        twin = text[text.index("[deployments.") :].replace(f"deployments.{market.name}", "deployments.twin")
        Path("indexer.toml").write_text(text + twin)
        found = rows(CliRunner().invoke(main, ["sync", "--chain", "devnet", "--dry-run"]))
    blocks = market.node.block_number() - market.start_block + 1
    assert [row["blocks"] for row in found] == [blocks, blocks]
    assert [row["shared_blocks"] for row in found] == [0, blocks]
    refused = 1  # the first window, whose refusal names the cap
    assert [row["log_requests"] for row in found] == [refused + -(-blocks // 40), 0]


def test_dry_run_knows_what_is_already_there(run: Run, synced: Path) -> None:
    before = (synced / "indexer.db").read_bytes()
    (row,) = rows(run("sync", "--chain", "devnet", "--accounts", "all", "--dry-run"))
    assert row["blocks"] == 0
    assert (synced / "indexer.db").read_bytes() == before


def test_log_lines_can_be_json(empty: Path, market: AaveV3, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("indexer.toml").write_text('[chains.mainnet]\npublic_rpc = ["http://127.0.0.1:9"]')
    monkeypatch.setenv("ETH_RPC_URL", market.node.url)
    result = CliRunner().invoke(main, ["--log-format", "json", "-v", "sync"])
    *lines, last = result.stderr.splitlines()
    assert all(set(json.loads(line)) == {"at", "level", "logger", "message"} for line in lines)
    assert [line for line in lines if "ETH_RPC_URL is not used" in json.loads(line)["message"]]
    assert last.startswith("Error: ")


# how they fail -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["at-risk", "--protocol", "aave3"], "unknown protocol 'aave3'; did you mean 'aave-v3'?"),
        (["export", "wallets", "--protocol", "aave3"], "unknown protocol 'aave3'"),
        (["top", "--protocol", "aave3"], "unknown protocol 'aave3'"),
        (["movements", "--protocol", "aave3"], "unknown protocol 'aave3'"),
        (["report", "book", "--protocol", "aave3"], "unknown protocol 'aave3'"),
        (["report", "book", "--deployment", "aave-v3-6-devne"], "did you mean 'aave-v3-6-devnet'?"),
        (["simulate", "--days", "1", "--deployment", "aave-v3-6-devne"], "unknown deployment 'aave-v3-6-devne'"),
    ],
)
def test_a_misspelt_name_does_not_list_nobody(run: Run, arguments: list[str], message: str) -> None:
    assert message in one_line(run(*arguments), 2)


def test_a_protocol_that_only_the_database_knows_is_a_name(run: Run, synced: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(synced / "indexer.db", copy)
    with closing(sqlite3.connect(copy)) as conn, conn:
        conn.execute("update deployments set protocol = 'of-another-package'")
    assert rows(run("--db", str(copy), "at-risk", "--protocol", "of-another-package")) == []


def test_a_node_of_another_chain_is_told(empty: Path, market: AaveV3) -> None:
    line = one_line(CliRunner().invoke(main, ["sync", "--rpc-url", market.node.url]), 1)
    assert f"serves chain id {CHAIN_ID}, but mainnet is chain id 1" in line
    assert list(empty.iterdir()) == []


def test_the_general_endpoint_is_skipped_where_it_serves_another_chain(
    empty: Path, market: AaveV3, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def chain(name: str, chain_id: int, urls: list[str], *arguments: Any, **options: Any) -> Chain:
        asked.append(urls)
        if market.node.url not in urls:
            raise connect.ChainError("public")
        return Chain(name, chain_id, urls, *arguments, **options)

    monkeypatch.setattr(connect, "Chain", chain)
    monkeypatch.setenv("ETH_RPC_URL", market.node.url)
    result = CliRunner().invoke(main, ["sync"])
    assert (result.exit_code, result.stdout) == (1, "")
    told, line = result.stderr.splitlines()
    assert re.search(rf"ETH_RPC_URL is not used: .* serves chain id {CHAIN_ID}, but mainnet is chain id 1", told)
    assert line == "Error: public"
    assert [market.node.url] == asked[0]
    assert market.node.url not in asked[1]


def test_the_general_endpoint_is_the_only_one_where_it_fits(
    empty: Path, market: AaveV3, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = config_toml(CHAIN_ID, "http://127.0.0.1:9", [market])
    Path("indexer.toml").write_text(re.sub(r"\nrpc = ", "\npublic_rpc = ", text))
    monkeypatch.setenv("ETH_RPC_URL", market.node.url)
    result = CliRunner().invoke(main, ["sync", "--chain", "devnet"])
    assert result.exit_code == 0, result.output


def test_an_address_without_code_is_told(empty: Path, market: AaveV3) -> None:
    key, address = next(iter(market.addresses.items()))
    text = config_toml(CHAIN_ID, market.node.url, [market])
    Path("indexer.toml").write_text(text.replace(address, "0x" + "12" * 20))
    result = CliRunner().invoke(main, ["sync", "--chain", "devnet"])
    assert result.exit_code == 1
    assert f"no contract at {key} 0x{'12' * 20}" in result.stderr.splitlines()[-1]
    assert not Path("indexer.db").exists(), "bad input changes nothing"


@pytest.mark.parametrize("arguments", [["status"], ["at-risk"], ["query", "select 1"], ["sync", "--chain", "devnet"]])
def test_a_file_that_is_no_database_stays_as_it_is(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)
    assert "is not a SQLite database" in one_line(run("--db", path, *arguments), 1)
    assert path.read_text() == "not a database " * 100


@pytest.mark.parametrize("arguments", [["status"], ["query", "select 1"], ["sync", "--chain", "devnet"]])
def test_a_database_of_another_program_stays_as_it_is(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as conn:
        conn.execute("create table mine (x)")
    conn.close()
    before = path.read_bytes()
    assert "is a database of another program" in one_line(run("--db", path, *arguments), 1)
    assert path.read_bytes() == before


@pytest.mark.parametrize("arguments", [["status"], ["sync", "--chain", "devnet"]])
def test_a_database_of_a_newer_version_is_told(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    path = tmp_path / "newer.db"
    with Store(path) as store:
        store.conn.execute(
            "insert into _sqlite_migrations (migration_set, name) values ('lending-indexer', '9999_new')"
        )
    assert "newer version" in one_line(run("--db", path, *arguments), 1)


def test_a_damaged_database_says_what_to_do(run: Run, synced: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.db"
    path.write_bytes((synced / "indexer.db").read_bytes()[: 4096 * 5])
    line = one_line(run("--db", path, "status"), 1)
    assert "is damaged" in line
    assert "delete it and run `indexer sync` again" in line


def test_a_place_that_cannot_be_written_is_told(run: Run, synced: Path) -> None:
    line = one_line(run("--db", synced / "indexer.toml" / "x.db", "sync", "--chain", "devnet"), 1)
    assert "cannot write" in line
    assert "choose another place with --db" in line
    assert "cannot write" in one_line(run("export", "positions", "-o", synced / "nowhere" / "x.csv"), 1)


STRANGER = "0x" + "12" * 20


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["at-risk"],
        ["show", STRANGER],
        ["simulate", "--days", "1"],
        ["movements"],
        ["opportunities"],
        ["top"],
        *(["export", kind] for kind in KINDS),
    ],
    ids=" ".join,
)
def test_on_an_empty_database_every_list_says_what_to_do_and_has_its_columns(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    with Store(tmp_path / "empty.db"):
        pass
    result = run("--db", tmp_path / "empty.db", *arguments, "--csv")
    assert result.exit_code == 0
    assert "holds nothing yet: run `indexer sync`" in result.stderr
    (header,) = result.stdout.splitlines()
    synced = run(*arguments, "--csv").stdout.splitlines()
    assert header.split(",") == synced[0].split(",")


@pytest.mark.parametrize(
    "arguments",
    [
        ["at-risk"],
        ["export", "wallets"],
        ["simulate", "--days", "1"],
        ["movements"],
        ["opportunities"],
        ["top"],
        ["report", "book"],
    ],
    ids=" ".join,
)
def test_a_protocol_that_nobody_knows_is_no_empty_list(run: Run, arguments: list[str]) -> None:
    assert "unknown protocol 'aavev3'; did you mean 'aave-v3'?" in one_line(run(*arguments, "--protocol", "aavev3"), 2)
    other = run(*arguments, "--protocol", "maker")
    assert other.exit_code == 0
    assert "holds none of those deployments" in other.stderr


# as a process ------------------------------------------------------------------------------------------------------


def indexer(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "indexer", *arguments]


def test_an_interrupt_ends_a_follower_cleanly(synced: Path, market: AaveV3, tmp_path: Path) -> None:
    command = [
        *indexer("--config", str(synced / "indexer.toml"), "--db", str(tmp_path / "follow.db")),
        "sync", "--chain", "devnet", "--follow",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(f"devnet block {market.node.block_number()}: ")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0
    number = market.node.block_number()
    # A signal in the middle of a write may repeat the line before it; what counts is how it ends.
    last = told.splitlines()[-1]
    assert last == f"Stopped. The last snapshot is of block {number}; the same command goes on from there."


def test_a_terminal_shows_blocks_logs_and_positions_while_they_are_fetched(synced: Path, tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    command = [
        *indexer("--config", str(synced / "indexer.toml"), "--db", str(tmp_path / "shown.db")),
        "sync", "--chain", "devnet", "--to", "latest",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=end, env={**os.environ, "TERM": "xterm", "COLUMNS": "150"})
    os.close(end)
    shown = b""
    with suppress(OSError):  # how a terminal ends
        while part := os.read(terminal, 65536):
            shown += part
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"logs .* \d+ of \d+ blocks .*\d:\d\d:\d\d [1-9]\d* logs", text), text
    assert re.search(r"positions .* \d+ of \d+ positions .*\d:\d\d:\d\d", text), text


def test_an_interrupt_ends_a_long_query(synced: Path, tmp_path: Path) -> None:
    sql = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    command = indexer("--db", str(synced / "indexer.db"), "query", sql)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    files = Path(f"/proc/{process.pid}/fd")
    while not any(os.path.realpath(file).endswith("indexer.db") for file in files.iterdir()):
        time.sleep(0.05)  # still starting
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told.splitlines()[-1][:11]) == (130, "Interrupted")


def test_a_reader_that_leaves_early_is_no_error(synced: Path, tmp_path: Path) -> None:
    sql = "with recursive n(i) as (select 1 union all select i + 1 from n limit 200000) select i from n"
    command = indexer("--db", str(synced / "indexer.db"), "query", sql, "--nl")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == '{"i": 1}\n'
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(timeout=60)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["at-risk", "--exit-code", "--csv"], ["report", "book"], ["--help"]])
def test_an_output_on_a_full_disk_is_told(synced: Path, arguments: list[str]) -> None:
    command = indexer("--db", str(synced / "indexer.db"), *arguments)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: standard output: No space left on device"
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["at-risk", "--csv"], 0), (["-vv", "sync", "--chain", "devnet"], 0), (["at-risk", "--chain", "x"], 2)],
)
def test_log_lines_on_a_full_disk_end_no_command(synced: Path, arguments: list[str], code: int) -> None:
    command = indexer("--config", str(synced / "indexer.toml"), "--db", str(synced / "indexer.db"), *arguments)
    whole = subprocess.run(command, capture_output=True, check=False)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, check=False)
    assert (done.returncode, done.stdout) == (code, whole.stdout)
    assert whole.stderr


def test_closed_streams_are_no_error(synced: Path) -> None:
    command = indexer("--db", str(synced / "indexer.db"), "at-risk", "--csv")
    with_no_output = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    assert subprocess.run(with_no_output, stderr=subprocess.PIPE, check=False).returncode == 0
    with_no_errors = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    done = subprocess.run(with_no_errors, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("chain_id,")


def test_reading_commands_start_without_the_chain_libraries(synced: Path) -> None:
    script = (
        "import sys; from click.testing import CliRunner; from indexer.cli.main import main;"
        f"print(CliRunner().invoke(main, ['--db', {str(synced / 'indexer.db')!r}, 'at-risk']).exit_code,"
        "'web3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "False"]


# documentation -----------------------------------------------------------------------------------------------------
