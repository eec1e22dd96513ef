"""Reads several deployments at one block side by side: the questions that they wait for go out together.

Each runs until it needs an answer. When all wait, their reads are asked in one aggregate, and each goes on with its own
answers: a block costs as many requests as the longest of them takes turns, however many there are. What a deployment
reads at every block is asked along with its first read, which leaves most of them one turn.

Greenlets of one thread carry them: a store and its transactions belong to one thread, and nobody is interrupted except
where it reads.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from greenlet import getcurrent, greenlet

from indexer.adapter import Part, Reader
from indexer.errors import PrunedError, ReorgError
from indexer.model import Block, Read
from indexer.reads.multicall import Group, PinnedReader

Task = Callable[[Reader], None]
Slot = tuple[str, int]


class Questions(NamedTuple):
    """What a task waits for: answers to reads, to reads behind a prelude, and storage words."""

    reads: tuple[Read, ...] = ()
    groups: tuple[Group, ...] = ()
    slots: tuple[Slot, ...] = ()

    def all(self) -> Iterable[Hashable]:
        return chain(*self)

    def if_(self, wanted: Callable[[Hashable], bool]) -> "Questions":
        """The questions among these that are wanted."""
        reads, groups, slots = (tuple(filter(wanted, ones)) for ones in self)
        return Questions(reads, groups, slots)  # type: ignore[arg-type]  # each kind stays what it was

    def beside(self, others: "Questions") -> "Questions":
        """Both, each question once."""
        reads, groups, slots = (tuple(dict.fromkeys((*a, *b))) for a, b in zip(self, others, strict=True))
        return Questions(reads, groups, slots)  # type: ignore[arg-type]


class _Waiting:
    """The `Reader` of one task: the task waits at each question until the answers of all tasks are there.

    The same question at the same block has the same answer, so it is asked once.
    """

    def __init__(self, block: Block, expected: Questions) -> None:
        self._block, self._expected = block, expected
        self._known: dict[Hashable, Any] = {}
        self.asked: dict[Hashable, None] = {}
        self.ask: Callable[[Questions], list[Any]]

    @property
    def block(self) -> Block:
        return self._block

    def __call__(self, reads: Sequence[Read], prelude: Sequence[Read] = ()) -> list[Any]:
        wanted = tuple(map(_frozen, reads))
        if not prelude:
            return self._answers(Questions(reads=wanted))
        return list(self._answers(Questions(groups=((wanted, tuple(map(_frozen, prelude))),)))[0]) if wanted else []

    def storage(self, slots: Sequence[Slot]) -> list[int] | None:
        words = self._answers(Questions(slots=tuple(slots)))
        return None if None in words else words

    def by_flags(self, accounts: Sequence[str], always: Sequence[Part], by_bit: Mapping[int, Sequence[Part]]) -> None:
        """Never: what deployments ask about few accounts goes out together."""

    def _answers(self, wanted: Questions) -> list[Any]:
        keys = list(wanted.all())
        self.asked.update(dict.fromkeys(keys))
        if not self._known.keys() >= set(keys):
            missing = wanted.beside(self._expected).if_(lambda one: one not in self._known)
            self._expected = Questions()
            self._known.update(zip(missing.all(), self.ask(missing), strict=True))
        return [self._known[key] for key in keys]


class Habit:
    """What one task reads at every block: the questions it asked at both of the last two."""

    def __init__(self) -> None:
        self._before: dict[Hashable, None] = {}
        self._now: _Waiting | None = None

    def begin(self, block: Block) -> _Waiting:
        """The reader of the next block."""
        asked = self._now.asked if self._now else {}
        steady = [one for one in asked if one in self._before]
        self._before = asked
        self._now = _Waiting(block, _sorted(steady))
        return self._now

    def go_on(self, block: Block) -> _Waiting:
        """The reader that `begin` made for this block, with what it has read."""
        return self._now if self._now and self._now.block.hash == block.hash else self.begin(block)


def _sorted(questions: Iterable[Any]) -> Questions:
    """Questions by their kind."""
    every = list(questions)
    reads = tuple(one for one in every if isinstance(one, Read))
    rest = [one for one in every if not isinstance(one, Read)]
    slots = tuple(one for one in rest if isinstance(one[0], str))
    return Questions(reads, tuple(one for one in rest if not isinstance(one[0], str)), slots)


def side_by_side(reader: PinnedReader, tasks: Sequence[tuple[Task, Habit]], *, go_on: bool = False) -> None:
    """Runs all tasks to their end, each with a reader at the block of `reader`; with `go_on` with what they know of it.

    An error of a read is raised in the task that asked for it, after it was asked for alone. ReorgError and PrunedError
    concern all, and end them, as does what a task raises itself.
    """
    hub = getcurrent()
    workers: list[greenlet] = []
    turns: list[tuple[greenlet, Questions]] = []

    def take_turn(worker: greenlet, waits_for: Any) -> None:
        if not worker.dead:
            turns.append((worker, waits_for))

    try:
        for task, habit in tasks:
            read = habit.go_on(reader.block) if go_on else habit.begin(reader.block)
            read.ask = hub.switch
            worker = greenlet(task)
            workers.append(worker)
            take_turn(worker, worker.switch(read))
        while turns:
            answers = _answers(reader, [questions for _, questions in turns])
            waiting, turns = turns, []
            for (worker, _), answer in zip(waiting, answers, strict=True):
                take_turn(worker, worker.throw(answer) if isinstance(answer, Exception) else worker.switch(answer))
    finally:
        for worker in workers:
            if not worker.dead:
                worker.throw()  # GreenletExit: it releases what it holds


def _answers(reader: PinnedReader, asked: Sequence[Questions]) -> list[Any]:
    """The answers to each, asked together or, if that fails, one by one, with the Exception where that fails again."""
    try:
        return _together(reader, asked)
    except (ReorgError, PrunedError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where it was asked for
        if len(asked) == 1:
            return [error]
    return [answer for one in asked for answer in _answers(reader, [one])]


def _together(reader: PinnedReader, asked: Sequence[Questions]) -> list[list[Any]]:
    """The answers to each in the order of its questions: reads, groups, slots."""
    groups = [group for one in asked for group in ((one.reads, ()), *one.groups)]
    found = iter(reader.together(groups) if any(reads for reads, _ in groups) else [[]] * len(groups))
    slots = [slot for one in asked for slot in one.slots]
    stored = reader.storage(slots) if slots else None
    words: Iterator[int | None] = iter([None] * len(slots) if stored is None else stored)
    return [[*next(found), *islice(found, len(one.groups)), *islice(words, len(one.slots))] for one in asked]


def _frozen(read: Read) -> Read:
    """The same read with tuples in place of lists, which cannot be keys of a dictionary."""
    return read._replace(args=_tuples(read.args))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
