"""Maker's formulas, what an adapter makes of tables of answers, and recorded mainnet transactions: all without a node."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import ConfigError, ReadFailedError
from indexer.model import RAY, WAD, Accounts, Block, Deployment, Event, Failed, PositionKey, Read, Registered
from protocols.maker import owners as maker_owners
from protocols.maker.adapter import FORK, FROB, GIVE, GRAB, Maker
from protocols.maker.market import MakerMarket
from protocols.maker.math import (
    bark_refused,
    barked,
    bitten,
    fee_rate,
    feed_of,
    half_up,
    ilk_bytes,
    ilk_name,
    rdiv,
    rmul,
    rpow,
    spot_of,
)
from protocols.maker.position import Urn
from tests.compound import recorded_lending, recorded_others
from tests.devnet.maker import word

DAY = 86_400
RAD = 10**45


def address(n: int) -> str:
    return f"0x{n:040x}"


VAT, SPOTTER, JUG, MANAGER, DOG, CHAINLOG, REGISTRY = map(address, range(1, 8))


CONTRACTS = {"vat": VAT, "spotter": SPOTTER, "jug": JUG, "cdp_manager": MANAGER}


BLOCK = Block(100, "0x" + "aa" * 32, "0x" + "bb" * 32, 1_700_000_000)


@given(st.binary(min_size=32, max_size=32))
def test_every_ilk_comes_back_from_its_name(raw: bytes) -> None:
    assert ilk_bytes(ilk_name(raw)) == raw


def test_an_ilk_is_named_by_its_text_or_else_by_its_hex() -> None:
    assert ilk_name(b"ETH-A".ljust(32, b"\0")) == "ETH-A"
    assert ilk_name(b"\0" * 32) == "0x" + "00" * 32
    assert ilk_name(b"A\0B".ljust(32, b"\0")) == "0x" + (b"A\0B".ljust(32, b"\0")).hex()
    assert ilk_name(b"\xff" * 32) == "0x" + "ff" * 32
    for name in ("ETH-X", "A B", "A~", "0xAB", "0x"):  # printable ASCII is from the space to the tilde
        assert ilk_name(name.encode().ljust(32, b"\0")) == name
        assert ilk_bytes(name) == name.encode().ljust(32, b"\0")
    assert ilk_name(b"A\x7f".ljust(32, b"\0")) == "0x417f" + "00" * 30
    assert ilk_name(b"A\x1f".ljust(32, b"\0")) == "0x411f" + "00" * 30
    assert ilk_name(b"DIRECT-SPARK-MORPHO-DAI".ljust(32, b"\0")) == "DIRECT-SPARK-MORPHO-DAI"


FEEDS = st.integers(1, 10**30)


MATS = st.integers(RAY, 20 * RAY)


PARS = st.integers(RAY * 9 // 10, RAY * 11 // 10)


@given(FEEDS, PARS, MATS)
def test_the_feed_value_of_a_spot_pokes_that_spot_again(feed: int, par: int, mat: int) -> None:
    spot = spot_of(feed, par, mat)
    assert spot_of(feed_of(spot, par, mat), par, mat) == spot


@given(FEEDS, st.integers(RAY, 9 * 10**8 * RAY // 10**8))
def test_the_feed_value_is_the_last_one_at_par(feed: int, mat: int) -> None:
    assert feed_of(spot_of(feed, RAY, mat), RAY, mat) == feed


@given(st.integers(1, 10**27), st.integers(1, 10**27), st.integers(RAY, 3 * RAY), PARS, MATS)
def test_the_feed_value_of_a_spot_is_the_lowest_that_sets_it(ink: int, art: int, rate: int, par: int, mat: int) -> None:
    feed = feed_of(-(-art * rate // ink), par, mat)
    assert ink * spot_of(feed, par, mat) >= art * rate
    assert ink * spot_of(feed - 1, par, mat) < art * rate


def test_each_step_back_from_a_spot_to_its_feed_is_rounded_up() -> None:
    # 1e9 * (RAY + 1) / RAY is a little more than 1e9, so that a feed of 1 sets 999,999,999
    assert feed_of(10**9, RAY, RAY + 1) == 2


def test_powers_follow_the_contracts_edges() -> None:
    assert rpow(0, 0) == RAY
    assert rpow(0, 5) == 0
    assert rpow(RAY, 10**9) == RAY
    assert [rpow(2 * RAY, n) for n in (1, 2, 3, 5, 6)] == [2 * RAY, 4 * RAY, 8 * RAY, 32 * RAY, 64 * RAY]
    assert (rpow(1, 1), rpow(1, 2)) == (1, 0)
    assert rpow(2 * RAY, 10) == 1024 * RAY
    with pytest.raises(OverflowError, match=r"^rpow$"):
        rpow(2 * RAY, 1_000)
    # a half to the 27th is 5^27 of the last digit, to the 28th half of that, which is odd: half up
    assert rpow(RAY // 2, 27) == 5**27
    assert rpow(RAY // 2, 28) == (5**27 + 1) // 2
    # a product, with the half digit that rounds it, has to fit into 256 bits
    assert half_up(2**256 - RAY // 2 - 1) == (2**256 - 1) // RAY
    with pytest.raises(OverflowError):
        half_up(2**256 - RAY // 2)
    assert rpow(2**128 - 1, 2) == ((2**128 - 1) ** 2 + RAY // 2) // RAY
    with pytest.raises(OverflowError):
        rpow(2**128, 2)


def test_products_and_quotients_of_rays_are_cut() -> None:
    assert [rmul(2, RAY // 2 - 1), rmul(2, RAY // 2), rmul(3, RAY // 2)] == [0, 1, 1]
    assert rdiv(2, 3) == 666_666_666_666_666_666_666_666_666
    # Spotter.poke at 2,000: / 1.5, and / 1.1 / 1.5; it sets nothing without a ratio
    assert spot_of(2_000 * WAD, RAY, 3 * RAY // 2) == 1_333_333_333_333_333_333_333_333_333_333
    assert spot_of(2_000 * WAD, 11 * RAY // 10, 3 * RAY // 2) == 1_212_121_212_121_212_121_212_121_212_120
    assert (spot_of(2_000 * WAD, RAY, 0), spot_of(2_000 * WAD, 0, RAY)) == (0, 0)


def test_a_fee_is_the_yearly_growth_of_both_factors() -> None:
    # what makerdao's ilks had at 5 % a year, and the same with a part of it as the Jug's base
    five_percent = 1_000_000_001_547_125_957_863_212_448
    assert fee_rate(0, five_percent) == pytest.approx(0.05, rel=1e-6)
    assert fee_rate(five_percent - RAY, RAY) == pytest.approx(0.05, rel=1e-6)
    assert fee_rate(0, RAY) == 0
    assert fee_rate(0, 0) is None
    assert fee_rate(five_percent, 0) is None
    assert fee_rate(0, 10 * RAY) is None
    # 1 + 2^-20 is a float to the last bit, so that a second more or less than a year would show
    assert fee_rate(0, RAY + RAY // 2**20) == pytest.approx(math.expm1(31_536_000 * math.log1p(2**-20)), rel=1e-9)


def test_a_bark_is_refused_as_the_dog_refuses_it() -> None:
    art, rate, dust = 1_000 * WAD, RAY, 100 * RAD
    whole = {"room": 10**6 * RAD, "chop": WAD}
    assert bark_refused(2_000 * WAD, art, rate, dust, **whole) is None
    assert bark_refused(0, art, rate, dust, **whole) == "null-auction"
    # what would be left is dust: all of it is taken
    assert bark_refused(2_000 * WAD, art, rate, dust, room=950 * RAD, chop=WAD) is None
    # the part itself would be dust
    assert bark_refused(2_000 * WAD, art, rate, dust, room=50 * RAD, chop=WAD) == "dusty-auction"
    # the penalty takes room: 108 / 1.13 < 100
    assert bark_refused(2_000 * WAD, art, rate, dust, room=108 * RAD, chop=113 * WAD // 100) == "dusty-auction"
    assert bark_refused(2_000 * WAD, art, rate, dust, room=114 * RAD, chop=113 * WAD // 100) is None
    # so little collateral that a part of the debt takes none of it
    assert bark_refused(1, art, rate, dust, room=500 * RAD, chop=WAD) == "null-auction"
    # an ilk without a penalty was never set up: the Dog divides by it
    assert bark_refused(2_000 * WAD, art, rate, dust, room=10**6 * RAD, chop=0) == "dusty-auction"
    assert barked(2_000 * WAD, art, rate, 0, room=10**6 * RAD, chop=0) == (0, "null-auction")


def test_what_a_bark_takes() -> None:
    """Dog.bark: dart = min(art, room * WAD / rate / chop); all of it if `mul(art - dart, rate) < dust`."""
    art, rate, dust = 1_000 * WAD, RAY, 100 * RAD
    held = 2_000 * WAD
    assert barked(held, art, rate, dust, room=10**6 * RAD, chop=WAD) == (art, None)
    # exactly the dust may stay, and one unit less may not; exactly the dust may be taken, and one unit less may not
    assert barked(held, art, rate, dust, room=900 * RAD, chop=WAD) == (900 * WAD, None)
    assert barked(held, art, rate, dust, room=900 * RAD + RAY, chop=WAD) == (art, None)
    assert barked(held, art, rate, dust, room=100 * RAD, chop=WAD) == (100 * WAD, None)
    assert barked(held, art, rate, dust, room=100 * RAD - RAY, chop=WAD) == (0, "dusty-auction")
    # dust is debt with its fee: 90 normalised, at a rate of 1.2, are 108
    assert barked(held, art, 12 * RAY // 10, dust, room=108 * RAD, chop=WAD) == (90 * WAD, None)
    assert barked(held, art, 12 * RAY // 10, dust, room=1_092 * RAD, chop=WAD) == (910 * WAD, None)
    # 565 / 1.1 / 1.13 = 454.5454...
    assert barked(held, art, 11 * RAY // 10, dust, room=565 * RAD, chop=113 * WAD // 100) == (
        454_545_454_545_454_545_454,
        None,
    )
    # the collateral for it is cut: 2 of 1,000 units' worth leaves exactly 1 for half, none for less
    assert barked(2, art, rate, dust, room=500 * RAD, chop=WAD) == (500 * WAD, None)
    assert barked(2, art, rate, dust, room=500 * RAD - RAY, chop=WAD) == (0, "null-auction")


def test_what_a_bite_takes() -> None:
    """Cat.bite: the same part, `require(dart > 0 && dink > 0, "Cat/null-auction")`, and dust may stay."""
    art, held = 1_000 * WAD, 2_000 * WAD
    assert bitten(held, art, RAY, room=10**6 * RAD, chop=WAD) == (art, None)
    assert bitten(held, art, RAY, room=999 * RAD, chop=WAD) == (999 * WAD, None)
    assert bitten(held, art, 11 * RAY // 10, room=565 * RAD, chop=113 * WAD // 100) == (
        454_545_454_545_454_545_454,
        None,
    )
    assert bitten(held, art, RAY, room=RAY, chop=WAD) == (1, None)
    assert bitten(held, art, RAY, room=RAY - 1, chop=WAD) == (0, "null-auction")
    assert bitten(held, 0, RAY, room=RAD, chop=WAD) == (0, "null-auction")
    assert bitten(2, art, RAY, room=500 * RAD, chop=WAD) == (500 * WAD, None)
    assert bitten(2, art, RAY, room=500 * RAD - RAY, chop=WAD) == (0, "null-auction")
    assert bitten(held, art, RAY, room=RAD, chop=0) == (0, "null-auction")


class TableReader:
    """Answers (target, function name, arguments) from a table, everything else fails; senders count."""

    def __init__(self, table: Mapping[tuple[str, str, tuple[Any, ...]], Any], sender: str | None = None) -> None:
        self.table = table
        self.sender = sender
        self.block = BLOCK

    def __call__(self, reads: Sequence[Read], prelude: Sequence[Read] = ()) -> list[Any]:
        return [self.answer(read) for read in reads]

    def answer(self, read: Read) -> Any:
        name = read.signature.partition("(")[0]
        if name == "peep" and read.sender != SPOTTER:
            return Failed(read)
        return self.table.get((read.target, name, read.args), Failed(read))

    def storage(self, slots: Sequence[tuple[str, int]]) -> None:
        return None


ETH_A, PIP, CLIP, GEM, JOIN, DAI = word("ETH-A"), *map(address, range(20, 25))


TABLE: dict[tuple[str, str, tuple[Any, ...]], Any] = {
    (VAT, "live", ()): 1,
    (VAT, "debt", ()): 150 * RAD,
    (VAT, "vice", ()): 40 * RAD,
    (VAT, "dai", (address(30),)): 5 * RAD,
    (SPOTTER, "par", ()): RAY,
    (JUG, "base", ()): 0,
    (JUG, "vow", ()): address(30),
    (VAT, "ilks", (ETH_A,)): (100 * WAD, 11 * RAY // 10, 1_000 * RAY, 10**6 * RAD, 50 * RAD),
    (SPOTTER, "ilks", (ETH_A,)): (PIP, 3 * RAY // 2),
    (JUG, "ilks", (ETH_A,)): (RAY + 10**18, BLOCK.timestamp - DAY),
}


DOGS = {
    (DOG, "live", ()): 1,
    (DOG, "Hole", ()): 1_000 * RAD,
    (DOG, "Dirt", ()): 400 * RAD,
    (DOG, "ilks", (ETH_A,)): (CLIP, 113 * WAD // 100, 500 * RAD, 100 * RAD),
    (CLIP, "stopped", ()): 0,
}


LOGGED = {
    (CHAINLOG, "getAddress", (word("MCD_VAT"),)): VAT,
    (CHAINLOG, "getAddress", (word("MCD_DAI"),)): DAI,
    (CHAINLOG, "getAddress", (word("MCD_DOG"),)): DOG,
    (CHAINLOG, "getAddress", (word("ILK_REGISTRY"),)): REGISTRY,
    (CHAINLOG, "getAddress", (word("LOCKSTAKE_ENGINE"),)): address(8),
    (REGISTRY, "list", ()): (ETH_A,),
    (REGISTRY, "gem", (ETH_A,)): GEM,
    (REGISTRY, "join", (ETH_A,)): JOIN,
    (REGISTRY, "symbol", (ETH_A,)): "WETH",
    (REGISTRY, "dec", (ETH_A,)): 6,
}


def table_adapter(**addresses: str) -> Maker:
    return Maker(Deployment("maker", "maker", "mainnet", 0, {**CONTRACTS, **addresses}))


def table_market(table: Mapping[Any, Any] = TABLE, **addresses: str) -> MakerMarket:
    adapter, read = table_adapter(**addresses), TableReader(table)
    return adapter.with_keys(read, adapter.read_market(read, None), [PositionKey(address(99), "ETH-A")])


def urn(ink: int, art: int, group: str = "ETH-A") -> Urn:
    return Urn(
        key=PositionKey(address(99), group), block_number=100, ink=ink, art=art, cdp=None, owner=address(99),
        owner_via="self", wallet=address(99),
    )  # fmt: skip


def test_an_ilk_first_seen_in_a_key_joins_the_market_and_stays() -> None:
    adapter, read = table_adapter(), TableReader(TABLE)
    market = adapter.read_market(read, None)
    assert market.ilks == {}
    market = adapter.with_keys(read, market, [PositionKey(address(99), "ETH-A")])
    assert list(market.ilks) == ["ETH-A"]
    assert list(adapter.read_market(read, market).ilks) == ["ETH-A"]
    with pytest.raises(ReadFailedError, match="ilks"):
        adapter.with_keys(read, market, [PositionKey(address(99), "NONE-A")])


def test_the_chainlog_leads_to_tokens_and_the_dog() -> None:
    market = table_market({**TABLE, **DOGS, **LOGGED}, chainlog=CHAINLOG)
    dai, weth = market.assets
    assert (dai.asset, dai.market, dai.symbol, dai.price_usd) == (DAI, VAT, "DAI", 1.0)
    assert (weth.asset, weth.market, weth.symbol, weth.decimals, weth.group) == (GEM, JOIN, "WETH", 6, "ETH-A")
    assert (weth.price, weth.price_usd) == (1_500 * WAD, 1_500.0)
    assert weth.liquidation_bonus == pytest.approx(0.13)
    adapter = table_adapter(chainlog=CHAINLOG)
    supply, debt = adapter.balances(market, urn(5 * WAD + 1, WAD))
    assert (supply.asset, supply.scaled, supply.amount, supply.decimals) == (GEM, 5 * WAD + 1, 5_000_000, 6)
    assert (debt.asset, debt.scaled, debt.amount) == (DAI, WAD, 11 * WAD // 10)


def test_without_a_registry_the_price_feed_stands_for_the_token_and_the_vat_for_dai() -> None:
    market = table_market()
    supply, debt = table_adapter().balances(market, urn(5 * WAD + 1, 7))
    assert (supply.asset, supply.symbol, supply.amount, supply.decimals) == (PIP, "ETH", 5 * WAD + 1, 18)
    assert (debt.asset, debt.symbol, debt.amount) == (VAT, "DAI", 8)  # 7.7 wei, rounded up


def test_the_chainlog_of_another_vat_is_a_configuration_error() -> None:
    table = {**TABLE, (CHAINLOG, "getAddress", (word("MCD_VAT"),)): address(77)}
    with pytest.raises(ConfigError, match="chainlog"):
        table_adapter(chainlog=CHAINLOG).read_market(TableReader(table), None)
    with pytest.raises(ConfigError, match="chainlog"):
        table_adapter(chainlog=CHAINLOG).read_market(TableReader(TABLE), None)


UNSAFE = urn(100 * WAD, 100 * WAD * 1_000)


@pytest.mark.parametrize(
    ("changes", "blocked"),
    [
        ({}, ()),
        ({(DOG, "live", ()): 0}, ("cage",)),
        ({(CLIP, "stopped", ()): 1}, ("stopped",)),
        ({(DOG, "Dirt", ()): 1_000 * RAD}, ("Hole",)),
        ({(DOG, "ilks", (ETH_A,)): (CLIP, WAD, 500 * RAD, 500 * RAD)}, ("hole",)),
        ({(DOG, "ilks", (ETH_A,)): (address(0), 0, 0, 0)}, ("no-clip", "hole")),
        ({(DOG, "Dirt", ()): 999 * RAD}, ("dusty-auction",)),
    ],
)
def test_the_dogs_limits_block_a_liquidation_without_changing_its_status(
    changes: dict[Any, Any], blocked: tuple[str, ...]
) -> None:
    market = table_market({**TABLE, **DOGS, **changes}, dog=DOG)
    health = table_adapter(dog=DOG).evaluate(market, UNSAFE)
    assert health.liquidatable
    assert health.blocked_by == blocked


def test_after_a_cage_nothing_is_barked_and_no_fee_accrues() -> None:
    market = table_market({**TABLE, (VAT, "live", ()): 0})
    assert market.ilks["ETH-A"].accrued_rate == market.ilks["ETH-A"].rate
    health = table_adapter().evaluate(market, UNSAFE)
    assert health.blocked_by == ("cage",)
    assert table_adapter().evaluate(market, urn(WAD, 0)).blocked_by == ()


def test_an_ilk_that_the_jug_does_not_know_loses_its_rate_if_the_vow_can_pay() -> None:
    unknown = {**TABLE, (JUG, "ilks", (ETH_A,)): (0, 0)}
    assert table_market(unknown).ilks["ETH-A"].accrued_rate == 11 * RAY // 10
    rich = {**unknown, (VAT, "dai", (address(30),)): 200 * RAD}
    market = table_market(rich)
    assert market.ilks["ETH-A"].accrued_rate == 0
    assert table_adapter().evaluate(market, urn(WAD, WAD)).health_factor_accrued is None


def test_a_fee_too_large_for_the_jug_keeps_the_rate() -> None:
    market = table_market({**TABLE, (JUG, "ilks", (ETH_A,)): (2 * RAY, BLOCK.timestamp - DAY)})
    assert market.ilks["ETH-A"].accrued_rate == 11 * RAY // 10


def test_the_next_price_is_what_the_osm_tells_the_spotter() -> None:
    osm = {
        (PIP, "zzz", ()): BLOCK.timestamp - 60,
        (PIP, "hop", ()): 3_600,
        (PIP, "peep", ()): ((1_200 * WAD).to_bytes(32), True),
    }
    adapter = table_adapter()
    market = table_market({**TABLE, **osm})
    ilk = market.ilks["ETH-A"]
    assert ilk.next_spot == 800 * RAY
    assert ilk.queue is not None
    assert ilk.queue.at == BLOCK.timestamp + 3_540
    health = adapter.evaluate(market, urn(WAD, 500 * WAD))
    assert health.next_health_factor == WAD * 800 * 10 // 5_500
    for change in (((0).to_bytes(32), False), None):
        empty = {**TABLE, **osm, (PIP, "peep", ()): change}
        if change is None:
            del empty[PIP, "peep", ()]
        market = table_market(empty)
        assert market.ilks["ETH-A"].next_spot is None
        assert adapter.evaluate(market, urn(WAD, 500 * WAD)).next_health_factor is None


def test_an_unknown_ilk_is_said_to_be_unpriceable() -> None:
    health = table_adapter().evaluate(table_market(), urn(WAD, WAD, "NEW-A"))
    assert health.unpriceable
    assert (health.collateral_value, health.debt_value, health.health_factor) == (None, None, None)
    assert health.has_debt
    assert not health.liquidatable


def test_debt_without_collateral_has_a_health_factor_of_zero() -> None:
    health = table_adapter().evaluate(table_market(), urn(0, WAD))
    assert (health.health_factor, health.health_factor_accrued, health.liquidatable) == (0, 0, True)
    assert health.collateral_value == 0


def test_the_sum_of_all_ilks_tells_when_one_is_not_known() -> None:
    adapter, market = table_adapter(), table_market()
    holder = urn(WAD, 100 * WAD)
    assert all(check.holds for check in adapter.checks(market, [holder], Accounts.ALL))
    (broken,) = [c for c in adapter.checks(replace(market, debt=151 * RAD), [holder], Accounts.ALL) if not c.holds]
    assert broken.name == "debt of all ilks"
    (broken,) = [c for c in adapter.checks(market, [urn(WAD, WAD)], Accounts.BORROWERS) if not c.holds]
    assert broken.name == "art of ETH-A"


def test_a_urn_of_the_lockstake_engine_belongs_to_its_user() -> None:
    user = address(98)
    table = {
        **TABLE, **DOGS, **LOGGED,
        (address(8), "urnOwners", (address(99),)): user,
        (address(8), "urnOwners", (address(97),)): address(0),
        (VAT, "urns", (ETH_A, address(99))): (WAD, 1),
        (VAT, "urns", (ETH_A, address(97))): (WAD, 1),
    }  # fmt: skip
    market = table_market(table, chainlog=CHAINLOG)
    keys = [PositionKey(address(99), "ETH-A"), PositionKey(address(97), "ETH-A")]
    staked, raw = table_adapter(chainlog=CHAINLOG).read_positions(TableReader(table), market, keys)
    assert isinstance(staked, Urn)
    assert isinstance(raw, Urn)
    assert (staked.owner, staked.wallet, staked.owner_via) == (user, user, "lockstake")
    assert (raw.owner, raw.wallet, raw.owner_via) == (address(97), address(97), "self")


def test_what_merely_has_an_owner_is_no_proxy_unless_the_registry_lists_it() -> None:
    ownable, person = address(99), address(98)
    table = {**TABLE, (VAT, "urns", (ETH_A, ownable)): (WAD, 1), (ownable, "owner", ()): person}
    key = PositionKey(ownable, "ETH-A")

    def owner(table: Mapping[Any, Any]) -> tuple[str, str]:
        market = table_market(table, proxy_registry=address(9))
        (position,) = table_adapter(proxy_registry=address(9)).read_positions(TableReader(table), market, [key])
        assert isinstance(position, Urn)
        return position.wallet, position.owner_via

    assert owner(table) == (ownable, "self")
    assert owner({**table, (ownable, "cache", ()): address(50)}) == (person, "ds-proxy")
    assert owner({**table, (address(9), "proxies", (person,)): ownable}) == (person, "ds-proxy")
    assert owner({**table, (address(9), "proxies", (person,)): address(51)}) == (ownable, "self")


def test_proxies_are_asked_in_turn_for_their_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker_owners, "PROXIES_ASKED", 2)
    adapter, old, new = table_adapter(), address(60), address(61)
    proxies = [address(100 + n) for n in range(5)]
    vaults = [replace(urn(WAD, 1), owner=p, owner_via="ds-proxy", wallet=old, block_number=90) for p in proxies]
    table = {**TABLE, **{(proxy, "owner", ()): new for proxy in proxies}}
    market, asked = table_market(table), []
    for _ in range(3):
        market = adapter.fit(TableReader(table), market, vaults)
        asked.append([adapter.evaluate(market, vault).wallet for vault in vaults].count(new))
    assert asked == [2, 4, 5]
    # one is read again after it was sold once more; the newest answer counts
    reread = replace(vaults[0], block_number=101, wallet=address(62))
    assert adapter.evaluate(market, reread).wallet == address(62)
    kept = adapter.fit(TableReader(TABLE), market, [reread])
    assert kept.wallets == {}


MAINNET = Maker(
    Deployment(
        "maker", "maker", "mainnet", 0,
        {
            "vat": "0x35D1b3F3D7966A1DFe207aa4514C12a259A0492B",
            "spotter": "0x65C79fcB50Ca1594B025960e539eD7A9a6D434A3",
            "jug": "0x19c0976f590D67707E62397C87829d896Dc0f1F1",
            "cdp_manager": "0x5ef30b9986345249bc32d8928B7ee64DE9435E39",
        },
    )
)  # fmt: skip


MIGRATION = "0xc73e0383f3aff3215e6f04b0331d58cecf0ab849"  # ScdMcdMigration


VAULT = PositionKey("0xb0126a4bbf8c9e10c5cd96adee7638cee3db4624", "ETH-A")


def mainnet_market() -> MakerMarket:
    registry = Registered({3768: VAULT}, {VAULT: 3768})
    return replace(table_market(), registry=registry)


def test_recorded_transactions_touch_exactly_their_urns(shared: Path) -> None:
    found = {}
    for transaction, events in recorded_lending(shared):
        touched = [key for event in events for key in MAINNET.touched(mainnet_market(), event)]
        if touched:
            found[transaction] = touched
    sai = PositionKey(MIGRATION, "SAI")
    assert found == {
        "0x1f1f65d04c9c0de8b39d574380851c0e2f9b2552c9aedd71ff56459e2b83cf5c": [sai],
        # the migration of a single-collateral CDP: two frobs of SAI, the vault's two frobs, and its give between them
        "0x03620c6bf5edb7a7935953337ffcfac70d631cf2012d6c80d36828d636063318": [sai, VAULT, sai, VAULT, VAULT],
    }


def test_other_contracts_touch_nobody(shared: Path) -> None:
    events = recorded_others(shared)
    assert len(events) > 100
    assert [key for event in events for key in MAINNET.touched(mainnet_market(), event)] == []


def test_a_vault_that_is_not_numbered_yet_is_not_touched_by_its_give(shared: Path) -> None:
    market = replace(mainnet_market(), registry=Registered())
    touched = {key for _, events in recorded_lending(shared) for e in events for key in MAINNET.touched(market, e)}
    assert touched == {PositionKey(MIGRATION, "SAI"), VAULT}


def note(contract: str, selector: str, *words: str) -> Event:
    return Event(contract.lower(), (selector, *words), b"", 1, "0x" + "00" * 32, "0x" + "00" * 32, 0)


def test_notes_name_urns_by_the_low_bytes_that_the_vat_takes() -> None:
    dirty, clean = "0x" + "ff" * 12 + "11" * 20, "0x" + "00" * 12 + "22" * 20
    ilk = "0x" + ETH_A.hex()
    first, second = PositionKey("0x" + "11" * 20, "ETH-A"), PositionKey("0x" + "22" * 20, "ETH-A")
    touched = MAINNET.touched
    assert list(touched(mainnet_market(), note(MAINNET.vat, FROB, ilk, dirty, clean))) == [first]
    assert list(touched(mainnet_market(), note(MAINNET.vat, GRAB, ilk, clean, dirty))) == [second]
    assert list(touched(mainnet_market(), note(MAINNET.vat, FORK, ilk, dirty, clean))) == [first, second]
    assert list(touched(mainnet_market(), note(MAINNET.manager, FROB, ilk, dirty, clean))) == []
    assert list(touched(mainnet_market(), note(MAINNET.vat, GIVE, ilk, dirty, clean))) == []
    assert list(touched(mainnet_market(), note(MAINNET.vat, FROB))) == []
