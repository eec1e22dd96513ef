"""Logs of any block range from any provider: in windows that fit its limits, with every answer checked.

History (`fetch`) is asked for by block numbers in windows that grow and shrink; the last blocks before the head
(`fetch_recent`, in recent_logs.py) by block hash.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from indexer.chain.blocks import check_header, parse_block, parse_header
from indexer.chain.client import Call, Chain
from indexer.chain.errors import (
    BadAnswerError,
    CutShortError,
    RejectedError,
    TooBigError,
    UnknownBlockError,
    UnsupportedError,
)
from indexer.errors import ChainError, ReorgError
from indexer.logs.block_logs import by_hash
from indexer.logs.lean import Looked, Named, Pair, looked_through
from indexer.logs.log_filter import Chunk, Filter, events_of, merged
from indexer.logs.omissions import by_receipts
from indexer.logs.recent_logs import fetch_recent, quiet
from indexer.logs.windows import LOGS_LOOKED_THROUGH, Answered, always, in_windows
from indexer.model import Event, Shape

__all__ = ["Chunk", "Filter", "discover", "fetch", "fetch_recent", "quiet"]

logger = logging.getLogger(__name__)


def fetch(
    chain: Chain,
    from_block: int,
    to_block: int,
    addresses: Iterable[str],
    topics: Iterable[str],
    *,
    on_progress: Callable[[int, int], None] | None = None,
    go_on: Callable[[], bool] = always,
) -> Iterator[Chunk]:
    """The wanted logs of a range as ascending, contiguous chunks; `on_progress(block, events so far)` after each.

    Several are asked for at once, as long as `go_on()`. Raises PrunedError where no endpoint holds that history, ReorgError
    where a block changed meanwhile, ChainError for anything that retries do not cure.
    """
    wanted = Filter.of(addresses, topics)
    total = 0

    def read(first: int, last: int) -> Answered[Chunk]:
        events, end_hash, logs = _range(chain, wanted, first, last)
        return Answered(Chunk(first, last, events, end_hash), logs)

    def alone(first: int, _: int, error: ChainError) -> Iterator[Chunk]:
        events, end_hash = _single_block(chain, wanted, first, error)
        yield Chunk(first, first, events, end_hash)

    for chunk in in_windows(chain, from_block, to_block, read, alone, go_on):
        total += len(chunk.events)
        yield chunk
        if on_progress is not None:
            on_progress(chunk.to_block, total)


def discover(
    chain: Chain,
    from_block: int,
    to_block: int,
    wanted: Filter,
    shapes: Mapping[Pair, Shape],
    go_on: Callable[[], bool] = always,
) -> Iterator[Named]:
    """Whom the wanted logs of settled blocks name, as ascending, contiguous pieces; otherwise like `fetch`.

    Logs of one of the `shapes`, by (address, topic0), are only looked through; the others become events. No header is
    asked for with each answer: an endpoint shows once that it knows the last block, which a reorg no longer reaches.
    """

    def read(first: int, last: int) -> Answered[Named]:
        found = _look_through(chain, wanted, shapes, first, last, to_block)
        return Answered(found, [found.count])

    def exactly(first: int, last: int, _: ChainError | None = None) -> Iterator[Named]:
        for chunk in fetch(chain, first, last, wanted.addresses, wanted.topics, go_on=go_on):
            yield Named(chunk.from_block, chunk.to_block, events=chunk.events, count=len(chunk.events))

    if chain.log_limit.addresses is None:
        yield from in_windows(
            chain, from_block, to_block, read, exactly, go_on, narrows=TooBigError, most_logs=LOGS_LOOKED_THROUGH
        )
    else:  # so many addresses are asked in parts
        yield from exactly(from_block, to_block)


def _look_through(
    chain: Chain, wanted: Filter, shapes: Mapping[Pair, Shape], first: int, last: int, known: int
) -> Named:
    """Whom the logs name, from an endpoint that knows the block `known`."""

    def parse(raw: Any) -> Named:
        count = raw.named.count if isinstance(raw, Looked) else len(raw) if isinstance(raw, list) else 0
        if first == last and chain.log_limit.cut_short(count):
            raise CutShortError(f"eth_getLogs: exactly {count} results, there may be more")
        if isinstance(raw, Looked):
            return raw.named
        events = _parse(raw, "eth_getLogs", wanted, first, last)
        return Named(first, last, events=events, count=len(events))

    def look(content: bytearray) -> Looked | None:
        return looked_through(content, shapes, wanted, first, last)

    asked = {"fromBlock": hex(first), "toBlock": hex(last), **wanted.json()}
    found: Named = chain.request("eth_getLogs", [asked], parse, splittable=True, decode=look, known=known)
    return found


def _range(chain: Chain, wanted: Filter, first: int, last: int) -> tuple[list[Event], str, list[int]]:
    """The events of first..last, the hash of block `last`, read after the logs in the same HTTP batch, and how many logs
    each answer had. TooBigError for a single block whose answer may be cut short, if it can be split.
    """
    parts = wanted.by_addresses(chain.log_limit.addresses)
    calls: list[tuple[str, list[Any]]] = [
        ("eth_getLogs", [{"fromBlock": hex(first), "toBlock": hex(last), **part.json()}]) for part in parts
    ]
    calls.append(("eth_getBlockByNumber", [hex(last), False]))
    splittable = first < last or bool(wanted.halves())
    counts: dict[str, int] = {}  # by what was asked, as an answer may come twice

    def parse(raw: Any, call: Call) -> Any:
        if call[0] == "eth_getLogs" and isinstance(raw, list):
            if splittable and first == last and chain.log_limit.cut_short(len(raw)):
                raise CutShortError(f"eth_getLogs: exactly {len(raw)} results, there may be more")
            counts[str(call[1])] = len(raw)
        return _parse(raw, call[0], wanted, first, last)

    try:
        *answers, header = chain.batch(calls, parse, splittable=splittable)
    except (TooBigError, RejectedError) as error:
        if _names_addresses(str(error)) and len(parts[0].addresses) > 1:
            chain.log_limit.addresses = len(parts[0].addresses) // 2
            logger.info("eth_getLogs: now at most %d addresses a request", chain.log_limit.addresses)
            return _range(chain, wanted, first, last)
        raise
    events = merged(answers)
    if events and events[-1].block_number == last and events[-1].block_hash != header.hash:
        raise ReorgError(f"block {last} changed while its logs were read")
    return events, header.hash, [*counts.values()]


def _names_addresses(text: str) -> bool:
    low = text.lower()
    return "address" in low and "range" not in low and "results" not in low


def _parse(raw: Any, method: str, wanted: Filter, first: int, last: int) -> Any:
    """The list of events in an answer of eth_getLogs, or the Block in one of eth_getBlockByNumber."""
    if method != "eth_getLogs":
        return parse_block(check_header(raw, last))
    if raw is None:
        raise UnknownBlockError(f"block {last} is not known")
    if not isinstance(raw, list):
        raise BadAnswerError("eth_getLogs: the answer is no list")
    return events_of(raw, wanted, first, last)


def _single_block(chain: Chain, wanted: Filter, number: int, error: ChainError) -> tuple[list[Event], str]:
    """Splits one block that is too much for one request: by addresses, by topics, by its hash, by its receipts."""
    halves = wanted.halves()
    if halves:
        events: list[Event] = []
        end_hash = ""
        for half in halves:
            try:
                part, seen, _ = _range(chain, half, number, number)
            except (TooBigError, RejectedError) as again:
                part, seen = _single_block(chain, half, number, again)
            if end_hash not in {"", seen}:
                raise ReorgError(f"block {number} changed while its logs were read")
            events, end_hash = events + part, seen
        return merged([events, []]), end_hash
    header = parse_header(chain.header(number))
    attempts: list[Callable[[], list[Event]]] = [
        lambda: by_hash(chain, wanted, header.block),
        lambda: by_receipts(chain, header, wanted),
    ]
    for attempt in reversed(attempts) if isinstance(error, CutShortError) else attempts:
        try:
            return attempt(), header.block.hash
        except (TooBigError, RejectedError, UnsupportedError) as again:
            logger.info("logs of block %d: %s", number, again)
    raise ChainError(f"the logs of block {number} cannot be read: {error}") from None
