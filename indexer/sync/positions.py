"""Reads the positions that are due, in chunks that survive a kill; a long read moves on with the chain."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from indexer.chain.client import Chain
from indexer.chain.multicall import PinnedReader
from indexer.errors import PrunedError
from indexer.model import Block, PositionKey
from indexer.progress import Progress
from indexer.settings import Settings
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

    def __init__(self, chain: Chain, settings: Settings, progress: Progress) -> None:
        self.chain, self.settings, self.progress = chain, settings, progress

    def read(self, deployments: Sequence[TrackedDeployment], target: Block, fresh: Fresh, failures: Failures) -> Block:
        """Reads the positions that were touched; returns the newest block at which any was read."""
        todo: dict[str, list[PositionKey]] = {}
        for tracked in deployments:
            with failures.alone(tracked.adapter):
                todo[tracked.name] = tracked.to_read(PinnedReader(self.chain, target))
        total = sum(map(len, todo.values()))
        if not total:
            return target
        self.progress.start("positions", total, "positions")
        pin = _Pin(target)
        for tracked in deployments:
            keys = todo.get(tracked.name, [])
            with failures.alone(tracked.adapter):
                for start in range(0, len(keys), self.settings.read_chunk):
                    chunk = keys[start : start + self.settings.read_chunk]
                    self._read_chunk(tracked, chunk, pin, fresh)
                    self.progress.advance("positions", len(chunk))
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
