"""`indexer levels` against the contracts: an asset's price is moved to each bound, and they say who is then liquidatable."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from indexer.cli.main import main
from indexer.model import PositionKey, Price
from indexer.risk.levels import named
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
