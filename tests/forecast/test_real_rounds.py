"""End to end over real Chainlink rounds: what `sync --prices` brought and `forecast` says, beside a calculation of its own.

The calculation knows what was submitted to the aggregators and supplied to the pool, and the model's description; nothing of
the code that it checks.
"""

import itertools
import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from indexer.cli.main import main
from indexer.forecast.factors import HOURS, gathered, priced
from indexer.queries.prices import Series
from indexer.store.database import open_readonly
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.aave_v3_scenario import Actions, perform
from tests.devnet.chainlink import HOUR, Chainlink, Feed, hourly
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import config_toml
from tests.devnet.send import account

Floats = np.ndarray[Any, np.dtype[np.float64]]

ROUNDS = 800
#: symbol on the devnet -> whose hourly closes it has; moves three times as large, so that a day decides something
OF = {"WETH": "ETH", "WBTC": "BTC", "LINK": "LINK"}
LARGER = 3
#: (symbol, USD) of what each wallet supplies and borrows; the first of each may borrow up to its limit
WALLETS = {
    "one price": ((("WETH", 100_000.0),), (("USDC", 79_900.0),)),
    "two prices": ((("WETH", 60_000.0), ("WBTC", 60_000.0)), (("USDC", 85_000.0),)),
    "short of ether": ((("WBTC", 100_000.0),), (("WETH", 69_000.0),)),
    "against link": ((("LINK", 100_000.0),), (("WBTC", 50_000.0), ("USDC", 2_000.0))),
}


@dataclass
class World:
    node: Anvil
    market: AaveV3
    feeds: dict[str, Feed]  # by symbol
    chainlink: Chainlink


@pytest.fixture(scope="module")
def world(needs_node: None) -> Iterator[World]:
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.6")
        act = Actions(market)
        lender = account("forecast lender")
        actions = [act.supply(lender, symbol, act.amount(symbol, 5e6)) for symbol in (*OF, "USDC")]
        for name, (supplied, borrowed) in WALLETS.items():
            actions += [act.supply(account(name), symbol, act.amount(symbol, usd)) for symbol, usd in supplied]
            actions += [act.borrow(account(name), symbol, act.amount(symbol, usd)) for symbol, usd in borrowed]
        perform(market, Random(1), actions, must=True)
        chainlink, (closes, _) = Chainlink(node, market.sender), hourly(tuple(OF.values()), ROUNDS)
        paths = {
            symbol: [round(market.price(symbol) * (close / closes[of][-1]) ** LARGER) for close in closes[of]]
            for symbol, of in OF.items()
        } | {"USDC": [market.price("USDC")] * ROUNDS}
        feeds = {symbol: chainlink.feed(f"{symbol} / USD") for symbol in paths}
        chainlink.replay({feeds[symbol].description: path for symbol, path in paths.items()})
        assets = [market.reserves[symbol].asset for symbol in paths]
        proxies = [feeds[symbol].proxy for symbol in paths]
        market.sender.send(market.contracts.oracle, "setAssetSources(address[],address[])", [assets, proxies])
        yield World(node, market, feeds, chainlink)


@dataclass
class Desk:
    """Commands over a database of this world."""

    config: Path
    db: Path

    def run(self, *arguments: str) -> Result:
        result = CliRunner().invoke(main, ["--config", str(self.config), "--db", str(self.db), *arguments])
        assert result.exit_code == 0, result.output + str(result.exception)
        return result

    def synced(self, since: str = "2000-01-01") -> None:
        self.run("sync", "--chain", "devnet", "--prices", "--since", since)

    def forecast(self, *arguments: str) -> dict[tuple[str, int], dict[str, Any]]:
        rows = json.loads(self.run("forecast", *arguments, "--json").stdout)
        names = {account(name).lower(): name for name in WALLETS}
        return {(names[row["account"]], row["horizon_seconds"] // HOUR): row for row in rows if row["account"] in names}


@pytest.fixture
def desk(world: World, tmp_path: Path) -> Iterator[Desk]:
    """An empty database; afterwards the chain is as before."""
    config = tmp_path / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, world.node.url, [world.market]))
    rounds = {symbol: list(feed.rounds[0]) for symbol, feed in world.feeds.items()}
    with world.market.rewound():
        yield Desk(config, tmp_path / "indexer.db")
    for symbol, feed in world.feeds.items():
        feed.rounds[0] = rounds[symbol]


# the calculation of its own -------------------------------------------------------------------------------------------


@dataclass
class Past:
    """One price: z of each hour, and the variance and its slow average now."""

    z: list[float]
    variance: float
    slow: float


def past(rounds: list[tuple[int, int]], until: int) -> Past:
    """Hourly returns up to `until`, divided by the deviation that was known an hour before."""
    times, answers = [at for _, at in rounds], [answer for answer, _ in rounds]
    grid = [until - HOUR * k for k in reversed(range(ROUNDS + 48)) if until - HOUR * k >= times[0]]
    known = [math.log(answers[bisect_right(times, at) - 1]) for at in grid]
    returns = [b - a for a, b in itertools.pairwise(known)]
    z, fast = [], 0.0
    for n, r in enumerate(returns, 1):
        if n > 24:
            z.append(r / math.sqrt(fast) if fast else 0.0)
        slow = sum(x * x for x in returns[:n]) / n  # n < 1 / (1 - 0.9995)
        gain = max(1 / n, 0.06)
        fast = 0.98 * (fast + gain * (r * r - fast)) + 0.02 * slow
    return Past(z, fast, slow)


def lowest_margin(pasts: Mapping[str, Past], values: Mapping[str, float], hours: int, paths: int, seed: int) -> Floats:
    """(path,): the lowest of the sum of `values` (USD now, by symbol, with "" for what does not move) over the hours."""
    rng = np.random.default_rng(seed)
    rows = len(next(iter(pasts.values())).z)
    variance = {symbol: np.full(paths, one.variance) for symbol, one in pasts.items()}
    price = {symbol: np.ones(paths) for symbol in pasts}
    lowest = np.full(paths, np.inf)
    place = rng.integers(0, rows, paths)
    for _ in range(hours):
        place = np.where(rng.random(paths) < 1 / 24, rng.integers(0, rows, paths), (place + 1) % rows)
        margin = np.full(paths, values.get("", 0.0))
        for symbol, one in pasts.items():
            r = np.array(one.z)[place] * np.sqrt(variance[symbol])
            price[symbol] *= np.exp(r)
            variance[symbol] = 0.98 * (0.94 * variance[symbol] + 0.06 * r * r) + 0.02 * one.slow
            margin += values.get(symbol, 0.0) * price[symbol]
        lowest = np.minimum(lowest, margin)
    return lowest


def test_the_forecast_over_real_rounds_is_that_of_a_calculation_of_its_own(world: World, desk: Desk) -> None:
    desk.synced()
    until = world.node.timestamp()
    pasts = {symbol: past(world.feeds[symbol].rounds[0], until) for symbol in OF}
    found = desk.forecast("--within", "4h,1d")
    decided = 0
    for name, (supplied, borrowed) in WALLETS.items():
        values: dict[str, float] = {}
        for symbol, usd in supplied:
            weight = world.market.reserves[symbol].listing.liquidation_threshold / 10_000
            values[symbol] = values.get(symbol, 0.0) + usd * weight
        for symbol, usd in borrowed:
            key = symbol if symbol in OF else ""
            values[key] = values.get(key, 0.0) - usd
        for hours in (4, 24):
            p = float((lowest_margin(pasts, values, hours, 40_000, hours) < 0).mean())
            row = found[name, hours]
            assert row["note"] == "short history: a young price borrows the past of its group"  # 33 days
            assert row["prices_until"] == until
            error = math.sqrt(p * (1 - p) / row["paths"])
            assert abs(row["hits"] / row["paths"] - p) < 4 * error + 0.01, (name, hours, p, row["hits"], row["paths"])
            decided += 0.02 < p < 0.98
    assert decided >= 5


def test_what_the_forecast_starts_from_is_what_the_rounds_say(world: World, desk: Desk) -> None:
    desk.synced()
    until = world.node.timestamp()
    series: dict[tuple[int, str], Series] = {}
    keys = {world.market.reserves[symbol].asset: symbol for symbol in (*OF, "USDC")}
    with closing(open_readonly(desk.db)) as conn:
        made = priced(conn, (CHAIN_ID, world.market.name), keys, until, series)
    assert not made.reasons
    factors = gathered(series, list(made.movers.values()), {CHAIN_ID: until}, {}, {})
    assert factors.state is not None
    for symbol in OF:
        column = factors.feeds.index((CHAIN_ID, world.feeds[symbol].proxy))
        mine = past(world.feeds[symbol].rounds[0], until)
        assert factors.state.variance[column] == pytest.approx(mine.variance, rel=1e-9)
        assert factors.state.slow[column] == pytest.approx(mine.slow, rel=1e-9)
        assert factors.state.rows[:, column] == pytest.approx(np.array(mine.z), rel=1e-6, abs=1e-9)
    assert HOURS > ROUNDS


def test_a_stale_feed_and_a_short_past_give_no_chance_and_the_reason(world: World, desk: Desk) -> None:
    desk.synced()
    assert all(row["hits"] is not None for row in desk.forecast("--within", "1d").values())
    # three learnt heartbeats without an answer of ether; the others answer
    names = [world.feeds[symbol].description for symbol in ("WBTC", "LINK", "USDC")]
    last = {name: world.chainlink.feeds[name].rounds[0][-1][0] for name in names}
    for _ in range(3):
        world.chainlink.replay({name: [answer] for name, answer in last.items()})
    world.chainlink.replay({name: [answer] for name, answer in last.items()}, interval=HOUR // 2)
    desk.synced()
    found = desk.forecast("--within", "1d")
    for name in ("one price", "two prices", "short of ether"):
        row = found[name, 24]
        assert (row["hits"], row["p_unsafe"], row["p_unsafe_bound"], row["p_liquidated"]) == (None,) * 4
        assert row["note"] == "stale price of WETH"
    assert found["against link", 24]["hits"] is not None


def test_fewer_than_thirty_days_of_rounds_give_no_chance_and_the_reason(world: World, desk: Desk) -> None:
    desk.synced("29d")
    notes = {name: row["note"] for (name, _), row in desk.forecast("--within", "1d").items()}
    assert notes.keys() == WALLETS.keys()
    assert all(note.startswith("short history of ") for note in notes.values()), notes
