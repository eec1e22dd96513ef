"""The logs of the last blocks, block by block, checked against the headers' bloom filters to notice omitted logs."""

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import product
from statistics import median

from indexer.chain.blocks import Header
from indexer.chain.bloom import false_positives, fullness, suspects
from indexer.chain.client import Chain
from indexer.errors import ChainError, ReorgError, RetryableError
from indexer.logs.block_logs import by_hashes
from indexer.logs.log_filter import EVERYTHING, Chunk, Filter, merged
from indexer.logs.omissions import explained, looked_up
from indexer.model import Block, Event

logger = logging.getLogger(__name__)

#: up to this many bits in its bloom filter, a block has so few logs (some 100) that all of them are asked for
SPARSE = 512
#: a bloom filter is useful while it gives fewer false positives per block than this
INFORMATIVE = 0.5
BLOCKS_PER_CHUNK = 64
#: number of last blocks that decide whether a chain is quiet or busy
LOOKED_AT = 8


def fetch_recent(
    chain: Chain,
    first: int,
    last: int,
    addresses: Iterable[str],
    topics: Iterable[str],
    target: Block,
    *,
    pairs: Collection[tuple[str, str]] | None = None,
    confirmations: int = 4,
) -> Iterator[Chunk]:
    """The wanted logs of first..last, among the last blocks up to `target`, each block asked for by its hash.

    `pairs` are the addresses and topics that belong together, and for which alone bloom filters are asked; None: all.

    If no log explains a block's bloom filter, each endpoint is asked once for the block's receipts; see
    `indexer.logs.omissions`. Where filters are too full to mean anything, that is done for at most `confirmations`
    blocks, newest first. Blocks that stay unexplained are `unconfirmed`. ReorgError if the blocks do not lead to `target`.
    """
    wanted = Filter.of(addresses, topics)
    sought = frozenset(product(wanted.addresses, wanted.topics) if pairs is None else pairs)
    headers = chain.headers_to(first, target)
    if headers[-1].block.hash != target.hash:
        raise ReorgError(f"block {target.number} ({target.hash}) left the canonical chain")
    headers = headers[: last - first + 1]
    for start in range(0, len(headers), BLOCKS_PER_CHUNK):
        chunk = _recent(chain, headers[start : start + BLOCKS_PER_CHUNK], wanted, sought, confirmations)
        confirmations -= len(chunk.unconfirmed)
        yield chunk


def quiet(chain: Chain, addresses: Iterable[str], topics: Iterable[str], target: Block) -> bool:
    """Whether bloom filters are empty enough on this chain to show missing logs, judged by the last few blocks."""
    wanted = Filter.of(addresses, topics)
    pairs = len(wanted.addresses) * len(wanted.topics)
    headers = chain.headers(max(target.number - LOOKED_AT + 1, 0), target.number)
    doubts = [false_positives(header.bloom, pairs) if header.bloom else math.inf for header in headers]
    return chain.blooms.trusted and median(doubts) <= INFORMATIVE


def _recent(
    chain: Chain,
    headers: Sequence[Header],
    wanted: Filter,
    pairs: Collection[tuple[str, str]],
    confirmations: int,
) -> Chunk:
    blocks = [header.block for header in headers]
    events, doubtful = _whole(chain, _sparse(chain, headers), wanted)
    others = [header.block for header in headers if header.block.hash not in events]
    if others:
        answers = by_hashes(chain, wanted, others)
        events |= {block.hash: logs for block, logs in zip(others, answers, strict=True)}
    unconfirmed: list[int] = []
    for header in reversed(headers if chain.blooms.kept == "exact" else []):
        bloom = header.bloom
        if header in doubtful or not bloom:
            continue
        if not suspects(bloom, pairs, events[header.block.hash]):
            continue
        if false_positives(bloom, len(pairs)) > INFORMATIVE:
            confirmations -= 1
            if confirmations < 0:
                unconfirmed.append(header.block.number)
                continue
        doubtful.append(header)
    omitted: list[Event] = []
    found = looked_up(chain, doubtful)
    for header in doubtful:
        seen = found.get(header.block.hash)
        if seen is None or not seen.complete:
            unconfirmed.append(header.block.number)
        came = events[header.block.hash]
        more = [event for event in wanted.select(seen.events if seen else []) if event not in set(came)]
        omitted += more
        events[header.block.hash] = merged([came, more])
    if omitted:
        numbers = sorted({event.block_number for event in omitted})
        logger.warning("%s left out %d logs of blocks %s", chain.endpoint, len(omitted), numbers)
    return Chunk(
        blocks[0].number,
        blocks[-1].number,
        [event for block in blocks for event in events[block.hash]],
        blocks[-1].hash,
        len(omitted),
        tuple(sorted(unconfirmed)),
    )


def _sparse(chain: Chain, headers: Sequence[Header]) -> list[Header]:
    """The headers of blocks with so few logs that all of them are asked for.

    Where bloom filters proved worthless, only the last block's, to see whether they still are.
    """
    if chain.blooms.kept != "exact":
        return []
    sparse = [header for header in headers if header.bloom is not None and fullness(header.bloom) <= SPARSE]
    return sparse if chain.blooms.trusted else sparse[-1:]


def _whole(chain: Chain, headers: Sequence[Header], wanted: Filter) -> tuple[dict[str, list[Event]], list[Header]]:
    """The wanted events by block hash, from all logs, and the headers whose bloom filters show more than these.

    All logs reveal even that one of two logs of the same kind is missing, if they name different accounts. Empty where a
    node refuses the request.
    """
    if not headers:
        return {}, []
    try:
        answers = by_hashes(chain, EVERYTHING, [header.block for header in headers])
    except ReorgError:
        raise
    except (RetryableError, ChainError) as error:
        logger.info("all logs of blocks %d and others: %s", headers[0].block.number, error)
        return {}, []
    pairs = list(zip(headers, answers, strict=True))
    events = {header.block.hash: wanted.select(logs) for header, logs in pairs}
    return events, [header for header, logs in pairs if not explained(chain, header, logs)]
