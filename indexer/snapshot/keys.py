"""The known positions of a deployment, numbered; what is kept of each stands in arrays by number.

A million of them would take gigabytes as objects with dictionaries of their own. Here a position costs its key, one entry
of a dictionary and a few numbers; what it holds stays in the file.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping

from indexer.model import PositionKey

#: the block of a state that is not there
NEVER = -1


class Keys(Mapping[PositionKey, int]):
    """The number of each known position, in the order in which they became known.

    `named` is the last block in which an event named it, `read` the block at which its stored state is known to be right.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self.keys_by_number: list[PositionKey] = []
        self.named = array("q")
        self.read = array("q")

    def __getitem__(self, key: PositionKey) -> int:
        return self._numbers[key]

    def numbers_of(self, pairs: Iterable[tuple[str, str]]) -> list[int]:
        """The numbers of known positions, by account and group."""
        return [*map(self._numbers.__getitem__, pairs)]

    def __contains__(self, key: object) -> bool:
        return key in self._numbers

    def __iter__(self) -> Iterator[PositionKey]:
        return iter(self.keys_by_number)

    def __len__(self) -> int:
        return len(self.keys_by_number)

    def add(self, key: PositionKey, named: int, read: int) -> None:
        """A position that is not known yet; `read` is NEVER where it has no state."""
        self._numbers[key] = len(self.keys_by_number)
        self.keys_by_number.append(key)
        self.named.append(named)
        self.read.append(read)

    def touch(self, key: PositionKey, block: int) -> None:
        """An event of this block named the position; it is known from now on."""
        number = self._numbers.get(key)
        if number is None:
            self.add(key, block, NEVER)
        elif block > self.named[number]:
            self.named[number] = block

    def was_read(self, key: PositionKey, block: int) -> None:
        """Its state is that of this block."""
        self.read[self._numbers[key]] = block

    def was_ever_read(self, key: PositionKey) -> bool:
        """Whether it is known, and its state is in the file."""
        number = self._numbers.get(key)
        return number is not None and self.read[number] != NEVER

    def forget_reads(self) -> None:
        """No state is known to be right any more."""
        self.read = array("q", [NEVER]) * len(self)

    def stale(self, key: PositionKey) -> bool:
        """Whether the position was never read, or an event has named it since."""
        number = self._numbers[key]
        return self.read[number] < self.named[number] or self.read[number] == NEVER

    def drop(self, keys: Iterable[PositionKey]) -> None:
        """These are not known any more; all others are numbered anew."""
        gone = set(keys)
        self._renumber([key for key in self if key not in gone])

    def sort(self) -> None:
        """Numbers all positions in the order of their keys."""
        self._renumber(sorted(self))

    def _renumber(self, keys: list[PositionKey]) -> None:
        numbers = [self._numbers[key] for key in keys]
        self.named, self.read = (array("q", [of[number] for number in numbers]) for of in (self.named, self.read))
        self._numbers, self.keys_by_number = {key: number for number, key in enumerate(keys)}, keys
