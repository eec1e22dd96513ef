"""`indexer levels` against the contracts: an asset's price is moved to each bound, and they say who is then liquidatable."""

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from indexer.cli.main import main
from indexer.model import PositionKey, Price
from indexer.risk.levels import COLUMNS, Level, histogram, levels_of, named
from tests.devnet.node import CHAIN_ID
from tests.devnet.scenario import config_toml
from tests.liquidating import Ground, MakerGround, populated_ground
from tests.truth import raw

USERS = 40
#: a kind of market, and an asset whose price moves health there
MARKETS = [
    ("aave-3.6", "WETH"),
    ("aave-v2", "DAI"),
    ("compound-v2 half-up", "ETH"),
    ("compound-v2 truncating", "ETH"),
    ("comet USDC", "WETH"),
    ("comet WETH", "wstETH"),
    ("maker", "WETH"),
]
BOUNDS = (-80, -60, -40, -30, -20, -10, -5, 5, 10, 20, 40, 80)
Who = tuple[str, str]  # account, position group


@pytest.fixture(scope="module", params=MARKETS, ids=lambda param: param[0])
def scene(request: pytest.FixtureRequest, needs_node: None) -> Iterator[tuple[Ground, str]]:
    kind, asset = request.param
    with populated_ground(kind, 6, USERS) as ground:
        ground.start()
        yield ground, asset


def listed(ground: Ground, folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """What a command lists of the market at its head."""
    config = folder / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, ground.node.url, [ground.devnet]))
    options = ["--config", str(config), "--db", str(folder / "indexer.db")]
    for command in (["sync", "--chain", "devnet"], [*arguments, "--json"]):
        result = CliRunner().invoke(main, [*options, *command])
        assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def moved(price: Price, percent: int) -> int:
    """The oracle's integer that far from now; no farther than the bound, which itself is in the row that ends there."""
    whole = price.price * (100 + percent)
    return -(-whole // 100) if percent < 0 else whole // 100


def endangered(ground: Ground, exposed: dict[Who, Price], percent: int) -> set[Who]:
    """Who of them the contracts call liquidatable at that price, with interest accrued, or at any (a deprecated market)."""
    if isinstance(ground, MakerGround):
        with ground.devnet.rewound():
            for price in {price.symbol: price for price in exposed.values()}.values():
                ground.set_price(price, moved(price, percent))
            return {who for who in exposed if ground.unsafe(PositionKey(*who))}
    asked = [(account, ground.override(price, moved(price, percent))) for (account, _), price in exposed.items()]
    answers = ground.liquidatable(asked, ground.node.block_number(), accrued=ground.lazy)
    verdicts = zip(exposed, answers, strict=True)
    return {who for who, answer in verdicts if answer or ground.always(ground.positions[PositionKey(*who)])}


def test_at_each_bound_the_contracts_call_as_many_liquidatable(scene: tuple[Ground, str], tmp_path: Path) -> None:
    """Those who are safe now; the debts of the rows are theirs. `now` are those who are liquidatable already."""
    ground, asset = scene
    with ground.devnet.rewound():
        if isinstance(ground, MakerGround):  # its contracts ask with the rates of the last drip
            for ilk in ground.devnet.ilks:
                ground.devnet.drip(ilk)
        rows = listed(ground, tmp_path, "levels", asset, "--step", "5")
        path = tmp_path / "indexer.db"
        debts: dict[Who, float | None] = {
            (account, group): debt
            for account, group, debt in raw(
                path, "select account, position_group, debt_usd from positions where status <> 'no-debt'"
            )
        }
        exposed: dict[Who, Price] = {}
        for key, position in ground.positions.items():
            narrowed = ground.adapter.narrow(ground.market, position)
            for price in ground.adapter.exposure(narrowed, position):
                if (key.account, key.group) in debts and named(asset, price.key, price.symbol):
                    exposed[key.account, key.group] = price
        now = endangered(ground, exposed, 0)
        mine = [row for row in rows if row["direction"] == "now"]
        assert sum(row["positions"] for row in mine) == len(now)
        wrong, met = {}, 0
        for percent in BOUNDS:
            new = endangered(ground, exposed, percent) - now
            way = "fall" if percent < 0 else "rise"
            reached = [
                row
                for row in rows
                if row["direction"] == way
                and row["change_percent_to"] is not None
                and abs(row["change_percent_to"]) <= abs(percent)
            ]
            if sum(row["positions"] for row in reached) != len(new):
                wrong[percent] = (sum(row["positions"] for row in reached), len(new))
            owed = sum(debts[who] or 0 for who in new)  # unknown where no feed says what the base is worth
            assert sum(row["debt_usd"] or 0 for row in reached) == pytest.approx(owed, rel=1e-4, abs=1e-6)
            assert max((row["cumulative_debt_usd"] for row in reached), default=0) == pytest.approx(
                owed, rel=1e-4, abs=1e-6
            )
            met += len(new)
        assert not wrong
        assert met >= 5


def test_at_each_level_the_contracts_change_their_mind(scene: tuple[Ground, str]) -> None:
    """Exactly there, and not one unit of the oracle's price before; a position without the asset, or one of a market
    whose code is unknown, has none."""
    ground, asset = scene
    asked, safe = [], []
    for key, position in ground.positions.items():
        assert [*levels_of(ground.adapter, ground.market, position, "NOTHING")] == []
        assert [*levels_of(ground.adapter, replace(ground.market, exact=False), position, asset)] == []
        if isinstance(ground, MakerGround):  # its prices move by transactions alone; the counts above are from them
            continue
        narrowed = ground.adapter.narrow(ground.market, position)
        prices = [p for p in ground.adapter.exposure(narrowed, position) if named(asset, p.key, p.symbol)]
        found = [one for one in levels_of(ground.adapter, ground.market, position, asset) if one.change is not None]
        assert len(found) <= len(prices)
        if len(prices) == len(found) == 1:
            reached = prices[0].price * (1 + (found[0].change or 0))
            assert reached.denominator == 1
            step = 1 if reached < prices[0].price else -1
            asked.append((key.account, ground.override(prices[0], int(reached))))
            safe.append((key.account, ground.override(prices[0], int(reached) + step)))
    block = ground.node.block_number()
    assert all(ground.liquidatable(asked, block, accrued=ground.lazy))
    assert not any(ground.liquidatable(safe, block, accrued=ground.lazy))
    assert len(asked) >= 3 or isinstance(ground, MakerGround)


def test_rows_say_from_which_change_and_price_to_which() -> None:
    """Steps of 5 %, of a price of 2,000 USD: a fall of exactly one step ends the first row; what has no value is counted."""
    levels = [
        Level(None, 7.0),
        *(Level(Fraction(change), debt) for change, debt in [
            ("-0.05", 100.0), ("-0.0501", 30.0), ("-0.02", None), ("-0.99", 1.0), ("0.05", 2.0), ("0.98", 3.0), ("4", 4.0),
        ]),
    ]  # fmt: skip
    assert [tuple(row[name] for name in COLUMNS) for row in histogram(levels, 5, 2000.0)] == [
        ("now", 0, 0, 2000.0, 2000.0, 1, 7.0, 7.0, 0),
        ("fall", 0, -5, 2000.0, 1900.0, 2, 100.0, 100.0, 1),
        ("fall", -5, -10, 1900.0, 1800.0, 1, 30.0, 130.0, 0),
        ("fall", -95, -100, 100.0, 0.0, 1, 1.0, 131.0, 0),
        ("rise", 0, 5, 2000.0, 2100.0, 1, 2.0, 2.0, 0),
        ("rise", 95, 100, 3900.0, 4000.0, 1, 3.0, 5.0, 0),
        ("rise", 100, None, 4000.0, None, 1, 4.0, 9.0, 0),
    ]
    steps_of_seven = [(row["change_percent_from"], row["change_percent_to"]) for row in histogram(levels, 7, None)]
    assert steps_of_seven == [(0, 0), (0, -7), (-98, -100), (0, 7), (91, 98), (105, None)]
