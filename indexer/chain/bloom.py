"""The bloom filter of a block's logs (yellow paper 4.4.3): which logs a block may have, and which it cannot have."""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from eth_hash.auto import keccak

from indexer.model import Event

logger = logging.getLogger(__name__)

#: wrong filters in a row after which no other endpoint is asked for the logs they show
DISTRUSTED_AFTER = 4


@lru_cache(maxsize=50_000)
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


@dataclass(slots=True)
class Blooms:
    """How far the bloom filters of a chain's headers can be trusted: by configuration, and by the last blocks.

    `kept` is "exact" where a filter covers all of the block's logs, "partial" where it may miss some, "none" where it says
    nothing. Filters are `trusted` until several in a row were wrong.
    """

    kept: Literal["exact", "partial", "none"] = "exact"
    faults: int = 0
    told: bool = False

    @property
    def trusted(self) -> bool:
        return self.kept == "exact" and self.faults < DISTRUSTED_AFTER

    def right(self) -> None:
        """Notes that a filter, not an empty one, matched the block's logs."""
        self.faults = 0

    def wrong(self, why: str) -> None:
        """Notes that a filter did not match, and logs that once."""
        self.faults += 1
        if not self.told:
            logger.info("%s; the logs are used as they are, sums decide (logged once)", why)
        self.told = True


def suspects(bloom: bytes, pairs: Collection[tuple[str, str]], events: Iterable[Event]) -> list[tuple[str, str]]:
    """The wanted (address, topic) pairs that may be in a block although no such event came."""
    bits = int.from_bytes(bloom)
    came = {(event.address, event.topic0) for event in events}
    marks = {entry: bloom_bits(bytes.fromhex(entry[2:])) for pair in pairs for entry in pair}
    shown = {entry for entry, mark in marks.items() if bits & mark == mark}
    return sorted(pair for pair in pairs if shown.issuperset(pair) and pair not in came)


def fullness(bloom: bytes) -> int:
    """How many of the filter's 2048 bits are set."""
    return int.from_bytes(bloom).bit_count()


def false_positives(bloom: bytes, pairs: int) -> float:
    """How many of `pairs` absent pairs a bloom filter this full is expected to show."""
    return pairs * float((fullness(bloom) / 2048) ** 6)
