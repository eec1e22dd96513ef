"""A feed's rule, which is not on the chain, from its own rounds: the heartbeat and the deviation that makes it update early."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from indexer.prices.tables import Learnt

#: rounds of so many days are looked at
DAYS = 90
#: gaps of which fewer cannot tell
FEWEST = 30
#: a heartbeat's gaps lie this close together: blocks and the oracles' own latency
WIDTH = 1.03
#: at least so many gaps end in the heartbeat, and so many times as many as just below it
AT_LEAST = 5
CROWD = 3
#: of the gaps in the heartbeat, those longer still: times when the oracles slept
LONGER = 0.2
#: an update counts as early below this part of the heartbeat
EARLY = 0.95
#: the part of early moves that may lie below the deviation: medians of oracles that disagree
BELOW = 0.02
#: above this, early moves have no lower edge: what makes the feed update is something else
BLURRED = 1.5


def learn(times: Sequence[int], answers: Sequence[float]) -> Learnt:
    """The rule of a feed whose rounds these are, in order; None for what they do not tell. `times` in unix seconds."""
    gaps = [b - a for a, b in pairwise(times)]
    moves = [abs(b / a - 1) for a, b in pairwise(answers) if a > 0]
    if len(gaps) < FEWEST or len(moves) < len(gaps):
        return Learnt(None, None)
    seconds = heartbeat(gaps)
    early = moves if seconds is None else [m for gap, m in zip(gaps, moves, strict=True) if gap < seconds * EARLY]
    return Learnt(seconds, deviation(early))


def heartbeat(gaps: Sequence[int]) -> int | None:
    """The gap at which the longest ones crowd, in seconds; None where they do not.

    Gaps that moves alone end thin out towards the longest; a heartbeat cuts them off and gathers the rest in one place.
    """
    order = sorted(gap for gap in gaps if gap > 0)
    best: tuple[int, int] | None = None  # how many gaps, and the first of them
    first = 0
    for last, gap in enumerate(order):
        while gap > order[first] * WIDTH:
            first += 1
        inside, beyond = last - first + 1, len(order) - last - 1
        below = first - bisect_left(order, order[first] / WIDTH)
        if inside >= max(AT_LEAST, CROWD * below) and beyond <= inside * LONGER and (best is None or inside > best[0]):
            best = (inside, first)
    return None if best is None else order[best[1] + best[0] // 2]


def deviation(moves: Sequence[float]) -> float | None:
    """The lower edge of the moves that made the feed update early, in basis points; None where they have none."""
    order = sorted(move for move in moves if move > 0)
    if len(order) < FEWEST:
        return None
    edge, inner = order[int(len(order) * BELOW)], order[int(len(order) * 0.1)]
    return None if inner > edge * BLURRED else edge * 10_000
