"""Lists have the same flags, which do what SQL over the same rows says; levels are what the contracts answer at other prices."""

import csv
import io
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from indexer.cli.main import main
from indexer.text.values import iso
from tests.devnet import aave_v3, compound_v3, maker
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import Anvil
from tests.devnet.scenario import Devnet
from tests.truth import raw, sync_once

LISTS = (
    "at-risk", "export", "forecast", "levels", "liquidations", "movements", "opportunities", "show", "simulate", "status", "top",
)  # fmt: skip
FLAGS = "--chain --deployment --protocol --wallet --limit --sort --since --until --min-debt".split()
WAD = 10**18


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[list[Devnet]]:
    with Anvil() as node:
        node.place_multicall3()
        markets: list[Devnet] = [aave_v3.deploy(node, "3.6"), compound_v3.deploy(node), maker.deploy(node)]
        for market in markets:
            market.populate(seed=9, users=12)
        yield markets


@pytest.fixture(scope="module")
def path(markets: list[Devnet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two snapshots, an hour of the chain's time apart, the second after a fall of ether."""
    path = tmp_path_factory.mktemp("lists") / "indexer.db"
    market = markets[0]
    assert isinstance(market, AaveV3)
    sync_once(path, market.node.url, markets)
    before = market.price("WETH")
    market.set_price("WETH", market.price("WETH") * 9 // 10)
    market.step(3)
    market.node.mine(1, interval=3_600)
    sync_once(path, market.node.url, markets)
    (path.parent / "prices").write_text(f"{before} {market.price('WETH')}")
    return path


@pytest.fixture
def run(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(path.parent)

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["--db", str(path), *arguments])
        assert result.exit_code == code, result.output
        return result

    return run


def rows(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("command", LISTS)
def test_every_list_has_the_same_flags(command: str) -> None:
    options = {option for parameter in main.get_command(None, command).params for option in parameter.opts}  # type: ignore[union-attr, arg-type]
    assert [flag for flag in FLAGS if flag not in options] == []


def test_the_watch_list_has_them_too(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(path, "watched.db")

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["--db", "watched.db", "watch", *arguments])
        assert result.exit_code == code, result.output
        return result

    listing = dict(main.get_command(None, "watch").commands)["list"]  # type: ignore[arg-type, union-attr, attr-defined]
    assert set(FLAGS) <= {option for parameter in listing.params for option in parameter.opts}
    wallets = [w for (w,) in raw(path, "select wallet from positions where debt_usd > 0 group by protocol")]
    for wallet in wallets:
        run("add", wallet)
    everything = rows(run("list"))
    for name in {row["deployment"] for row in everything}:
        part = rows(run("list", "--deployment", name))
        assert part == [row for row in everything if row["deployment"] == name]
    assert {row["wallet"] for row in rows(run("list", "--wallet", wallets[0]))} == {wallets[0]}
    least = max(row["debt_usd"] for row in everything)
    assert {row["debt_usd"] for row in rows(run("list", "--min-debt", str(least)))} == {least}
    assert len(rows(run("list", "--sort", "debt_usd", "--limit", "1"))) == 1
    nobody = run("list", "--until", "1")
    assert rows(nobody) == []
    assert "the flags leave out everyone who is watched" in nobody.stderr


OF_NOBODY = ["--wallet", "--since", "--until", "--min-debt"]


@pytest.mark.parametrize(
    ("command", "lacking"),
    [
        ("protocols", OF_NOBODY),  # what can be synced
        ("oracles", OF_NOBODY),
        ("volatility", ["--deployment", "--protocol", *OF_NOBODY]),  # of feeds, which deployments share
    ],
)
def test_lists_of_no_positions_have_those_that_their_rows_have_a_column_for(command: str, lacking: list[str]) -> None:
    options = {option for parameter in main.get_command(None, command).params for option in parameter.opts}  # type: ignore[union-attr, arg-type]
    assert [flag for flag in FLAGS if flag not in options] == lacking


@pytest.mark.parametrize(
    "command",
    [["at-risk", "--below", "9"], ["export", "positions"], ["export", "balances"], ["opportunities", "--below", "9"]],
)
def test_a_list_can_be_of_one_deployment_or_wallet(run: Callable[..., Result], path: Path, command: list[str]) -> None:
    everything = rows(run(*command))
    accounts = {(row["deployment"], row["account"]) for row in everything}
    deployment, account = min(accounts)
    part = rows(run(*command, "--deployment", deployment))
    assert part == [row for row in everything if row["deployment"] == deployment]
    assert 0 < len(part) < len(everything)
    ((wallet,),) = set(
        raw(path, f"select wallet from positions where account = '{account}' and deployment = '{deployment}'")
    )
    of = {a for (a,) in raw(path, f"select account from positions where '{wallet}' in (account, owner, wallet)")}
    assert rows(run(*command, "--wallet", wallet)) == [row for row in everything if row["account"] in of]
    assert rows(run(*command, "--limit", "3")) == everything[:3]


def test_status_can_be_of_whoever_has_a_position_there(run: Callable[..., Result], path: Path) -> None:
    def status(*flags: str) -> list[dict[str, Any]]:
        return [{name: row[name] for name in row if name != "age_seconds"} for row in rows(run("status", *flags))]

    everything = status()
    assert len(everything) == 3
    for flags, chosen in (
        (["--protocol", "maker"], "protocol = 'maker'"),
        (["--deployment", "compound-v3-usdc"], "deployment = 'compound-v3-usdc'"),
    ):
        names = {name for (name,) in raw(path, f"select deployment from deployments where {chosen}")}
        assert status(*flags) == [row for row in everything if row["deployment"] in names]
        assert len(names) == 1
    ((wallet, most),) = raw(path, "select wallet, debt_usd from positions order by debt_usd desc limit 1")
    held = {
        name for (name,) in raw(path, f"select deployment from positions where '{wallet}' in (wallet, owner, account)")
    }
    owing = {name for (name,) in raw(path, f"select deployment from positions where debt_usd >= {most}")}
    assert {row["deployment"] for row in status("--wallet", wallet)} == held
    assert {row["deployment"] for row in status("--min-debt", str(most))} == owing
    assert len(owing) == 1
    block = everything[0]["block_number"]
    assert status("--since", str(block)) == everything
    assert status("--since", str(block + 1)) == status("--until", str(block - 1)) == []
    counts = [row["positions"] for row in status("--sort", "positions:asc")]
    assert counts == sorted(row["positions"] for row in everything)
    assert len(status("--limit", "2")) == 2
    assert "did you mean 'aave-v3'" in run("status", "--protocol", "aave-v", code=2).stderr


def test_protocols_can_be_of_one_and_are_cut(run: Callable[..., Result]) -> None:
    everything = rows(run("protocols"))
    maker = rows(run("protocols", "--protocol", "maker"))
    assert maker == [row for row in everything if row["protocol"] == "maker"]
    assert 0 < len(maker) < len(everything)
    assert rows(run("protocols", "--deployment", "aave-v3-core"))[0]["chain"] == "mainnet"
    firsts = [row["start_block"] for row in rows(run("protocols", "--sort", "start_block:asc", "--limit", "3"))]
    assert firsts == sorted(row["start_block"] for row in everything)[:3]
    assert "unknown deployment 'aave-v3-cor'" in run("protocols", "--deployment", "aave-v3-cor", code=2).stderr


def test_a_person_can_be_shown_in_part(run: Callable[..., Result], path: Path) -> None:
    """By whom --wallet names as well; the flags choose of all that they have."""
    two = [w for (w,) in raw(path, "select wallet from positions where debt_usd > 0 group by protocol")][:2]
    everything = rows(run("show", *two))
    assert rows(run("show", two[0], "--wallet", two[1])) == rows(run("show", "--wallet", two[0], "--wallet", two[1]))
    assert {row["protocol"] for row in everything} > {row["protocol"] for row in rows(run("show", two[0]))}
    for row in everything:
        part = rows(run("show", *two, "--deployment", row["deployment"]))
        assert part == [one for one in everything if one["deployment"] == row["deployment"]]
    least = max(row["debt_usd"] for row in everything)
    assert {row["debt_usd"] for row in rows(run("show", *two, "--min-debt", str(least)))} == {least}
    assert rows(run("show", *two, "--sort", "debt_usd:asc", "--limit", "1")) == [
        min((row for row in everything if row["debt_usd"] is not None), key=lambda row: row["debt_usd"])
    ]
    nothing = run("show", *two, "--until", "1")
    assert rows(nothing) == []
    assert "the flags leave out every position of theirs" in nothing.stderr
    assert "say whose positions" in run("show", code=2).stderr
    assert "--live reads the chain now" in run("show", two[0], "--live", "--since", "1d", code=2).stderr


def test_a_person_hears_where_supplies_are_not_read(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is not read counts as 0: sums of it are unknown."""
    monkeypatch.chdir(tmp_path)
    late, whole = (
        w for (w,) in raw(path, "select distinct wallet from positions where debt_usd > 0 order by 1 limit 2")
    )
    shutil.copy(path, "late.db")
    with closing(sqlite3.connect("late.db")) as conn, conn:
        conn.execute("update positions set supplies_complete = 0 where wallet = ?", (late,))

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(main, ["--db", "late.db", *arguments])
        assert result.exit_code == 0, result.output
        return result

    for wallet, waits in ((late, True), (whole, False)):
        assert ("supplies that back no debt are not read yet" in run("show", wallet, "--table").stderr) is waits
        told = " ".join(run("report", wallet).stdout.split())
        assert ("Supply and equity are unknown: supplies that back no debt are not read yet" in told) is waits
        (row,) = rows(run("top", "--wallet", wallet))
        assert (row["supply_usd"] is None) is waits
        assert ("is unknown while it is not read" in run("top", "--wallet", wallet, "--table").stderr) is waits
    both = run("show", late, whole, "--table")
    assert re.search(r"not read yet of \d of these \d positions", both.stderr)
    assert re.search(r"^ *\d +- ", both.stdout, re.MULTILINE)  # all of them together: how many, and an unknown supply


def test_a_simulation_can_be_of_a_part_of_the_book(run: Callable[..., Result], path: Path) -> None:
    shock = ["simulate", "--shock", "eth=-60%"]
    everything = rows(run(*shock))
    debts = dict(raw(path, "select account || position_group, debt_usd from positions where debt_usd is not null"))
    least = sorted(debts.values())[len(debts) // 2]
    large = rows(run(*shock, "--min-debt", str(least)))
    assert large == [row for row in everything if debts[row["account"] + row["position_group"]] >= least]
    assert 0 < len(large) < len(everything)
    assert rows(run(*shock, "--limit", "2")) == rows(run(*shock, "--top", "2")) == everything[:2]
    factors = [
        int(row["health_factor_after_raw"]) for row in rows(run(*shock, "--sort", "health_factor_after_raw:asc"))
    ]
    assert factors == sorted(int(row["health_factor_after_raw"]) for row in everything)
    wallet = everything[0]["wallet"]
    assert rows(run(*shock, "--wallet", wallet)) == rows(run(*shock[:1], wallet, *shock[1:]))
    assert rows(run(*shock, "--chain", "devnet", "--since", "1h")) == everything
    assert rows(run(*shock, "--until", "1")) == []
    assert "unknown chain 'devent'" in run(*shock, "--chain", "devent", code=2).stderr


def test_a_book_is_of_one_chain(run: Callable[..., Result], path: Path) -> None:
    whole = json.loads(run("report", "book", "--format", "json").stdout)
    assert json.loads(run("report", "book", "--chain", "devnet", "--format", "json").stdout) == whole
    elsewhere = run("report", "book", "--chain", "mainnet", "--format", "json")
    assert elsewhere.stdout == ""
    assert "holds none of those deployments" in elsewhere.stderr


def test_rows_are_sorted_by_any_column_exact_ones_by_their_integers(run: Callable[..., Result], path: Path) -> None:
    for column in ("health_factor_raw", "debt_usd", "account"):
        known = [value for (value,) in raw(path, f"select {column} from positions where {column} is not null")]
        want = sorted(known, key=int if column.endswith("_raw") else None)
        unknown = [None] * raw(path, f"select count(*) from positions where {column} is null")[0][0]
        assert [row[column] for row in rows(run("export", "positions", "--sort", f"{column}:asc"))] == want + unknown
        assert [row[column] for row in rows(run("export", "positions", "--sort", column))] == want[::-1] + unknown
    result = run("export", "positions", "--sort", "dept_usd", code=2)
    assert "no column is called 'dept_usd'" in result.stderr


def test_top_and_movements_and_opportunities_sort_and_cut_too(run: Callable[..., Result], path: Path) -> None:
    ((fewest,),) = raw(path, "select min(positions) from wallets")
    assert rows(run("top", "--sort", "positions:asc", "--limit", "1000"))[0]["positions"] == fewest
    moved = rows(run("movements", "--since", "30d", "--min", "0"))
    assert (
        rows(run("movements", "--since", "30d", "--min", "0", "--sort", "wallet:asc", "--limit", "2"))
        == sorted(moved, key=lambda row: row["wallet"])[:2]
    )
    wallet = moved[0]["wallet"]
    assert {row["wallet"] for row in rows(run("movements", "--since", "30d", "--min", "0", "--wallet", wallet))} == {
        wallet
    }
    gains = rows(run("opportunities", "--below", "9", "--sort", "health_factor_raw:asc"))
    factors = [int(row["health_factor_raw"]) for row in gains if row["health_factor_raw"]]
    assert factors == sorted(factors)


def test_sql_reads_what_the_command_lists(run: Callable[..., Result], path: Path) -> None:
    """As a table of the same rows and columns, which joins with the others, is not in the file and cannot be written."""
    listed = rows(run("opportunities"))
    asked = rows(run("query", "select * from Opportunities"))
    key = ("deployment", "account", "position_group")
    assert sorted(asked, key=lambda row: [row[name] for name in key]) == sorted(
        listed, key=lambda row: [row[name] for name in key]
    )
    assert any(row["profit_before_gas_usd"] for row in listed)
    joined = "select o.account from opportunities o join at_risk using (chain_id, deployment, account, position_group)"
    assert len(rows(run("query", joined))) == len(listed)
    assert "may only read" in run("query", "delete from opportunities", code=1).stderr
    assert raw(path, "select count(*) from sqlite_master where name = 'opportunities'") == [(0,)]
    told = {row["column"]: row["type"] for row in rows(run("schema", "opportunities"))}
    assert list(told) == list(listed[0])


def test_since_and_until_count_from_the_data(run: Callable[..., Result], path: Path) -> None:
    """The data is of 2024 or so: an age that counted from now would find nothing."""
    ((block, time),) = raw(path, "select distinct block_number, block_timestamp from deployments")
    everything = rows(run("export", "positions"))
    for since in ("1h", str(block), iso(time)):
        assert rows(run("export", "positions", "--since", since)) == everything
    assert rows(run("export", "positions", "--since", str(block + 1))) == []
    assert rows(run("export", "positions", "--until", str(block - 1))) == []
    assert rows(run("export", "wallets", "--until", iso(time - 1))) == []
    assert "sync first" in run("export", "positions", "--since", iso(time + 60), code=2).stderr


def test_levels_are_what_the_contracts_answer_at_those_prices(
    run: Callable[..., Result], markets: list[Devnet], path: Path
) -> None:
    """Ether falls to each bound on the chain: who is then liquidatable owes what the rows up to that bound add up to."""
    market = markets[0]
    assert isinstance(market, AaveV3)
    found = rows(run("levels", "WETH", "--step", "10", "--deployment", market.name))
    known = raw(path, f"select block_number, block_time from deployments where deployment = '{market.name}'")
    assert {(row["oldest_block_number"], row["oldest_block_time"]) for row in found} == {*known}
    debts = dict(
        raw(path, f"select account, debt_usd from positions where deployment = '{market.name}' and debt_usd > 0")
    )
    holds = {
        a for (a,) in raw(path, f"select account from balances where deployment = '{market.name}' and symbol = 'WETH'")
    }
    price, checked = market.price("WETH"), 0
    with ExitStack() as stack:
        stack.enter_context(market.rewound())
        for percent in (0, 10, 20, 30, 40, 60):
            market.set_price("WETH", price * (100 - percent) // 100)
            want = [debts[a] for a in debts.keys() & holds if int(market.answer(a)[5]) < WAD]
            mine = [
                row
                for row in found
                if row["direction"] == "now" or (row["direction"] == "fall" and row["change_percent_to"] >= -percent)
            ]
            assert sum(row["positions"] for row in mine) == len(want), percent
            assert sum(row["debt_usd"] for row in mine) == pytest.approx(
                sum(want), rel=1e-4
            )  # interest of a few blocks
            checked += len(want)
    assert checked > 5


def test_levels_of_a_vault_s_collateral_are_found_and_an_unknown_asset_is_told(run: Callable[..., Result]) -> None:
    assert [row for row in rows(run("levels", "ETH", "--protocol", "maker")) if row["direction"] == "fall"]
    assert "no market has the asset 'WETTH'; known: BAT, COMP," in run("levels", "WETTH", code=2).stderr


def test_a_report_since_then_has_the_book_s_points(run: Callable[..., Result], path: Path) -> None:
    report = json.loads(run("report", "book", "--since", "7d", "--format", "json", "--levels", "WETH").stdout)
    titles = [section["title"] for section in report["sections"]]
    (trend,) = [section for section in report["sections"] if section["title"].startswith("Trend since")]
    points = raw(
        path,
        "select block_time, sum(collateral_usd), sum(debt_usd) from book_history group by block_number order by block_number",
    )
    assert [(row["block_time"], row["collateral_usd"], row["debt_usd"]) for row in trend["rows"]] == [
        (at, pytest.approx(collateral), pytest.approx(debt)) for at, collateral, debt in points
    ]
    assert len(points) == 2
    (prices,) = [section for section in report["sections"] if section["title"] == "Prices since then"]
    (weth,) = [row for row in prices["rows"] if row["symbol"] == "WETH" and row["deployment"].startswith("aave")]
    before, after = map(int, (path.parent / "prices").read_text().split())  # the oracle's own answers
    assert weth["change_percent"] == pytest.approx(100 * (after / before - 1))
    assert before != after
    assert "Debt by liquidation price of WETH" in titles


def test_a_report_in_csv_has_one_value_a_line_with_all_digits(run: Callable[..., Result], tmp_path: Path) -> None:
    run("report", "book", "--output", str(tmp_path / "book.csv"))
    lines = list(csv.DictReader(io.StringIO((tmp_path / "book.csv").read_text())))
    report = json.loads(run("report", "book", "--format", "json").stdout)
    want = sum(len(row) for section in report["sections"] for row in section["rows"])
    assert [line["value"] for line in lines[:2]] == [report["title"], report["as_of"]]
    assert len(lines) == want + 2
    assert {line["section"] for line in lines[2:]} == {s["title"] for s in report["sections"] if s["rows"]}


def test_an_unknown_ending_is_refused_with_what_is_known(run: Callable[..., Result], tmp_path: Path) -> None:
    for command in (["report", "book"], ["export", "positions"]):
        result = run(*command, "--output", str(tmp_path / "rows.xlsx"), code=2)
        assert ".json" in result.stderr
        assert ".csv" in result.stderr
    assert list(tmp_path.iterdir()) == []
