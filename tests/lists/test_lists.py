"""Lists have the same flags, which do what SQL over the same rows says; levels are what the contracts answer at other prices."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from indexer.cli.main import main
from indexer.text import iso
from tests.devnet import aave_v3, compound_v3, maker
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import Anvil
from tests.devnet.scenario import Devnet
from tests.truth import raw, sync_once

LISTS = ("at-risk", "export", "levels", "liquidations", "movements", "opportunities", "top")
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
