"""A live tail: one snapshot per block, skipping to the newest block when it falls behind."""

import logging
import time
from collections.abc import Callable

from indexer.chain.heads import HEARTBEAT_SECONDS, Heads
from indexer.chain.pace import seconds_per_block
from indexer.errors import ChainError, PrunedError, UnconfirmedError, WrongChainError
from indexer.model import Block
from indexer.sync.sync import Outcome, Sync

log = logging.getLogger(__name__)

# Its debug lines carry whole URLs, keys included.
logging.getLogger("websockets").setLevel(logging.WARNING)

POLL_SECONDS = 2.0
BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
#: seconds that a tail waits for a node that fell behind before it believes that the chain got shorter
BEHIND_SECONDS = 60.0
#: chains whose blocks take less than `FAST` seconds on average are not looked at block by block, but this often
FAST, EVERY_SECONDS = 1.0, 12.0
#: positions of each deployment for which a block also reads the supplies that wait
SUPPLIES_A_BLOCK = 200


def follow(
    sync: Sync,
    heads: Heads,
    tell: Callable[[Outcome, float], None],
    *,
    to: str = "latest",
    poll_seconds: float = POLL_SECONDS,
    behind_seconds: float = BEHIND_SECONDS,
    until: Callable[[], bool] = lambda: False,
    failed: Callable[[ChainError], None] = lambda _: None,
) -> None:
    """Snapshots every new block, or one every `settings.every_seconds`, until interrupted (or `until()`).

    `tell` gets each outcome and its lag in seconds. Failures of the node go to `failed`, are logged, and are retried after a
    growing, bounded pause; StoreError ends it. An interrupt (KeyboardInterrupt) abandons the snapshot in progress as a whole.
    """
    canon = sync.canon
    sync.following, sync.supplies = True, SUPPLIES_A_BLOCK
    every, due = sync.settings.every_seconds, 0.0
    canon.behind_seconds = behind_seconds
    last: Block | None = None
    failures = 0
    while not until():
        if time.monotonic() < due:
            time.sleep(max(0.0, min(due - time.monotonic(), poll_seconds)))
            continue
        try:
            if every is None:
                every = pace_of(sync)
            head = canon.target(to)
            if last is not None and (head.hash == last.hash or canon.holds(last, head)):
                # Announced by one node, not yet known to the other: ask again soon.
                late = to == "latest" and heads.announced > head.number
                heads.wait(HEARTBEAT_SECONDS if heads.connected and not late else poll_seconds)
                continue
            due = time.monotonic() + every
            outcome = sync.snapshot(to, head)
        except ChainError as error:
            pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
            failures, due = failures + 1, 0.0
            failed(error)
            if isinstance(error, UnconfirmedError | WrongChainError):
                last = None  # its state stays `failed` until the next snapshot, even one of the same block
            kind = "needs an endpoint with older state" if isinstance(error, PrunedError) else "trying again"
            log.error("%s; %s in %g s", error, kind, pause)
            time.sleep(pause)
            continue
        failures, last = 0, outcome.block
        tell(outcome, max(time.time() - outcome.block.timestamp, 0.0))


def pace_of(sync: Sync) -> float:
    """How many seconds snapshots are apart at least, by how fast the chain's blocks come: 0 for one at every block.

    Blocks that come faster than one a second are also not asked for one by one.
    """
    seconds = seconds_per_block(sync.chain, sync.chain.block("latest"))
    if seconds is None or seconds >= FAST:
        return 0.0
    sync.missing.by_range = True
    log.info(
        "%s makes %.0f blocks a second: a snapshot every %g s, and logs by range",
        sync.chain.name,
        1 / seconds,
        EVERY_SECONDS,
    )
    return EVERY_SECONDS
