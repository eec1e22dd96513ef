"""What governance does between two syncs appears by itself; unknown code and broken contracts are told, and stop nobody."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from indexer.cli.main import main
from indexer.model import Deployment
from protocols.compound_v3 import adapter as compound_v3_adapter
from tests.devnet import aave_v3, compound_v2, compound_v3, maker
from tests.devnet.aave_v3 import USD, AaveV3, EMode
from tests.devnet.aave_v3 import Listing as AaveListing
from tests.devnet.aave_v3_scenario import Action, Actions
from tests.devnet.compound_v2 import CompoundV2
from tests.devnet.compound_v3 import FEED, Asset, CompoundV3
from tests.devnet.maker import Maker
from tests.devnet.maker_scenario import new_ilk
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import Devnet, config_toml
from tests.devnet.send import account
from tests.truth import (
    named_in_logs,
    raw,
    rows_of,
    sync_once,
    token_holders,
    wrong_aave_rows,
    wrong_rows,
)

WAD = 10**18
UNKNOWN_REVISION = 99
IMPLEMENTATION_SLOT = "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc"  # EIP-1967


@dataclass(frozen=True)
class Markets:
    """One market of each protocol that governs itself here, on one node."""

    aave: AaveV3
    compound: CompoundV2
    comet: CompoundV3
    vat: Maker

    def all(self) -> list[Devnet]:
        return [self.aave, self.compound, self.comet, self.vat]

    def named(self, act: Callable[[Any], Any]) -> Devnet:
        """The market that a function of this file acts on, by its name."""
        fields = {"aave": self.aave, "compound": self.compound, "comet": self.comet, "maker": self.vat}
        return fields[act.__name__.partition("_")[0]]


@pytest.fixture(scope="module")
def populated(needs_node: None) -> Iterator[Markets]:
    with Anvil() as node:
        node.place_multicall3()
        markets = Markets(
            aave_v3.deploy(node, "3.6"),
            compound_v2.deploy(node, generation="half-up"),
            compound_v3.deploy(node),
            maker.deploy(node),
        )
        for market in markets.all():
            market.populate(6, 12)
        yield markets


@pytest.fixture
def markets(populated: Markets) -> Iterator[Markets]:
    """The markets; what a test does to them is undone."""
    with ExitStack() as stack:
        for market in populated.all():
            stack.enter_context(market.rewound())
        yield populated


def send(market: AaveV3, action: Action) -> None:
    sender, to, data, _ = action.transaction
    market.sender.transact({"to": to, "data": data}, sender, "a move", check=True)


def check(path: Path, markets: list[Devnet]) -> None:
    """Every row is what the contracts answer, nobody is missing, every deployment is well."""
    assert wrong_rows(path, markets[0].node, markets)[1] == []
    for market in markets:
        assert named_in_logs(market) <= set(rows_of(path, market.name))
    assert {state for (state,) in raw(path, "select state from deployments")} == {"ok"}


# what appears ----------------------------------------------------------------------------------------------------------


def aave_reserve(markets: Markets) -> tuple[Devnet, str, str]:
    """A reserve, collateral of somebody and debt of somebody else, who never did anything before."""
    market = markets.aave
    market.add_reserve(AaveListing("NEW", 18, 5 * USD, 7000, 7500, 10500))
    act, holder, debtor = Actions(market), account("holder of NEW"), account("debtor of NEW")
    market.sender.fund(holder, debtor)
    send(market, act.supply(holder, "NEW", 10**22))
    send(market, act.borrow(holder, "USDC", 10**9))
    send(market, act.supply(debtor, "WETH", 10**19))
    send(market, act.borrow(debtor, "NEW", 10**20))
    return market, "NEW", holder


def aave_mode(markets: Markets) -> tuple[Devnet, str, str]:
    """An e-mode, and somebody in it who could not owe that much outside."""
    market, who = markets.aave, account("in the new mode")
    market.add_emode(EMode(9, "New", 9500, 9700, 10100, ("USDC",), ("DAI",)))
    act = Actions(market)
    market.sender.fund(who)
    for action in (act.emode(who, 9), act.supply(who, "USDC", 10**10), act.borrow(who, "DAI", 93 * 10**20)):
        send(market, action)
    return market, "DAI", who


def compound_market(markets: Markets) -> tuple[Devnet, str, str]:
    market, who = markets.compound, account("in the new market")
    market.list_market(compound_v2.Listing("UNI", 18, 6_50_00, 70))
    market.sender.fund(who)
    market.supply(who, "UNI", market.amount("UNI", 5_000 * WAD), enter=True)
    market.borrow(who, "DAI", market.amount("DAI", 1_000 * WAD))
    return market, "UNI", who


def comet_collateral(markets: Markets) -> tuple[Devnet, str, str]:
    """A collateral comes with a new implementation, and somebody borrows on it."""
    market, who = markets.comet, account("with the new collateral")
    market.assets.append(Asset("NEWC", 18, 7 * FEED, 60, 70, 80))
    market.upgrade()
    market.sender.fund(who)
    market.open_debt(who, "NEWC", 500 * market.unit, 0.9)
    return market, "NEWC", who


def maker_ilk(markets: Markets) -> tuple[Devnet, str, str]:
    new_ilk(markets.vat)
    return markets.vat, "NEW", markets.vat.roles["new ilk"][1]


@pytest.mark.parametrize("appears", [aave_reserve, aave_mode, compound_market, comet_collateral, maker_ilk])
def test_what_is_new_appears_with_who_uses_it(
    markets: Markets, tmp_path: Path, appears: Callable[[Markets], tuple[Devnet, str, str]]
) -> None:
    path, market = tmp_path / "new.db", markets.named(appears)
    sync_once(path, market.node.url, [market], "borrowers")
    _, symbol, who = appears(markets)
    sync_once(path, market.node.url, [market], "borrowers")
    check(path, [market])
    assert who in {account for account, _ in rows_of(path, market.name)}
    where = f"deployment = '{market.name}' and symbol = '{symbol}'"
    assert raw(path, f"select count(*) from markets where {where}") == [(1,)]
    assert raw(path, f"select count(*) > 0 from balances where {where} and account = '{who}'") == [(1,)]


def test_suppliers_of_a_new_reserve_appear_too(markets: Markets, tmp_path: Path) -> None:
    path, market = tmp_path / "all.db", markets.aave
    sync_once(path, market.node.url, [market], "all")
    market.add_reserve(AaveListing("NEW", 18, 5 * USD, 7000, 7500, 10500))
    act, holder, heir = Actions(market), account("supplier of NEW"), account("receiver of aNEW")
    market.sender.fund(holder)
    send(market, act.supply(holder, "NEW", 10**22))
    send(market, act.transfer(holder, "NEW", 10**21, heir))
    sync_once(path, market.node.url, [market], "all")
    assert wrong_aave_rows(path, market, token_holders(market)) == []
    assert {(holder, ""), (heir, "")} <= set(rows_of(path, market.name))
    # Nobody can have supplied it before it was listed, so no later sync asks for that.
    refreshes = []
    for _ in range(2):
        market.node.mine(1)
        refreshes.append(sync_once(path, market.node.url, [market], "all").requests)
    assert refreshes[0] == refreshes[1]


# what changes ----------------------------------------------------------------------------------------------------------


def aave_feed(markets: Markets) -> Devnet:
    markets.aave.replace_feed("WETH", markets.aave.price("WETH") * 9 // 10)
    return markets.aave


def aave_oracle(markets: Markets) -> Devnet:
    """Another oracle contract, announced by the provider, with dearer ether."""
    market = markets.aave
    contracts, reserves = market.contracts, market.reserves
    assets, feeds = [r.asset for r in reserves.values()], [r.feed for r in reserves.values()]
    zero = aave_v3.ZERO
    arguments = [contracts.provider, assets, feeds, zero, zero, USD]
    contracts.oracle = market.sender.deploy(market.artifacts["AaveOracle"], arguments)
    market.sender.send(contracts.provider, "setPriceOracle(address)", [contracts.oracle])
    market.replace_feed("WETH", market.price("WETH") * 11 // 10)
    return market


def aave_threshold(markets: Markets) -> Devnet:
    market = markets.aave
    market.configure_collateral(market.reserves["WETH"].asset, 6000, 6500, 11000)
    return market


def aave_mode_shrinks(markets: Markets) -> Devnet:
    markets.aave.set_emode_collateral(1, "wstETH", False)
    return markets.aave


def compound_oracle(markets: Markets) -> Devnet:
    markets.compound.replace_oracle()
    markets.compound.move_price("ETH", 0.9)
    return markets.compound


def compound_factor(markets: Markets) -> Devnet:
    markets.compound.set_collateral_factor("ETH", 50)
    return markets.compound


def compound_code(markets: Markets) -> Devnet:
    """The rounding of the Comptroller changes with its code."""
    markets.compound.install_comptroller("truncating")
    return markets.compound


def comet_factor(markets: Markets) -> Devnet:
    market = markets.comet
    market.assets = [
        replace(a, borrow_factor=70, liquidate_factor=75) if a.symbol == "WETH" else a for a in market.assets
    ]
    market.upgrade()
    return market


def comet_feed(markets: Markets) -> Devnet:
    """Another feed in a new implementation."""
    market = markets.comet
    market.feeds["WETH"] = market.sender.deploy(market.code["Feed"], [8, 2_000 * FEED])
    market.upgrade()
    return market


def maker_ratio(markets: Markets) -> Devnet:
    vat = markets.vat
    vat.govern(
        vat.addresses["spotter"], "file(bytes32,bytes32,uint256)", vat.ilks["ETH-A"].key, maker.word("mat"), 2 * 10**27
    )
    vat.poke("ETH-A")
    return vat


@pytest.mark.parametrize(
    "change",
    [
        aave_feed, aave_oracle, aave_threshold, aave_mode_shrinks, compound_oracle, compound_factor,
        compound_code, comet_factor, comet_feed, maker_ratio,
    ],
)  # fmt: skip
def test_what_changes_for_everybody_changes_untouched_rows(
    markets: Markets, tmp_path: Path, change: Callable[[Markets], Devnet]
) -> None:
    path, market = tmp_path / "changed.db", markets.named(change)
    sync_once(path, market.node.url, [market], "borrowers")
    before = limits(path)
    change(markets)
    outcome = sync_once(path, market.node.url, [market], "borrowers")
    check(path, [market])
    if change is not compound_code:  # there a unit of 1e-18 may be all, or nothing
        assert limits(path) != before
    assert outcome.read < len(before), "prices and thresholds touch nobody"


def limits(path: Path) -> list[tuple[Any, ...]]:
    return raw(path, "select account, position_group, liquidation_limit_raw from positions order by 1, 2")


# paused and frozen -------------------------------------------------------------------------------------------------------


def test_a_paused_reserve_blocks_liquidations_and_no_health(markets: Markets, tmp_path: Path) -> None:
    path, market = tmp_path / "paused.db", markets.aave
    sync_once(path, market.node.url, [market])
    before = rows_of(path, market.name)
    market.pause("USDC")
    market.freeze("LINK")
    sync_once(path, market.node.url, [market])
    assert wrong_aave_rows(path, market, token_holders(market)) == []
    rows = rows_of(path, market.name)
    users = [who for who, _ in rows]
    used = {who for who in users if (r := market.user_reserves(who)["USDC"])[8] or r[1] + r[2]}
    owing = {who for (who, _), row in rows.items() if row["debt_value_raw"] != "0"}
    assert {who for (who, _), row in rows.items() if row["blocked_by"]} == used & owing
    assert {who: row["status"] for (who, _), row in rows.items()} == {w: r["status"] for (w, _), r in before.items()}
    states = raw(
        path, "select symbol, active, frozen, paused from markets where symbol in ('USDC', 'LINK', 'DAI') order by 1"
    )
    assert states == [("DAI", 1, 0, 0), ("LINK", 1, 1, 0), ("USDC", 1, 0, 1)]
    market.pause("USDC", False)
    sync_once(path, market.node.url, [market])
    assert not any(row["blocked_by"] for row in rows_of(path, market.name).values())


# code that nobody knows --------------------------------------------------------------------------------------------------


def indexer(path: Path, markets: list[Devnet], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    config = path.with_suffix(".toml")
    config.write_text(config_toml(CHAIN_ID, markets[0].node.url, markets))
    result = CliRunner().invoke(main, ["--config", str(config), "--db", str(path), *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_an_unknown_pool_is_answered_by_the_contract_and_told(markets: Markets, tmp_path: Path) -> None:
    path, market, others = tmp_path / "unknown.db", markets.aave, [markets.comet, markets.vat]
    everything = [market, *others]
    sync_once(path, market.node.url, everything, "borrowers")
    known = rows_of(path, market.name)
    slot = [market.contracts.pool, IMPLEMENTATION_SLOT]
    implementation = market.node.rpc("eth_getStorageAt", *slot, "latest")
    market.upgrade_pool(UNKNOWN_REVISION)
    market.move_price("WETH", 0.8)
    outcome = sync_once(path, market.node.url, everything, "borrowers")
    assert outcome.failed == {}
    rows = rows_of(path, market.name)
    assert rows.keys() == known.keys()
    assert wrong_aave_rows(path, market, market.borrowers) == []
    assert {row["status"] for row in rows.values()} == {"unverified"}
    assert all(str(UNKNOWN_REVISION) in row["note"] for row in rows.values())
    states = {name: (state, note) for name, state, note in raw(path, "select deployment, state, note from deployments")}
    assert states[market.name][0] == "unverified"
    assert str(UNKNOWN_REVISION) in states[market.name][1]
    assert {states[other.name] for other in others} == {("ok", None)}
    check_others(path, others)

    # nobody is hidden in silence
    below = sum(market.answer(who)[5] < 11 * WAD // 10 for who in market.borrowers)
    assert below > 0
    code, listed, told = indexer(path, everything, "at-risk", "--csv", "--exit-code", "--protocol", "aave-v3")
    assert f"{market.name} is unverified: {states[market.name][1]}" in told
    assert f"unverified, {below} of them below 1.1: --below 1.1 lists them" in told
    assert listed.count("\n") == 1, "only the header"
    assert code == 3
    assert "below 1.1" not in indexer(path, everything, "at-risk", "--protocol", "maker")[2]
    _, listed, _ = indexer(path, everything, "at-risk", "--csv", "--below", "1.1")
    assert listed.count(market.name) == below

    market.node.rpc("anvil_setStorageAt", *slot, implementation)  # the proxy itself takes no lower revision
    market.node.mine(1)
    sync_once(path, market.node.url, everything, "borrowers", audit_sample=0, audit_at_risk=0)
    check(path, everything)
    assert "unverified" not in {row["status"] for row in rows_of(path, market.name).values()}


def check_others(path: Path, others: list[Devnet]) -> None:
    assert wrong_rows(path, others[0].node, others)[1] == []
    for other in others:
        assert {row["block_number"] for row in rows_of(path, other.name).values()} == {other.node.block_number()}


# contracts that are broken -------------------------------------------------------------------------------------------------


def test_an_address_without_code_does_not_stop_the_others(markets: Markets, tmp_path: Path) -> None:
    path, others = tmp_path / "nocode.db", [markets.aave, markets.comet]
    nobody = Deployment("nobody", "aave-v3", "devnet", 0, {"pool_addresses_provider": account("nobody")})
    outcome = sync_once(path, markets.aave.node.url, [nobody, *others], "borrowers")
    assert set(outcome.failed) == {"nobody"}
    assert account("nobody") in outcome.failed["nobody"]
    ((state, note, block),) = raw(path, "select state, note, block_number from deployments where deployment = 'nobody'")
    assert (state, block) == ("failed", None)
    assert "no contract" in note
    check_others(path, list(others))


def test_a_reverting_oracle_makes_unpriceable_what_it_prices_and_stops_nobody(markets: Markets, tmp_path: Path) -> None:
    path, market, others = tmp_path / "oracle.db", markets.aave, [markets.compound, markets.comet, markets.vat]
    sync_once(path, market.node.url, markets.all(), "borrowers")
    oracle, mute = market.contracts.oracle, market.reserves["WETH"].asset
    market.sender.send(market.contracts.provider, "setPriceOracle(address)", [mute])
    outcome = sync_once(path, market.node.url, markets.all(), "borrowers")
    assert outcome.failed == {}
    check_others(path, list(others))
    rows = rows_of(path, market.name).values()
    assert {row["status"] for row in rows if row["debt_value_raw"] != "0"} == {"unpriceable"}
    assert {row["health_factor_raw"] for row in rows} == {None}
    for (who, group), row in rows_of(path, market.name).items():
        if row["status"] == "unpriceable":
            (held,) = raw(
                path, f"select group_concat(distinct asset) from balances where account = '{who}' and value_usd is null"
            )
            named = [asset for asset in held[0].split(",") if f" {asset} from {mute}".lower() in row["note"].lower()]
            assert len(named) == min(len(held[0].split(",")), 5), (who, group)
        else:
            assert row["note"] is None
    market.sender.send(market.contracts.provider, "setPriceOracle(address)", [oracle])
    sync_once(path, market.node.url, markets.all(), "borrowers")
    check(path, markets.all())


@pytest.mark.parametrize(
    "method", ["read_market", "logs", "touched", "read_positions", "checks", "evaluate", "balances"]
)
def test_a_defect_of_an_adapter_stops_no_other(
    markets: Markets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    path, market, other = tmp_path / "defect.db", markets.comet, markets.aave
    unaudited = {"audit_sample": 0, "audit_at_risk": 0}  # what is compared is computed before the rows are written
    sync_once(path, market.node.url, [market, other], "borrowers")
    before, new = rows_of(path, market.name), account("met by a defect")
    market.sender.fund(new)
    market.open_debt(new, "WETH", 500 * market.unit, 0.7)
    with monkeypatch.context() as patch:
        patch.setattr(compound_v3_adapter.CompoundV3, method, lambda *_: 1 // 0)
        outcome = sync_once(path, market.node.url, [market, other], "borrowers", **unaudited)
    assert outcome.failed.keys() == {market.name}
    assert "defect in the compound-v3 adapter: ZeroDivisionError" in outcome.failed[market.name]
    assert rows_of(path, market.name) == before
    check_others(path, [other])
    sync_once(path, market.node.url, [market, other], "borrowers")
    check(path, [market, other])


def test_a_deployment_that_breaks_keeps_its_last_rows_and_is_told(markets: Markets, tmp_path: Path) -> None:
    path, market, others = tmp_path / "broken.db", markets.comet, [markets.aave]
    sync_once(path, market.node.url, [market, *others], "borrowers")
    before = rows_of(path, market.name)
    code = market.node.rpc("eth_getCode", market.comet, "latest")
    market.node.set_code(market.comet, "0xfe")  # every call fails from now on
    market.node.mine(1)
    outcome = sync_once(path, market.node.url, [market, *others], "borrowers")
    assert set(outcome.failed) == {market.name}
    assert rows_of(path, market.name) == before
    check_others(path, list(others))
    exit_code, _, told = indexer(path, [market, *others], "at-risk", "--csv")
    assert exit_code == 0
    assert f"{market.name} is failed: " in told
    market.node.set_code(market.comet, code)
    market.node.mine(1)
    sync_once(path, market.node.url, [market, *others], "borrowers")
    check(path, [market, *others])
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("select count(*) from deployments where state <> 'ok'").fetchone() == (0,)
