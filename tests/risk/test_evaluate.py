"""What the integers of an evaluation are called."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from indexer.model import RAY, WAD, Answer, Asset, Balance, Block, Deployment, Health, Market, PositionKey, Status
from indexer.risk.evaluate import amounts_of, differences, evaluate_all, from_answer, reason, row, status
from indexer.store.rows import PositionRow
from indexer.units import least_at
from protocols.compound_v3 import CompoundV3
from protocols.compound_v3.market import Collateral, CompoundV3Market
from protocols.compound_v3.position import CompoundV3Position
from protocols.maker import Maker
from protocols.maker.market import Gem, Ilk, MakerMarket
from protocols.maker.position import Urn
from tests.aave import adapter_of, snapshot
from tests.compound import Connection
from tests.devnet import aave_v3
from tests.devnet.aave_v3_scenario import Actions, perform
from tests.devnet.node import Anvil
from tests.devnet.send import account

WHO, OWNER, WALLET = ("0x" + digits * 20 for digits in ("11", "22", "33"))
BLOCK = Block(7, "0x" + "aa" * 32, "0x" + "bb" * 32, 1_700_000_000)
VAT = Maker(Deployment("maker-here", "maker", "", 0, {"vat": WHO}))


def health(factor: int | None) -> Health:
    return Health(
        key=PositionKey("0x" + "11" * 20),
        collateral_value=2,
        liquidation_limit=2,
        debt_value=1,
        health_factor=factor,
        has_debt=True,
        liquidatable=False,
    )


def test_the_first_status_that_applies() -> None:
    good = health(2 * WAD)
    assert status(good, verified=True) == "healthy"
    nobody_knows = replace(good, unpriceable=True, has_debt=False, debt_value=0)
    assert status(nobody_knows, verified=False) == "unverified"
    assert status(nobody_knows, verified=True) == "unpriceable"
    assert status(replace(good, has_debt=False, debt_value=0, health_factor=None), verified=True) == "no-debt"
    # a debt of a value, though the contract says there is none
    assert status(replace(good, has_debt=False), verified=True) == "no-debt"
    # worth nothing: no debt, unless the contract would liquidate it (a deprecated market of Compound V2)
    assert status(replace(good, debt_value=0, health_factor=None), verified=True) == "no-debt"
    assert status(replace(good, debt_value=0, health_factor=None, liquidatable=True), verified=True) == "liquidatable"
    # the contract's verdict goes before every number
    assert status(replace(good, liquidatable=True), verified=True) == "liquidatable"
    assert status(health(None), verified=True) == "unpriceable"
    assert status(health(109 * WAD // 100), verified=True) == "at-risk"


@pytest.mark.parametrize(("bound", "digits"), [(1.1, "1100000000000000000"), (1.13, "1130000000000000000")])
def test_at_risk_is_below_the_bound_as_it_was_written_to_the_last_digit(bound: float, digits: str) -> None:
    assert status(health(int(digits)), verified=True, at_risk_below=bound) == "healthy"
    assert status(health(int(digits) - 1), verified=True, at_risk_below=bound) == "at-risk"


def test_a_bound_finer_than_1e_18_is_rounded_up() -> None:
    assert least_at(1e-19) == 1


def test_a_debt_worth_nothing_is_no_debt(fresh_node: Anvil) -> None:
    """A unit of DAI is worth less than a unit of base currency, which Aave 3.0.2 rounds down."""
    devnet = aave_v3.deploy(fresh_node, "3.0.2")
    act, who = Actions(devnet), account("debtor of nothing")
    opening = [act.supply(account("lender"), "DAI", 10**21), act.supply(who, "WETH", 10**18)]
    perform(devnet, Random(1), opening, must=True)
    perform(devnet, Random(1), [act.borrow(who, "DAI", 1)], must=True)
    answer = devnet.answer(who)
    assert (answer[1], answer[5]) == (0, aave_v3.MAX_UINT)
    node, adapter = Connection(fresh_node), adapter_of(devnet)
    market, positions = snapshot(devnet, node.reader())
    node.chain.close()
    found = adapter.evaluate(market, positions[who])
    assert (found.has_debt, found.debt_value, found.health_factor) == (True, 0, None)
    assert status(found, verified=True) == "no-debt"


def columns(health: Health, usd: tuple[int, int] | None = (3, 2), name: str = "healthy") -> dict[str, Any]:
    market = Market(block=BLOCK, revision="", usd=usd)
    return row(1, VAT, market, health, Status(name))._asdict()


def test_a_row_has_the_exact_integers_and_what_people_read() -> None:
    """10 of collateral and 4 of debt, at 1.5 USD: equity of 6, which 10 of collateral are 1.67 times."""
    whole = Health(
        key=PositionKey(WHO, "ETH-A"), collateral_value=10, liquidation_limit=8, debt_value=4, health_factor=2 * WAD,
        health_factor_accrued=3 * WAD // 2, next_health_factor=5 * WAD // 4, has_debt=True, liquidatable=False,
        blocked_by=("paused", "stopped"), mode="1", owner=OWNER, owner_via="ds-proxy", wallet=WALLET,
    )  # fmt: skip
    assert columns(whole) == {
        "chain_id": 1, "deployment": "maker-here", "protocol": "maker", "account": WHO, "position_group": "ETH-A",
        "owner": OWNER, "owner_via": "ds-proxy", "wallet": WALLET, "mode": "1", "collateral_value_raw": "10",
        "liquidation_limit_raw": "8", "debt_value_raw": "4", "health_factor_raw": "2000000000000000000",
        "health_factor": 2.0, "health_factor_accrued_raw": "1500000000000000000", "health_factor_accrued": 1.5,
        "next_health_factor_raw": "1250000000000000000", "next_health_factor": 1.25, "collateral_usd": 15.0,
        "debt_usd": 6.0, "net_usd": 9.0, "leverage": 10 / 6, "ltv": 0.4, "status": "healthy",
        "blocked_by": "paused, stopped", "block_number": 7, "block_hash": BLOCK.hash,
        "block_timestamp": 1_700_000_000, "note": None, "supplies_complete": 1,
    }  # fmt: skip
    assert columns(replace(whole, wallet=None))["wallet"] == OWNER
    nobody = columns(replace(whole, wallet=None, owner=None, blocked_by=(), mode=None))
    assert [nobody[name] for name in ("owner", "wallet", "blocked_by", "mode")] == [WHO, WHO, None, None]


def test_what_is_unknown_in_a_row_is_null() -> None:
    money = ("collateral_usd", "debt_usd", "net_usd", "ltv", "leverage")

    def of(collateral: int | None, debt: int | None, usd: tuple[int, int] | None = (3, 2)) -> list[float | None]:
        found = columns(replace(health(None), collateral_value=collateral, debt_value=debt), usd)
        return [found[name] for name in money]

    assert of(10, 4, None) == [None, None, None, 0.4, 10 / 6]
    assert of(10, None) == [15.0, None, None, None, None]
    assert of(None, 4) == [None, 6.0, None, None, None]
    # no collateral has no loan to value, no equity has no leverage; one unit of either has
    assert of(0, 4) == [0.0, 6.0, -6.0, None, None]
    assert of(1, 0) == [1.5, 0.0, 1.5, 0.0, 1.0]
    assert of(4, 4) == [6.0, 6.0, 0.0, 1.0, None]
    assert of(0, 0) == [0.0, 0.0, 0.0, None, None]
    unknown = columns(replace(health(None), collateral_value=None, liquidation_limit=None, debt_value=None))
    assert {name for name, value in unknown.items() if value is None} == {
        "mode", "collateral_value_raw", "liquidation_limit_raw", "debt_value_raw", "health_factor_raw", "health_factor",
        "health_factor_accrued_raw", "health_factor_accrued", "next_health_factor_raw", "next_health_factor",
        "collateral_usd", "debt_usd", "net_usd", "leverage", "ltv", "blocked_by", "note",
    }  # fmt: skip
    zero = columns(replace(health(0), collateral_value=0, liquidation_limit=0))
    assert [zero[name] for name in ("collateral_value_raw", "health_factor_raw", "health_factor")] == ["0", "0", 0.0]


def answer(liquidatable: bool | None = None, **values: Any) -> Answer:
    return Answer(key=PositionKey(WHO), columns=values, liquidatable=liquidatable)


def test_the_contracts_answer_takes_the_place_of_every_value() -> None:
    ours = replace(health(9 * WAD), next_health_factor=5, unpriceable=True, mode="1", owner=OWNER, blocked_by=("x",))
    theirs = answer(
        True,
        collateral_value_raw=30, liquidation_limit_raw="20", debt_value_raw=10, health_factor_raw=2 * WAD,
        health_factor_accrued_raw=WAD,
    )  # fmt: skip
    assert from_answer(ours, theirs) == Health(
        key=PositionKey(WHO), collateral_value=30, liquidation_limit=20, debt_value=10, health_factor=2 * WAD,
        health_factor_accrued=WAD, next_health_factor=None, has_debt=True, liquidatable=True, unpriceable=False,
        mode="1", owner=OWNER, blocked_by=("x",),
    )  # fmt: skip
    silent = from_answer(ours, answer())
    values = (silent.collateral_value, silent.liquidation_limit, silent.debt_value, silent.health_factor)
    assert (*values, silent.health_factor_accrued) == (None,) * 5
    assert (silent.has_debt, silent.liquidatable) == (False, False)


def test_every_position_is_evaluated_and_named() -> None:
    """A spot of 1: 3 of collateral over 2 of debt; a vat whose code nobody knows says less."""
    ilk = Ilk(
        Art=0, rate=RAY, spot=RAY, line=0, dust=0, pip=OWNER, mat=RAY, duty=RAY, rho=0, accrued_rate=RAY, gem=Gem("GEM")
    )
    market = MakerMarket(
        block=BLOCK, revision="", usd=(1, 10**45), contracts={"vat": WHO}, live=1, debt=0, vice=0, surplus=0, par=RAY,
        base=0, ilks={"GEM-A": ilk},
    )  # fmt: skip
    urns = [
        Urn(
            key=PositionKey(account, "GEM-A"), block_number=7, ink=ink * WAD, art=2 * WAD, cdp=None, owner=account,
            owner_via="self", wallet=account,
        )
        for account, ink in ((WHO, 3), (OWNER, 1))
    ]  # fmt: skip

    def named(**how: Any) -> list[tuple[int, str, str | None, str]]:
        rows = evaluate_all(5, VAT, how.pop("market", market), urns, **how)
        return [(r.chain_id, r.account, r.health_factor_raw, r.status) for r in rows]

    fine, bad = (5, WHO, str(3 * WAD // 2)), (5, OWNER, str(WAD // 2))
    assert named() == [(*fine, "healthy"), (*bad, "liquidatable")]
    assert named(at_risk_below=2.0) == [(*fine, "at-risk"), (*bad, "liquidatable")]
    assert named(verified=False) == [(*fine, "unverified"), (*bad, "unverified")]
    assert named(market=replace(market, exact=False)) == [(*fine, "unverified"), (*bad, "unverified")]
    unknown_code = replace(market, exact=False, note="new code")
    assert [r.note for r in evaluate_all(5, VAT, unknown_code, urns)] == ["new code", "new code"]
    assert [r.note for r in evaluate_all(5, VAT, replace(market, note="new code"), urns)] == [None, None]
    no_price = replace(market, ilks={"GEM-A": replace(ilk, spot=0)}, assets=(asset(1, None, "GEM-A"),))
    notes = [(r.status, r.note) for r in evaluate_all(5, VAT, no_price, urns)]
    assert notes == [("unpriceable", f"no price of S1 0x{1:040x} from {OWNER}")] * 2
    answers = {
        urn.key: answer(False, debt_value_raw=1, health_factor_raw=factor * WAD) for factor, urn in enumerate(urns, 3)
    }
    assert named(answers=answers) == [(5, WHO, str(3 * WAD), "healthy"), (5, OWNER, str(4 * WAD), "healthy")]
    waiting = [replace(urns[0], supplies_complete=False), urns[1]]
    assert [r.supplies_complete for r in evaluate_all(5, VAT, market, waiting)] == [0, 1]


def asset(number: int, price: int | None, group: str = "") -> Asset:
    return Asset(
        asset=f"0x{number:040x}", market=f"m{number}", symbol=f"S{number}", decimals=0, group=group, price=price
    )


def test_a_note_names_what_has_no_price_and_who_should_give_it() -> None:
    """Of what is held, else of all that the contract may ask for: every entered market's, say; five at most."""
    adapter = CompoundV3(Deployment("", "compound-v3", "", 0, {"comet": OWNER}))
    assets = [asset(1, 5), *(asset(number, None if number % 2 else 0) for number in range(2, 9))]
    market = CompoundV3Market(
        block=BLOCK, revision="", comet=OWNER, base=assets[0].asset, base_scale=1, base_price=1, base_borrow_min=1,
        supply_index=10**15, borrow_index=10**15, supply_index_accrued=10**15, borrow_index_accrued=10**15,
        supply_rate=1, borrow_rate=1, accrued_at=0, total_supply_base=0, total_borrow_base=0, absorb_paused=False,
        collaterals=tuple(
            Collateral(asset=a.asset, offset=i, scale=1, price=None, liquidate_factor=WAD, total_supply=0)
            for i, a in enumerate(assets[1:])
        ),
        feeds={assets[2].asset: WHO}, assets=tuple(assets),
    )  # fmt: skip

    def note(*held: int) -> str:
        position = CompoundV3Position(
            key=PositionKey(WHO), block_number=7, principal=-5, collateral={assets[place].asset: 1 for place in held}
        )
        return reason(adapter, market, position, Status.UNPRICEABLE)

    names = [f"S{a.asset[-1]} {a.asset}" for a in assets]
    assert note(2, 4) == f"no price of {names[2]} from {WHO}, {names[4]}"
    shown = [names[1], f"{names[2]} from {WHO}", *names[3:6]]
    assert note() == f"no price of {', '.join(shown)} and 2 more"
    assert note(1, 2, 3, 4, 5, 6) == f"no price of {', '.join(shown)} and 1 more"
    assert note(1, 2, 3, 4, 5) == f"no price of {', '.join(shown)}"
    market = replace(market, assets=(assets[0], replace(assets[1], symbol="S" * 40)))
    assert note(1) == f"no price of {'S' * 32} {assets[1].asset}"
    market = replace(market, assets=(assets[0],))
    assert note() == "a price that the contract needs is missing"


def test_a_note_names_the_ilk_of_the_position_alone() -> None:
    market = MakerMarket(
        block=BLOCK, revision="", usd=None, contracts={"vat": WHO}, live=1, debt=0, vice=0, surplus=0, par=RAY, base=0,
        ilks={}, assets=(asset(1, None, "GEM-A"), asset(2, None, "GEM-B"), asset(3, 1), asset(4, None)),
    )  # fmt: skip
    urn = Urn(
        key=PositionKey(WHO, "GEM-B"), block_number=7, ink=0, art=0, cdp=None, owner=WHO, owner_via="self", wallet=WHO
    )
    missing = [f"S{number} 0x{number:040x}" for number in (2, 4)]
    assert reason(VAT, market, urn, Status.UNPRICEABLE) == f"no price of {', '.join(missing)}"
    differ = "the contracts' own answers differ from the values computed here"
    assert reason(VAT, market, urn, Status.UNVERIFIED) == differ
    assert reason(VAT, replace(market, note="new code"), urn, Status.UNVERIFIED) == "new code"


def stored(**values: Any) -> PositionRow:
    found = row(1, VAT, Market(block=BLOCK, revision=""), health(2 * WAD), status(health(2 * WAD), verified=True))
    return found._replace(**values)


def test_a_row_that_is_the_contracts_has_no_differences() -> None:
    same = answer(
        False, liquidation_limit_raw=2, debt_value_raw=1, owner=WHO, mode=None, liquidity_raw=1, shortfall_raw=0
    )
    assert differences(stored(), {}, same) == []
    assert differences(stored(health_factor_accrued_raw=str(WAD)), {}, answer(liquidatable_accrued=False)) == []
    assert differences(stored(health_factor_accrued_raw=str(WAD - 1)), {}, answer(liquidatable_accrued=True)) == []
    barely = stored(health_factor_accrued_raw=str(WAD))
    assert differences(barely, {}, answer(liquidatable_accrued=True)) == [("liquidatable_accrued", False, True)]
    # what no column is compared with is left out, and what comes behind it is not
    assert differences(stored(), {}, answer(unheard_of=1, debt_value_raw=2)) == [("debt_value_raw", 1, 2)]


def test_every_difference_has_its_name_and_both_values() -> None:
    wrong = answer(True, liquidation_limit_raw=3, owner=OWNER, mode="1", debt_value_raw=None)
    assert differences(stored(), {}, wrong) == [
        ("liquidation_limit_raw", 2, 3),
        ("owner", WHO, OWNER),
        ("mode", None, "1"),
        ("debt_value_raw", "1", None),
        ("liquidatable", False, True),
    ]
    # Comptroller.getAccountLiquidity: one of liquidity and shortfall is 0
    short = stored(liquidation_limit_raw="2", debt_value_raw="5")
    assert differences(short, {}, answer(liquidity_raw=1, shortfall_raw=1)) == [
        ("liquidity_raw", 0, 1),
        ("shortfall_raw", 3, 1),
    ]
    long = stored(liquidation_limit_raw="5", debt_value_raw="2")
    assert differences(long, {}, answer(liquidity_raw=1, shortfall_raw=1)) == [
        ("liquidity_raw", 3, 1),
        ("shortfall_raw", 0, 1),
    ]
    for unknown in ("liquidation_limit_raw", "debt_value_raw"):
        assert differences(stored(**{unknown: None}), {}, answer(liquidity_raw=1)) == []


@pytest.mark.parametrize(
    ("name", "verdict", "differs"),
    [("healthy", True, True), ("at-risk", True, True), ("liquidatable", False, True), ("liquidatable", True, False),
     ("healthy", False, False), ("healthy", None, False), ("unverified", True, False), ("unpriceable", True, False)],
)  # fmt: skip
def test_the_contracts_verdict_is_compared_where_a_row_has_one(name: str, verdict: bool | None, differs: bool) -> None:
    found = differences(stored(status=name), {}, answer(verdict))
    assert found == ([("liquidatable", name == "liquidatable", verdict)] if differs else [])


def test_balances_are_compared_by_asset_or_by_market() -> None:
    supply = Balance(
        asset="token", market="aToken", symbol="", decimals=0, side="supply", scaled=5, amount=6, value=None,
        is_collateral=True,
    )  # fmt: skip
    ours = amounts_of([supply, supply._replace(market="debtToken", side="debt", scaled=7, amount=8)])
    assert ours == {
        ("token", "supply"): (6, 5), ("aToken", "supply"): (6, 5), ("token", "debt"): (8, 7), ("debtToken", "debt"): (8, 7),
    }  # fmt: skip
    theirs = Answer(
        key=PositionKey(WHO), columns={},
        amounts={("token", "supply"): 6, ("debtToken", "debt"): 9, ("gone", "debt"): 0, ("new", "debt"): 1},
        scaled={("aToken", "supply"): 4, ("debtToken", "debt"): 7, ("gone", "debt"): 0, ("new", "debt"): 2},
    )  # fmt: skip
    assert differences(stored(), ours, theirs) == [
        ("amount_raw debt debtToken", 8, 9),
        ("amount_raw debt new", 0, 1),
        ("scaled_raw supply aToken", 5, 4),
        ("scaled_raw debt new", 0, 2),
    ]


def test_supplies_that_a_row_does_not_claim_to_know_are_not_compared() -> None:
    """Only those; a debt, and a supply that it does claim, are compared whatever else waits."""
    theirs = Answer(
        key=PositionKey(WHO), columns={},
        amounts={("unread", "supply"): 6, ("known", "supply"): 7, ("unread", "debt"): 8, ("other", "supply"): 5},
    )  # fmt: skip
    waiting, ours = stored(supplies_complete=0), {("known", "supply"): (1, 0)}
    found = [("amount_raw supply known", 1, 7), ("amount_raw debt unread", 0, 8)]
    assert differences(waiting, ours, theirs) == found
    all_of_them = [("amount_raw supply unread", 0, 6), *found, ("amount_raw supply other", 0, 5)]
    assert differences(stored(), ours, theirs) == all_of_them
