"""Sets of blocks as inclusive ranges: which blocks are done, which are missing. Pure."""

from collections.abc import Iterable, Iterator
from typing import Self


class Ranges:
    """An immutable set of block numbers kept as sorted, disjoint, non-adjacent inclusive ranges."""

    __slots__ = ("_ranges",)

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        """From any (first, last) pairs, overlapping or not. ValueError if one is reversed."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if first > last:
                raise ValueError(f"range {first}..{last} is reversed")
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        self._ranges = tuple(merged)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._ranges)

    def __len__(self) -> int:
        """How many blocks are in the set."""
        return sum(last - first + 1 for first, last in self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __eq__(self, other: object) -> bool:
        return self._ranges == other._ranges if isinstance(other, Ranges) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._ranges)

    def __repr__(self) -> str:
        return f"Ranges({list(self._ranges)})"

    def __contains__(self, number: int) -> bool:
        return self.covers(number, number)

    def __or__(self, other: Self) -> Self:
        return type(self)((*self._ranges, *other._ranges))

    def __and__(self, other: Self) -> Self:
        return type(self)(
            (max(first, low), min(last, high))
            for first, last in self._ranges
            for low, high in other._ranges
            if first <= high and low <= last
        )

    def __sub__(self, other: Self) -> Self:
        result = self
        for first, last in other:
            result = result.remove(first, last)
        return result

    def add(self, first: int, last: int) -> Self:
        """With first..last; an empty range (first > last) adds nothing."""
        return type(self)((*self._ranges, (first, last))) if first <= last else self

    def remove(self, first: int, last: int) -> Self:
        """Without first..last."""
        kept: list[tuple[int, int]] = []
        for low, high in self._ranges:
            if high < first or last < low:
                kept.append((low, high))
                continue
            if low < first:
                kept.append((low, first - 1))
            if last < high:
                kept.append((last + 1, high))
        return type(self)(kept)

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        """The ranges within first..last that are not in the set, ascending."""
        return list(type(self)([(first, last)]) - self) if first <= last else []

    def covers(self, first: int, last: int) -> bool:
        """Whether every block of first..last is in the set; true for an empty range."""
        return first > last or any(low <= first and last <= high for low, high in self._ranges)

    def to_list(self) -> list[tuple[int, int]]:
        return list(self._ranges)
