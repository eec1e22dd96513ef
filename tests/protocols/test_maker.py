"""Maker: every urn's value and owner equal what the real contracts say, whoever acted and whoever did not."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexer.errors import ReadFailedError
from indexer.model import RAY, WAD, Accounts, Deployment, Event, Failed, Health, PositionKey, Registered
from indexer.risk.liquidation import liquidation_price
from indexer.store.books import dump_market, dump_position, load_market, load_positions
from protocols.maker.adapter import FROB, Maker
from protocols.maker.market import MakerMarket
from tests import truth
from tests.compound import AlteredReader, Connection
from tests.devnet import maker
from tests.devnet.maker import Answer, word
from tests.devnet.send import Reverted, account
from tests.devnet.worlds import alone

DAY = 86_400
RAD = 10**45
USERS = 60
Urns = dict[PositionKey, Any]


# pure maths


# contracts that answer from a table


# recorded mainnet logs


# the real contracts


@pytest.fixture(scope="module", params=[1, 2], ids="seed-{}".format)
def populated(request: pytest.FixtureRequest, needs_node: None) -> Iterator[maker.Maker]:
    with alone(maker.deploy, request.param, USERS) as market:
        yield market


@pytest.fixture
def adapter(devnet: maker.Maker) -> Maker:
    return adapter_of(devnet)


def adapter_of(devnet: maker.Maker, **addresses: str) -> Maker:
    return Maker(
        Deployment(devnet.name, devnet.protocol, "devnet", devnet.start_block, {**devnet.addresses, **addresses})
    )


def known(devnet: maker.Maker) -> set[PositionKey]:
    return {PositionKey(account, ilk) for ilk, account in devnet.positions}


def read_market(
    adapter: Maker, node: Connection, keys: Iterable[PositionKey], previous: MakerMarket | None = None
) -> MakerMarket:
    """The market at the head with all numbered vaults and all ilks, as the sync makes it."""
    read = node.reader()
    market = adapter.read_market(read, previous)
    numbered = dict(enumerate(adapter.enumerate(read, market, 0), 1))
    registry = Registered(numbered, {key: number for number, key in numbered.items()})
    return adapter.with_keys(read, replace(market, registry=registry), [*keys, *numbered.values()])


def snapshot(adapter: Maker, node: Connection, devnet: maker.Maker) -> tuple[MakerMarket, Urns]:
    """The market and every urn at the head."""
    keys = sorted(known(devnet))
    market = read_market(adapter, node, keys)
    positions = adapter.read_positions(node.reader(), market, keys)
    return adapter.fit(node.reader(), market, positions), {p.key: p for p in positions}


def role(devnet: maker.Maker, name: str) -> PositionKey:
    ilk, account = devnet.roles[name]
    return PositionKey(account, ilk)


def wrong(adapter: Maker, devnet: maker.Maker, market: MakerMarket, positions: Urns) -> list[str]:
    """Where what we compute differs from Vat, Spotter and CdpManager at the market's block, for every urn."""
    block, call = market.block.number, devnet.sender.call
    spotter, vat = devnet.addresses["spotter"], devnet.addresses["vat"]
    ratio, urns = "ilks(bytes32)(address,uint256)", "urns(bytes32,address)(uint256,uint256)"
    mats = {ilk: call(spotter, ratio, [word(ilk)], block=block)[1] for ilk in market.ilks}
    terms = {ilk: devnet.terms(ilk, block) for ilk in market.ilks}
    held = devnet.sender.calls([(vat, urns, [word(key.group), key.account]) for key in positions], block=block)
    found = []
    for (key, position), (ink, art) in zip(positions.items(), held, strict=True):
        health = adapter.evaluate(market, position)
        mat, answer = mats[key.group], Answer(key.group, ink, art, terms[key.group].rate, terms[key.group].spot)
        limit, debt = answer.ink * answer.spot, answer.art * answer.rate
        priced = answer.spot > 0 or not answer.ink
        expected = (
            answer.ink * (answer.spot * mat // RAY) if priced else None,
            limit if priced else None,
            debt,
            limit * WAD // debt if debt and answer.spot else None,
            answer.unsafe,
            answer.spot == 0 and answer.art > 0,
        )
        ours = (
            health.collateral_value,
            health.liquidation_limit,
            health.debt_value,
            health.health_factor,
            health.liquidatable,
            health.unpriceable,
        )
        if ours != expected:
            found.append(f"{key}: {ours} instead of {expected}")
        owner = devnet.owners[key.account]
        if (health.owner, health.wallet, health.owner_via) != owner:
            found.append(f"{key}: {(health.owner, health.wallet, health.owner_via)} instead of {owner}")
    return found


def wrong_accrued(adapter: Maker, devnet: maker.Maker, market: MakerMarket, positions: Urns) -> list[str]:
    """Where the accrued health factor is not what the Vat's rate gives after a drip in that very block."""
    # Jug.drip answers the new rate, and eth_call at a block runs with that block's timestamp
    drip, jug = "drip(bytes32)(uint256)", devnet.addresses["jug"]
    answers = devnet.sender.calls([(jug, drip, [word(ilk)]) for ilk in market.ilks], block=market.block.number)
    rates = dict(zip(market.ilks, answers, strict=True))
    found = []
    for key, position in positions.items():
        debt, spot = position.art * rates[key.group], market.ilks[key.group].spot
        expected = position.ink * spot * WAD // debt if debt and spot else None
        accrued = adapter.evaluate(market, position).health_factor_accrued
        if accrued != expected:
            found.append(f"{key}: {accrued} instead of {expected}")
    return found


def test_every_urn_equals_the_contracts(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    market, positions = snapshot(adapter, node, devnet)
    assert market.exact
    assert len(positions) >= USERS
    assert wrong(adapter, devnet, market, positions) == []
    assert wrong_accrued(adapter, devnet, market, positions) == []
    assert [c for c in adapter.checks(market, positions.values(), Accounts.ALL) if not c.holds] == []


def test_special_situations_are_seen_as_what_they_are(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    market, positions = snapshot(adapter, node, devnet)

    def health(name: str) -> Health:
        return adapter.evaluate(market, positions[role(devnet, name)])

    assert health("just unsafe").liquidatable
    assert not health("just safe").liquidatable
    assert health("unsafe at the next price").next_health_factor is not None
    assert not health("unsafe at the next price").liquidatable
    accrued = health("unsafe once dripped")
    assert not accrued.liquidatable
    assert accrued.health_factor_accrued is not None
    assert accrued.health_factor_accrued < WAD
    assert health("without a price").unpriceable
    assert health("stripped").health_factor == 0
    assert health("repaid").health_factor is None
    assert positions[role(devnet, "repaid")].empty
    assert health("two ilks").key.account == health("two ilks again").key.account
    assert health("no debt").health_factor is None
    assert not health("no debt").has_debt
    assert health("sold with its proxy").wallet == account("maker proxy buyer")
    assert health("urn of a proxy").owner_via == "ds-proxy"


def test_urns_that_nobody_touches_are_right_without_being_read_again(
    adapter: Maker, node: Connection, devnet: maker.Maker
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    jug = devnet.addresses["jug"]
    for change in (
        lambda: devnet.node.elapse(40 * DAY),
        lambda: devnet.drip("ETH-A"),
        lambda: devnet.move_price("WBTC", 0.7),
        lambda: devnet.govern(
            devnet.addresses["spotter"], "file(bytes32,bytes32,uint256)", word("ETH-B"), word("mat"), 2 * RAY
        ),
        lambda: devnet.govern(jug, "file(bytes32,uint256)", word("base"), 3 * 10**17),
        lambda: devnet.void("USDC"),
        lambda: devnet.poke("USDC-A"),
        lambda: devnet.govern(devnet.addresses["spotter"], "file(bytes32,uint256)", word("par"), 101 * RAY // 100),
        lambda: [devnet.poke(ilk) for ilk in ("ETH-A", "ETH-C", "WBTC-A")],
    ):
        change()
        market = read_market(adapter, node, positions, market)
        assert wrong(adapter, devnet, market, positions) == []
        assert wrong_accrued(adapter, devnet, market, positions) == []


def test_logs_name_everyone_who_changed(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    market, positions = snapshot(adapter, node, devnet)
    for seed in range(3):
        devnet.step(seed)
        first = market.block.number + 1
        market = read_market(adapter, node, positions, market)
        discovered = touched(adapter, market, node.events(adapter.logs(market, Accounts.BORROWERS).discovery, first))
        changed = touched(adapter, market, node.events(adapter.logs(market, Accounts.ALL).activity, first))
        assert discovered <= changed
        assert {*positions, *discovered} == known(devnet)
        market = adapter.with_keys(node.reader(), market, discovered)
        keys = sorted(changed & known(devnet))
        assert len(keys) < len(positions) // 2
        positions |= {p.key: p for p in adapter.read_positions(node.reader(), market, keys)}
        market = adapter.fit(node.reader(), market, list(positions.values()))
        assert wrong(adapter, devnet, market, positions) == []
        assert wrong_accrued(adapter, devnet, market, positions) == []
        assert [c for c in adapter.checks(market, positions.values(), Accounts.ALL) if not c.holds] == []


def touched(adapter: Maker, market: MakerMarket, events: Iterable[Event]) -> set[PositionKey]:
    return {key for event in events for key in adapter.touched(market, event)}


@pytest.mark.parametrize("accounts", list(Accounts))
def test_discovery_names_every_urn_of_a_frob_or_fork_and_nobody_else(
    adapter: Maker, node: Connection, devnet: maker.Maker, accounts: Accounts
) -> None:
    market = read_market(adapter, node, [])
    assert touched(adapter, market, node.events(adapter.logs(market, accounts).discovery)) == known(devnet)


def test_an_urn_named_with_dirty_bytes_is_found(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    vat, person, friend = devnet.addresses["vat"], account("maker dirty"), account("maker tidy")
    ink = devnet.join("ETH-B", friend, 3 * WAD)
    words = [word("ETH-B").hex(), "ff" * 12 + person[2:], "00" * 12 + friend[2:], "00" * 12 + friend[2:]]
    data = "0x" + FROB[2:10] + "".join(words) + ink.to_bytes(32).hex() + (0).to_bytes(32).hex()
    devnet.sender.transact({"to": vat, "data": data}, friend, "frob", check=True)
    market = read_market(adapter, node, [])
    keys = touched(adapter, market, node.events(adapter.logs(market, Accounts.ALL).discovery))
    (position,) = adapter.read_positions(node.reader(), market, [PositionKey(person, "ETH-B")])
    assert position.key in keys
    assert not position.empty


def test_vaults_are_listed_without_any_log(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    market = read_market(adapter, node, [])
    assert market.registry.keys == {
        number: PositionKey(account, ilk) for number, (ilk, account) in devnet.vaults.items()
    }
    assert adapter.enumerate(node.reader(), market, len(devnet.vaults)) == []
    last = len(devnet.vaults)
    assert adapter.enumerate(node.reader(), market, last - 1) == [market.registry.keys[last]]
    assert role(devnet, "unused vault") in market.registry.numbers


def test_a_given_vault_and_a_sold_proxy_change_hands(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    market, positions = snapshot(adapter, node, devnet)
    first = market.block.number + 1
    vault, proxied = role(devnet, "vault"), role(devnet, "proxied")
    taker, buyer = account("maker next taker"), account("maker next buyer")
    devnet.give(market.registry.numbers[vault], taker, taker, "cdp-manager")
    owner, wallet, via = devnet.owners[proxied.account]
    devnet.sender.send(owner, "setOwner(address)", [buyer], sender=wallet)
    devnet.own(proxied.account, owner, buyer, via)
    market = read_market(adapter, node, positions, market)
    keys = touched(adapter, market, node.events(adapter.logs(market, Accounts.ALL).activity, first))
    assert keys == {vault}
    positions |= {p.key: p for p in adapter.read_positions(node.reader(), market, sorted(keys))}
    # the proxy's sale logs on the proxy alone; asking every proxy tells
    market = adapter.fit(node.reader(), market, list(positions.values()))
    assert wrong(adapter, devnet, market, positions) == []


def test_the_contracts_own_answers_are_ours(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    market, positions = snapshot(adapter, node, devnet)
    devnet.node.elapse(30 * DAY)
    market = read_market(adapter, node, positions, market)
    for answer in adapter.contract_answers(node.reader(), market, list(positions)):
        health = adapter.evaluate(market, positions[answer.key])
        assert answer.columns == {
            "collateral_value_raw": health.collateral_value,
            "liquidation_limit_raw": health.liquidation_limit,
            "debt_value_raw": health.debt_value,
            "health_factor_raw": health.health_factor,
            "health_factor_accrued_raw": health.health_factor_accrued,
            "owner": health.owner,
            "wallet": health.wallet,
        }
        assert answer.liquidatable == health.liquidatable
        rows = {(b.market, b.side): b for b in adapter.balances(market, positions[answer.key])}
        assert {place: amount for place, amount in answer.amounts.items() if amount} == {
            place: row.amount for place, row in rows.items() if row.amount
        }
        assert {place: amount for place, amount in answer.scaled.items() if amount} == {
            place: row.scaled for place, row in rows.items()
        }


def test_the_cat_bites_exactly_the_liquidatable(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    market, positions = snapshot(adapter, node, devnet)
    bite = "bite(bytes32,address)(uint256)"

    def refusal(key: PositionKey) -> str | None:
        try:
            devnet.sender.call(devnet.contracts["MCD_CAT"], bite, [word(key.group), key.account])
        except Reverted as error:
            return error.reason
        return None

    refusals = {key: refusal(key) for key in positions}
    unsafe = {key for key, reason in refusals.items() if reason != "Cat/not-unsafe"}
    # debt without collateral is unsafe, and not worth an auction
    assert {positions[key].ink for key in unsafe if refusals[key] == "Cat/null-auction"} == {0}
    assert {refusals[key] for key in unsafe} == {None, "Cat/null-auction"}
    assert unsafe == {key for key, position in positions.items() if adapter.evaluate(market, position).liquidatable}
    assert len(unsafe) >= 2


def test_time_to_come_equals_what_a_drip_then_answers(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    market, positions = snapshot(adapter, node, devnet)
    advanced = adapter.after(adapter.after(market, 7 * DAY, 1), 5, 0)
    devnet.node.elapse(7 * DAY + 5)
    later = read_market(adapter, node, positions, market)
    assert advanced.ilks == later.ilks
    assert (advanced.block.number, advanced.block.timestamp) == (later.block.number, later.block.timestamp)
    assert wrong_accrued(adapter, devnet, advanced, positions) == []


def test_other_prices_equal_what_a_poke_then_sets(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    market, positions = snapshot(adapter, node, devnet)
    prices = {"UNI-A": devnet.price("UNI") * 3 // 4 + 1, "LINK-A": devnet.price("LINK") * 9 // 7}
    repriced = adapter.with_prices(market, prices)
    for ilk, price in prices.items():
        devnet.set_price(ilk.removesuffix("-A"), price)
    later = read_market(adapter, node, positions, market)
    assert {n: i.spot for n, i in repriced.ilks.items()} == {n: i.spot for n, i in later.ilks.items()}
    assert [a.price for a in repriced.assets] == [a.price for a in later.assets]
    assert {a.group: a.price for a in later.assets if a.group in prices} == prices
    assert (
        adapter.with_prices(market, {market.ilks["UNI-A"].asset: prices["UNI-A"]}).ilks["UNI-A"]
        == repriced.ilks["UNI-A"]
    )
    unchanged = adapter.with_prices(later, {a.group: a.price for a in later.assets if a.group and a.price})
    assert {n: i.spot for n, i in unchanged.ilks.items()} == {n: i.spot for n, i in later.ilks.items()}


def test_the_next_health_factor_comes_true_at_the_next_poke(
    adapter: Maker, node: Connection, devnet: maker.Maker
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    upcoming = {k: adapter.evaluate(market, p).next_health_factor for k, p in positions.items() if k.group == "ETH-A"}
    assert any(upcoming.values())
    devnet.pass_hour("ETH")
    devnet.poke("ETH-A")
    later = read_market(adapter, node, positions, market)
    assert {k: adapter.evaluate(later, positions[k]).health_factor for k in upcoming} == upcoming
    assert adapter.evaluate(later, positions[role(devnet, "unsafe at the next price")]).liquidatable
    # ETH-B has the same gem without an OSM in between
    assert all(
        adapter.evaluate(market, p).next_health_factor is None for k, p in positions.items() if k.group == "ETH-B"
    )


def test_below_the_liquidation_price_an_urn_is_unsafe(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    market, positions = snapshot(adapter, node, devnet)
    seen = 0
    for key, position in positions.items():
        # an ilk without a price has none that could fall: it gets one
        market = market if market.ilks[key.group].spot else adapter.with_prices(market, {key.group: WAD})
        found = [liquidation_price(adapter, market, position, p) for p in adapter.exposure(market, position)]
        if not found or found[0] is None:
            assert not position.ink or not position.art
            continue
        seen, price = seen + 1, found[0].safe
        assert not adapter.evaluate(adapter.with_prices(market, {key.group: price}), position).liquidatable
        below = adapter.evaluate(adapter.with_prices(market, {key.group: price - 1}), position)
        assert below.liquidatable
        assert below.health_factor is not None
        assert below.health_factor < WAD
    assert seen > USERS // 2


def test_tokens_come_from_the_ilk_registry(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    contracts = devnet.contracts
    adapter = adapter_of(devnet, ilk_registry=contracts["ILK_REGISTRY"], dai=contracts["MCD_DAI"])
    market, positions = snapshot(adapter, node, devnet)
    assert len(market.ilks) > 20
    for ilk in devnet.ilks.values():
        gem = market.ilks[ilk.name].gem
        assert (gem.address, gem.join, gem.decimals) == (ilk.gem, ilk.join, ilk.decimals)
    assert wrong(adapter, devnet, market, positions) == []
    supply, debt = adapter.balances(market, positions[role(devnet, "six decimals")])
    assert (supply.asset, supply.symbol, supply.decimals) == (contracts["USDC"], "USDC", 6)
    assert supply.amount * 10**12 == supply.scaled
    assert debt.asset == contracts["MCD_DAI"]


def test_a_wallet_finds_its_vaults_without_a_database(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    read = node.reader()
    for name in ("vault", "given", "proxied", "given to a proxy", "raw", "urn of a proxy"):
        key = role(devnet, name)
        owner = devnet.owners[key.account]
        market, keys = adapter.of_wallets(read, adapter.read_market(read, None), [owner.wallet])
        assert key in keys, name
        (position,) = adapter.read_positions(read, market, [key])
        health = adapter.evaluate(market, position)
        assert (health.owner, health.wallet, health.owner_via) == owner, name


def test_the_market_and_urns_survive_storage(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    market, positions = snapshot(adapter, node, devnet)
    stored = load_market(adapter, dump_market(market))
    assert stored == market
    for position in positions.values():
        (back,) = load_positions(adapter, [(position.block_number, dump_position(position))])
        assert back == position
        assert adapter.evaluate(stored, back) == adapter.evaluate(market, position)


def test_a_refresh_costs_the_same_however_many_urns_there_are(
    adapter: Maker, node: Connection, devnet: maker.Maker
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    few = {key: positions[key] for key in list(positions)[:5]}

    def refresh(held: Urns) -> int:
        # the node's habits (which calls fail) are learnt on the first round
        def act() -> None:
            fresh = replace(adapter.read_market(node.reader(), market), registry=market.registry)
            adapter.fit(node.reader(), fresh, list(held.values()))

        act()
        return node.requests(act)

    assert refresh(positions) == refresh(few)


def test_an_urn_of_another_vat_fails_loudly(adapter: Maker, node: Connection, devnet: maker.Maker) -> None:
    read = AlteredReader(
        node.reader(), lambda read, answer: Failed(read) if read.signature.startswith("par(") else answer
    )
    with pytest.raises(ReadFailedError, match="par"):
        adapter.read_market(read, None)


# the whole way into a database


def test_a_synced_database_equals_the_contracts(tmp_path: Path, devnet: maker.Maker) -> None:
    path = tmp_path / "maker.db"
    for seed in range(3):
        outcome = truth.sync_once(path, devnet.node.url, [devnet], accounts="borrowers")
        assert outcome.failed == {}
        rows = truth.rows_of(path, devnet.name)
        assert set(rows) == {(account, ilk) for ilk, account in devnet.positions}
        assert {row["block_number"] for row in rows.values()} == {outcome.block.number}
        for (account_, ilk), row in rows.items():
            answer = devnet.position(ilk, account_, outcome.block.number)
            priced = answer.spot or not answer.ink
            assert truth.as_int(row["liquidation_limit_raw"]) == (answer.ink * answer.spot if priced else None)
            assert int(row["debt_value_raw"]) == answer.art * answer.rate
            assert (row["status"] == "liquidatable") == answer.unsafe
            assert (row["status"] == "unpriceable") == (answer.spot == 0 and answer.art > 0)
            assert (row["owner"], row["wallet"], row["owner_via"]) == devnet.owners[account_]
        assert truth.raw(path, "select state from deployments") == [("ok",)]
        devnet.step(seed)
