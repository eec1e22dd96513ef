"""The table `liquidations` out of logs: those that a sync follows anyway, and older ones where it is asked for them."""

import logging
from collections.abc import Iterable, Iterator, Sequence

from indexer.adapter import AnyLiquidationLogs, Liquidated, LiquidationLogs, Quantity
from indexer.chain.blocks import Header, check_header, parse_header
from indexer.chain.client import Chain
from indexer.errors import PrunedError, ReorgError
from indexer.logs.numbering import Numbering
from indexer.logs.ranges import fetch
from indexer.model import Block, Event
from indexer.progress import Progress
from indexer.snapshot.tracked import TrackedDeployment, pairs_of
from indexer.store import liquidations
from indexer.store.liquidations import SOURCE, LiquidationRow
from indexer.store.store import Store

log = logging.getLogger(__name__)

#: so long after a log the market's prices still are those of its time
PRICED_SECONDS = 600
#: blocks of the back-fill that are fetched before older ones are begun
PIECE = 100_000

#: logs of one deployment that tell of liquidations, and what they tell
Found = list[tuple[Event, Liquidated]]


def told_by(tracked: TrackedDeployment, events: Iterable[Event]) -> Found:
    """What these events of a deployment tell of liquidations."""
    adapter = tracked.adapter
    if not isinstance(adapter, LiquidationLogs):
        return []
    told = ((event, adapter.liquidated(tracked.market, event)) for event in events)
    return [(event, one) for event, one in told if one is not None]


class Liquidations:
    """Rows of `liquidations`, and the back-fill of those before a deployment was followed."""

    def __init__(self, store: Store, chain: Chain, progress: Progress) -> None:
        self.store, self.chain, self.progress = store, chain, progress
        self.numbering = Numbering(chain)

    def rows(self, tracked: TrackedDeployment, found: Found) -> list[LiquidationRow]:
        """The rows of these logs, with the time of their blocks. ReorgError where a block has left the chain."""
        if not found:
            return []
        events = [event for event, _ in found]
        headers = headers_of(self.chain, events)
        indexes = self.numbering.indexes(events, headers)
        return [
            row(tracked, event, one, headers[event.block_hash].block, index)
            for (event, one), index in zip(found, indexes, strict=True)
        ]

    # before it was followed -----------------------------------------------------------------------------------------

    def backfill(self, deployments: Sequence[TrackedDeployment], since: int | None, target: Block) -> None:
        """Fetches the liquidations from block `since` (None: the first of each deployment) to the target, newest first.

        Saved chunk by chunk, so that what is done survives a kill. What no endpoint has any more is left out with a
        warning, and `deployments.liquidations_from_block` stays behind it.
        """
        pieces: list[tuple[TrackedDeployment, AnyLiquidationLogs, int, int]] = []
        for tracked in deployments:
            adapter = tracked.adapter
            if not isinstance(adapter, LiquidationLogs):
                log.warning("%s: its protocol does not say which logs tell of liquidations", tracked.name)
                continue
            if not pairs_of(adapter.liquidation_logs(tracked.market)):
                log.warning("%s: no contract is configured whose logs tell of liquidations", tracked.name)
                continue
            first = max(since or 0, adapter.deployment.start_block)
            gaps = tracked.ranges[SOURCE].missing(first, target.number) if first <= target.number else []
            pieces += [(tracked, adapter, *piece) for gap in reversed(gaps) for piece in newest_first(*gap)]
        self.progress.start("liquidations", sum(last - first + 1 for *_, first, last in pieces), "blocks")
        for piece in pieces:
            self._fetch(*piece)
        self.progress.done("liquidations")

    def _fetch(self, tracked: TrackedDeployment, adapter: AnyLiquidationLogs, first: int, last: int) -> None:
        pairs = pairs_of(adapter.liquidation_logs(tracked.market))
        addresses, topics = {address for address, _ in pairs}, {topic for _, topic in pairs}
        try:
            for chunk in fetch(self.chain, first, last, addresses, topics) if pairs else ():
                events = [event for event in chunk.events if (event.address, event.topic0) in pairs]
                self._save(tracked, self.rows(tracked, told_by(tracked, events)), chunk.from_block, chunk.to_block)
                self.progress.advance("liquidations", chunk.to_block - chunk.from_block + 1)
                first = chunk.to_block + 1
        except PrunedError as error:
            if first < last:
                middle = (first + last) // 2
                self._fetch(tracked, adapter, middle + 1, last)
                self._fetch(tracked, adapter, first, middle)
            else:
                log.warning("%s: the logs of block %d are pruned on every endpoint: %s", tracked.name, first, error)

    def _save(self, tracked: TrackedDeployment, rows: Sequence[LiquidationRow], first: int, last: int) -> None:
        with self.store.transaction() as conn:
            liquidations.save(conn, rows)
            tracked.ranges.add([SOURCE], first, last)
            if tracked.market is not None:
                liquidations.settle(conn, (tracked.chain_id, tracked.name), tracked.market.block.number)


def headers_of(chain: Chain, events: Sequence[Event]) -> dict[str, Header]:
    """The headers of the events' blocks by hash. ReorgError where a block has left the chain."""
    hashes = {event.block_number: event.block_hash for event in events}
    headers = chain.batch(
        [("eth_getBlockByNumber", [hex(number), False]) for number in hashes],
        lambda raw, call: parse_header(check_header(raw, int(call[1][0], 16))),
    )
    for number, header in zip(hashes, headers, strict=True):
        if header.block.hash != hashes[number]:
            raise ReorgError(f"block {number} ({hashes[number]}) left the canonical chain")
    return {header.block.hash: header for header in headers}


def newest_first(first: int, last: int) -> Iterator[tuple[int, int]]:
    """A range in pieces, the newest first."""
    while first <= last:
        start = max(first, last - PIECE + 1)
        yield start, last
        last = start - 1


def row(tracked: TrackedDeployment, event: Event, one: Liquidated, block: Block, index: int) -> LiquidationRow:
    """A row of `liquidations`; values only where the market's prices are those of that time."""
    valued = one.told_usd or tracked.market.block.timestamp - block.timestamp <= PRICED_SECONDS
    return LiquidationRow(
        tracked.chain_id,
        tracked.name,
        tracked.adapter.protocol,
        block.number,
        block.hash,
        index,
        block.timestamp,
        event.transaction_hash,
        one.key.account,
        one.key.group,
        one.liquidator,
        *columns(one.repaid, valued),
        *columns(one.seized, valued),
    )


def columns(taken: Quantity | None, valued: bool) -> tuple[str | None, str | None, float | None, float | None]:
    """Asset, exact amount, amount in whole tokens, USD."""
    if taken is None:
        return None, None, None, None
    whole = None if taken.decimals is None else taken.amount / 10**taken.decimals
    return taken.asset, str(taken.amount), whole, taken.usd if valued else None


def first_block_since(chain: Chain, timestamp: int, last: Block) -> int:
    """The first block up to `last` that is not older than a time (unix seconds), by bisection of headers; `last` + 1 if none."""
    low, high = 0, last.number + 1  # blocks before `low` are older, those from `high` on are not
    if last.timestamp < timestamp:
        return high
    high = last.number
    while low < high:
        middle = (low + high) // 2
        if chain.block(middle).timestamp < timestamp:
            low = middle + 1
        else:
            high = middle
    return low
