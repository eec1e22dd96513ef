"""Discovery over a long history: the quick look finds exactly those whom raw logs name; a plan comes true."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from indexer.cli.main import main
from indexer.logs import ranges
from indexer.logs.lean import Named
from indexer.sync import missing_logs
from tests.devnet.node import CHAIN_ID
from tests.devnet.scenario import Devnet, config_toml
from tests.devnet.worlds import every_protocol
from tests.faulty import FaultyNode
from tests.truth import named_in_logs, raw, sync_once, wrong_rows


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[list[Devnet]]:
    with every_protocol(8, 12) as found:
        yield found


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Named]:
    """What the quick look found, on a chain that is short beside those that it is made for."""
    monkeypatch.setattr(missing_logs, "SETTLED", 0)
    found: list[Named] = []
    look = ranges._look_through

    def noted(*arguments: Any) -> Named:
        found.append(look(*arguments))
        return found[-1]

    monkeypatch.setattr(ranges, "_look_through", noted)
    return found


@pytest.mark.parametrize("accounts", ["borrowers", "all"])
def test_a_quick_look_names_whom_raw_logs_name(
    markets: list[Devnet], looked: list[Named], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accounts: str
) -> None:
    exact = tmp_path / "exact.db"
    with monkeypatch.context() as patch:
        patch.setattr(missing_logs, "SETTLED", 10**9)
        sync_once(exact, markets[0].node.url, markets, accounts)
    assert looked == []
    with FaultyNode(markets[0].node.url, seed=1) as node:
        node.range_cap = 30
        for market in markets:
            path, before = tmp_path / f"{market.name}.db", len(looked)
            sync_once(path, node.url, [market], accounts, recent_blocks=1, quiet_blocks=0)
            known = raw(path, "select account, position_group from events")
            if accounts == "borrowers":
                assert set(known) == named_in_logs(market)
            rows = "select account, position_group, first_block, last_block, deployment from events"
            wanted = f"{rows} where deployment = '{market.name}' order by 1, 2"
            assert raw(path, wanted) == raw(exact, wanted)
            assert wrong_rows(path, market.node, [market])[1] == []
            quick = sum(found.count - len(found.events) for found in looked[before:])
            assert (quick > 0) == (market.protocol != "maker"), market.name


@pytest.mark.disturbed
@pytest.mark.parametrize("fault", ["lagging", "truncated", "429", "null", "null-logs", "ignores-filter", "wrong-id"])
def test_faults_of_a_provider_lose_nobody(
    markets: list[Devnet], looked: list[Named], tmp_path: Path, fault: str
) -> None:
    path, market = tmp_path / "fault.db", markets[0]
    with FaultyNode(market.node.url, seed=3, faults={fault: 0.2}) as node:
        node.range_cap, node.result_cap = 40, 25
        sync_once(path, node.url, [market], "borrowers", recent_blocks=1, quiet_blocks=0, audit_sample=0)
    assert looked
    assert set(raw(path, "select account, position_group from events")) == named_in_logs(market)


@pytest.mark.parametrize(("blocks", "logs"), [(25, None), (25, 40), (50, 60), (100, 80), (400, 100), (10_000, 10_000)])
def test_a_plan_comes_true_within_a_fifth(
    markets: list[Devnet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, logs: int | None
) -> None:
    """Caps as they are, and as small beside this chain as those are beside mainnet's."""
    monkeypatch.chdir(tmp_path)
    asked: list[int] = []
    with FaultyNode(markets[0].node.url, seed=1) as node:
        node.range_cap, node.result_cap = blocks, logs
        Path("indexer.toml").write_text(config_toml(CHAIN_ID, node.url, markets))
        planned = CliRunner().invoke(main, ["sync", "--chain", "devnet", "--dry-run"])
        assert planned.exit_code == 0, planned.output
        handle = FaultyNode.handle

        def counted(proxy: FaultyNode, handler: Any, body: bytes) -> None:
            found = json.loads(body)
            asked.append(
                any(call["method"] == "eth_getLogs" for call in (found if isinstance(found, list) else [found]))
            )
            handle(proxy, handler, body)

        monkeypatch.setattr(FaultyNode, "handle", counted)
        assert CliRunner().invoke(main, ["sync", "--chain", "devnet"]).exit_code == 0
    expected = sum(row["log_requests"] for row in json.loads(planned.stdout))
    assert re.search(rf"{expected:,} requests for logs are expected, between \d+ and \d+;", planned.stderr)
    assert abs(sum(asked) - expected) <= max(0.2 * sum(asked), 4), (sum(asked), expected)
