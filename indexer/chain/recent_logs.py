"""The logs of single blocks known by hash: asked so that a backend that lags errors instead of answering nothing, and
checked against the bloom filters of the headers, so that omitted logs are noticed.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from indexer.chain.blocks import Header, check_header, parse_block
from indexer.chain.bloom import bloom_of, false_positives, fullness, suspects
from indexer.chain.client import Call, Chain
from indexer.chain.errors import BadAnswerError, RejectedError, TooBigError, UnknownBlockError, UnsupportedError
from indexer.chain.log_filter import EVERYTHING, Chunk, Filter, events_of, merged
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
#: a mainnet block's receipts are about 1 MB of JSON
RECEIPTS_PER_BATCH = 8


def by_hash(chain: Chain, wanted: Filter, block: Block) -> list[Event]:
    """The wanted events of one block, asked by its hash (EIP-234)."""
    params = [{"blockHash": block.hash, **wanted.json()}]
    events: list[Event] = chain.request(
        "eth_getLogs", params, lambda raw: _parse_block_logs(raw, wanted, block), block=block
    )
    return events


def _parse_block_logs(raw: Any, wanted: Filter, block: Block) -> list[Event]:
    if raw is None:
        raise UnknownBlockError(f"block {block.number} is not known")
    if not isinstance(raw, list):
        raise BadAnswerError("eth_getLogs: the answer is no list")
    events = events_of(raw, wanted, block.number, block.number)
    if events and events[0].block_hash != block.hash:
        raise BadAnswerError(f"eth_getLogs: logs of block {events[0].block_hash} instead of {block.hash}")
    return events


def by_receipts(chain: Chain, header: Header, wanted: Filter) -> list[Event]:
    """The wanted events of one block out of its receipts, which must reproduce the header's bloom filter."""
    events = chain.request(
        "eth_getBlockReceipts",
        [header.block.hash],
        lambda raw: _receipt_logs(_receipts_or_unknown(raw), header),
        block=header.block,
        feature="eth_getBlockReceipts",
    )
    return wanted.select(events)


def _receipt_logs(raw: Any, header: Header) -> list[Event]:
    """All events of a block's receipts. BadAnswerError unless they are those of that block, all of them."""
    try:
        logs = [log for receipt in raw for log in receipt["logs"]]
    except (TypeError, KeyError):
        raise BadAnswerError("eth_getBlockReceipts: malformed receipts") from None
    return _complete(_parse_block_logs(logs, EVERYTHING, header.block), header)


def _by_all_logs(chain: Chain, header: Header, wanted: Filter) -> list[Event]:
    """The wanted events of one block out of all its logs, which must reproduce the header's bloom filter."""
    params = [{"blockHash": header.block.hash}]
    events = chain.request(
        "eth_getLogs",
        params,
        lambda raw: _complete(_parse_block_logs(raw, EVERYTHING, header.block), header),
        block=header.block,
    )
    return wanted.select(events)


def _complete(events: list[Event], header: Header) -> list[Event]:
    if bloom_of(events) != header.bloom:
        raise BadAnswerError(f"the logs of block {header.block.number} do not reproduce its bloom filter")
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

    A block whose bloom filter shows a wanted pair that did not come is read again from its receipts (or all its logs).
    Where the filter is too full to mean anything, that is done for at most `confirmations` blocks, the newest first; the
    others are `unconfirmed`. ReorgError if the blocks do not lead to `target`.
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
    return median(false_positives(header.bloom, pairs) for header in headers) <= INFORMATIVE


def _recent(chain: Chain, headers: Sequence[Header], wanted: Filter, confirmations: int) -> Chunk:
    blocks = [header.block for header in headers]
    events, doubtful = _sparse(chain, [header for header in headers if fullness(header.bloom) <= SPARSE], wanted)
    others = [header.block for header in headers if header.block.hash not in events]
    if others:
        answers = _by_hashes(chain, wanted, others)
        events |= {block.hash: logs for block, logs in zip(others, answers, strict=True)}
    unconfirmed: list[int] = []
    for header in reversed(headers):
        if header in doubtful or not suspects(header.bloom, wanted.addresses, wanted.topics, events[header.block.hash]):
            continue
        if false_positives(header.bloom, len(wanted.addresses) * len(wanted.topics)) > INFORMATIVE:
            confirmations -= 1
            if confirmations < 0:
                unconfirmed.append(header.block.number)
                continue
        doubtful.append(header)
    omitted: list[Event] = []
    for header, found in zip(doubtful, _verified(chain, doubtful, wanted), strict=True):
        if found is None:
            unconfirmed.append(header.block.number)
            continue
        came = set(events[header.block.hash])
        omitted += [event for event in found if event not in came]
        events[header.block.hash] = found
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


def _sparse(chain: Chain, headers: Sequence[Header], wanted: Filter) -> tuple[dict[str, list[Event]], list[Header]]:
    """The wanted events by block hash, out of all logs, and the headers whose bloom filters these do not reproduce.

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
    return events, [header for header, logs in pairs if bloom_of(logs) != header.bloom]


def _verified(chain: Chain, headers: Sequence[Header], wanted: Filter) -> list[list[Event] | None]:
    """`verify_block` for several blocks, their receipts asked in JSON-RPC batches."""
    found: list[list[Event] | None] = []
    for start in range(0, len(headers), RECEIPTS_PER_BATCH):
        part = headers[start : start + RECEIPTS_PER_BATCH]
        calls = [("eth_getBlockReceipts", [header.block.hash]) for header in part]
        try:
            answers = chain.batch(calls, lambda raw, _: _receipts_or_unknown(raw), block=part[-1].block)
        except ReorgError:
            raise
        except ChainError as error:
            logger.info("receipts of blocks %d and others: %s", part[0].block.number, error)
            answers = [None] * len(part)
        for header, raw in zip(part, answers, strict=True):
            try:
                found.append(wanted.select(_receipt_logs(raw, header)))
            except RetryableError:
                found.append(verify_block(chain, header, wanted.addresses, wanted.topics))
    return found


def _receipts_or_unknown(raw: Any) -> Any:
    if raw is None:
        raise UnknownBlockError("a block is not known")
    return raw


def _by_hashes(chain: Chain, wanted: Filter, blocks: Sequence[Block]) -> list[list[Event]]:
    """The wanted events of each of some blocks, asked by hash in JSON-RPC batches."""
    known = {block.hash: block for block in blocks}
    try:
        answers: list[list[Event]] = chain.batch(
            [("eth_getLogs", [{"blockHash": block.hash, **wanted.json()}]) for block in blocks],
            lambda raw, call: _parse_block_logs(raw, wanted, known[call[1][0]["blockHash"]]),
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
            return _parse_block_logs(raw, wanted, block)
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


def verify_block(chain: Chain, header: Header, addresses: Iterable[str], topics: Iterable[str]) -> list[Event] | None:
    """The wanted events of a block from its receipts, proved complete by its bloom filter; None if no endpoint can.

    Proved up to false positives of the filter: receipts that lack a log whose address and topics are all in the filter
    by chance or by other logs are not told apart.
    """
    wanted = Filter.of(addresses, topics)
    for attempt in (by_receipts, _by_all_logs):
        try:
            return attempt(chain, header, wanted)
        except ReorgError:
            raise
        except (RetryableError, ChainError) as error:
            logger.info("block %d cannot be verified: %s", header.block.number, error)
    return None
