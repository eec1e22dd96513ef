"""Several wallets as one person: by address, ENS name, label and group, over protocols; who is unknown is told."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from indexer.cli.main import main
from tests.recorded import recorded_folder

STRANGER = "0x" + "12" * 20

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six markets as a sync recorded them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return recorded_folder(tmp_path)


@pytest.fixture
def run(folder: Path) -> Run:
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def two(folder: Path) -> tuple[str, str]:
    """Two borrowers of different protocols."""
    with sqlite3.connect(folder / "indexer.db") as conn:
        found = [
            conn.execute(
                "select wallet from positions where protocol = ? and debt_usd > 0 and collateral_usd > 0 "
                "and status = 'healthy' order by health_factor limit 1",
                (name,),
            ).fetchone()[0]
            for name in ("aave-v3", "maker")
        ]
    return found[0], found[1]


def sums(folder: Path, wallets: tuple[str, ...]) -> tuple[int, Any, Any]:
    """Positions, debt and all that is supplied, by SQL over the public tables."""
    marks = ", ".join("?" * len(wallets))
    with sqlite3.connect(folder / "indexer.db") as conn:
        (count, debt) = conn.execute(
            f"select count(*), sum(debt_usd) from positions where wallet in ({marks})", wallets
        ).fetchone()
        (supply,) = conn.execute(
            f"select sum(value_usd) from balances b join positions p using (chain_id, deployment, account, position_group) "
            f"where b.side = 'supply' and p.wallet in ({marks})",
            wallets,
        ).fetchone()
    return count, debt, supply


def numbers(text: str) -> list[str]:
    return text.split()


def watch(run: Run, *arguments: str) -> None:
    result = run("watch", "add", *arguments)
    assert result.exit_code == 0, result.stderr


def test_show_adds_two_wallets_up_as_one_person(run: Run, folder: Path, two: tuple[str, str]) -> None:
    count, debt, supply = sums(folder, two)
    table = run("show", *two, "--table").stdout.splitlines()
    assert table[0].split() == "positions supply_usd debt_usd net_usd health_factor".split()
    assert table[1].split()[:4] == [str(count), *(f"{value:,.2f}" for value in (supply, debt, supply - debt))]
    rows = json.loads(run("show", *two).stdout)
    assert {row["wallet"] for row in rows} == set(two)
    assert len(rows) == count


def test_a_wallet_that_is_named_twice_counts_once(run: Run, two: tuple[str, str]) -> None:
    twice = run("show", two[0], two[0].upper().replace("X", "x"), two[0])
    assert json.loads(twice.stdout) == json.loads(run("show", two[0]).stdout)


def test_a_sum_with_an_unknown_part_is_unknown(run: Run, folder: Path, two: tuple[str, str]) -> None:
    with sqlite3.connect(folder / "indexer.db") as conn:
        conn.execute("update positions set debt_usd = null where wallet = ?", two[:1])
    header, row = run("show", *two, "--table").stdout.splitlines()[:2]
    told = dict(zip(header.split(), row.split(), strict=True))
    assert (told["debt_usd"], told["net_usd"]) == ("-", "-")
    assert told["supply_usd"] != "-"


def test_labels_groups_and_names_are_those_of_the_watch_list(run: Run, folder: Path, two: tuple[str, str]) -> None:
    watch(run, two[0], "--label", "cold storage", "--group", "Family", "--group", "all")
    watch(run, two[1], "--group", "@family")
    with sqlite3.connect(folder / "indexer.db") as conn:
        conn.execute("update watches set ens = 'maker.eth' where wallet = ?", two[1:])
    both = json.loads(run("show", *two).stdout)
    for named in (["@family"], ["@FAMILY"], ["cold storage", "maker.eth"], ["@all", two[1]], ["@family", two[0]]):
        result = run("show", *named)
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout) == both
    listed = json.loads(run("watch", "list", "--json").stdout)
    assert {row["wallet"]: row["groups"] for row in listed} == {two[0]: "all, family", two[1]: "family"}


def test_report_and_simulate_take_the_same_names(run: Run, folder: Path, two: tuple[str, str]) -> None:
    watch(run, two[0], "--group", "family")
    watch(run, two[1], "--label", "vault")
    count, debt, supply = sums(folder, two)
    report = run("report", "@family", "vault")
    assert report.exit_code == 0, report.output
    assert "@family, vault (2 wallets)" in report.stdout
    summary = report.stdout.split("Summary\n")[1].splitlines()
    told = dict(zip(summary[0].split(), summary[1].split(), strict=True))
    assert (told["positions"], told["supply_usd"], told["debt_usd"]) == (str(count), f"{supply:,.2f}", f"{debt:,.2f}")
    simulated = json.loads(run("simulate", "@family", "vault", "--shock", "eth=-0.000001%").stdout)
    assert {row["wallet"] for row in simulated} == set(two)
    table = run("simulate", "@family", "vault", "--shock", "eth=-10%", "--table").stdout.splitlines()
    assert table[0].split()[0] == "positions"
    assert table[1].split()[0] == str(count)


def test_a_report_says_what_liquidates_and_what_helps_as_show_does(run: Run, two: tuple[str, str]) -> None:
    (row,) = json.loads(run("show", two[0], "--target", "3").stdout)
    text = run("report", two[0], "--target", "3").stdout
    for price in row["outlook"]["liquidation_prices"]:
        assert f"{price['liquidation_price']:,.6f}".rstrip("0").rstrip(".") in text.split("What liquidates it")[1]
    ways = text.split("What to repay or add")[1]
    for way in row["outlook"]["to_target"]:
        assert f"{way['amount']:,.6f}".rstrip("0").rstrip(".") in ways
    assert "  3.0000  " in ways


def test_a_report_says_what_one_call_can_close(run: Run, folder: Path) -> None:
    with sqlite3.connect(folder / "indexer.db") as conn:
        wallet = conn.execute(
            "select wallet from positions where status = 'liquidatable' and protocol = 'aave-v3' order by debt_usd desc"
        ).fetchone()[0]
    (row,) = json.loads(run("show", wallet).stdout)
    (call, *_) = row["outlook"]["closable"]
    told = run("report", wallet, "--format", "md").stdout.split("What one call can close now")[1]
    assert f"{call['repaid']:,.6f}".rstrip("0").rstrip(".") in told


@pytest.mark.parametrize("arguments", [["show"], ["report"], ["simulate", "--days", "1"]])
def test_an_unknown_wallet_says_so_in_one_line(run: Run, arguments: list[str]) -> None:
    result = run(*arguments, STRANGER)
    assert result.exit_code == 0
    assert f"{STRANGER} has no position in indexer.db" in result.stderr.splitlines()
    if arguments != ["report"]:
        assert json.loads(result.stdout) == []
        table = run(*arguments, STRANGER, "--table")
        assert (table.exit_code, table.stdout) == (0, "")


def test_of_several_each_unknown_one_is_named(run: Run, two: tuple[str, str]) -> None:
    watch(run, STRANGER, "--label", "new")
    result = run("show", "new", two[0])
    assert f"{STRANGER} (new) has no position in indexer.db" in result.stderr
    assert len(json.loads(result.stdout)) >= 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("@famly", "no watched wallet is in the group @famly; did you mean 'family'?"),
        ("tresury", "did you mean 'treasury'?"),
        ("0x12", "'0x12' is not an address (0x and 40 hex digits)"),
        ("", "is not an address"),
    ],
)
def test_a_name_that_nobody_has_is_one_line_and_code_2(run: Run, name: str, message: str, two: tuple[str, str]) -> None:
    watch(run, two[0], "--label", "treasury", "--group", "family")
    for command in ("show", "report"):
        result = run(command, name)
        assert (result.exit_code, result.stdout) == (2, "")
        (line,) = result.stderr.splitlines()
        assert message in line


@pytest.mark.parametrize("group", ["a b", "", "@", "x" * 65, "a\x1b"])
def test_a_group_has_a_name_of_one_word(run: Run, folder: Path, two: tuple[str, str], group: str) -> None:
    result = run("watch", "add", two[0], "--group", group)
    assert result.exit_code == 2
    assert "is no name of a group" in result.stderr
    assert json.loads(run("watch", "list", "--json").stdout) == []


def test_groups_come_from_a_file_and_go_with_their_wallet(run: Run, folder: Path, two: tuple[str, str]) -> None:
    (folder / "wallets.csv").write_text(f"wallet,group\n{two[0]},family old\n{two[1]},family\n")
    assert run("watch", "import", "wallets.csv").exit_code == 0
    assert {row["wallet"] for row in json.loads(run("show", "@family").stdout)} == set(two)
    assert run("watch", "remove", two[0]).exit_code == 0
    assert {row["wallet"] for row in json.loads(run("show", "@family").stdout)} == {two[1]}
    assert run("show", "@old").exit_code == 2
