"""Which logs are wanted, what comes of them, and the answers of eth_getLogs read without trust. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.abi import LogParser
from indexer.model import Event
from indexer.rpc_errors import BadAnswerError


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

    def select(self, events: Iterable[Event]) -> list[Event]:
        """Those of the events that are wanted."""
        addresses, topics = frozenset(self.addresses), frozenset(self.topics)
        return [
            event
            for event in events
            if (not addresses or event.address in addresses) and (not topics or event.topic0 in topics)
        ]


#: all logs
EVERYTHING = Filter((), ())


def events_of(raws: Sequence[Mapping[str, Any]], wanted: Filter, first: int, last: int) -> list[Event]:
    """The wanted events of an eth_getLogs answer, ascending, each once.

    Logs that do not fit the filter are dropped (some nodes ignore parts of it), as are those marked `removed`.
    RetryableError where an answer cannot be true: malformed, outside the range, two hashes for one block number.
    """
    addresses, topics = frozenset(wanted.addresses), frozenset(wanted.topics)
    found: dict[tuple[int, int], Event] = {}
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
        key = (event.block_number, event.log_index)
        same = found.setdefault(key, event)
        if same is not event and same != event:
            raise BadAnswerError(f"eth_getLogs: two logs numbered {event.log_index} in block {event.block_number}")
    return [found[key] for key in sorted(found)]


def merged(answers: Sequence[list[Event]]) -> list[Event]:
    """The events of several answers, ascending."""
    if len(answers) == 1:
        return answers[0]
    return sorted(
        (event for events in answers for event in events), key=lambda event: (event.block_number, event.log_index)
    )
