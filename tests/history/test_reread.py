"""Positions that were read again are compared with their old rows part by part: there may be a million of them."""

import sqlite3
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from indexer.history import accrual
from indexer.history.accrual import accrue
from indexer.history.flows import remember
from indexer.history.history import History
from indexer.model import Block, Market
from indexer.store.rows import POSITION_COLUMNS, BalanceRow, BalanceValues, PositionRow, Snapshot
from indexer.store.store import Store

PART = 1_000
DAY = 86_400
TABLES = ("health_history", "accruals")


def held(n: int, at: int, *, moved: bool) -> tuple[PositionRow, list[BalanceValues]]:
    """One position with a supply of 200 and a debt that is 100 at first, and 3 more where it `moved`; 1 % interest a block."""
    account, owed = f"0x{n:040x}", 103 if moved else 100
    row = PositionRow._make([None] * len(POSITION_COLUMNS))._replace(
        chain_id=1, deployment="d", protocol="p", account=account, position_group="", owner=account, owner_via="self",
        wallet=account, status="healthy", health_factor_raw=str(2 * 10**18), block_number=at, block_hash=f"0x{at}",
        block_timestamp=at * DAY, supplies_complete=1,
    )  # fmt: skip
    balances = [
        BalanceRow(1, "d", account, "", "0xa", market, "A", side, str(scaled), str(amount), float(amount), float(amount), 0, at)
        for market, side, scaled in (("0xb", "supply", 200), ("0xc", "debt", owed))
        for amount in (scaled * (100 + at) // 100,)
    ]  # fmt: skip
    return row, [tuple(one) for one in balances]


class Parts:
    """Every position, made as it is asked for; each second one `moved`."""

    def __init__(self, positions: int, at: int, *, moved: bool) -> None:
        self.positions, self.at, self.moved = positions, at, moved

    def __iter__(self) -> Iterator[tuple[Sequence[PositionRow], Sequence[BalanceValues]]]:
        for start in range(0, self.positions, PART):
            found = [held(n, self.at, moved=self.moved and not n % 2) for n in range(start, start + PART)]
            yield [row for row, _ in found], [one for _, balances in found for one in balances]

    def rows(self) -> Iterator[PositionRow]:
        for rows, _ in self:
            yield from rows


def snapshots(store: Store, positions: int) -> Iterator[int]:
    """Commits the first snapshot, then one in which everyone was read again; yields the most memory each took, in bytes."""
    history = History()
    history.cursors[1, "d"] = ("", "")  # where thinning begins
    for at in (1, 2):
        block = Block(at, f"0x{at}", f"0x{at - 1}", at * DAY)
        parts = Parts(positions, at, moved=at == 2)
        store.conn.executemany(
            "insert or replace into states values (1, 'd', ?, '', ?, '{}')", ((row.account, at) for row in parts.rows())
        )
        store.conn.executemany(
            "insert or ignore into events values (1, 'd', ?, '', 1, 1)", ((row.account,) for row in parts.rows())
        )
        snapshot = Snapshot(
            chain_id=1, deployment="d", protocol="p", accounts="all", state="ok", market=Market(block=block, revision=""),
            market_json="", parts=parts,
        )  # fmt: skip
        tracemalloc.start()

        def took(conn: sqlite3.Connection, one: Snapshot, rows: Sequence[PositionRow]) -> None:
            history.take(conn, one, rows)

        store.commit([snapshot], block, 1, 128, [remember, history, accrue], took=took)
        yield tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


def test_the_memory_does_not_grow_with_those_that_were_read_again(tmp_path: Path) -> None:
    most = []
    for positions in (3_000, 9_000):
        with closing(Store(tmp_path / f"{positions}.db")) as store:
            most.append(max(snapshots(store, positions)))
    assert most[1] < most[0] * 1.2


@pytest.mark.parametrize("part", [1, 7])
def test_what_was_moved_and_earned_is_the_same_in_parts_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    with closing(Store(tmp_path / "whole.db")) as whole, closing(Store(tmp_path / "parts.db")) as parts:
        assert len([*snapshots(whole, PART)]) == 2
        monkeypatch.setattr(accrual, "PART", part)
        assert len([*snapshots(parts, PART)]) == 2
        found = [
            [store.conn.execute(f"select * from {table}").fetchall() for table in TABLES] for store in (whole, parts)
        ]
        assert found[0] == found[1]
        # 3 more are owed at a price of 1; what was owed grew from 101 to 102 before, as far as was measured
        moved = whole.conn.execute(
            "select supply_change_usd, debt_change_usd from health_history where block_number = 2"
        )
        stretches = whole.conn.execute("select interest_raw, start_amount_raw from accruals where start_block = 2")
        assert set(moved) == {(0.0, 105.0 - 101.0)}
        assert set(stretches) == {("0", "105")}


def test_old_rows_are_found_by_their_key(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "plan.db")) as store:
        assert len([*snapshots(store, PART)]) == 2
        numbers = count(1)
        for sql in (accrual.ENDED, accrual.CHOSEN):
            given = [next(numbers) for _ in range(5 if sql is accrual.CHOSEN else 3)]
            plan = [step for *_, step in store.conn.execute(f"explain query plan {sql}", given)]
            assert [step for step in plan if step.startswith("SCAN")] == ["SCAN k VIRTUAL TABLE INDEX 1:"]
            assert all("side=?" in step for step in plan if step.endswith("LEFT-JOIN"))
