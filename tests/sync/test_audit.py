"""What the indexer finds wrong in its own rows: stored states, omitted logs, pruned history; repaired and told."""

import functools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from eth_utils.crypto import keccak

from indexer.chain import connect
from indexer.chain.client import Chain
from indexer.cli.main import main
from indexer.model import Accounts, Health, Market, Position
from indexer.settings import Settings
from indexer.store.store import Store
from indexer.sync.sync import Sync
from indexer.sync.verify import verify
from protocols.aave_v3 import adapter as aave_v3_adapter
from tests.devnet import aave_v3
from tests.devnet.aave_v2 import AaveV2
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.aave_v3_scenario import Action, Actions
from tests.devnet.compound_v2 import CompoundV2
from tests.devnet.compound_v3 import CompoundV3
from tests.devnet.maker import Maker
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet, config_toml
from tests.devnet.send import account
from tests.devnet.worlds import every_protocol, rewound
from tests.disturbed import QUICK
from tests.faulty import FaultyNode
from tests.truth import (
    adapter_of,
    deployment_of,
    logs_of,
    named_in_logs,
    raw,
    rows_of,
    sync_once,
    token_holders,
    wrong_aave_rows,
    wrong_rows,
)

WAD = 10**18


@pytest.fixture(scope="module")
def populated(needs_node: None) -> Iterator[dict[str, Devnet]]:
    with every_protocol(8, 12) as found:
        yield {market.protocol: market for market in found}


@pytest.fixture
def markets(populated: dict[str, Devnet]) -> Iterator[dict[str, Devnet]]:
    """The markets by protocol; what a test does to them is undone."""
    with rewound(list(populated.values())):
        yield populated


@pytest.fixture
def aave(markets: dict[str, Devnet]) -> AaveV3:
    market = markets["aave-v3"]
    assert isinstance(market, AaveV3)
    return market


def audits(path: Path, kind: str) -> list[tuple[int, int, Any]]:
    """(checked, mismatches, detail) of each line of that kind, oldest first."""
    rows = raw(path, f"select checked, mismatches, detail from audits where kind = '{kind}' order by id")
    return [(checked, mismatches, detail and json.loads(detail)) for checked, mismatches, detail in rows]


def state_of(path: Path, market: Devnet) -> tuple[str, str | None]:
    (found,) = raw(path, f"select state, note from deployments where deployment = '{market.name}'")
    return found


# what is stored wrong ----------------------------------------------------------------------------------------------------


def spoil(path: Path, account: str) -> None:
    """Makes the stored state of an account say that nothing is collateral; no sum tells."""
    ((state,),) = raw(path, f"select state from states where account = '{account}'")
    spoiled = json.loads(state)
    borrowing = int("01" * 128, 2)
    spoiled["configuration"] &= borrowing
    with Store(path) as store, store.transaction() as conn:
        conn.execute("update states set state = ? where account = ?", (json.dumps(spoiled), account))


@pytest.mark.disturbed
def test_a_wrong_stored_state_is_noticed_read_again_and_told(
    aave: AaveV3, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spoiled.db"
    sync_once(path, aave.node.url, [aave])
    assert [mismatches for _, mismatches, _ in audits(path, "self-audit")] == [0]
    who = min((r for r in rows_of(path, aave.name).values() if r["health_factor"]), key=lambda r: r["health_factor"])
    spoil(path, who["account"])
    aave.node.mine(1)
    caplog.clear()
    sync_once(path, aave.node.url, [aave], audit_sample=0)
    assert wrong_aave_rows(path, aave, token_holders(aave)) == []
    (_, first, detail), (_, second, _) = audits(path, "self-audit")[1:]
    assert (first, second) == (1, 0)
    assert {d["position"][0] for d in detail} == {who["account"]}
    assert {d["what"] for d in detail} >= {"collateral_value_raw", "health_factor_raw"}
    assert state_of(path, aave) == ("ok", None)
    (told,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert "differ from the contracts; reading every position again" in told


@pytest.mark.disturbed
def test_the_random_sample_finds_it_in_any_row(aave: AaveV3, tmp_path: Path) -> None:
    path, supplier = tmp_path / "sample.db", aave.cast["supplier"]
    sync_once(path, aave.node.url, [aave])
    spoil(path, supplier)
    aave.node.mine(1)
    sync_once(path, aave.node.url, [aave], audit_sample=10_000, audit_at_risk=0)
    assert wrong_aave_rows(path, aave, token_holders(aave)) == []
    assert [mismatches for _, mismatches, _ in audits(path, "self-audit")] == [0, 1, 0]


def test_what_is_compared_is_bounded(aave: AaveV3, tmp_path: Path) -> None:
    path = tmp_path / "bounded.db"
    sync_once(path, aave.node.url, [aave], audit_sample=2, audit_at_risk=1)
    ((checked, _, _),) = audits(path, "self-audit")
    assert 1 <= checked <= 3


class Defective(aave_v3_adapter.AaveV3):
    """The adapter with a mistake: whoever is near liquidation owes a unit less."""

    def evaluate(self, market: Market, position: Position) -> Health:
        health = super().evaluate(market, position)
        if health.health_factor is None or health.health_factor > 11 * WAD // 10 or not health.debt_value:
            return health
        return replace(health, debt_value=health.debt_value - 1)


@pytest.mark.disturbed
def test_a_mismatch_that_stays_marks_the_deployment_and_no_other(
    markets: dict[str, Devnet], aave: AaveV3, tmp_path: Path
) -> None:
    path, comet = tmp_path / "defect.db", markets["compound-v3"]
    chain = Chain("devnet", CHAIN_ID, [aave.node.url], MULTICALL3)
    with Store(path) as store:
        adapters = [Defective(deployment_of(aave)), adapter_of(comet)]
        outcome = Sync(store, chain, adapters, Accounts.BORROWERS, Settings()).snapshot()
    chain.close()
    assert outcome.failed == {}
    state, note = state_of(path, aave)
    assert state == "unverified"
    assert note is not None
    assert "differ from the contracts" in note
    assert {row["status"] for row in rows_of(path, aave.name).values()} == {"unverified"}
    assert state_of(path, comet) == ("ok", None)
    assert "unverified" not in {row["status"] for row in rows_of(path, comet.name).values()}
    mismatches = raw(path, f"select mismatches from audits where kind = 'self-audit' and deployment = '{aave.name}'")
    assert len(mismatches) == 2, "compared, read again, compared again"
    assert all(count > 0 for (count,) in mismatches)
    # the mended program mends the rows
    sync_once(path, aave.node.url, [aave, comet], "borrowers")
    assert wrong_aave_rows(path, aave, aave.borrowers) == []
    assert state_of(path, aave) == ("ok", None)


# nothing to repair -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["aave-v3", "aave-v2", "compound-v2", "compound-v3", "maker"])
def test_who_acts_in_the_very_next_block_is_read_again_and_nothing_is_repaired(
    markets: dict[str, Devnet], tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    """Somebody's second act is in the block after the one he was read at; every row is then compared at first sight."""
    path, market, who = tmp_path / "next.db", markets[protocol], account("quick")
    market.sender.fund(who)
    OWE[protocol](market, who)
    sync_once(path, market.node.url, [market])
    (read_at,) = {block for (block,) in raw(path, "select distinct block_number from positions")}
    ADD[protocol](market, who)
    assert market.node.block_number() == read_at + 1
    caplog.clear()
    sync_once(path, market.node.url, [market], audit_sample=10_000)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert audits(path, "reconciliation") == audits(path, "omitted-logs") == []
    assert [mismatches for _, mismatches, _ in audits(path, "self-audit")] == [0, 0]
    checked, wrong = wrong_rows(path, market.node, [market])
    assert checked > 10
    assert wrong == []


# omitted logs ------------------------------------------------------------------------------------------------------------


class Forgetful(FaultyNode):
    """Leaves out the logs of `omit_blocks`, but only in the first answer that has some."""

    def _logs(self, call_id: Any, answer: dict[str, Any]) -> dict[str, Any]:
        before = self.logs_omitted
        answer = super()._logs(call_id, answer)
        if self.logs_omitted > before:
            self.omit_blocks = set()
        return answer


def send(market: AaveV3, action: Action) -> None:
    sender, to, data, _ = action.transaction
    market.sender.transact({"to": to, "data": data}, sender, "a move", check=True)


def owe_aave_v3(market: AaveV3, who: str) -> None:
    act = Actions(market)
    for action in (act.supply(who, "WETH", 10 * WAD), act.borrow(who, "USDC", 10**9)):
        send(market, action)


def owe_aave_v2(market: AaveV2, who: str) -> None:
    market.supply(who, "WETH", 10 * WAD)
    market.borrow(who, "USDC", market.amount("USDC", WAD), 2)


def owe_compound_v2(market: CompoundV2, who: str) -> None:
    market.supply(who, "ETH", market.amount("ETH", 5_000 * WAD), enter=True)
    market.borrow(who, "DAI", market.amount("DAI", 1_000 * WAD))


def owe_compound_v3(market: CompoundV3, who: str) -> None:
    market.open_debt(who, "WETH", 500 * market.unit, 0.7)


def owe_maker(market: Maker, who: str) -> None:
    market.open_raw("ETH-A", who, 30 * WAD, 500 * WAD)


OWE: dict[str, Callable[[Any, str], None]] = {
    "aave-v3": owe_aave_v3,
    "aave-v2": owe_aave_v2,
    "compound-v2": owe_compound_v2,
    "compound-v3": owe_compound_v3,
    "maker": owe_maker,
}


ADD: dict[str, Callable[[Any, str], None]] = {  # one transaction each
    "aave-v3": lambda market, who: send(market, Actions(market).borrow(who, "USDC", 10**9)),
    "aave-v2": lambda market, who: market.borrow(who, "USDC", market.amount("USDC", WAD // 10), 2),
    "compound-v2": lambda market, who: market.borrow(who, "DAI", market.amount("DAI", 100 * WAD)),
    "compound-v3": lambda market, who: market.withdraw(who, market.base, market.unit),
    "maker": lambda market, who: market.frob("ETH-A", who, 0, market.debt("ETH-A", 100 * WAD)),
}


def newcomer_in_debt(market: Devnet) -> tuple[str, set[int]]:
    """Somebody whose every log is in these blocks, with others behind them."""
    who = account("left out")
    market.sender.fund(who)
    first = market.node.block_number() + 1
    OWE[market.protocol](market, who)
    blocks = set(range(first, market.node.block_number() + 1))
    market.node.mine(3)
    return who, blocks


@pytest.mark.disturbed
@pytest.mark.parametrize("protocol", list(OWE))
def test_old_logs_that_were_left_out_once_are_found_by_sums(
    markets: dict[str, Devnet], tmp_path: Path, protocol: str
) -> None:
    path, market = tmp_path / "old.db", markets[protocol]
    who, blocks = newcomer_in_debt(market)
    with Forgetful(market.node.url) as node:
        node.omit_blocks = blocks
        sync_once(path, node.url, [market], "borrowers", recent_blocks=1, quiet_blocks=0)
        assert node.logs_omitted > 0
    assert who in {account for account, _ in rows_of(path, market.name)}
    assert wrong_rows(path, market.node, [market])[1] == []
    ((checked, left, detail),) = audits(path, "reconciliation")
    assert checked > 0
    assert left == 0
    assert detail["found"]
    assert state_of(path, market) == ("ok", None)


@pytest.mark.disturbed
@pytest.mark.parametrize("protocol", list(OWE))
def test_logs_that_stay_away_make_it_incomplete_until_another_endpoint_has_them(
    markets: dict[str, Devnet], tmp_path: Path, protocol: str
) -> None:
    path, market = tmp_path / "away.db", markets[protocol]
    who, blocks = newcomer_in_debt(market)
    with FaultyNode(market.node.url) as node:
        node.omit_blocks = blocks
        sync_once(path, node.url, [market], "borrowers", recent_blocks=1, quiet_blocks=0)
        state, note = state_of(path, market)
        assert state == "incomplete"
        assert note is not None
        assert "add a second endpoint" in note
        assert wrong_rows(path, market.node, [market])[1] == []
        assert who not in {account for account, _ in rows_of(path, market.name)}
        assert audits(path, "reconciliation")[-1][1] > 0
    sync_once(path, market.node.url, [market], "borrowers")
    assert who in {account for account, _ in rows_of(path, market.name)}
    assert wrong_rows(path, market.node, [market])[1] == []
    assert state_of(path, market) == ("ok", None)


@pytest.mark.disturbed
@pytest.mark.parametrize("blocks_ago", [2, 150])
def test_logs_since_the_last_snapshot_that_are_left_out_are_found_by_bloom_filters_and_receipts(
    aave: AaveV3, tmp_path: Path, blocks_ago: int
) -> None:
    """The change shows in no sum: only the block's bloom filter tells that a log is missing."""
    path, who = tmp_path / "recent.db", aave.cast["supplier"]
    sync_once(path, aave.node.url, [aave])
    send(aave, Actions(aave).use_as_collateral(who, "WETH", False))
    aave.node.mine(blocks_ago)
    with FaultyNode(aave.node.url) as node:
        node.omit_blocks = {aave.node.block_number() - blocks_ago}
        sync_once(path, node.url, [aave], audit_sample=0, audit_at_risk=0)
        assert node.logs_omitted > 0
    assert wrong_aave_rows(path, aave, token_holders(aave)) == []
    ((_, recovered, detail),) = audits(path, "omitted-logs")
    assert recovered == detail["recovered"] > 0
    assert audits(path, "reconciliation") == []


@pytest.mark.disturbed
def test_one_of_two_logs_of_the_same_kind_in_a_block_is_missed_too(aave: AaveV3, tmp_path: Path) -> None:
    path, who, other, act = tmp_path / "twin.db", account("left out"), aave.cast["supplier"], Actions(aave)
    aave.sender.fund(who)
    send(aave, act.supply(who, "WETH", WAD))
    sync_once(path, aave.node.url, [aave])
    both = [act.use_as_collateral(one, "WETH", False).transaction for one in (who, other)]
    assert aave.sender.bulk(both, per_block=2, interval=12) == [True, True]
    aave.node.mine(1)
    with FaultyNode(aave.node.url) as node:
        node.omit_account = who
        sync_once(path, node.url, [aave], audit_sample=0, audit_at_risk=0)
        assert node.logs_omitted > 0
    assert wrong_aave_rows(path, aave, {*token_holders(aave), who}) == []
    assert [recovered for _, recovered, _ in audits(path, "omitted-logs")] == [1]


@pytest.mark.disturbed
def test_without_receipts_a_second_endpoint_tells(aave: AaveV3, tmp_path: Path) -> None:
    path, who = tmp_path / "second.db", aave.cast["supplier"]
    sync_once(path, aave.node.url, [aave])
    send(aave, Actions(aave).use_as_collateral(who, "WETH", False))
    with FaultyNode(aave.node.url, faults={"receipts-unsupported": 1.0}) as node:
        node.omit_blocks = {aave.node.block_number()}
        sync_once(path, [node.url, aave.node.url], [aave], audit_sample=0, audit_at_risk=0)
    assert wrong_aave_rows(path, aave, token_holders(aave)) == []


# pruned history ----------------------------------------------------------------------------------------------------------


def test_pruned_log_history_is_told_from_which_block_on_and_never_taken_for_empty(
    markets: dict[str, Devnet], tmp_path: Path
) -> None:
    path, market = tmp_path / "pruned.db", markets["compound-v3"]
    supplies = logs_of(market, "0x" + keccak(text="SupplyCollateral(address,address,address,uint256)").hex())
    middle = int(supplies[len(supplies) // 2]["blockNumber"], 16)
    with FaultyNode(market.node.url, faults={"pruned-history": 1.0}) as node:
        node.history_from = middle
        sync_once(path, node.url, [market], "borrowers")
        ((state, note, complete_from),) = raw(path, "select state, note, complete_from from deployments")
        assert (state, complete_from) == ("incomplete", middle)
        assert f"logs before block {middle} are pruned" in note
        assert wrong_rows(path, market.node, [market])[1] == []
        assert 0 < len(rows_of(path, market.name)) < len(named_in_logs(market))
        market.step(1)
        sync_once(path, node.url, [market], "borrowers")
        assert raw(path, "select state, complete_from from deployments") == [("incomplete", middle)]
        sync_once(path, [node.url, market.node.url], [market], "borrowers")  # the second endpoint has it all
    assert raw(path, "select state, complete_from from deployments") == [("ok", None)]
    assert named_in_logs(market) <= set(rows_of(path, market.name))
    assert wrong_rows(path, market.node, [market])[1] == []


def test_activity_that_was_pruned_during_a_pause_makes_every_position_be_read_again(
    aave: AaveV3, tmp_path: Path
) -> None:
    """Nobody can tell who was touched meanwhile; a change that shows in no sum must not survive."""
    path, who = tmp_path / "pause.db", aave.cast["supplier"]
    sync_once(path, aave.node.url, [aave])
    send(aave, Actions(aave).use_as_collateral(who, "WETH", False))
    aave.node.mine(5)
    unaudited = {"audit_sample": 0, "audit_at_risk": 0, "recent_blocks": 1, "quiet_blocks": 0}
    with FaultyNode(aave.node.url, faults={"pruned-history": 1.0}) as node:
        node.history_from = aave.node.block_number() - 2
        sync_once(path, node.url, [aave], **unaudited)
        assert wrong_aave_rows(path, aave, token_holders(aave)) == []
        assert state_of(path, aave)[0] == "incomplete"
        send(aave, Actions(aave).use_as_collateral(who, "WETH", True))
        outcome = sync_once(path, node.url, [aave], **unaudited)
        assert wrong_aave_rows(path, aave, token_holders(aave)) == []
        assert outcome.read < outcome.positions, "the activity since then is known"


# a tail does not repeat what did not help --------------------------------------------------------------------------------


def snapshots_of_a_tail(path: Path, node: FaultyNode, market: Devnet, count: int, between: Callable[[], None]) -> None:
    """So many snapshots by one process, as `sync --follow` takes them."""
    chain = Chain("devnet", CHAIN_ID, [node.url], MULTICALL3, **QUICK)  # type: ignore[arg-type]
    with Store(path) as store:
        sync = Sync(store, chain, [adapter_of(market)], Accounts.BORROWERS, Settings(recent_blocks=1, quiet_blocks=0))
        for _ in range(count):
            market.node.mine(1)
            sync.snapshot()
            between()
    chain.close()


def test_a_tail_asks_for_pruned_logs_only_now_and_then(markets: dict[str, Devnet], tmp_path: Path) -> None:
    market, refused = markets["compound-v3"], []
    with FaultyNode(market.node.url, faults={"pruned-history": 1.0}) as node:
        node.history_from = market.node.block_number() - 50
        snapshots_of_a_tail(
            tmp_path / "tail.db", node, market, 3, lambda: refused.append(node.injected["pruned-history"])
        )
    assert refused[0] > 0
    assert refused == [refused[0]] * 3


@pytest.mark.disturbed
def test_a_tail_repairs_only_now_and_then_what_no_repair_helps(markets: dict[str, Devnet], tmp_path: Path) -> None:
    path, market = tmp_path / "tail.db", markets["compound-v3"]
    _, blocks = newcomer_in_debt(market)
    asked: list[int] = []
    with FaultyNode(market.node.url) as node:
        node.omit_blocks = blocks
        snapshots_of_a_tail(path, node, market, 3, lambda: asked.append(node.calls["eth_getLogs"]))
    assert len(audits(path, "reconciliation")) == 1
    assert asked[2] - asked[1] < asked[0] / 2
    assert state_of(path, market)[0] == "incomplete", "told at each snapshot"


# verify ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def forgetting(needs_node: None) -> Iterator[AaveV3]:
    """A market on a node that keeps the states of few blocks, as full nodes do."""
    with Anvil(states_in_memory=16) as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.6")
        market.populate(8, 12)
        yield market


def test_verify_takes_a_snapshot_first_where_the_node_has_forgotten_the_block(
    forgetting: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "Chain", functools.partial(Chain, backoff=0.01))
    path, config, node = tmp_path / "indexer.db", tmp_path / "indexer.toml", forgetting.node
    config.write_text(config_toml(CHAIN_ID, node.url, [forgetting]))
    sync_once(path, node.url, [forgetting], "borrowers")
    old = node.block_number()
    forgetting.step(1)
    node.mine(40)
    result = CliRunner().invoke(main, ["--config", str(config), "--db", str(path), "verify", "--all", "--json"])
    assert result.exit_code == 0, result.output
    assert f"block {old} can no longer be asked" in result.stderr
    assert "taking a new snapshot first" in result.stderr
    ((row),) = json.loads(result.stdout)
    assert row["block"] == node.block_number()
    assert row["differ"] == 0
    assert row["checked"] == len(rows_of(path, forgetting.name)) > 0
    assert wrong_aave_rows(path, forgetting, forgetting.borrowers) == []


def test_an_old_block_that_the_node_has_forgotten_is_told_and_leaves_the_rows(
    forgetting: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "Chain", functools.partial(Chain, backoff=0.01))
    path, config, node = tmp_path / "indexer.db", tmp_path / "indexer.toml", forgetting.node
    config.write_text(config_toml(CHAIN_ID, node.url, [forgetting]))
    sync_once(path, node.url, [forgetting], "borrowers")
    before, old = rows_of(path, forgetting.name), node.block_number() // 2
    arguments = ["--config", str(config), "--db", str(path), "sync", "--chain", "devnet", "--to", str(old)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert f"no endpoint of devnet holds the state of block {old} any more: take a newer block" in result.stderr
    assert rows_of(path, forgetting.name) == before


def test_verify_takes_a_snapshot_first_where_the_block_was_orphaned(aave: AaveV3, tmp_path: Path) -> None:
    path, node = tmp_path / "orphaned.db", aave.node
    mark = node.snapshot()
    send(aave, Actions(aave).use_as_collateral(aave.cast["supplier"], "WETH", False))
    sync_once(path, node.url, [aave])
    node.revert(mark)
    node.mine(3, interval=7)
    with Store(path) as store:
        chain = Chain("devnet", CHAIN_ID, [node.url], MULTICALL3, **QUICK)  # type: ignore[arg-type]
        (verdict,) = verify(store, chain, [adapter_of(aave)], settings=Settings(audit_sample=0, audit_at_risk=0))
        chain.close()
    assert verdict.block.number == node.block_number()
    assert (verdict.differ, verdict.checked) == (0, len(rows_of(path, aave.name)))
    assert wrong_aave_rows(path, aave, token_holders(aave)) == []
