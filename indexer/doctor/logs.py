"""Whether the logs of a block can be had in more than one way, and whether its bloom filter is that of its logs."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from indexer.chain.blocks import Header
from indexer.chain.bloom import bloom_of
from indexer.chain.client import Chain
from indexer.chain.errors import OtherBlockError
from indexer.config import ChainConfig
from indexer.doctor.finding import Finding, Verdict
from indexer.errors import ChainError, RetryableError
from indexer.logs.block_logs import block_logs, by_numbers
from indexer.logs.log_filter import EVERYTHING
from indexer.logs.omissions import RECEIPTS, receipt_logs
from indexer.model import Block, Event

#: blocks whose filters are compared, the newest first, and how many with logs suffice
LOOKED_AT, ENOUGH = 32, 8
#: blocks whose receipts are compared
COMPARED = 4
Kept = Literal["exact", "partial", "none"]


def by_block_hash(chain: Chain, _: ChainConfig, at: Block) -> Finding:
    """Whether eth_getLogs takes the hash of a block (EIP-234)."""
    block = _with_logs(chain, at)
    try:
        found = chain.request(
            "eth_getLogs", [{"blockHash": block.hash}], lambda raw: block_logs(raw, EVERYTHING, block)
        )
    except OtherBlockError:
        found = None
    except (ChainError, RetryableError) as error:
        if "instead of" not in str(error):
            text = f"logs cannot be asked for by the hash of a block, they are by number: {error}"
            return Finding("", Verdict.WARNING, text, value=False)
        found = None
    (expected,) = by_numbers(chain, EVERYTHING, [block])
    if found is None or (expected and not found):
        text = "ignores the hash of a block in eth_getLogs: logs are asked for by number"
        return Finding("", Verdict.WARNING, text, value=False)
    return Finding("", Verdict.OK, "logs are asked for by the hash of the block", value=True)


def receipts(chain: Chain, _: ChainConfig, at: Block) -> Finding:
    """Whether all receipts of a block come at once, and have the logs that eth_getLogs has."""
    for number in range(max(at.number - COMPARED + 1, 0), at.number + 1):
        block = chain.block(number)
        try:
            found = chain.request(RECEIPTS, [block.hash], partial(receipt_logs, block=block))
        except (ChainError, RetryableError):
            text = "no receipts of a whole block: logs that the endpoint leaves out are harder to recover"
            return Finding("", Verdict.WARNING, text, value=False)
        (logs,) = by_numbers(chain, EVERYTHING, [block])
        if len(found) != len(logs):
            text = f"block {number}: {len(found)} logs in its receipts, {len(logs)} by eth_getLogs; some are left out"
            return Finding("", Verdict.ERROR, text, value=False)
    return Finding("", Verdict.OK, "receipts of a whole block, with the same logs", value=True)


def bloom(chain: Chain, config: ChainConfig, at: Block) -> Finding:
    """Whether bloom filters are those of their blocks' logs."""
    pairs = _sample(chain, at)
    if not pairs:
        return Finding("", Verdict.OK, f"not known: no logs in {LOOKED_AT} blocks")
    kept, unexplained = measured_bloom(pairs)
    if unexplained and config.bloom == "exact":
        text = f"block {unexplained} shows logs that the endpoint does not return: it leaves some out, or `{kept}` fits"
        return Finding("", Verdict.WARNING, text, value=kept)
    if kept != config.bloom and not (kept == "exact" and config.bloom == "partial"):
        text = f'`bloom = "{config.bloom}"` is configured; of {len(pairs)} blocks with logs, `{kept}` holds'
        return Finding("", Verdict.WARNING, text, value=kept)
    return Finding("", Verdict.OK, f"`{kept}` in {len(pairs)} blocks with logs", value=kept)


def measured_bloom(pairs: Sequence[tuple[Header, Sequence[Event]]]) -> tuple[Kept, int | None]:
    """What the filters of blocks with logs are, and the first block whose filter shows more than its logs."""
    exact = partial = True
    unexplained = None
    for header, logs in pairs:
        real = int.from_bytes(bloom_of(logs))
        shown = int.from_bytes(header.bloom or b"")
        exact = exact and shown == real
        partial = partial and shown != 0 and not shown & ~real
        if header.bloom and shown & ~real and unexplained is None:
            unexplained = header.block.number
    return "exact" if exact else "partial" if partial else "none", unexplained


def _sample(chain: Chain, at: Block) -> list[tuple[Header, list[Event]]]:
    """The newest blocks that have logs or whose filters say so, with their headers and all their logs."""
    headers = chain.headers(max(at.number - LOOKED_AT + 1, 0), at.number)
    found: list[tuple[Header, list[Event]]] = []
    for header in reversed(headers):
        (logs,) = by_numbers(chain, EVERYTHING, [header.block])
        if logs or (header.bloom and any(header.bloom)):
            found.append((header, logs))
        if len(found) == ENOUGH:
            break
    return found


def _with_logs(chain: Chain, at: Block) -> Block:
    """The newest of the last blocks that has logs, else `at`."""
    first = max(at.number - LOOKED_AT + 1, 0)
    for number in range(at.number, first, -1):
        block = chain.block(number)
        if by_numbers(chain, EVERYTHING, [block])[0]:
            return block
    return at
