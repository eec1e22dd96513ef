"""Following the chain with bounds gives what evaluating everyone at every block gives.

Two syncs follow the same node side by side: one writes every row at every block, the other only whom the bounds leave open.
Statuses, rows at risk, history, measured interest and alerts are then the same to the last digit.
"""

import random
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.alert.watcher import Watcher
from indexer.alert.watches import Policy, Watch, add
from indexer.chain.client import Chain
from indexer.model import Accounts
from indexer.progress import NoProgress
from indexer.queries.freshness import older_rows
from indexer.risk import bounds
from indexer.risk.exact import lay_exact_rows
from indexer.settings import Alerts, Settings
from indexer.snapshot import spool
from indexer.store.database import open_readonly
from indexer.store.store import Store
from indexer.sync.sync import Sync
from tests.alert.test_watch import Nowhere
from tests.devnet.node import CHAIN_ID, MULTICALL3
from tests.devnet.scenario import Devnet
from tests.devnet.worlds import every_protocol
from tests.disturbed import Forks
from tests.truth import adapter_of, deployment_of, raw, sync_once, wrong_rows, wrong_trends

REFRESH = 120.0  # seconds: ten of the devnet's blocks
SAME = {
    "statuses": "select deployment, account, position_group, status, owner, wallet, mode from positions order by 1, 2, 3",
    "rows at risk": "select * from at_risk order by deployment, account, position_group",
    "their balances": "select b.* from balances b join at_risk using (chain_id, deployment, account, position_group) "
    "order by b.deployment, b.account, b.position_group, b.market, b.side",
    "rows of watched wallets": "select p.* from positions p where exists (select 1 from watches w where w.wallet in "
    "(p.wallet, p.owner, p.account)) order by p.deployment, p.account, p.position_group",
    "history": "select * from health_history order by deployment, account, position_group, block_number",
    "interest": "select * from accruals order by deployment, account, position_group, market, asset, side",
    "markets": "select * from markets order by deployment, market, asset",
    "alerts": "select id, wallet, rule, crossing, event, block_number, health_factor_raw from alerts order by id",
    "deployments": "select deployment, block_number, block_hash, state, note from deployments order by 1",
}


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[list[Devnet]]:
    with every_protocol(11, 16) as found:
        yield found


@contextmanager
def following(path: Path, markets: list[Devnet], **settings: Any) -> Iterator[Sync]:
    """A sync that follows, one snapshot at a time, judging the watched wallets."""
    chain = Chain("devnet", CHAIN_ID, [markets[0].node.url], MULTICALL3)
    with closing(chain), Store(path) as store, store.lock():
        adapters = [adapter_of(market) for market in markets]
        sync = Sync(store, chain, adapters, Accounts.ALL, Settings(behind_seconds=0.2, **settings))
        sync.following = True
        watcher = Watcher(chain.name, Policy.of(Alerts(below=(1.05, 1.3), drop_percent=1.0)), [Nowhere()], None)
        sync.committer.planners.append(watcher.plan)
        yield sync


def watched(path: Path) -> list[Watch]:
    """A third of all wallets."""
    wallets = [wallet for (wallet,) in raw(path, "select distinct wallet from positions order by wallet")]
    return [Watch(wallet) for wallet in wallets[::3]]


def blocks(markets: list[Devnet], tmp_path: Path, seed: int, count: int, *, falls: bool = False) -> int:
    """Follows `count` steps of a random history both ways and compares; how many rows the bounds kept.

    With `falls` nothing happens but that ether loses 3 % at each step on the first of the markets.
    """
    rng, node, kept = random.Random(seed), markets[0].node, 0
    everyone, bounded = tmp_path / f"everyone{seed}.db", tmp_path / f"bounded{seed}.db"
    with ExitStack() as stack:
        for market in markets:
            stack.enter_context(market.rewound())
        forks = Forks(markets, rng)
        stack.callback(forks.close)
        tails = [
            stack.enter_context(following(everyone, markets, refresh_seconds=0.0)),
            stack.enter_context(following(bounded, markets, refresh_seconds=REFRESH)),
        ]
        for tail in tails:
            tail.snapshot()
            add(tail.store, watched(tail.store.path))
        for step in range(count):
            forks.mark()
            if falls:
                markets[0].move_price("WETH", 0.97)
                node.mine(1, interval=12)
            else:
                happen(markets, rng, forks)
            for tail in tails:
                tail.snapshot()
            assert [wrong for path in (everyone, bounded) for wrong in wrong_trends(path)] == []
            for name, sql in SAME.items():
                assert raw(bounded, sql) == raw(everyone, sql), f"seed {seed}, step {step}: other {name}"
            ((oldest, rows),) = raw(
                bounded,
                "select max(d.block_timestamp - p.block_timestamp), sum(p.block_number < d.block_number) "
                "from positions p join deployments d using (chain_id, deployment)",
            )
            assert oldest < REFRESH
            kept += rows
        checked, wrong = wrong_rows(bounded, node, markets)
        assert checked > 50
        assert wrong == []
    return kept


def happen(markets: list[Devnet], rng: random.Random, forks: Forks) -> None:
    """Somebody acts on some markets, time passes, and now and then blocks are taken back."""
    node = markets[0].node
    for market in rng.sample(markets, rng.choice((0, 1, 1, 2))):
        market.step(rng.randrange(10**6))
    node.mine(1, interval=rng.choice((1, 12, 12, 12, 600)))
    if rng.random() < 0.1 and forks.points:
        forks.take_back()
        node.mine(1)


def test_bounds_give_the_same_as_evaluating_everyone(markets: list[Devnet], tmp_path: Path) -> None:
    assert blocks(markets, tmp_path, seed=1, count=16) > 150, "too few rows were kept for the bounds to be tested"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 22))
def test_bounds_give_the_same_in_long_histories(markets: list[Devnet], tmp_path: Path, seed: int) -> None:
    assert blocks(markets, tmp_path, seed, count=100) > 300


def test_bounds_that_are_too_tight_are_noticed(
    markets: list[Devnet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health factors that are taken for three times what they are keep rows that are at risk."""
    honest = bounds.Bounds.health_low.fget
    assert honest is not None
    monkeypatch.setattr(bounds.Bounds, "health_low", property(lambda self: honest(self) * 3))
    with pytest.raises(AssertionError, match="other"):
        blocks(markets, tmp_path, seed=1, count=6, falls=True)


def test_exact_rows_are_those_of_everyone_at_every_block(markets: list[Devnet], tmp_path: Path) -> None:
    """With --exact the file of a sync that follows with bounds says what one that writes every row says."""
    everyone, bounded = tmp_path / "everyone.db", tmp_path / "bounded.db"
    with ExitStack() as stack:
        for market in markets:
            stack.enter_context(market.rewound())
        tails = [
            stack.enter_context(following(path, markets, refresh_seconds=seconds))
            for path, seconds in ((everyone, 0.0), (bounded, REFRESH))
        ]
        for _ in range(3):
            markets[0].node.mine(1, interval=12)
            for tail in tails:
                tail.snapshot()
        assert raw(bounded, "select 1 from positions p join deployments d using (chain_id, deployment) where p.block_number < d.block_number limit 1")  # fmt: skip
        known = {market.name: deployment_of(market) for market in markets}
        with closing(open_readonly(bounded)) as ours, closing(open_readonly(everyone)) as theirs:
            assert older_rows(ours)
            assert older_rows(ours, below=1.3)
            assert not older_rows(ours, below=1.2)
            lay_exact_rows(ours, known, NoProgress())
            for table in ("positions", "balances", "wallets", "at_risk"):
                sql = f"select * from {table}"
                assert sorted(map(str, map(tuple, ours.execute(sql)))) == sorted(
                    map(str, map(tuple, theirs.execute(sql)))
                )
        assert raw(bounded, "select count(*) from positions where block_timestamp is null") == [(0,)]


def test_rows_that_waited_in_a_file_are_those_that_waited_in_memory(
    markets: list[Devnet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, written = markets[0].node, {}
    for name, kept in (("file", 0), ("memory", 10_000)):
        monkeypatch.setattr(spool, "KEPT", kept)
        sync_once(tmp_path / name, node.url, markets, "all")
        tables = ("positions", "balances", "book_history", "health_history")
        written[name] = {table: raw(tmp_path / name, f"select * from {table}") for table in tables}
    assert wrong_rows(tmp_path / "file", node, markets)[1] == []
    assert written["file"] == written["memory"]
    assert all(written["file"].values())
