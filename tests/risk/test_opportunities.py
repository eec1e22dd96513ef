"""`indexer opportunities` against real calls: each row says exactly what one liquidation takes and pays."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from indexer.cli.main import main
from indexer.model import PositionKey
from indexer.risk.opportunity_rows import COLUMNS
from tests.devnet import aave_v3_variants
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import config_toml
from tests.devnet.send import Reverted
from tests.devnet.worlds import KINDS
from tests.earning import REFUSALS, Row, Till, everything, till_of
from tests.liquidating import Ground, ground_of, populated_ground
from tests.risk.test_liquidation import sink

USERS = 60
MARKETS = [
    ("aave-3.0.2", 3),
    ("aave-3.6", 3),
    ("aave-v2", 3),
    ("compound-v2 half-up", 3),
    ("compound-v2 truncating", 4),
    ("comet USDC", 3),
    ("comet WETH", 4),
    ("maker", 3),
]


@pytest.fixture(scope="module", params=MARKETS, ids="{0[0]} seed {0[1]}".format)
def populated(request: pytest.FixtureRequest, needs_node: None) -> Iterator[Ground]:
    with populated_ground(*request.param, USERS) as ground:
        yield ground


def listed(ground: Ground, folder: Path, *flags: str) -> list[dict[str, Any]]:
    """What the command lists of the market at its head."""
    config = folder / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, ground.node.url, [ground.devnet]))
    options = ["--config", str(config), "--db", str(folder / "indexer.db")]
    for command in (["sync", "--chain", "devnet", "--accounts", "all"], ["opportunities", "--json", *flags]):
        result = CliRunner().invoke(main, [*options, *command])
        assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    assert all(list(row) == COLUMNS for row in found)
    return found


def liquidate(till: Till, row: Row) -> dict[str, Any]:
    """The most that the contracts take; where that would leave dust behind, what the row says."""
    try:
        return till.made(row, everything(till.ground, row))
    except Reverted as error:
        if "MustNotLeaveDust" not in error.reason:
            raise
        return till.made(row, int(row["repaid_raw"]))


def whole(row: Row) -> Row:
    """The row with some collateral to ask for, where the account has none."""
    asset = row["collateral_asset"] or row["debt_asset"]
    return {**row, "collateral_asset": asset, "collateral_market": row["collateral_market"] or asset}


def differing(row: Row, shown: dict[str, Any]) -> dict[str, Any]:
    return {name: (row[name], value) for name, value in shown.items() if row[name] != value}


def paid_as_told(ground: Ground, percent: int, folder: Path) -> int:
    """After a fall of prices each row without a refusal says what its call takes and pays; how many there are."""
    sink(ground, percent)
    till = till_of(ground)
    rows = listed(ground, folder)
    wrong, made = {}, 0
    for row in rows:
        key = row["account"], row["position_group"]
        if row["refused"] is not None:
            assert row["profit_before_gas_usd"] is row["profit_after_gas_usd"] is row["repaid_raw"] is None
            continue
        shown = liquidate(till, row)
        used = shown.pop("gas_used")
        assert row["gas"] / 2 < used < row["gas"] * 2, (row["function"], used)
        if differing(row, shown):
            wrong[key] = differing(row, shown)
        made += 1
    assert not wrong
    return made


@pytest.mark.parametrize("percent", [90, 70])
def test_each_row_says_what_the_call_takes_and_pays(ground: Ground, percent: int, tmp_path: Path) -> None:
    assert paid_as_told(ground, percent, tmp_path) >= 2


def long(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("aave-3.6", 21),
        ("aave-v2", 22),
        ("compound-v2 truncating", 23),
        ("comet USDC", 24),
        ("maker", 25),
        *(long(kind, seed) for kind in KINDS for seed in range(30, 36)),
    ],
)
def test_so_it_is_for_other_populations(kind: str, seed: int, needs_node: None, tmp_path: Path) -> None:
    with populated_ground(kind, seed, USERS) as ground:
        assert paid_as_told(ground, 75, tmp_path) >= 2


@pytest.mark.parametrize(
    ("version", "seed"),
    [
        ("3.1", 41),
        ("3.3", 42),
        ("3.5", 43),
        ("3.7", 44),
        ("spark-untruncated", 45),
        *(long(version, seed) for version in ("3.1", "3.2", "3.3", "3.4", "3.5") for seed in (46, 47)),
        long("3.7", 47),
        *(long(version, seed) for version in ("spark", "spark-untruncated") for seed in (48, 49)),
    ],
)
def test_so_it_is_for_every_version_of_aave(fresh_node: Anvil, version: str, seed: int, tmp_path: Path) -> None:
    """Close factors, bonuses, the treasury's part and rounding differ between them."""
    devnet = aave_v3_variants.deploy(fresh_node, version)
    devnet.populate(seed, USERS)
    ground = ground_of(devnet)
    made = [paid_as_told(ground, percent, tmp_path) for percent in (85, 70)]
    ground.connection.chain.close()
    assert sum(made) >= 3


@pytest.mark.parametrize("percent", [90, 70])
def test_whoever_is_listed_without_a_call_is_refused_by_the_contracts(
    ground: Ground, percent: int, tmp_path: Path
) -> None:
    """Those who are only close, and those whose every pair is refused."""
    sink(ground, percent)
    till = till_of(ground)
    refused = [row for row in listed(ground, tmp_path, "--below", "1.5") if row["refused"] is not None]
    assert refused
    for row in refused[:10]:
        with pytest.raises(REFUSALS), till.instead_of_head():
            till.liquidate(whole(row), 1)


def test_a_blocked_liquidation_is_listed_with_its_reason(ground: Ground, tmp_path: Path) -> None:
    sink(ground, 70)
    ground.block()
    till = till_of(ground)
    rows = [row for row in listed(ground, tmp_path) if row["status"] == "liquidatable" and row["refused"]]
    assert {row["refused"] for row in rows} & ground.reasons
    for row in rows[:6]:
        assert row["profit_before_gas_usd"] is None
        with pytest.raises(REFUSALS), till.instead_of_head():
            till.liquidate(whole(row), 1)


def test_no_other_pair_pays_more(ground: Ground, tmp_path: Path) -> None:
    """Each pair of debt and collateral of an account is liquidated for real; the row has the one that pays most."""
    sink(ground, 70)
    till = till_of(ground)
    rows = [row for row in listed(ground, tmp_path) if row["refused"] is None]
    ground.start()
    compared = 0
    for row in rows:
        position = ground.positions[PositionKey(row["account"], row["position_group"])]
        calls = ground.adapter.liquidation_calls(ground.adapter.interest_stored(ground.market), position)
        if len(calls) < 2 or compared >= 5:
            continue
        profits = []
        for one in calls:
            other = {
                **row,
                "debt_asset": one.debt.asset,
                "debt_symbol": one.debt.symbol,
                "collateral_asset": one.collateral.asset,
                "collateral_market": one.collateral.market,
                "repaid_raw": str(one.repaid),
                "sale_refused": one.sale.refused if one.sale else None,
                "sale_paid_raw": str(one.sale.paid) if one.sale else None,
            }
            with suppress(*REFUSALS):
                shown = liquidate(till, other)
                profits.append((shown["profit_before_gas_usd"], shown.get("sale_profit_before_gas_usd") or 0.0))
        assert (row["profit_before_gas_usd"], row["sale_profit_before_gas_usd"] or 0.0) == max(profits)
        compared += 1
    # an urn is one pair, and so is everybody's in one small market
    assert compared or ground.devnet.name in {"maker", "compound-v3-weth-extended"}


def test_gas_and_the_least_profit(populated_aave_v3_6: AaveV3, tmp_path: Path) -> None:
    """Gas at 10 gwei and the oracle's ether price; without a gas price what is left after it is unknown."""
    devnet = populated_aave_v3_6
    with devnet.rewound():
        ground = ground_of(devnet)
        sink(ground, 70)
        rows = listed(ground, tmp_path)
        ether = Fraction(devnet.price("WETH"), 10**8)
        priced = again(tmp_path, "--gas-price", "10")
        ground.connection.chain.close()
    open_now = [row for row in rows if row["refused"] is None]
    assert len(open_now) > 3
    assert all(row["gas_usd"] is row["profit_after_gas_usd"] is row["gas_price_gwei"] is None for row in rows)
    after = {row["account"]: row for row in priced}
    for row in open_now:
        cost = float(row["gas"] * ether / 10**8)  # 10 gwei
        assert after[row["account"]]["gas_usd"] == pytest.approx(cost, rel=1e-12)
        left = row["profit_before_gas_usd"] - cost
        assert after[row["account"]]["profit_after_gas_usd"] == pytest.approx(left, rel=1e-12)
    assert [row["refused"] for row in rows if row["refused"]] == ["not-liquidatable"] * (len(rows) - len(open_now))
    profits = [row["profit_before_gas_usd"] for row in open_now]
    assert rows[: len(profits)] == open_now
    assert profits == sorted(profits, reverse=True)
    least = profits[1]
    assert again(tmp_path, "--min-profit", str(least)) == open_now[:2]
    assert again(tmp_path, "--min-profit", "1e12") == []


def again(folder: Path, *flags: str) -> list[dict[str, Any]]:
    """What the command lists of the database that `listed` synced."""
    options = ["--config", str(folder / "indexer.toml"), "--db", str(folder / "indexer.db")]
    result = CliRunner().invoke(main, [*options, "opportunities", "--json", *flags])
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_every_format_has_the_same_rows(populated_aave_v3_6: AaveV3, tmp_path: Path) -> None:
    with populated_aave_v3_6.rewound():
        ground = ground_of(populated_aave_v3_6)
        sink(ground, 70)
        rows = listed(ground, tmp_path)
        ground.connection.chain.close()
    options = ["--config", str(tmp_path / "indexer.toml"), "--db", str(tmp_path / "indexer.db"), "opportunities"]
    text = CliRunner().invoke(main, [*options, "--csv"]).stdout
    assert [line["repaid_raw"] for line in csv.DictReader(io.StringIO(text))] == [r["repaid_raw"] or "" for r in rows]
    table = CliRunner().invoke(main, [*options, "--table"])
    assert "function" in table.stdout.splitlines()[0]
    assert len(table.stdout.splitlines()) == len(rows) + 1
    assert "block" in table.stderr
