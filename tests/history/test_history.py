"""Health history: the contract's own health factor at every kept point, nothing that alerts hang on thinned away."""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from indexer.cli.main import main
from indexer.history.flows import Held, Moved, change_of
from indexer.history.history import (
    Point,
    interval,
    movements,
    thin,
    thinned,
    unknown_movements,
    worth_keeping,
)
from indexer.model import WAD
from indexer.store.database import open_readonly
from indexer.store.store import Store
from indexer.text.values import iso
from tests.devnet.aave_v2 import AaveV2
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.compound_v3 import CompoundV3
from tests.devnet.maker import Maker
from tests.devnet.node import CHAIN_ID
from tests.devnet.scenario import Devnet
from tests.devnet.worlds import rewound, together
from tests.truth import raw, sync_once

NO_DEBT = 2**256 - 1
DAY = 86_400


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[list[Devnet]]:
    with together(("aave-3.6", "aave-v2", "comet USDC", "maker"), seed=5, users=12) as markets:
        yield markets


@pytest.fixture
def free(markets: list[Devnet]) -> Iterator[list[Devnet]]:
    """The markets, in which what a test does is undone."""
    with rewound(markets):
        yield markets


def points_of(path: Path, deployment: str | None = None) -> list[sqlite3.Row]:
    with closing(open_readonly(path)) as conn:
        return conn.execute(
            "select * from health_history where ?1 is null or deployment = ?1 order by block_number", (deployment,)
        ).fetchall()


def contract_health(market: Devnet, row: sqlite3.Row) -> int | None:
    """The contract's health factor of a point at its own block, and the ratio that stands for one in Maker."""
    block = row["block_number"]
    match market:
        case AaveV3() | AaveV2():
            health = int(market.answer(row["account"], block)[5])
            return None if health == NO_DEBT else health
        case Maker():
            urn = market.answers([(row["position_group"], row["account"])], block)[0]
            return urn.ink * urn.spot * WAD // (urn.art * urn.rate) if urn.art and urn.spot else None
    raise NotImplementedError(market)


def wrong_points(path: Path, markets: Sequence[Devnet]) -> tuple[int, list[str]]:
    checked, wrong = 0, []
    for market in markets:
        for row in points_of(path, market.name):
            checked += 1
            ours = None if row["health_factor_raw"] is None else int(row["health_factor_raw"])
            if isinstance(market, CompoundV3):
                liquidatable = market.answer(row["account"], row["block_number"]).liquidatable
                # With a dead feed behind enough collateral the contract still says no, but no ratio can be told.
                possible = {"liquidatable": (True,), "unpriceable": (None, False)}.get(row["status"], (False,))
                if liquidatable not in possible:
                    wrong.append(f"{market.name} {row['account']} at {row['block_number']}: {row['status']}")
            elif ours != (theirs := contract_health(market, row)):
                wrong.append(f"{market.name} {row['account']} at {row['block_number']}: {ours}, contract {theirs}")
    return checked, wrong


def test_a_scripted_path_has_the_contracts_health_factor_at_every_point(free: list[Devnet], tmp_path: Path) -> None:
    path, node = tmp_path / "path.db", free[0].node
    with closing(Store(path)) as store:  # everyone who exists now is known, so somebody safe can be watched
        watched = next(iter(sorted(free[0].borrowers)))
        store.conn.execute("insert into watches (wallet, added_at) values (?, 0)", (watched,))
    snapshots = []
    for seed in range(4):
        outcome = sync_once(path, node.url, free)
        snapshots.append(outcome.block.number)
        with closing(open_readonly(path)) as conn:
            check_snapshot(conn, outcome.block.number, watched)
        for market in free:
            market.step(100 + seed)
        node.mine(1, interval=(60, 4_000, DAY, 40 * DAY)[seed])
    checked, wrong = wrong_points(path, free)
    assert wrong == []
    assert checked > 200
    assert {row["block_number"] for row in points_of(path)} <= set(snapshots)


def check_snapshot(conn: sqlite3.Connection, block: int, watched: str) -> None:
    """Behind each snapshot every position's row is a point, or is like its last point."""
    for row in conn.execute("select * from positions"):
        key = [row[name] for name in ("chain_id", "deployment", "account", "position_group")]
        last = conn.execute(
            "select * from health_history where (chain_id, deployment, account, position_group) = (?, ?, ?, ?) "
            "order by block_number desc limit 1",
            key,
        ).fetchone()
        if last["block_number"] == block:
            for name in ("health_factor_raw", "collateral_usd", "debt_usd", "status"):
                assert last[name] == row[name]
            continue
        assert row["status"] == last["status"]
        assert row["status"] not in ("at-risk", "liquidatable")
        assert row["wallet"] != watched
        if row["health_factor_raw"] is None or last["health_factor_raw"] is None:
            assert row["health_factor_raw"] == last["health_factor_raw"]
        else:
            ours, before = int(row["health_factor_raw"]), int(last["health_factor_raw"])
            assert abs(ours - before) * 100 < before


def test_points_of_orphaned_blocks_vanish_and_the_new_ones_are_right(free: list[Devnet], tmp_path: Path) -> None:
    path, market = tmp_path / "reorg.db", free[0]
    assert isinstance(market, AaveV3)
    node = market.node
    sync_once(path, node.url, [market])
    state = node.snapshot()
    node.mine(2)
    market.set_price("WETH", market.price("WETH") * 9 // 10)
    market.step(7)
    orphaned = sync_once(path, node.url, [market]).block
    assert any(row["block_number"] == orphaned.number for row in points_of(path))
    node.revert(state)
    node.mine(1, interval=77)
    market.set_price("WETH", market.price("WETH") * 8 // 10)
    sync_once(path, node.url, [market])
    checked, wrong = wrong_points(path, [market])
    assert (checked > 0, wrong) == (True, [])
    assert all(row["block_number"] != orphaned.number for row in points_of(path))
    with closing(open_readonly(path)) as conn:
        assert unknown_movements(conn) > 0
        assert movements(conn, since=0) == []


# movements ------------------------------------------------------------------------------------------------------------


def test_movements_are_what_was_added_and_removed_whatever_prices_did(free: list[Devnet], tmp_path: Path) -> None:
    path, market = tmp_path / "moves.db", free[1]
    assert isinstance(market, AaveV2)
    node = market.node
    saver, borrower, newcomer = (f"0x{n:040x}" for n in (0xAA01, 0xAA02, 0xAA03))
    for user, symbol in ((saver, "DAI"), (borrower, "WETH"), (newcomer, "WETH"), (borrower, "DAI")):
        market.give(user, symbol)
    market.supply(saver, "DAI", 50_000 * WAD)
    market.supply(borrower, "WETH", 100 * WAD)
    first = sync_once(path, node.url, [market]).block
    with closing(open_readonly(path)) as conn:
        assert movements(conn, since=0) == []  # what was there before the first snapshot has not moved
    market.withdraw(saver, "DAI", 20_000 * WAD)
    market.borrow(borrower, "DAI", 30_000 * WAD)
    market.supply(newcomer, "WETH", 10 * WAD)
    sync_once(path, node.url, [market])
    market.set_price("DAI", market.price("DAI") * 11 // 10)
    market.set_price("USDC", market.price("USDC") * 3 // 2)
    node.mine(1, interval=DAY)
    second = sync_once(path, node.url, [market]).block
    market.repay(borrower, "DAI", 5_000 * WAD)
    last = sync_once(path, node.url, [market]).block
    dai, usdc, weth = (market.price(symbol) for symbol in ("DAI", "USDC", "WETH"))
    before = dai * 10 / 11 / (usdc * 2 / 3), weth / (usdc * 2 / 3)
    with closing(open_readonly(path)) as conn:
        found = {str(row["wallet"]): row for row in movements(conn, since_block=first.number)}
        late = {str(row["wallet"]): row for row in movements(conn, since_block=second.number)}
        large = [row["wallet"] for row in movements(conn, since_block=first.number, min_usd=25_000)]
    # whatever is done mints the treasury its share of the interest
    assert set(found) - {market.treasury} == {saver, borrower, newcomer}
    assert found[saver]["supply_change_usd"] == pytest.approx(-20_000 * before[0], rel=1e-6)
    assert found[saver]["debt_change_usd"] == 0
    assert found[newcomer]["supply_change_usd"] == pytest.approx(10 * before[1], rel=1e-6)
    repaid = -5_000 * dai / usdc
    assert found[borrower]["debt_change_usd"] == pytest.approx(30_000 * before[0] + repaid, rel=1e-4)
    assert found[borrower]["supply_change_usd"] == 0
    assert set(late) - {market.treasury} == {borrower}
    assert late[borrower]["debt_change_usd"] == pytest.approx(repaid, rel=1e-4)
    assert late[borrower]["last_block_number"] == last.number
    assert large == [borrower]


def test_the_verb_movements(free: list[Devnet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["movements", *arguments])

    assert run().exit_code == 1
    Store("indexer.db").close()
    empty = run()
    assert (empty.exit_code, empty.stdout) == (0, "[]\n")
    assert "indexer sync" in empty.stderr
    market = free[0]
    before = sync_once(Path("indexer.db"), market.node.url, [market]).block
    market.step(1)
    after = sync_once(Path("indexer.db"), market.node.url, [market]).block
    found = json.loads(run("--since", str(before.number), "--min", "0.01").stdout)
    assert found
    sizes = [max(abs(row["supply_change_usd"]), abs(row["debt_change_usd"])) for row in found]
    assert sizes == sorted(sizes, reverse=True)
    assert found == json.loads(run("--since", "2023-01-01", "--min", "0.01").stdout)
    assert json.loads(run("--since", str(after.number), "--min", "0").stdout) == []
    assert found == json.loads(run("--since", "9000d", "--min", "0.01").stdout)
    assert json.loads(run("--since", "9" * 30, "--min", "0").stdout) == []
    assert found == json.loads(run("--since", "2h", "--min", "0.01").stdout), "an age counts from the data's own time"
    beyond = run("--since", iso(after.timestamp + 1))
    assert (beyond.exit_code, beyond.stdout) == (2, "")
    assert f"the data ends at {iso(after.timestamp)}, so it holds nothing since" in beyond.stderr
    assert run("--since", "yesterday").exit_code == 2
    assert run("--since", "0001-01-01T00:00+14:00").exit_code == 2
    assert run("--min", "-1").exit_code == 2
    assert "wallet" in run("--since", str(before.number), "--table").stdout


def test_interest_and_prices_are_no_movement() -> None:
    before = {("m", "a", "supply"): Held("100", 1_000, 50.0)}
    after = {("m", "a", "supply"): Held("100", 1_010, 99.0)}
    assert change_of(before, after) is None


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        (None, Held("10", 10, 5.0), Moved(5.0, 0.0)),
        (Held("10", 10, 5.0), None, Moved(-5.0, 0.0)),
        (Held("10", 10, 5.0), Held("30", 30, 30.0), Moved(20.0, 0.0)),
        (Held("10", 10, None), Held("30", 30, None), Moved(None, 0.0)),
        (Held("10", 10, 5.0), Held("0", 0, 0.0), Moved(-5.0, 0.0)),
    ],
)
def test_a_changed_balance_is_valued_at_the_later_price(before: Held | None, after: Held | None, moved: Moved) -> None:
    place = ("market", "asset", "supply")
    assert change_of({place: before} if before else {}, {place: after} if after else {}) == moved


# what is kept ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "status", "health", "kept"),
    [
        (None, "no-debt", None, True),
        (("no-debt", None), "no-debt", None, False),
        (("healthy", "2000"), "healthy", "2019", False),
        (("healthy", "2000"), "healthy", "2020", True),
        (("healthy", "2000"), "healthy", "1980", True),
        (("at-risk", "2000"), "at-risk", "2000", True),
        (("at-risk", "2000"), "healthy", "2001", True),
        (("healthy", "2000"), "unpriceable", None, True),
        (("unverified", "2000"), "unverified", None, True),
    ],
)
def test_what_is_worth_a_point(
    last: tuple[str, str | None] | None, status: str, health: str | None, kept: bool
) -> None:
    assert worth_keeping(last, status, health) is kept


def test_a_block_from_the_future_makes_no_point_old(free: list[Devnet], tmp_path: Path) -> None:
    """A stale or lying node's clock: what is thinned does not come back."""
    market, path, points = free[0], tmp_path / "indexer.db", 60
    sync_once(path, market.node.url, [market])
    with Store(path) as store, store.transaction() as conn:
        (row,) = conn.execute(
            "select chain_id, deployment, account, position_group from health_history order by account desc limit 1"
        )
        conn.execute("delete from health_history")
        conn.executemany(
            "insert into health_history values (?, ?, ?, ?, ?, ?, '1', 1.0, 1.0, 'healthy', 0.0, 0.0)",
            [(*row, n + 1, int(time.time()) - 30 * (points - n)) for n in range(points)],
        )
    market.node.mine(1, interval=int(time.time()) + 3_000 * DAY - market.node.timestamp())
    for _ in range(8):  # it begins anywhere
        market.node.mine(1)
        sync_once(path, market.node.url, [market])
    ((kept,),) = raw(
        path, f"select count(*) from health_history where account = '{row[2]}' and block_number <= {points}"
    )
    assert kept == points


NOW = 1_700_000_000
ages = st.one_of(st.integers(0, 3 * DAY), st.integers(0, 60 * DAY))
lives = st.lists(
    st.tuples(ages, st.one_of(st.none(), st.integers(0, 3)), st.sampled_from(["healthy", "at-risk"]),
              st.one_of(st.none(), st.integers(-5, 5))),
    max_size=60, unique_by=lambda one: one[0],
).map(lambda rows: [
    Point(NOW - age, NOW - age, health, status, None if change is None else float(change), 1.0)
    for age, health, status, change in sorted(rows, reverse=True)
])  # fmt: skip


def minima(points: Sequence[Point], size: int) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for point in points:
        if point.health_factor is not None:
            place = (point.timestamp // size, point.status)
            found[place] = min(found.get(place, point.health_factor), point.health_factor)
    return found


@given(lives, st.lists(st.integers(0, 90 * DAY), max_size=4))
def test_thinning_loses_no_minimum_of_any_day_and_no_movement(points: list[Point], waits: list[int]) -> None:
    now, kept = NOW, thinned(points, NOW)
    for wait in waits:  # however often and whenever it is thinned
        now += wait
        kept = thinned(kept, now)
    assert {p.block_number for p in kept} <= {p.block_number for p in points}
    assert minima(kept, DAY) == minima(points, DAY)
    assert {p.status for p in kept} == {p.status for p in points}
    assert sum(p.supply_change or 0 for p in kept) == sum(p.supply_change or 0 for p in points)
    assert sum(p.debt_change or 0 for p in kept) == sum(p.debt_change or 0 for p in points)
    assert thinned(kept, now) == kept


@given(lives)
def test_thinning_keeps_the_minimum_of_each_interval_and_every_recent_point(points: list[Point]) -> None:
    """And the last point, whatever its age, beside which the others are thinned: the next row is compared with it."""
    kept = thinned(points, NOW)
    assert kept[-1:] == points[-1:]
    for size in (600, 3_600, DAY):
        of_that_age = [p for p in points[:-1] if interval(NOW - p.timestamp) == size]
        left = [p for p in kept[:-1] if interval(NOW - p.timestamp) == size]
        assert minima(left, size) == minima(of_that_age, size)
        assert len(left) == len({(p.timestamp // size, p.status) for p in of_that_age})
    assert [p for p in kept if NOW - p.timestamp <= 7_200] == [p for p in points if NOW - p.timestamp <= 7_200]


def test_a_table_is_thinned_piece_by_piece_and_each_piece_is_bounded(tmp_path: Path) -> None:
    where, points = (CHAIN_ID, "market"), 400
    with closing(Store(tmp_path / "thin.db")) as store:
        conn = store.conn
        rows = [
            (*where, f"0x{user:040x}", "", n, NOW - 7_300 - n * 60, str(10**18 + (n * 7919 + user) % 1000), 1.0, 1.0,
             "at-risk", 0.5, 0.0)
            for user in range(20) for n in range(points)
        ]  # fmt: skip
        conn.executemany(f"insert into health_history values ({', '.join('?' * 12)})", rows)
        lowest = "select account, min(health_factor_raw) from health_history group by account"
        before = conn.execute(lowest).fetchall()
        start, steps = ("", ""), 0
        while (start := thin(conn, where, NOW, start, 500)) != ("", ""):
            steps += 1
        assert steps >= 20 * points // (500 + points) - 1
        assert conn.execute(lowest).fetchall() == before
        counts = conn.execute("select count(*), sum(supply_change_usd) from health_history group by account").fetchall()
        assert all(count <= points * 60 // 600 + 20 and moved == points * 0.5 for count, moved in counts)
