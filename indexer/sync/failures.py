"""Failures of a single deployment: they are reported, and the other deployments go on."""

import errno
import logging
import sqlite3
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager

from indexer.adapter import AnyAdapter
from indexer.chain.client import Chain
from indexer.errors import ChainError, NoCodeError, PrunedError, ReadFailedError, ReorgError, StoreError
from indexer.model import Block
from indexer.snapshot.tracked import TrackedDeployment
from indexer.store.store import Store

log = logging.getLogger(__name__)

#: what a machine may lack, whoever asks for it: open files, memory, room
LACKING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC}


class Failures:
    """Which deployments failed in this snapshot, and why; their rows stay at their last good block.

    Its context records the failures of one adapter alone. A reorg, missing state, a broken file, a machine without memory or
    a node that no longer answers concern all deployments, and are raised.
    """

    def __init__(self, store: Store, chain: Chain, tracked: MutableMapping[str, TrackedDeployment]) -> None:
        self.store, self.chain, self.tracked = store, chain, tracked
        self.reasons: dict[str, str] = {}

    @contextmanager
    def alone(self, adapter: AnyAdapter) -> Iterator[None]:
        try:
            yield
        except (ReorgError, PrunedError, StoreError, sqlite3.DatabaseError, MemoryError):
            raise
        except (ReadFailedError, NoCodeError) as error:
            reason = str(error)
        except ChainError as error:
            self.chain.block("latest")
            reason = str(error)
        except Exception as error:  # an adapter's defect must not stop the other protocols
            if isinstance(error, OSError) and error.errno in LACKING:
                raise
            log.exception("%s: defect in the %s adapter", adapter.deployment.name, adapter.protocol)
            reason = f"defect in the {adapter.protocol} adapter: {type(error).__name__}: {error}"
        else:
            return
        name = adapter.deployment.name
        log.error("%s: %s", name, reason)
        self.reasons[name] = reason
        self.store.set_state(self.chain.chain_id, name, "failed", reason)
        self.tracked.pop(name, None)

    def left(
        self, deployments: Sequence[TrackedDeployment], target: Block, *, none: bool = False
    ) -> list[TrackedDeployment]:
        """The deployments that have not failed. ChainError if all have, unless `none` may be left."""
        left = [tracked for tracked in deployments if tracked.name not in self.reasons]
        if not left and not none:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())
            raise ChainError(f"no deployment could be read at block {target.number} of {self.chain.name}: {reasons}")
        return left
