"""What a sync would request, estimated by walking through samples of the logs that are missing."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

from indexer.chain.client import Chain
from indexer.errors import PrunedError
from indexer.logs.ranges import fetch
from indexer.model import Block
from indexer.snapshot.tracked import TrackedDeployment
from indexer.sync.missing_logs import Piece, plan

#: requests with which each range is walked through from its beginning, which may be all that it takes
WALKED = 40
#: stretches of one block range that are walked through, spread evenly; how many windows each is long, and how many requests
#: it may take
SAMPLES = 12
STRETCH = 2
LONGEST = 16
#: the part of an estimate that it may be off by where the samples agree
MARGIN = 0.2


class Estimate(NamedTuple):
    """How many requests are expected, and between which numbers they most likely are."""

    requests: float
    low: float
    high: float


def dry_run(chain: Chain, deployments: Sequence[TrackedDeployment], target: Block) -> list[Mapping[str, Any]]:
    """What a sync would request: per deployment, the blocks whose logs are missing and the requests it expects.

    Blocks that several deployments miss are requested once, and counted with the first of them: the sum of `log_requests`
    is the whole sync's, and `shared_blocks` are those that another row's requests bring along.
    """
    pieces = list(plan(deployments, target.number))
    estimates = {piece[:2]: estimated(chain, piece) for piece in pieces}
    found: list[Mapping[str, Any]] = []
    for tracked in deployments:
        mine = [piece for piece in pieces if any(want.tracked is tracked for want in piece[2])]
        own = [piece for piece in mine if piece[2][0].tracked is tracked]
        blocks, counted = (sum(last - first + 1 for first, last, _ in some) for some in (mine, own))
        requests, low, high = (sum(estimates[piece[:2]][i] for piece in own) for i in range(3))
        found.append(
            {
                "deployment": tracked.name,
                "from_block": mine[-1][0] if mine else None,
                "to_block": target.number,
                "blocks": blocks,
                "shared_blocks": blocks - counted,
                "log_requests": math.ceil(requests - 1e-9),
                "at_least": math.floor(low + 1e-9),
                "at_most": math.ceil(high - 1e-9),
                "known_positions": len(tracked.known),
            }
        )
    return found


def estimated(chain: Chain, piece: Piece) -> Estimate:
    """The requests that a block range takes: those of its beginning, and of the rest by those of stretches of it.

    How far the stretches' requests a block lie apart from those of their neighbours tells how far the sum may be off.
    """
    first, last, wanted = piece
    where = filter_of(wanted)
    begun = walked(chain, first, last, where, most=WALKED)
    blocks, first = last - begun.done + 1, begun.done
    if blocks <= 0 or begun.pruned:
        return Estimate(begun.requests, max(1.0, (1 - MARGIN) * begun.requests), (1 + MARGIN) * begun.requests)
    found = []
    for part in range(SAMPLES):
        begin, end = first + blocks * part // SAMPLES, first + blocks * (part + 1) // SAMPLES
        stretch = min(STRETCH * chain.log_limit.size, end - begin)
        start = (begin + end - stretch) // 2
        arrive(chain, begin, start, where)
        found.append(walked(chain, start, start + stretch - 1, where, most=LONGEST).rate(chain.log_limit.size))
    count = begun.requests + blocks * sum(found) / SAMPLES
    apart = math.sqrt(sum((a - b) ** 2 for a, b in pairwise(found)) / 2 / (SAMPLES - 1))
    off = max(2 * blocks * apart / math.sqrt(SAMPLES), MARGIN * count)
    return Estimate(count, max(count - off, min(count, 1.0)), count + off)


def arrive(chain: Chain, begin: int, start: int, where: tuple[set[str], set[str]]) -> None:
    """Makes the window fit the logs before `start`, as it would if a sync had come from there."""
    before = max(begin, start - max(1, chain.log_limit.size // 4))
    if before < start:
        with suppress(PrunedError):
            chunks = list(fetch(chain, before, start - 1, *where))
            density = sum(len(chunk.events) for chunk in chunks) / (start - before)
            chain.log_limit.window = chain.log_limit.expected_span(density)


class Walk(NamedTuple):
    """What walking through a range took: up to the block before `done`, the last window of `span` blocks."""

    requests: int
    first: int
    done: int
    span: int
    last: int
    pruned: bool

    def rate(self, size: int) -> float:
        """Requests a block; a last window that is cut at the end of the range counts for its part of `size` blocks."""
        if self.done == self.first:
            return 0.0
        cut = 1 - min(1.0, self.span / size) if self.done > self.last else 0.0
        return (self.requests - cut) / (self.done - self.first)


def walked(chain: Chain, first: int, last: int, where: tuple[set[str], set[str]], *, most: int) -> Walk:
    """Walks through a range as a sync does, refused requests included; it ends early after `most` requests, or at what is
    pruned.
    """
    before, done, span, pruned = chain.requests, first, 0, False
    try:
        for chunk in fetch(chain, first, last, *where, go_on=lambda: chain.requests - before < most):
            done, span = chunk.to_block + 1, chunk.to_block - chunk.from_block + 1
    except PrunedError:
        pruned = True
    return Walk(chain.requests - before, first, done, span, last, pruned)


def filter_of(wanted: Sequence[Any]) -> tuple[set[str], set[str]]:
    """Addresses and topics of what is wanted."""
    pairs = {pair for want in wanted for pair in want.pairs}
    return {address for address, _ in pairs}, {topic for _, topic in pairs}
