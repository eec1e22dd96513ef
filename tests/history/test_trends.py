"""Trends: points of markets and of the book say what the contracts and the rows of their block say, and thin with age."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.history.history import interval
from indexer.history.trends import Moment, thinned
from indexer.store.store import Store
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.scenario import Devnet
from tests.devnet.worlds import rewound, together
from tests.truth import raw, sync_once, wrong_trends

DAY = 86_400


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[list[Devnet]]:
    with together(("aave-3.6", "comet USDC"), seed=3, users=10) as markets:
        yield markets


@pytest.fixture
def free(markets: list[Devnet]) -> Iterator[list[Devnet]]:
    with rewound(markets):
        yield markets


def test_each_snapshot_adds_a_point_with_the_contracts_price(free: list[Devnet], tmp_path: Path) -> None:
    path, market = tmp_path / "trends.db", free[0]
    assert isinstance(market, AaveV3)
    prices = {}
    for share in (10, 9, 6):
        market.set_price("WETH", market.price("WETH") * share // 10)
        market.step(share)
        block = sync_once(path, market.node.url, free).block
        prices[block.number] = str(market.price("WETH"))
        assert wrong_trends(path) == []
    points = raw(
        path,
        f"select block_number, price_raw from market_history where deployment = '{market.name}' and symbol = 'WETH' order by 1",
    )
    assert dict(points) == prices
    assert len(points) == 3
    assert raw(path, "select count(*) from book_history where status = 'liquidatable' and debt_usd > 0") > [(0,)]


def test_points_of_orphaned_blocks_move_aside_and_the_new_ones_are_right(free: list[Devnet], tmp_path: Path) -> None:
    path, market = tmp_path / "reorg.db", free[0]
    assert isinstance(market, AaveV3)
    node = market.node
    first = sync_once(path, node.url, free).block
    state = node.snapshot()
    node.mine(2)
    market.set_price("WETH", market.price("WETH") * 9 // 10)
    market.step(7)
    orphaned = sync_once(path, node.url, free).block
    tables = ("market_history", "book_history")
    before = {
        table: raw(path, f"select * from {table} where block_number = {orphaned.number} order by 1, 2, 3, 4, 5")
        for table in tables
    }
    node.revert(state)
    node.mine(1, interval=77)
    market.set_price("WETH", market.price("WETH") * 8 // 10)
    last = sync_once(path, node.url, free).block
    assert wrong_trends(path) == []
    for table in tables:
        assert [n for (n,) in raw(path, f"select distinct block_number from {table} order by 1")] == [
            first.number,
            last.number,
        ]
        kept = raw(path, f"select * from orphaned_{table} order by 1, 2, 3, 4, 5")
        assert before[table]
        assert [(*row[:-3], row[-1]) for row in kept] == before[table]  # all but when and from which chain
        assert {row[-2] for row in kept} == {orphaned.hash}
        with Store(path) as store, store.transaction() as conn:
            conn.execute(f"update orphaned_{table} set orphaned_at = ?", (last.timestamp - 31 * DAY,))
    sync_once(path, node.url, free)
    assert [raw(path, f"select count(*) from orphaned_{table}") for table in tables] == [[(0,)], [(0,)]]


@given(st.lists(st.integers(0, 60 * DAY), max_size=60, unique=True))
def test_thinning_keeps_the_last_point_of_each_interval_and_every_recent_one(times: list[int]) -> None:
    now = 60 * DAY
    moments = [Moment(number, time) for number, time in enumerate(sorted(times))]
    kept = thinned(moments, now)
    assert [one for one in moments if now - one.timestamp <= 7_200] == [
        one for one in kept if now - one.timestamp <= 7_200
    ]
    for one in moments:
        size = interval(now - one.timestamp)
        same = [other for other in moments if size and other.timestamp // size == one.timestamp // size]
        same = [other for other in same if interval(now - other.timestamp) == size]
        assert not same or same[-1] in kept
    assert len(kept) <= len(moments)
    assert thinned(kept, now) == kept


def test_an_old_file_is_thinned_by_the_next_snapshot(free: list[Devnet], tmp_path: Path) -> None:
    """Ten points of the same old hour: of both tables one stays beside the new one."""
    path, market = tmp_path / "old.db", free[0]
    first = sync_once(path, market.node.url, [market]).block
    hour = (first.timestamp - 3 * DAY) // 3600 * 3600
    with Store(path) as store, store.transaction() as conn:
        for table in ("market_history", "book_history"):
            columns = [row[1] for row in conn.execute(f"pragma table_info({table})")]
            names = ", ".join(columns)
            moved = names.replace("block_number", "?2").replace("block_timestamp", "?3")
            for n in range(10):
                conn.execute(
                    f"insert into {table} ({names}) select {moved} from {table} where block_number = ?1",
                    (first.number, n + 1, hour + n),
                )
    market.node.mine(1)
    last = sync_once(path, market.node.url, [market]).block
    for table in ("market_history", "book_history"):
        kept = [n for (n,) in raw(path, f"select distinct block_number from {table} order by 1")]
        assert kept == [10, first.number, last.number], table
