"""Reads the positions that are due, in chunks that survive a kill; a long read moves on with the chain."""

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from indexer.adapter import Reader
from indexer.chain.client import Chain
from indexer.chain.flight import Ahead
from indexer.errors import PrunedError
from indexer.model import Block, Position, PositionKey
from indexer.progress import Progress
from indexer.reads.lockstep import Habit, side_by_side
from indexer.reads.multicall import PinnedReader
from indexer.settings import Settings
from indexer.snapshot.tracked import TrackedDeployment
from indexer.store.progress import tell
from indexer.store.store import Store
from indexer.sync.failures import Failures

log = logging.getLogger(__name__)

#: a newer block at which to continue reading; the same one where the user named a number
Fresh = Callable[[Block], Block]
#: positions of a deployment that are read together
Chunk = tuple[TrackedDeployment, Sequence[PositionKey]]


@dataclass(slots=True)
class _Pin:
    """The block at which a long read is pinned, and since when."""

    block: Block
    since: float = field(default_factory=time.monotonic)

    def move(self, block: Block) -> None:
        self.block, self.since = block, time.monotonic()


class Positions:
    """Reads the positions of several deployments."""

    def __init__(self, store: Store, chain: Chain, settings: Settings, progress: Progress) -> None:
        self.store, self.chain, self.settings, self.progress = store, chain, settings, progress
        #: the number of the run, for who asks how far it is
        self.run: int | None = None
        self.habits: dict[str, Habit] = defaultdict(Habit)

    def read(
        self,
        deployments: Sequence[TrackedDeployment],
        target: Block,
        fresh: Fresh,
        failures: Failures,
        habits: Mapping[str, Habit],
        supplies: int | None = 0,
    ) -> Block:
        """Reads the positions that were touched, and for up to `supplies` of each deployment (None: all) the supplies that
        wait; returns the newest block at which any was read.

        `habits` are those with which the markets were read at the target.
        """
        todo: dict[str, list[PositionKey]] = {}

        def find(tracked: TrackedDeployment, read: Reader) -> None:
            with failures.alone(tracked.adapter):
                todo[tracked.name] = tracked.to_read(read, supplies)

        def read_all(tracked: TrackedDeployment, read: Reader) -> None:
            with failures.alone(tracked.adapter):
                tracked.read(read, todo[tracked.name])

        read = PinnedReader(self.chain, target)
        side_by_side(read, [(partial(find, one), habits[one.name]) for one in deployments], go_on=True)
        total = sum(map(len, todo.values()))
        if not total:
            return target
        self.progress.start("positions", total, "positions")
        if total <= self.settings.read_chunk:
            due = [one for one in deployments if todo.get(one.name)]
            try:
                side_by_side(read, [(partial(read_all, one), self.habits[one.name]) for one in due])
            except PrunedError as error:  # reading them in turn moves on to a newer block
                log.info("the state of block %d is gone, reading goes on at a newer one: %s", target.number, error)
            else:
                self.progress.advance("positions", total)
                self.progress.done("positions")
                return target
        pin, began, done = _Pin(target), int(time.time()), 0
        for work in self._work(deployments, todo):
            for count in self._read(work, pin, fresh, failures):
                self.progress.advance("positions", count)
                done += count
                with self.store.transaction() as conn:
                    tell(conn, self.run, positions_read=done, positions_wanted=total, stage_began_at=began)
        self.progress.done("positions")
        return pin.block

    def _work(
        self, deployments: Sequence[TrackedDeployment], todo: Mapping[str, Sequence[PositionKey]]
    ) -> Iterator[list[Chunk]]:
        """Chunks of positions: together those of all adapters of which several threads may read, then those of each other."""
        size = self.settings.read_chunk
        together: list[Chunk] = []
        others: list[list[Chunk]] = []
        for tracked in deployments:
            keys = todo.get(tracked.name, [])
            chunks = [(tracked, keys[start : start + size]) for start in range(0, len(keys), size)]
            if tracked.adapter.concurrent:
                together += chunks
            else:
                others.append(chunks)
        yield from [together, *others]

    def _read(self, work: Sequence[Chunk], pin: _Pin, fresh: Fresh, failures: Failures) -> Iterator[int]:
        """Reads chunk after chunk at the pin, which moves on when it grows old or its state is gone; yields their sizes.

        Where the adapters allow it, several chunks are read at once. They are saved in their order, so that the activity
        that is followed begins no later than any of them was read. What is left of a deployment that failed is left out.
        """
        pins: deque[Block] = deque()

        def tasks() -> Iterator[Callable[[], list[Position]]]:
            for tracked, chunk in work:
                if time.monotonic() - pin.since > self.settings.repin_seconds:
                    pin.move(fresh(pin.block))
                pins.append(pin.block)
                failed = tracked.name in failures.reasons
                yield list if failed else partial(tracked.fetch, PinnedReader(self.chain, pin.block), chunk)

        gone = -1  # the newest block whose state is gone
        at_once = len(work) > 1 and work[0][0].adapter.concurrent
        with Ahead(tasks(), lambda: self.chain.room if at_once else 1) as ahead:
            for (tracked, chunk), done in zip(work, ahead, strict=True):
                block = pins.popleft()
                if tracked.name in failures.reasons:
                    continue
                with failures.alone(tracked.adapter):
                    try:
                        if block.number <= gone:
                            raise PrunedError(f"the state of block {block.number} is gone")
                        positions = done.result()
                    except PrunedError:
                        gone = max(gone, block.number)
                        if pin.block.number <= gone:
                            newer = fresh(pin.block)
                            if newer.number <= gone:
                                raise
                            pin.move(newer)
                        block = pin.block
                        positions = tracked.fetch(PinnedReader(self.chain, block), chunk)
                    tracked.take(chunk, positions, block.number)
                yield len(chunk)
