"""Health first: supplies that back nothing follow later, and until then nobody takes what was read for everything."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexer.adapter import HealthFirst
from indexer.alert import watches
from indexer.chain.client import Chain
from indexer.logs.ranges import fetch
from indexer.model import Accounts, Block, Position, PositionKey, Read
from indexer.reads.multicall import PinnedReader
from indexer.settings import Settings
from indexer.snapshot.tracked import TrackedDeployment, pairs_of
from indexer.store.store import Store
from indexer.sync.sync import Outcome, Sync
from protocols.aave.adapter import AaveAdapter
from tests.compound import keys
from tests.devnet import aave_v2, aave_v3, compound_v2
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet
from tests.truth import adapter_of, raw, sync_once, wrong_rows

USERS = 40
MARKETS = {
    "aave-v3.0": lambda node: aave_v3.deploy(node, "3.0.2"),
    "aave-v3.6": lambda node: aave_v3.deploy(node, "3.6"),
    "aave-v2": aave_v2.deploy,
    "compound-v2": compound_v2.deploy,
}


@pytest.fixture(scope="module", params=list(MARKETS))
def market(request: pytest.FixtureRequest, needs_node: None) -> Iterator[Devnet]:
    with Anvil() as node:
        node.place_multicall3()
        market: Devnet = MARKETS[request.param](node)
        market.populate(1, USERS)
        yield market


def read_supplies(
    path: Path, market: Devnet, most: int | None, accounts: str = "borrowers", **settings: int
) -> Outcome:
    """One sync, in a process of its own as far as it knows, that reads the supplies of at most so many positions."""
    with Chain("devnet", CHAIN_ID, [market.node.url], MULTICALL3) as chain, Store(path) as store, store.lock():
        sync = Sync(store, chain, [adapter_of(market)], Accounts(accounts), Settings(**settings))
        sync.supplies = most
        return sync.snapshot()


def incomplete(path: Path) -> set[str]:
    return {account for (account,) in raw(path, "select account from positions where supplies_complete = 0")}


def wrong(path: Path, market: Devnet) -> list[str]:
    checked, found = wrong_rows(path, market.node, [market])
    assert checked == raw(path, "select count(*) from positions")[0][0] > USERS // 4
    return found


def test_health_equals_that_of_a_full_read_and_takes_fewer_calls(market: Devnet) -> None:
    adapter = adapter_of(market)
    assert isinstance(adapter, HealthFirst)
    with Chain("devnet", CHAIN_ID, [market.node.url], MULTICALL3) as chain:
        read = PinnedReader(chain, chain.block("latest"))
        counted: list[int] = []

        class Counting(PinnedReader):
            def __call__(self, reads, prelude=()):  # type: ignore[no-untyped-def]
                counted.append(len(reads))
                return super().__call__(reads, prelude)

            def by_flags(self, *_):  # type: ignore[no-untyped-def]
                return None

        asks = Counting(chain, read.block)
        state = adapter.read_market(read, None)
        whole = adapter.read_positions(asks, state, keys(market.users))
        calls = sum(counted)
        counted.clear()
        quick = adapter.read_health(asks, state, keys(market.users))
        state = adapter.fit(read, state, whole)
        assert [adapter.evaluate(state, p) for p in quick] == [adapter.evaluate(state, p) for p in whole]
        assert [p.supplies_complete for p in quick] == [False] * len(quick)
        assert sum(counted) < calls
        supplies = {c.name for c in adapter.checks(state, whole, Accounts.ALL)} - {
            c.name for c in adapter.checks(state, quick, Accounts.ALL)
        }
        assert supplies
        assert all("supply" in name or "cTokens" in name for name in supplies)


def test_a_sync_ends_when_health_is_right_and_the_rest_follows_across_runs(market: Devnet, tmp_path: Path) -> None:
    path = tmp_path / "borrowers.db"
    outcome = sync_once(path, market.node.url, [market], "borrowers")
    everyone = incomplete(path)
    assert outcome.waiting == len(everyone) == outcome.positions
    assert wrong(path, market) == []
    assert raw(path, "select count(*) from wallets where collateral_usd is not null or net_usd is not null") == [(0,)]
    assert raw(path, "select distinct state from deployments") == [("ok",)]

    market.node.mine(1)
    assert read_supplies(path, market, 3).waiting == len(everyone) - 3
    assert wrong(path, market) == []
    market.node.mine(1)
    assert read_supplies(path, market, None, read_chunk=4).waiting == 0
    assert incomplete(path) == set()
    assert wrong(path, market) == []
    assert raw(path, "select count(*) from wallets where collateral_usd is null and debt_usd > 0") == [(0,)]
    moved = "select count(*) from health_history where supply_change_usd <> 0 or debt_change_usd <> 0"
    assert raw(path, moved) == [(0,)], "what is only read late was not moved"
    whole = tmp_path / "all.db"
    sync_once(whole, market.node.url, [market], "all")
    assert incomplete(whole) == set()
    balances = "select account, market, side, scaled_raw from balances where account in (select account from positions) order by 1, 2, 3"
    names = {account for (account,) in raw(path, "select account from positions")}
    assert raw(path, balances) == [row for row in raw(whole, balances) if row[0] in names]


def test_activity_makes_no_incomplete_position_complete_and_no_complete_one_incomplete(
    market: Devnet, tmp_path: Path
) -> None:
    path = tmp_path / "active.db"
    sync_once(path, market.node.url, [market], "borrowers")
    read_supplies(path, market, 5)
    before = incomplete(path)
    for seed in range(3):
        market.step(seed)
        assert sync_once(path, market.node.url, [market], "borrowers").read > 0
        known = {account for (account,) in raw(path, "select account from positions where supplies_complete = 1")}
        assert len(known) == 5
        assert before <= incomplete(path)
        assert wrong(path, market) == []
    sync_once(path, market.node.url, [market], "all")
    assert incomplete(path) == set()
    assert wrong(path, market) == []


def test_a_read_that_is_cut_off_goes_on_from_what_was_saved(
    market: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cut.db"
    sync_once(path, market.node.url, [market], "borrowers")
    count, take, taken = len(incomplete(path)), TrackedDeployment.take, []

    def cut(tracked: TrackedDeployment, keys: Sequence[PositionKey], positions: Iterable[Position], block: int) -> None:
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(keys)
        take(tracked, keys, positions, block)

    with monkeypatch.context() as patch:
        patch.setattr(TrackedDeployment, "take", cut)
        with pytest.raises(KeyboardInterrupt):
            read_supplies(path, market, None, read_chunk=4)
    assert len(incomplete(path)) == count, "rows change with the snapshot alone"
    assert wrong(path, market) == []
    outcome = read_supplies(path, market, None, read_chunk=4)
    assert outcome.read == count - 8
    assert incomplete(path) == set()
    assert wrong(path, market) == []


def test_a_watched_wallet_is_read_at_once(market: Devnet, tmp_path: Path) -> None:
    path = tmp_path / "watched.db"
    sync_once(path, market.node.url, [market], "borrowers")
    first, second = sorted(incomplete(path))[:2]
    with Store(path) as store:
        watches.add(store, [watches.Watch(wallet) for wallet in (first, second)])
    sync_once(path, market.node.url, [market], "borrowers")
    assert {first, second}.isdisjoint(incomplete(path))
    assert wrong(path, market) == []


def test_positions_that_logs_named_are_read_anew_in_full(market: Devnet) -> None:
    """By what they held, what the logs' contracts say and what their flags name, which is all that can have changed."""
    adapter = adapter_of(market)
    with Chain("devnet", CHAIN_ID, [market.node.url], MULTICALL3) as chain:
        before = PinnedReader(chain, chain.block("latest"))
        state = adapter.read_market(before, None)
        known = {one.key: one for one in adapter.read_positions(before, state, keys(market.users))}
        for seed in range(6):
            market.step(seed)
        after = Remembering(chain, chain.block("latest"))
        state = adapter.read_market(after, None)
        pairs = pairs_of(adapter.logs(state, Accounts.ALL).activity)
        addresses, topics = zip(*pairs, strict=True)
        named: dict[PositionKey, set[str]] = {}
        for chunk in fetch(chain, before.block.number + 1, after.block.number, set(addresses), set(topics)):
            for event in chunk.events:
                for key in adapter.touched(state, event):
                    named.setdefault(key, set()).add(event.address)
        changed = [(known[key], contracts) for key, contracts in named.items() if key in known]
        assert len(changed) > 3
        after.asked.clear()
        found = adapter.read_changed(after, state, changed)
        calls = len(after.asked)
        after.asked.clear()
        whole = adapter.read_positions(after, state, [one.key for one, _ in changed])
        assert found == whole
        assert [
            one
            for one, (old, _) in zip(whole, changed, strict=True)
            if replace(one, block_number=0) != replace(old, block_number=0)
        ]
        assert calls < len(after.asked) or not isinstance(adapter, AaveAdapter)


class Remembering(PinnedReader):
    """Counts what is asked, each question once, as a sync asks it."""

    def __init__(self, chain: Chain, block: Block) -> None:
        super().__init__(chain, block)
        self.asked: set[Read] = set()

    def __call__(self, reads: Sequence[Read], prelude: Sequence[Read] = ()) -> list[Any]:
        self.asked |= set(reads)
        return super().__call__(reads, prelude)

    def by_flags(self, *_: object) -> None:
        """Never: each question is counted."""
