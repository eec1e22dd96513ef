"""Compound V2: every value equals the real contracts' to the last digit, whoever acted and whoever did not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from indexer.cli.main import main
from indexer.errors import ReadFailedError
from indexer.model import WAD, Accounts, Deployment, Failed, Read
from indexer.store.books import dump_market, dump_position, load_market, load_positions
from protocols.compound_v2.adapter import (
    LIQUIDITY,
    CompoundV2,
)
from protocols.compound_v2.market import ETHER, CompoundV2Market, interest_stored
from protocols.compound_v2.math import HALF_UP, TRUNCATE
from tests.compound import AlteredReader, Connection, accounts_in, by_account, keys, snapshot
from tests.devnet import compound_v2
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import config_toml
from tests.devnet.send import Transaction, account, calldata
from tests.devnet.worlds import alone
from tests.truth import raw

DAY = 86_400
USERS = 60
ROUNDING = {"half-up": HALF_UP, "truncating": TRUNCATE}


def adapter_of(market: compound_v2.CompoundV2) -> CompoundV2:
    return CompoundV2(Deployment(market.name, market.protocol, "devnet", market.start_block, market.addresses))


@pytest.fixture(scope="module", params=[("half-up", 1), ("truncating", 2)], ids=str)
def populated(request: pytest.FixtureRequest, needs_node: None) -> Iterator[compound_v2.CompoundV2]:
    generation, seed = request.param
    with alone(lambda node: compound_v2.deploy(node, generation=generation), seed, USERS) as market:
        yield market


@pytest.fixture
def adapter(devnet: compound_v2.CompoundV2) -> CompoundV2:
    return adapter_of(devnet)


def wrong(
    adapter: CompoundV2, devnet: compound_v2.CompoundV2, market: CompoundV2Market, positions: dict[str, Any]
) -> list[str]:
    """Where what we compute differs from the contracts at the market's block, for every user."""
    block = market.block.number
    found = []
    deprecated = {symbol for symbol in devnet.markets if devnet.is_deprecated(symbol)}
    told = snapshots(devnet, block)
    for user, stored in zip(devnet.users, devnet.answers(devnet.users, block), strict=True):
        position = positions[user]
        health = adapter.evaluate(market, position)
        amounts = {(b.market, b.side): (b.scaled, b.amount) for b in adapter.balances(market, position)}
        forced = False
        for symbol, listed in devnet.markets.items():
            _, tokens, debt, rate = told[user, symbol]
            forced = forced or (symbol in deprecated and debt > 0)
            supply = amounts.get((listed.address, "supply"), (0, 0))
            if supply != (tokens, rate * tokens // WAD):
                found.append(f"{user} supply of {symbol}: {supply} instead of {tokens}")
            owed = amounts.get((listed.address, "debt"), (0, 0))[1]
            if owed != debt:
                found.append(f"{user} debt of {symbol}: {owed} instead of {debt}")
        if health.unpriceable:
            if stored[0] == 0:
                found.append(f"{user} is priceable")
            continue
        assert health.liquidation_limit is not None
        assert health.debt_value is not None
        difference = health.liquidation_limit - health.debt_value
        if (0, max(difference, 0), max(-difference, 0)) != tuple(stored):
            found.append(f"{user}: {difference} instead of {stored}")
        if health.liquidatable != (forced or stored[2] > 0):
            found.append(f"{user} liquidatable: {health.liquidatable}")
    return found


def snapshots(devnet: compound_v2.CompoundV2, block: int) -> dict[tuple[str, str], Any]:
    """`getAccountSnapshot` of every user in every market."""
    function = "getAccountSnapshot(address)(uint256,uint256,uint256,uint256)"
    places = [(user, symbol) for user in devnet.users for symbol in devnet.markets]
    calls = [(devnet.markets[symbol].address, function, [user]) for user, symbol in places]
    return dict(zip(places, devnet.sender.calls(calls, block=block), strict=True))


def accrued_answers(devnet: compound_v2.CompoundV2, block: int) -> dict[str, tuple[int, ...]]:
    """`getAccountLiquidity` of every user after every market accrued, in one eth_call."""
    calls = [
        (market.address, True, bytes.fromhex(calldata("accrueInterest()")[2:])) for market in devnet.markets.values()
    ]
    liquidity = "getAccountLiquidity(address)"
    calls += [(devnet.comptroller, False, bytes.fromhex(calldata(liquidity, [user])[2:])) for user in devnet.users]
    function = "aggregate3((address,bool,bytes)[])((bool,bytes)[])"
    answers = devnet.sender.call(MULTICALL3, function, [calls], block=block)[len(devnet.markets) :]
    return {
        user: tuple(int.from_bytes(data[i : i + 32], "big") for i in (0, 32, 64))
        for user, (_, data) in zip(devnet.users, answers, strict=True)
    }


def wrong_accrued(
    adapter: CompoundV2, devnet: compound_v2.CompoundV2, market: CompoundV2Market, positions: dict[str, Any]
) -> list[str]:
    """Where the accrued health factor contradicts getAccountLiquidity after accrueInterest of all markets.

    The Comptroller tells only a difference of its two sums; the debts after accrual, added up, give the second one.
    """
    found = []
    answers = accrued_answers(devnet, market.block.number)
    for user in devnet.users:
        position = positions[user]
        health = adapter.evaluate(market, position)
        error, liquidity, shortfall = answers[user]
        if health.unpriceable:
            assert error
            continue
        debt = sum(
            token.price * (principal * token.borrow_index_accrued // index) // WAD
            for address, (principal, index) in position.borrows.items()
            if (token := market.c_tokens[address]).price is not None
        )
        expected = (debt + liquidity - shortfall) * WAD // debt if debt else None
        if health.health_factor_accrued != expected:
            found.append(f"{user}: {health.health_factor_accrued} instead of {expected}")
    return found


def test_every_user_equals_the_contracts(adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2) -> None:
    market, positions = snapshot(adapter, node, devnet)
    assert market.exact
    assert market.rounding == ROUNDING[devnet.generation]
    assert wrong(adapter, devnet, market, positions) == []
    assert wrong_accrued(adapter, devnet, market, positions) == []


def test_users_who_do_nothing_are_right_without_being_read_again(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    for change in (
        lambda: devnet.node.mine(7, 13),
        lambda: devnet.accrue("USDC"),
        lambda: devnet.move_price("ETH", 0.83),
        lambda: devnet.donate("DAI", 123_456_789 * 10**12),
        lambda: devnet.set_collateral_factor("WBTC", 6 * WAD // 10),
        lambda: [devnet.accrue(symbol) for symbol in devnet.markets],
        devnet.replace_oracle,
    ):
        change()
        market = adapter.read_market(node.reader(), market)
        assert wrong(adapter, devnet, market, positions) == []
        assert wrong_accrued(adapter, devnet, market, positions) == []


def test_events_name_everyone_who_changed(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    for seed in range(3):
        devnet.step(seed)
        touched = accounts_in(adapter, market, node.news(adapter, market))
        assert touched < {*devnet.users, *devnet.bystanders}
        read = node.reader()
        market = adapter.read_market(read, market)
        known = {*positions, *devnet.users}
        positions |= by_account(adapter.read_positions(read, market, keys(touched & known)))
        assert wrong(adapter, devnet, market, positions) == []
        assert wrong_accrued(adapter, devnet, market, positions) == []


@pytest.mark.parametrize(
    ("generation", "seed"),
    [("half-up", 3), ("truncating", 4), *(pytest.param("truncating", n, marks=pytest.mark.long) for n in range(5, 15))],
)
def test_other_histories_are_right_too(needs_node: None, generation: compound_v2.Generation, seed: int) -> None:
    with Anvil() as anvil:
        devnet = compound_v2.deploy(anvil, generation=generation, dead_price="REP")
        devnet.populate(seed, 40)
        node, adapter = Connection(anvil), adapter_of(devnet)
        market, positions = snapshot(adapter, node, devnet)
        devnet.step(seed)
        touched = accounts_in(adapter, market, node.news(adapter, market))
        read = node.reader()
        market = adapter.read_market(read, market)
        positions |= by_account(adapter.read_positions(read, market, keys(touched | {*devnet.users} - {*positions})))
        assert wrong(adapter, devnet, market, positions) == []
        assert wrong_accrued(adapter, devnet, market, positions) == []
        node.chain.close()


def test_discovery_names_borrowers_and_holders_and_nobody_else(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, _ = snapshot(adapter, node, devnet)
    borrowers = accounts_in(adapter, market, node.events(adapter.logs(market, Accounts.BORROWERS).discovery))
    everyone = accounts_in(adapter, market, node.events(adapter.logs(market, Accounts.ALL).discovery))
    assert borrowers == devnet.borrowers
    assert everyone == set(devnet.users)


def test_the_contracts_own_answers_are_ours(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
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
        assert {name: answer.columns[name] for name in ours} == ours
        assert answer.liquidatable == health.liquidatable
        rows = {(b.market, b.side): b for b in adapter.balances(market, position)}
        assert {place: amount for place, amount in answer.amounts.items() if amount} == {
            place: row.amount for place, row in rows.items() if row.amount
        }


def test_nobody_who_tells_the_generations_apart_leaves_the_rounding_open(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    read = node.reader()
    market = adapter.read_market(read, None)
    supplier = keys([devnet.cast["supplier"]])  # entered no market
    calibrated = adapter.fit(read, market, adapter.read_positions(read, market, supplier))
    assert calibrated.rounding is None
    assert calibrated.exact


@pytest.mark.parametrize("storage", [True, False])
def test_who_tells_the_generations_apart_only_after_accruing_is_asked_then(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2, storage: bool
) -> None:
    users = [account(f"only USDC {n}") for n in range(6)]
    for n, user in enumerate(users):
        devnet.supply(user, "USDC", 12_345 * 10**6 + n, enter=True)
        devnet.borrow(user, "ETH", WAD + n)
    devnet.node.mine(3, 13)
    devnet.accrue("ETH")
    for _ in range(60):  # every block has other exchange rates, and some of them round
        devnet.node.mine(1)
        read = AlteredReader(node.reader(), storage=storage)
        market = adapter.read_market(read, None)
        positions = adapter.read_positions(read, market, keys(users))
        if not adapter.to_ask(market, positions)[0] and adapter.to_ask(interest_stored(market), positions)[0]:
            break
        devnet.accrue("USDC")
    else:
        pytest.fail("no such block came")
    calibrated = adapter.fit(read, market, positions)
    assert calibrated.exact
    assert calibrated.rounding == ROUNDING[devnet.generation]


def test_a_proven_rounding_is_kept_until_the_comptroller_is_upgraded(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    again = adapter.read_market(node.reader(), market)
    assert (again.rounding, again.checked) == (market.rounding, True)
    devnet.install_comptroller("truncating")
    read = node.reader()
    upgraded = adapter.read_market(read, market)
    assert upgraded.revision != market.revision
    assert (upgraded.rounding, upgraded.checked) == (None, False)
    upgraded = adapter.fit(read, upgraded, list(positions.values()))
    assert upgraded.rounding == TRUNCATE
    assert wrong(adapter, devnet, upgraded, positions) == []


def test_an_unknown_formula_is_not_exact(adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2) -> None:
    _, positions = snapshot(adapter, node, devnet)

    def alter(read: Read, answer: Any) -> Any:
        return (answer[0], answer[1] + 1, answer[2]) if read.signature == LIQUIDITY else answer

    read = AlteredReader(node.reader(), alter)
    market = adapter.fit(read, adapter.read_market(read, None), list(positions.values()))
    assert not market.exact
    assert market.note is not None
    assert devnet.comptroller not in market.note
    assert market.revision in market.note


def test_debts_whose_storage_cannot_be_read_are_read_at_each_snapshot(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, known = snapshot(adapter, node, devnet)
    for _ in range(4):
        devnet.accrue("DAI")
        devnet.node.mine(7, 13)  # what accrues meanwhile cannot be told from a rounded debt to the last digit
        read = AlteredReader(node.reader(), storage=False)
        market = adapter.read_market(read, market)
        positions = by_account(adapter.read_positions(read, market, keys(devnet.users)))
        assert {user for user, p in positions.items() if adapter.changes_silently(market, p)} == {
            user for user, p in positions.items() if p.borrows
        }
        assert wrong(adapter, devnet, market, positions) == []
        for answer in adapter.contract_answers(node.reader(), market, keys(devnet.users)):
            if "health_factor_accrued_raw" in answer.columns:
                ours = adapter.evaluate(market, positions[answer.key.account]).health_factor_accrued
                assert ours == answer.columns["health_factor_accrued_raw"]
    assert not any(adapter.changes_silently(market, position) for position in known.values())


def test_the_storage_of_a_debt_is_what_the_c_token_keeps(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    _, positions = snapshot(adapter, node, devnet)
    symbols = {market.address: symbol for symbol, market in devnet.markets.items()}
    seen = 0
    for user, position in positions.items():
        for address, pair in position.borrows.items():
            assert pair == devnet.stored_borrow(user, symbols[address])
            seen += 1
    assert seen > 20


def test_time_to_come_equals_what_accruing_then_answers(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    devnet.node.mine(9, 13)
    advanced = adapter.after(adapter.after(market, 13 * 4, 4), 13 * 5, 5)
    later = adapter.read_market(node.reader(), market)
    assert advanced.c_tokens == later.c_tokens
    assert (advanced.block.number, advanced.block.timestamp) == (later.block.number, later.block.timestamp)
    assert wrong_accrued(adapter, devnet, advanced, positions) == []


def test_other_prices_equal_what_the_oracle_then_answers(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    prices = {symbol: devnet.price(symbol) * 4 // 5 for symbol in ("ETH", "DAI", "WBTC")}
    for symbol, price in prices.items():
        devnet.set_price(symbol, price)
    repriced = adapter.with_prices(
        market, {devnet.markets[symbol].underlying or ETHER: price for symbol, price in prices.items()}
    )
    later = adapter.read_market(node.reader(), market)
    assert [row.price_usd for row in repriced.assets] == [row.price_usd for row in later.assets]
    assert {a: t.price for a, t in repriced.c_tokens.items()} == {a: t.price for a, t in later.c_tokens.items()}
    for user, answer in zip(devnet.users, devnet.answers(devnet.users), strict=True):
        health = adapter.evaluate(repriced, positions[user])
        assert health.liquidation_limit is not None
        assert health.debt_value is not None
        assert max(health.liquidation_limit - health.debt_value, 0) == answer[1]


def test_a_market_without_a_price_makes_those_who_entered_it_unpriceable(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    devnet.set_price("DAI", 0)
    market, positions = snapshot(adapter, node, devnet)
    assert wrong(adapter, devnet, market, positions) == []
    health = adapter.evaluate(market, positions[devnet.cast["zrx-collateral"]])  # owes DAI
    assert health.unpriceable
    assert health.has_debt
    assert (health.health_factor, health.debt_value, health.liquidation_limit) == (None, None, None)
    assert health.collateral_value is not None
    assert not health.liquidatable
    (dai,) = (row for row in market.assets if row.symbol == "DAI")
    assert (dai.price, dai.price_usd) == (None, None)
    rows = {b.symbol: b.value for b in adapter.balances(market, positions[devnet.cast["zrx-collateral"]])}
    assert rows["DAI"] is None
    assert rows["ZRX"] is not None


def test_a_debt_in_a_deprecated_market_is_liquidatable_at_any_health(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    debtor = devnet.cast["deprecated-debtor"]
    health = adapter.evaluate(market, positions[debtor])
    assert health.health_factor is not None
    assert health.health_factor > WAD
    deprecated = devnet.is_deprecated("BAT")  # nobody is asked for the older Comptroller, which does not know it
    assert deprecated == (devnet.generation == "truncating")
    assert health.liquidatable == deprecated
    assert devnet.liquidate(debtor) == deprecated


def test_paused_seizing_blocks_a_liquidation_and_leaves_the_health_alone(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    devnet.pause("Seize")
    market, positions = snapshot(adapter, node, devnet)
    assert wrong(adapter, devnet, market, positions) == []
    health = adapter.evaluate(market, positions[devnet.cast["underwater"]])
    assert health.liquidatable
    assert health.blocked_by == ("seize-paused",)
    assert not devnet.liquidate(devnet.cast["underwater"])
    assert adapter.evaluate(market, positions[devnet.cast["supplier"]]).blocked_by == ()


def test_interest_alone_makes_an_account_liquidatable_when_accrued(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    health = adapter.evaluate(market, positions[devnet.cast["stored-above-accrued-below"]])
    assert health.health_factor is not None
    assert health.health_factor_accrued is not None
    assert health.health_factor >= WAD > health.health_factor_accrued
    assert not health.liquidatable


def test_sums_hold_and_show_who_is_missing(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    assert all(check.holds for check in adapter.checks(market, positions.values(), Accounts.ALL))
    borrowers = [positions[user] for user in devnet.borrowers]
    assert all(check.holds for check in adapter.checks(market, borrowers, Accounts.BORROWERS))
    for missing in ("zrx-debtor", "many-markets"):
        rest = [p for user, p in positions.items() if user != devnet.cast[missing]]
        for accounts in Accounts:
            assert not all(check.holds for check in adapter.checks(market, rest, accounts))


def test_sums_show_the_debt_of_a_dollar(adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2) -> None:
    """What rounding may take off is far less."""
    who = account("debtor of a dollar")
    devnet.supply(who, "ETH", 10**17, enter=True)
    devnet.borrow(who, "USDC", 10**6)
    market, positions = snapshot(adapter, node, devnet)
    assert all(check.holds for check in adapter.checks(market, positions.values(), Accounts.ALL))
    rest = [position for user, position in positions.items() if user != who]
    for accounts, broken in (
        (Accounts.ALL, ["ETH cTokens", "USDC debt apart from totalBorrows"]),
        (Accounts.BORROWERS, ["USDC debt apart from totalBorrows"]),
    ):
        assert sorted(c.name for c in adapter.checks(market, rest, accounts) if not c.holds) == broken


def test_what_a_thousand_debts_round_off_in_a_few_blocks_is_nobody_missing(needs_node: None) -> None:
    with Anvil() as anvil:
        devnet = compound_v2.CompoundV2(anvil, None, "compound-v2-young", "half-up", None)
        devnet.deploy()
        for listing in compound_v2.LISTINGS[:2]:
            devnet.list_market(listing)
        ether, usdc = (market.address for market in devnet.markets.values())
        devnet.supply(account("whale"), "USDC", 10**15)
        borrow = [calldata("borrow(uint256)", [10**8 + 7 * n]) for n in range(1_000)]
        acts = [
            (calldata("mint()"), ether, WAD),
            (calldata("enterMarkets(address[])", [[ether]]), devnet.comptroller, 0),
        ]
        debtors = [account(f"debtor {n}") for n in range(len(borrow))]
        for data, to, value in acts:
            assert all(devnet.sender.bulk([Transaction(user, to, data, value) for user in debtors]))
        assert all(devnet.sender.bulk([Transaction(*act) for act in zip(debtors, [usdc] * 1_000, borrow, strict=True)]))
        devnet.touched(*debtors)
        anvil.mine(3, 13)
        devnet.accrue("USDC")
        node, adapter = Connection(anvil), adapter_of(devnet)
        market, positions = snapshot(adapter, node, devnet)
        node.chain.close()
        owed = sum(
            pair[0] * market.c_tokens[usdc].borrow_index // pair[1]
            for p in positions.values()
            for pair in p.borrows.values()
        )
        assert market.c_tokens[usdc].total_borrows - owed > 4 * market.block.number
        assert [c for c in adapter.checks(market, positions.values(), Accounts.ALL) if not c.holds] == []
        missing = [p for p in positions.values() if p.key.account != debtors[0]]
        assert len([c for c in adapter.checks(market, missing, Accounts.BORROWERS) if not c.holds]) == 1


def test_the_market_tells_its_assets(adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2) -> None:
    market, _ = snapshot(adapter, node, devnet)
    rows = {row.symbol: row for row in market.assets}
    assert set(rows) == set(devnet.markets)
    assert (rows["ETH"].asset, rows["ETH"].decimals) == (ETHER, 18)
    for symbol, listed in devnet.markets.items():
        assert rows[symbol].market == listed.address
        assert rows[symbol].asset == (listed.underlying or ETHER)
        assert rows[symbol].price == devnet.price(symbol)
        assert rows[symbol].price_usd == pytest.approx(devnet.price(symbol) / 10 ** (36 - listed.listing.decimals))
        assert rows[symbol].total_debt == market.c_tokens[listed.address].total_borrows
    assert rows["ETH"].liquidation_threshold == 0.82
    assert rows["WBTC"].liquidation_bonus == pytest.approx(0.08)


def test_an_old_token_answers_its_symbol_as_bytes32(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    token = devnet.markets["ZRX"].underlying

    def alter(read: Read, answer: Any) -> Any:
        if read.target == token and read.signature == "symbol()(string)":
            return Failed(read)
        if read.target == token and read.signature == "symbol()(bytes32)":
            return b"MKR".ljust(32, b"\0")
        return answer

    market = adapter.read_market(AlteredReader(node.reader(), alter), None)
    assert "MKR" in {row.symbol for row in market.assets}


def test_options_name_the_native_coin_and_the_pace_of_blocks(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    deployment = replace(adapter.deployment, native_symbol="BNB")
    of_chain = CompoundV2(deployment).read_market(node.reader(), None)
    own = CompoundV2(replace(deployment, options={"native_symbol": "MOVR", "seconds_per_block": 3}))
    market = own.read_market(node.reader(), None)
    ether = devnet.markets["ETH"].address
    assert [row.symbol for row in of_chain.assets if row.market == ether] == ["BNB"]
    assert [row.symbol for row in market.assets if row.market == ether] == ["MOVR"]
    assert market.c_tokens[ether].symbol == "MOVR"
    rate = devnet.sender.call(ether, "borrowRatePerBlock()(uint256)")
    assert rate > 0
    (row,) = (row for row in market.assets if row.market == ether)
    assert row.borrow_rate == pytest.approx(rate * 365 * DAY / 3 / WAD)


def test_yearly_rates_follow_the_pace_that_was_measured(devnet: compound_v2.CompoundV2, tmp_path: Path) -> None:
    """Blocks of 3 s, as on BNB Chain: four times as much interest a year as at 12 s."""
    devnet.node.mine(260, interval=3)
    config, path = tmp_path / "indexer.toml", tmp_path / "indexer.db"
    ether = devnet.markets["ETH"].address
    text = config_toml(CHAIN_ID, devnet.node.url, [devnet])

    def synced(told: str) -> float:
        config.write_text(told)
        result = CliRunner().invoke(main, ["--config", str(config), "--db", str(path), "sync", "--chain", "devnet"])
        assert result.exit_code == 0, result.output
        ((rate,),) = raw(path, f"select borrow_rate from markets where market = '{ether}' collate nocase")
        return float(rate)

    rate = devnet.sender.call(ether, "borrowRatePerBlock()(uint256)")
    began, head = (
        devnet.node.rpc("eth_getBlockByNumber", n, False) for n in (hex(devnet.node.block_number() - 256), "latest")
    )
    pace = (int(head["timestamp"], 16) - int(began["timestamp"], 16)) / 256
    assert pace == 3
    assert synced(text) == pytest.approx(rate * 365 * DAY / pace / WAD)
    assert synced(text + "options = { seconds_per_block = 5 }\n") == pytest.approx(rate * 365 * DAY / 5 / WAD)


def test_the_oracle_is_named(adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2) -> None:
    market = adapter.read_market(node.reader(), None)
    oracle = devnet.sender.call(devnet.addresses["comptroller"], "oracle()(address)")
    assert {adapter.price_source(market, asset) for asset in market.assets} == {oracle.lower()}


def test_a_fork_that_counts_seconds_accrues_by_them(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    read = node.reader()

    def alter(one: Read, answer: Any) -> Any:
        if one.signature.startswith(("accrualBlockNumber", "borrowRatePerBlock")):
            return Failed(one)
        if one.signature.startswith("accrualBlockTimestamp"):
            return read.block.timestamp - 100
        return 10**9 if one.signature.startswith("borrowRatePerTimestamp") else answer

    market = adapter.read_market(AlteredReader(read, alter), None)
    later = adapter.after(market, seconds=50, blocks=1)
    dai, later_dai = (m.c_tokens[devnet.markets["DAI"].address] for m in (market, later))
    assert dai.per_second
    index = dai.borrow_index
    growth = 10**9 * 150 * index // WAD - 10**9 * 100 * index // WAD
    assert later_dai.borrow_index_accrued - dai.borrow_index_accrued == growth
    (row,) = (row for row in market.assets if row.symbol == "DAI")
    assert row.borrow_rate == pytest.approx(10**9 * 365 * DAY / WAD)


def test_a_fork_that_counts_seconds_under_the_old_names_accrues_by_them(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    devnet.list_market(replace(compound_v2.LATE_LISTING, symbol="SEC"), "seconds")
    devnet.supply(devnet.cast["supplier"], "SEC", 10**24, enter=True)
    devnet.borrow(devnet.cast["many-markets"], "SEC", 10**18)
    devnet.node.mine(2, 13)
    market, positions = snapshot(adapter, node, devnet)
    token = market.c_tokens[devnet.markets["SEC"].address]
    assert token.accrued_at == market.block.timestamp - 26
    devnet.node.mine(3, DAY)
    advanced, later = adapter.after(market, 3 * DAY, 3), adapter.read_market(node.reader(), market)
    assert advanced.c_tokens == later.c_tokens
    assert wrong(adapter, devnet, later, positions) == []
    assert wrong_accrued(adapter, devnet, later, positions) == []
    (row,) = (row for row in later.assets if row.symbol == "SEC")
    assert row.borrow_rate == pytest.approx(token.rate * 365 * DAY / WAD)


def test_a_rate_that_is_not_told_is_unknown(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    def alter(read: Read, answer: Any) -> Any:
        return Failed(read) if read.signature.startswith("borrowRatePer") else answer

    market = adapter.read_market(AlteredReader(node.reader(), alter), None)
    assert {row.borrow_rate for row in market.assets} == {None}
    assert None not in {row.supply_rate for row in market.assets}


def test_without_a_unitroller_the_comptroller_names_its_revision(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    def alter(one: Read, answer: Any) -> Any:
        return Failed(one) if one.signature.startswith("comptrollerImplementation") else answer

    read = AlteredReader(node.reader(), alter)
    market = adapter.read_market(read, None)
    assert market.revision == devnet.comptroller
    market = adapter.fit(read, market, adapter.read_positions(read, market, keys(devnet.users)))
    again = adapter.read_market(read, market)
    # an upgrade would go unseen, so the rounding is checked each time
    assert (market.checked, again.checked, again.rounding) == (True, False, market.rounding)
    without = AlteredReader(node.reader(), alter, storage=False)
    assert adapter.read_market(without, None).revision == devnet.comptroller


def test_a_refresh_costs_the_same_however_many_accounts_there_are(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    read = node.reader()
    assert node.requests(lambda: adapter.read_market(read, market)) <= 6
    assert node.requests(lambda: adapter.fit(read, market, list(positions.values()))) == 0


def test_markets_and_positions_survive_being_stored(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    assert load_market(adapter, dump_market(market)) == market
    for position in positions.values():
        assert [*load_positions(adapter, [(position.block_number, dump_position(position))])] == [position]


def test_an_account_that_cannot_be_read_is_an_error(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    read = node.reader()
    market = adapter.read_market(read, None)
    broken = AlteredReader(read, lambda one, answer: Failed(one) if one.signature.startswith("getAssetsIn") else answer)
    with pytest.raises(ReadFailedError, match="getAssetsIn"):
        adapter.read_positions(broken, market, keys(devnet.users[:3]))


def test_a_market_listed_since_is_read_and_counted_once_the_market_knows_it(
    adapter: CompoundV2, node: Connection, devnet: compound_v2.CompoundV2
) -> None:
    old = adapter.read_market(node.reader(), None)
    user = devnet.cast["supplier"]
    devnet.list_market(replace(compound_v2.LATE_LISTING, symbol="NEW"), "old")
    devnet.supply(user, "NEW", 10**21, enter=True)
    devnet.borrow(user, "NEW", 10**18)
    read = node.reader()
    (position,) = adapter.read_positions(read, old, keys([user]))
    assert adapter.evaluate(old, position).unpriceable
    market, positions = snapshot(adapter, node, devnet)
    assert position == positions[user]
    assert wrong(adapter, devnet, market, positions) == []


# Recorded mainnet data
