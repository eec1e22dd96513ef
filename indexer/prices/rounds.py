"""What is wrong with an answer, and from when on it was in force. All pure, over the rounds of one phase in their order."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: an answer this many times the one before it, or less than its reciprocal, is none
JUMP = 10


class Answered(NamedTuple):
    """One round of an aggregator; `at` in unix seconds."""

    round: int
    at: int
    answer: int


def flaws(rounds: Sequence[Answered], now: int) -> list[str | None]:
    """Why each round is not used, None where it is; `rounds` are ascending, `now` (unix seconds) is the newest block's time.

    A jump counts as an answer once the round after it confirms it.
    """
    found: list[str | None] = []
    last: Answered | None = None  # the last one that is used
    before: Answered | None = None
    for one in rounds:
        why: str | None = None
        if one.answer <= 0:
            why = "not above 0"
        elif one.at > now:
            why = "from the future"
        elif last is not None and one.at < last.at:
            why = "older than the round before"
        elif last is not None and jumps(last, one) and (before is None or before is last or jumps(before, one)):
            why = "a jump by a factor above 10"
        found.append(why)
        last = one if why is None else last
        before = one
    return found


def jumps(one: Answered, other: Answered) -> bool:
    """Whether an answer is more than ten times another, or less than a tenth of it."""
    if one.answer <= 0 or other.answer <= 0:
        return True
    return not one.answer <= other.answer * JUMP or not other.answer <= one.answer * JUMP


def revealed(rounds: Sequence[Answered], reveals: Mapping[int, int], cutoff: int | None, now: int) -> list[int | None]:
    """From when on each round was in force for the proxy from which rounds are hidden for a while (Chainlink SVR).

    A round is shown once it is revealed (`reveals`: round -> time of SecondaryRoundIdUpdated), or with the first block after
    its time and the cut-off; the newest shown one counts. None: not yet, or a newer one was shown before it.
    `cutoff` None: it is not known, so that only reveals count. Source: DualAggregator._getSyncPrimaryRound.
    """
    found: list[int | None] = [None] * len(rounds)
    newer: int | None = None  # since when a newer round is shown
    for i in range(len(rounds) - 1, -1, -1):
        one = rounds[i]
        times = [reveals[one.round]] if one.round in reveals else []
        if cutoff is not None:
            times.append(one.at + cutoff + 1)
        shown = min(times, default=None)
        if shown is None or shown > now or (newer is not None and shown >= newer):
            continue
        found[i] = newer = shown
    return found


class Phase(NamedTuple):
    """One aggregator of a proxy: its rounds, and from when on the proxy surely read it (None: nobody saw the change)."""

    since: int | None
    rounds: Sequence[Answered]


def of_phases(phases: Sequence[Phase]) -> list[list[int | None]]:
    """From when on each round of each phase was in force; None where the proxy read another aggregator.

    A proxy that changes its aggregator logs nothing. The next aggregator counts from when a snapshot saw it, else from its first
    round: what the one before it goes on to answer counts no more.
    """
    begins: list[int | None] = []
    for number, phase in enumerate(phases):
        first = phase.rounds[0].at if phase.rounds else None
        begins.append(None if number == 0 else phase.since if phase.since is not None else first)
    found = []
    for number, phase in enumerate(phases):
        begin = begins[number]
        end = next((later for later in begins[number + 1 :] if later is not None), None)
        times: list[int | None] = [
            one.at if (begin is None or one.at >= begin) and (end is None or one.at < end) else None
            for one in phase.rounds
        ]
        if begin is not None and (end is None or begin < end):
            earlier = [i for i, one in enumerate(phase.rounds) if one.at < begin]
            if earlier:
                times[earlier[-1]] = begin  # what it answered when the proxy turned to it
        found.append(times)
    return found
