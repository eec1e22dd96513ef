"""Rounds out of logs: AnswerUpdated of aggregators, LogValue of OSMs with the Spotter's Poke, LogMedianPrice of medians."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from indexer.abi import abi
from indexer.model import Event
from indexer.prices.tables import Round

ANSWER = abi("aggregator").event("AnswerUpdated")
REVEALED = abi("dual_aggregator").event("SecondaryRoundIdUpdated")
CUTOFF = abi("dual_aggregator").event("CutoffTimeSet")
VALUE = abi("maker_osm").event("LogValue")
POKE = abi("maker_spotter").event("Poke")
MEDIAN = abi("maker_median").event("LogMedianPrice")

#: the events of each kind of contract
OF_AGGREGATOR = frozenset({ANSWER, REVEALED, CUTOFF})
OF_OSM = frozenset({VALUE})
OF_MEDIAN = frozenset({MEDIAN})


@dataclass
class Readers:
    """Who reads what: feeds by the aggregator that they read (with the phase), and the OSMs' takers."""

    #: aggregator -> (feed, phase) that read it at once, and those from which it hides rounds for a while
    open: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    hiding: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    #: OSM -> the contract that takes its price over
    takers: Mapping[str, str] = field(default_factory=dict)
    medians: Collection[str] = ()

    def addresses(self) -> set[str]:
        return {*self.open, *self.hiding, *self.takers, *self.takers.values(), *self.medians}


@dataclass
class Queues:
    """Where OSMs are, from one piece of logs to the next: the time of each one's last poke, which queued its next price, and
    the price that this poke let out while nobody has taken it over.
    """

    queued: dict[str, int] = field(default_factory=dict)
    out: dict[str, Round] = field(default_factory=dict)


@dataclass
class Told:
    """What a piece of logs tells: rounds, by (feed, phase) when hidden rounds were revealed, and cut-offs in seconds."""

    rounds: list[Round] = field(default_factory=list)
    reveals: dict[tuple[str, int], dict[int, int]] = field(default_factory=dict)
    cutoffs: dict[tuple[str, int], int] = field(default_factory=dict)


def signed(word: str) -> int:
    """An int256 from a topic."""
    value = int(word, 16)
    return value - 2**256 if value >> 255 else value


def untimed(events: Iterable[Event]) -> list[Event]:
    """Those events whose own words do not tell their time, so that their blocks must."""
    return [event for event in events if event.topic0 in (REVEALED, VALUE, POKE)]


def told(events: Sequence[Event], readers: Readers, time_of: Callable[[Event], int], queues: Queues) -> Told:
    """What these events, in their order, tell; `queues` goes on from the events before them and is brought up to date."""
    found = Told()
    for event in events:
        if event.topic0 == ANSWER and len(event.topics) == 3:
            _answer(event, readers, found)
        elif event.topic0 == REVEALED and len(event.topics) == 2:
            for place in readers.hiding.get(event.address, ()):
                found.reveals.setdefault(place, {})[int(event.topics[1], 16)] = time_of(event)
        elif event.topic0 == CUTOFF and (seconds := event.word(0)) is not None:
            found.cutoffs.update(dict.fromkeys(readers.hiding.get(event.address, ()), seconds))
        elif event.topic0 == MEDIAN and event.address in readers.medians:
            value, age = event.word(0), event.word(1)
            if value is not None and age is not None:
                found.rounds.append(Round(event.address, 0, age, event.block_number, age, age, value))
        elif event.topic0 == VALUE and event.address in readers.takers:
            _let_out(event, time_of(event), queues, found)
        elif event.topic0 == POKE:
            _taken(event, readers, time_of, queues, found)
    return found


def _answer(event: Event, readers: Readers, found: Told) -> None:
    at = event.word(0)
    if at is None:
        return
    number, answer = int(event.topics[2], 16), signed(event.topics[1])
    for hidden, places in ((False, readers.open), (True, readers.hiding)):
        for feed, phase in places.get(event.address, ()):
            found.rounds.append(Round(feed, phase, number, event.block_number, at, None if hidden else at, answer))


def _let_out(event: Event, now: int, queues: Queues, found: Told) -> None:
    """OSM.poke: the price queued by the poke before comes out, another one is queued."""
    osm, value, before = event.address, event.word(0), queues.queued.get(event.address)
    queues.queued[osm] = now
    queues.out.pop(osm, None)
    if before is not None and value is not None:
        queues.out[osm] = Round(osm, 0, before, event.block_number, before, None, value)
        found.rounds.append(queues.out[osm])


def _taken(event: Event, readers: Readers, time_of: Callable[[Event], int], queues: Queues, found: Told) -> None:
    """Spotter.poke: the price that an OSM let out is in force."""
    for osm, taker in readers.takers.items():
        out = queues.out.get(osm)
        if taker == event.address and out is not None and out.answer == event.word(1):
            found.rounds.append(queues.out.pop(osm)._replace(in_force=time_of(event)))
