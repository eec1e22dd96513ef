"""The logs of blocks known by hash, asked for so that a lagging backend fails instead of answering with none.

They are asked for by blockHash (EIP-234) or, where a node refuses or ignores that, by number together with the hash there.
"""

import logging
from collections.abc import Sequence
from typing import Any

from indexer.chain.blocks import check_header, parse_block, quantity
from indexer.chain.client import Call, Chain
from indexer.chain.errors import (
    BadAnswerError,
    OtherBlockError,
    RejectedError,
    TooBigError,
    UnknownBlockError,
    UnsupportedError,
)
from indexer.errors import ChainError, ReorgError
from indexer.logs.log_filter import Filter, events_of, merged
from indexer.model import Block, Event

logger = logging.getLogger(__name__)

#: answers in a row with logs of other blocks, after which the node counts as ignoring blockHash
IGNORED_AFTER = 3


def block_logs(raw: Any, wanted: Filter, block: Block) -> list[Event]:
    """The wanted events of one block from an answer of eth_getLogs. RetryableError if they are of another block."""
    if raw is None:
        raise UnknownBlockError(f"block {block.number} is not known")
    if not isinstance(raw, list):
        raise BadAnswerError("eth_getLogs: the answer is no list")
    numbers = {_number(log.get("blockNumber")) for log in raw if isinstance(log, dict)}
    if numbers and block.number not in numbers:
        raise OtherBlockError(f"eth_getLogs: logs of block {min(numbers)} instead of {block.number}")
    events = events_of(raw, wanted, block.number, block.number)
    if events and events[0].block_hash != block.hash:
        raise OtherBlockError(f"eth_getLogs: logs of block {events[0].block_hash} instead of {block.hash}")
    return events


def _number(value: Any) -> int:
    """The number of a log's block, with leading zeros or without; -1 for what is none."""
    try:
        return quantity(value)
    except ValueError:
        return -1


def by_hash(chain: Chain, wanted: Filter, block: Block) -> list[Event]:
    """The wanted events of one block, asked for by its hash. TooBigError or RejectedError where a node refuses that."""
    return _asked(chain, wanted, [block])[0]


def by_hashes(chain: Chain, wanted: Filter, blocks: Sequence[Block]) -> list[list[Event]]:
    """The wanted events of each of some blocks, in JSON-RPC batches."""
    ignored = chain.ignores_block_hash
    try:
        return _asked(chain, wanted, blocks)
    except (TooBigError, RejectedError, UnsupportedError) as error:
        if chain.ignores_block_hash != ignored:
            return by_hashes(chain, wanted, blocks)
        logger.info("logs of blocks %d to %d one by one: %s", blocks[0].number, blocks[-1].number, error)
    events: list[list[Event]] = []
    while len(events) < len(blocks) and not chain.ignores_block_hash:
        events.append(_one(chain, wanted, blocks[len(events)]))
    rest = blocks[len(events) :]
    return [*events, *by_numbers(chain, wanted, rest)] if rest else events


def _asked(chain: Chain, wanted: Filter, blocks: Sequence[Block]) -> list[list[Event]]:
    if chain.ignores_block_hash:
        return by_numbers(chain, wanted, blocks)
    known = {block.hash: block for block in blocks}
    answers: list[list[Event]] = chain.batch(
        [("eth_getLogs", [{"blockHash": block.hash, **wanted.json()}]) for block in blocks],
        lambda raw, call: _of_hash(chain, raw, wanted, known[call[1][0]["blockHash"]]),
        block=blocks[-1],
    )
    return answers


def _of_hash(chain: Chain, raw: Any, wanted: Filter, block: Block) -> list[Event]:
    """As `block_logs`. RejectedError once the node has been seen to ignore the hash."""
    try:
        events = block_logs(raw, wanted, block)
    except OtherBlockError as error:
        chain.other_blocks += 1
        if chain.other_blocks < IGNORED_AFTER:
            raise
        chain.ignores_block_hash = True
        logger.info("%s ignores blockHash in eth_getLogs, logs are asked by number", chain.endpoint)
        raise RejectedError(str(error)) from None
    if events:
        chain.other_blocks = 0
    return events


def _one(chain: Chain, wanted: Filter, block: Block) -> list[Event]:
    try:
        return _asked(chain, wanted, [block])[0]
    except TooBigError as error:
        halves = wanted.halves()
        if not halves:
            raise ChainError(f"the logs of block {block.number} cannot be read: {error}") from None
        return merged([_one(chain, half, block) for half in halves])
    except (RejectedError, UnsupportedError):
        events = by_numbers(chain, wanted, [block])[0]
        chain.ignores_block_hash = True
        return events


def by_numbers(chain: Chain, wanted: Filter, blocks: Sequence[Block]) -> list[list[Event]]:
    """The wanted events of each of some blocks; ReorgError where another block has the number."""
    known = {hex(block.number): block for block in blocks}

    def parse(raw: Any, call: Call) -> Any:
        if call[0] == "eth_getLogs":
            return block_logs(raw, wanted, known[call[1][0]["fromBlock"]])
        return parse_block(check_header(raw, int(call[1][0], 16)))

    calls: list[Call] = []
    for number in known:
        calls.append(("eth_getLogs", [{"fromBlock": number, "toBlock": number, **wanted.json()}]))
        calls.append(("eth_getBlockByNumber", [number, False]))
    answers = chain.batch(calls, parse, block=blocks[-1])
    for block, found in zip(blocks, answers[1::2], strict=True):
        if found.hash != block.hash:
            raise ReorgError(f"block {block.number} ({block.hash}) left the canonical chain")
    events: list[list[Event]] = answers[::2]
    return events
