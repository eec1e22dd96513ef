"""Rows that are written over older ones leave the file as if they alone had been written."""

from contextlib import closing
from pathlib import Path

import pytest

from indexer.store.row_writes import TOGETHER, insert, insert_all, overwritten
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS, BalanceRow, BalanceValues, PositionRow
from indexer.store.store import Store

WHERE = (1, "d")
ALICE, BOB, CAROL = (f"0x{digit * 40}" for digit in "abc")


def position(account: str, **changed: object) -> PositionRow:
    empty = PositionRow._make([None] * len(POSITION_COLUMNS))._replace(
        chain_id=1, deployment="d", protocol="p", account=account, position_group="", owner=account, owner_via="self",
        wallet=account, status="healthy", block_number=1, block_hash="0x1", supplies_complete=1,
    )  # fmt: skip
    return empty._replace(**changed)


def balance(account: str, asset: str, side: str, amount: int, block: int) -> BalanceValues:
    return tuple(
        BalanceRow(1, "d", account, "", asset, asset, "S", side, str(amount), str(amount), float(amount), 1.0, 0, block)
    )


BEFORE = [position(ALICE), position(BOB)]
BALANCES = [
    balance(ALICE, "0x1", "supply", 5, 1),
    balance(ALICE, "0x2", "debt", 3, 1),
    balance(BOB, "0x1", "debt", 7, 1),
]


@pytest.mark.parametrize(
    "rows",
    [
        [position(ALICE, status="at-risk", debt_usd=2.5, block_number=2, block_hash="0x2")],
        [position(ALICE, owner=CAROL, wallet=CAROL, owner_via="cdp-manager", block_number=2)],
        [position(ALICE, status="no-debt", block_number=2), position(CAROL, block_number=2)],
    ],
    ids=["other values", "in other hands", "a new position"],
)
@pytest.mark.parametrize(
    "balances",
    [[], [balance(ALICE, "0x1", "supply", 6, 2)], [balance(ALICE, "0x3", "debt", 9, 2), balance(ALICE, "0x2", "debt", 4, 2)]],
    ids=["nothing", "less", "others"],
)  # fmt: skip
def test_the_file_is_as_if_the_new_rows_alone_had_been_written(
    tmp_path: Path, rows: list[PositionRow], balances: list[BalanceValues]
) -> None:
    written = {row.account for row in rows}
    kept = [row for row in BEFORE if row.account not in written]
    with closing(Store(tmp_path / "over.db")) as over, closing(Store(tmp_path / "alone.db")) as alone:
        for store, whole, held in (
            (over, BEFORE, BALANCES),
            (alone, [*kept, *rows], [*(one for one in BALANCES if one[2] not in written), *balances]),
        ):
            store.conn.executemany(insert("positions", len(POSITION_COLUMNS)), map(tuple, whole))
            store.conn.executemany(insert("balances", len(BALANCE_COLUMNS)), held)
        before, counted = overwritten(over.conn, WHERE, rows, balances)
        found = [
            [
                store.conn.execute(f"select * from {table} order by account, 5, 6, 8").fetchall()
                for store in (over, alone)
            ]
            for table in ("positions", "balances")
        ]
    assert all(one == other for one, other in found)
    assert before == {(ALICE, ""): "healthy"}
    assert len(counted) == 2


@pytest.mark.parametrize("rows", [0, 1, TOGETHER - 1, TOGETHER, TOGETHER + 1, 2 * TOGETHER + 3])
def test_every_row_is_inserted_however_many_a_statement_takes(tmp_path: Path, rows: int) -> None:
    given = [balance(f"0x{n:040x}", "0x1", "debt", n, 1) for n in range(rows)]
    with closing(Store(tmp_path / "all.db")) as store:
        insert_all(store.conn, "balances", len(BALANCE_COLUMNS), given)
        assert store.conn.execute("select * from balances order by account").fetchall() == given
