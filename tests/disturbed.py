"""What the tests of disturbed runs share: syncs in processes that may be killed, and chains that are reorganised."""

import multiprocessing
import os
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from indexer.errors import ChainError, StoreError
from indexer.model import Deployment
from tests.devnet.scenario import Devnet
from tests.faulty import FaultyNode
from tests.faulty_modes import BLOOM_FAULTS
from tests.truth import sync_once

#: what a tail or a sync must live with at any rate; tests of their own see to the others of `tests.faulty`
FAULTS = (
    "429", "429-retry-after", "500", "502", "503", "reset", "truncated", "html", "wrong-id", "batch-unsupported",
    "batch-missing", "batch-reordered", "batch-duplicate", "batch-swapped", "rate-limit-error", "header-not-found", "null", "internal",
    "omitted-logs", "ignores-block", "ignores-filter", "lagging", "override-unsupported", "override-ignored",
    "receipts-unsupported", "deep-json", "long-error", "gzip-bomb", "batch-rate-limited", "gateway-error", "unknown-error",
)  # fmt: skip
#: what costs its time-out each time
SLOW_FAULTS = ("hang", "drip")
#: ways that a node has always
PROPERTIES = (
    *BLOOM_FAULTS, "null-logs", "eip1898-refused", "log-index-per-transaction", "block-hash-ignored", "block-hash-unsupported",
)  # fmt: skip
#: what may leave out logs
OMISSIONS = ("omitted-logs", "lagging", "block-hash-ignored", "silent-cap")


def drawn(rng: random.Random) -> dict[str, float]:
    """Some faults at random rates, and sometimes a property of the node.

    A node that both leaves out logs and serves a bloom filter without them is beyond what one node can be asked.
    """
    faults = {name: rng.uniform(0.05, 0.2) for name in rng.sample(FAULTS, rng.randint(1, 4))}
    if rng.random() < 0.05:
        faults[rng.choice(SLOW_FAULTS)] = 0.01
    if rng.random() < 0.3:
        faults[rng.choice(PROPERTIES)] = 1.0
    if any(name in BLOOM_FAULTS for name in faults):
        faults = {name: rate for name, rate in faults.items() if name not in OMISSIONS}
    return faults


QUICK = {"backoff": 0.01, "timeout": 5.0}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["tests.truth", "tests.disturbed", "protocols.aave_v3", "protocols.maker", "protocols.compound_v2"]
)


def sync_in_a_child(
    path: Path, url: str, deployments: Sequence[Deployment], accounts: str = "all", **settings: Any
) -> None:
    """One sync as a process of its own; it ends with 1 where the indexer gives up on the node, with 2 on the file."""
    try:
        sync_once(path, url, deployments, accounts, chain_options=QUICK, **{"behind_seconds": 0.2, **settings})
    except ChainError:
        os._exit(1)
    except StoreError:
        os._exit(2)


class Moment(FaultyNode):
    """A faithful proxy that does `act(number)` right before it passes on its request of that number, from 1 on."""

    def __init__(self, upstream: str, act: Callable[[int], None]) -> None:
        super().__init__(upstream)
        self.act = act

    def handle(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        self.act(self.requests + 1)
        super().handle(handler, body)


class Forks:
    """Points that the chain can be taken back to: what came after them is orphaned and other blocks take its place."""

    def __init__(self, markets: Sequence[Devnet], rng: random.Random) -> None:
        self.markets, self.node, self.rng = list(markets), markets[0].node, rng
        self.points: list[tuple[ExitStack, int]] = []

    def mark(self) -> None:
        stack = ExitStack()
        for market in self.markets:
            stack.enter_context(market.rewound())
        self.points.append((stack, self.node.block_number()))

    def go_back(self) -> int:
        """Go back to the last point, with nothing in place of what came after it; how many blocks are gone."""
        stack, block = self.points.pop()
        orphaned = self.node.block_number() - block
        stack.close()
        return orphaned

    def take_back(self, blocks: int | None = None) -> int:
        """Go back to the last point and mine that many other blocks (at random); how many blocks were orphaned."""
        orphaned = self.go_back()
        self.other_blocks(self.rng.randint(1, orphaned + 3) if blocks is None else blocks)
        return orphaned

    def other_blocks(self, count: int) -> None:
        """Blocks with a payment in each, so that no two of them are alike."""
        sender, to = self.node.rpc("eth_accounts")[:2]
        for _ in range(count):
            value = hex(self.rng.randint(1, 10**9))
            self.node.execute({"from": sender, "to": to, "value": value, "gasPrice": "0x0"})

    def close(self) -> None:
        while self.points:
            self.points.pop()[0].close()
