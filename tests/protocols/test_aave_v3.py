"""Aave V3: every value equals the real contracts' to the last digit, whoever acted and whoever did not."""

import json
from dataclasses import replace
from typing import Any

import pytest

from indexer.adapter import Reader
from indexer.errors import ReadFailedError
from indexer.model import WAD, Accounts, Deployment, Failed, PositionKey, Read
from indexer.settings import Settings
from indexer.store.books import dump_market, dump_position, load_market, load_positions
from protocols.aave_v3.adapter import AaveV3
from protocols.aave_v3.market import AaveV3Market
from protocols.aave_v3.read import TURN
from tests.aave import account_data, adapter_of, snapshot, summary, wrong
from tests.compound import (
    AlteredReader,
    Connection,
    accounts_in,
    keys,
)
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import Listing
from tests.devnet.contracts import hardhat_artifact
from tests.devnet.node import Anvil
from tests.devnet.packages import package
from tests.devnet.send import account

DAY = 86_400
RAY = 10**27
CORE = ("@aave/core-v3", "1.19.3")


@pytest.fixture
def devnet(any_aave_v3: aave_v3.AaveV3) -> aave_v3.AaveV3:
    return any_aave_v3


# values ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["3.0.2", "3.6"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_account_is_what_the_contracts_answer(fresh_node: Anvil, version: str, seed: int) -> None:
    devnet = aave_v3.deploy(fresh_node, version)
    devnet.populate(seed, users=60)
    node = Connection(fresh_node)
    market, positions = snapshot(devnet, node.reader())
    seen = summary(devnet, market, positions)
    assert min(seen["debt"], seen["no debt"], seen["liquidatable"], seen["e-mode"]) > 0
    assert wrong(devnet, market, positions) == []
    for step in range(2):
        devnet.step(seed * 10 + step)
        market, positions = snapshot(devnet, node.reader())
        assert wrong(devnet, market, positions) == []
    # Time passes and prices move, nobody acts: the positions read before are still right.
    fresh_node.elapse(40 * DAY)
    devnet.move_price("WETH", 0.8)
    market = adapter_of(devnet).read_market(node.reader(), market)
    assert wrong(devnet, market, positions) == []


def test_what_the_contracts_are_asked_is_what_they_answer(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, read = adapter_of(devnet), node.reader()
    market, positions = snapshot(devnet, read)
    for user, answer in zip(devnet.users, adapter.contract_answers(read, market, keys(devnet.users)), strict=True):
        theirs = devnet.answer(user, market.block.number)
        health_factor = None if theirs[5] == 2**256 - 1 else theirs[5]
        columns = {"collateral_value_raw": theirs[0], "debt_value_raw": theirs[1], "health_factor_raw": health_factor}
        if market.rules.average_threshold:
            columns["liquidation_limit_raw"] = (theirs[0] * theirs[3] + 5_000) // 10_000
            assert adapter.evaluate(market, positions[user]).liquidation_limit == columns["liquidation_limit_raw"]
        mode = devnet.sender.call(devnet.contracts.pool, "getUserEMode(address)(uint256)", [user])
        assert answer.columns == {**columns, "mode": str(mode) if mode else None}
        assert answer.liquidatable == (theirs[5] < WAD)
        held = {(b.market, b.side): b.amount for b in adapter.balances(market, positions[user])}
        assert {place: amount for place, amount in answer.amounts.items() if amount} == held


def test_flags_scaled_balances_and_values_of_the_rows(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter = adapter_of(devnet)
    market, positions = snapshot(devnet, node.reader())
    name = "collateral-off"
    (row,) = adapter.balances(market, positions[devnet.cast[name]])
    reserve = devnet.reserves["USDC"]
    scaled = devnet.sender.call(reserve.a_token, "scaledBalanceOf(address)(uint256)", [devnet.cast[name]])
    assert (row.symbol, row.asset, row.market, row.decimals) == ("USDC", reserve.asset, reserve.a_token, 6)
    assert (row.side, row.scaled, row.is_collateral) == ("supply", scaled, False)
    assert row.value == row.amount * devnet.price("USDC") // 10**6
    rows = adapter.balances(market, positions[devnet.cast["many-assets"]])
    assert {r.symbol for r in rows if r.is_collateral} >= {"WETH", "WBTC", "LINK"}
    assert not any(r.is_collateral for r in rows if r.side == "debt")


def test_values_of_the_rows_add_up_to_the_account(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter = adapter_of(devnet)
    market, positions = snapshot(devnet, node.reader())
    stable = 0
    for user in devnet.users:
        health, rows = adapter.evaluate(market, positions[user]), adapter.balances(market, positions[user])
        debts = [row.value or 0 for row in rows if row.side == "debt"]
        # The two debts of one asset are added before the price is applied.
        assert health.debt_value is not None
        assert 0 <= health.debt_value - sum(debts) <= len(positions[user].stable)
        stable += len(positions[user].stable)
        counted = {r.a_token for r in market.reserves if r.liquidation_threshold or market.rules.zero_threshold_counts}
        values = [row.value or 0 for row in rows if row.is_collateral and row.market in counted]
        assert sum(values) == health.collateral_value
    assert (stable > 0) == devnet.stable_rates


def test_the_limit_is_the_debt_at_which_the_health_factor_is_one(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter = adapter_of(devnet)
    market, positions = snapshot(devnet, node.reader())
    for user in devnet.users:
        health = adapter.evaluate(market, positions[user])
        assert health.liquidation_limit is not None
        if health.health_factor is not None and health.debt_value:
            assert health.liquidatable == (health.liquidation_limit < health.debt_value)


def test_flagged_collateral_without_a_threshold_counts_as_the_version_has_it(
    devnet: aave_v3.AaveV3, node: Connection
) -> None:
    """The configurator refuses this once somebody supplies, so the pool is told in its name."""
    asset, pool = devnet.reserves["WETH"].asset, devnet.contracts.pool
    before, _ = snapshot(devnet, node.reader())
    word = devnet.sender.call(pool, "getConfiguration(address)(uint256)", [asset])
    without = word & ~(0xFFFF << 16)
    devnet.sender.send(
        pool, "setConfiguration(address,(uint256))", [asset, (without,)], sender=devnet.contracts.configurator
    )
    market, positions = snapshot(devnet, node.reader())
    assert wrong(devnet, market, positions) == []
    user, adapter = devnet.cast["under-water"], adapter_of(devnet)
    value = adapter.evaluate(market, positions[user]).collateral_value
    assert (value == 0) == (devnet.revision == 1)
    assert adapter.evaluate(before, positions[user]).collateral_value != 0


# the market -----------------------------------------------------------------------------------------------------------


def test_the_market_is_read_in_a_handful_of_requests(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, read = adapter_of(devnet), node.reader()
    adapter.read_market(read, None)
    assert node.requests(lambda: adapter.read_market(read, None)) == 4


def test_the_comparison_after_each_snapshot_is_one_request(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, read, most = adapter_of(devnet), node.reader(), Settings().audit_sample + Settings().audit_at_risk
    market = adapter.read_market(read, None)
    asked = keys(devnet.users[:most])
    assert len(asked) == most
    assert node.requests(lambda: adapter.contract_answers(read, market, asked)) == 1
    positions = adapter.read_positions(read, market, asked)
    assert node.requests(lambda: adapter.audit_answers(read, market, positions)) == 1


def test_the_comparison_asks_about_what_an_account_holds_and_one_token_more(
    devnet: aave_v3.AaveV3, node: Connection
) -> None:
    adapter = adapter_of(devnet)
    market, positions = snapshot(devnet, node.reader())
    whole = adapter.contract_answers(node.reader(), market, list(map(PositionKey, positions)))
    for given, all_of_it, position in zip(
        adapter.audit_answers(node.reader(), market, list(positions.values())), whole, positions.values(), strict=True
    ):
        held = {place: amount for place, amount in all_of_it.amounts.items() if place[0] in position.held}
        (more,) = given.amounts.keys() - held.keys()
        assert given == replace(all_of_it, amounts=held | {more: all_of_it.amounts[more]})
    tokens = [token for token, _ in whole[0].amounts]
    position = next(p for p in positions.values() if p.has_debt)
    assert {one for block in range(len(tokens)) for one in position.asked(tokens, block)} == set(tokens)


def test_e_modes_are_asked_for_while_they_are_configured_or_accounts_are_in_them(
    devnet: aave_v3.AaveV3, node: Connection
) -> None:
    adapter = adapter_of(devnet)
    market, positions = snapshot(devnet, node.reader())
    assert adapter.read_market(node.reader(), market).e_modes == market.e_modes
    # As if all of them had been configured since the block before.
    later = adapter.read_market(node.reader(), replace(market, e_modes=()))
    assert later.e_modes == ()
    entered = {p.mode for p in positions.values()} - {0}
    assert entered
    assert wrong(devnet, later, positions) != []
    fitted = adapter.fit(node.reader(), later, list(positions.values()))
    assert fitted.e_modes == tuple(e for e in market.e_modes if e.id in entered)
    assert wrong(devnet, fitted, positions) == []


def test_an_e_mode_that_nobody_is_in_is_found_within_some_blocks(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, reads = adapter_of(devnet), []
    while (node.reader().block.number + 1) % TURN == 0:  # the next block is of another turn
        devnet.node.mine(1)
    market = adapter.read_market(node.reader(), None)
    known, last = replace(market, e_modes=()), node.reader().block.number + TURN
    while node.reader().block.number < last:
        devnet.node.mine(1)
        known = adapter.read_market(node.reader(), known)
        reads.append(len(known.e_modes))
    assert {e.id for e in known.e_modes} == set(devnet.emodes)
    assert reads[0] == 0


def test_the_market_says_what_it_is(devnet: aave_v3.AaveV3, node: Connection) -> None:
    market, _ = snapshot(devnet, node.reader())
    assert (market.pool_revision, market.exact, market.note) == (devnet.revision, True, None)
    assert market.version == {1: "3.0", 10: "3.6"}[devnet.revision]
    assert market.usd == (1, 10**8)
    usdc = next(asset for asset in market.assets if asset.symbol == "USDC")
    assert (usdc.price, usdc.price_usd, usdc.decimals) == (devnet.price("USDC"), devnet.price("USDC") / 10**8, 6)
    assert (usdc.ltv, usdc.liquidation_threshold, usdc.liquidation_bonus) == (0.77, 0.8, 0.045)
    assert (usdc.active, usdc.frozen, usdc.paused) == (True, False, False)
    assert usdc.supply_cap is None
    block, reserve, call = market.block.number, devnet.reserves["USDC"], devnet.sender.call
    assert usdc.total_supply == call(reserve.a_token, "totalSupply()(uint256)", block=block)
    debts = [reserve.variable_debt, *([reserve.stable_debt] if devnet.stable_rates else [])]
    assert usdc.total_debt == sum(call(token, "totalSupply()(uint256)", block=block) for token in debts)
    income = call(devnet.contracts.pool, "getReserveNormalizedIncome(address)(uint256)", [reserve.asset], block=block)
    assert usdc.supply_index == income
    assert {e.id for e in market.e_modes} == set(devnet.emodes)
    for e_mode in market.e_modes:
        assert e_mode.label == devnet.emodes[e_mode.id].label
        assert e_mode.liquidation_threshold == devnet.emodes[e_mode.id].liquidation_threshold


def test_nobody_to_read_is_nothing_to_read(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, read = adapter_of(devnet), node.reader()
    market = adapter.read_market(read, None)
    assert adapter.read_positions(read, market, []) == []
    assert adapter.contract_answers(read, market, []) == []


def test_an_account_that_never_came_is_empty(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, read = adapter_of(devnet), node.reader()
    market = adapter.read_market(read, None)
    (position,) = adapter.read_positions(read, market, [PositionKey("0x" + "99" * 20)])
    health = adapter.evaluate(market, position)
    assert position.empty
    assert not adapter.changes_silently(market, position)
    assert (health.collateral_value, health.debt_value, health.health_factor, health.has_debt) == (0, 0, None, False)
    assert adapter.balances(market, position) == []


def test_caps_and_flags(devnet: aave_v3.AaveV3, node: Connection) -> None:
    devnet.configure("setSupplyCap(address,uint256)", devnet.reserves["WBTC"].asset, 123_456)
    devnet.configure("setBorrowCap(address,uint256)", devnet.reserves["WBTC"].asset, 7)
    devnet.freeze("WBTC")
    devnet.pause("LINK")
    market, _ = snapshot(devnet, node.reader())
    rows = {asset.symbol: asset for asset in market.assets}
    assert (rows["WBTC"].supply_cap, rows["WBTC"].borrow_cap) == (123_456 * 10**8, 7 * 10**8)
    assert (rows["WBTC"].frozen, rows["WBTC"].paused) == (True, False)
    assert (rows["LINK"].frozen, rows["LINK"].paused) == (False, True)


def test_markets_and_positions_survive_json(devnet: aave_v3.AaveV3, node: Connection) -> None:
    market, positions = snapshot(devnet, node.reader())
    market.plan(0)  # fills the caches, which must not be stored
    adapter = adapter_of(devnet)
    stored = dump_market(market)
    assert load_market(adapter, stored) == market
    assert set(json.loads(stored)) == {*AaveV3Market.__dataclass_fields__} - {"registry"}
    for position in positions.values():
        assert [*load_positions(adapter, [(position.block_number, dump_position(position))])] == [position]


def test_a_provider_without_a_pool_is_one_clear_error(devnet: aave_v3.AaveV3, node: Connection) -> None:
    empty = devnet.sender.deploy(devnet.artifacts["PoolAddressesProvider"], ["empty", devnet.sender.default])
    adapter = AaveV3(Deployment("empty", "aave-v3", "devnet", 0, {"pool_addresses_provider": empty}))
    with pytest.raises(ReadFailedError, match="names no pool"):
        adapter.read_market(node.reader(), None)
    token = devnet.reserves["WETH"].asset
    adapter = AaveV3(Deployment("wrong", "aave-v3", "devnet", 0, {"pool_addresses_provider": token}))
    with pytest.raises(ReadFailedError, match="getPool"):
        adapter.read_market(node.reader(), None)


def test_a_symbol_may_be_bytes_or_missing(devnet: aave_v3.AaveV3, node: Connection) -> None:
    weth, wbtc = devnet.reserves["WETH"].asset, devnet.reserves["WBTC"].asset

    def alter(read: Read, answer: Any) -> Any:
        if read.target in (weth, wbtc) and read.signature == "symbol()(string)":
            return Failed(read)
        if read.signature == "symbol()(bytes32)":
            return b"MKR".ljust(32, b"\0") if read.target == weth else Failed(read)
        return answer

    market = adapter_of(devnet).read_market(AlteredReader(node.reader(), alter), None)
    symbols = {reserve.asset: reserve.symbol for reserve in market.reserves}
    assert (symbols[weth], symbols[wbtc]) == ("MKR", wbtc)


# time and prices that are only supposed --------------------------------------------------------------------------------


def test_advance_is_what_the_views_answer_later(devnet: aave_v3.AaveV3, node: Connection) -> None:
    market, positions = snapshot(devnet, node.reader())
    devnet.node.mine(3, 100 * DAY)
    block = node.chain.block("latest")
    seconds, blocks = block.timestamp - market.block.timestamp, block.number - market.block.number
    later = adapter_of(devnet).after(market, seconds, blocks)
    assert isinstance(later, AaveV3Market)
    read = adapter_of(devnet).read_market(node.reader(), None)
    assert [(r.income, r.debt_index) for r in later.reserves] == [(r.income, r.debt_index) for r in read.reserves]
    assert later.assets == read.assets
    assert wrong(devnet, later, positions) == []
    assert adapter_of(devnet).after(market, 0, 0) == market


def test_reprice_is_what_a_changed_oracle_makes_of_it(devnet: aave_v3.AaveV3, node: Connection) -> None:
    market, positions = snapshot(devnet, node.reader())
    prices = {"WETH": 123_456_789_012, "USDC": 91_000_000, "EUSD": 98_765_432}
    known = {symbol: reserve.asset for symbol, reserve in devnet.reserves.items()}
    known |= {symbol: address for symbol, (address, _) in devnet.extra_feeds.items()}
    snapshot_of_node = devnet.node.snapshot()
    timestamp = devnet.node.timestamp()
    for symbol, price in prices.items():
        if symbol in known:
            devnet.set_price(symbol, price)
    adapter = adapter_of(devnet)
    supposed = adapter.with_prices(
        market, {known[symbol]: price for symbol, price in prices.items() if symbol in known}
    )
    later = adapter.after(
        supposed, devnet.node.timestamp() - timestamp, devnet.node.block_number() - market.block.number
    )
    assert isinstance(later, AaveV3Market)
    assert wrong(devnet, later, positions) == []
    devnet.node.revert(snapshot_of_node)
    assert wrong(devnet, market, positions) == []  # the first market is as it was


# missing prices -------------------------------------------------------------------------------------------------------


def test_a_missing_price_makes_exactly_its_users_unpriceable(devnet: aave_v3.AaveV3, node: Connection) -> None:
    devnet.set_price("WBTC", 0)
    market, positions = snapshot(devnet, node.reader())
    seen = summary(devnet, market, positions)
    assert 0 < seen["unpriceable"] < len(devnet.users)
    assert wrong(devnet, market, positions) == []
    adapter = adapter_of(devnet)
    assert next(a for a in market.assets if a.symbol == "WBTC").price is None
    answers = adapter.contract_answers(node.reader(), market, keys(devnet.users))
    for answer in answers:
        health = adapter.evaluate(market, positions[answer.key.account])
        assert health.unpriceable == (answer.columns["collateral_value_raw"] is None)
        assert not health.unpriceable or answer.columns["health_factor_raw"] is None
        for row in adapter.balances(market, positions[answer.key.account]):
            assert (row.value is None) == (row.symbol == "WBTC")


def test_a_price_of_zero_keeps_the_contract_s_values_but_is_no_price(devnet: aave_v3.AaveV3, node: Connection) -> None:
    file = package(*CORE) / "artifacts/contracts/mocks/oracle/PriceOracle.sol/PriceOracle.json"
    fallback = devnet.sender.deploy(hardhat_artifact(file))  # answers 0 until told otherwise
    devnet.sender.send(devnet.contracts.oracle, "setFallbackOracle(address)", [fallback])
    devnet.set_price("WBTC", 0)
    market, positions = snapshot(devnet, node.reader())
    adapter, worthless = adapter_of(devnet), 0
    for user in devnet.users:
        theirs, health = devnet.answer(user, market.block.number), adapter.evaluate(market, positions[user])
        assert (health.collateral_value, health.debt_value) == theirs[:2]
        assert health.health_factor == (None if theirs[5] == 2**256 - 1 else theirs[5])
        flags = next(r.borrowing_flag | r.collateral_flag for r in market.reserves if r.symbol == "WBTC")
        assert health.unpriceable == bool(positions[user].configuration & flags)
        worthless += health.unpriceable
    assert worthless > 0


def test_an_e_mode_s_price_replaces_its_assets_prices(aave_v3_0: aave_v3.AaveV3) -> None:
    node = Connection(aave_v3_0.node)
    user = aave_v3_0.cast["e-mode-stable"]
    # Inside the category the assets' own feeds are not asked, so one may be dead ...
    aave_v3_0.set_price("USDC", 0)
    market, positions = snapshot(aave_v3_0, node.reader())
    assert account_data(aave_v3_0, [user], market.block.number) != [None]
    assert wrong(aave_v3_0, market, positions) == []
    # ... while a dead feed of the category stops everyone in it.
    aave_v3_0.set_price("USDC", 10**8)
    aave_v3_0.set_price("EUSD", 0)
    market, positions = snapshot(aave_v3_0, node.reader())
    assert account_data(aave_v3_0, [user], market.block.number) == [None]
    assert adapter_of(aave_v3_0).evaluate(market, positions[user]).unpriceable
    assert wrong(aave_v3_0, market, positions) == []


# what stops a liquidation ---------------------------------------------------------------------------------------------


def blocked(devnet: aave_v3.AaveV3, node: Connection, user: str) -> tuple[str, ...]:
    adapter, read = adapter_of(devnet), node.reader()
    market = adapter.read_market(read, None)
    (position,) = adapter.read_positions(read, market, [PositionKey(user)])
    health = adapter.evaluate(market, position)
    assert health.liquidatable  # the health factor is what it is
    return health.blocked_by


def test_a_paused_reserve_blocks_liquidation(devnet: aave_v3.AaveV3, node: Connection) -> None:
    user = devnet.cast["under-water"]
    assert blocked(devnet, node, user) == ()
    devnet.pause("WETH")
    assert blocked(devnet, node, user) == ("paused:WETH",)
    assert not devnet.liquidate(user)
    devnet.pause("USDC")
    assert blocked(devnet, node, user) == ("paused:WETH", "paused:USDC")
    devnet.pause("WETH", False)
    devnet.pause("USDC", False)
    assert blocked(devnet, node, user) == ()
    assert devnet.liquidate(user)


def test_a_grace_period_blocks_liquidation_to_its_last_second(aave_v3_6: aave_v3.AaveV3) -> None:
    assert isinstance(aave_v3_6, aave_v3.AaveV36)
    node, user = Connection(aave_v3_6.node), aave_v3_6.cast["under-water"]
    aave_v3_6.grant_grace("USDC", 3600)
    until = aave_v3_6.sender.call(
        aave_v3_6.contracts.pool, "getLiquidationGracePeriod(address)(uint40)", [aave_v3_6.reserves["USDC"].asset]
    )
    aave_v3_6.node.elapse(until - aave_v3_6.node.timestamp())
    assert blocked(aave_v3_6, node, user) == ("grace-period:USDC",)
    aave_v3_6.node.elapse(1)
    assert blocked(aave_v3_6, node, user) == ()
    assert aave_v3_6.liquidate(user)


def test_a_sentinel_that_is_down_blocks_liquidation_near_one(devnet: aave_v3.AaveV3, node: Connection) -> None:
    folder = package(*CORE) / "artifacts/contracts"
    sequencer = devnet.sender.deploy(
        hardhat_artifact(folder / "mocks/oracle/SequencerOracle.sol/SequencerOracle.json"), [devnet.sender.default]
    )
    sentinel = devnet.sender.deploy(
        hardhat_artifact(folder / "protocol/configuration/PriceOracleSentinel.sol/PriceOracleSentinel.json"),
        [devnet.contracts.provider, sequencer, 3600],
    )
    devnet.sender.send(devnet.contracts.provider, "setPriceOracleSentinel(address)", [sentinel])
    user = devnet.cast["under-water"]
    assert 0.95 * WAD < devnet.answer(user)[5] < WAD
    assert blocked(devnet, node, user) == ()
    devnet.sender.send(sequencer, "setAnswer(bool,uint256)", [True, 0])
    assert blocked(devnet, node, user) == ("sentinel",)
    assert not devnet.liquidate(user)
    devnet.move_price("WETH", 0.8)
    assert devnet.answer(user)[5] < 0.95 * WAD
    assert blocked(devnet, node, user) == ()
    assert devnet.liquidate(user)


# revisions ------------------------------------------------------------------------------------------------------------


def claiming(read: Reader, revision: int) -> AlteredReader:
    """The same pool with another POOL_REVISION, as a fork that numbers its own would have it."""
    return AlteredReader(read, lambda one, answer: revision if one.signature.startswith("POOL_REVISION") else answer)


@pytest.mark.parametrize("revision", [2, 3])
def test_later_revisions_of_the_same_code_are_told_by_what_they_do(aave_v3_0: aave_v3.AaveV3, revision: int) -> None:
    market, positions = snapshot(aave_v3_0, claiming(Connection(aave_v3_0.node).reader(), revision))
    assert (market.version, market.exact) == ("3.0", True)
    assert market.revision == f"3.0 (POOL_REVISION {revision})"
    assert wrong(aave_v3_0, market, positions) == []


@pytest.mark.parametrize("revision", [4, 9, 11, 12])
def test_a_revision_that_its_functions_belie_is_not_believed(
    devnet: aave_v3.AaveV3, node: Connection, revision: int
) -> None:
    market = adapter_of(devnet).read_market(claiming(node.reader(), revision), None)
    assert (market.exact, market.version) == (False, None)
    assert market.note is not None
    assert f"POOL_REVISION {revision} with functions of level" in market.note


def test_code_that_is_not_known_is_not_guessed(devnet: aave_v3.AaveV3, node: Connection) -> None:
    devnet.upgrade_pool(99)
    devnet.node.elapse(DAY)
    market, positions = snapshot(devnet, node.reader())
    adapter = adapter_of(devnet)
    assert not market.exact
    assert market.note is not None
    assert "POOL_REVISION 99" in market.note
    assert {(asset.total_supply, asset.total_debt) for asset in market.assets} == {(None, None)}
    answers = adapter.contract_answers(node.reader(), market, keys(devnet.users))
    for answer in answers:
        position = positions[answer.key.account]
        health = adapter.evaluate(market, position)
        assert (health.collateral_value, health.debt_value, health.health_factor) == (None, None, None)
        assert adapter.changes_silently(market, position)
        assert answer.columns["collateral_value_raw"] == devnet.answer(answer.key.account, market.block.number)[0]
        held = {(b.market, b.side): b.amount for b in adapter.balances(market, position)}
        assert held == {place: amount for place, amount in answer.amounts.items() if amount}


def test_an_unknown_pool_that_describes_a_reserve_otherwise_still_serves_the_rest(
    devnet: aave_v3.AaveV3, node: Connection
) -> None:
    devnet.upgrade_pool(99)
    strange = devnet.reserves["LINK"].asset

    def alter(read: Read, answer: Any) -> Any:
        return Failed(read) if read.signature.startswith("getReserveData") and read.args == (strange,) else answer

    market = adapter_of(devnet).read_market(AlteredReader(node.reader(), alter), None)
    assert market.note is not None
    assert strange in market.note
    assert {r.symbol for r in market.reserves} == set(devnet.reserves) - {"LINK"}


def test_a_known_pool_that_does_not_answer_is_an_error(devnet: aave_v3.AaveV3, node: Connection) -> None:
    def alter(read: Read, answer: Any) -> Any:
        return Failed(read, reason="out of luck") if read.signature.startswith("getReserveData") else answer

    with pytest.raises(ReadFailedError, match=r"getReserveData.*out of luck"):
        adapter_of(devnet).read_market(AlteredReader(node.reader(), alter), None)


@pytest.mark.parametrize("signature", ["getReserveNormalizedVariableDebt", "totalSupply"])
def test_interest_or_rounding_of_another_kind_is_noticed(
    devnet: aave_v3.AaveV3, node: Connection, signature: str
) -> None:
    def alter(read: Read, answer: Any) -> Any:
        return answer + 1 if read.signature.startswith(signature) else answer

    market = adapter_of(devnet).read_market(AlteredReader(node.reader(), alter), None)
    assert not market.exact
    assert market.note is not None
    assert "computes it" in market.note


# reserves that come and go --------------------------------------------------------------------------------------------

NEW = Listing("NEW", 18, 5 * 10**8, 5000, 6000, 11000)
NEXT = Listing("NEXT", 6, 7 * 10**8, 4000, 5000, 11000)


def test_a_dropped_reserve_leaves_a_hole_that_another_may_fill(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, user = adapter_of(devnet), devnet.cast["many-assets"]
    key = PositionKey(user)
    first = devnet.add_reserve(NEW)
    pool, call = devnet.contracts.pool, devnet.sender.send
    call(pool, "supply(address,uint256,address,uint16)", [first.asset, 10**19, user, 0], sender=user)
    market = adapter.read_market(node.reader(), None)
    (held,) = adapter.read_positions(node.reader(), market, [key])
    assert first.a_token in held.supplied
    assert not adapter.changes_silently(market, held)
    call(pool, "withdraw(address,uint256,address)", [first.asset, 2**256 - 1, user], sender=user)
    devnet.configure("dropReserve(address)", first.asset)
    del devnet.reserves["NEW"]
    market = adapter.read_market(node.reader(), None)
    assert adapter.changes_silently(market, held)  # it names a token that is gone
    assert adapter.evaluate(market, held).collateral_value == devnet.answer(user)[0]
    assert all(row.market != first.a_token for row in adapter.balances(market, held))
    hole = len(market.reserves)
    second = devnet.add_reserve(NEXT)
    third = devnet.add_reserve(replace(NEW, symbol="NEWER"))
    market = adapter.read_market(node.reader(), None)
    ids = {reserve.symbol: reserve.id for reserve in market.reserves}
    assert (ids["NEXT"], ids["NEWER"]) == (hole, hole + 1)
    for reserve in (second, third):
        call(pool, "supply(address,uint256,address,uint16)", [reserve.asset, 10**9, user, 0], sender=user)
    (fresh,) = adapter.read_positions(node.reader(), market, [key])
    market, positions = snapshot(devnet, node.reader())
    assert {second.a_token, third.a_token} <= set(positions[user].supplied)
    assert wrong(devnet, market, positions) == []
    assert not adapter.changes_silently(market, fresh)


def test_a_hole_in_the_ids_does_not_shift_the_flags(devnet: aave_v3.AaveV3, node: Connection) -> None:
    user = devnet.cast["many-assets"]
    gone, kept = devnet.add_reserve(NEW), devnet.add_reserve(NEXT)
    devnet.sender.send(
        devnet.contracts.pool, "supply(address,uint256,address,uint16)", [kept.asset, 10**9, user, 0], sender=user
    )
    devnet.configure("dropReserve(address)", gone.asset)
    del devnet.reserves["NEW"]
    market, positions = snapshot(devnet, node.reader())
    assert [reserve.id for reserve in market.reserves] != list(range(len(market.reserves)))
    assert wrong(devnet, market, positions) == []


def test_a_reserve_listed_after_the_market_was_read_makes_its_users_untracked(
    devnet: aave_v3.AaveV3, node: Connection
) -> None:
    adapter, user = adapter_of(devnet), devnet.cast["supplier"]
    old = adapter.read_market(node.reader(), None)
    new = devnet.add_reserve(NEW)
    devnet.sender.send(
        devnet.contracts.pool, "supply(address,uint256,address,uint16)", [new.asset, 10**19, user, 0], sender=user
    )
    (position,) = adapter.read_positions(node.reader(), old, [PositionKey(user)])
    assert new.a_token not in position.supplied  # the old market did not know whom to ask
    assert adapter.changes_silently(adapter.read_market(node.reader(), None), position)


# logs -----------------------------------------------------------------------------------------------------------------


def test_discovery_names_exactly_the_borrowers(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, market = adapter_of(devnet), snapshot(devnet, node.reader())[0]
    events = node.events(adapter.logs(market, Accounts.BORROWERS).discovery, devnet.start_block)
    assert accounts_in(adapter, market, events) == devnet.borrowers


def test_discovery_of_all_misses_nobody_with_a_balance(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, (market, positions) = adapter_of(devnet), snapshot(devnet, node.reader())
    events = node.events(adapter.logs(market, Accounts.ALL).discovery, devnet.start_block)
    found = accounts_in(adapter, market, events)
    assert found >= {user for user in devnet.users if not positions[user].empty}
    assert found <= set(devnet.users)


def test_a_transfer_of_nothing_makes_nobody_a_holder(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, market = adapter_of(devnet), snapshot(devnet, node.reader())[0]
    token, named = devnet.reserves["WETH"].a_token, account("receiver of nothing")
    devnet.sender.send(token, "transfer(address,uint256)", (named, 0), sender=devnet.cast["under-water"])
    events = node.events(adapter.logs(market, Accounts.ALL).discovery, market.block.number + 1)
    assert named in {event.topic_address(2) for event in events}
    assert named not in accounts_in(adapter, market, events)


def test_activity_includes_discovery(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, market = adapter_of(devnet), snapshot(devnet, node.reader())[0]
    activity = {pair for source in adapter.logs(market, Accounts.ALL).activity for pair in source.pairs()}
    for accounts in Accounts:
        assert {pair for source in adapter.logs(market, accounts).discovery for pair in source.pairs()} <= activity


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_every_change_of_a_position_shows_in_the_activity(devnet: aave_v3.AaveV3, node: Connection, seed: int) -> None:
    adapter, (market, before) = adapter_of(devnet), snapshot(devnet, node.reader())
    devnet.step(seed)
    _, after = snapshot(devnet, node.reader())
    events = node.news(adapter, market)
    touched = accounts_in(adapter, market, events)
    changed = {
        user
        for user in after
        if user not in before or replace(before[user], block_number=0) != replace(after[user], block_number=0)
    }
    assert changed
    assert changed <= touched


def test_an_event_counts_only_from_the_right_kind_of_contract(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, market = adapter_of(devnet), snapshot(devnet, node.reader())[0]
    events = node.events(adapter.logs(market, Accounts.ALL).activity, devnet.start_block)
    kinds = {address: place.kind for address, place in market.tokens.items()}
    somewhere = {kind: next(a for a, k in kinds.items() if k == kind) for kind in set(kinds.values())}
    same_topic = {"a": "pool", "variable": "pool", "pool": "a", "stable": "variable"}
    for event in events:
        assert adapter.touched(market, event)
        assert not adapter.touched(market, replace(event, address="0x" + "77" * 20))
        assert not adapter.touched(market, replace(event, address=somewhere[same_topic[kinds[event.address]]]))
        assert not adapter.touched(market, replace(event, topics=event.topics[:1], data=b""))


def test_sums_of_scaled_balances_are_the_tokens_totals(devnet: aave_v3.AaveV3, node: Connection) -> None:
    adapter, (market, positions) = adapter_of(devnet), snapshot(devnet, node.reader())
    held = list(positions.values())
    assert all(check.holds for check in adapter.checks(market, held, Accounts.ALL))
    borrowers = [p for p in held if p.key.account in devnet.borrowers]
    assert all(check.holds for check in adapter.checks(market, borrowers, Accounts.BORROWERS))
    missing = next(p for p in borrowers if p.borrowed)
    rest = [p for p in borrowers if p is not missing]
    failed = {check.name for check in adapter.checks(market, rest, Accounts.BORROWERS) if not check.holds}
    symbols = {r.symbol for r in market.reserves if r.variable_debt_token in missing.borrowed}
    assert failed == {f"scaled variable debt of {symbol}" for symbol in symbols}


# recorded mainnet -----------------------------------------------------------------------------------------------------


# GHO before 3.4 -------------------------------------------------------------------------------------------------------
