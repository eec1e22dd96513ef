"""Logs of any block range from any provider: in windows that fit its limits, with every answer checked.

History (`fetch`) is asked for by block numbers in windows that grow and shrink; the last blocks before the head
(`fetch_recent`, in recent_logs.py) by block hash.
"""

import logging
import re
import time
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
from indexer.logs.lean import Answer, Named, Pair, decoded, named
from indexer.logs.log_filter import Chunk, Filter, events_of, merged
from indexer.logs.omissions import by_receipts
from indexer.logs.recent_logs import fetch_recent, quiet
from indexer.model import Event, Shape

__all__ = ["Chunk", "Filter", "discover", "fetch", "fetch_recent", "quiet", "range_cap"]

logger = logging.getLogger(__name__)


def fetch(
    chain: Chain,
    from_block: int,
    to_block: int,
    addresses: Iterable[str],
    topics: Iterable[str],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Chunk]:
    """The wanted logs of a range as ascending, contiguous chunks; `on_progress(block, events so far)` after each.

    Raises PrunedError where no endpoint holds that history, ReorgError where a block changed meanwhile, ChainError for
    anything that retries do not cure.
    """
    wanted = Filter.of(addresses, topics)
    start, total = from_block, 0
    while start <= to_block:
        last = min(to_block, start + chain.log_limit.size - 1)
        began, retries = time.monotonic(), chain.retries
        try:
            events, end_hash = _range(chain, wanted, start, last)
        except (TooBigError, RejectedError) as error:
            if start < last:
                _narrow(chain, last - start + 1, str(error), time.monotonic() - began)
                continue
            events, end_hash = _single_block(chain, wanted, start, error)
        else:
            waited = chain.retries > retries
            chain.log_limit.fits(last - start + 1, len(events), 0 if waited else time.monotonic() - began)
        total += len(events)
        yield Chunk(start, last, events, end_hash)
        if on_progress is not None:
            on_progress(last, total)
        start = last + 1


def discover(
    chain: Chain, from_block: int, to_block: int, wanted: Filter, shapes: Mapping[Pair, Shape]
) -> Iterator[Named]:
    """Whom the wanted logs of settled blocks name, as ascending, contiguous pieces; errors as `fetch`.

    Logs of one of the `shapes`, by (address, topic0), are only looked through; the others become events. No header is
    asked for with each answer: an endpoint shows once that it knows the last block, which a reorg no longer reaches.
    """
    chain.header(to_block)
    known = {chain.in_turn()[0]}
    start = from_block
    while start <= to_block:
        last = min(to_block, start + chain.log_limit.size - 1)
        began, retries = time.monotonic(), chain.retries
        try:
            found = _look_through(chain, wanted, shapes, start, last)
        except (TooBigError, RejectedError) as error:
            if isinstance(error, TooBigError) and start < last:
                _narrow(chain, last - start + 1, str(error), time.monotonic() - began)
                continue
            for chunk in fetch(chain, start, last, wanted.addresses, wanted.topics):
                yield Named(chunk.from_block, chunk.to_block, events=chunk.events, count=len(chunk.events))
            start = last + 1
            continue
        if chain.in_turn()[0] not in known:
            chain.header(to_block)
            known.add(chain.in_turn()[0])
            continue  # whether it knew the block before is not certain
        waited = chain.retries > retries
        chain.log_limit.fits(last - start + 1, found.count, 0 if waited else time.monotonic() - began)
        yield found
        start = last + 1


def _look_through(chain: Chain, wanted: Filter, shapes: Mapping[Pair, Shape], first: int, last: int) -> Named:
    def parse(raw: Any) -> Named:
        logs = raw.result if isinstance(raw, Answer) else raw
        if isinstance(logs, list) and chain.log_limit.cut_short(len(logs)):
            raise CutShortError(f"eth_getLogs: exactly {len(logs)} results, there may be more")
        if isinstance(raw, Answer):
            return named(raw, shapes, wanted, first, last)
        events = _parse(raw, "eth_getLogs", wanted, first, last)
        return Named(first, last, events=events, count=len(events))

    if chain.log_limit.addresses is not None:
        raise RejectedError("eth_getLogs: so many addresses are asked in parts")
    asked = {"fromBlock": hex(first), "toBlock": hex(last), **wanted.json()}
    found: Named = chain.request("eth_getLogs", [asked], parse, splittable=True, decode=decoded)
    chain.log_limit.most = max(chain.log_limit.most, found.count)
    return found


_SUGGESTED = re.compile(
    r"(?:range(?: should work:)? |should work: )\[?\s*(0x[0-9a-f]+|\d+)\s*[,\-]\s*(0x[0-9a-f]+|\d+)\b(?! blocks)",
    re.IGNORECASE,
)
_NUMBER = r"(\d[\d,._]*) ?(k?)\b"
#: the words around the number of blocks that a provider allows, the surest first
_CAPS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:limited to|up to|at most|over|not exceed) (?:an? |0 - )?{_NUMBER} ?(?:blocks?|range)",
        rf"max(?:imum)?(?: allowed)?(?: block| blocks)?(?: range| distance)?(?: is| of|:| set to)* ?{_NUMBER}(?! results| logs)",
        rf"(?:exceeds limit of|bigger than range limit|greater than|exceeds|requested blocks is|distance:) {_NUMBER}(?! results| logs)",
        r"\((?:\d+ > |maximum )(\d+)(k?)\)",
    )
)


def range_cap(text: str) -> int | None:
    """The number of blocks that a provider's error text allows, None if it names none."""
    suggested = _SUGGESTED.search(text)
    if suggested:
        first, last = (int(number, 16 if number[:2].lower() == "0x" else 10) for number in suggested.groups())
        return last - first + 1 if last >= first else None
    if not re.search("block|range", text, re.IGNORECASE):
        return None  # it counts results
    for pattern in _CAPS:
        found = pattern.search(text)
        if found:
            number, thousand = found.groups()
            return int(re.sub("[,._]", "", number)) * (1_000 if thousand else 1)
    return None


_RESULTS = re.compile(rf"{_NUMBER} ?(?:results|logs|events)", re.IGNORECASE)


def results_cap(text: str) -> int | None:
    """The number of logs that a provider's error text allows, 0 if it counts logs and names none; None if it does not."""
    found = _RESULTS.search(text)
    if found:
        number, thousand = found.groups()
        return int(re.sub("[,._]", "", number) or 0) * (1_000 if thousand else 1)
    return (
        0
        if re.search(r"results|logs? (?:response|matched|requested|limit)|response size", text, re.IGNORECASE)
        else None
    )


def _narrow(chain: Chain, span: int, text: str, seconds: float) -> None:
    """A smaller window after a refusal: the one the text allows if that is smaller, else half."""
    lasting = not _SUGGESTED.search(text) and "results" not in text.lower()
    chain.log_limit.refused(span, range_cap(text), lasting, seconds, results_cap(text))
    logger.info("eth_getLogs: %d blocks refused, now %d (%s)", span, chain.log_limit.size, text[:160])


def _range(chain: Chain, wanted: Filter, first: int, last: int) -> tuple[list[Event], str]:
    """The events of first..last and the hash of block `last`, read after the logs in the same HTTP batch."""
    parts = wanted.by_addresses(chain.log_limit.addresses)
    calls: list[tuple[str, list[Any]]] = [
        ("eth_getLogs", [{"fromBlock": hex(first), "toBlock": hex(last), **part.json()}]) for part in parts
    ]
    calls.append(("eth_getBlockByNumber", [hex(last), False]))
    splittable = first < last or bool(wanted.halves())
    counts = [0]

    def parse(raw: Any, call: Call) -> Any:
        if call[0] == "eth_getLogs" and isinstance(raw, list):
            if splittable and chain.log_limit.cut_short(len(raw)):
                raise CutShortError(f"eth_getLogs: exactly {len(raw)} results, there may be more")
            counts.append(len(raw))
        return _parse(raw, call[0], wanted, first, last)

    try:
        *answers, header = chain.batch(calls, parse, splittable=splittable)
    except (TooBigError, RejectedError) as error:
        if _names_addresses(str(error)) and len(parts[0].addresses) > 1:
            chain.log_limit.addresses = len(parts[0].addresses) // 2
            logger.info("eth_getLogs: now at most %d addresses a request", chain.log_limit.addresses)
            return _range(chain, wanted, first, last)
        raise
    chain.log_limit.most = max(chain.log_limit.most, *counts)
    events = merged(answers)
    if events and events[-1].block_number == last and events[-1].block_hash != header.hash:
        raise ReorgError(f"block {last} changed while its logs were read")
    return events, header.hash


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
                part, seen = _range(chain, half, number, number)
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
