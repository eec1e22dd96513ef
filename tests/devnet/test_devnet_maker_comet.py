"""The Maker and Compound V3 devnets hold every situation that they promise, and know who was in it."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from tests.devnet import compound_v3, maker
from tests.devnet.compound_v3 import DEAD, CompoundV3
from tests.devnet.contracts import abi_type, interface
from tests.devnet.maker import RAY, Maker
from tests.devnet.maker_snapshot import transactions
from tests.devnet.node import Anvil
from tests.devnet.send import Reverted, Sender, account, calldata

SEEDS = (1, 2)
USERS = 90
INDEX, FACTOR, PERCENT = 10**15, 10**18, 10**16
ZERO = "0x" + 40 * "0"


@dataclass
class Market:
    """All markets of one seed, on one node."""

    usdc: CompoundV3
    weth: CompoundV3
    extended: CompoundV3
    maker: Maker

    @property
    def comets(self) -> list[CompoundV3]:
        return [self.usdc, self.weth, self.extended]


def populate(node: Anvil, seed: int) -> Market:
    market = Market(
        compound_v3.deploy(node),
        compound_v3.deploy(node, base="WETH"),
        compound_v3.deploy(node, extended=True),
        maker.deploy(node),
    )
    for one in (*market.comets, market.maker):
        one.populate(seed, USERS)
    return market


@pytest.fixture(scope="module", params=SEEDS)
def untouched(request: pytest.FixtureRequest, needs_node: None) -> Iterator[Market]:
    with Anvil() as node:
        yield populate(node, request.param)


@pytest.fixture
def market(untouched: Market) -> Iterator[Market]:
    """The markets; what a test does to them is undone."""
    with untouched.usdc.rewound(), untouched.weth.rewound(), untouched.extended.rewound(), untouched.maker.rewound():
        yield untouched


def logs(node: Anvil, address: str, first: int = 0, last: int | str = "latest") -> list[dict[str, Any]]:
    tag = last if isinstance(last, str) else hex(last)
    return list(node.rpc("eth_getLogs", {"address": address, "fromBlock": hex(first), "toBlock": tag}))


def topic(event: str) -> str:
    return "0x" + keccak(text=event).hex()


def names(log: dict[str, Any], who: str) -> bool:
    """Whether an account is an indexed argument of a log."""
    return any(word[-40:] == who[2:] for word in log["topics"][1:])


def topics(receipt: dict[str, Any], address: str) -> list[str]:
    return [log["topics"][0] for log in receipt["logs"] if log["address"] == address]


# ---- Comet: the contract


def test_the_stand_in_has_the_functions_events_and_errors_of_the_real_comet(needs_node: None) -> None:
    real, code = compound_v3.real_abi(), compound_v3.contracts()
    for kind in ("function", "event", "error"):
        ours = interface(code["CometStandIn"].abi, kind) | interface(code["CometExtStandIn"].abi, kind)
        assert interface(real, kind) <= ours
    events = interface(code["CometStandIn"].abi, "event") | interface(code["CometExtStandIn"].abi, "event")
    assert events == interface(real, "event")


def test_every_log_of_a_comet_is_one_of_the_real_ones(market: Market) -> None:
    known = {
        topic(f"{e['name']}({','.join(abi_type(i) for i in e['inputs'])})")
        for e in compound_v3.real_abi()
        if e["type"] == "event"
    }
    known |= {topic("Upgraded(address)"), topic("AdminChanged(address,address)")}
    for comet in market.comets:
        found = logs(comet.node, comet.comet)
        assert {log["topics"][0] for log in found} <= known
        assert found[0]["topics"][0] == topic("AdminChanged(address,address)")
        assert int(found[0]["blockNumber"], 16) == comet.start_block


def rate_by_hand(utilization: int, base: int, low: int, high: int) -> int:
    """A kinked rate per second from yearly rates (1e18), with the devnet's kink of 90 %."""
    kink = 90 * PERCENT
    rate = base // 31_536_000 + low // 31_536_000 * min(utilization, kink) // FACTOR
    return rate + high // 31_536_000 * max(0, utilization - kink) // FACTOR


def borrow_rate(utilization: int) -> int:
    return rate_by_hand(utilization, 15 * PERCENT // 10, 28 * PERCENT // 10, 527 * PERCENT)


def supply_rate(utilization: int) -> int:
    return rate_by_hand(utilization, 0, 36 * PERCENT // 10, 320 * PERCENT)


def borrow_index_now(comet: CompoundV3) -> int:
    """The accrued borrow index, by the formulas of PROTOCOLS section 4, from the stored state and the configuration."""
    supply_index, borrow_index, _, _, supplied, borrowed, stored, _ = comet.totals()
    utilization = (borrowed * borrow_index // INDEX) * FACTOR // (supplied * supply_index // INDEX)
    elapsed = comet.node.timestamp() - stored
    return int(borrow_index + borrow_index * (borrow_rate(utilization) * elapsed) // FACTOR)


def liquidatable_by_hand(comet: CompoundV3, who: str) -> bool | None:
    """`isLiquidatable` by PROTOCOLS section 4; None where a feed that is reached is dead."""
    ((principal, _, _, assets_in, reserved),) = comet.basics([who])
    if principal >= 0:
        return False
    base_price = comet.price(comet.base)
    if base_price <= 0:
        return None
    left = -(-principal * comet.totals()[1] // INDEX * base_price // comet.unit)
    for offset, asset in enumerate(comet.assets):
        if not ((assets_in | reserved << 16) >> offset) & 1:
            continue
        if left >= 0:
            return False
        price = comet.price(asset.symbol)
        if price <= 0:
            return None
        value = comet.collateral(who, asset.symbol) * price // 10**asset.decimals
        left += value * asset.liquidate_factor * PERCENT // FACTOR
    return left < 0


def test_comets_answers_follow_the_formulas_for_every_user(market: Market) -> None:
    for comet in market.comets:
        comet.node.elapse(86_400)
        index = borrow_index_now(comet)
        for who, (principal, *_) in zip(comet.users, comet.basics(comet.users), strict=True):
            answer = comet.answer(who)
            assert answer.borrow_balance == max(0, -principal) * index // INDEX
            assert answer.liquidatable is liquidatable_by_hand(comet, who)


def test_rates_bend_at_the_kink(market: Market) -> None:
    comet = market.usdc
    for utilization in (0, 45 * PERCENT, 90 * PERCENT, 90 * PERCENT + 1, 95 * PERCENT, 130 * PERCENT):
        borrow, supply = (
            comet.sender.call(comet.comet, f"{name}(uint256)(uint64)", [utilization])
            for name in ("getBorrowRate", "getSupplyRate")
        )
        assert (borrow, supply) == (borrow_rate(utilization), supply_rate(utilization))


def test_the_principals_sum_to_the_totals(market: Market) -> None:
    for comet in market.comets:
        comet.step(7)
        principals = [basic[0] for basic in comet.basics(comet.users)]
        _, _, _, _, supplied, borrowed, *_ = comet.totals()
        assert -sum(p for p in principals if p < 0) == borrowed
        assert 0 <= supplied - sum(p for p in principals if p > 0) < 1_000


def test_rounding_is_against_the_account(market: Market) -> None:
    comet = market.weth
    who = comet.roles["debtor"]
    comet.accrue(who, who)
    before, index = comet.principal(who), comet.totals()[1]
    comet.node.set_next_timestamp(comet.node.timestamp())
    comet.withdraw(who, comet.base, 1)
    debt = -before * index // INDEX + 1
    assert comet.principal(who) == -((debt * INDEX + index - 1) // index)


def test_a_pause_stops_what_it_names(market: Market) -> None:
    comet = market.usdc
    comet.pause(withdraw=True)
    with pytest.raises(Reverted, match="Paused"):
        comet.withdraw(comet.roles["debtor"], comet.base, comet.borrow_minimum)
    assert comet.totals()[7] == 0b100
    comet.supply(comet.roles["debtor"], comet.base, 1)


def test_an_upgrade_brings_a_new_asset_and_new_factors(market: Market) -> None:
    comet = market.usdc
    who = comet.roles["debtor"]
    comet.assets = [replace(a, liquidate_factor=83) if a.symbol == "WETH" else a for a in comet.assets]
    comet.assets.append(compound_v3.Asset("NEW", 18, 10**9, 50, 60, 70))
    block = comet.node.block_number()
    implementation = comet.upgrade()
    (log,) = logs(comet.node, comet.comet, block + 1)
    assert log["topics"] == [topic("Upgraded(address)"), "0x" + 24 * "0" + implementation[2:]]
    info = "getAssetInfo(uint8)((uint8,address,address,uint64,uint64,uint64,uint64,uint128))"
    weth = comet.sender.call(comet.comet, info, [2])
    assert weth[:4] == (2, comet.tokens["WETH"], comet.feeds["WETH"], 10**18)
    assert weth[4:] == (82 * PERCENT, 83 * PERCENT, 95 * PERCENT, 10**28)
    assert comet.sender.call(comet.comet, "numAssets()(uint8)") == 7
    before = comet.principal(who)
    comet.supply(who, "NEW", 10**18)
    assert comet.basics([who])[0][3] >> 6 & 1
    assert comet.principal(who) == before


def test_the_proxy_admin_reaches_only_the_upgrade(market: Market) -> None:
    with pytest.raises(Reverted, match="admin cannot fall through"):
        market.usdc.sender.call(market.usdc.comet, "numAssets()(uint8)", sender=market.usdc.proxy_admin)


# ---- Comet: the scenario


def test_the_scenario_has_as_many_users_as_asked_for(market: Market) -> None:
    for one in (*market.comets, market.maker):
        assert len(one.users) == len(set(one.users)) == USERS
        assert all(who == who.lower() for who in one.users)
        assert one.borrowers <= set(one.users)


def test_debt_and_collateral_are_on_record(market: Market) -> None:
    for comet in market.comets:
        basics = dict(zip(comet.users, comet.basics(comet.users), strict=True))
        assert {who for who, (principal, *_) in basics.items() if principal < 0} < comet.borrowers
        assert {who for who, (*_, assets_in, reserved) in basics.items() if assets_in or reserved} < comet.holders
        assert comet.borrowers < comet.holders
        event = topic("SupplyCollateral(address,address,address,uint256)")
        moved = topic("TransferCollateral(address,address,address,uint256)")
        found = logs(comet.node, comet.comet)
        named = {"0x" + log["topics"][2][-40:] for log in found if log["topics"][0] in (event, moved)}
        assert named == comet.holders


def test_debt_moves_without_a_log_that_names_the_debtor(market: Market) -> None:
    for comet in market.comets:
        part = 2 * comet.small
        sender, receiver, newcomer, debtor, supplier = (
            comet.roles[r]
            for r in ("silent sender", "silent receiver", "silent newcomer", "debtor paying supplier", "supplier 1")
        )
        transfer = topic("Transfer(address,address,uint256)")
        before = comet.basics([sender, receiver])
        assert topics(comet.transfer(sender, receiver, part), comet.comet) == []
        after = comet.basics([sender, receiver])
        assert after[0][0] < before[0][0] < 0
        assert before[1][0] < after[1][0] < 0

        receipt = comet.transfer(debtor, supplier, part)
        assert topics(receipt, comet.comet) == [transfer]
        assert receipt["logs"][0]["topics"][1:] == ["0x" + 64 * "0", "0x" + 24 * "0" + supplier[2:]]
        receipt = comet.transfer(supplier, debtor, part)
        assert topics(receipt, comet.comet) == [transfer]
        assert receipt["logs"][0]["topics"][1:] == ["0x" + 24 * "0" + supplier[2:], "0x" + 64 * "0"]

        named = [log["topics"][0] for log in logs(comet.node, comet.comet) if names(log, newcomer)]
        assert named == [topic("SupplyCollateral(address,address,address,uint256)")]
        assert comet.principal(newcomer) < 0
        assert newcomer in comet.borrowers


def test_a_debt_can_be_dust(market: Market) -> None:
    for comet in market.comets:
        principal = comet.principal(comet.roles["dust debtor"])
        debt = -principal * comet.totals()[1] // INDEX
        assert principal < 0
        assert comet.answer(comet.roles["dust debtor"]).liquidatable is False
        value = debt * comet.price(comet.base) // comet.unit
        assert value == 0 if comet is market.weth else 0 < value < 1_000


def test_accounts_stand_one_unit_of_collateral_apart_at_the_edge(market: Market) -> None:
    for comet in market.comets:
        above, below, symbol = comet.roles["just above"], comet.roles["just below"], comet.assets[4].symbol
        assert comet.answer(above).liquidatable is False
        assert comet.answer(below).liquidatable is True
        comet.supply(below, symbol, 1)
        assert comet.answer(below).liquidatable is False
        block = comet.node.block_number()
        comet.node.elapse(86_400)
        receipt = comet.accrue(comet.roles["keeper"], comet.roles["supplier 0"])
        assert topics(receipt, comet.comet) == []
        assert comet.answer(above).liquidatable is True
        assert comet.answer(above, block).liquidatable is False


def test_a_dead_feed_matters_only_where_it_is_reached(market: Market) -> None:
    for comet in market.comets:
        assert comet.price(DEAD) == 0
        assert comet.answer(comet.roles["on dead collateral"]).liquidatable is None
        assert comet.answer(comet.roles["covered before dead collateral"]).liquidatable is False
        assert comet.answer(comet.roles["dead collateral only"]).liquidatable is False
        assert comet.collateral(comet.roles["covered before dead collateral"], DEAD) > 0


def test_a_dead_base_feed_silences_every_debtor(market: Market) -> None:
    comet = market.weth
    comet.set_price(comet.base, 0)
    with pytest.raises(Reverted, match="BadPrice"):
        comet.sender.call(comet.comet, "isLiquidatable(address)(bool)", [comet.roles["debtor"]])
    for who, (principal, *_) in zip(comet.users, comet.basics(comet.users), strict=True):
        assert comet.answer(who).liquidatable is (None if principal < 0 else False)


def test_absorbed_accounts_end_with_a_balance_or_with_nothing(market: Market) -> None:
    for comet in market.comets:
        lucky, ruined = comet.roles["absorbed"], comet.roles["absorbed at a loss"]
        assert comet.principal(lucky) > 0
        assert comet.principal(ruined) == 0
        assert [basic[3:] for basic in comet.basics([lucky, ruined])] == [(0, 0), (0, 0)]
        found = Counter(log["topics"][0] for log in logs(comet.node, comet.comet))
        assert found[topic("AbsorbDebt(address,address,uint256,uint256)")] == 2
        assert found[topic("AbsorbCollateral(address,address,address,uint256,uint256)")] == 2
        assert found[topic("BuyCollateral(address,address,uint256,uint256)")] == 1


def test_ordinary_lives_are_there(market: Market) -> None:
    for comet in market.comets:
        role = comet.roles
        basic = {name: comet.basics([who])[0] for name, who in role.items()}
        assert basic["collateral only"][0] == 0
        assert basic["collateral only"][3]
        assert role["collateral only"] not in comet.borrowers
        assert basic["repaid"][0] == 0
        assert basic["repaid"][3]
        assert role["repaid"] in comet.borrowers
        assert basic["emptied"][0] == basic["emptied"][3] == 0
        assert role["emptied"] in comet.borrowers
        assert basic["supplier turned debtor"][0] < 0
        assert basic["gifted collateral"][3]
        assert basic["gifted supplier"][0] > 0
        assert basic["former supplier"][0] == 0
        assert role["former supplier"] not in comet.holders
        assert basic["managed"][0] < 0
        assert basic["manager"][0] == basic["stranger"][0] == 0
        assert sum(comet.answer(who).liquidatable is True for who in comet.users) >= 1
        assert sum(principal < 0 for principal, *_ in comet.basics(comet.users)) > USERS // 3


def test_the_extended_comet_uses_the_map_beyond_sixteen_assets(market: Market) -> None:
    comet = market.extended
    assert comet.sender.call(comet.comet, "numAssets()(uint8)") == 20
    assert comet.sender.call(comet.comet, "maxAssets()(uint8)") == 24
    ((_, _, _, low, high),) = comet.basics([comet.roles["many collaterals"]])
    assert low | high << 16 == 2**20 - 1 - (1 << 5)
    ((_, _, _, low, high),) = comet.basics([comet.roles["last asset"]])
    assert (low, high) == (0, 1 << 3)
    assert sum(basic[4] > 0 for basic in comet.basics(comet.users)) > 5


def test_utilization_was_beyond_the_kink_for_weeks(market: Market) -> None:
    for comet in market.comets:
        blocks = sorted({int(log["blockNumber"], 16) for log in logs(comet.node, comet.comet)})[-20:]
        found = [comet.sender.call(comet.comet, "getUtilization()(uint256)", block=b) for b in blocks]
        assert max(found) > 90 * PERCENT


def test_a_step_leaves_the_others_alone(market: Market) -> None:
    for comet in market.comets:
        before = dict(zip(comet.users, comet.basics(comet.users), strict=True))
        index = comet.totals()[1]
        comet.step(3)
        after = dict(zip(comet.users, comet.basics(comet.users), strict=True))
        changed = {who for who in before if before[who] != after[who]}
        assert 3 <= len(changed) <= USERS // 2
        assert len(comet.users) >= USERS + 2
        assert comet.totals()[1] > index


def test_the_same_seed_gives_the_same_chain(needs_node: None) -> None:
    hashes = []
    for _ in range(2):
        with Anvil() as node:
            comet = compound_v3.deploy(node)
            urns = maker.deploy(node)
            for one in (comet, urns):
                one.populate(5, 50)
                one.step(5)
            hashes.append(node.block()["hash"])
    assert hashes[0] == hashes[1]


# ---- Maker

NOTED = {
    "76088703": "frob(bytes32,address,address,address,int256,int256)",
    "870c616d": "fork(bytes32,address,address,int256,int256)",
    "7bab3f40": "grab(bytes32,address,address,address,int256,int256)",
}


def noted(market: Maker) -> dict[str, list[tuple[Any, ...]]]:
    """The arguments of every frob, fork and grab, from the Vat's anonymous notes."""
    found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for log in logs(market.node, market.addresses["vat"]):
        selector = log["topics"][0][2:10]
        if selector in NOTED:
            data = bytes.fromhex(log["data"][2:])
            types = NOTED[selector].split("(")[1].rstrip(")").split(",")
            assert data[64:68].hex() == selector
            name = NOTED[selector].split("(", maxsplit=1)[0]
            found[name].append(decode(types, data[68 : 68 + 32 * len(types)]))
    return found


def ilk_name(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode()


def test_the_recorded_deployment_lands_on_its_addresses_on_any_chain(needs_node: None) -> None:
    assert len(transactions()) == 669
    with Anvil(chain_id=31_337) as node:
        sender = Sender(node)
        sender.send(account("anybody"), "nothing()")
        market = maker.deploy(node, sender)
        assert market.addresses["vat"] == "0x2d7f58abb321ee1c63e8abff89a7cc100e7eed01"
        assert market.terms("ETH-A").spot == 100 * RAY
        with pytest.raises(RuntimeError, match="once per node"):
            maker.deploy(node, sender)


def test_the_named_urns_are_on_record(market: Market) -> None:
    urns = market.maker
    urns.step(4)
    found = noted(urns)
    named = {(ilk_name(i), u) for i, u, *_ in found["frob"]}
    named |= {(ilk_name(i), u) for i, source, target, *_ in found["fork"] for u in (source, target)}
    assert named == urns.positions
    assert {(ilk_name(i), u) for i, u, *_ in found["grab"]} <= named
    assert urns.debtors < urns.positions
    assert {urn for _, urn in urns.debtors} == urns.borrowers


def test_the_art_of_the_known_urns_is_all_the_art_there_is(market: Market) -> None:
    urns = market.maker
    urns.step(5)
    total: Counter[str] = Counter()
    for answer in urns.answers(sorted(urns.positions)):
        total[answer.ilk] += answer.art
    for ilk in urns.ilks:
        assert urns.terms(ilk).total_art == total[ilk]


def test_owners_are_who_the_contracts_say(market: Market) -> None:
    urns = market.maker
    urns.step(6)
    manager = urns.addresses["cdp_manager"]
    assert urns.sender.call(manager, "cdpi()(uint256)") == len(urns.vaults)
    numbers = list(urns.vaults)
    urns_of, ilks, owns = (
        urns.sender.calls([(manager, f"{name}(uint256)({kind})", [number]) for number in numbers])
        for name, kind in (("urns", "address"), ("ilks", "bytes32"), ("owns", "address"))
    )
    assert list(urns.vaults.values()) == [(ilk_name(ilk), urn) for ilk, urn in zip(ilks, urns_of, strict=True)]
    managed = dict(zip(urns_of, owns, strict=True))
    for urn, (owner, wallet, via) in urns.owners.items():
        assert owner == managed.get(urn, urn)
        assert via.startswith("cdp-manager") is (urn in managed)
        if via.endswith("ds-proxy"):
            assert urns.sender.call(owner, "owner()(address)") == wallet
        else:
            assert owner == wallet
            assert urns.node.rpc("eth_getCode", owner, "latest") == "0x"
    assert set(urns.owners) == set(urns.users)
    assert {via for _, _, via in urns.owners.values()} == {
        "self", "cdp-manager", "cdp-manager+ds-proxy", "ds-proxy",
    }  # fmt: skip


def test_urns_of_every_kind_are_there(market: Market) -> None:
    urns = market.maker
    at = {name: urns.position(*pair) for name, pair in urns.roles.items()}
    for name in ("raw", "two ilks", "two ilks again", "helped", "vault", "proxied", "fork only", "quit", "entered",
                 "shifted", "urn of a proxy", "given", "given to a proxy", "sold with its proxy"):  # fmt: skip
        assert at[name].ink > 0
        assert at[name].art > 0
        assert not at[name].unsafe
    assert at["no debt"].ink > 0 == at["no debt"].art
    for name in ("repaid", "emptied by quit", "emptied by enter", "emptied by shift", "emptied by quit to a proxy"):
        assert (at[name].ink, at[name].art) == (0, 0)
        assert urns.roles[name] in urns.debtors
    assert urns.roles["unused vault"] not in urns.positions
    assert urns.roles["unused vault"][1] in urns.users
    assert urns.roles["two ilks"][1] == urns.roles["two ilks again"][1]
    assert [a.ilk for a in urns.answer(urns.roles["two ilks"][1])] == ["ETH-A", "WBTC-A"]
    assert at["six decimals"].ink % 10**12 == at["eight decimals"].ink % 10**10 == 0
    found = noted(urns)
    fork_only = urns.roles["fork only"][1]
    assert fork_only not in {u for _, u, *_ in found["frob"]}
    assert len(found["grab"]) == 3


def test_the_cat_agrees_on_who_is_unsafe(market: Market) -> None:
    urns = market.maker
    unsafe = 0
    pairs = sorted(urns.positions)
    for (ilk, urn), answer in zip(pairs, urns.answers(pairs), strict=True):
        try:
            urns.sender.call(urns.contracts["MCD_CAT"], "bite(bytes32,address)(uint256)", [maker.word(ilk), urn])
            says = True
        except Reverted as revert:
            says = revert.reason not in ("Cat/not-unsafe", "Cat/null-spot")
        # nothing to take is told before anything else only after the health test
        assert says is answer.unsafe
        unsafe += answer.unsafe
    assert unsafe >= 4
    assert unsafe < len(urns.positions) // 2


def test_urns_stand_at_the_edge(market: Market) -> None:
    urns = market.maker
    unsafe, safe = (urns.position(*urns.roles[name]) for name in ("just unsafe", "just safe"))
    assert unsafe.unsafe
    assert not safe.unsafe
    assert unsafe.art * unsafe.rate - unsafe.ink * unsafe.spot < unsafe.ink * 10**9
    assert safe.ink * safe.spot - safe.art * safe.rate < safe.rate
    with pytest.raises(Reverted, match="Vat/not-safe"):
        urns.frob(*urns.roles["just safe"], 0, 1)


def test_a_liquidation_takes_all_or_a_part_or_only_collateral(market: Market) -> None:
    urns = market.maker
    whole, part, stripped = (urns.position(*urns.roles[n]) for n in ("bitten", "bitten in part", "stripped"))
    assert (whole.ink, whole.art) == (0, 0)
    assert part.ink > 0
    assert part.art > 0
    assert stripped.ink == 0 < stripped.art
    assert stripped.unsafe


def test_a_void_feed_leaves_no_spot(market: Market) -> None:
    urns = market.maker
    answer = urns.position(*urns.roles["without a price"])
    assert answer.spot == 0 < answer.art
    assert not answer.unsafe


def test_a_price_waits_in_the_module_for_the_spotter_alone(market: Market) -> None:
    urns = market.maker
    module, spotter = urns.modules["ETH"], urns.addresses["spotter"]
    pip, mat = urns.sender.call(spotter, "ilks(bytes32)(address,uint256)", [maker.word("ETH-A")])
    assert pip == module
    word, valid = urns.sender.call(module, "peep()(bytes32,bool)", sender=spotter)
    assert valid
    assert int.from_bytes(word) == urns.price("ETH")
    with pytest.raises(Reverted, match="not-whitelisted"):
        urns.sender.call(module, "peep()(bytes32,bool)")
    slot = encode(["uint128", "uint128"], [1, int.from_bytes(word)])
    assert urns.node.rpc("eth_getStorageAt", module, "0x4", "latest")[2:] == slot[16:32].hex() + slot[48:].hex()
    position = urns.position(*urns.roles["unsafe at the next price"])
    following = int.from_bytes(word) * 10**9 * RAY // mat
    assert position.art * position.rate > position.ink * following
    assert not position.unsafe
    urns.pass_hour("ETH")
    urns.poke("ETH-A")
    assert urns.terms("ETH-A").spot == following
    assert urns.position(*urns.roles["unsafe at the next price"]).unsafe


def test_some_ilks_are_dripped_and_some_never(market: Market) -> None:
    urns = market.maker
    for ilk in ("ETH-A", "USDC-A", "WBTC-A"):
        assert urns.terms(ilk).rate > RAY
    for ilk in ("ETH-B", "LINK-A", "UNI-A", "KNC-A"):
        assert urns.terms(ilk).rate == RAY
    assert urns.sender.call(urns.addresses["jug"], "base()(uint256)") == 10**17
    late = urns.roles["unsafe once dripped"]
    assert not urns.position(*late).unsafe
    urns.drip("KNC-A")
    assert urns.position(*late).unsafe


def test_a_price_moves_in_every_ilk_of_its_gem(market: Market) -> None:
    urns = market.maker
    before = [urns.terms(ilk).spot for ilk in ("ETH-A", "ETH-B", "ETH-C")]
    urns.set_price("ETH", 321 * 10**18)
    after = [urns.terms(ilk).spot for ilk in ("ETH-A", "ETH-B", "ETH-C")]
    assert after != before
    assert [round(spot / RAY, 6) for spot in after] == [214, 160.5, 267.5]


def test_a_step_brings_a_new_ilk_and_leaves_the_others_alone(market: Market) -> None:
    urns = market.maker
    pairs = sorted(urns.positions)
    before = urns.answers(pairs)
    block = urns.node.block_number()
    urns.step(3)
    changed = [b for b, a in zip(before, urns.answers(pairs), strict=True) if (b.ink, b.art) != (a.ink, a.art)]
    assert 3 <= len(changed) <= USERS // 2
    assert len(urns.users) == USERS + 4
    inits = [n for n in logs(urns.node, urns.addresses["vat"], block + 1) if n["topics"][0].startswith("0x3b663195")]
    assert [ilk_name(bytes.fromhex(note["topics"][1][2:])) for note in inits] == ["NEW-A"]
    assert urns.position(*urns.roles["new ilk"]).art > 0
    assert urns.answers(pairs, block) == before


@pytest.mark.long
def test_five_thousand_users_take_less_than_a_minute(needs_node: None) -> None:
    for module in (compound_v3, maker):
        with Anvil() as node:
            market = module.deploy(node)
            market.populate(1, 5_000)
            assert len(market.users) == 5_000
            assert len(market.borrowers) > 3_000
            market.step(1)


def test_calldata_of_a_crowd_is_what_a_single_call_sends(market: Market) -> None:
    comet = market.usdc
    row = comet.market_transaction(comet.users[0], "supply(address,uint256)", comet.tokens[comet.base], 5)
    assert row.data == calldata("supply(address,uint256)", [comet.tokens[comet.base], 5])
