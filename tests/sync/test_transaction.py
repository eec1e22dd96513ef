"""Everything is computed before the write transaction: no adapter is asked inside it, and what is planned is not stale."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from indexer.adapter import Adapter
from indexer.alert.rules import below
from indexer.alert.watcher import Watcher
from indexer.alert.watches import Policy, Watch, add, remove
from indexer.chain.client import Chain
from indexer.model import Accounts
from indexer.settings import Alerts, Settings
from indexer.store.store import Store
from indexer.sync.sync import Sync
from tests.devnet.node import CHAIN_ID, MULTICALL3
from tests.devnet.scenario import Devnet
from tests.devnet.worlds import together
from tests.truth import adapter_of, raw, rows_of


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[list[Devnet]]:
    with together(("aave-3.6", "maker"), seed=3, users=10) as found:
        yield found


class Asked:
    """An adapter that notes what it is asked while `inside()` holds."""

    def __init__(self, adapter: Adapter, inside: Callable[[], bool], calls: list[str]) -> None:
        for name in dir(adapter):
            method = getattr(adapter, name)
            if not name.startswith("_") and callable(method) and not isinstance(method, type):
                setattr(adapter, name, self._noting(name, method, inside, calls))

    @staticmethod
    def _noting(name: str, method: Any, inside: Callable[[], bool], calls: list[str]) -> Callable[..., Any]:
        def asked(*args: Any, **options: Any) -> Any:
            calls.append(f"{'inside: ' if inside() else ''}{name}")
            return method(*args, **options)

        return asked


@pytest.mark.parametrize("accounts", [Accounts.ALL, Accounts.WATCHED])
def test_no_adapter_is_asked_inside_the_transaction(markets: list[Devnet], tmp_path: Path, accounts: Accounts) -> None:
    path, calls = tmp_path / "asked.db", []
    adapters = [adapter_of(market) for market in markets]
    everyone = {user for market in markets for user in market.users}  # type: ignore[attr-defined]
    with Store(path) as store, closing(Chain("devnet", CHAIN_ID, [markets[0].node.url], MULTICALL3)) as chain:
        add(store, [Watch(wallet, None, None, (below(900),)) for wallet in sorted(everyone)])
        for adapter in adapters:
            Asked(adapter, lambda: store.conn.in_transaction, calls)
        sync = Sync(store, chain, adapters, accounts, Settings())
        watcher = Watcher(chain.name, Policy.of(Alerts()), [], None)
        sync.committer.planners.append(watcher.plan)
        sync.snapshot()
        markets[0].step(1)
        sync.snapshot()
    assert raw(path, "select count(*) from alerts") > [(0,)]
    assert {"evaluate", "balances", "read_positions", "exposure"} <= set(calls)
    assert [call for call in calls if call.startswith("inside")] == []


def test_a_watch_that_ends_between_judging_and_writing_is_judged_anew(markets: list[Devnet], tmp_path: Path) -> None:
    path, market = tmp_path / "meanwhile.db", markets[0]
    with Store(path) as store, closing(Chain("devnet", CHAIN_ID, [market.node.url], MULTICALL3)) as chain:
        sync = Sync(store, chain, [adapter_of(market)], Accounts.ALL, Settings())
        sync.snapshot()
        debtors = [row["account"] for row in rows_of(path, market.name).values() if row["health_factor_raw"]]
        leaves, stays = debtors[:2]
        add(store, [Watch(wallet, None, None, (below(900),)) for wallet in (leaves, stays)])
        watcher = Watcher(chain.name, Policy.of(Alerts()), [], None)
        plans = 0

        def plan(*given: Any) -> Any:
            nonlocal plans
            planned = watcher.plan(*given)
            plans += 1
            if plans == 1:
                with Store(path) as other:  # another command
                    remove(other, [leaves])
            return planned

        sync.committer.planners.append(plan)
        market.node.mine(1)
        outcome = sync.snapshot()
    assert plans == 2
    assert raw(path, "select distinct wallet from alerts") == [(stays,)]
    assert raw(path, "select distinct wallet from watch_states") == [(stays,)]
    assert raw(path, "select block_number from deployments") == [(outcome.block.number,)]


def test_a_store_belongs_to_the_thread_that_opened_it(tmp_path: Path) -> None:
    import sqlite3
    from concurrent.futures import ThreadPoolExecutor

    with Store(tmp_path / "one.db") as store, ThreadPoolExecutor(1) as other:
        with pytest.raises(sqlite3.ProgrammingError, match="thread"):
            other.submit(store.watched).result()
        assert store.watched() == []
