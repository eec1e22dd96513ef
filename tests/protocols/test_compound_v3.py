"""Compound V3: every value equals the Comet's own answers, debt that moves without a log included.

The devnet's Comet is a stand-in that follows the real contract's ABI, storage, rounding and events.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexer.errors import ReadFailedError
from indexer.model import WAD, Accounts, Block, Deployment, Failed, PositionKey, Read
from indexer.risk.evaluate import amounts_of, differences, evaluate_all
from indexer.store.books import dump_market, dump_position, load_market, load_positions
from protocols.compound_v3.adapter import (
    ABSORB_COLLATERAL,
    ABSORB_DEBT,
    LIQUIDATABLE,
    SUPPLY,
    SUPPLY_COLLATERAL,
    TRANSFER,
    TRANSFER_COLLATERAL,
    WITHDRAW,
    WITHDRAW_COLLATERAL,
    CompoundV3,
)
from protocols.compound_v3.market import Collateral, CompoundV3Market
from protocols.compound_v3.position import (
    CompoundV3Position,
)
from tests import compound
from tests.compound import AlteredReader, Connection, accounts_in, by_account, keys, snapshot
from tests.devnet import compound_v3
from tests.devnet.node import Anvil
from tests.devnet.send import account
from tests.devnet.worlds import alone

DAY = 86_400
USERS = 60
INDEX = 10**15
LIQUIDATABLE_READ = "isLiquidatable(address)(bool)"


def adapter_of(market: compound_v3.CompoundV3, **addresses: str) -> CompoundV3:
    known = {**market.addresses, **addresses}
    return CompoundV3(Deployment(market.name, market.protocol, "devnet", market.start_block, known))


@pytest.fixture(scope="module", params=[("USDC", False, 1), ("WETH", True, 2)], ids=str)
def populated(request: pytest.FixtureRequest, needs_node: None) -> Iterator[compound_v3.CompoundV3]:
    base, extended, seed = request.param
    with alone(lambda node: compound_v3.deploy(node, base=base, extended=extended), seed, USERS) as market:
        yield market


@pytest.fixture
def adapter(devnet: compound_v3.CompoundV3) -> CompoundV3:
    return adapter_of(devnet)


def wrong(
    adapter: CompoundV3, devnet: compound_v3.CompoundV3, market: CompoundV3Market, positions: dict[str, Any]
) -> list[str]:
    """Where what we compute differs from the Comet at the market's block, for every user."""
    block = market.block.number
    held = devnet.sender.calls(
        [
            (devnet.comet, compound_v3.COLLATERAL, [user, devnet.tokens[asset.symbol]])
            for user in devnet.users
            for asset in devnet.assets
        ],
        block=block,
    )
    found = []
    for i, user in enumerate(devnet.users):
        position = positions[user]
        health = adapter.evaluate(market, position)
        answer = devnet.answer(user, block)
        if (None if health.unpriceable else health.liquidatable) != answer.liquidatable:
            found.append(f"{user} liquidatable: {health.liquidatable} instead of {answer.liquidatable}")
        expected = {(devnet.tokens[devnet.base], "supply"): answer.balance}
        expected[devnet.tokens[devnet.base], "debt"] = answer.borrow_balance
        for n, asset in enumerate(devnet.assets):
            expected[devnet.tokens[asset.symbol], "supply"] = held[i * len(devnet.assets) + n]
        ours = {(row.asset, row.side): row.amount for row in adapter.balances(market, position) if row.amount}
        if ours != {place: amount for place, amount in expected.items() if amount}:
            found.append(f"{user} holds {ours} instead of {expected}")
        if health.has_debt != (devnet.principal(user, block) < 0):
            found.append(f"{user} has debt: {health.has_debt}")
    return found


def wrong_accrued(
    adapter: CompoundV3, devnet: compound_v3.CompoundV3, market: CompoundV3Market, positions: dict[str, Any]
) -> list[str]:
    """Where the accrued health contradicts `isLiquidatable` after the contract accrued, at the head of the node."""
    accrue = [Read(devnet.comet, "accrueAccount(address)()", (devnet.comet,))]
    reads = [Read(devnet.comet, LIQUIDATABLE_READ, (user,)) for user in devnet.users]
    node = Connection(devnet.node)
    answers = node.reader(market.block.number)(reads, prelude=accrue)
    node.chain.close()
    found = []
    for user, answer in zip(devnet.users, answers, strict=True):
        health = adapter.evaluate(market, positions[user])
        if health.unpriceable or isinstance(answer, Failed):
            continue
        factor = health.health_factor_accrued
        if (factor is not None and factor < WAD) != answer:
            found.append(f"{user}: {factor}, and the contract says {answer}")
    return found


def test_every_user_equals_the_contract(adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3) -> None:
    market, positions = snapshot(adapter, node, devnet)
    assert market.exact
    assert market.checked
    assert len(market.collaterals) == (20 if devnet.extended else 6)
    assert wrong(adapter, devnet, market, positions) == []
    assert wrong_accrued(adapter, devnet, market, positions) == []


def test_the_contracts_own_answers_are_ours(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    compared = 0
    for answer in adapter.contract_answers(node.reader(), market, keys(devnet.users)):
        position = positions[answer.key.account]
        health = adapter.evaluate(market, position)
        ours = {
            "collateral_value_raw": health.collateral_value,
            "liquidation_limit_raw": health.liquidation_limit,
            "debt_value_raw": health.debt_value,
            "health_factor_raw": health.health_factor,
            "health_factor_accrued_raw": health.health_factor_accrued,
        }
        told = {name: value for name, value in answer.columns.items() if name in ours}
        assert told == {name: ours[name] for name in told}
        compared += len(told)
        assert answer.liquidatable == (None if health.unpriceable else health.liquidatable)
        rows = {(row.asset, row.side): row for row in adapter.balances(market, position)}
        for kind, values in (("amount", answer.amounts), ("scaled", answer.scaled)):
            ours_by_place = {place: getattr(row, kind) for place, row in rows.items()}
            assert {place: value for place, value in values.items() if value} == ours_by_place
    assert compared > 4 * len(devnet.users)


def test_what_the_contract_says_after_an_accrual_is_compared_too(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    devnet.node.elapse(30 * DAY)
    devnet.node.mine()
    market, positions = snapshot(adapter, node, devnet)
    rows = {row.account: row for row in evaluate_all(1, adapter, market, positions.values())}
    told = []
    for answer in adapter.contract_answers(node.reader(), market, keys(devnet.users)):
        row = rows[answer.key.account]
        amounts = amounts_of(adapter.balances(market, positions[answer.key.account]))
        assert differences(row, amounts, answer) == []
        if row.health_factor_accrued_raw is not None:
            liquidatable = answer.columns["liquidatable_accrued"]
            told.append((answer.liquidatable, liquidatable))
            other = replace(answer, columns={**answer.columns, "liquidatable_accrued": not liquidatable})
            assert [what for what, _, _ in differences(row, amounts, other)] == ["liquidatable_accrued"]
    assert (False, True) in told


def test_time_and_prices_need_no_new_read_of_who_did_nothing(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    for change in (
        lambda: devnet.node.elapse(20 * DAY),
        lambda: devnet.move_price(devnet.assets[2].symbol, 0.9),
        lambda: devnet.accrue(devnet.roles["keeper"], devnet.roles["debtor"]),
        lambda: devnet.move_price(devnet.base, 1.03),
        lambda: devnet.node.mine(3, DAY),
    ):
        change()
        market = adapter.read_market(node.reader(), market)
        assert wrong(adapter, devnet, market, positions) == []
        assert wrong_accrued(adapter, devnet, market, positions) == []


def test_reading_everyone_who_holds_something_finds_every_change(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    for seed in range(3):
        devnet.step(seed)
        touched = accounts_in(adapter, market, node.news(adapter, market))
        assert touched <= set(devnet.users)
        read = node.reader()
        market = adapter.read_market(read, market)
        untracked = {user for user, position in positions.items() if adapter.changes_silently(market, position)}
        positions |= by_account(adapter.read_positions(read, market, keys(touched | untracked)))
        assert wrong(adapter, devnet, market, positions) == []
        assert wrong_accrued(adapter, devnet, market, positions) == []


def test_debt_moves_without_a_log_that_names_the_debtor(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, before = snapshot(adapter, node, devnet)
    role = devnet.roles
    part = 2 * devnet.borrow_minimum
    supplier = max(devnet.users, key=lambda user: before[user].principal)
    owner = role["collateral only"]
    devnet.accrue(role["keeper"], owner)
    devnet.transfer(role["silent sender"], role["silent receiver"], part)
    devnet.transfer(role["silent sender"], supplier, part)
    devnet.transfer(supplier, role["silent receiver"], part)
    devnet.transfer(owner, role["silent receiver"], devnet.borrow_minimum)
    touched = accounts_in(adapter, market, node.news(adapter, market))
    assert touched == {supplier}
    silent = {role["silent sender"], role["silent receiver"], owner}
    _, after = snapshot(adapter, node, devnet)
    assert {user for user in devnet.users if after[user].principal != before[user].principal} == silent | touched
    assert after[owner].principal < 0 == before[owner].principal
    assert all(adapter.changes_silently(market, before[user]) for user in silent)


def test_even_a_supplier_changes_without_a_log(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, before = snapshot(adapter, node, devnet)
    sender = devnet.roles["debtor"]
    suppliers = [user for user in devnet.users if before[user].principal > 0]
    for supplier in suppliers:
        devnet.transfer(sender, supplier, 0)
    touched = accounts_in(adapter, market, node.news(adapter, market))
    _, after = snapshot(adapter, node, devnet)
    changed = {user for user in suppliers if after[user].principal != before[user].principal}
    assert changed - touched
    assert all(adapter.changes_silently(market, before[user]) for user in changed)


def test_an_empty_account_is_not_read_again(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    emptied = positions[devnet.roles["emptied"]]
    assert emptied.empty
    assert not adapter.changes_silently(market, emptied)
    # where a loan may be worth nothing, an account without collateral can become a debtor unseen
    assert adapter.changes_silently(replace(market, base_borrow_min=0), emptied)


def test_discovery_names_every_holder_of_collateral_and_with_all_everyone(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, _ = snapshot(adapter, node, devnet)
    holders = accounts_in(adapter, market, node.events(adapter.logs(market, Accounts.BORROWERS).discovery))
    everyone = accounts_in(adapter, market, node.events(adapter.logs(market, Accounts.ALL).discovery))
    assert devnet.borrowers <= devnet.holders == holders
    silent = {devnet.roles[name] for name in ("keeper", "stranger", "manager", "liquidator") if name in devnet.roles}
    assert holders < everyone <= set(devnet.users)
    assert set(devnet.users) - everyone <= silent


def test_supplying_or_sending_no_collateral_makes_nobody_a_holder(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, _ = snapshot(adapter, node, devnet)
    symbol, named = devnet.assets[1].symbol, account("named by nothing")
    logs_before = len(node.events(adapter.logs(market, Accounts.BORROWERS).discovery))
    devnet.supply(devnet.roles["stranger"], symbol, 0, to=named)
    devnet.transfer_collateral(devnet.roles["stranger"], named, symbol, 0)
    events = node.events(adapter.logs(market, Accounts.BORROWERS).discovery)
    assert len(events) == logs_before + 2
    assert named not in accounts_in(adapter, market, events)


def test_sums_hold_and_show_who_is_missing(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    holders = [positions[user] for user in devnet.holders]
    assert all(check.holds for check in adapter.checks(market, positions.values(), Accounts.ALL))
    assert all(check.holds for check in adapter.checks(market, holders, Accounts.BORROWERS))
    for missing in ("silent receiver", "collateral only"):
        rest = [p for user, p in positions.items() if user != devnet.roles[missing]]
        assert not all(check.holds for check in adapter.checks(market, rest, Accounts.ALL))


def test_a_dead_feed_matters_only_where_the_contract_reaches_it(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    health = {
        name: adapter.evaluate(market, positions[devnet.roles[name]])
        for name in ("on dead collateral", "covered before dead collateral", "dead collateral only")
    }
    needed, covered, idle = health.values()
    assert (needed.unpriceable, covered.unpriceable, idle.unpriceable) == (True, False, False)
    assert not any(one.liquidatable for one in health.values())
    assert {one.health_factor for one in health.values()} == {None}
    assert {one.collateral_value for one in health.values()} == {None}
    assert needed.has_debt
    assert covered.has_debt
    assert covered.debt_value
    assert not idle.has_debt


def test_delisted_collateral_needs_no_price_and_stays_behind_an_absorption(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    """The Comets of 2026 skip a factor of 0: in isLiquidatable, and in absorb, which forgets what it leaves."""
    devnet.patched = True
    place = next(i for i, asset in enumerate(devnet.assets) if asset.symbol == compound_v3.DEAD)
    devnet.assets[place] = replace(devnet.assets[place], borrow_factor=0, liquidate_factor=0, liquidation_factor=0)
    devnet.upgrade()
    market, positions = snapshot(adapter, node, devnet)
    assert market.exact
    assert wrong(adapter, devnet, market, positions) == []
    debtor, covered = (devnet.roles[name] for name in ("on dead collateral", "covered before dead collateral"))
    assert adapter.evaluate(market, positions[debtor]).health_factor == 0
    health = adapter.evaluate(market, positions[covered])
    assert health.collateral_value is None
    assert health.health_factor
    assert health.health_factor == (health.liquidation_limit or 0) * WAD // (health.debt_value or 1)

    devnet.absorb(devnet.roles["liquidator"], debtor)
    for storage in (False, True):
        read = AlteredReader(node.reader(), storage=storage)
        market = replace(adapter.read_market(read, None), layout_known=storage)
        positions = by_account(adapter.read_positions(read, market, keys(devnet.users)))
        assert wrong(adapter, devnet, market, positions) == []
        assert all(check.holds for check in adapter.checks(market, positions.values(), Accounts.ALL))
        (row,) = adapter.balances(market, positions[debtor])
        assert row.amount == devnet.collateral(debtor, compound_v3.DEAD)
        assert not row.is_collateral
        assert adapter.changes_silently(market, positions[debtor])
        (answer,) = adapter.contract_answers(read, market, keys([debtor]))
        assert answer.columns["collateral_value_raw"] == adapter.evaluate(market, positions[debtor]).collateral_value


def test_a_dead_base_feed_makes_every_debtor_unpriceable(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    devnet.set_price(devnet.base, 0)
    market, positions = snapshot(adapter, node, devnet)
    assert wrong(adapter, devnet, market, positions) == []
    for position in positions.values():
        health = adapter.evaluate(market, position)
        assert health.unpriceable == (position.principal < 0)
        assert health.debt_value == (None if position.principal < 0 else 0)


def test_dust_that_is_worth_nothing_has_no_health_factor(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    health = adapter.evaluate(market, positions[devnet.roles["dust debtor"]])
    assert health.has_debt
    assert not health.liquidatable
    if devnet.base == "WETH":  # a unit of USDC is worth 100 of the price's units
        assert health.debt_value == 0
        assert health.health_factor is None


def test_interest_alone_makes_an_account_liquidatable_when_accrued(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    devnet.node.elapse(DAY)
    market, positions = snapshot(adapter, node, devnet)
    above, below = (adapter.evaluate(market, positions[devnet.roles[name]]) for name in ("just above", "just below"))
    assert (above.liquidatable, below.liquidatable) == (False, True)
    assert above.health_factor is not None
    assert above.health_factor_accrued is not None
    assert above.health_factor >= WAD > above.health_factor_accrued
    devnet.accrue(devnet.roles["keeper"], devnet.roles["just above"])
    assert devnet.answer(devnet.roles["just above"]).liquidatable


def test_time_to_come_equals_what_the_views_then_answer(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    devnet.node.elapse(33 * DAY)
    advanced = adapter.after(adapter.after(market, 30 * DAY, 1), 3 * DAY, 0)
    later = adapter.read_market(node.reader(), market)
    assert replace(advanced, block=later.block, assets=()) == replace(later, assets=())
    assert (advanced.block.number, advanced.block.timestamp) == (later.block.number, later.block.timestamp)
    assert wrong(adapter, devnet, advanced, positions) == []
    assert wrong_accrued(adapter, devnet, advanced, positions) == []


def test_other_prices_equal_what_the_feeds_then_answer(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    prices = {symbol: devnet.price(symbol) * 7 // 10 for symbol in (devnet.assets[1].symbol, devnet.assets[2].symbol)}
    prices[devnet.base] = devnet.price(devnet.base) * 11 // 10
    for symbol, price in prices.items():
        devnet.set_price(symbol, price)
    repriced = adapter.with_prices(market, {devnet.tokens[symbol]: price for symbol, price in prices.items()})
    later = adapter.read_market(node.reader(), market)
    assert repriced.collaterals == later.collaterals
    assert repriced.base_price == later.base_price
    assert [row.price_usd for row in repriced.assets] == [row.price_usd for row in later.assets]
    for user, position in positions.items():
        health = adapter.evaluate(repriced, position)
        assert (None if health.unpriceable else health.liquidatable) == devnet.answer(user).liquidatable


def test_paused_absorption_blocks_it_and_leaves_the_health_alone(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    devnet.pause(absorb=True)
    market, positions = snapshot(adapter, node, devnet)
    health = adapter.evaluate(market, positions[devnet.roles["just below"]])
    assert health.liquidatable
    assert health.blocked_by == ("absorb-paused",)
    assert adapter.evaluate(market, positions[devnet.roles["collateral only"]]).blocked_by == ()
    assert wrong(adapter, devnet, market, positions) == []


def test_an_upgrade_that_lists_an_asset_is_followed_and_checked_again(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, _ = snapshot(adapter, node, devnet)
    assert adapter.read_market(node.reader(), market).checked
    devnet.assets.append(compound_v3.Asset("NEW", 8, 3 * compound_v3.FEED, 60, 70, 80))
    implementation = devnet.upgrade()
    holder = devnet.roles["debtor"]
    devnet.supply(holder, "NEW", 10**10)
    upgraded = adapter.read_market(node.reader(), market)
    assert upgraded.revision == implementation != market.revision
    assert not upgraded.checked
    upgraded, positions = snapshot(adapter, node, devnet)
    assert positions[holder].collateral[devnet.tokens["NEW"]] == 10**10
    assert wrong(adapter, devnet, upgraded, positions) == []


def test_an_implementation_that_cannot_be_read_is_checked_each_time(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    read = AlteredReader(node.reader(), storage=False)
    market = adapter.read_market(read, None)
    assert market.revision == devnet.comet
    market = adapter.fit(read, market, adapter.read_positions(read, market, keys(devnet.users)))
    assert market.checked
    assert not adapter.read_market(read, market).checked


def test_another_formula_is_not_exact(adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3) -> None:
    def alter(read: Read, answer: Any) -> Any:
        return not answer if read.signature == LIQUIDATABLE else answer

    read = AlteredReader(node.reader(), alter)
    market = adapter.read_market(read, None)
    market = adapter.fit(read, market, adapter.read_positions(read, market, keys(devnet.users)))
    assert not market.exact
    assert market.note is not None
    assert market.revision in market.note


def test_values_in_ether_become_dollars_through_the_feed(node: Connection, devnet: compound_v3.CompoundV3) -> None:
    plain = adapter_of(devnet).read_market(node.reader(), None)
    if devnet.base == "WETH":  # worth 1: nothing tells what that is in USD
        assert (plain.usd, plain.assets[0].price_usd, plain.exact) == (None, None, True)
        assert plain.note is not None
        assert "prices are in ETH" in plain.note
    else:
        assert (plain.usd, plain.note) == ((1, 10**8), None)
    adapter = adapter_of(devnet, eth_usd_feed=devnet.eth_usd_feed)
    priced = adapter.read_market(node.reader(), None)
    assert priced.usd == (2_500 * 10**8, 10**16)
    assert priced.assets[0].price_usd == pytest.approx(devnet.price(devnet.base) / 10**8 * 2_500)
    through_base = adapter_of(
        devnet, eth_usd_feed=devnet.eth_usd_feed, base_eth_feed=devnet.feeds[devnet.assets[2].symbol]
    ).read_market(node.reader(), None)
    assert through_base.usd is not None
    assert through_base.usd[0] / through_base.usd[1] == pytest.approx(
        2_500 * devnet.price(devnet.assets[2].symbol) / 10**16
    )
    devnet.sender.send(devnet.eth_usd_feed, "set(int256)", [0])
    dead = adapter.read_market(node.reader(), None)
    assert dead.usd is None
    assert dead.assets[0].price_usd is None
    assert dead.exact


def test_the_market_tells_its_assets(adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3) -> None:
    market, _ = snapshot(adapter, node, devnet)
    base, *rows = market.assets
    assert (base.symbol, base.asset, base.market) == (devnet.base, devnet.tokens[devnet.base], devnet.comet)
    assert 10**base.decimals == devnet.unit
    assert base.total_debt == devnet.sender.call(devnet.comet, "totalBorrow()(uint256)")
    assert base.total_supply == devnet.sender.call(devnet.comet, "totalSupply()(uint256)")
    assert base.borrow_rate is not None
    assert 0 < base.borrow_rate < 10
    assert [row.symbol for row in rows] == [asset.symbol for asset in devnet.assets]
    for row, asset in zip(rows, devnet.assets, strict=True):
        assert row.decimals == asset.decimals
        assert row.price == (devnet.price(asset.symbol) or None)
        assert row.ltv == pytest.approx(asset.borrow_factor / 100)
        assert row.liquidation_threshold == pytest.approx(asset.liquidate_factor / 100)
        assert row.liquidation_bonus == pytest.approx(1 - asset.liquidation_factor / 100)


def test_storage_tells_the_same_as_the_getters(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    assert market.layout_known
    devnet.step(1)
    read = node.reader()
    asked: list[Read] = []

    def note(one: Read, answer: Any) -> Any:
        asked.append(one)
        return answer

    by_storage = adapter.read_positions(AlteredReader(read, note), market, keys(devnet.users))
    assert asked == []
    without = AlteredReader(read, note, storage=False)
    assert by_storage == adapter.read_positions(without, market, keys(devnet.users))
    assert len(asked) > len(devnet.users)
    assert by_storage != list(positions.values())
    market = adapter.read_market(read, market)
    assert market.layout_known
    assert wrong(adapter, devnet, market, by_account(by_storage)) == []


def test_another_layout_of_storage_is_not_used(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    class Moved(AlteredReader):
        def storage(self, slots: Sequence[tuple[str, int]]) -> list[int] | None:
            return self.reader.storage([(contract, slot if slot > 2**255 else slot + 1) for contract, slot in slots])

    read = Moved(node.reader())
    market = adapter.read_market(read, None)
    market = adapter.fit(read, market, adapter.read_positions(read, market, keys(devnet.users)))
    assert market.checked
    assert not market.layout_known
    positions = by_account(adapter.read_positions(read, market, keys(devnet.users)))
    assert wrong(adapter, devnet, market, positions) == []


def test_a_refresh_costs_a_few_requests_however_many_accounts_there_are(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    read = node.reader()
    assert node.requests(lambda: adapter.read_market(read, market)) <= 5
    assert node.requests(lambda: adapter.fit(read, market, list(positions.values()))) == 0
    for users in (devnet.users[:10], devnet.users):
        assert node.requests(lambda users=users: adapter.read_positions(read, market, keys(users))) == 2


def test_markets_and_positions_survive_being_stored(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    assert load_market(adapter, dump_market(market)) == market
    for position in positions.values():
        (again,) = load_positions(adapter, [(position.block_number, dump_position(position))])
        assert again == position
        assert list(again.collateral) == list(position.collateral)


def test_an_account_that_cannot_be_read_is_an_error(
    adapter: CompoundV3, node: Connection, devnet: compound_v3.CompoundV3
) -> None:
    read = node.reader()
    market = adapter.read_market(read, None)
    broken = AlteredReader(read, lambda one, answer: Failed(one) if one.signature.startswith("userBasic") else answer)
    with pytest.raises(ReadFailedError, match="userBasic"):
        adapter.read_positions(broken, market, keys(devnet.users[:3]))


@pytest.mark.parametrize(
    ("base", "extended", "seed"),
    [
        ("WETH", False, 3),
        ("USDC", True, 4),
        *(pytest.param("WETH" if n % 2 else "USDC", n % 3 == 0, n, marks=pytest.mark.long) for n in range(5, 17)),
    ],
)
def test_other_histories_are_right_too(needs_node: None, base: str, extended: bool, seed: int) -> None:
    with Anvil() as anvil:
        anvil.place_multicall3()
        devnet = compound_v3.deploy(anvil, base=base, extended=extended)
        devnet.populate(seed, 40)
        node, adapter = Connection(anvil), adapter_of(devnet)
        market, positions = snapshot(adapter, node, devnet)
        for step in range(3):
            devnet.step(step)
            touched = accounts_in(adapter, market, node.news(adapter, market))
            read = node.reader()
            market = adapter.read_market(read, market)
            again = touched | {
                user for user, position in positions.items() if adapter.changes_silently(market, position)
            }
            positions |= by_account(adapter.read_positions(read, market, keys(again)))
            assert all(check.holds for check in adapter.checks(market, positions.values(), Accounts.ALL))
        assert wrong(adapter, devnet, market, positions) == []
        assert wrong_accrued(adapter, devnet, market, positions) == []
        node.chain.close()


# Recorded mainnet data

USDC_COMET = "0xc3d688b66703497daa19211eedff47f25384cdc3"


@pytest.fixture
def mainnet() -> tuple[CompoundV3, CompoundV3Market]:
    adapter = CompoundV3(Deployment("compound-v3-usdc", "compound-v3", "mainnet", 0, {"comet": USDC_COMET}))
    market = CompoundV3Market(
        block=Block(16_000_000, "0x" + "1" * 64, "0x" + "2" * 64, 1_700_000_000),
        revision="recorded",
        usd=(1, 10**8),
        comet=USDC_COMET,
        base="0x" + "ba" * 20,
        base_scale=10**6,
        base_price=10**8,
        base_borrow_min=10**8,
        supply_index=INDEX,
        borrow_index=INDEX,
        supply_index_accrued=INDEX,
        borrow_index_accrued=INDEX,
        supply_rate=0,
        borrow_rate=0,
        accrued_at=1_700_000_000,
        total_supply_base=0,
        total_borrow_base=0,
        absorb_paused=False,
        collaterals=(
            Collateral(
                asset="0x" + "c0" * 20, offset=0, scale=10**18, liquidate_factor=WAD // 2, price=None, total_supply=0
            ),
        ),
    )
    return adapter, market


ALICE, BOB, ZERO, ASSET = ("0x" + byte * 20 for byte in ("a1", "b0", "00", "cc"))


@pytest.mark.parametrize(
    ("address", "topics", "touched"),
    [
        (USDC_COMET, [SUPPLY, ALICE, BOB], {BOB}),
        (USDC_COMET, [WITHDRAW, ALICE, BOB], {ALICE}),
        (USDC_COMET, [TRANSFER, ALICE, ZERO], {ALICE}),
        (USDC_COMET, [TRANSFER, ZERO, BOB], {BOB}),
        (USDC_COMET, [SUPPLY_COLLATERAL, ALICE, BOB, ASSET], {BOB}),
        (USDC_COMET, [SUPPLY_COLLATERAL, ALICE, ZERO, ASSET], {ZERO}),  # there it is an account like any other
        (USDC_COMET, [WITHDRAW_COLLATERAL, ALICE, BOB, ASSET], {ALICE}),
        (USDC_COMET, [TRANSFER_COLLATERAL, ALICE, BOB, ASSET], {ALICE, BOB}),
        (USDC_COMET, [ABSORB_DEBT, ALICE, BOB], {BOB}),
        (USDC_COMET, [ABSORB_COLLATERAL, ALICE, BOB, ASSET], {BOB}),
        (BOB, [SUPPLY_COLLATERAL, ALICE, BOB, ASSET], set()),
        (USDC_COMET, [SUPPLY_COLLATERAL], set()),
        (USDC_COMET, [], set()),
    ],
)
def test_an_event_touches_whose_balances_it_changes(
    mainnet: tuple[CompoundV3, CompoundV3Market], address: str, topics: list[str], touched: set[str]
) -> None:
    adapter, market = mainnet
    assert accounts_in(adapter, market, [compound.event(address, topics, [1, 2])]) == touched


def test_recorded_transactions_touch_exactly_the_right_accounts(
    shared: Path, mainnet: tuple[CompoundV3, CompoundV3Market]
) -> None:
    adapter, market = mainnet
    touched = {
        transaction[:10]: accounts
        for transaction, events in compound.recorded_lending(shared)
        if (accounts := accounts_in(adapter, market, events))
    }
    assert touched == {
        "0xd8ba70d3": {"0xd7ca0e0238e3fdab2a33646348207ab945d55df7"},  # Withdraw and Transfer of its source
        "0x542abb3d": {"0xd413dcf1b80e10a8ba7cab329da7545ccc827319"},  # SupplyCollateral for another
    }


def test_other_contracts_touch_nobody(shared: Path, mainnet: tuple[CompoundV3, CompoundV3Market]) -> None:
    adapter, market = mainnet
    assert accounts_in(adapter, market, compound.recorded_others(shared)) == set()
    for number in (11_114_732, 12_243_999):
        assert accounts_in(adapter, market, compound.recorded_block(shared, number)) == set()


def test_collateral_behind_the_market_is_a_missing_price(mainnet: tuple[CompoundV3, CompoundV3Market]) -> None:
    adapter, market = mainnet
    position = CompoundV3Position(
        key=PositionKey("0x" + "a" * 40), block_number=1, principal=-(10**6), collateral={"0x" + "dd" * 20: 5}
    )
    health = adapter.evaluate(market, position)
    assert health.unpriceable
    assert health.debt_value == 10**8
    assert [row.side for row in adapter.balances(market, replace(position, principal=0))] == []
