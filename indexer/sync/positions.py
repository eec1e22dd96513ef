"""Reads the positions that are due, in chunks that survive a kill; a long read moves on with the chain."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from indexer.adapter import Reader
from indexer.chain.client import Chain
from indexer.chain.lockstep import Habit, side_by_side
from indexer.chain.multicall import PinnedReader
from indexer.errors import PrunedError
from indexer.model import Block, PositionKey
from indexer.progress import Progress
from indexer.settings import Settings
from indexer.store.progress import tell
from indexer.store.store import Store
from indexer.sync.alone import Failures
from indexer.sync.tracked import TrackedDeployment

#: a newer block at which to continue reading; the same one where the user named a number
Fresh = Callable[[Block], Block]


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
    ) -> Block:
        """Reads the positions that were touched; returns the newest block at which any was read.

        `habits` are those with which the markets were read at the target.
        """
        todo: dict[str, list[PositionKey]] = {}

        def find(tracked: TrackedDeployment, read: Reader) -> None:
            with failures.alone(tracked.adapter):
                todo[tracked.name] = tracked.to_read(read)

        def read_all(tracked: TrackedDeployment, read: Reader) -> None:
            with failures.alone(tracked.adapter):
                tracked.read(read, todo[tracked.name])

        read = PinnedReader(self.chain, target)
        side_by_side(read, [(partial(find, one), habits[one.name]) for one in deployments], go_on=True)
        total = sum(map(len, todo.values()))
        if not total:
            return target
        if total <= self.settings.read_chunk:
            due = [one for one in deployments if todo.get(one.name)]
            try:
                side_by_side(read, [(partial(read_all, one), self.habits[one.name]) for one in due])
            except PrunedError:
                pass  # the way for many of them moves on to a newer block
            else:
                return target
        self.progress.start("positions", total, "positions")
        pin, began, done = _Pin(target), int(time.time()), 0
        for tracked in deployments:
            keys = todo.get(tracked.name, [])
            with failures.alone(tracked.adapter):
                for start in range(0, len(keys), self.settings.read_chunk):
                    chunk = keys[start : start + self.settings.read_chunk]
                    self._read_chunk(tracked, chunk, pin, fresh)
                    self.progress.advance("positions", len(chunk))
                    done += len(chunk)
                    with self.store.transaction() as conn:
                        tell(conn, self.run, positions_read=done, positions_wanted=total, stage_began_at=began)
        self.progress.done("positions")
        return pin.block

    def _read_chunk(self, tracked: TrackedDeployment, keys: Sequence[PositionKey], pin: _Pin, fresh: Fresh) -> None:
        """Reads at the pin, moving it on when it grows old or its state is gone."""
        if time.monotonic() - pin.since > self.settings.repin_seconds:
            pin.move(fresh(pin.block))
        try:
            tracked.read(PinnedReader(self.chain, pin.block), keys)
        except PrunedError:
            newer = fresh(pin.block)
            if newer.number == pin.block.number:
                raise
            pin.move(newer)
            tracked.read(PinnedReader(self.chain, pin.block), keys)
