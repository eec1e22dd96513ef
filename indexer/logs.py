"""Logs of any block range from any provider: windows that fit its limits, and nothing taken on trust.

History (`fetch`) is asked by block numbers in windows that grow and shrink. The last blocks before the head
(`fetch_recent`) are asked by block hash, so that a backend that lags errors instead of answering nothing, and are
checked against the bloom filters of their headers.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_hash.auto import keccak

from indexer.abi import parse_log
from indexer.chain import Chain, Header, parse_header
from indexer.errors import ChainError, ReorgError, RetryableError
from indexer.model import Block, Event
from indexer.rpc import BadAnswerError, RejectedError, TooBigError, UnknownBlockError, UnsupportedError

logger = logging.getLogger(__name__)

#: an answer of a multiple of so many logs may have been cut off there without a word
ROUND_NUMBER = 1_000
#: a bloom filter is worth believing while its false positives stay below this many per block
INFORMATIVE = 0.5
BLOCKS_PER_CHUNK = 64
#: a mainnet block's receipts are about 1 MB of JSON
RECEIPTS_PER_BATCH = 8


@dataclass(frozen=True, slots=True)
class Chunk:
    """All wanted events of from_block..to_block, ascending, and the hash of to_block as read after them.

    `omitted` counts those among them that the node had left out at first. `unconfirmed` are blocks whose bloom filter
    may mean further logs that nobody looked for (too dear, or no endpoint could).
    """

    from_block: int
    to_block: int
    events: list[Event]
    end_hash: str
    omitted: int = 0
    unconfirmed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Filter:
    """Which logs are wanted: of any of `addresses` (all if empty) with any of `topics` as topic0 (all if empty)."""

    addresses: tuple[str, ...]
    topics: tuple[str, ...]

    @classmethod
    def of(cls, addresses: Iterable[str], topics: Iterable[str]) -> "Filter":
        return cls(tuple(sorted({a.lower() for a in addresses})), tuple(sorted({t.lower() for t in topics})))

    def json(self) -> dict[str, Any]:
        wanted: dict[str, Any] = {}
        if self.addresses:
            wanted["address"] = list(self.addresses)
        if self.topics:
            wanted["topics"] = [list(self.topics)]
        return wanted

    def halves(self) -> list["Filter"]:
        """Two filters that together want the same; empty if this one cannot be split."""
        if len(self.addresses) > 1:
            half = len(self.addresses) // 2
            return [Filter(self.addresses[:half], self.topics), Filter(self.addresses[half:], self.topics)]
        if len(self.topics) > 1:
            half = len(self.topics) // 2
            return [Filter(self.addresses, self.topics[:half]), Filter(self.addresses, self.topics[half:])]
        return []

    def by_addresses(self, most: int | None) -> list["Filter"]:
        """Filters of at most that many addresses each."""
        if most is None or len(self.addresses) <= most:
            return [self]
        return [Filter(self.addresses[i : i + most], self.topics) for i in range(0, len(self.addresses), most)]


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

    Raises PrunedError where no endpoint holds that history, ReorgError where a block changed meanwhile, ChainError
    where nothing helps.
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
                _narrow(chain, last - start + 1, str(error))
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


def _narrow(chain: Chain, span: int, text: str) -> None:
    """A smaller window after a refusal: the one the text allows if that is smaller, else half."""
    lasting = not _SUGGESTED.search(text) and "results" not in text.lower()
    chain.log_limit.refused(span, range_cap(text), lasting)
    logger.info("eth_getLogs: %d blocks refused, now %d (%s)", span, chain.log_limit.size, text[:160])


def _range(chain: Chain, wanted: Filter, first: int, last: int) -> tuple[list[Event], str]:
    """The events of first..last and the hash of block `last`, read behind the logs in the same HTTP batch."""
    parts = wanted.by_addresses(chain.log_limit.addresses)
    calls: list[tuple[str, list[Any]]] = [
        ("eth_getLogs", [{"fromBlock": hex(first), "toBlock": hex(last), **part.json()}]) for part in parts
    ]
    calls.append(("eth_getBlockByNumber", [hex(last), False]))
    splittable = first < last or bool(wanted.halves())
    try:
        *answers, header = chain.batch(calls, lambda raw: _parse(raw, wanted, first, last), splittable=splittable)
    except (TooBigError, RejectedError) as error:
        if _names_addresses(str(error)) and len(parts[0].addresses) > 1:
            chain.log_limit.addresses = len(parts[0].addresses) // 2
            logger.info("eth_getLogs: now at most %d addresses a request", chain.log_limit.addresses)
            return _range(chain, wanted, first, last)
        raise
    events = _merged(answers)
    if events and events[-1].block_number == last and events[-1].block_hash != header.hash:
        raise ReorgError(f"block {last} changed while its logs were read")
    return events, header.hash


def _names_addresses(text: str) -> bool:
    low = text.lower()
    return "address" in low and "range" not in low and "results" not in low


def _parse(raw: Any, wanted: Filter, first: int, last: int) -> Any:
    """A list of events for an answer of eth_getLogs, a Block for one of eth_getBlockByNumber."""
    if isinstance(raw, list):
        if first < last and raw and len(raw) % ROUND_NUMBER == 0:
            raise TooBigError(f"eth_getLogs: exactly {len(raw)} results, there may be more")
        return events_of(raw, wanted, first, last)
    if raw is None:
        raise UnknownBlockError(f"block {last} is not known")
    block = parse_header(raw).block
    if block.number != last:
        raise BadAnswerError(f"answer with block {block.number} instead of {last}")
    return block


def events_of(raws: Sequence[Mapping[str, Any]], wanted: Filter, first: int, last: int) -> list[Event]:
    """The wanted events of an eth_getLogs answer, ascending, each once.

    Logs that do not fit the filter are dropped (some nodes ignore parts of it), as are those marked `removed`.
    RetryableError where an answer cannot be true: malformed, outside the range, two hashes for one block number.
    """
    addresses, topics = frozenset(wanted.addresses), frozenset(wanted.topics)
    found: dict[tuple[int, int], Event] = {}
    hashes: dict[int, str] = {}
    for raw in raws:
        event = parse_log(raw)
        if addresses and event.address not in addresses:
            continue
        if topics and event.topic0 not in topics:
            continue
        if raw.get("removed") is True:
            continue
        if not first <= event.block_number <= last:
            raise BadAnswerError(f"eth_getLogs: a log of block {event.block_number} for {first}..{last}")
        if hashes.setdefault(event.block_number, event.block_hash) != event.block_hash:
            raise BadAnswerError(f"eth_getLogs: two hashes for block {event.block_number}")
        key = (event.block_number, event.log_index)
        if found.setdefault(key, event) != event:
            raise BadAnswerError(f"eth_getLogs: two logs numbered {event.log_index} in block {event.block_number}")
    return [found[key] for key in sorted(found)]


def _merged(answers: Sequence[list[Event]]) -> list[Event]:
    if len(answers) == 1:
        return answers[0]
    return sorted(
        (event for events in answers for event in events), key=lambda event: (event.block_number, event.log_index)
    )


def _single_block(chain: Chain, wanted: Filter, number: int, error: ChainError) -> tuple[list[Event], str]:
    """One block that is too much for one request: by addresses, by topics, by its hash, by its receipts."""
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
        return _merged([events, []]), end_hash
    header = parse_header(chain.header(number))
    attempts: list[Callable[[], list[Event]]] = [
        lambda: _by_hash(chain, wanted, header.block),
        lambda: _by_receipts(chain, header, wanted),
    ]
    for attempt in attempts:
        try:
            return attempt(), header.block.hash
        except (TooBigError, RejectedError, UnsupportedError) as again:
            logger.info("logs of block %d: %s", number, again)
    raise ChainError(f"the logs of block {number} cannot be read: {error}") from None


def _by_hash(chain: Chain, wanted: Filter, block: Block) -> list[Event]:
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


EVERYTHING = Filter((), ())


def _by_receipts(chain: Chain, header: Header, wanted: Filter) -> list[Event]:
    """The wanted events of one block out of its receipts, which must reproduce the header's bloom filter."""
    events = chain.request(
        "eth_getBlockReceipts",
        [header.block.hash],
        lambda raw: _receipt_logs(_receipts_or_unknown(raw), header),
        block=header.block,
    )
    return _only(events, wanted)


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
    return _only(events, wanted)


def _only(events: Iterable[Event], wanted: Filter) -> list[Event]:
    addresses, topics = frozenset(wanted.addresses), frozenset(wanted.topics)
    return [
        event
        for event in events
        if (not addresses or event.address in addresses) and (not topics or event.topic0 in topics)
    ]


def _complete(events: list[Event], header: Header) -> list[Event]:
    if bloom_of(events) != header.bloom:
        raise BadAnswerError(f"the logs of block {header.block.number} do not reproduce its bloom filter")
    return events


# bloom filters


def bloom_bits(value: bytes) -> int:
    """The three bits of an address or topic in a 2048-bit logs bloom (yellow paper 4.4.3), as an integer mask."""
    digest = keccak(value)
    bits = 0
    for i in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[i : i + 2]) & 2047)
    return bits


def bloom_of(events: Iterable[Event]) -> bytes:
    """The logs bloom of some logs."""
    values = {entry for event in events for entry in (event.address, *event.topics)}
    bits = 0
    for entry in values:
        bits |= bloom_bits(bytes.fromhex(entry[2:]))
    return bits.to_bytes(256)


def bloom_may_contain(bloom: bytes, address: str, topic: str) -> bool:
    """Whether a log of that address with that topic may be in the block; never a false no."""
    bits = int.from_bytes(bloom)
    wanted = bloom_bits(bytes.fromhex(address[2:])) | bloom_bits(bytes.fromhex(topic[2:]))
    return bits & wanted == wanted


def suspects(bloom: bytes, wanted: Filter, events: Iterable[Event]) -> list[tuple[str, str]]:
    """The wanted (address, topic) pairs that may be in a block though no such event came."""
    bits = int.from_bytes(bloom)
    came = {(event.address, event.topic0) for event in events}
    marks = {entry: bloom_bits(bytes.fromhex(entry[2:])) for entry in (*wanted.addresses, *wanted.topics)}
    addresses = [entry for entry in wanted.addresses if bits & marks[entry] == marks[entry]]
    topics = [entry for entry in wanted.topics if bits & marks[entry] == marks[entry]]
    return [(address, topic) for address in addresses for topic in topics if (address, topic) not in came]


def false_positives(bloom: bytes, pairs: int) -> float:
    """How many of that many absent pairs a bloom filter this full is expected to show."""
    return pairs * float((int.from_bytes(bloom).bit_count() / 2048) ** 6)


# the last blocks


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


def _recent(chain: Chain, headers: Sequence[Header], wanted: Filter, confirmations: int) -> Chunk:
    blocks = [header.block for header in headers]
    events = {block.hash: found for block, found in zip(blocks, _by_hashes(chain, wanted, blocks), strict=True)}
    doubtful: list[Header] = []
    unconfirmed: list[int] = []
    for header in reversed(headers):
        if not suspects(header.bloom, wanted, events[header.block.hash]):
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


def _verified(chain: Chain, headers: Sequence[Header], wanted: Filter) -> list[list[Event] | None]:
    """`verify_block` for several blocks, their receipts asked in JSON-RPC batches."""
    found: list[list[Event] | None] = []
    for start in range(0, len(headers), RECEIPTS_PER_BATCH):
        part = headers[start : start + RECEIPTS_PER_BATCH]
        calls = [("eth_getBlockReceipts", [header.block.hash]) for header in part]
        try:
            answers = chain.batch(calls, _receipts_or_unknown, block=part[-1].block)
        except ReorgError:
            raise
        except ChainError as error:
            logger.info("receipts of blocks %d and others: %s", part[0].block.number, error)
            answers = [None] * len(part)
        for header, raw in zip(part, answers, strict=True):
            try:
                found.append(_only(_receipt_logs(raw, header), wanted))
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
            lambda raw: _parse_any_block_logs(raw, wanted, known),
            block=blocks[-1],
        )
    except (TooBigError, RejectedError, UnsupportedError) as error:
        logger.info("logs of blocks %d to %d one by one: %s", blocks[0].number, blocks[-1].number, error)
        return [_one_by_hash(chain, wanted, block) for block in blocks]
    for block, events in zip(blocks, answers, strict=True):
        if events and events[0].block_hash != block.hash:
            raise ChainError(f"{chain.endpoint} answers logs of another block than {block.hash}")
    return answers


def _one_by_hash(chain: Chain, wanted: Filter, block: Block) -> list[Event]:
    try:
        return _by_hash(chain, wanted, block)
    except (TooBigError, RejectedError) as error:
        halves = wanted.halves()
        if not halves:
            raise ChainError(f"the logs of block {block.number} cannot be read: {error}") from None
        return _merged([_one_by_hash(chain, half, block) for half in halves])


def _parse_any_block_logs(raw: Any, wanted: Filter, blocks: Mapping[str, Block]) -> list[Event]:
    if raw is None:
        raise UnknownBlockError("a block is not known")
    if not isinstance(raw, list):
        raise BadAnswerError("eth_getLogs: the answer is no list")
    if not raw:
        return []
    block = blocks.get(parse_log(raw[0]).block_hash)
    if block is None:
        raise BadAnswerError("eth_getLogs: logs of another block")
    return _parse_block_logs(raw, wanted, block)


def verify_block(chain: Chain, header: Header, addresses: Iterable[str], topics: Iterable[str]) -> list[Event] | None:
    """The wanted events of a block from its receipts, proved complete by its bloom filter; None if no endpoint can.

    Proved up to false positives of the filter: receipts that lack a log whose address and topics are all in the filter
    by chance or by other logs are not told apart.
    """
    wanted = Filter.of(addresses, topics)
    for attempt in (_by_receipts, _by_all_logs):
        try:
            return attempt(chain, header, wanted)
        except ReorgError:
            raise
        except (RetryableError, ChainError) as error:
            logger.info("block %d cannot be verified: %s", header.block.number, error)
    return None
