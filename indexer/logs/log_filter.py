"""Which logs are wanted, and how the answers of eth_getLogs are parsed without trusting them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.chain.blocks import quantity
from indexer.chain.errors import BadAnswerError
from indexer.errors import RetryableError
from indexer.model import Event


@dataclass(frozen=True, slots=True)
class Chunk:
    """All wanted events of from_block..to_block, ascending, and the hash of to_block, read after them.

    `omitted` counts the events that the node had left out at first. `unconfirmed` are blocks whose bloom filters may show
    further logs that were not looked for (too expensive, or no endpoint could).
    """

    from_block: int
    to_block: int
    events: list[Event]
    end_hash: str
    omitted: int = 0
    unconfirmed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Filter:
    """Wants the logs of any of `addresses` (all if empty) with any of `topics` as topic0 (all if empty)."""

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
        """Two filters that together want the same logs; empty if this one cannot be split."""
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

    def select(self, events: Iterable[Event]) -> list[Event]:
        """Those of the events that the filter wants."""
        addresses, topics = frozenset(self.addresses), frozenset(self.topics)
        return [
            event
            for event in events
            if (not addresses or event.address in addresses) and (not topics or event.topic0 in topics)
        ]


#: how nodes write that a log has no data (neonevm/proxy-model.py PR 1074, loomnetwork/loomchain 1371)
NO_DATA = {"": "0x", "0x0": "0x"}
#: all logs
EVERYTHING = Filter((), ())


def events_of(raws: Sequence[Mapping[str, Any]], wanted: Filter, first: int, last: int) -> list[Event]:
    """The wanted events of an eth_getLogs answer, ascending, each once.

    Logs that do not fit the filter are dropped (some nodes ignore parts of it), as are those marked `removed`.
    RetryableError for an answer that cannot be true: malformed, outside the range, two hashes for one block number.
    """
    addresses, topics = frozenset(wanted.addresses), frozenset(wanted.topics)
    found: dict[tuple[int, int, int, str], Event] = {}
    parse = LogParser()
    hashes: dict[int, str] = {}
    for raw in raws:
        event = parse(raw)
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
        key = (event.block_number, event.transaction_index, event.log_index, event.transaction_hash)
        same = found.setdefault(key, event)
        if same is not event and same != event:
            raise BadAnswerError(f"eth_getLogs: two logs numbered {event.log_index} in block {event.block_number}")
    return [found[key] for key in sorted(found)]


def merged(answers: Sequence[list[Event]]) -> list[Event]:
    """The events of several answers in one ascending list."""
    if len(answers) == 1:
        return answers[0]
    return sorted(
        (event for events in answers for event in events),
        key=lambda event: (event.block_number, event.transaction_index, event.log_index),
    )


class LogParser:
    """Parses the raw logs of one answer strictly; repeated values (hashes, topics, addresses) are checked once."""

    def __init__(self) -> None:
        self._words: dict[str, str] = {}
        self._addresses: dict[str, str] = {}
        self._numbers: dict[str, int] = {}

    def __call__(self, raw: Mapping[str, Any]) -> Event:
        """One log of eth_getLogs or of a receipt.

        RetryableError if it is not the JSON that the execution API specifies: then the node's answer cannot be trusted.
        """
        try:
            topics, data = raw["topics"], NO_DATA.get(raw["data"], raw["data"])
            words, addresses = self._words, self._addresses
            payload = bytes.fromhex(data[2:])
            if not isinstance(topics, list) or len(topics) > 4 or data[:2] != "0x" or len(data) != 2 + 2 * len(payload):
                raise TypeError("topics or data")
            address, block_hash, transaction_hash = raw["address"], raw["blockHash"], raw["transactionHash"]
            return Event(
                addresses.get(address) or _checked(address, 20, addresses),
                tuple([words.get(topic) or _checked(topic, 32, words) for topic in topics]),
                payload,
                self._number(raw["blockNumber"]),
                words.get(block_hash) or _checked(block_hash, 32, words),
                words.get(transaction_hash) or _checked(transaction_hash, 32, words),
                self._number(raw["logIndex"]),
                self._number(raw.get("transactionIndex", "0x0")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RetryableError(f"malformed log in the answer ({error})") from None

    def _number(self, text: Any) -> int:
        number = self._numbers.get(text)
        if number is None:
            number = quantity(text)
            if number >> 63:
                raise ValueError(f"{text} is not the number of a block or log")
            self._numbers[text] = number
        return number


def _checked(text: Any, size: int, known: dict[str, str]) -> str:
    """A hex string of `size` bytes in lower case, cached. ValueError or TypeError for anything else."""
    if (
        not isinstance(text, str)
        or len(text) != 2 + 2 * size
        or text[:2] != "0x"
        or len(bytes.fromhex(text[2:])) != size
    ):
        raise ValueError(f"not {size} bytes")
    known[text] = text.lower()
    return known[text]
