"""The history of prices from real Chainlink contracts: by logs, by state, over two phases, beside a chain that is followed."""

import json
import math
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from indexer.chain.client import Chain
from indexer.cli.main import main
from indexer.errors import PrunedError
from indexer.lists import oracles as lists
from indexer.model import Accounts
from indexer.prices import from_state
from indexer.prices import history as histories
from indexer.prices.following import FollowedPrices
from indexer.prices.history import Brought, PriceHistory
from indexer.store.store import Store
from indexer.sync.sync import Sync
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.aave_v3_scenario import Actions, perform
from tests.devnet.chainlink import HOUR, Chainlink, Feed, hourly
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import config_toml
from tests.devnet.send import Transaction, account, calldata
from tests.truth import adapter_of, raw

ROUNDS = 800
BEFORE_THE_CHANGE = 500
ROUND_DATA = "getRoundData(uint80)(uint80,int256,uint256,uint256,uint80)"
YEAR = 365 * 86_400
PHASES = "select feed, phase, aggregator, first_round, last_round, from_block, to_block from feed_phases order by 1, 2"


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
    return Filled(path, done)


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


def test_no_answer_of_a_working_feed_is_flagged_and_all_are_in_force_in_time(world: World, filled: Filled) -> None:
    assert filled.rows("select distinct invalid from feed_prices") == [(None,)]
    eth = world.feed("ETH / USD").proxy
    assert filled.rows(
        "select count(*) from feed_prices where feed = ? and in_force_timestamp is not block_timestamp", eth
    ) == [(0,)]


def test_each_aggregator_of_a_proxy_is_a_phase(world: World, filled: Filled) -> None:
    link = world.feed("LINK / USD")
    rows = filled.rows(
        "select phase, aggregator, first_round, last_round, since_timestamp from feed_phases where feed = ? order by phase",
        link.proxy,
    )
    lengths = [BEFORE_THE_CHANGE, ROUNDS - BEFORE_THE_CHANGE]
    assert rows == [
        (phase, address, 1, length, None)
        for phase, address, length in zip((1, 2), link.aggregators, lengths, strict=True)
    ]


def test_prices_say_which_feed_they_come_from_and_those_without_one_are_what_snapshots_saw(
    world: World, filled: Filled
) -> None:
    rows = dict(
        filled.rows("select m.asset, f.kind || ' ' || p.feed from market_prices p join feeds f on f.address = p.feed "
        "join markets m on m.asset = p.asset")
    )  # fmt: skip
    reserves = world.market.reserves
    assert rows[reserves["WETH"].asset] == f"chainlink {world.feed('ETH / USD').proxy}"
    assert rows[reserves["LINK"].asset] == f"chainlink {world.feed('LINK / USD').proxy}"
    others = {reserve.asset for symbol, reserve in reserves.items() if symbol not in ("WETH", "WBTC", "LINK")}
    assert {rows[asset] for asset in others} == {f"snapshot {world.market.name}:{asset}" for asset in others}
    seen = filled.rows("select feed, answer_raw from feed_prices where feed like '%:%' order by feed")
    priced = dict(filled.rows("select asset, price_raw from markets where price_raw is not null"))
    assert seen == sorted((f"{world.market.name}:{asset}", priced[asset]) for asset in others & priced.keys())


def test_the_last_answer_in_force_is_the_price_that_the_market_has(world: World, filled: Filled) -> None:
    for symbol, name in (("WETH", "ETH / USD"), ("WBTC", "BTC / USD"), ("LINK", "LINK / USD")):
        (last,) = filled.rows(
            "select answer_raw from feed_prices where feed = ? order by in_force_timestamp desc, phase desc, round desc limit 1",
            world.feed(name).proxy,
        )
        asset = world.market.reserves[symbol].asset
        assert filled.rows("select price_raw from markets where asset = ?", asset) == [last]


def pruned(*_: Any, **__: Any) -> Any:
    raise PrunedError("the logs of that time are pruned")


def test_where_logs_are_pruned_state_gives_the_same_rounds(
    world: World, filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "fetch", pruned)
    monkeypatch.setattr(from_state, "PIECE", 170)
    by_state = fill(tmp_path / "indexer.db", world)
    assert by_state.done.refused == "the logs of that time are pruned"
    columns = "feed, phase, round, block_timestamp, in_force_timestamp, answer_raw, answer, invalid"
    sql = f"select {columns} from feed_prices where feed not like '%:%' order by feed, phase, round"
    assert by_state.rows(sql) == filled.rows(sql)
    assert by_state.rows("select count(*) from feed_prices where block_number is not null and feed not like '%:%'") == [
        (0,)
    ]
    assert by_state.rows(PHASES) == filled.rows(PHASES)


def test_state_goes_back_no_further_than_it_is_asked(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "fetch", pruned)
    monkeypatch.setattr(from_state, "PIECE", 50)
    rounds = world.feed("ETH / USD").rounds[0]
    since = rounds[-120][1]
    found = fill(tmp_path / "indexer.db", world, since)
    (first,) = found.rows("select min(round) from feed_prices where feed = ?", world.feed("ETH / USD").proxy)[0]
    assert ROUNDS - 150 < first <= ROUNDS - 119


def test_a_hundredth_of_the_rounds_out_of_logs_is_compared_with_state(filled: Filled) -> None:
    assert filled.done.checked >= 3 * ROUNDS // 100
    assert filled.done.differing == 0
    assert filled.rows("select count(*) from audits where kind = 'prices'") == [(0,)]


def test_a_round_that_state_contradicts_is_told(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose logs name another answer than its state does."""
    feed = world.feed("BTC / USD")
    true = histories.told

    def lying(*arguments: Any) -> Any:
        found = true(*arguments)
        found.rounds = [one._replace(answer=one.answer + 1) if one.feed == feed.proxy else one for one in found.rounds]
        return found

    monkeypatch.setattr(histories, "told", lying)
    monkeypatch.setattr(histories, "SAMPLE", 1)
    monkeypatch.setattr(histories, "MOST_SAMPLED", 10_000)
    found = fill(tmp_path / "indexer.db", world)
    assert found.done.differing == ROUNDS
    details = [json.loads(text) for (text,) in found.rows("select detail from audits where kind = 'prices'")]
    told = {(row["feed"], row["round"]): row for rows in details for row in rows}
    answer, at = feed.rounds[0][0]
    assert told[feed.proxy, 1]["log"] == [str(answer + 1), at]
    assert told[feed.proxy, 1]["getRoundData"] == [str(answer), at]


def test_a_second_sync_fetches_only_what_is_new_and_an_older_since_what_is_missing(
    world: World, tmp_path: Path
) -> None:
    path, eth = tmp_path / "indexer.db", world.feed("ETH / USD")
    since = eth.rounds[0][-100][1]
    first = fill(path, world, since)
    assert first.rows("select count(*) from feed_prices where feed = ?", eth.proxy) == [(100,)]
    assert fill(path, world, since).done.rounds == 0
    fill(path, world, eth.rounds[0][-300][1])
    assert first.rows("select count(*), min(round) from feed_prices where feed = ?", eth.proxy) == [(300, ROUNDS - 299)]
    fill(path, world)
    assert first.rows("select count(*) from feed_prices where feed = ?", eth.proxy) == [(ROUNDS,)]


@pytest.fixture
def followed(world: World, tmp_path: Path) -> Iterator[tuple[Sync, FollowedPrices]]:
    """A chain that is followed with the history of prices, after its first block; afterwards the chain is as before."""
    chain = Chain("devnet", CHAIN_ID, [world.node.url], MULTICALL3)
    rounds = {name: [list(phase) for phase in feed.rounds] for name, feed in world.chainlink.feeds.items()}
    aggregators = {name: list(feed.aggregators) for name, feed in world.chainlink.feeds.items()}
    with closing(chain), Store(tmp_path / "indexer.db") as store, store.lock(), world.market.rewound():
        sync = Sync(store, chain, [adapter_of(world.market)], Accounts.BORROWERS)
        history = PriceHistory(store, chain)
        prices = FollowedPrices(
            history, lambda: [(one.adapter, one.market) for one in sync.markets.tracked.values()], 10 * YEAR
        )
        assert prices.look(sync.snapshot().block) is not None
        yield sync, prices
    for name, feed in world.chainlink.feeds.items():
        feed.rounds, feed.aggregators = rounds[name], aggregators[name]


def newest(sync: Sync, feed: Feed) -> list[tuple[Any, ...]]:
    return sync.store.conn.execute(
        "select phase, round, answer_raw, block_timestamp, block_number, in_force_timestamp from feed_prices "
        "where feed = ? order by phase desc, round desc limit 3",
        (feed.proxy,),
    ).fetchall()


def test_a_block_without_news_costs_one_call(world: World, followed: tuple[Sync, FollowedPrices]) -> None:
    sync, prices = followed
    world.node.mine(1)
    block = sync.snapshot().block
    before = sync.chain.requests
    assert prices.look(block) is None
    assert sync.chain.requests - before == 1
    known = sync.store.conn.execute("select distinct known_until from feeds where kind = 'chainlink'").fetchall()
    assert known == [(block.timestamp,)]


def test_new_rounds_are_stored_as_their_blocks_come(world: World, followed: tuple[Sync, FollowedPrices]) -> None:
    sync, prices = followed
    eth = world.feed("ETH / USD")
    for answer in (200_000_000_001, 200_000_000_002):
        world.chainlink.replay({"ETH / USD": [answer]}, interval=12)
        block = sync.snapshot().block
        assert prices.look(block) is None
        number, (value, at) = len(eth.rounds[0]), eth.rounds[0][-1]
        assert newest(sync, eth)[0] == (1, number, str(value), at, block.number, at)
    world.chainlink.replay({"ETH / USD": [200_000_000_003, 200_000_000_004]}, interval=12)  # two blocks at once
    prices.look(sync.snapshot().block)
    assert [row[2] for row in newest(sync, eth)] == ["200000000004", "200000000003", "200000000002"]


def test_a_proxy_that_turns_to_another_aggregator_is_noticed_though_it_logs_nothing(
    world: World, followed: tuple[Sync, FollowedPrices]
) -> None:
    sync, prices = followed
    eth = world.feed("ETH / USD")
    last = newest(sync, eth)[0]
    world.chainlink.next_phase(eth)
    world.chainlink.replay({"ETH / USD": [190_000_000_000]}, interval=12)
    block = sync.snapshot().block
    done = prices.look(block)
    assert done is not None
    assert newest(sync, eth)[:2] == [(2, 1, "190000000000", block.timestamp, block.number, block.timestamp), last]
    phases = sync.store.conn.execute(
        "select phase, aggregator, since_timestamp from feed_phases where feed = ? order by phase", (eth.proxy,)
    ).fetchall()
    assert phases == [(1, eth.aggregators[0], None), (2, eth.aggregators[1], block.timestamp)]
    # what the old aggregator goes on to say is kept, and not in force
    data = calldata("submit(uint256,int256)", [len(eth.rounds[0]) + 1, 300_000_000_000])
    assert world.market.sender.bulk([Transaction(world.chainlink.oracle, eth.aggregators[0], data)], interval=12) == [
        True
    ]
    prices.whole_at = None
    prices.look(sync.snapshot().block)
    old = sync.store.conn.execute(
        "select answer_raw, in_force_timestamp from feed_prices where feed = ? and phase = 1 order by round desc limit 1",
        (eth.proxy,),
    ).fetchone()
    assert old == ("300000000000", None)


def test_rounds_of_blocks_that_left_the_chain_go(world: World, tmp_path: Path) -> None:
    path, eth = tmp_path / "indexer.db", world.feed("ETH / USD")
    with world.market.rewound():
        before = fill(path, world)
        kept = before.rows("select count(*) from feed_prices where feed = ?", eth.proxy)
        snapshot = world.node.snapshot()
        data = calldata("submit(uint256,int256)", [ROUNDS + 1, 7])
        world.market.sender.bulk([Transaction(world.chainlink.oracle, eth.aggregator, data)], interval=12)
        fill(path, world)
        assert before.rows("select max(round) from feed_prices where feed = ?", eth.proxy) == [(ROUNDS + 1,)]
        world.node.revert(snapshot)
        world.node.mine(3, interval=7)
        fill(path, world)
        assert before.rows("select count(*) from feed_prices where feed = ?", eth.proxy) == kept
        assert before.rows("select max(round) from feed_prices where feed = ?", eth.proxy) == [(ROUNDS,)]


# commands -------------------------------------------------------------------------------------------------------------


@dataclass
class Desk:
    """Commands over a database of this world."""

    config: Path
    db: Path

    def run(self, *arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["--config", str(self.config), "--db", str(self.db), *arguments])
        assert result.exit_code == code, result.output + str(result.exception)
        return result

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run(*arguments, "--json").stdout)
        return found


@pytest.fixture
def desk(world: World, tmp_path: Path) -> Iterator[Desk]:
    """An empty database; afterwards the chain is as before."""
    config = tmp_path / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, world.node.url, [world.market]))
    rounds = {name: [list(phase) for phase in feed.rounds] for name, feed in world.chainlink.feeds.items()}
    with world.market.rewound():
        yield Desk(config, tmp_path / "indexer.db")
    for name, feed in world.chainlink.feeds.items():
        feed.rounds = rounds[name]


SYNC = ("sync", "--chain", "devnet", "--prices", "--since", "2000-01-01")


def test_sync_says_what_it_brought_and_lists_show_it(world: World, desk: Desk) -> None:
    said = desk.run(*SYNC).stderr
    assert f"3 price feeds, {3 * ROUNDS:,} new answers" in said or "3 price feeds" in said
    weth, eth = world.market.reserves["WETH"].asset, world.feed("ETH / USD")
    (row,) = [row for row in desk.rows("oracles", "WETH") if row["asset"] == weth]
    answer, at = eth.rounds[0][-1]
    assert (row["feed"], row["answer_raw"], row["updated_at"]) == (eth.proxy, str(answer), at)
    assert row["heartbeat_seconds"] == HOUR
    assert row["deviation_bps"] is None  # every round of this feed is a heartbeat
    assert row["age_seconds"] == row["known_until"] - at
    assert row["answer"] == pytest.approx(answer / 10**8)
    of_snapshots = [row for row in desk.rows("oracles") if row["kind"] == "snapshot"]
    assert {row["answer"] for row in of_snapshots} == {None}  # of a unit that only the oracle knows
    prices = raw(desk.db, "select asset, price_usd from markets")
    assert {row["asset"]: row["price_usd"] for row in desk.rows("oracles")} == dict(prices)
    volatile = {row["description"]: row for row in desk.rows("volatility")}
    found = volatile["ETH / USD"]
    answers = [value for value, _ in eth.rounds[0]]
    moves = [math.log(b / a) ** 2 for a, b in pairwise(answers)]
    days = (row["known_until"] - eth.rounds[0][0][1]) / 86_400
    assert 30 < days < 40
    inside = sum(1 for _, moment in eth.rounds[0] if moment > row["known_until"] - 30 * 86_400)
    assert found["volatility_30d"] == pytest.approx(math.sqrt(sum(moves[-inside:]) / 30 * 365))
    assert found["volatility_365d"] is None
    assert found["correlation_eth"] == pytest.approx(1)
    assert 0 < volatile["BTC / USD"]["correlation_eth"] < 1
    assert found["samples"] == ROUNDS


def test_an_unknown_name_is_named_and_changes_nothing(desk: Desk) -> None:
    desk.run(*SYNC)
    for verb in ("oracles", "volatility"):
        result = desk.run(verb, "WETHH", code=2)
        assert "no followed feed or asset is called 'WETHH'; did you mean 'weth'?" in result.stderr


def test_without_synced_prices_lists_say_what_to_do(desk: Desk) -> None:
    desk.run("sync", "--chain", "devnet")
    for verb in ("oracles", "volatility"):
        result = desk.run(verb, "--json")
        assert json.loads(result.stdout) == []
        assert "`indexer sync --prices` reads them" in result.stderr


def test_an_old_answer_is_overdue_then_stale_and_a_new_one_ends_that(world: World, desk: Desk) -> None:
    node, eth = world.node, world.feed("ETH / USD")

    def state() -> str:
        desk.run(*SYNC)
        (row,) = list(desk.rows("oracles", "ETH / USD"))
        return str(row["state"])

    world.chainlink.replay({"ETH / USD": [eth.rounds[0][-1][0]]})
    assert state() == "ok"
    node.mine(1, interval=HOUR + HOUR // 5)
    assert state() == "overdue"
    node.mine(1, interval=2 * HOUR)
    assert state() == "stale"
    world.chainlink.replay({"ETH / USD": [eth.rounds[0][-1][0]]}, interval=12)
    assert state() == "ok"


def test_a_watched_wallet_is_told_once_that_an_oracle_of_its_own_prices_is_overdue(world: World, desk: Desk) -> None:
    market, eth = world.market, world.feed("ETH / USD")
    names = ("ETH / USD", "BTC / USD", "LINK / USD")
    act, holders = Actions(market), {symbol: account(f"holder of {symbol}") for symbol in ("WETH", "LINK", "USDC")}
    actions = [act.supply(who, symbol, act.amount(symbol, 10_000)) for symbol, who in holders.items()]
    actions += [act.borrow(who, "DAI", act.amount("DAI", 500)) for who in holders.values()]
    debtor = account("debtor of WETH")
    actions += [act.supply(debtor, "LINK", act.amount("LINK", 10_000)), act.borrow(debtor, "WETH", 10**15)]
    perform(market, Random(1), actions, must=True)

    def answer() -> None:
        world.chainlink.replay({name: [world.feed(name).rounds[-1][-1][0]] for name in names}, interval=12)

    def told() -> list[tuple[str, str]]:
        """Who is told what."""
        desk.run(*SYNC)
        done = subprocess.run(
            [sys.executable, "-m", "indexer", "--config", str(desk.config), "--db", str(desk.db), "watch", "check", "--chain", "devnet", "--max-age", "9999d"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        bodies = [json.loads(line) for line in done.stdout.splitlines()]
        return sorted((body["account"], body["text"]) for body in bodies if body["rule"] == "oracle")

    answer()
    desk.run(*SYNC)
    for who in (*holders.values(), debtor):
        desk.run("watch", "add", who, "--oracle", "--below", "0.000001")
    assert told() == []
    world.chainlink.replay({name: [world.feed(name).rounds[-1][-1][0]] for name in names[1:]}, interval=2 * HOUR)
    first = told()
    theirs = sorted(who.lower() for who in (holders["WETH"], debtor))
    assert [who for who, _ in first] == theirs, "whom LINK or a stable coin carries is not told of ether"
    for _, text in first:
        assert "the oracle of WETH (ETH / USD) is overdue" in text
        assert eth.proxy not in text
    assert told() == []
    answer()
    after = told()
    assert [who for who, _ in after] == theirs
    assert all("in order again" in text for _, text in after)


def test_oracles_with_follow_says_again_what_a_sync_changed(
    world: World, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.run(*SYNC)
    eth, steps = world.feed("ETH / USD"), iter(("nothing", "a sync", "an answer", "the end"))

    def pause(_: float) -> None:
        step = next(steps)
        if step == "the end":
            raise KeyboardInterrupt
        if step == "an answer":
            world.chainlink.replay({"ETH / USD": [eth.rounds[0][-1][0] + 1]}, interval=12)
        if step != "nothing":
            synced()

    def synced() -> None:
        """By a process of its own, as the command under test holds this one's standard output."""
        flags = ["--config", str(desk.config), "--db", str(desk.db), *SYNC]
        subprocess.run([sys.executable, "-m", "indexer", *flags], capture_output=True, check=True)

    read: list[object] = []
    whole = lists.rows_of

    def rows_of(*given: Any) -> Any:
        read.append(given)
        return whole(*given)

    monkeypatch.setattr(lists, "sleep", pause)
    before = desk.rows("oracles")
    monkeypatch.setattr(lists, "rows_of", rows_of)
    lines = [json.loads(line) for line in desk.run("oracles", "--follow").stdout.splitlines()]
    assert lines[: len(before)] == before
    (changed,) = lines[len(before) :]
    assert (changed["symbol"], changed["answer_raw"]) == ("WETH", str(eth.rounds[0][-1][0]))
    assert len(read) == 2, "before the first pause, and once a sync had a newer block"
    assert "--follow writes a table or JSON lines" in desk.run("oracles", "--follow", "--csv", code=2).stderr


@pytest.mark.parametrize("verb", ["oracles", "volatility"])
def test_a_folder_of_files_is_read_as_one(filled: Filled, verb: str, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    shutil.copy(filled.path, tmp_path / "all" / "devnet.db")
    alone, together = (
        CliRunner().invoke(main, ["--db", str(path), verb, "--json"]) for path in (filled.path, tmp_path / "all")
    )
    assert (together.exit_code, alone.exit_code) == (0, 0), together.output
    assert json.loads(together.stdout) == json.loads(alone.stdout) != []


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--dry-run", "--prices"], "--prices is for a sync"),
        (["--follow", "--prices", "--since", "30d"], "--since is for --liquidations or --prices"),
        (["--since", "30d"], "--since is for --liquidations or --prices"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(desk: Desk, flags: list[str], why: str) -> None:
    assert why in " ".join(desk.run("sync", "--chain", "devnet", *flags, code=2).stderr.replace("│", " ").split())
    assert not desk.db.exists()
