"""The Aave V2 and Compound V2 devnets hold every situation that they promise, and know who was in it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from tests.devnet import aave_v2, compound_v2
from tests.devnet.aave_v2 import STABLE, VARIABLE, AaveV2
from tests.devnet.compound_v2 import BORROW_SLOTS, CompoundV2, Generation, Refused
from tests.devnet.node import Anvil
from tests.devnet.send import Reverted, account

WAD = 10**18
RAY = 10**27
NO_DEBT = 2**256 - 1
SEEDS = (1, 2)
USERS = 100


@dataclass
class Log:
    """One log with its arguments decoded as words."""

    address: str
    topics: list[str]
    words: list[int]
    block: int

    def topic_address(self, position: int) -> str:
        return "0x" + self.topics[position][-40:]

    def word_address(self, position: int) -> str:
        return f"0x{self.words[position]:040x}"


def logs(node: Anvil, event: str, *addresses: str, after: int = 0) -> list[Log]:
    """All logs of an event since a block, of these contracts or of any."""
    query: dict[str, Any] = {"fromBlock": hex(after + 1), "toBlock": "latest"}
    query["topics"] = ["0x" + keccak(text=event).hex()]
    if addresses:
        query["address"] = list(addresses)
    answer = []
    for log in node.rpc("eth_getLogs", query):
        data = bytes.fromhex(log["data"][2:])
        words = [int.from_bytes(data[i : i + 32], "big") for i in range(0, len(data), 32)]
        answer.append(Log(log["address"].lower(), log["topics"], words, int(log["blockNumber"], 16)))
    return answer


def ray_mul(a: int, b: int) -> int:
    return (a * b + RAY // 2) // RAY


# Aave V2


@pytest.fixture(scope="module", params=SEEDS)
def populated_aave(request: pytest.FixtureRequest, needs_node: None) -> Iterator[AaveV2]:
    with Anvil() as node:
        market = aave_v2.deploy(node)
        market.populate(request.param, USERS)
        yield market


@pytest.fixture
def aave(populated_aave: AaveV2) -> Iterator[AaveV2]:
    """A populated market; what a test does to it is undone."""
    with populated_aave.rewound():
        yield populated_aave


def stable_and_variable(market: AaveV2, name: str, symbol: str) -> tuple[bool, bool]:
    user = market.cast[name]
    return market.debt(user, symbol, STABLE) > 0, market.debt(user, symbol, VARIABLE) > 0


def flagged(market: AaveV2, name: str, symbol: str) -> bool:
    return bool(market.user_data(market.cast[name], symbol)[8])


def test_aave_makes_as_many_users_as_asked_for(aave: AaveV2) -> None:
    assert len(aave.users) == len(set(aave.users)) == USERS
    assert aave.borrowers < set(aave.users)
    assert not aave.bystanders & set(aave.users)
    assert all(a == a.lower() for a in [*aave.users, *aave.borrowers, *aave.bystanders, *aave.addresses.values()])


def test_aave_lists_assets_of_all_kinds(aave: AaveV2) -> None:
    assert {r.decimals for r in aave.reserves.values()} == {2, 6, 8, 18}
    assert {"WETH", "USDC"} < set(aave.reserves)
    assert aave.price("WETH") == WAD
    assert [s for s, r in aave.reserves.items() if r.liquidation_threshold == 0] == ["GUSD"]


def test_aave_is_found_from_its_addresses(aave: AaveV2) -> None:
    provider = aave.addresses["lending_pool_addresses_provider"]
    assert aave.sender.call(provider, "getLendingPool()(address)").lower() == aave.pool
    assert aave.sender.call(provider, "getAddress(bytes32)(address)", [b"\x01" + bytes(31)]).lower() == (
        aave.data_provider
    )
    assert aave.sender.call(aave.registry, "getAddressesProvidersList()(address[])")[0].lower() == provider
    first = aave.node.block(aave.start_block + 1)
    assert first["transactions"]
    assert aave.node.rpc("eth_getCode", provider, hex(aave.start_block)) == "0x"


def test_aave_debts_of_both_modes_exist_alone_and_together(aave: AaveV2) -> None:
    assert stable_and_variable(aave, "variable-borrower", "USDC") == (False, True)
    assert stable_and_variable(aave, "stable-borrower", "DAI") == (True, False)
    assert stable_and_variable(aave, "both-modes", "USDC") == (True, True)
    stable_only = aave.cast["stable-borrower"]
    assert not any(aave.debt(stable_only, symbol, VARIABLE) for symbol in aave.reserves)


def test_aave_rate_modes_were_swapped_both_ways(aave: AaveV2) -> None:
    assert stable_and_variable(aave, "to-stable", "LINK") == (True, False)
    assert stable_and_variable(aave, "to-variable", "DAI") == (False, True)
    assert {log.words[0] for log in logs(aave.node, "Swap(address,address,uint256)", aave.pool)} >= {STABLE, VARIABLE}


def test_aave_a_stable_rate_was_rebalanced(aave: AaveV2) -> None:
    (log,) = logs(aave.node, "RebalanceStableBorrowRate(address,address)", aave.pool)
    assert log.topic_address(2) == aave.cast["rebalanced"]
    before = aave.user_data(aave.cast["rebalanced"], "GUSD", log.block - 1)
    after = aave.user_data(aave.cast["rebalanced"], "GUSD", log.block)
    assert after[5] > before[5] > 0


def test_aave_debts_were_delegated_and_flash_borrowed(aave: AaveV2) -> None:
    assert aave.debt(aave.cast["delegator"], "USDC", VARIABLE) > 0
    assert aave.debt(aave.cast["delegator"], "DAI", STABLE) > 0
    assert aave.cast["delegatee"] in aave.bystanders
    assert aave.answer(aave.cast["delegatee"])[:2] == (0, 0)
    assert aave.debt(aave.cast["flash-debtor"], "DAI", VARIABLE) > 0
    assert len(logs(aave.node, "FlashLoan(address,address,address,uint256,uint256,uint16)", aave.pool)) == 2


def test_aave_debts_were_repaid_in_part_and_in_full(aave: AaveV2) -> None:
    for name, symbol in (("repaid", "USDC"), ("repaid-stable", "USDC"), ("gone", "WETH")):
        assert aave.cast[name] in aave.borrowers
        assert aave.debt(aave.cast[name], symbol) == 0
        assert aave.answer(aave.cast[name])[5] == NO_DEBT
    assert aave.answer(aave.cast["repaid"])[0] > 0
    assert aave.answer(aave.cast["gone"])[0] == 0
    (log,) = (
        log
        for log in logs(aave.node, "Repay(address,address,address,uint256)", aave.pool)
        if log.topic_address(2) == aave.cast["partly-repaid"]
    )
    assert aave.debt(aave.cast["partly-repaid"], "WBTC") > log.words[0] > 0


def test_aave_a_tokens_moved_between_accounts(aave: AaveV2) -> None:
    receiver = aave.cast["receiver"]
    assert receiver in aave.users
    assert receiver not in aave.borrowers
    assert aave.balance(receiver, "LINK") > 0
    assert flagged(aave, "receiver", "LINK")
    assert aave.balance(aave.cast["sender"], "LINK") == 0
    nothing = aave.cast["receiver-of-nothing"]
    assert nothing in aave.bystanders
    event = "BalanceTransfer(address,address,uint256,uint256)"
    assert [log.words[0] for log in logs(aave.node, event) if log.topic_address(2) == nothing] == [0]


def test_aave_collateral_flags_were_switched(aave: AaveV2) -> None:
    assert flagged(aave, "toggled", "USDC")
    assert not flagged(aave, "toggled", "DAI")
    assert aave.balance(aave.cast["toggled"], "DAI") > 0


def test_aave_an_asset_without_threshold_is_flagged_and_counts_nothing(aave: AaveV2) -> None:
    user = aave.cast["unusable-collateral"]
    assert flagged(aave, "unusable-collateral", "GUSD")
    assert aave.balance(user, "GUSD") > 0
    assert aave.answer(user)[0] == 0
    mixed = aave.cast["mixed-collateral"]
    weth = aave.balance(mixed, "WETH")
    assert aave.answer(mixed)[0] == weth


def test_aave_liquidators_took_tokens_and_a_tokens(aave: AaveV2) -> None:
    event = "LiquidationCall(address,address,address,uint256,uint256,address,bool)"
    seen = {(log.topic_address(3), bool(log.words[3])) for log in logs(aave.node, event, aave.pool)}
    assert {(aave.cast["liquidated"], False), (aave.cast["liquidated-to-a-token"], True)} < seen
    taker = aave.cast["a-token-liquidator"]
    assert taker in aave.users
    assert aave.balance(taker, "LINK") > 0
    assert account(f"{aave.name} liquidator") in aave.bystanders


def test_aave_health_factors_of_every_kind_exist(aave: AaveV2) -> None:
    answer = {name: aave.answer(user) for name, user in aave.cast.items()}
    assert answer["supplier"][5] == NO_DEBT
    assert WAD < answer["just-above"][5] < 1_010 * WAD // 1000
    assert 999 * WAD // 1000 < answer["just-below"][5] < WAD
    assert answer["underwater"][5] < WAD
    assert answer["bad-debt"][1] > 0
    assert answer["bad-debt"][5] == 0
    dust = answer["dust-debtor"]
    assert aave.debt(aave.cast["dust-debtor"], "DAI") > 0
    assert (dust[1], dust[5]) == (0, NO_DEBT)


def test_aave_treasury_earns_a_tokens(aave: AaveV2) -> None:
    assert aave.treasury in aave.users
    assert aave.treasury not in aave.borrowers
    assert aave.balance(aave.treasury, "DAI") > 0


def test_aave_the_ground_truth_is_what_the_logs_say(aave: AaveV2) -> None:
    variable = [tokens.variable_debt for tokens in aave.tokens.values()]
    stable = [tokens.stable_debt for tokens in aave.tokens.values()]
    a_tokens = [tokens.a_token for tokens in aave.tokens.values()]
    stable_mint = "Mint(address,address,uint256,uint256,uint256,uint256,uint256,uint256)"
    debtors = {log.topic_address(2) for log in logs(aave.node, "Mint(address,address,uint256,uint256)", *variable)}
    debtors |= {log.topic_address(2) for log in logs(aave.node, stable_mint, *stable)}
    assert debtors == aave.borrowers
    holders = {log.topic_address(1) for log in logs(aave.node, "Mint(address,uint256,uint256)", *a_tokens)}
    moved = logs(aave.node, "BalanceTransfer(address,address,uint256,uint256)", *a_tokens)
    holders |= {log.topic_address(2) for log in moved if log.words[0]}
    assert holders | debtors == set(aave.users)


def test_aave_a_step_leaves_most_users_alone(fresh_node: Anvil) -> None:
    market = aave_v2.deploy(fresh_node)
    market.populate(3, 60)
    users, borrowers, head = len(market.users), len(market.borrowers), fresh_node.block_number()
    before = dict(zip(market.users, market.answers(market.users), strict=True))
    market.step(1)
    assert len(market.users) >= users + 2
    assert len(market.borrowers) >= borrowers
    everything = fresh_node.rpc("eth_getLogs", {"fromBlock": hex(head + 1), "toBlock": "latest"})
    text = "".join(str(log["topics"]) + log["data"] for log in everything)
    idle = [user for user in market.users[:users] if user[2:] not in text]
    assert len(idle) > users // 2
    moved = [user for user, data in zip(idle, market.answers(idle), strict=True) if data[:2] != before[user][:2]]
    assert len(moved) > len(idle) // 2


def test_aave_the_same_seed_gives_the_same_chain(needs_node: None) -> None:
    def head() -> tuple[str, list[str]]:
        with Anvil() as node:
            market = aave_v2.deploy(node, rebasing="scaled")
            market.populate(4, 50)
            market.step(1)
            return str(node.block()["hash"]), market.users

    assert head() == head()


@pytest.mark.parametrize("rebasing", ["scaled", "balance"])
def test_aave_a_rebase_moves_balances_without_an_event(fresh_node: Anvil, rebasing: aave_v2.Rebasing) -> None:
    market = aave_v2.deploy(fresh_node, rebasing=rebasing)
    market.populate(1, 50)
    user, a_token = market.cast["steth-borrower"], market.tokens["STETH"].a_token

    def scaled_and_balance(block: int) -> tuple[int, int, int]:
        function = "scaledBalanceOf(address)(uint256)"
        scaled = market.sender.call(a_token, function, [user], block=block)
        return scaled, market.balance(user, "STETH", block), market.answer(user, block)[0]

    head = fresh_node.block_number()
    market.rebase(11, 10)
    now = fresh_node.block_number()
    ours = {market.pool, market.configurator, *(a for t in market.tokens.values() for a in vars(t).values())}
    ours.discard(market.tokens["STETH"].asset)
    found = fresh_node.rpc("eth_getLogs", {"fromBlock": hex(head + 1), "toBlock": "latest", "address": sorted(ours)})
    assert found == []
    before, after = scaled_and_balance(head), scaled_and_balance(now)
    assert after[1] == before[1] * 11 // 10
    assert after[2] > before[2]
    assert (after[0] != before[0]) == (rebasing == "scaled")
    function = "getReserveNormalizedIncome(address)(uint256)"
    income = market.sender.call(market.pool, function, [market.tokens["STETH"].asset])
    assert (ray_mul(after[0], income) == after[1]) == (rebasing == "scaled")
    market.withdraw(user, "STETH", after[1] // 10)
    market.transfer(user, "STETH", account("somebody"), after[1] // 10)


def test_aave_admin_changes_the_market(fresh_node: Anvil) -> None:
    market = aave_v2.deploy(fresh_node)
    market.populate(1, 40)
    user = market.cast["supplier"]
    market.freeze("DAI")
    with pytest.raises(Reverted, match="3"):
        market.supply(user, "DAI", WAD)
    market.freeze("DAI", False)
    market.supply(user, "DAI", WAD)
    market.pause()
    with pytest.raises(Reverted, match="64"):
        market.supply(user, "DAI", WAD)
    market.pause(False)
    market.add_reserve(aave_v2.Reserve("UNI", 18, 3 * 10**15, 6000, 6500, 11000))
    market.supply(user, "UNI", 100 * WAD)
    before = market.answer(user)
    market.configure_collateral("UNI", 5000, 5500, 11000)
    assert market.answer(user)[3] < before[3]
    market.set_price("UNI", 0)
    with pytest.raises(Reverted):
        market.answer(user)
    market.set_fallback_price("UNI", 3 * 10**15)
    assert market.answer(user)[0] == pytest.approx(before[0], rel=1e-6)
    assert market.upgrade_pool() == 3
    assert market.sender.call(market.pool, "LENDINGPOOL_REVISION()(uint256)") == 3
    assert market.liquidate(market.cast["underwater"])
    assert not market.liquidate(user)


# Compound V2


@pytest.fixture(scope="module", params=[(seed, generation) for seed in SEEDS for generation in compound_v2.CODES])
def populated_compound(request: pytest.FixtureRequest, needs_node: None) -> Iterator[CompoundV2]:
    seed, generation = request.param
    with Anvil() as node:
        market = compound_v2.deploy(node, generation=generation)
        market.populate(seed, USERS)
        yield market


@pytest.fixture
def compound(populated_compound: CompoundV2) -> Iterator[CompoundV2]:
    """A populated market; what a test does to it is undone."""
    with populated_compound.rewound():
        yield populated_compound


def half_up(a: int, b: int) -> int:
    return (a * b + WAD // 2) // WAD


def truncated(a: int, b: int) -> int:
    return a * b // WAD


def liquidity(market: CompoundV2, user: str, generation: Generation) -> tuple[int, int, int]:
    """getHypotheticalAccountLiquidityInternal with that generation's rounding of tokensToDenom."""
    multiply = half_up if generation == "half-up" else truncated
    collateral = debt = 0
    for symbol in market.entered(user):
        _, tokens, borrowed, rate = market.snapshot(user, symbol)
        _, factor = market.sender.call(
            market.comptroller, "markets(address)(bool,uint256)", [market.markets[symbol].address]
        )
        price = market.price(symbol)
        collateral += multiply(multiply(factor, rate), price) * tokens // WAD
        debt += price * borrowed // WAD
    return 0, max(collateral - debt, 0), max(debt - collateral, 0)


def test_compound_makes_as_many_users_as_asked_for(compound: CompoundV2) -> None:
    assert len(compound.users) == len(set(compound.users)) == USERS
    assert compound.borrowers < set(compound.users)
    assert not compound.bystanders & set(compound.users)
    assert all(a == a.lower() for a in [*compound.users, *compound.borrowers, *compound.addresses.values()])


def test_compound_lists_assets_of_all_kinds(compound: CompoundV2) -> None:
    assert {market.listing.decimals for market in compound.markets.values()} == {6, 8, 18}
    assert compound.markets["ETH"].underlying is None
    listed = compound.sender.call(compound.comptroller, "getAllMarkets()(address[])")
    assert [a.lower() for a in listed] == [market.address for market in compound.markets.values()]
    codes = {market.code for market in compound.markets.values()}
    assert codes == ({"old"} if compound.generation == "half-up" else {"old", "immutable", "delegator"})


def test_compound_rounds_as_its_generation_does(compound: CompoundV2) -> None:
    other: Generation = "truncating" if compound.generation == "half-up" else "half-up"
    answers = dict(zip(compound.users, compound.answers(compound.users), strict=True))
    assert {u: liquidity(compound, u, compound.generation) for u in compound.users} == answers
    assert any(liquidity(compound, user, other) != answers[user] for user in compound.borrowers)


def test_compound_stores_borrows_in_the_slots_it_names(compound: CompoundV2) -> None:
    checked = 0
    for symbol, market in compound.markets.items():
        index_slot, _ = BORROW_SLOTS[market.code]
        word = compound.node.rpc("eth_getStorageAt", market.address, hex(index_slot), "latest")
        index = compound.sender.call(market.address, "borrowIndex()(uint256)")
        assert int(word, 16) == index
        for user in compound.users:
            principal, interest_index = compound.stored_borrow(user, symbol)
            owed = principal * index // interest_index if principal else 0
            assert owed == compound.debt(user, symbol)
            checked += principal > 0
    assert checked > USERS // 2


def test_compound_slots_are_read_by_an_eth_call_that_replaces_the_code(compound: CompoundV2) -> None:
    # for (i = 0; calldatasize > i; i += 32) mem[i] = sload(calldata[i]); return mem[0..calldatasize]
    code = "0x5f5b803611600b57365ff35b8035548152602001600156"
    user, symbol = compound.cast["borrower"], "USDC"
    _, mapping = BORROW_SLOTS[compound.markets[symbol].code]
    first = int.from_bytes(keccak(encode(["address", "uint256"], [user, mapping])), "big")
    call = {"to": compound.markets[symbol].address, "data": "0x" + encode(["uint256"] * 2, [first, first + 1]).hex()}
    raw = compound.node.rpc("eth_call", call, "latest", {compound.markets[symbol].address: {"code": code}})
    assert decode(["uint256"] * 2, bytes.fromhex(raw[2:])) == compound.stored_borrow(user, symbol)


def test_compound_markets_are_entered_left_and_ignored(compound: CompoundV2) -> None:
    cast = compound.cast
    assert compound.entered(cast["supplier"]) == []
    assert compound.c_tokens(cast["supplier"], "USDC") > 0
    assert compound.entered(cast["left"]) == []
    assert compound.c_tokens(cast["left"], "WBTC") > 0
    assert "WBTC" not in compound.entered(cast["unentered-collateral"])
    assert compound.c_tokens(cast["unentered-collateral"], "WBTC") > 0
    assert compound.debt(cast["unentered-collateral"], "DAI") > 0
    assert len(compound.entered(cast["many-markets"])) == 4


def test_compound_debts_were_repaid(compound: CompoundV2) -> None:
    for name, symbol in (("repaid", "DAI"), ("repaid-ether", "ETH"), ("gone", "ZRX")):
        assert compound.cast[name] in compound.borrowers
        assert compound.debt(compound.cast[name], symbol) == 0
    assert not any(compound.c_tokens(compound.cast["gone"], symbol) for symbol in compound.markets)
    assert compound.debt(compound.cast["repaid-by-another"], "WBTC") > 0
    event = "RepayBorrow(address,address,uint256,uint256,uint256)"
    assert any(log.word_address(0) != log.word_address(1) for log in logs(compound.node, event))


def test_compound_c_tokens_moved_between_accounts(compound: CompoundV2) -> None:
    receiver = compound.cast["receiver"]
    assert receiver in compound.users
    assert receiver not in compound.borrowers
    assert compound.c_tokens(receiver, "USDC") > 0
    assert compound.c_tokens(receiver, "ETH") > 0
    assert compound.c_tokens(compound.cast["sender"], "USDC") == 0


def test_compound_bystanders_never_held_anything(compound: CompoundV2) -> None:
    expected = {"entered-only", "refused", "borrowed-nothing", "supplied-nothing", "receiver-of-nothing"}
    assert {compound.cast[name] for name in expected} <= compound.bystanders
    assert compound.entered(compound.cast["refused"]) == ["DAI"]
    nothing = compound.cast["borrowed-nothing"]
    borrows = logs(compound.node, "Borrow(address,uint256,uint256,uint256)")
    assert [log.words[1:3] for log in borrows if log.word_address(0) == nothing] == [[0, 0]]
    for user in compound.bystanders:
        assert not any(any(compound.snapshot(user, symbol)[1:3]) for symbol in compound.markets)


def test_compound_the_ground_truth_is_what_the_logs_say(compound: CompoundV2) -> None:
    c_tokens = [market.address for market in compound.markets.values()]
    borrows = logs(compound.node, "Borrow(address,uint256,uint256,uint256)", *c_tokens)
    assert {log.word_address(0) for log in borrows if log.words[1]} == compound.borrowers
    # a cToken names itself as the source of a mint and the target of a redemption or of the protocol's share
    moved = logs(compound.node, "Transfer(address,address,uint256)", *c_tokens)
    holders = {log.topic_address(2) for log in moved if log.words[0] and log.topic_address(2) != log.address}
    assert holders | compound.borrowers == set(compound.users)


def test_compound_liquidations_seized_for_tokens_and_for_ether(compound: CompoundV2) -> None:
    seen = {
        (log.word_address(1), log.address)
        for log in logs(compound.node, "LiquidateBorrow(address,address,uint256,address,uint256)")
    }
    assert (compound.cast["liquidated"], compound.markets["USDC"].address) in seen
    assert (compound.cast["liquidated-ether-debt"], compound.markets["ETH"].address) in seen
    assert compound.c_tokens(compound.cast["liquidator"], "WBTC") > 0
    assert compound.answer(compound.cast["underwater"])[2] > 0


def test_compound_stored_and_accrued_answers_disagree_where_it_matters(compound: CompoundV2) -> None:
    answers = {name: compound.answer(user) for name, user in compound.cast.items()}
    assert answers["just-above"][1] > 0
    assert compound.accrued_answer(compound.cast["just-above"])[1] > 0
    assert answers["just-below"][2] > 0
    edge = compound.cast["stored-above-accrued-below"]
    assert answers["stored-above-accrued-below"][2] == 0
    assert compound.accrued_answer(edge)[2] > 0


def test_compound_debts_of_no_value_and_collateral_of_none_exist(compound: CompoundV2) -> None:
    dust = compound.cast["dust-debtor"]
    assert compound.debt(dust, "BAT") == 1
    assert compound.price("BAT") // WAD == 0
    worthless = compound.cast["worthless-collateral"]
    assert compound.underlying_of(worthless, "BAT") > 0
    assert compound.answer(worthless)[2] == compound.debt(worthless, "DAI") * compound.price("DAI") // WAD


def test_compound_a_market_was_listed_late_and_factors_changed(compound: CompoundV2) -> None:
    listed = logs(compound.node, "MarketListed(address)", compound.comptroller)
    borrows = logs(compound.node, "Borrow(address,uint256,uint256,uint256)")
    assert listed[-1].word_address(0) == compound.markets["LINK"].address
    assert listed[-1].block > borrows[0].block
    changed = logs(compound.node, "NewCollateralFactor(address,uint256,uint256)", compound.comptroller)
    assert {log.words[2] for log in changed if log.words[1]} >= {0, 82 * WAD // 100}


def test_compound_a_donation_moves_the_rate_without_an_event_of_the_market(compound: CompoundV2) -> None:
    supplier, head = compound.cast["supplier"], compound.node.block_number()
    before = compound.snapshot(supplier, "USDC")
    compound.donate("USDC", 10**12)
    after = compound.snapshot(supplier, "USDC")
    query = {"fromBlock": hex(head + 1), "toBlock": "latest", "address": compound.markets["USDC"].address}
    assert compound.node.rpc("eth_getLogs", query) == []
    assert after[1] == before[1]
    assert after[3] > before[3]


def test_compound_a_deprecated_market_is_liquidatable_where_the_notion_exists(compound: CompoundV2) -> None:
    user = compound.cast["deprecated-debtor"]
    assert compound.answer(user)[1] > 0
    later = compound.generation == "truncating"
    assert compound.is_deprecated("BAT") == later
    assert compound.liquidate(user, liquidator=compound.cast["liquidator"]) == later


def test_compound_a_price_of_zero_is_an_error_for_all_who_entered(fresh_node: Anvil) -> None:
    market = compound_v2.deploy(fresh_node, dead_price="ZRX")
    market.populate(1, 50)
    for name in ("zrx-debtor", "zrx-collateral", "unentered-collateral"):
        assert market.answer(market.cast[name]) == (13, 0, 0)
    assert market.answer(market.cast["borrower"])[0] == 0
    market.step(1)
    assert market.price("ZRX") == 0


def test_compound_a_step_leaves_most_users_alone(fresh_node: Anvil) -> None:
    market = compound_v2.deploy(fresh_node)
    market.populate(3, 60)
    users, head = len(market.users), fresh_node.block_number()
    before = dict(zip(market.users, market.answers(market.users), strict=True))
    market.step(1)
    assert len(market.users) >= users + 2
    everything = fresh_node.rpc("eth_getLogs", {"fromBlock": hex(head + 1), "toBlock": "latest"})
    text = "".join(str(log["topics"]) + log["data"] for log in everything)
    idle = [user for user in market.users[:users] if user[2:] not in text]
    assert len(idle) > users // 2
    moved = [user for user, data in zip(idle, market.answers(idle), strict=True) if data != before[user]]
    assert len(moved) > len(idle) // 3


def test_compound_the_same_seed_gives_the_same_chain(needs_node: None) -> None:
    def head() -> tuple[str, list[str]]:
        with Anvil() as node:
            market = compound_v2.deploy(node)
            market.populate(4, 50)
            market.step(1)
            return str(node.block()["hash"]), market.users

    assert head() == head()


def test_compound_admin_changes_the_market(fresh_node: Anvil) -> None:
    market = compound_v2.deploy(fresh_node, generation="half-up")
    market.populate(1, 40)
    user = market.cast["supplier"]
    with pytest.raises(Refused) as refused:
        market.borrow(user, "DAI", 10**30)
    assert (refused.value.error, refused.value.detail) == (3, 4)
    market.replace_oracle()
    before = market.answer(market.cast["borrower"])
    market.install_comptroller("truncating")
    assert market.is_deprecated("BAT")
    assert market.answer(market.cast["borrower"])[1] == pytest.approx(before[1], rel=1e-9)
    assert liquidity(market, market.cast["borrower"], "truncating") == market.answer(market.cast["borrower"])
    market.list_market(compound_v2.Listing("UNI", 18, 5_00_00, 60), "immutable")
    market.supply(user, "UNI", WAD, enter=True)
    market.pause("Mint", "UNI")
    with pytest.raises(Reverted, match="paused"):
        market.supply(user, "UNI", WAD)
    market.pause("Transfer")
    with pytest.raises(Reverted, match="paused"):
        market.transfer(user, "UNI", account("somebody"), 1)
    market.pause("Seize")
    assert not market.liquidate(market.cast["underwater"])


@pytest.mark.long
@pytest.mark.parametrize("deploy", [aave_v2.deploy, compound_v2.deploy])
def test_thousands_of_users_are_made_in_bulk(fresh_node: Anvil, deploy: Callable[[Anvil], AaveV2 | CompoundV2]) -> None:
    market = deploy(fresh_node)
    market.populate(1, 5_000)
    assert len(market.users) == 5_000
    assert len(market.borrowers) > 3_000
    market.step(1)
