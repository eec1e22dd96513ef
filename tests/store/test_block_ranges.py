"""Interval sets behave as sets of block numbers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.store.block_ranges import Ranges

bounds = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))
sets = st.lists(bounds, max_size=8)


def blocks(ranges: Ranges) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def plain(pairs: list[tuple[int, int]]) -> set[int]:
    return {number for first, last in pairs for number in range(first, last + 1)}


@given(sets)
def test_kept_sorted_disjoint_and_not_adjacent(pairs: list[tuple[int, int]]) -> None:
    ranges = list(Ranges(pairs))
    assert all(first <= last for first, last in ranges)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(ranges))
    assert blocks(Ranges(pairs)) == plain(pairs)


@given(sets, sets)
def test_union_intersection_difference(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    assert blocks(Ranges(a) | Ranges(b)) == plain(a) | plain(b)
    assert blocks(Ranges(a) & Ranges(b)) == plain(a) & plain(b)
    assert blocks(Ranges(a) - Ranges(b)) == plain(a) - plain(b)
    assert (Ranges(a) == Ranges(b)) == (plain(a) == plain(b))


@given(sets, bounds)
def test_add_remove_missing_covers(pairs: list[tuple[int, int]], span: tuple[int, int]) -> None:
    ranges, asked = Ranges(pairs), plain([span])
    assert blocks(ranges.add(*span)) == plain(pairs) | asked
    assert blocks(ranges.remove(*span)) == plain(pairs) - asked
    assert blocks(Ranges(ranges.missing(*span))) == asked - plain(pairs)
    assert ranges.covers(*span) == (asked <= plain(pairs))
    assert ranges.add(*span).missing(*span) == []


@given(sets, st.integers(-5, 70))
def test_membership_size_and_equality(pairs: list[tuple[int, int]], number: int) -> None:
    assert (number in Ranges(pairs)) == (number in plain(pairs))
    assert len(Ranges(pairs)) == len(plain(pairs))
    assert Ranges(Ranges(pairs).to_list()) == Ranges(pairs)
    assert hash(Ranges(pairs)) == hash(Ranges(list(reversed(pairs))))


def test_nothing_is_mutated_and_empty_spans_are_nothing() -> None:
    ranges = Ranges([(5, 9)])
    ranges.add(1, 3)
    assert list(ranges) == [(5, 9)]
    assert ranges.add(4, 3) == ranges
    assert ranges.missing(4, 3) == []
    assert ranges.covers(4, 3)
    assert not Ranges()
    assert Ranges([(0, 0)])
    assert Ranges([(0, 0)]) != [(0, 0)]
    assert len({hash(Ranges([(n, n)])) for n in range(9)}) > 1
    assert repr(Ranges([(5, 9), (1, 3)])) == "Ranges([(1, 3), (5, 9)])"
    with pytest.raises(ValueError, match="reversed"):
        Ranges([(2, 1)])
