"""The logs of single blocks known by hash: asked so that a backend that lags errors instead of answering nothing, and
checked against the bloom filters of the headers, so that omitted logs are noticed.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from indexer.chain.blocks import Header, check_header, parse_block
from indexer.chain.bloom import false_positives, fullness, suspects
from indexer.chain.client import Call, Chain
from indexer.chain.errors import RejectedError, TooBigError, UnsupportedError
from indexer.chain.log_filter import EVERYTHING, Chunk, Filter, merged
from indexer.chain.omissions import block_logs, explained, looked_up
from indexer.errors import ChainError, ReorgError, RetryableError
from indexer.model import Block, Event

logger = logging.getLogger(__name__)

#: bits of a bloom filter up to which a block has so few logs (some 100) that all of them are asked for
SPARSE = 512
#: a bloom filter is worth believing while its false positives stay below this many per block
INFORMATIVE = 0.5
BLOCKS_PER_CHUNK = 64
#: blocks by which a chain is judged to be quiet or busy
LOOKED_AT = 8


def by_hash(chain: Chain, wanted: Filter, block: Block) -> list[Event]:
    """The wanted events of one block, asked by its hash (EIP-234)."""
    params = [{"blockHash": block.hash, **wanted.json()}]
    events: list[Event] = chain.request("eth_getLogs", params, lambda raw: block_logs(raw, wanted, block), block=block)
    return events


def fetch_recent(
    chain: Chain,
    first: int,
    last: int,
    addresses: Iterable[str],
    topics: Iterable[str],
    target: Block,
    *,
    confirmations: int = 4,
) -> Iterator[Chunk]:
    """The wanted logs of first..last, the last blocks up to `target` or some of them, block by block by hash.

    A block whose bloom filter shows what no log explains is looked up in the receipts of each endpoint, once; see
    `indexer.chain.omissions`. Where the filter is too full to mean anything, that is done for at most `confirmations`
    blocks, the newest first. What nobody explains is `unconfirmed`. ReorgError if the blocks do not lead to `target`.
    """
    wanted = Filter.of(addresses, topics)
    headers = chain.headers(first, target.number)
    if headers[-1].block.hash != target.hash:
        raise ReorgError(f"block {target.number} ({target.hash}) left the canonical chain")
    headers = headers[: last - first + 1]
    for start in range(0, len(headers), BLOCKS_PER_CHUNK):
        chunk = _recent(chain, headers[start : start + BLOCKS_PER_CHUNK], wanted, confirmations)
        confirmations -= len(chunk.unconfirmed)
        yield chunk


def quiet(chain: Chain, addresses: Iterable[str], topics: Iterable[str], target: Block) -> bool:
    """Whether bloom filters are empty enough here to show what is missing: those of most of the last few blocks."""
    wanted = Filter.of(addresses, topics)
    pairs = len(wanted.addresses) * len(wanted.topics)
    headers = chain.headers(max(target.number - LOOKED_AT + 1, 0), target.number)
    doubts = [false_positives(header.bloom, pairs) if header.bloom else math.inf for header in headers]
    return chain.blooms.trusted and median(doubts) <= INFORMATIVE


def _recent(chain: Chain, headers: Sequence[Header], wanted: Filter, confirmations: int) -> Chunk:
    blocks = [header.block for header in headers]
    events, doubtful = _whole(chain, _sparse(chain, headers), wanted)
    others = [header.block for header in headers if header.block.hash not in events]
    if others:
        answers = _by_hashes(chain, wanted, others)
        events |= {block.hash: logs for block, logs in zip(others, answers, strict=True)}
    unconfirmed: list[int] = []
    for header in reversed(headers if chain.blooms.kept == "exact" else []):
        bloom = header.bloom
        if header in doubtful or not bloom:
            continue
        if not suspects(bloom, wanted.addresses, wanted.topics, events[header.block.hash]):
            continue
        if false_positives(bloom, len(wanted.addresses) * len(wanted.topics)) > INFORMATIVE:
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
    """Those headers of blocks with few logs, which are asked for all of them.

    Where bloom filters proved worthless only the last block, to see whether they still are.
    """
    if chain.blooms.kept != "exact":
        return []
    sparse = [header for header in headers if header.bloom is not None and fullness(header.bloom) <= SPARSE]
    return sparse if chain.blooms.trusted else sparse[-1:]


def _whole(chain: Chain, headers: Sequence[Header], wanted: Filter) -> tuple[dict[str, list[Event]], list[Header]]:
    """The wanted events by block hash, out of all logs, and the headers whose bloom filters show more than these.

    So one of two logs of the same kind is missed too, if they name different accounts. Empty where a node refuses it.
    """
    if not headers:
        return {}, []
    try:
        answers = _by_hashes(chain, EVERYTHING, [header.block for header in headers])
    except ReorgError:
        raise
    except (RetryableError, ChainError) as error:
        logger.info("all logs of blocks %d and others: %s", headers[0].block.number, error)
        return {}, []
    pairs = list(zip(headers, answers, strict=True))
    events = {header.block.hash: wanted.select(logs) for header, logs in pairs}
    return events, [header for header, logs in pairs if not explained(chain, header, logs)]


def _by_hashes(chain: Chain, wanted: Filter, blocks: Sequence[Block]) -> list[list[Event]]:
    """The wanted events of each of some blocks, asked by hash in JSON-RPC batches."""
    known = {block.hash: block for block in blocks}
    try:
        answers: list[list[Event]] = chain.batch(
            [("eth_getLogs", [{"blockHash": block.hash, **wanted.json()}]) for block in blocks],
            lambda raw, call: block_logs(raw, wanted, known[call[1][0]["blockHash"]]),
            block=blocks[-1],
        )
    except (TooBigError, RejectedError, UnsupportedError) as error:
        logger.info("logs of blocks %d to %d one by one: %s", blocks[0].number, blocks[-1].number, error)
        return [_one_by_hash(chain, wanted, block) for block in blocks]
    return answers


def _one_by_hash(chain: Chain, wanted: Filter, block: Block) -> list[Event]:
    try:
        return by_hash(chain, wanted, block)
    except TooBigError as error:
        halves = wanted.halves()
        if not halves:
            raise ChainError(f"the logs of block {block.number} cannot be read: {error}") from None
        return merged([_one_by_hash(chain, half, block) for half in halves])
    except (RejectedError, UnsupportedError):
        return _by_number(chain, wanted, block)


def _by_number(chain: Chain, wanted: Filter, block: Block) -> list[Event]:
    """The wanted events of one block on nodes that know no EIP-234; the block at that number must be ours."""
    number = hex(block.number)

    def parse(raw: Any, call: Call) -> Any:
        if call[0] == "eth_getLogs":
            return block_logs(raw, wanted, block)
        return parse_block(check_header(raw, block.number))

    span = {"fromBlock": number, "toBlock": number}
    calls: list[tuple[str, list[Any]]] = [
        ("eth_getLogs", [{**span, **wanted.json()}]),
        ("eth_getBlockByNumber", [number, False]),
    ]
    events, found = chain.batch(calls, parse, block=block)
    if found.hash != block.hash:
        raise ReorgError(f"block {block.number} ({block.hash}) left the canonical chain")
    found_events: list[Event] = events
    return found_events
