"""Aave V2: every user's account equals `getUserAccountData` to the last digit, whoever acted and whoever did not."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexer.errors import ReadFailedError
from indexer.model import RAY, WAD, Accounts, Block, Deployment, Failed, PositionKey, Read
from indexer.store.books import dump_market, dump_position, load_market, load_positions
from protocols.aave_v2.adapter import MINT, AaveV2
from protocols.aave_v2.market import AaveV2Market, Reserve
from protocols.aave_v2.position import AaveV2Position
from tests import truth
from tests.compound import (
    AlteredReader,
    Connection,
    accounts_in,
    by_account,
    keys,
    recorded_lending,
    recorded_others,
    snapshot,
)
from tests.devnet import aave_v2
from tests.devnet.worlds import alone
from tests.truth import NO_DEBT

DAY = 86_400
USERS = 60
Positions = dict[str, Any]

BLOCK = Block(100, "0x" + "aa" * 32, "0x" + "bb" * 32, 1_700_000_000)
POOL = "0x7d2768de32b0b80b7a3454c06bdac94a69ddc7a9"
MAINNET = AaveV2(
    Deployment(
        "aave-v2", "aave-v2", "mainnet", 0,
        {"lending_pool_addresses_provider": "0xB53C1a33016B2DC2fF3653530bfF1848a515c8c5"},
    )
)  # fmt: skip


def reserve(
    place: int, symbol: str, price: int | None, decimals: int = 18, threshold: int = 8_000, **more: Any
) -> Reserve:
    """A reserve whose indexes are all 1; tokens have made-up addresses unless told otherwise."""
    fields: dict[str, Any] = {
        "asset": f"0x{place + 0x100:040x}",
        "a_token": f"0x{place + 0x200:040x}",
        "stable_debt_token": f"0x{place + 0x300:040x}",
        "variable_debt_token": f"0x{place + 0x400:040x}",
    }
    return Reserve(
        id=place, symbol=symbol, configuration=7_500 | threshold << 16 | 10_500 << 32 | decimals << 48 | 1 << 56,
        liquidity_index=RAY, liquidity_rate=0, variable_borrow_index=RAY, variable_borrow_rate=0,
        last_update=BLOCK.timestamp, income=RAY, debt_index=RAY, scaled_supply=0, scaled_debt=0, stable_debt=0,
        price=price, **(fields | more),
    )  # fmt: skip


def market_of(*reserves: Reserve) -> AaveV2Market:
    return AaveV2Market(
        block=BLOCK, revision="LENDINGPOOL_REVISION 2", pool=POOL, oracle="0x" + "11" * 20, pool_revision=2,
        reserves=reserves,
    ).with_assets()  # fmt: skip


def position_of(supplied: dict[Reserve, int], borrowed: dict[Reserve, int]) -> AaveV2Position:
    return AaveV2Position(
        key=PositionKey("0x" + "22" * 20),
        block_number=BLOCK.number,
        configuration=sum(r.collateral_flag for r in supplied) | sum(r.borrowing_flag for r in borrowed),
        supplied={r.a_token: amount for r, amount in supplied.items()},
        borrowed={r.variable_debt_token: amount for r, amount in borrowed.items()},
        stable={},
        offsets={},
    )


# recorded mainnet data


def test_liquidated_accounts_evaluate_as_recorded(shared: Path) -> None:
    for case in json.loads((shared / "mainnet" / "aave_v2_liquidations.json").read_text()):

        def evaluate(threshold: int, case: dict[str, Any] = case) -> Any:
            supplied, borrowed, reserves = {}, {}, []
            for i, (symbol, held) in enumerate(case["reserves"].items()):
                one = reserve(i, symbol, int(held["price_eth_wei"]), held["decimals"], threshold)
                reserves.append(one)
                if "aToken" in held:
                    supplied[one] = int(held["aToken"])
                if "variableDebt" in held:
                    borrowed[one] = int(held["variableDebt"])
            return MAINNET.evaluate(market_of(*reserves), position_of(supplied, borrowed))

        highest = int(case["max_LT_for_HF_below_1"] * 10_000)
        for threshold in (100, 5_000, 7_500, 8_000, highest):
            health = evaluate(threshold)
            assert health.collateral_value == int(case["collateral_eth_wei"])
            assert health.debt_value == int(case["debt_eth_wei"])
            assert health.liquidatable
            assert health.health_factor < WAD
        assert evaluate(highest + 1).health_factor >= WAD


def mainnet_market() -> AaveV2Market:
    return market_of(
        reserve(
            0, "WETH", WAD,
            asset="0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",
            a_token="0x030ba81f1c18d280636f32af80b9aad02cf0854e",
            variable_debt_token="0xf63b34710400cad3e044cffdcab00a0f32e33ecf",
            stable_debt_token="0x4e977830ba4bd783c0bb7f15d3e243f73ff57121",
        ),
        reserve(
            1, "stETH", WAD,
            asset="0xae7ab96520de3a18e5e111b5eaab095312d7fe84",
            a_token="0x1982b2f5814301d4e9a8b0201555376e62f82428",
            variable_debt_token="0xa9deac9f00dc4310c35603fcd9d34d1a750f81db",
            stable_debt_token="0x66457616dd8489df5d0afd8678f4a260088aaf55",
        ),
    )  # fmt: skip


TREASURY = "0x464c71f6c2f760dda6093dcb91c24c39e5d6e18c"


def test_recorded_transactions_touch_exactly_their_accounts(shared: Path) -> None:
    found = {t: accounts_in(MAINNET, mainnet_market(), events) for t, events in recorded_lending(shared)}
    assert {t: accounts for t, accounts in found.items() if accounts} == {
        # a withdrawal, with interest for the treasury
        "0x8fe440f37fd0fa1467067a195ea862db1f96c40634ea7bb3782cc3c3431e9b5c": {
            TREASURY,
            "0x2715273613632226985186221669179813245119",
        },
        # aSTETH sent to a contract that withdraws it
        "0xa77ea655f8e0fc7227674633ee1da0c52aadd38f825e2dfa8f44d40867ae1745": {
            "0x4bf180a73575d4393cc794f29fb92c3954a36b5a",
            "0xb748952c7bc638f31775245964707bcc5ddfabfc",
        },
        # a liquidation: the treasury, the liquidated, the liquidator
        "0x2077a54ecae4a06c553f96c120acc0237887fdd1fc2596aab103f6681712974d": {
            TREASURY,
            "0x1db64086b4cda94884e4fc296799a512dfc564ca",
            "0xb6569481dccddd527c2b0e8ba32f494e52224ca1",
        },
    }


def test_other_contracts_touch_nobody_even_under_a_shared_topic(shared: Path) -> None:
    events = recorded_others(shared) + [event for _, events in recorded_lending(shared) for event in events]
    foreign = [e for e in events if e.address not in mainnet_market().tokens]
    assert any(e.topic0 == MINT for e in foreign)  # Compound's and Uniswap's
    assert accounts_in(MAINNET, mainnet_market(), foreign) == set()


# made-up accounts


def test_usd_is_what_usdc_says() -> None:
    usdc = reserve(0, "USDC", 500_000_000_000_000, 6)
    market = market_of(usdc, reserve(1, "WETH", WAD))
    assert market.usd == (1, 500_000_000_000_000)
    assert [a.price_usd for a in market.assets] == [1.0, 2000.0]
    assert market_of(reserve(0, "WETH", WAD)).usd is None
    assert market_of(replace(usdc, price=None)).usd is None


def test_a_missing_price_makes_only_those_with_a_flag_there_unpriceable() -> None:
    weth, dead = reserve(0, "WETH", WAD), reserve(1, "DEAD", None)
    market = market_of(weth, dead)
    holder = position_of({weth: 10 * WAD, dead: WAD}, {weth: WAD})
    health = MAINNET.evaluate(market, holder)
    assert health.unpriceable
    assert (health.collateral_value, health.debt_value, health.health_factor) == (None, None, None)
    unflagged = replace(holder, configuration=weth.collateral_flag | weth.borrowing_flag)
    assert MAINNET.evaluate(market, unflagged).health_factor == 8 * WAD
    assert {b.symbol: b.value for b in MAINNET.balances(market, unflagged) if b.side == "supply"} == {
        "WETH": 10 * WAD,
        "DEAD": None,
    }
    worthless = market_of(weth, replace(dead, price=0))
    assert MAINNET.evaluate(worthless, holder).unpriceable


def test_a_pause_and_an_inactive_reserve_block_without_changing_the_status() -> None:
    weth = reserve(0, "WETH", WAD)
    off = replace(reserve(1, "OFF", WAD), configuration=reserve(1, "OFF", WAD).configuration & ~(1 << 56))
    unsafe = position_of({weth: 10 * WAD, off: WAD}, {weth: 10 * WAD})
    market = market_of(weth, off)
    assert MAINNET.evaluate(market, unsafe).blocked_by == ("inactive:OFF",)
    health = MAINNET.evaluate(replace(market, paused=True), unsafe)
    assert health.blocked_by == ("paused", "inactive:OFF")
    assert health.liquidatable
    idle = position_of({weth: WAD}, {})
    assert MAINNET.evaluate(replace(market, paused=True), idle).blocked_by == ()


# the real contracts


@pytest.fixture(scope="module", params=[(None, 1), (None, 2), ("scaled", 1), ("balance", 2)], ids=str)
def populated(request: pytest.FixtureRequest, needs_node: None) -> Iterator[aave_v2.AaveV2]:
    rebasing, seed = request.param
    with alone(lambda node: aave_v2.deploy(node, rebasing=rebasing), seed, USERS) as market:
        yield market


@pytest.fixture
def adapter(devnet: aave_v2.AaveV2) -> AaveV2:
    return AaveV2(Deployment(devnet.name, devnet.protocol, "devnet", devnet.start_block, devnet.addresses))


def refreshed(
    adapter: AaveV2, node: Connection, market: AaveV2Market, positions: Positions, changed: Iterable[str] = ()
) -> AaveV2Market:
    """The market at the head; who changed and who cannot be tracked is read again, as the sync does it."""
    read = node.reader()
    fresh = adapter.read_market(read, market)
    stale = {account for account, position in positions.items() if adapter.changes_silently(fresh, position)}
    positions |= by_account(adapter.read_positions(read, fresh, keys(sorted(stale | set(changed)))))
    return adapter.fit(read, fresh, list(positions.values()))


def wrong(adapter: AaveV2, devnet: aave_v2.AaveV2, market: AaveV2Market, positions: Positions) -> list[str]:
    """Where what we compute differs from the pool and its tokens at the market's block, for every user."""
    block, users = market.block.number, list(positions)
    answers = devnet.answers(users, block)
    places = [
        (token, side)
        for tokens in devnet.tokens.values()
        for token, side in (
            (tokens.a_token, "supply"), (tokens.stable_debt, "debt"), (tokens.variable_debt, "debt"),
        )
    ]  # fmt: skip
    reads = [(token, "balanceOf(address)(uint256)", [user]) for user in users for token, _ in places]
    amounts = iter(devnet.sender.calls(reads, block=block))
    found = []
    for user, answer in zip(users, answers, strict=True):
        health = adapter.evaluate(market, positions[user])
        ours = (health.collateral_value, health.debt_value, health.health_factor)
        expected = (answer[0], answer[1], None if answer[5] == NO_DEBT else answer[5])
        if ours != expected or health.liquidatable != (answer[5] < WAD):
            found.append(f"{user}: {ours} instead of {expected}")
        rows = {(b.market, b.side): b.amount for b in adapter.balances(market, positions[user])}
        for place in places:
            amount = next(amounts)
            if rows.get(place, 0) != amount:
                found.append(f"{user} {place}: {rows.get(place, 0)} instead of {amount}")
    return found


def broken(adapter: AaveV2, market: AaveV2Market, positions: Positions) -> list[Any]:
    return [c for c in adapter.checks(market, positions.values(), Accounts.ALL) if not c.holds]


def test_every_user_equals_the_contracts(adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2) -> None:
    market, positions = snapshot(adapter, node, devnet)
    assert market.exact
    assert len(positions) == len(devnet.users) >= USERS
    assert wrong(adapter, devnet, market, positions) == []
    assert broken(adapter, market, positions) == []


def test_users_who_do_nothing_are_right_without_being_read_again(
    adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    first = market.block.number
    changes: list[Callable[[], Any]] = [
        lambda: devnet.node.elapse(40 * DAY),
        lambda: devnet.move_price("WBTC", 0.7),
        lambda: devnet.move_price("USDC", 1.3),
        lambda: devnet.configure_collateral("DAI", 7_000, 7_600, 10_500),
        lambda: devnet.configure_collateral("GUSD", 4_000, 5_000, 11_000),
        lambda: devnet.freeze("LINK"),
        devnet.pause,
    ]
    for change in changes:
        change()
        market = refreshed(adapter, node, market, positions)
        assert wrong(adapter, devnet, market, positions) == []
    assert {p.block_number for p in positions.values()} == {first}


def test_events_name_everyone_who_changed(adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2) -> None:
    market, positions = snapshot(adapter, node, devnet)
    for seed in range(3):
        devnet.step(seed)
        touched = accounts_in(adapter, market, node.news(adapter, market))
        assert touched <= {*devnet.users, *devnet.bystanders}
        changed = touched & {*positions, *devnet.users}
        assert len(changed) < len(positions)
        market = refreshed(adapter, node, market, positions, changed)
        assert set(positions) == set(devnet.users)
        assert wrong(adapter, devnet, market, positions) == []
        assert broken(adapter, market, positions) == []


def test_discovery_names_borrowers_and_holders_and_nobody_else(
    adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2
) -> None:
    market, _ = snapshot(adapter, node, devnet)
    borrowers = accounts_in(adapter, market, node.events(adapter.logs(market, Accounts.BORROWERS).discovery))
    everyone = accounts_in(adapter, market, node.events(adapter.logs(market, Accounts.ALL).discovery))
    assert borrowers == devnet.borrowers
    assert devnet.cast["stable-borrower"] in borrowers
    assert devnet.cast["delegatee"] not in borrowers
    assert everyone == set(devnet.users)
    assert devnet.cast["receiver-of-nothing"] not in everyone


def test_the_contracts_own_answers_are_ours(adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2) -> None:
    market, positions = snapshot(adapter, node, devnet)
    for answer in adapter.contract_answers(node.reader(), market, keys(devnet.users)):
        position = positions[answer.key.account]
        health = adapter.evaluate(market, position)
        assert answer.columns == {
            "collateral_value_raw": health.collateral_value,
            "liquidation_limit_raw": health.liquidation_limit,
            "debt_value_raw": health.debt_value,
            "health_factor_raw": health.health_factor,
        }
        assert answer.liquidatable == health.liquidatable
        rows = {(b.market, b.side): b for b in adapter.balances(market, position)}
        assert {place: amount for place, amount in answer.amounts.items() if amount} == {
            place: row.amount for place, row in rows.items() if row.amount
        }


def test_time_to_come_equals_what_the_views_then_answer(
    adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    advanced = adapter.after(adapter.after(market, 30 * DAY, 1), 7, 0)
    devnet.node.elapse(30 * DAY + 7)
    later = adapter.read_market(node.reader(), market)
    # the totals of stable debt are asked, not computed
    assert [replace(r, stable_debt=0) for r in advanced.reserves] == [replace(r, stable_debt=0) for r in later.reserves]
    assert (advanced.block.number, advanced.block.timestamp) == (later.block.number, later.block.timestamp)
    assert wrong(adapter, devnet, advanced, positions) == []


def test_other_prices_equal_what_the_oracle_then_answers(
    adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    prices = {symbol: devnet.price(symbol) * 4 // 5 + 1 for symbol in ("WBTC", "DAI", "USDC")}
    repriced = adapter.with_prices(market, {devnet.tokens[symbol].asset: price for symbol, price in prices.items()})
    for symbol, price in prices.items():
        devnet.set_price(symbol, price)
    later = adapter.read_market(node.reader(), market)
    assert [(a.price, a.price_usd) for a in repriced.assets] == [(a.price, a.price_usd) for a in later.assets]
    assert repriced.usd == later.usd
    at = replace(later.block, number=later.block.number)
    assert wrong(adapter, devnet, repriced.at(at), positions) == []


def test_a_dead_feed_makes_its_holders_unpriceable(adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2) -> None:
    devnet.set_price("DAI", 0)
    market, positions = snapshot(adapter, node, devnet)
    answers = {a.key.account: a for a in adapter.contract_answers(node.reader(), market, keys(devnet.users))}
    unpriceable = {user for user, position in positions.items() if adapter.evaluate(market, position).unpriceable}
    assert unpriceable == {user for user, answer in answers.items() if answer.columns["collateral_value_raw"] is None}
    assert len(unpriceable) > 5
    assert wrong(adapter, devnet, market, {u: p for u, p in positions.items() if u not in unpriceable}) == []
    (dai,) = (row for row in market.assets if row.symbol == "DAI")
    assert (dai.price, dai.price_usd) == (None, None)
    devnet.set_fallback_price("DAI", 10**15)
    market = refreshed(adapter, node, market, positions)
    assert wrong(adapter, devnet, market, positions) == []


def test_an_unknown_pool_carries_its_own_answers(adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2) -> None:
    market, positions = snapshot(adapter, node, devnet)
    while devnet.upgrade_pool() < 4:
        assert refreshed(adapter, node, market, positions).exact  # 3 and 4 are mainnet's, with the same account maths
    devnet.upgrade_pool()
    market = refreshed(adapter, node, market, positions)
    assert not market.exact
    assert market.revision == "LENDINGPOOL_REVISION 5"
    assert market.note is not None
    assert market.revision in market.note
    for position in positions.values():
        assert adapter.changes_silently(market, position) is not position.empty
        health = adapter.evaluate(market, position)
        assert (health.collateral_value, health.debt_value, health.health_factor) == (None, None, None)


def test_interest_that_is_not_ours_is_not_exact(adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2) -> None:
    def alter(read: Read, answer: Any) -> Any:
        return answer + 1 if read.signature.startswith("getReserveNormalizedIncome") else answer

    market = adapter.read_market(AlteredReader(node.reader(), alter), None)
    assert not market.exact
    assert market.note is not None
    assert "interest" in market.note


def test_balances_of_an_unknown_pool_are_what_its_tokens_answer(
    adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2
) -> None:
    def alter(read: Read, answer: Any) -> Any:
        if read.signature.startswith("LENDINGPOOL_REVISION"):
            return 99
        return answer + 1 if read.signature.startswith("balanceOf") else answer

    read = AlteredReader(node.reader(), alter)
    market = adapter.read_market(read, None)
    positions = adapter.read_positions(read, market, keys(devnet.users))
    answers = adapter.contract_answers(read, market, keys(devnet.users))
    for position, answer in zip(positions, answers, strict=True):
        rows = {(b.market, b.side): b.amount for b in adapter.balances(market, position)}
        assert rows == {place: answer.amounts[place] for place in rows}


def test_a_provider_without_a_pool_fails_loudly(adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2) -> None:
    def alter(read: Read, answer: Any) -> Any:
        return "0x" + "00" * 20 if read.signature.startswith("getLendingPool") else answer

    with pytest.raises(ReadFailedError, match="names no pool"):
        adapter.read_market(AlteredReader(node.reader(), alter), None)
    with pytest.raises(ReadFailedError, match="getPriceOracle"):
        adapter.read_market(
            AlteredReader(node.reader(), lambda r, a: Failed(r) if r.signature.startswith("getPriceOracle") else a),
            None,
        )


def test_the_market_and_positions_survive_storage(adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2) -> None:
    market, positions = snapshot(adapter, node, devnet)
    stored = load_market(adapter, dump_market(market))
    assert stored == market
    for position in positions.values():
        (back,) = load_positions(adapter, [(position.block_number, dump_position(position))])
        assert back == position
        assert adapter.evaluate(stored, back) == adapter.evaluate(market, position)


def test_a_refresh_costs_the_same_however_many_users_there_are(
    adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)

    def refresh(held: list[Any]) -> int:
        def act() -> None:
            adapter.fit(node.reader(), adapter.read_market(node.reader(), market), held)

        act()  # the node's habits (which calls fail) are learnt on the first round
        return node.requests(act)

    assert refresh(list(positions.values())) == refresh(list(positions.values())[:5])


# rebasing aTokens


def test_a_rebase_without_an_event_is_seen(adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2) -> None:
    market, positions = snapshot(adapter, node, devnet)
    moving = {devnet.tokens["STETH"].a_token} if devnet.rebasing else set()
    assert market.rebasing == moving
    for factor in (1_000_876, 994_321):
        if devnet.rebasing:
            devnet.rebase(factor, 1_000_000)
        devnet.node.elapse(DAY)
        assert accounts_in(adapter, market, node.news(adapter, market)) == set()
        market = refreshed(adapter, node, market, positions)
        assert wrong(adapter, devnet, market, positions) == []
        assert broken(adapter, market, positions) == []
        holders = {user for user, position in positions.items() if not moving.isdisjoint(position.supplied)}
        assert {user for balances in market.moved.values() for user in balances} == holders
        assert not any(adapter.changes_silently(market, position) for position in positions.values())
    assert len(holders) > 1 if devnet.rebasing else not holders


def test_a_rebase_of_a_token_that_shows_no_sign_of_it_is_found_by_asking_holders(
    adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2
) -> None:
    def blind_reader() -> AlteredReader:
        return AlteredReader(node.reader(), lambda r, a: Failed(r) if r.signature.startswith("internal") else a)

    read = blind_reader()
    plain = replace(adapter.read_market(read, None), rebasing=frozenset())
    positions = adapter.read_positions(read, plain, keys(devnet.users))
    devnet.node.elapse(DAY)
    if devnet.rebasing:
        devnet.rebase(1_000_876, 1_000_000)
    read = blind_reader()
    market = adapter.fit(read, replace(adapter.read_market(read, plain), rebasing=frozenset()), positions)
    assert wrong(adapter, devnet, market, by_account(positions)) == []
    assert market.rebasing == ({devnet.tokens["STETH"].a_token} if devnet.rebasing else set())
    assert adapter.read_market(read, market).rebasing == market.rebasing


def test_a_token_whose_balances_are_not_the_formula_is_found_at_the_first_snapshot(
    adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2
) -> None:
    weth = devnet.tokens["WETH"].a_token

    def alter(read: Read, answer: Any) -> Any:
        return answer + 7 if (read.target, read.signature) == (weth, "balanceOf(address)(uint256)") else answer

    read = AlteredReader(node.reader(), alter)
    market = adapter.read_market(read, None)
    assert weth not in market.rebasing  # its total supply shows no sign of it
    positions = adapter.read_positions(read, market, keys(devnet.users))
    market = adapter.fit(read, market, positions)
    assert weth in market.rebasing
    rows = [row for position in positions for row in adapter.balances(market, position) if row.market == weth]
    answers = adapter.contract_answers(read, market, keys(devnet.users))
    assert sorted(row.amount for row in rows) == sorted(a.amounts[weth, "supply"] for a in answers)[-len(rows) :]


def test_one_holder_who_changed_unnoticed_is_no_rebase(
    adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2
) -> None:
    market, positions = snapshot(adapter, node, devnet)
    a_token = devnet.tokens["WETH"].a_token
    largest = max(positions, key=lambda user: positions[user].supplied.get(a_token, 0))
    supplied = {**positions[largest].supplied, a_token: positions[largest].supplied[a_token] + 1}
    positions[largest] = replace(positions[largest], supplied=supplied)
    devnet.node.mine()
    market = adapter.read_market(node.reader(), market)
    assert a_token not in adapter.fit(node.reader(), market, list(positions.values())).rebasing


# the whole way into a database


@pytest.mark.parametrize("accounts", ["borrowers", "all"])
def test_a_synced_database_equals_the_contracts(tmp_path: Path, devnet: aave_v2.AaveV2, accounts: str) -> None:
    path = tmp_path / "aave-v2.db"
    for seed in range(2):
        outcome = truth.sync_once(path, devnet.node.url, [devnet], accounts=accounts)
        assert outcome.failed == {}
        expected = set(devnet.users) if accounts == "all" else devnet.borrowers
        assert truth.wrong_aave_rows(path, devnet, expected) == []
        assert truth.raw(path, "select state from deployments") == [("ok",)]
        devnet.step(seed)
        if devnet.rebasing:
            devnet.rebase(1_000_321, 1_000_000)


def test_collateral_is_what_the_user_configuration_flags(
    adapter: AaveV2, node: Connection, devnet: aave_v2.AaveV2
) -> None:
    """A first deposit sets the flag in V2, also where the reserve's threshold is 0 and it then backs nothing."""
    market, positions = snapshot(adapter, node, devnet)
    seen: set[tuple[str, bool]] = set()
    for user, position in positions.items():
        for row in adapter.balances(market, position):
            if row.side == "supply":
                want = devnet.user_data(user, row.symbol)[8]
                assert row.is_collateral == want, (user, row.symbol)
                seen.add((row.symbol, want))
    assert ("GUSD", True) in seen
    assert False in {flag for _, flag in seen}
