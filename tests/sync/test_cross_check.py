"""Two nodes that contradict each other: the row is `unverified` and both answers are told, whichever of them lies.

The liar answers every call as if one word of storage were another: balances, account data and liquidity fit together, so
no comparison with that node alone can tell.
"""

import functools
import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner, Result

from indexer.chain import connect
from indexer.chain.client import Chain
from indexer.cli.main import main
from indexer.errors import ChainError
from indexer.model import Accounts, PositionKey
from indexer.settings import Settings
from indexer.store import disputes
from indexer.store.store import Store
from indexer.sync import audit, cross_check
from indexer.sync.sync import Sync
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet, config_toml
from tests.devnet.worlds import every_protocol, rewound
from tests.disturbed import QUICK, Forks
from tests.faulty import FaultyNode
from tests.lying import lie_about_a_balance
from tests.truth import adapter_of, raw, rows_of, sync_once, wrong_rows

pytestmark = pytest.mark.disturbed
EVERYONE = 10_000
PROTOCOLS = ["aave-v3", "aave-v2", "compound-v2", "compound-v3", "maker"]


@pytest.fixture(scope="module")
def populated(needs_node: None) -> Iterator[dict[str, Devnet]]:
    with every_protocol(8, 12) as found:
        yield {market.protocol: market for market in found}


@pytest.fixture
def markets(populated: dict[str, Devnet]) -> Iterator[dict[str, Devnet]]:
    with rewound(list(populated.values())):
        yield populated


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "Chain", functools.partial(Chain, backoff=0.01))


@pytest.fixture
def liar(markets: dict[str, Devnet]) -> Iterator[FaultyNode]:
    with FaultyNode(next(iter(markets.values())).node.url) as node:
        yield node


def audits(path: Path) -> list[tuple[int, int, Any]]:
    rows = raw(path, "select checked, mismatches, detail from audits where kind = 'cross-check' order by id")
    return [(checked, mismatches, detail and json.loads(detail)) for checked, mismatches, detail in rows]


def unverified(path: Path, market: Devnet) -> set[tuple[str, str]]:
    return {key for key, row in rows_of(path, market.name).items() if row["status"] == "unverified"}


def in_dispute(path: Path) -> set[tuple[str, str]]:
    return {*raw(path, "select account, position_group from disputes")}


def at_risk(path: Path, market: Devnet) -> set[tuple[str, str]]:
    return {*raw(path, f"select account, position_group from at_risk where deployment = '{market.name}'")}


def wrong_but_for(path: Path, market: Devnet, who: tuple[str, str]) -> list[str]:
    """Rows that are wrong by the honest node's contracts, with the one that is lied about left out."""
    return [line for line in wrong_rows(path, market.node, [market])[1] if who[0] not in line]


# sync --cross-check -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_node_that_lies_about_one_balance_is_found(
    markets: dict[str, Devnet], liar: FaultyNode, tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    market, honest, path = markets[protocol], tmp_path / "honest.db", tmp_path / "lied.db"
    sync_once(honest, market.node.url, [market], "borrowers")
    who, liar.lies = lie_about_a_balance(market, honest)
    alone = tmp_path / "alone.db"
    sync_once(alone, liar.url, [market], "borrowers")
    assert unverified(alone, market) == set(), "no comparison with the liar alone tells"
    assert rows_of(alone, market.name)[who]["health_factor"] > rows_of(honest, market.name)[who]["health_factor"]
    caplog.clear()
    sync_once(path, [liar.url, market.node.url], [market], "borrowers", cross_check=EVERYONE)
    assert liar.injected["lies"] > 0
    assert unverified(path, market) == {who}
    assert wrong_but_for(path, market, who) == []
    ((checked, mismatches, detail),) = audits(path)
    assert (checked, mismatches) == (len(rows_of(path, market.name)), 1)
    assert {tuple(d["position"]) for d in detail} == {who}
    told = {d["what"]: dict(d["answers"]) for d in detail}["health_factor_raw"]
    honest_row = rows_of(honest, market.name)[who]
    assert told[liar.url] == rows_of(alone, market.name)[who]["health_factor_raw"]
    assert told[market.node.url] == honest_row["health_factor_raw"]
    (line,) = [r.getMessage() for r in caplog.records if "contradict" in r.getMessage()]
    assert liar.url in line
    assert market.node.url in line


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_an_interrupted_sync_left_behind_is_compared_before_it_is_believed(
    markets: dict[str, Devnet],
    liar: FaultyNode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
) -> None:
    """It had read a lie, and ended before it could ask the second endpoint."""
    market, honest, path = markets[protocol], tmp_path / "honest.db", tmp_path / "cut-off.db"
    sync_once(honest, market.node.url, [market], "borrowers")
    who, liar.lies = lie_about_a_balance(market, honest)
    with monkeypatch.context() as cut:
        cut.setattr(audit.Auditor, "snapshots", Mock(side_effect=ChainError("cut off")))
        with pytest.raises(ChainError, match="cut off"):
            sync_once(path, [liar.url, market.node.url], [market], "borrowers", cross_check=EVERYONE)
    assert liar.injected["lies"] > 0
    known = raw(path, "select account, position_group from states")
    assert who in known
    sync_once(path, market.node.url, [market], "borrowers", audit_sample=1, audit_at_risk=0)
    assert wrong_rows(path, market.node, [market])[1] == []
    ((checked, mismatches),) = raw(path, "select checked, mismatches from audits where kind = 'self-audit' limit 1")
    assert checked == len(known)
    assert mismatches == (0 if protocol == "compound-v3" else 1), "the sums of Comet's collateral tell it before"
    market.node.mine(1)
    sync_once(path, market.node.url, [market], "borrowers", audit_sample=1, audit_at_risk=0)
    ((checked,),) = raw(path, "select checked from audits where kind = 'self-audit' order by id desc limit 1")
    assert checked == 1, "only once"


def test_neither_is_believed_where_the_second_lies(
    markets: dict[str, Devnet], liar: FaultyNode, tmp_path: Path
) -> None:
    market, path = markets["aave-v3"], tmp_path / "second.db"
    sync_once(path, market.node.url, [market], "borrowers")
    assert audits(path) == [], "nobody asked for a second opinion"
    who, liar.lies = lie_about_a_balance(market, path)
    market.node.mine(1)
    sync_once(path, [market.node.url, liar.url], [market], "borrowers", cross_check=EVERYONE)
    assert unverified(path, market) == {who}
    assert wrong_rows(path, market.node, [market])[1] == [], "its numbers are those of the endpoint in use"
    (note,) = raw(path, "select note from deployments")[0]
    assert "two endpoints contradict each other about 1 positions" in note


@contextmanager
def tail(path: Path, urls: list[str], market: Devnet, count: int) -> Iterator[Sync]:
    chain = Chain("devnet", CHAIN_ID, urls, MULTICALL3, **QUICK)  # type: ignore[arg-type]
    settings = Settings(cross_check=count, audit_sample=0, behind_seconds=0.2)
    with closing(chain), Store(path) as store, store.lock():
        sync = Sync(store, chain, [adapter_of(market)], Accounts.BORROWERS, settings)
        sync.following = True
        yield sync


@pytest.mark.parametrize("protocol", ["aave-v3", "compound-v2", "compound-v3", "maker"])
def test_everyones_turn_comes_and_a_dispute_lasts_until_both_say_the_same(
    markets: dict[str, Devnet], liar: FaultyNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setattr(audit, "SUMS_SECONDS", 0.0)
    monkeypatch.setattr(audit, "SUMS_SHARE", 0.0)
    market, honest, path = markets[protocol], tmp_path / "honest.db", tmp_path / "tail.db"
    sync_once(honest, market.node.url, [market], "borrowers")
    who, liar.lies = lie_about_a_balance(market, honest)
    count = 4
    with tail(path, [liar.url, market.node.url], market, count) as sync:
        rounds = -(-len(rows_of(honest, market.name)) // count)
        for _ in range(rounds):
            sync.snapshot()
            market.node.mine(1)
        assert unverified(path, market) == {who}
        assert all(checked <= 2 * count for checked, _, _ in audits(path))
        sync.snapshot()
        market.node.mine(1)
        assert unverified(path, market) == {who}, "as long as it lies"
    with tail(path, [liar.url, market.node.url], market, 1) as sync:
        sync.snapshot()
        market.node.mine(1)
        assert unverified(path, market) == {who}, "also for another process"
        liar.lies = {}
        sync.snapshot()
        assert unverified(path, market) == set()
        market.node.mine(1)
        sync.snapshot()
    assert wrong_rows(path, market.node, [market])[1] == []
    assert raw(path, "select state, note from deployments")[0][0] == "ok"


def test_a_second_endpoint_that_is_silent_or_behind_holds_up_nothing(
    markets: dict[str, Devnet], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    market, path = markets["aave-v3"], tmp_path / "silent.db"
    with FaultyNode(market.node.url) as second, tail(path, [market.node.url, second.url], market, 3) as sync:
        sync.snapshot()
        assert [mismatches for _, mismatches, _ in audits(path)] == [0]
        second.down = True
        market.node.mine(1)
        sync.snapshot()
        asked = second.requests
        market.node.mine(1)
        sync.snapshot()
        assert second.requests == asked, "it is left alone for a while"
        assert len([r for r in caplog.records if "no second opinion" in r.getMessage()]) == 1
        second.down, second.faults = False, {"lagging": 1.0}
        monkeypatch.setattr(cross_check, "SILENT_SECONDS", 0.0)
        sync.auditor.cross_check.silent_until.clear()
        market.node.mine(1)
        outcome = sync.snapshot()
        assert outcome.block.number == market.node.block_number()
        assert second.injected["lagging"] > 0
        assert len(audits(path)) == 1
        second.faults = {}
        market.node.mine(1)
        sync.snapshot()
        assert len(audits(path)) == 2, "it is heard again"
    assert unverified(path, market) == set()
    assert wrong_rows(path, market.node, [market])[1] == []


# the command line ---------------------------------------------------------------------------------------------------------


def run(tmp_path: Path, path: Path, market: Devnet, url: str, *arguments: str) -> Result:
    config = tmp_path / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, url, [market]))
    return CliRunner().invoke(main, ["--config", str(config), "--db", str(path), *arguments])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_verify_against_a_second_node_tells_both_sides(
    markets: dict[str, Devnet], liar: FaultyNode, tmp_path: Path, protocol: str
) -> None:
    market, path = markets[protocol], tmp_path / "indexer.db"
    url = market.node.url
    sync_once(path, url, [market], "borrowers")
    who, lies = lie_about_a_balance(market, path)
    true = rows_of(path, market.name)[who]["health_factor_raw"]

    agreed = run(tmp_path, path, market, url, "verify", "--all", "--against", liar.url, "--json")
    assert agreed.exit_code == 0, agreed.output
    ((row),) = json.loads(agreed.stdout)
    assert (row["differ"], row["disputed"], row["checked"]) == (0, 0, len(rows_of(path, market.name)))
    assert audits(path) == [(row["checked"], 0, None)]

    liar.lies = lies
    path.unlink()
    sync_once(path, liar.url, [market], "borrowers")
    believed = run(tmp_path, path, market, liar.url, "verify", "--all", "--json")
    assert believed.exit_code == 0, "the liar agrees with itself"
    assert json.loads(believed.stdout)[0]["disputed"] is None
    told = run(tmp_path, path, market, liar.url, "verify", "--all", "--against", url, "--json")
    assert told.exit_code == 1
    ((row),) = json.loads(told.stdout)
    assert (row["differ"], row["disputed"]) == (0, 1)
    (dispute,) = [d for d in row["disputes"] if d["what"] == "health_factor_raw"]
    assert (dispute["account"], dispute["position_group"]) == who
    assert (dispute["contract"], dispute["against"]) == (rows_of(path, market.name)[who]["health_factor_raw"], true)
    assert f"{dispute['contract']} at {liar.url}, {true} at {url}" in told.stderr
    assert "contradict each other about 1 of" in told.stderr
    assert unverified(path, market) == {who}
    assert audits(path)[-1][1] == 1


def test_a_row_that_both_nodes_contradict_is_a_mismatch_and_no_dispute(
    markets: dict[str, Devnet], liar: FaultyNode, tmp_path: Path
) -> None:
    market, path = markets["aave-v3"], tmp_path / "indexer.db"
    sync_once(path, market.node.url, [market], "borrowers")
    with Store(path) as store, store.transaction() as conn:
        conn.execute("update positions set debt_value_raw = '1' where account = (select min(account) from positions)")
    result = run(tmp_path, path, market, market.node.url, "verify", "--all", "--against", liar.url, "--json")
    assert result.exit_code == 1
    ((row),) = json.loads(result.stdout)
    assert (row["differ"], row["disputed"]) == (1, 0)
    assert "1 of" in result.stderr
    assert unverified(path, market) == set()


@pytest.mark.parametrize("arguments", [("sync", "--cross-check", "5"), ("sync", "--follow", "--cross-check", "5")])
def test_a_cross_check_without_a_second_endpoint_is_refused(
    markets: dict[str, Devnet], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    market, path = markets["aave-v3"], tmp_path / "indexer.db"
    result = run(tmp_path, path, market, market.node.url, *arguments, "--chain", "devnet")
    assert result.exit_code == 2
    assert "--cross-check needs a second endpoint of devnet: name one with another --rpc-url" in result.stderr
    assert not path.exists()


def test_the_flag_reaches_the_sync(markets: dict[str, Devnet], liar: FaultyNode, tmp_path: Path) -> None:
    market, path = markets["aave-v3"], tmp_path / "indexer.db"
    both = ["--rpc-url", market.node.url, "--rpc-url", liar.url]
    result = run(tmp_path, path, market, market.node.url, "sync", "--chain", "devnet", "--cross-check", "5", *both)
    assert result.exit_code == 0, result.output
    assert [(checked, mismatches) for checked, mismatches, _ in audits(path)] == [(5, 0)]


def test_a_second_node_of_another_chain_is_refused(markets: dict[str, Devnet], tmp_path: Path) -> None:
    market, path = markets["aave-v3"], tmp_path / "indexer.db"
    sync_once(path, market.node.url, [market], "borrowers")
    with Anvil(chain_id=CHAIN_ID + 1) as other:
        result = run(tmp_path, path, market, market.node.url, "verify", "--against", other.url)
    assert result.exit_code == 1
    assert "serves chain id 1338" in result.stderr


def test_a_setting_that_only_one_endpoint_meets_is_told(
    markets: dict[str, Devnet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    market, path = markets["aave-v3"], tmp_path / "one.db"
    with tail(path, [market.node.url], market, 3) as sync:
        sync.snapshot()
    assert "devnet has one endpoint only: nothing is cross-checked; name a second" in caplog.text
    assert audits(path) == []
    assert unverified(path, market) == set()


def test_a_row_in_dispute_stays_so_where_older_rows_are_evaluated_from_the_file(
    markets: dict[str, Devnet], tmp_path: Path
) -> None:
    market, path = markets["aave-v3"], tmp_path / "indexer.db"
    with tail(path, [market.node.url, market.node.url + "/"], market, 1) as sync:
        for _ in range(3):
            sync.snapshot()
            market.node.mine(1)
    older = "from positions p join deployments d using (chain_id, deployment) where p.block_number < d.block_number"
    who, other = raw(path, f"select account, position_group {older} order by account")[:2]
    with Store(path) as store:
        disputes.mark(store, (CHAIN_ID, market.name), [PositionKey(*who)])
    statement = f"select account, status from positions where account in ('{who[0]}', '{other[0]}') order by account"
    result = run(tmp_path, path, market, market.node.url, "query", "--exact", "--json", statement)
    assert result.exit_code == 0, result.output
    first, second = json.loads(result.stdout)
    assert (first["account"], first["status"]) == (who[0], "unverified")
    assert second["status"] in {"healthy", "no-debt"}


# how a dispute ends -------------------------------------------------------------------------------------------------------


def test_a_dispute_outlives_a_sync_that_has_no_second_endpoint(
    markets: dict[str, Devnet], liar: FaultyNode, tmp_path: Path
) -> None:
    """The next snapshot believes its own endpoint, and that may be the liar: only two that say the same end it."""
    market, path = markets["aave-v3"], tmp_path / "indexer.db"
    url = market.node.url
    sync_once(path, url, [market], "borrowers")
    who, lies = lie_about_a_balance(market, path)
    path.unlink()
    liar.lies = lies
    sync_once(path, [liar.url, url], [market], "borrowers", cross_check=EVERYONE)
    assert unverified(path, market) == {who}
    for alone in (liar.url, url):
        market.node.mine(1)
        sync_once(path, alone, [market], "borrowers", audit_sample=0)
        assert unverified(path, market) == {who}, f"by {alone} alone nothing is settled"
        assert (
            "1 positions, which are unverified until two say the same"
            in raw(path, "select note from deployments")[0][0]
        )
        assert "verify --against URL" in rows_of(path, market.name)[who]["note"]
    assert wrong_rows(path, market.node, [market])[1] == [], "it was read again from whom the file is synced from now"

    result = run(tmp_path, path, market, url, "verify", "--sample", "1", "--against", liar.url)
    assert result.exit_code == 1, "it still lies, and the sample has whatever is in dispute"
    liar.lies = {}
    result = run(tmp_path, path, market, url, "verify", "--sample", "1", "--against", liar.url)
    assert result.exit_code == 0, result.output
    assert unverified(path, market) == {who}, "until the next sync"
    sync_once(path, url, [market], "borrowers", audit_sample=0)
    assert unverified(path, market) == set()
    assert raw(path, "select state, note from deployments")[0][0] == "ok"


def silent_about(account: str) -> Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]:
    """For `FaultyNode.edit`: an error in words that nobody knows instead of what any contract says of this account."""

    def edit(call: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if call["method"] != "eth_call" or account[2:] not in call["params"][0]["data"]:
            return answer
        return {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -99, "message": "words never seen"}}

    return edit


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_dispute_outlives_a_sync_in_which_its_deployment_alone_fails(
    markets: dict[str, Devnet], liar: FaultyNode, tmp_path: Path, protocol: str
) -> None:
    """The row keeps the digits of the lie, at its older block, and says that nobody believes it."""
    market, other = markets[protocol], markets["aave-v2" if protocol == "aave-v3" else "aave-v3"]
    node, both, honest, path = market.node, [market, other], tmp_path / "honest.db", tmp_path / "indexer.db"
    settings: dict[str, Any] = {"at_risk_below": 10.0, "cross_check": EVERYONE, "chain_options": QUICK}
    sync_once(honest, [node.url, node.url + "/"], [market], "borrowers", **settings)
    who, liar.lies = lie_about_a_balance(market, honest)
    endangered = at_risk(honest, market)
    assert who in endangered, "where it is believed"
    sync_once(path, [liar.url, node.url], both, "borrowers", **settings)
    assert unverified(path, market) == in_dispute(path) == {who}
    before = rows_of(path, market.name)

    liar.lies, liar.edit = {}, silent_about(who[0])
    for one in both:  # whoever becomes known here has no row before the deployment is brought to a newer block
        one.step(1)
    node.mine(1, interval=3600)
    outcome = sync_once(path, [liar.url, liar.url + "/"], both, "borrowers", **settings)
    assert (outcome.deployments, outcome.failed.keys()) == ([other.name], {market.name})
    assert {row["block_number"] for row in rows_of(path, other.name).values()} == {node.block_number()}
    ((state, note),) = raw(path, f"select state, note from deployments where deployment = '{market.name}'")
    assert state == "failed"
    assert "words never seen" in note
    assert rows_of(path, market.name) == before
    assert in_dispute(path) == {who}
    assert "two endpoints contradict each other about it" in before[who]["note"]
    assert at_risk(path, market) == endangered - {who}
    listed = run(tmp_path, path, market, node.url, "at-risk", "--below", "10", "--deployment", market.name, "--json")
    statuses = {(row["account"], row["position_group"]): row["status"] for row in json.loads(listed.stdout)}
    assert {key for key, status in statuses.items() if status == "unverified"} == {who}
    assert f"{market.name} is failed: " in listed.stderr
    wrong = wrong_rows(path, node, both)[1]
    assert wrong, "the digits of the lie"
    assert [line for line in wrong if not line.startswith(f"{market.name} {who[0]} ")] == []

    liar.edit = lambda _, answer: answer
    node.mine(1)
    sync_once(path, [liar.url, node.url], both, "borrowers", **settings)
    assert unverified(path, market) == in_dispute(path) == set()
    assert wrong_rows(path, node, both)[1] == []
    assert raw(path, "select distinct state, note from deployments") == [("ok", None)]


def test_only_the_row_in_dispute_is_one_after_a_reorganisation(
    markets: dict[str, Devnet], liar: FaultyNode, tmp_path: Path
) -> None:
    """A rollback makes every row `unverified` until the next commit: that is no dispute."""
    market, path = markets["aave-v3"], tmp_path / "indexer.db"
    node = market.node
    sync_once(path, node.url, [market], "borrowers")
    who, lies = lie_about_a_balance(market, path)
    forks = Forks([market], random.Random(1))
    forks.mark()
    forks.other_blocks(2)
    liar.lies = lies
    sync_once(path, [node.url, liar.url], [market], "borrowers", cross_check=EVERYONE)
    assert unverified(path, market) == {who}
    forks.take_back(3)
    try:
        sync_once(path, [node.url, liar.url], [market], "borrowers", cross_check=1)
        assert unverified(path, market) == {who}
    finally:
        forks.close()


def test_rows_are_compared_with_both_where_the_endpoint_in_use_changes_meanwhile(
    markets: dict[str, Devnet], liar: FaultyNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The liar falls silent right after the rows were compared with it: it is not asked for the second opinion on itself."""
    market, path = markets["aave-v3"], tmp_path / "indexer.db"
    sync_once(path, market.node.url, [market], "borrowers")
    who, lies = lie_about_a_balance(market, path)
    path.unlink()
    liar.lies = lies
    audited = audit.Auditor._audit

    def then_silent(self: audit.Auditor, *arguments: Any) -> Any:
        wrong = audited(self, *arguments)
        self.chain._pool.leave(self.chain.in_use)
        return wrong

    monkeypatch.setattr(audit.Auditor, "_audit", then_silent)
    sync_once(path, [liar.url, market.node.url], [market], "borrowers", cross_check=EVERYONE)
    assert unverified(path, market) == {who}
