"""Accounts cut out of the logs of history: one struct a log, its shape checked, one word sliced, no `Event`.

Whatever is not of exactly the expected shape is left to the exact way, never dropped.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from indexer.boundary import bounded_json
from indexer.chain.blocks import quantity
from indexer.chain.errors import BadAnswerError, read_by
from indexer.logs.log_filter import Filter, events_of
from indexer.model import Event, Shape

PADDED = "0x" + "0" * 24
NOBODY, ZERO_WORD = "0" * 40, "0" * 64
HEX = frozenset("0123456789abcdef")

Pair = tuple[str, str]
#: account -> the first and the last block in which a log named it
Touched = dict[str, tuple[int, int]]


class Log(msgspec.Struct, gc=False):
    """What of a log tells whom it names and when."""

    address: str
    topics: list[str]
    data: str
    blockNumber: str  # noqa: N815 - the node's name
    removed: bool = False


class Answer(msgspec.Struct):
    """An answer to eth_getLogs, and the bytes that it came in."""

    id: int
    result: list[Log]
    error: Any = None
    content: Any = None


_DECODER = msgspec.json.Decoder(Answer)
_ONE_ANSWER = threading.Lock()


def decoded(content: bytearray) -> Answer | None:
    """The answer, None for anything but a list of logs, which the general way then reads or refuses."""
    try:
        bounded_json.require_size(content)
        answer = _DECODER.decode(content)
    except (ValueError, RecursionError):  # msgspec's errors and those of UTF-8 are ValueErrors too
        return None
    if answer.error is not None:
        return None
    answer.content = content
    return answer


@dataclass(slots=True)
class Named:
    """Whom the logs of a block range name, by (address, topic0), and the logs that need a closer look; `count` of both."""

    from_block: int
    to_block: int
    touched: dict[Pair, Touched] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    count: int = 0


class _Place:
    """A shape as slices of the text of a log, and whom such logs named."""

    __slots__ = ("length", "topics", "touched", "where", "zero")

    def __init__(self, shape: Shape) -> None:
        self.topics, self.length = shape.topics, 2 + 64 * shape.words
        self.where = [(True, i) for i in shape.accounts] + [(False, 2 + 64 * i) for i in shape.account_words]
        at = shape.unless_zero
        self.zero = None if at is None else slice(2 + 64 * at, 66 + 64 * at)
        self.touched: Touched = {}


class Looked(NamedTuple):
    """An answer to eth_getLogs of which only what it names is kept, in the place of the answer itself."""

    id: int
    named: Named

    @property
    def none(self) -> bool:
        """Whether there are no logs at all."""
        return self.named.count == 0


def looked_through(
    content: bytearray, shapes: Mapping[Pair, Shape], wanted: Filter, first: int, last: int
) -> Looked | None:
    """Whom the logs of an answer name; None for anything but a list of logs. RetryableError where it cannot be true.

    One answer at a time: others in flight wait as the bytes they are, a tenth of what their logs take one by one.
    """
    with _ONE_ANSWER:
        answer = decoded(content)
        return None if answer is None else Looked(answer.id, read_by(named, answer, shapes, wanted, first, last))


def named(answer: Answer, shapes: Mapping[Pair, Shape], wanted: Filter, first: int, last: int) -> Named:
    """Whom an answer's logs name. RetryableError where it cannot be true."""
    places = {pair: _Place(shape) for pair, shape in shapes.items()}
    odd = _cut(answer.result, places, first, last)
    events: list[Event] = []
    if odd:
        raws = bounded_json.loads(answer.content)["result"]
        events = events_of([raws[i] for i in odd], wanted, first, last)
    return Named(
        first,
        last,
        {pair: _checked(place.touched) for pair, place in places.items() if place.touched},
        events,
        len(answer.result),
    )


def _cut(logs: Sequence[Log], places: Mapping[Pair, _Place], first: int, last: int) -> list[int]:
    """Puts down whom the logs name; the indexes of those that are not of the shape of their event."""
    odd: list[int] = []
    numbers: dict[str, int] = {}
    for i, log in enumerate(logs):
        topics, data = log.topics, log.data
        place = places.get((log.address, topics[0])) if topics else None
        if place is None or len(topics) != place.topics or len(data) != place.length or log.removed:
            odd.append(i)
            continue
        block = numbers.get(log.blockNumber)
        if block is None:
            block = numbers[log.blockNumber] = _number(log.blockNumber, first, last)
        if place.zero is not None and data[place.zero] == ZERO_WORD:
            continue
        found = []
        for in_topic, at in place.where:
            word = topics[at] if in_topic else "0x" + data[at : at + 64]
            account = word[26:]
            if len(word) != 66 or word[:26] != PADDED or account == NOBODY:
                odd.append(i)
                break
            found.append(account)
        else:
            touched = place.touched
            for account in found:
                seen = touched.get(account)
                if seen is None:
                    touched[account] = (block, block)
                elif block > seen[1]:
                    touched[account] = (seen[0], block)
                elif block < seen[0]:
                    touched[account] = (block, seen[1])
    return odd


def _number(text: str, first: int, last: int) -> int:
    try:
        number = quantity(text)
    except ValueError:
        raise BadAnswerError("eth_getLogs: a log whose block has no number") from None
    if not first <= number <= last:
        raise BadAnswerError(f"eth_getLogs: a log of block {number} for {first}..{last}")
    return number


def _checked(touched: Touched) -> Touched:
    """Whole addresses in lower case. BadAnswerError for what is no hexadecimal."""
    found: Touched = {}
    for digits, (first, last) in touched.items():
        account = "0x" + digits.lower()
        if not HEX.issuperset(account[2:]):
            raise BadAnswerError("eth_getLogs: a word that is not hexadecimal")
        before = found.get(account, (first, last))
        found[account] = (min(first, before[0]), max(last, before[1]))
    return found
