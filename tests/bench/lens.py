"""Reading Aave V3 borrowers in two rounds, and by the lens: `python -m tests.bench.lens [--quick]`.

The lens (indexer/reads/lens.yul) is a program that is never deployed: an eth_call overrides the code of an address with it. In
one go it asks the pool and the tokens what decides the health of each account, for which aggregates take two rounds. Both
are measured on the real contracts, and must read the same.

How many accounts a request may carry follows from what they take of 50 M gas and of a body of 1 MB.
"""

import json
import time
from collections.abc import Iterator
from typing import Any, Self

from indexer.adapter import HealthFirst
from indexer.chain.client import Chain
from indexer.chain.endpoint import Endpoint
from indexer.model import PositionKey
from indexer.reads.multicall import PinnedReader
from tests.bench.run import Result, run
from tests.devnet.__main__ import MARKETS
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.truth import adapter_of

GAS, BODY = 50_000_000, 1_000_000
BORROWERS = 100_000


class Plain(PinnedReader):
    """Never uses the lens."""

    def by_flags(self, *_: Any) -> None:
        return None


class Meter:
    """Counts what leaves and arrives while it is entered."""

    def __init__(self, rounds: int = 1) -> None:
        self.rounds = rounds
        self.bodies: list[bytes] = []
        self.answered = 0
        self._exchange = Endpoint._exchange

    def __enter__(self) -> Self:
        meter, exchange = self, self._exchange

        def metered(endpoint: Endpoint, payload: bytes, what: str, most: int) -> Any:
            meter.bodies.append(payload)
            reply = exchange(endpoint, payload, what, most)
            meter.answered += len(reply.content)
            return reply

        Endpoint._exchange = metered  # type: ignore[method-assign, assignment]
        self.cpu, self.began = time.process_time(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu, self.seconds = time.process_time() - self.cpu, time.monotonic() - self.began
        Endpoint._exchange = self._exchange  # type: ignore[method-assign]

    def gas(self, node: Anvil) -> int:
        """What the eth_calls took, by the node's estimates."""
        total = 0
        for body in self.bodies:
            asked = json.loads(body)
            call, _, *overrides = asked["params"]
            total += int(node.rpc("eth_estimateGas", {**call, "gas": hex(10**9)}, "latest", *overrides), 16)
        return total

    def results(self, name: str, node: Anvil, users: int) -> Iterator[Result]:
        sent, gas = sum(map(len, self.bodies)), self.gas(node)
        carried = min(GAS * users * self.rounds // gas, BODY * users * self.rounds // sent)
        yield Result(f"{name}: gas", gas / users, "gas/borrower")
        yield Result(f"{name}: sent", sent / users, "bytes/borrower")
        yield Result(f"{name}: received", self.answered / users, "bytes/borrower")
        yield Result(f"{name}: CPU", self.cpu / users * 1e6, "us/borrower")
        yield Result(f"{name}: seconds", self.seconds / users * 1e6, "us/borrower")
        yield Result(f"{name}: requests for {BORROWERS:,}", self.rounds * BORROWERS / carried, "requests")


def lens(quick: bool) -> Iterator[Result]:
    users = 40 if quick else 400
    with Anvil() as node:
        node.place_multicall3()
        devnet = MARKETS["aave-v3-6"](node)
        devnet.populate(1, users)
        adapter = adapter_of(devnet)
        assert isinstance(adapter, HealthFirst)
        with Chain("devnet", CHAIN_ID, [node.url], MULTICALL3) as chain:
            block = chain.block("latest")
            read = PinnedReader(chain, block)
            market = adapter.read_market(read, None)
            keys = [PositionKey(account.lower()) for account in sorted(devnet.borrowers)]
            for _ in range(2):  # the first time fills caches on both sides
                with Meter(rounds=2) as flags:
                    plainly = adapter.read_health(Plain(chain, block), market, keys)
                with Meter() as lens:
                    assert adapter.read_health(read, market, keys) == plainly
            yield Result("borrowers", len(keys), "accounts")
            yield from flags.results("two rounds", node, len(keys))
            yield from lens.results("lens", node, len(keys))


if __name__ == "__main__":
    run(lens)
