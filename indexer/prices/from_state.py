"""Rounds out of contracts' state, by getRoundData: no logs and no archive are needed, as aggregators keep every round.

The proxy is asked, not the aggregator: its access control lets the proxy and accounts without code read, and a multicall is
neither.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from indexer.abi import abi
from indexer.adapter import Reader
from indexer.model import Read
from indexer.prices.tables import PhaseRow, Round
from indexer.prices.unwrap import Feed

log = logging.getLogger(__name__)

ROUND = abi("aggregator").function("getRoundData")
LATEST = abi("aggregator").function("latestRound")
PEEP = abi("maker_osm").function("peep")
PHASE_AGGREGATOR = abi("aggregator").function("phaseAggregators")
#: rounds of one aggregator that are asked for at once
PIECE = 500
#: the part of a round's id that is the aggregator's own
NUMBER = 2**64 - 1


class Wanted(NamedTuple):
    """Rounds of one phase: those after `after`, as far back as `since` (unix seconds)."""

    feed: str
    phase: int
    aggregator: str
    after: int
    since: int
    hiding: bool = False


def round_id(phase: int, number: int) -> int:
    """A round as the proxy numbers it."""
    return phase << 64 | number


def new_phases(read: Reader, feeds: Collection[Feed], known: Collection[tuple[str, int]]) -> list[PhaseRow]:
    """The aggregators that proxies have, or had, and that are not known yet; an aggregator without a proxy is phase 0."""
    rows = [PhaseRow(feed.address, 0, feed.aggregator) for feed in feeds if not feed.phase]
    asked = [
        (feed, phase) for feed in feeds for phase in range(1, feed.phase + 1) if (feed.address, phase) not in known
    ]
    answers = read([Read(feed.address, PHASE_AGGREGATOR, (phase,)) for feed, phase in asked]) if asked else []
    for (feed, phase), answer in zip(asked, answers, strict=True):
        if phase == feed.phase:
            rows.append(PhaseRow(feed.address, phase, feed.aggregator))
        elif answer and int(answer, 16):
            rows.append(PhaseRow(feed.address, phase, answer))
    return [row for row in rows if (row.feed, row.phase) not in known]


def latest(read: Reader, wanted: Sequence[Wanted]) -> list[int]:
    """The newest round of each phase, 0 where it does not say; asked in the proxy's name, which may read."""
    reads = [Read(one.aggregator, LATEST, (), None if one.hiding or not one.phase else one.feed) for one in wanted]
    return [(answer or 0) & NUMBER for answer in (read(reads) if reads else [])]


def rounds(read: Reader, wanted: Sequence[Wanted]) -> Iterator[list[Round]]:
    """The wanted rounds in pieces, the newest first; of each phase they are ascending within a piece."""
    places = dict(zip(wanted, latest(read, wanted), strict=True))
    while places:
        asked = [
            (one, number)
            for one, last in places.items()
            for number in range(max(one.after, last - PIECE) + 1, last + 1)
        ]
        answers = read([question(one, number) for one, number in asked]) if asked else []
        found = [
            answered(one, number, answer) for (one, number), answer in zip(asked, answers, strict=True) if told(answer)
        ]
        yield [one for one in found if one is not None]
        oldest: dict[tuple[str, int], int] = {}
        for one in found:
            oldest.setdefault((one.feed, one.phase), one.block_timestamp)
        places = {
            one: last - PIECE
            for one, last in places.items()
            if last - PIECE > one.after and oldest.get((one.feed, one.phase), one.since) >= one.since
        }


def question(one: Wanted, number: int) -> Read:
    """Asks for a round. One that is hidden from the proxy is not hidden from a stranger who asks the aggregator."""
    if one.hiding:
        return Read(one.aggregator, ROUND, (number,))
    return Read(one.feed, ROUND, (round_id(one.phase, number),))


def told(answer: Any) -> bool:
    """Whether there is such a round: some aggregators revert for one that is missing, others answer zeros."""
    return bool(answer) and bool(answer[3])


def answered(one: Wanted, number: int, answer: Sequence[int]) -> Round:
    """A round from the answer of getRoundData."""
    at = answer[3]
    return Round(one.feed, one.phase, number, None, at, None if one.hiding else at, answer[1])


def queued(read: Reader, osms: Sequence[Feed]) -> dict[str, tuple[int, int]]:
    """The price that waits in each OSM, and zzz: the time of the poke that queued it, rounded down to whole hops.

    OSM.peep answers those whom it knows; who takes the price over is one of them.
    """
    answers = read([Read(osm.address, PEEP, (), osm.taker) for osm in osms]) if osms else []
    return {
        osm.address: (osm.at, int.from_bytes(answer[0]))
        for osm, answer in zip(osms, answers, strict=True)
        if answer and answer[1] and osm.at
    }


def differing(read: Reader, sample: Sequence[Round]) -> list[Mapping[str, Any]]:
    """Those of these rounds out of logs of which the contracts say something else, with both answers."""
    answers = read([Read(one.feed, ROUND, (round_id(one.phase, one.round),)) for one in sample]) if sample else []
    return [
        {
            "feed": one.feed,
            "phase": one.phase,
            "round": one.round,
            "log": [str(one.answer), one.block_timestamp],
            "getRoundData": [str(answer[1]), answer[3]] if told(answer) else None,
        }
        for one, answer in zip(sample, answers, strict=True)
        if not told(answer) or (answer[1], answer[3]) != (one.answer, one.block_timestamp)
    ]
