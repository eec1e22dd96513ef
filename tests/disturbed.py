"""What the tests of disturbed runs share: syncs in processes that may be killed, and chains that are reorganised."""

import multiprocessing
import os
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from indexer.alert.watcher import Watcher
from indexer.alert.watches import Policy
from indexer.errors import ChainError, StoreError
from indexer.history.history import History
from indexer.model import Deployment
from indexer.settings import Alerts
from tests.devnet.scenario import Devnet
from tests.faulty import FaultyNode
from tests.faulty_modes import BLOOM_FAULTS
from tests.lying import lie_about_a_balance
from tests.truth import sync_once

#: what a tail or a sync must live with at any rate; tests of their own see to the others of `tests.faulty`
FAULTS = (
    "429", "429-retry-after", "500", "502", "503", "reset", "truncated", "html", "wrong-id", "batch-unsupported",
    "batch-missing", "batch-reordered", "batch-duplicate", "batch-swapped", "rate-limit-error", "header-not-found", "null", "internal",
    "omitted-logs", "ignores-block", "ignores-filter", "lagging", "override-unsupported", "override-ignored",
    "receipts-unsupported", "deep-json", "long-error", "gzip-bomb", "batch-rate-limited", "gateway-error", "unknown-error",
    "pruned",
)  # fmt: skip
#: what costs its time-out each time
SLOW_FAULTS = ("hang", "drip")
#: what comes beside four of them
BESIDE = "absurd-time"
#: ways that a node has always
PROPERTIES = (
    *BLOOM_FAULTS, "null-logs", "eip1898-refused", "log-index-per-transaction", "block-hash-ignored", "block-hash-unsupported",
    "unknown-hash-empty",
)  # fmt: skip
#: what may leave out logs
OMISSIONS = ("omitted-logs", "lagging", "unknown-hash-empty", "block-hash-ignored", "silent-cap")
#: what must be set besides (`history_from`), or be asked of two nodes at once (`Company`)
PRUNED_HISTORY = "pruned-history"
#: how a node says that a range of blocks is too wide, or that it knows no override
RANGE_WORDS = (
    (-32600, "You can make eth_getLogs requests with up to a {cap} block range"),
    (-32600, "up to a {cap} block range"),
    (-32005, "Log response size exceeded. this block range should work: [{first}, {last}]"),
    (-32000, "exceed maximum block range: {cap}"),
)
OVERRIDE_WORDS = ((-32602, "too many arguments, want at most 2"), (-32601, "state override is not supported"))


def ids_as_texts(_call: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """trustwallet/blockatlas PR 1062."""
    return answer | {"id": str(answer["id"])}


def padded(call: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Quantities of logs with leading zeros, which the specification forbids."""
    logs = answer.get("result") if call["method"] == "eth_getLogs" else None
    for log in logs or ():
        log |= {name: f"0x{int(log[name], 16):016x}" for name in ("blockNumber", "logIndex", "transactionIndex")}
    return answer


#: harmless ways of a node to say things, for `FaultyNode.edit`
WAYS = {"plain": lambda _, answer: answer, "ids as texts": ids_as_texts, "padded quantities": padded}
#: and HTTP statuses by the number of a request, for `FaultyNode.status`: 201 for everything (blockscout-rs 1003), 403 of a
#: gateway for a client that asks too fast (aurora-is-near/aurora-relayer 156)
STATUSES = {"200": lambda _: 200, "201": lambda _: 201, "403": lambda number: 403 if number % 23 == 22 else 200}


def drawn(rng: random.Random) -> dict[str, float]:
    """Some faults at random rates, and sometimes a property of the node.

    A node that both leaves out logs and serves a bloom filter without them is beyond what one node can be asked.
    """
    faults = {name: rng.uniform(0.05, 0.2) for name in rng.sample(FAULTS, rng.randint(1, 4))}
    if len(faults) == 4:
        faults[BESIDE] = 0.1
    if rng.random() < 0.05:
        faults[rng.choice(SLOW_FAULTS)] = 0.01
    if rng.random() < 0.3:
        faults[rng.choice(PROPERTIES)] = 1.0
    if "unknown-hash-empty" in faults:
        faults["lagging"] = 0.2
    if any(name in BLOOM_FAULTS for name in faults):
        faults = {name: rate for name, rate in faults.items() if name not in OMISSIONS}
    return faults


def disturb(faulty: FaultyNode, rng: random.Random, head: int) -> None:
    """What the node does to the next sync: faults, limits, and sometimes no logs of long ago."""
    faulty.faults = drawn(rng)
    if rng.random() < 0.1:
        faulty.faults |= {PRUNED_HISTORY: 1.0}
        faulty.history_from = rng.randint(1, head + 1)
    faulty.range_cap = rng.choice([None, None, 7, 100])
    faulty.limit_code, faulty.limit_text = rng.choice(RANGE_WORDS)
    faulty.override_refusal = rng.choice(OVERRIDE_WORDS)
    faulty.batch_cap = rng.choice([None, None, None, 7])
    faulty.silent_cap = rng.choice([None, None, None, 100]) if "bloom" not in str(faulty.faults) else None
    faulty.result_cap = rng.choice([None] * 7 + [40])
    faulty.size_cap = rng.choice([None] * 7 + [60_000])
    faulty.address_cap = rng.choice([None] * 7 + [3])
    faulty.gas_cap = rng.choice([None] * 7 + [5_000_000])
    faulty.slow_range = rng.choice([None] * 49 + [200])
    faulty.edit = WAYS[rng.choice([*WAYS])]
    faulty.status = STATUSES[rng.choice(["200", *STATUSES])]


class Company(NamedTuple):
    """A node that only another beside it can show up: what it does, and in which order the two are asked."""

    name: str
    urls: list[str]
    settings: dict[str, Any]


#: what a node does that a second, faithful one makes up for
IN_COMPANY = ("lies", "receipts", "down", "refuse-all")


def in_company(faulty: FaultyNode, rng: random.Random, path: Path, markets: Sequence[Devnet], name: str) -> Company:
    """Makes the node do this, with a faithful one beside it; of nobody there is nothing to lie about."""
    node, urls, settings = markets[0].node, [faulty.url, markets[0].node.url], dict[str, Any]()
    if name == "lies":
        faulty.faults = {}  # it would be found out by accident, or be silent when it is asked
        market = rng.choice(list(markets))
        try:
            _, faulty.lies = lie_about_a_balance(market, path)
        except LookupError:
            name = "nothing to lie about"
        rng.shuffle(urls)
        settings = {"cross_check": EVERYONE}
    elif name == "receipts":
        head = node.block_number()
        faulty.faults = {f: rate for f, rate in faulty.faults.items() if f not in BLOOM_FAULTS}
        faulty.omit_blocks, faulty.omit_receipts = {head - rng.randrange(8) for _ in range(2)}, True
    elif name == "down":
        faulty.down = True
    else:
        faulty.refuse_all = rng.choice([(-32000, "this key is disabled"), (-32603, "words never seen")])
    return Company(name, urls, settings)


def alone_again(faulty: FaultyNode) -> None:
    """Takes back what `in_company` made the node do."""
    faulty.lies, faulty.down, faulty.refuse_all = {}, False, None
    faulty.omit_blocks, faulty.omit_receipts = set(), False


EVERYONE = 10_000
QUICK = {"backoff": 0.01, "timeout": 5.0}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["tests.truth", "tests.disturbed", "protocols.aave_v3", "protocols.maker", "protocols.compound_v2"]
)


def sync_in_a_child(
    path: Path, url: str | list[str], deployments: Sequence[Deployment], accounts: str = "all", **settings: Any
) -> None:
    """One sync as a process of its own; it ends with 1 where the indexer gives up on the node, with 2 on the file."""
    try:
        watch_once(path, url, deployments, accounts, chain_options=QUICK, **settings)
    except ChainError:
        os._exit(1)
    except StoreError:
        os._exit(2)


def watch_once(
    path: Path, url: str | list[str], deployments: Sequence[Devnet | Deployment], accounts: str, **settings: Any
) -> None:
    """One sync that judges the watched wallets; their alerts stay in the outbox.

    No history is thinned: that begins anywhere, and two files would keep other points of the same hour.
    """
    watcher = Watcher("devnet", Policy.of(Alerts(below=(1.05, 1.3), drop_percent=1.0)), [], None)
    with mock.patch.object(History, "_thin"):
        sync_once(path, url, deployments, accounts, **{"behind_seconds": 0.2, "planner": watcher.plan, **settings})


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
