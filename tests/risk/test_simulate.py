"""What-if: every simulated row equals the row of a sync after the same thing really happened on the node."""

import json
import os
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from indexer.cli.main import main
from indexer.errors import ConfigError, IndexerError
from indexer.extras import how_to_install
from indexer.model import Deployment, Position, PositionKey
from indexer.report import sweep_chart
from indexer.risk import simulate
from indexer.risk.evaluate import balance_rows, evaluate_all
from indexer.risk.scenario import GROUPS, Change, Names, Scenario, Sweep
from indexer.store import books as stored
from indexer.store import disputes
from indexer.store.books import Book
from indexer.store.database import open_readonly
from indexer.store.rows import POSITION_COLUMNS, BalanceRow
from indexer.store.store import Store
from tests.devnet import aave_v2, aave_v3, compound_v2, compound_v3, maker
from tests.devnet.aave_v2 import AaveV2
from tests.devnet.aave_v3 import AaveV3, EMode
from tests.devnet.compound_v2 import CompoundV2
from tests.devnet.compound_v3 import CompoundV3
from tests.devnet.maker import Maker, word
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import Devnet, config_toml
from tests.devnet.send import Reverted
from tests.truth import deployment_of, sync_once

DAY = 86_400
SVG = "{http://www.w3.org/2000/svg}"
USERS = 30
#: an OSM's queue is not known for a price that has not come
APART = {"block_number", "block_hash", "next_health_factor_raw", "next_health_factor"}
COLUMNS = [name for name in POSITION_COLUMNS if name not in APART]


@dataclass
class World:
    """Every protocol on one node, synced once; `counted` is the factor of what a market's prices are counted in."""

    node: Anvil
    markets: list[Devnet]
    folder: Path
    eth_usd_feed: str
    deployments: dict[str, Deployment] = field(default_factory=dict)

    @property
    def db(self) -> Path:
        return self.folder / "indexer.db"

    def sync(self, folder: Path) -> Path:
        path = folder / "after.db"
        shutil.copy(self.db, path)
        outcome = sync_once(path, self.node.url, list(self.deployments.values()))
        assert not outcome.failed
        return path


@pytest.fixture(scope="module")
def world(needs_node: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Anvil() as node:
        node.place_multicall3()
        markets: list[Devnet] = [
            aave_v3.deploy(node, "3.0.2"),
            aave_v3.deploy(node, "3.6"),
            aave_v2.deploy(node),
            compound_v2.deploy(node),
            compound_v3.deploy(node),
            comet := compound_v3.deploy(node, base="WETH"),
            maker.deploy(node),
        ]
        for market in markets:
            market.populate(seed=3, users=USERS)
        comet.addresses["eth_usd_feed"] = comet.eth_usd_feed
        poke_all(markets[-1])
        world = World(node, markets, tmp_path_factory.mktemp("simulate"), comet.eth_usd_feed)
        world.deployments = {market.name: deployment_of(market) for market in markets}
        (world.folder / "indexer.toml").write_text(config_toml(CHAIN_ID, node.url, markets))
        sync_once(world.db, node.url, list(world.deployments.values()))
        with Store(world.db) as store:
            store.conn.execute("pragma wal_checkpoint(truncate)")
        yield world


@pytest.fixture
def free(world: World) -> Iterator[World]:
    """The world, in which what a test does to the node is undone."""
    with ExitStack() as stack:
        for market in world.markets:
            stack.enter_context(market.rewound())
        yield world


def poke_all(market: Devnet) -> None:
    """Bring Maker's feeds into force, so that the Vat's prices are the feeds'."""
    for symbol in prices_of(market):
        market.set_price(symbol, market.price(symbol))


def prices_of(market: Devnet) -> dict[str, int]:
    """Every asset with a living price: its oracle's integer."""
    symbols: list[str] = []
    match market:
        case AaveV3():
            symbols = list(market.reserves)
        case AaveV2():
            symbols = list(market.tokens)
        case CompoundV2():
            symbols = list(market.markets)
        case CompoundV3():
            symbols = [market.base, *(asset.symbol for asset in market.assets)]
        case Maker():
            symbols = sorted({ilk.symbol for ilk in market.ilks.values()})
    found = {}
    for symbol in symbols:
        try:
            found[symbol] = market.price(symbol)
        except Reverted:
            continue
    return {symbol: price for symbol, price in found.items() if price > 0}


def in_ether(market: Devnet) -> bool:
    return isinstance(market, AaveV2) or (isinstance(market, CompoundV3) and market.base == "WETH")


def happen(world: World, factors: dict[str, Fraction]) -> None:
    """Change the prices in USD by symbol on the node, where a market counts in ETH relative to that."""
    ether = factors.get("WETH", Fraction(1))
    for market in world.markets:
        for symbol, price in prices_of(market).items():
            if in_ether(market):
                if symbol != "WETH":
                    market.set_price(symbol, int(price * factors.get(symbol, Fraction(1)) / ether))
            elif symbol in factors:
                market.set_price(symbol, int(price * factors[symbol]))
    sender = world.markets[0].sender
    answer = int(sender.call(world.eth_usd_feed, "latestAnswer()(int256)"))
    sender.send(world.eth_usd_feed, "set(int256)", [int(answer * ether)])


class Kept(list[Position]):
    """Stored positions that were read before the connection closed, all of them of the snapshot."""

    def newer(self) -> int:
        return 0

    def unverified(self) -> int:
        return 0


def books_of(path: Path, deployments: dict[str, Deployment]) -> list[Book]:
    with closing(open_readonly(path)) as conn:
        books = stored.load(conn, stored.deployments(conn), deployments)
        return [replace(book, positions=Kept(book.positions)) for book in books]  # type: ignore[arg-type]


def differing(
    before: list[Book], after: Path, scenario: Scenario, names: Names, *, balances: bool = False
) -> tuple[int, int, list[str]]:
    """How many rows were compared, how many of them changed, and where simulation and sync differ."""
    compared, moved, wrong = 0, 0, []
    conn = open_readonly(after)
    for book in before:
        row = conn.execute("select * from deployments where deployment = ?", (book.name,)).fetchone()
        timed = replace(
            scenario,
            seconds=row["block_timestamp"] - book.market.block.timestamp,
            blocks=row["block_number"] - book.market.block.number,
        )
        market = timed.applied(book.adapter, book.market, names)
        synced = {
            (r["account"], r["position_group"]): dict(r)
            for r in conn.execute("select * from positions where deployment = ?", (book.name,))
        }
        was = {row.key: row for row in evaluate_all(CHAIN_ID, book.adapter, book.market, book.positions)}
        for ours in evaluate_all(CHAIN_ID, book.adapter, market, book.positions):
            mine = ours._asdict()
            theirs = synced.pop(ours.key)
            compared += 1
            moved += was[ours.key].health_factor_raw != ours.health_factor_raw
            wrong += [
                f"{book.name} {mine['account']} {name}: {mine[name]}, synced {theirs[name]}"
                for name in COLUMNS
                if mine[name] != theirs[name]
            ]
        wrong += [f"{book.name} {key} is left out" for key, r in synced.items() if r["status"] != "no-debt"]
        if balances:
            wrong += differing_balances(conn, book, market)
    conn.close()
    return compared, moved, wrong


def differing_balances(conn: sqlite3.Connection, book: Book, market: Any) -> list[str]:
    wrong = []
    for position in book.positions:
        where = (CHAIN_ID, book.name, position.key.account, position.key.group)
        rows = [*map(BalanceRow._make, balance_rows(CHAIN_ID, book.adapter, market, [position]))]
        stored = conn.execute(
            "select * from balances where (chain_id, deployment, account, position_group) = (?, ?, ?, ?)", where
        )
        theirs = {(r["market"], r["asset"], r["side"]): (r["amount_raw"], r["value_usd"]) for r in stored}
        ours = {(r.market, r.asset, r.side): (r.amount_raw, r.value_usd) for r in rows}
        if ours != theirs:
            wrong.append(f"{book.name} {position.key}: {ours}, synced {theirs}")
    return wrong


STABLE = dict.fromkeys(GROUPS["stablecoins"], Fraction(97, 100))
PRICES: dict[str, tuple[list[str], dict[str, Fraction]]] = {
    "one asset, a group, and one that rises": (
        ["WETH=-20%", "stablecoins=-3%", "LINK=+7.5%"],
        {**STABLE, "WETH": Fraction(4, 5), "ETH": Fraction(4, 5), "LINK": Fraction(1075, 1000)},
    ),
    "groups of correlated assets": (
        ["eth=-35%", "btc=-10.123%"],
        {
            **dict.fromkeys(("WETH", "ETH", "wstETH", "cbETH"), Fraction(65, 100)),
            **dict.fromkeys(("WBTC", "tBTC"), Fraction(89_877, 100_000)),
        },
    ),
}


@pytest.mark.parametrize("name", PRICES)
def test_prices_equal_a_sync_after_the_same_change(free: World, tmp_path: Path, name: str) -> None:
    texts, factors = PRICES[name]
    before = books_of(free.db, free.deployments)
    happen(free, factors)
    scenario = Scenario(shocks=tuple(map(Change.shock, texts)))
    compared, moved, wrong = differing(before, free.sync(tmp_path), scenario, Names(GROUPS))
    assert wrong == []
    assert compared > 100
    assert moved > compared / 2


def test_an_e_mode_s_own_price_is_shocked_by_its_address(free: World, tmp_path: Path) -> None:
    market = free.markets[0]
    assert isinstance(market, AaveV3)
    before = books_of(free.db, free.deployments)[:1]
    address, _ = market.extra_feeds["EUSD"]
    market.set_price("EUSD", market.price("EUSD") * 9 // 10)
    scenario = Scenario(shocks=(Change.shock(f"{address}=-10%"),))
    before = [book for book in books_of(free.db, free.deployments) if book.name == market.name]
    _, moved, wrong = differing(before, free.sync(tmp_path), scenario, Names(GROUPS))
    assert wrong == []
    assert moved > 0
    (remark,) = simulate.remarks(before, Scenario(shocks=(Change.shock("stablecoins=-10%"),)), Names(GROUPS))
    assert address in remark


def test_days_equal_a_sync_after_that_time_without_activity(free: World, tmp_path: Path) -> None:
    before = books_of(free.db, free.deployments)
    free.node.mine(30, interval=DAY)
    compared, _, wrong = differing(before, free.sync(tmp_path), Scenario(), Names({}), balances=True)
    assert wrong == []
    assert compared > 100
    with closing(open_readonly(free.db)) as old, closing(open_readonly(tmp_path / "after.db")) as new:
        for protocol, column in (("aave-v3", "health_factor_raw"), ("compound-v2", "health_factor_accrued_raw"),
                                 ("compound-v3", "health_factor_accrued_raw"),
                                 ("maker", "health_factor_accrued_raw")):  # fmt: skip
            sql = f"select account, {column} from positions where protocol = ? and {column} is not null"
            assert set(map(tuple, old.execute(sql, (protocol,)))) != set(map(tuple, new.execute(sql, (protocol,))))


def change_thresholds(world: World, symbol: str, points: int) -> None:
    """Set the liquidation threshold of an asset to so many basis points wherever it is collateral."""
    for market in world.markets:
        match market:
            case AaveV3():
                listing = market.reserves[symbol].listing
                market.configure_collateral(market.reserves[symbol].asset, 100, points, listing.liquidation_bonus)
            case AaveV2():
                market.configure_collateral(symbol, 100, points, 10500)
            case CompoundV2():
                market.set_collateral_factor(symbol if symbol in market.markets else "ETH", points * 10**14)
            case CompoundV3():
                market.assets = tuple(
                    replace(one, borrow_factor=points // 100 - 1, liquidate_factor=points // 100)
                    if one.symbol == symbol
                    else one
                    for one in market.assets
                )
                market.upgrade()
            case Maker():
                for ilk in market.ilks.values():
                    if ilk.symbol == "ETH":
                        mat = -(-(10**27) * 10_000 // points)
                        market.govern(
                            market.addresses["spotter"], "file(bytes32,bytes32,uint256)", ilk.key, word("mat"), mat
                        )
                        market.poke(ilk.name)


def test_thresholds_equal_a_sync_after_governance_changed_them(free: World, tmp_path: Path) -> None:
    before = books_of(free.db, free.deployments)
    change_thresholds(free, "WETH", 6100)
    scenario = Scenario(thresholds=(Change.threshold("WETH=61%"),))
    compared, moved, wrong = differing(before, free.sync(tmp_path), scenario, Names(GROUPS))
    assert wrong == []
    assert moved > compared / 5


def test_a_threshold_falls_by_a_share_of_itself_cut_to_the_contract_s_unit(free: World, tmp_path: Path) -> None:
    old, new = (m for m in free.markets if isinstance(m, AaveV3))
    new.configure_collateral(new.reserves["WETH"].asset, 100, 8250 * 93 // 100, 10500)  # 7672.5 points
    mode = old.emodes[aave_v3.ETH_MODE]
    old.configure(
        "setEModeCategory(uint8,uint16,uint16,uint16,address,string)",
        mode.category, mode.ltv, mode.liquidation_threshold * 98 // 100, mode.liquidation_bonus, aave_v3.ZERO, "",
    )  # fmt: skip
    assert isinstance(mode, EMode)
    books = books_of(free.db, free.deployments)
    after = free.sync(tmp_path)
    for market, text in ((new, "WETH=-7%"), (old, "e-mode:1=-2%")):
        before = [book for book in books if book.name == market.name]
        scenario = Scenario(thresholds=(Change.threshold(text),))
        _, moved, wrong = differing(before, after, scenario, Names(GROUPS))
        assert wrong == []
        assert moved > 0


# names ----------------------------------------------------------------------------------------------------------------


def change(text: str) -> tuple[Change, ...]:
    return (Change.shock(text),)


def changed_assets(book: Book, scenario: Scenario, groups: dict[str, Any]) -> set[str]:
    before = {row.group or row.asset: (row.symbol, row.price) for row in book.market.assets}
    after = scenario.applied(book.adapter, book.market, Names(groups)).assets
    return {row.group or row.symbol for row in after if before[row.group or row.asset][1] != row.price}


def test_a_shock_takes_what_it_names_and_nothing_else(world: World) -> None:
    books = {book.name: book for book in books_of(world.db, world.deployments)}
    v3, vaults = books["aave-v3-6-devnet"], books["maker"]
    weth = next(row.asset for row in v3.market.assets if row.symbol == "WETH")
    assert changed_assets(v3, Scenario(shocks=change("WETH=-20%")), {}) == {"WETH"}
    assert changed_assets(v3, Scenario(shocks=change(f"0x{weth[2:].upper()}=-20%")), {}) == {"WETH"}
    assert changed_assets(v3, Scenario(shocks=change("eth=-20%")), dict(GROUPS)) == {"WETH", "wstETH"}
    assert changed_assets(vaults, Scenario(shocks=change("WETH=-20%")), {}) == {
        name for name in vaults.market.ilks if name.startswith("ETH-")
    }
    assert changed_assets(vaults, Scenario(shocks=change("ETH-B=-20%")), {}) == {"ETH-B"}
    mine = {"mine": ["LINK", weth]}
    assert changed_assets(v3, Scenario(shocks=change("mine=-1%")), mine) == {"WETH", "LINK"}


def test_the_more_special_name_wins_and_equals_conflict(world: World) -> None:
    book = next(book for book in books_of(world.db, world.deployments) if book.name == "maker")
    both = Scenario(shocks=(*change("eth=-50%"), *change("ETH-B=-10%")))
    prices = {row.group: row.price for row in book.market.assets}
    after = {row.group: row.price for row in both.applied(book.adapter, book.market, Names(GROUPS)).assets}
    assert after["ETH-A"] == prices["ETH-A"] * 50 // 100
    assert after["ETH-B"] == prices["ETH-B"] * 90 // 100
    twice = Scenario(shocks=(*change("ETH=-50%"), *change("WETH=-10%")))
    with pytest.raises(ConfigError, match="ETH and WETH say different things"):
        twice.applied(book.adapter, book.market, Names(GROUPS))


def test_what_prices_are_counted_in_cannot_fall_to_nothing(world: World) -> None:
    book = next(book for book in books_of(world.db, world.deployments) if book.name == "aave-v2-devnet")
    with pytest.raises(ConfigError, match="counts in WETH"):
        Scenario(shocks=change("WETH=-100%")).applied(book.adapter, book.market, Names(GROUPS))


@given(st.integers(-1000, 5000), st.integers(0, 10**30))
def test_a_shock_is_exact(tenths: int, price: int) -> None:
    sign = "-" if tenths < 0 else "+"
    factor = Change.shock(f"X={sign}{abs(tenths) / 10}%").factor
    assert price * factor.numerator // factor.denominator == price * (1000 + tenths) // 1000


def test_a_sweep_has_its_ends_and_its_steps() -> None:
    def shares(text: str) -> list[float]:
        return [float(share) for share in Sweep.parse(text).shares]

    assert shares("WETH=0..-20%") == [0, -0.05, -0.1, -0.15, -0.2]
    assert shares("WETH=0..-25%:10%") == [0, -0.1, -0.2, -0.25]
    assert shares("eth=-10%..10%:10") == [-0.1, 0, 0.1]


# the command ----------------------------------------------------------------------------------------------------------

Run = Callable[..., Result]


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in a folder with configuration and database; the node plays no part."""
    monkeypatch.chdir(world.folder)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout))


SHOCK = ("simulate", "--shock", "eth=-20%")
SWEPT = {"change_percent": 0.0, "maker_debt_usd": 1.0, "bad_debt_usd": 0.0, "wallets": 1, "block_number": 1, "block_time": "2026-01-01T00:00:00Z"}  # fmt: skip


def test_it_lists_who_becomes_liquidatable_with_both_health_factors(run: Run, world: World) -> None:
    found = rows(run(*SHOCK))
    assert found
    with closing(open_readonly(world.db)) as conn:
        stored = {
            (r["deployment"], r["account"], r["position_group"]): r for r in conn.execute("select * from positions")
        }
    for row in found:
        was = stored[row["deployment"], row["account"], row["position_group"]]
        assert row["health_factor_before_raw"] == was["health_factor_raw"]
        assert (row["status_before"], row["wallet"]) == (was["status"], was["wallet"])
        assert row["status_before"] != "liquidatable" == row["status_after"]
        assert row["block_number"] == was["block_number"]
        assert row["block_time"].endswith("Z")
    assert [r["debt_usd"] for r in found] == sorted((r["debt_usd"] for r in found), reverse=True)


def test_its_sums_agree_with_its_rows(run: Run) -> None:
    found = rows(run(*SHOCK))
    deployments = rows(run(*SHOCK, "--by", "deployment"))
    assets = rows(run(*SHOCK, "--by", "asset"))
    for row in deployments:
        mine = [one for one in found if one["deployment"] == row["deployment"]]
        assert row["new"] == len(mine)
        assert row["new_debt_usd"] == pytest.approx(sum(one["debt_usd"] for one in mine))
        owed = sum(a["value_usd"] for a in assets if a["deployment"] == row["deployment"] and a["side"] == "debt")
        assert owed == pytest.approx(row["new_debt_usd"], rel=1e-3)  # accrued and stored debts are interest apart
    (all_at_20,) = (row for row in rows(run("simulate", "--sweep", "eth=0..-40%:20%")) if row["change_percent"] == -20)
    assert all_at_20["positions"] == sum(row["liquidatable_after"] for row in deployments)
    assert all_at_20["debt_usd"] == pytest.approx(sum(row["liquidatable_debt_usd"] for row in deployments))


def test_a_sweep_in_which_nothing_moves_is_what_the_database_says(run: Run, world: World) -> None:
    (row,) = rows(run("simulate", "--sweep", "WETH=0..0%"))
    with closing(open_readonly(world.db)) as conn:
        count, debt = conn.execute(
            "select count(*), sum(debt_usd) from positions where status = 'liquidatable'"
        ).fetchone()
    assert (row["positions"], row["debt_usd"]) == (count, pytest.approx(debt))


def test_a_wallet_is_shown_whole(run: Run, world: World) -> None:
    with closing(open_readonly(world.db)) as conn:
        (wallet,) = conn.execute(
            "select wallet from positions group by wallet order by count(*) desc, wallet limit 1"
        ).fetchone()
        count = conn.execute("select count(*) from positions where wallet = ?", (wallet,)).fetchone()[0]
    found = rows(run("simulate", wallet, "--shock", "eth=-1%"))
    assert len(found) == count > 1
    assert {row["wallet"] for row in found} == {wallet}


def test_with_days_interest_counts_as_a_liquidation_would_store_it(run: Run) -> None:
    found = rows(run("simulate", "--days", "3650", "--seconds-per-block", "3600", "--protocol", "maker"))
    assert found
    for row in found:
        assert int(row["health_factor_accrued_after_raw"]) < 10**18


def test_a_table_has_deployments_assets_and_the_worst(run: Run) -> None:
    result = run(*SHOCK, "--table", "--top", "2")
    assert result.exit_code == 0
    deployments, assets, worst = result.stdout.split("\n\n")
    assert deployments.splitlines()[0].split()[0] == "deployment"
    assert "value_usd" in assets.splitlines()[0]
    assert len(worst.splitlines()) == 3
    assert "more become liquidatable" in result.stderr


def test_the_chart_carries_block_time_and_units(run: Run, world: World) -> None:
    pytest.importorskip("resvg_py", reason="the extra `charts` is not installed")
    for name in ("sweep_chart.svg", "sweep_chart.png"):
        result = run("simulate", "--sweep", "eth=0..-60%:20%", "--shock", "stablecoins=-2%", "--chart", name)
        assert result.exit_code == 0, result.output
    assert (world.folder / "sweep_chart.png").read_bytes().startswith(b"\x89PNG")
    drawn = (world.folder / "sweep_chart.svg").read_text()
    with closing(open_readonly(world.db)) as conn:
        block = conn.execute("select max(block_number) from deployments").fetchone()[0]
    for text in (f"block {block}, 20", "USD", "(%)", "liquidatable wallets", "stablecoins=-2%"):
        assert text in drawn.replace("\u2212", "-")


def test_a_chart_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "sweep_chart.svg"
    old.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IndexerError, match=r"cannot write .*sweep_chart\.svg: No space left"):
        sweep_chart.draw(old, "eth", [SWEPT])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_chart_takes_no_markup_from_a_symbol() -> None:
    drawn = ET.fromstring(sweep_chart.picture("<b>\x1b[2J&", [SWEPT], "</svg>"))
    words = ["".join(element.itertext()) for element in drawn.iter(SVG + "text")]
    assert r"Debt that could be liquidated if the price of <b>\x1b[2J& changed" in words
    assert r"change of the price of <b>\x1b[2J& (%)" in words
    assert words[-1].endswith("; </svg>")


def test_the_areas_of_a_chart_are_as_high_as_the_debts() -> None:
    steps = [(0.0, 1e6, 0.0), (-10.0, 1e6, 3e6), (-40.0, 2e6, 6e6)]
    swept = [
        {**SWEPT, "change_percent": change, "aave_v2_debt_usd": lower, "maker_debt_usd": upper}
        for change, lower, upper in steps
    ]
    drawn = ET.fromstring(sweep_chart.picture("eth", swept))
    areas = {}
    for label, polygon in zip(("maker", "aave-v2"), drawn.iter(SVG + "polygon"), strict=True):
        corners = [tuple(map(float, corner.split(","))) for corner in polygon.attrib["points"].split()]
        areas[label] = list(zip(corners[:3], reversed(corners[3:]), strict=True))
    for i, (change, lower, upper) in enumerate(steps):
        (x, top), (below_x, floor) = areas["aave-v2"][i]
        assert x == below_x == areas["maker"][i][0][0]
        assert floor == areas["maker"][i][0][1]
        scale = (areas["maker"][2][1][1] - areas["aave-v2"][2][0][1]) / 8e6  # of a USD
        assert floor - top == pytest.approx(lower * scale, abs=0.15)
        assert areas["maker"][i][1][1] - floor == pytest.approx(upper * scale, abs=0.15)
        left, right = areas["maker"][0][0][0], areas["maker"][2][0][0]
        assert (x - left) / (right - left) == pytest.approx(change / -40, abs=0.001)


def test_a_png_without_a_font_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py", reason="the extra `charts` is not installed")
    sweep_chart.check(Path("x.png"))
    monkeypatch.setattr(sweep_chart, "FONTS", "No Such Font")
    with pytest.raises(IndexerError, match=r"none is installed: name a \.svg file"):
        sweep_chart.check(Path("x.png"))
    sweep_chart.check(Path("x.svg"))


def test_what_makes_a_png_is_asked_for_before_any_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_chart, "find_spec", lambda name: None)
    result = run("simulate", "--sweep", "eth=0..-60%", "--chart", "x.png")
    assert (result.exit_code, result.stdout) == (1, "")
    assert how_to_install("charts") in result.stderr
    assert "name a .svg file" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what changes"),
        (["--shock", "WETH"], "write NAME=-20%"),
        (["--shock", "WETH=20%"], "say which way"),
        (["--shock", "WETH=-120%"], "more than 100 %"),
        (["--shock", "WEHT=-20%"], "the nearest are WETH"),
        (["--shock", "stablecoin=-2%"], "the nearest are stablecoins"),
        (["--shock", "0x" + "12" * 20 + "=-2%"], "nothing in the database is called"),
        (["--liquidation-threshold", "WETH=120%"], "at most 100%"),
        (["--sweep", "WETH=0"], "is not a sweep"),
        (["--sweep", "WETH=0..-60%:0"], "goes nowhere"),
        (["--sweep", "WETH=0..-60%:0.0001"], "choose a wider step"),
        (["--shock", "WETH=-2%", "--chart", "x.png"], "--chart draws a sweep"),
        (["--sweep", "WETH=0..-60%", "--chart", "x.gif"], ".png or .svg"),
        (["--shock", "WETH=-2%", "--all", "0x" + "12" * 20], "exclude each other"),
        (["0x12", "--shock", "WETH=-2%"], "not an address"),
        (["--days", "-1"], "--days"),
        (["--days", "1e300"], "--days"),
        (["--shock", "LINK=-1%", "--shock", "LINK=-2%"], "LINK says different things"),
    ],
)
def test_what_cannot_be_simulated_is_refused(run: Run, arguments: list[str], message: str) -> None:
    result = run("simulate", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert message in line


def test_an_empty_database_says_what_to_do(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    missing = CliRunner().invoke(main, list(SHOCK))
    assert missing.exit_code == 1
    assert "indexer sync" in missing.stderr
    Store("indexer.db").close()
    empty = CliRunner().invoke(main, list(SHOCK))
    assert (empty.exit_code, empty.stdout) == (0, "[]\n")
    assert "indexer sync" in empty.stderr


def test_a_database_explains_itself_but_for_what_an_older_version_wrote(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    shutil.copy(world.db, tmp_path / "alone.db")
    alone = CliRunner().invoke(main, ["--db", "alone.db", *SHOCK, "--chain", "devnet"])
    assert alone.exit_code == 0, alone.output
    with sqlite3.connect("alone.db") as older:
        older.execute("update deployments set chain = null, start_block = null, addresses = null, options = null")
    unconfigured = CliRunner().invoke(main, ["--db", "alone.db", *SHOCK])
    assert (unconfigured.exit_code, unconfigured.stdout) == (1, "")
    assert "neither the file nor the configuration has the addresses of" in unconfigured.stderr
    with sqlite3.connect("alone.db") as damaged:
        damaged.execute("update deployments set addresses = '[1]', options = '{}'")
    foreign = CliRunner().invoke(main, ["--db", "alone.db", *SHOCK])
    assert (foreign.exit_code, foreign.stdout) == (1, "")
    assert ".addresses is damaged: it is no JSON object" in foreign.stderr


def test_groups_of_the_configuration_add_to_the_built_in_ones(run: Run, world: World, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    text = (world.folder / "indexer.toml").read_text()
    own.write_text(text + '[groups]\nmine = ["WETH", "LINK"]\neth = ["WBTC"]\n')
    assert rows(run("--config", own, "simulate", "--shock", "mine=-50%"))
    replaced = rows(run("--config", own, "simulate", "--shock", "eth=-50%", "--by", "asset"))
    assert {row["symbol"] for row in replaced if row["side"] == "collateral"} >= {"WBTC"}
    own.write_text(text + '[groups]\nmine = "WETH"\n')
    wrong = run("--config", own, "simulate", "--shock", "mine=-50%")
    assert wrong.exit_code == 2
    assert "groups.mine" in wrong.stderr


# rows that nobody vouches for -----------------------------------------------------------------------------------------


@pytest.fixture
def disputed(world: World, run: Run, tmp_path: Path) -> tuple[Path, set[tuple[str, str, str]]]:
    """A copy of the database in which each deployment's first two rows that the shock reaches are in dispute."""
    path = tmp_path / "disputed.db"
    shutil.copy(world.db, path)
    chosen: dict[str, list[PositionKey]] = {}
    for row in sorted(rows(run(*SHOCK)), key=lambda row: row["account"]):
        keys = chosen.setdefault(row["deployment"], [])
        if len(keys) < 2:
            keys.append(PositionKey(row["account"], row["position_group"]))
    with Store(path) as store:
        for name, keys in chosen.items():
            disputes.mark(store, (CHAIN_ID, name), keys)
    return path, {(name, *key) for name, keys in chosen.items() for key in keys}


def keys_of(found: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(row["deployment"], row["account"], row["position_group"]) for row in found}


def left_out_of(told: str) -> dict[str, int]:
    """How many rows are said to be left out, by deployment."""
    said = re.findall(r"(\S+): nothing is computed for ([\d,]+) unverified positions; their notes say why", told)
    return {name: int(count) for name, count in said}


def test_a_simulation_leaves_out_whom_nobody_vouches_for_and_says_how_many(
    run: Run, disputed: tuple[Path, set[tuple[str, str, str]]]
) -> None:
    path, doubted = disputed
    counts = Counter(name for name, _, _ in doubted)
    assert len(counts) > 3, "of several protocols"
    before = rows(run(*SHOCK))
    result = run("--db", path, *SHOCK)
    after = rows(result)
    assert keys_of(before) - keys_of(after) == doubted
    assert after == [row for row in before if keys_of([row]).isdisjoint(doubted)], "all others as before"
    assert left_out_of(result.stderr) == counts
    assert left_out_of(run(*SHOCK).stderr) == {}

    name, account, group = min(doubted)
    result = run("--db", path, "simulate", account, "--shock", "eth=-20%")
    assert (name, account, group) not in keys_of(rows(result))
    assert left_out_of(result.stderr)[name] == 1


def test_the_falls_leave_out_whom_nobody_vouches_for_and_say_how_many(
    run: Run, disputed: tuple[Path, set[tuple[str, str, str]]]
) -> None:
    path, doubted = disputed
    counts = Counter(name for name, _, _ in doubted)
    named = [word for name in counts for word in ("--deployment", name)]
    fall = ("report", "book", "--fall", "eth", "--format", "md", *named)
    title = "\n## Liquidatable if prices fall: eth"

    def section(result: Result) -> tuple[list[list[str]], str]:
        assert result.exit_code == 0, result.output
        text = result.stdout.split(title, 1)[1].split("\n## ", 1)[0]
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
        return lines, text

    (header, _, *whole), silent = section(run(*fall))
    (_, _, *cut), told = section(run("--db", path, *fall))
    positions = header.index("positions")
    # at -20 % everyone who was chosen is liquidatable, and at no fall nobody of them
    assert [int(line[positions]) for line in whole][2] - [int(line[positions]) for line in cut][2] == len(doubted)
    assert cut[0] == whole[0]
    assert left_out_of(silent) == {}
    assert left_out_of(told.replace("\\", "")) == counts
