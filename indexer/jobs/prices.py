"""What `sync --prices` does beside the snapshots: the history of prices behind the oracles."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from indexer.errors import ChainError, ReorgError
from indexer.terminal.options import Moment
from indexer.text.console import remark
from indexer.text.values import many

if TYPE_CHECKING:
    from indexer.adapter import AnyAdapter
    from indexer.model import Block, Market
    from indexer.prices.history import Brought
    from indexer.sync.sync import Outcome, Sync

log = logging.getLogger(__name__)

#: how far back the history of prices goes unless --since says otherwise
SINCE_SECONDS = 400 * 86_400
TRIES = 5


def markets_of(worker: "Sync") -> "list[tuple[AnyAdapter, Market]]":
    """The deployments of the last snapshot with their markets."""
    return [
        (tracked.adapter, tracked.market) for tracked in worker.markets.tracked.values() if tracked.market is not None
    ]


def fill(worker: "Sync", since: int | Moment | None, block: "Block") -> None:
    """Brings the history of prices to the block of the last snapshot, or of a newer one after a reorganisation."""
    from indexer.prices.history import PriceHistory

    history = PriceHistory(worker.store, worker.chain, worker.missing.progress)
    for _ in range(TRIES):
        try:
            done = history.bring(markets_of(worker), block, first_second(worker, since, block))
        except ReorgError as error:
            log.warning("the chain was reorganised while prices were read, going on at the new head: %s", error)
            block = worker.snapshot().block
        else:
            remark(told(done))
            return


def first_second(worker: "Sync", since: int | Moment | None, block: "Block") -> int:
    """The time (unix seconds) that --since means; 400 days before the block where it is not given."""
    if isinstance(since, Moment):
        return since.since(block.timestamp)
    return block.timestamp - SINCE_SECONDS if since is None else worker.chain.block(min(since, block.number)).timestamp


def told(done: "Brought") -> str:
    """One line about what was brought."""
    text = f"{many(done.feeds, 'price feed')}, {many(done.rounds, 'new answer')}; `indexer oracles` and `indexer volatility` read them"
    if done.refused is not None:
        text += "; logs were refused, so rounds were read from the contracts' state"
    if done.differing:
        text += f"; {done.differing} of {done.checked} answers differ between logs and state: see the table audits"
    return text


def following(worker: "Sync") -> "Callable[[Outcome], None]":
    """What keeps the history of prices up to each snapshot of a chain that is followed."""
    from indexer.prices.following import FollowedPrices
    from indexer.prices.history import PriceHistory

    followed = FollowedPrices(PriceHistory(worker.store, worker.chain), lambda: markets_of(worker), SINCE_SECONDS)

    def look(outcome: "Outcome") -> None:
        try:
            done = followed.look(outcome.block)
        except ChainError as error:  # the snapshots go on
            log.warning("the prices behind the oracles could not be read; the next block tries again: %s", error)
            followed.whole_at = None
        else:
            if done is not None and done.rounds:
                remark(told(done))

    return look
