"""Logs that a node left out of a block, as the bloom filter of the block's header reveals.

The direction of the mismatch decides. If the filter lacks the bits of some logs, the filter is at fault (some chains leave
out the logs of system transactions, some serve zeros), and the logs are used. If no log explains some bits, logs count as
missing until shown otherwise: each endpoint is asked once for the receipts; what none explains stays unconfirmed, and the
sums over all positions decide. A filter that is wrong in block after block is a trait of the chain, not a passing fault.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.chain.blocks import Header
from indexer.chain.bloom import bloom_of
from indexer.chain.client import Call, Chain
from indexer.chain.endpoint import Endpoint
from indexer.chain.errors import BadAnswerError, UnknownBlockError, UnsupportedError
from indexer.errors import ChainError, ReorgError
from indexer.logs.block_logs import block_logs, by_numbers
from indexer.logs.log_filter import EVERYTHING, Filter, merged
from indexer.model import Block, Event

logger = logging.getLogger(__name__)

#: a mainnet block's receipts are about 1 MB of JSON
RECEIPTS_PER_BATCH = 8
RECEIPTS = "eth_getBlockReceipts"
#: rounds through the endpoints for what a second look would be nice to have for
LOOK_ROUNDS = 3
#: requests for receipts in a row that failed, after which no more are made
LOST_RECEIPTS = 2


@dataclass(slots=True)
class Seen:
    """All events of a block that any endpoint returned, and whether they explain its bloom filter."""

    events: list[Event]
    complete: bool = False


def receipt_logs(raw: Any, block: Block) -> list[Event]:
    """All events of a block's receipts. RetryableError unless they are that block's."""
    if raw is None:
        raise UnknownBlockError(f"block {block.number} is not known")
    try:
        logs = [log for receipt in raw for log in receipt["logs"]]
    except (TypeError, KeyError):
        raise BadAnswerError(f"{RECEIPTS}: malformed receipts") from None
    return block_logs(logs, EVERYTHING, block)


def explained(chain: Chain, header: Header, logs: Sequence[Event]) -> bool:
    """Whether these, as all logs of a block, explain every bit of its bloom filter."""
    if header.bloom is None:
        return True
    shown, real = int.from_bytes(header.bloom), int.from_bytes(bloom_of(logs))
    if shown & ~real:
        return False
    if real & ~shown:
        chain.blooms.wrong(f"block {header.block.number} has logs that its bloom filter lacks")
    elif real:
        chain.blooms.right()
    return True


def looked_up(chain: Chain, headers: Sequence[Header]) -> dict[str, Seen]:
    """By block hash, what the endpoints return for blocks whose bloom filters show more logs than came."""
    found: dict[str, Seen] = {}
    for start in range(0, len(headers), RECEIPTS_PER_BATCH):
        part = list(headers[start : start + RECEIPTS_PER_BATCH])
        if not chain.blooms.trusted:
            break
        left = _add(chain, found, part, _shown(chain, part))
        for endpoint in chain.in_turn()[1:]:
            left = _add(chain, found, left, _shown_by(chain, endpoint, left)) if left else []
        for header in left:
            if header.block.hash in found:
                chain.blooms.wrong(f"no endpoint has logs for all of the bloom filter of block {header.block.number}")
    return found


def _add(
    chain: Chain, found: dict[str, Seen], headers: Sequence[Header], shown: Sequence[list[Event] | None]
) -> list[Header]:
    """Adds what was returned for some blocks; returns the blocks that it does not explain."""
    left = []
    for header, logs in zip(headers, shown, strict=True):
        seen = found.setdefault(header.block.hash, Seen([])) if logs is not None else None
        if seen is not None and logs is not None:
            known = set(seen.events)
            seen.events = merged([seen.events, [event for event in logs if event not in known]])
            seen.complete = explained(chain, header, seen.events)
        if seen is None or not seen.complete:
            left.append(header)
    return left


def _calls(method: str, headers: Sequence[Header]) -> tuple[list[Call], Callable[[Any, Call], list[Event]]]:
    """The requests for all logs of some blocks, by receipts or by eth_getLogs, and the parsers of their answers."""
    blocks = {header.block.hash: header.block for header in headers}

    def parse(raw: Any, call: Call) -> list[Event]:
        if call[0] == RECEIPTS:
            return receipt_logs(raw, blocks[call[1][0]])
        return block_logs(raw, EVERYTHING, blocks[call[1][0]["blockHash"]])

    return [(method, [known if method == RECEIPTS else {"blockHash": known}]) for known in blocks], parse


def _shown(chain: Chain, headers: Sequence[Header]) -> Sequence[list[Event] | None]:
    """All events of each block from whichever endpoint answers, with few retries; None where none answers.

    A node may fail on the receipts of every block (sei-protocol/sei-chain 1815): that is no passing fault for long.
    """
    calls, parse = _calls(RECEIPTS, headers)
    blocks = [header.block for header in headers]
    looks: list[Callable[[Chain], list[list[Event]]]] = [
        lambda chain: chain.batch(calls, parse, block=blocks[-1]),
        lambda chain: by_numbers(chain, EVERYTHING, blocks),
    ]
    by_receipts = not all(RECEIPTS in endpoint.unsupported for endpoint in chain.in_turn())
    for look in looks if by_receipts else looks[1:]:
        try:
            with chain.patient(LOOK_ROUNDS) as hurried:
                answers = look(hurried)
        except ReorgError:
            raise
        except UnsupportedError:
            for endpoint in chain.in_turn():
                endpoint.unsupported.add(RECEIPTS)
        except ChainError as error:
            logger.info("all logs of blocks %d and others: %s", blocks[0].number, error)
            if look is looks[0]:
                for endpoint in chain.in_turn():
                    endpoint.lost_receipts += 1
                    if endpoint.lost_receipts >= LOST_RECEIPTS:
                        endpoint.unsupported.add(RECEIPTS)
        else:
            if look is looks[0]:
                chain.in_use.lost_receipts = 0
            return [answer if isinstance(answer, list) else None for answer in answers]
    return [None] * len(headers)


def _shown_by(chain: Chain, endpoint: Endpoint, headers: Sequence[Header]) -> Sequence[list[Event] | None]:
    """All events of each block from one endpoint's receipts or, where it serves none, its logs; None for no answer."""
    answers = chain.ask_once(endpoint, *_calls(RECEIPTS, headers), feature=RECEIPTS)
    if RECEIPTS in endpoint.unsupported:
        answers = chain.ask_once(endpoint, *_calls("eth_getLogs", headers))
    return answers


def by_receipts(chain: Chain, header: Header, wanted: Filter) -> list[Event]:
    """The wanted events of one block from its receipts, of every endpoint where the first's do not explain its bloom."""
    events: list[Event] = chain.request(
        RECEIPTS, [header.block.hash], lambda raw: receipt_logs(raw, header.block), block=header.block, feature=RECEIPTS
    )
    if not explained(chain, header, events):
        seen = looked_up(chain, [header]).get(header.block.hash)
        known = set(events)
        events = merged([events, [event for event in (seen.events if seen else []) if event not in known]])
    return wanted.select(events)
