"""What a sync would request, estimated from a few samples of the logs that are missing."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from indexer.chain.client import Chain
from indexer.errors import PrunedError
from indexer.logs.ranges import fetch
from indexer.model import Block
from indexer.snapshot.tracked import TrackedDeployment
from indexer.sync.missing_logs import Piece, plan

#: samples of one block range, spread evenly, and requests by which its provider's limits are found at first
SAMPLES = 12
PROBES = 8


def dry_run(chain: Chain, deployments: Sequence[TrackedDeployment], target: Block) -> list[Mapping[str, Any]]:
    """What a sync would request: per deployment, the blocks whose logs are missing and the requests it expects.

    Blocks that several deployments miss are requested once, and counted with the first of them: the sum of `log_requests`
    is the whole sync's, and `shared_blocks` are those that another row's requests bring along.
    """
    pieces = list(plan(deployments, target.number))
    probe(chain, pieces)
    requests = {piece[:2]: estimated(chain, piece) for piece in pieces}
    found: list[Mapping[str, Any]] = []
    for tracked in deployments:
        mine = [piece for piece in pieces if any(want.tracked is tracked for want in piece[2])]
        own = [piece for piece in mine if piece[2][0].tracked is tracked]
        blocks, counted = (sum(last - first + 1 for first, last, _ in some) for some in (mine, own))
        found.append(
            {
                "deployment": tracked.name,
                "from_block": mine[-1][0] if mine else None,
                "to_block": target.number,
                "blocks": blocks,
                "shared_blocks": blocks - counted,
                "log_requests": sum(requests[piece[:2]] for piece in own),
                "known_positions": len(tracked.known),
            }
        )
    return found


def probe(chain: Chain, pieces: Sequence[Piece]) -> None:
    """Lets windows grow over the longest range that is missing, as a sync does, until the provider's limits are known."""
    first, last, wanted = max(pieces, key=lambda piece: piece[1] - piece[0], default=(0, -1, []))
    with suppress(PrunedError):
        for number, chunk in enumerate(fetch(chain, first, last, *filter_of(wanted)), 1):
            if number >= PROBES or chunk.to_block - chunk.from_block + 1 >= chain.log_limit.size:
                return


def estimated(chain: Chain, piece: Piece) -> int:
    """The requests that a block range takes, by the density of logs in samples of it."""
    first, last, wanted = piece
    limit, blocks = chain.log_limit, last - first + 1
    parts = min(SAMPLES, blocks // limit.size)
    if parts < 2:
        return -(-blocks // limit.size)
    requests = 0.0
    for part in range(parts):
        begin, end = first + blocks * part // parts, first + blocks * (part + 1) // parts
        middle = (begin + end) // 2
        density = 0.0
        with suppress(PrunedError):
            chunk = next(iter(fetch(chain, middle, min(middle + limit.size - 1, last), *filter_of(wanted))))
            density = len(chunk.events) / (chunk.to_block - chunk.from_block + 1)
        requests += (end - begin) / limit.expected_span(density)
    return math.ceil(requests - 1e-9)


def filter_of(wanted: Sequence[Any]) -> tuple[set[str], set[str]]:
    """Addresses and topics of what is wanted."""
    pairs = {pair for want in wanted for pair in want.pairs}
    return {address for address, _ in pairs}, {topic for _, topic in pairs}
