"""Rows that wait for their transaction come out as they went in, whether they stayed in memory or not."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.snapshot import spool
from indexer.snapshot.spool import Spool
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS, BalanceValues, PositionRow

values = st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=80)
position_rows = st.builds(PositionRow._make, st.tuples(*[values] * len(POSITION_COLUMNS)))
balance_rows = st.tuples(*[values] * len(BALANCE_COLUMNS))
parts = st.lists(st.tuples(st.lists(position_rows, max_size=3), st.lists(balance_rows, max_size=3)), max_size=4)


@pytest.fixture(scope="module", autouse=True)
def few_in_memory() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "KEPT", 2)
        yield


@pytest.mark.slow
@given(parts)
def test_rows_come_out_as_they_went_in(given: list[tuple[list[PositionRow], list[BalanceValues]]]) -> None:
    waiting = Spool()
    for rows, balances in given:
        waiting.add(rows, balances)
    for _ in range(2):
        assert [([*rows], [*balances]) for rows, balances in waiting] == given
        assert [*waiting.rows()] == [row for rows, _ in given for row in rows]
    assert len(waiting) == sum(len(rows) for rows, _ in given)
    for rows, balances in waiting:
        assert all(type(row) is PositionRow for row in rows)
        assert all(type(row) is tuple for row in balances)


@pytest.mark.slow
@given(parts)
def test_a_mark_is_on_every_row(given: list[tuple[list[PositionRow], list[BalanceValues]]]) -> None:
    waiting = Spool()
    for rows, balances in given:
        waiting.add(rows, balances)
    waiting.mark = lambda row: row._replace(status="unverified", note="why")
    marked = [row._replace(status="unverified", note="why") for rows, _ in given for row in rows]
    assert [*waiting.rows()] == marked
    assert [row for rows, _ in waiting for row in rows] == marked
