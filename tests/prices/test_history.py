"""The history of prices from real Chainlink contracts: by logs, by state, over two phases, beside a chain that is followed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from indexer.chain.client import Chain
from indexer.model import Accounts
from indexer.prices.history import Brought, PriceHistory
from indexer.store.store import Store
from indexer.sync.sync import Sync
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.chainlink import Chainlink, Feed, hourly
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.truth import adapter_of

ROUNDS = 800
BEFORE_THE_CHANGE = 500
ROUND_DATA = "getRoundData(uint80)(uint80,int256,uint256,uint256,uint80)"
YEAR = 365 * 86_400


@dataclass
class World:
    """A market of Aave whose WETH, WBTC and LINK are priced by real feeds; that of LINK has had two aggregators."""

    node: Anvil
    market: AaveV3
    chainlink: Chainlink

    def feed(self, description: str) -> Feed:
        return self.chainlink.feeds[description]


@pytest.fixture(scope="module")
def world(needs_node: None) -> Iterator[World]:
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.6")
        market.populate(1, 20)
        chainlink = Chainlink(node, market.sender)
        prices, _ = hourly(("ETH", "BTC", "LINK"), ROUNDS)
        names = {symbol: f"{symbol} / USD" for symbol in prices}
        for name in names.values():
            chainlink.feed(name)
        chainlink.replay({names[symbol]: path[:BEFORE_THE_CHANGE] for symbol, path in prices.items()})
        chainlink.next_phase(chainlink.feeds["LINK / USD"])
        chainlink.replay({names[symbol]: path[BEFORE_THE_CHANGE:] for symbol, path in prices.items()})
        for symbol, name in (("WETH", "ETH / USD"), ("WBTC", "BTC / USD"), ("LINK", "LINK / USD")):
            give_source(market, symbol, chainlink.feeds[name].proxy)
        yield World(node, market, chainlink)


def give_source(market: AaveV3, symbol: str, source: str) -> None:
    asset = market.reserves[symbol].asset
    market.sender.send(market.contracts.oracle, "setAssetSources(address[],address[])", [[asset], [source]])


@dataclass
class Filled:
    """A database whose history of prices was brought up to the head."""

    path: Path
    done: Brought
    requests: list[str]

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as conn:
            return conn.execute(sql, values).fetchall()


def fill(path: Path, world: World, since: int = 0, **options: Any) -> Filled:
    """A sync with the history of prices."""
    chain = Chain("devnet", CHAIN_ID, [world.node.url], MULTICALL3, **options)
    with closing(chain), Store(path) as store, store.lock():
        sync = Sync(store, chain, [adapter_of(world.market)], Accounts.BORROWERS)
        block = sync.snapshot().block
        tracked = sync.markets.tracked.values()
        done = PriceHistory(store, chain).bring([(one.adapter, one.market) for one in tracked], block, since)
    return Filled(path, done, [])


@pytest.fixture(scope="module")
def filled(world: World, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    return fill(tmp_path_factory.mktemp("prices") / "indexer.db", world)


def said(world: World, feed: Feed) -> list[tuple[int, int, str, int]]:
    """Phase, round, answer, time as the proxy's getRoundData says of every round that was submitted."""
    places = [(phase, number + 1) for phase, rounds in enumerate(feed.rounds, 1) for number in range(len(rounds))]
    answers = world.market.sender.calls([(feed.proxy, ROUND_DATA, [phase << 64 | number]) for phase, number in places])
    return [(*place, str(answer[1]), answer[3]) for place, answer in zip(places, answers, strict=True)]


@pytest.mark.parametrize("name", ["ETH / USD", "BTC / USD", "LINK / USD"])
def test_rounds_out_of_logs_are_those_of_get_round_data(world: World, filled: Filled, name: str) -> None:
    feed = world.feed(name)
    rows = filled.rows(
        "select phase, round, answer_raw, block_timestamp from feed_prices where feed = ? order by phase, round",
        feed.proxy,
    )
    assert rows == said(world, feed)
    assert len(rows) == ROUNDS
