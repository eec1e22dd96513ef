"""Prices that wait, hide or are cut: what the file says was in force is what the contracts answered, block by block.

Real contracts: Maker's Spotter and Vat, Chainlink's proxy. Stand-ins, which no package replaces: the OSM, SVR's aggregator, caps.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer.chain.client import Chain
from indexer.model import Accounts
from indexer.prices.following import FollowedPrices
from indexer.prices.history import PriceHistory
from indexer.prices.oracles import rows as oracles
from indexer.queries.prices import Pending, components, in_force, pending
from indexer.store.store import Store
from indexer.sync.sync import Sync
from tests.devnet import aave_v3, compound_v2, maker
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.chainlink import ZERO, Chainlink
from tests.devnet.maker import Maker
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet
from tests.truth import adapter_of

HOUR = 3600
ETH = 2_000 * 10**8
WAD, RAY = 10**18, 10**27
CUTOFF = 30
SVR = "ETH / USD (SVR)"


def fill(path: Path, market: Devnet, *, follow_from: int | None = None) -> None:
    """A sync with the history of prices; with `follow_from` block by block from there to the head."""
    chain = Chain("devnet", CHAIN_ID, [market.node.url], MULTICALL3)
    with closing(chain), Store(path) as store, store.lock():
        sync = Sync(store, chain, [adapter_of(market)], Accounts.BORROWERS)
        followed = FollowedPrices(
            PriceHistory(store, chain),
            lambda: [(one.adapter, one.market) for one in sync.markets.tracked.values()],
            10**9,
        )
        head = market.node.block_number()
        for number in range(head if follow_from is None else follow_from, head + 1):
            followed.look(sync.snapshot(str(number)).block)


def blocks(node: Anvil, first: int) -> list[tuple[int, int]]:
    """Number and time of each block from `first` on."""
    numbers = range(first, node.block_number() + 1)
    answers = node.batch([("eth_getBlockByNumber", [hex(number), False]) for number in numbers])
    return [(number, int(answer["timestamp"], 16)) for number, answer in zip(numbers, answers, strict=True)]


# SVR ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aave(needs_node: None) -> Iterator[tuple[AaveV3, Chainlink]]:
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.6")
        market.populate(1, 12)
        yield market, Chainlink(node, market.sender)


@pytest.fixture
def world(aave: tuple[AaveV3, Chainlink]) -> Iterator[tuple[AaveV3, Chainlink]]:
    with aave[0].rewound():
        yield aave


def give_source(market: AaveV3, symbol: str, source: str) -> str:
    asset = market.reserves[symbol].asset
    market.sender.send(market.contracts.oracle, "setAssetSources(address[],address[])", [[asset], [source]])
    return asset


def svr(market: AaveV3, chainlink: Chainlink, code: str = "DualAggregatorStandIn") -> tuple[str, str]:
    """WETH priced through the proxy from which an aggregator hides its rounds: proxy, aggregator."""
    sender = market.sender
    first = chainlink.feed(SVR)
    aggregator = sender.deploy(chainlink.code[code], [SVR, first.proxy, CUTOFF])
    for function in ("proposeAggregator(address)", "confirmAggregator(address)"):
        sender.send(first.proxy, function, [aggregator])
    return first.proxy, aggregator


def primary(market: AaveV3, aggregator: str, answer: int) -> None:
    market.sender.send(aggregator, "transmit(int192)", [answer])


def reveal(market: AaveV3, aggregator: str, number: int) -> None:
    market.sender.send(aggregator, "transmitSecondary(uint32)", [number])


@pytest.mark.parametrize("follow", [False, True], ids=["at once", "block by block"])
def test_hidden_rounds_are_in_force_from_when_the_proxy_served_them(
    world: tuple[AaveV3, Chainlink], tmp_path: Path, follow: bool
) -> None:
    market, chainlink = world
    node = market.node
    proxy, aggregator = svr(market, chainlink)
    primary(market, aggregator, ETH)
    node.mine(1, interval=CUTOFF + 5)
    give_source(market, "WETH", proxy)
    first = node.block_number()
    for number, (waits, revealed) in enumerate(
        ((3, True), (40, False), (2, True), (1, False), (5, True), (50, False)), 2
    ):
        primary(market, aggregator, ETH + number * 10**8)
        node.mine(1, interval=waits)
        if revealed:
            reveal(market, aggregator, number)
        node.mine(2, interval=11)
    node.mine(3, interval=CUTOFF)
    path = tmp_path / "indexer.db"
    fill(path, market, follow_from=first if follow else None)
    with Store(path) as store:
        for number, moment in blocks(node, first):
            series = in_force(store.conn, CHAIN_ID, moment)[proxy]
            served = market.sender.call(proxy, "latestAnswer()(int256)", block=number)
            assert series.raws[-1] == served, number
        assert store.conn.execute("select cutoff_seconds from feed_phases where phase = 2").fetchall() == [(CUTOFF,)]


@pytest.mark.parametrize("follow", [False, True], ids=["at once", "block by block"])
def test_a_round_that_is_hidden_waits_until_the_cut_off_at_the_latest(
    world: tuple[AaveV3, Chainlink], tmp_path: Path, follow: bool
) -> None:
    market, chainlink = world
    proxy, aggregator = svr(market, chainlink)
    primary(market, aggregator, ETH)
    market.node.mine(1, interval=CUTOFF + 5)
    asset = give_source(market, "WETH", proxy)
    before = market.node.block_number()
    primary(market, aggregator, ETH * 9 // 10)
    at = market.node.timestamp()
    path = tmp_path / "indexer.db"
    fill(path, market, follow_from=before if follow else None)
    with Store(path) as store:
        assert pending(store.conn, CHAIN_ID, at) == [Pending(proxy, "svr", ETH * 9 // 10, at, at + CUTOFF)]
        (row,) = [row for row in oracles(store.conn, CHAIN_ID, "devnet") if row["asset"] == asset]
        assert (row["answer_raw"], row["pending_price_raw"], row["pending_at"]) == (
            str(ETH),
            str(ETH * 9 // 10),
            at + CUTOFF,
        )
    assert market.sender.call(proxy, "latestAnswer()(int256)") == ETH
    market.node.mine(1, interval=CUTOFF + 1)  # the first block after the cut-off
    assert market.sender.call(proxy, "latestAnswer()(int256)") == ETH * 9 // 10


def test_the_proxy_from_which_nothing_is_hidden_has_each_round_at_once(
    world: tuple[AaveV3, Chainlink], tmp_path: Path
) -> None:
    market, chainlink = world
    _, aggregator = svr(market, chainlink)
    plain = market.sender.deploy(chainlink.code["EACAggregatorProxy"], [aggregator, ZERO])
    give_source(market, "WETH", plain)
    primary(market, aggregator, ETH)
    at = market.node.timestamp()
    market.node.mine(1, interval=CUTOFF // 2)
    fill(tmp_path / "indexer.db", market)
    with Store(tmp_path / "indexer.db") as store:
        series = in_force(store.conn, CHAIN_ID, market.node.timestamp())[plain]
    assert (list(series.raws), list(series.times)) == ([ETH], [at])


def test_where_the_storage_is_laid_out_otherwise_a_hidden_round_counts_once_it_was_seen_served(
    world: tuple[AaveV3, Chainlink], tmp_path: Path
) -> None:
    market, chainlink = world
    proxy, aggregator = svr(market, chainlink, "ShiftedDualAggregatorStandIn")
    market.node.rpc("anvil_setStorageAt", aggregator, hex(18), f"0x{2 * CUTOFF:064x}")  # any word of some seconds
    primary(market, aggregator, ETH)
    reveal(market, aggregator, 1)
    primary(market, aggregator, ETH * 9 // 10)
    give_source(market, "WETH", proxy)
    market.node.mine(2, interval=3 * CUTOFF)
    fill(tmp_path / "indexer.db", market)
    with Store(tmp_path / "indexer.db") as store:
        assert store.conn.execute("select cutoff_seconds from feed_phases where phase = 2").fetchall() == [(None,)]
        now = market.node.timestamp()
        series = in_force(store.conn, CHAIN_ID, now)[proxy]
    assert (list(series.raws), series.times[-1]) == ([ETH, ETH * 9 // 10], now)
    assert market.sender.call(proxy, "latestAnswer()(int256)") == ETH * 9 // 10


# caps -----------------------------------------------------------------------------------------------------------------


def test_the_cap_of_a_ratio_its_distance_and_when_it_is_reached(
    world: tuple[AaveV3, Chainlink], tmp_path: Path
) -> None:
    market, chainlink = world
    base = chainlink.feed("ETH / USD")
    chainlink.replay({"ETH / USD": [ETH]})
    growth = WAD // 10**9  # a second
    adapter = market.sender.deploy(chainlink.code["RatioCapStandIn"], [base.proxy, WAD * 11 // 10, growth])
    started = market.node.timestamp()
    asset = give_source(market, "wstETH", adapter)
    market.node.mine(1, interval=10 * HOUR)
    ratio = WAD * 11 // 10 + 3 * growth * 5 * HOUR
    market.sender.send(adapter, "set(int256)", [ratio])
    assert market.sender.call(adapter, "isCapped()(bool)") is True
    ratio = WAD * 11 // 10 + growth * 5 * HOUR
    market.sender.send(adapter, "set(int256)", [ratio])
    path = tmp_path / "indexer.db"
    fill(path, market)
    with Store(path) as store:
        (made,) = [one for one in components(store.conn, CHAIN_ID) if one.asset == asset]
        now = market.node.timestamp()
        cap = market.sender.call(adapter, "maxRatio()(int256)")
        assert (made.feed, made.role, made.exponent, made.adapter) == (base.proxy, "price", 1, adapter)
        assert (made.ratio_raw, made.cap_raw, made.capped) == (ratio, cap, False)
        assert made.days_to_cap is None  # it grows more slowly than its cap
        (row,) = [row for row in oracles(store.conn, CHAIN_ID, "devnet") if row["asset"] == asset]
        assert row["cap_distance_percent"] == pytest.approx(100 * (cap / ratio - 1))
        assert now > started


def test_a_ratio_that_outgrows_its_cap_is_capped_and_says_so(world: tuple[AaveV3, Chainlink], tmp_path: Path) -> None:
    market, chainlink = world
    base = chainlink.feed("ETH / USD")
    chainlink.replay({"ETH / USD": [ETH]})
    growth = WAD // 10**9
    adapter = market.sender.deploy(chainlink.code["RatioCapStandIn"], [base.proxy, WAD, growth])
    asset = give_source(market, "wstETH", adapter)
    market.node.mine(1, interval=HOUR)
    market.sender.send(adapter, "set(int256)", [WAD + 2 * growth * HOUR])
    fill(tmp_path / "indexer.db", market)
    with Store(tmp_path / "indexer.db") as store:
        (row,) = [row for row in oracles(store.conn, CHAIN_ID, "devnet") if row["asset"] == asset]
    assert (row["state"], row["capped"], row["days_to_cap"]) == ("capped", 1, 0)
    assert row["cap_distance_percent"] < 0


def test_a_stable_coin_is_cut_at_its_cap(world: tuple[AaveV3, Chainlink], tmp_path: Path) -> None:
    market, chainlink = world
    base = chainlink.feed("USDC / USD")
    chainlink.replay({"USDC / USD": [10**8 + 5 * 10**6]})
    adapter = market.sender.deploy(chainlink.code["StableCapStandIn"], [base.proxy, 10**8 + 4 * 10**6])
    asset = give_source(market, "USDC", adapter)
    fill(tmp_path / "indexer.db", market)
    with Store(tmp_path / "indexer.db") as store:
        (made,) = [one for one in components(store.conn, CHAIN_ID) if one.asset == asset]
        assert (made.feed, made.cap_raw, made.capped, made.ratio_raw) == (base.proxy, 10**8 + 4 * 10**6, True, None)
        assert in_force(store.conn, CHAIN_ID, market.node.timestamp())[base.proxy].raws == [10**8 + 5 * 10**6]
        price = store.conn.execute("select price_raw from markets where asset = ?", (asset,)).fetchone()[0]
    assert int(price) == min(made.cap_raw or 0, 10**8 + 5 * 10**6)


def test_another_source_and_another_cap_are_noticed_with_their_block(
    world: tuple[AaveV3, Chainlink], tmp_path: Path
) -> None:
    market, chainlink = world
    base, other = chainlink.feed("USDC / USD, followed"), chainlink.feed("ETH / USD, followed")
    chainlink.replay({base.description: [10**8], other.description: [ETH]})
    adapter = market.sender.deploy(chainlink.code["StableCapStandIn"], [base.proxy, 10**8 + 10**6])
    usdc, weth = give_source(market, "USDC", adapter), market.reserves["WETH"].asset
    chain = Chain("devnet", CHAIN_ID, [market.node.url], MULTICALL3)
    with closing(chain), Store(tmp_path / "indexer.db") as store, store.lock():
        sync = Sync(store, chain, [adapter_of(market)], Accounts.BORROWERS)
        followed = FollowedPrices(
            PriceHistory(store, chain),
            lambda: [(one.adapter, one.market) for one in sync.markets.tracked.values()],
            10**9,
        )

        def look() -> bool:
            """Whether everything was looked at anew."""
            return followed.look(sync.snapshot().block) is not None

        def made(asset: str) -> tuple[str, int | None]:
            (row,) = [one for one in components(store.conn, CHAIN_ID) if one.asset == asset]
            return row.feed, row.cap_raw

        assert look()
        assert made(usdc) == (base.proxy, 10**8 + 10**6)
        market.node.mine(1)
        assert not look()
        market.sender.send(adapter, "setPriceCap(int256)", [10**8 + 3 * 10**6])
        assert look()
        assert made(usdc) == (base.proxy, 10**8 + 3 * 10**6)
        give_source(market, "WETH", other.proxy)
        assert look()
        assert made(weth) == (other.proxy, None)
        market.node.mine(1)
        assert not look()


def test_a_price_through_a_peg_is_the_product_of_two_feeds(world: tuple[AaveV3, Chainlink], tmp_path: Path) -> None:
    market, chainlink = world
    peg, base = chainlink.feed("WBTC / BTC"), chainlink.feed("BTC / USD")
    chainlink.replay({"WBTC / BTC": [99_800_000], "BTC / USD": [60_000 * 10**8]})
    adapter = market.sender.deploy(chainlink.code["SynchronicityStandIn"], [peg.proxy, base.proxy])
    asset = give_source(market, "WBTC", adapter)
    fill(tmp_path / "indexer.db", market)
    with Store(tmp_path / "indexer.db") as store:
        made = [(one.feed, one.role, one.exponent) for one in components(store.conn, CHAIN_ID) if one.asset == asset]
        assert sorted(made) == sorted([(peg.proxy, "price", 1), (base.proxy, "peg", 1)])
        every = in_force(store.conn, CHAIN_ID, market.node.timestamp())
        price = store.conn.execute("select price_raw from markets where asset = ?", (asset,)).fetchone()[0]
    assert every[peg.proxy].raws[-1] * every[base.proxy].raws[-1] // 10**8 == int(price)


def test_an_adapter_that_is_no_product_of_its_feeds_is_not_recognised(
    world: tuple[AaveV3, Chainlink], tmp_path: Path
) -> None:
    market, chainlink = world
    base = chainlink.feed("BTC / USD")
    chainlink.replay({"BTC / USD": [60_000 * 10**8]})
    asset = give_source(market, "WBTC", market.sender.deploy(chainlink.code["DoublingStandIn"], [base.proxy]))
    fill(tmp_path / "indexer.db", market)
    with Store(tmp_path / "indexer.db") as store:
        (made,) = [one for one in components(store.conn, CHAIN_ID) if one.asset == asset]
        series = in_force(store.conn, CHAIN_ID, market.node.timestamp())[made.feed]
    assert (series.kind, series.raws[-1]) == ("snapshot", 2 * 60_000 * 10**8)


# Compound V2 ----------------------------------------------------------------------------------------------------------


def test_the_configuration_of_compounds_oracle_names_its_feeds(needs_node: None, tmp_path: Path) -> None:
    with Anvil() as node:
        node.place_multicall3()
        market = compound_v2.deploy(node)
        market.populate(1, 3)
        chainlink, markets = Chainlink(node, market.sender), market.markets
        first, second = chainlink.feed("ETH / USD"), chainlink.feed("ETH / USD, the next one")
        chainlink.replay({name: [ETH + n, ETH + 2 * n] for n, name in enumerate(chainlink.feeds)})
        oracle = market.sender.deploy(chainlink.code["ConfiguredOracleStandIn"])
        add = "addConfig(address,uint8,address,uint256)"
        for symbol, token in markets.items():
            decimals, feed, fixed = token.listing.decimals, ZERO, market.price(symbol)
            if symbol == "ETH":
                feed, fixed = first.proxy, 0
            elif symbol == "DAI":  # the fixed price counts
                feed = first.proxy
            elif symbol == "WBTC":  # the price is not the answer times a power of ten of this token
                decimals, feed, fixed = decimals + 1, first.proxy, 0
            market.sender.send(oracle, add, [token.address, decimals, feed, fixed])
        market.act(market.comptroller, "_setPriceOracle(address)", [oracle])

        def made_of(path: Path) -> dict[str, tuple[str, int, str]]:
            """Feed, its newest answer and the market's price by symbol; of what has a feed."""
            fill(path, market)
            with Store(path) as store:
                symbols = dict(store.conn.execute("select asset, symbol from markets").fetchall())
                told = dict(store.conn.execute("select asset, price_raw from markets").fetchall())
                every = in_force(store.conn, CHAIN_ID, node.timestamp())
                return {
                    symbols[one.asset]: (one.feed, every[one.feed].raws[-1], told[one.asset])
                    for one in components(store.conn, CHAIN_ID)
                    if every[one.feed].kind != "snapshot"
                }

        assert made_of(tmp_path / "first.db") == {"ETH": (first.proxy, ETH, str(ETH * 10**10))}
        market.sender.send(oracle, "updateConfigPriceFeed(address,address)", [markets["ETH"].address, second.proxy])
        expected = {"ETH": (second.proxy, ETH + 2, str((ETH + 2) * 10**10))}
        assert made_of(tmp_path / "first.db") == made_of(tmp_path / "new.db") == expected
        market.replace_oracle()
        assert made_of(tmp_path / "first.db") == {}, "an oracle of another kind has no feeds"


# Maker ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vault(needs_node: None) -> Iterator[Maker]:
    with Anvil() as node:
        node.place_multicall3()
        market = maker.deploy(node)
        market.populate(1, 12)
        yield market


@pytest.mark.parametrize("follow", [False, True], ids=["at once", "block by block"])
def test_an_osm_price_is_in_force_once_the_spotter_took_it_over(vault: Maker, tmp_path: Path, follow: bool) -> None:
    with vault.rewound():
        node, osm, ilk = vault.node, vault.modules["ETH"], vault.ilks["ETH-A"]
        spotter, vat = vault.addresses["spotter"], vault.addresses["vat"]
        first = node.block_number()
        for step in range(8):
            node.mine(1, interval=HOUR)
            vault.sender.send(
                vault.values["ETH"], "poke(bytes32)", [((120 + step) * WAD).to_bytes(32)], sender=vault.feeder
            )
            vault.sender.send(osm, "poke()")
            node.mine(step % 3, interval=60)
            if step != 5:  # one price is never taken over
                vault.sender.send(spotter, "poke(bytes32)", [ilk.key])
            node.mine(1, interval=60)
        path = tmp_path / "indexer.db"
        fill(path, vault, follow_from=first if follow else None)
        with Store(path) as store:
            compared = 0
            for number, moment in blocks(node, first):
                series = in_force(store.conn, CHAIN_ID, moment)[osm]
                spot = vault.sender.call(
                    vat, "ilks(bytes32)(uint256,uint256,uint256,uint256,uint256)", [ilk.key], block=number
                )[2]
                mat = vault.sender.call(spotter, "ilks(bytes32)(address,uint256)", [ilk.key], block=number)[1]
                if len(series) > 1:  # what was in force before the first poke that is seen is not known
                    compared += 1
                    assert series.raws[-1] * 10**9 * RAY // mat == spot, number
            assert compared > 10
            (waiting,) = pending(store.conn, CHAIN_ID, node.timestamp(), [osm])
            nxt, has = vault.sender.call(osm, "peep()(bytes32,bool)", sender=spotter)
            zzz = vault.sender.call(osm, "zzz()(uint64)")
            assert has
            assert (waiting.kind, waiting.answer_raw, waiting.at) == ("osm", int.from_bytes(nxt), zzz + HOUR)
            assert store.conn.execute(
                "select kind, heartbeat_seconds from feeds where address = ?", (osm,)
            ).fetchall() == [("osm", HOUR)]
