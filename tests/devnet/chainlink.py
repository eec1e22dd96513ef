"""Chainlink's price feeds on the devnet: the real v0.6 EACAggregatorProxy over real FluxAggregators, one round an answer.

SVR's DualAggregator and Aave's price cap adapters are in no package: `price_feeds_stand_in.sol` has stand-ins.
"""

import csv
import gzip
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.devnet.contracts import Artifact, compile_contracts
from tests.devnet.node import Anvil
from tests.devnet.packages import package, sources
from tests.devnet.send import Sender, Transaction, account, calldata

SOLC = "0.6.6"
ZERO = "0x" + "00" * 20
HOUR = 3600
#: real hourly prices, read in place; where they are absent a synthetic path takes their place
REAL = Path(__file__).resolve().parents[3] / "shared" / "foresight" / "prices"
SYNTHETIC = "a synthetic path"


@cache
def contracts() -> dict[str, Artifact]:
    """The real contracts, and the stand-ins, compiled once."""
    folder = package("@chainlink/contracts", "0.6.1") / "src" / "v0.6"
    names = ("EACAggregatorProxy", "FluxAggregator")
    real = compile_contracts(SOLC, sources({f"v0.6/{name}.sol": folder / f"{name}.sol" for name in names}, {}))
    text = (Path(__file__).parent / "price_feeds_stand_in.sol").read_text()
    standing_in = compile_contracts("0.8.27", {"price_feeds_stand_in.sol": {"content": text}}, {"evmVersion": "paris"})
    return {name: real[name] for name in names} | standing_in


@dataclass
class Feed:
    """A proxy and the aggregators it had; `rounds` is what was answered, by phase: (answer, time) of round 1, 2, ..."""

    description: str
    decimals: int
    proxy: str
    aggregators: list[str]
    rounds: list[list[tuple[int, int]]] = field(default_factory=lambda: [[]])

    @property
    def aggregator(self) -> str:
        return self.aggregators[-1]


class Chainlink:
    """Feeds of one node. One oracle answers alone, so each of its submissions is a round of its own."""

    def __init__(self, node: Anvil, sender: Sender | None = None) -> None:
        self.node, self.sender, self.code = node, sender or Sender(node), contracts()
        self.oracle = account("chainlink oracle")
        self.feeds: dict[str, Feed] = {}

    def feed(self, description: str, decimals: int = 8) -> Feed:
        """A new proxy with one aggregator, which has no round yet."""
        aggregator = self._aggregator(description, decimals)
        proxy = self.sender.deploy(self.code["EACAggregatorProxy"], [aggregator, ZERO])
        self.feeds[description] = Feed(description, decimals, proxy, [aggregator])
        return self.feeds[description]

    def _aggregator(self, description: str, decimals: int) -> str:
        limits = [-(2**191), 2**191]
        address = self.sender.deploy(
            self.code["FluxAggregator"], [self.sender.default, 0, 0, ZERO, *limits, decimals, description]
        )
        add = "changeOracles(address[],address[],address[],uint32,uint32,uint32)"
        self.sender.send(address, add, [[], [self.oracle], [self.oracle], 1, 1, 0])
        return address

    def replay(self, answers: Mapping[str, Sequence[int]], interval: int = HOUR) -> None:
        """Answers of several feeds, by description, side by side: one block for each place of the sequences."""
        columns = [(self.feeds[name], list(values)) for name, values in answers.items()]
        length = len(columns[0][1])
        rows, asked = [], []
        for i in range(length):
            for feed, values in columns:
                number = len(feed.rounds[-1]) + i + 1
                data = calldata("submit(uint256,int256)", [number, values[i]])
                rows.append(Transaction(self.oracle, feed.aggregator, data))
                asked.append((feed, values[i]))
        first = self.node.block_number() + 1
        assert all(self.sender.bulk(rows, gas=500_000, per_block=len(columns), interval=interval))
        blocks = self.node.batch([("eth_getBlockByNumber", [hex(first + i), False]) for i in range(length)])
        for place, (feed, value) in enumerate(asked):
            feed.rounds[-1].append((value, int(blocks[place // len(columns)]["timestamp"], 16)))

    def next_phase(self, feed: Feed) -> None:
        """The proxy turns to a new aggregator, by proposeAggregator and confirmAggregator, which log nothing."""
        feed.aggregators.append(self._aggregator(feed.description, feed.decimals))
        feed.rounds.append([])
        for function in ("proposeAggregator(address)", "confirmAggregator(address)"):
            self.sender.send(feed.proxy, function, [feed.aggregator])


def hourly(symbols: Sequence[str], count: int, decimals: int = 8) -> tuple[dict[str, list[int]], str]:
    """Closes of so many hours by symbol, as feeds answer them, and what they are: real, or a synthetic path."""
    found = {}
    for symbol in symbols:
        path = REAL / f"{symbol}USDT_1h.csv.gz"
        if not path.exists():
            return synthetic(symbols, count, decimals), SYNTHETIC
        with gzip.open(path, "rt") as file:
            rows = list(csv.DictReader(file))
        found[symbol] = [round(float(row["close"]) * 10**decimals) for row in rows[-count:]]
    return found, "real hourly closes"


def synthetic(symbols: Sequence[str], count: int, decimals: int = 8, seed: int = 1) -> dict[str, list[int]]:
    """Random walks from a seed, with a common part; nothing of them is real."""
    chance, paths = random.Random(seed), {}
    common = [chance.gauss(0, 0.005) for _ in range(count)]
    for symbol in symbols:
        value, path = 2_000.0, list[int]()
        for step in common:
            value *= 1 + step + chance.gauss(0, 0.004)
            path.append(round(value * 10**decimals))
        paths[symbol] = path
    return paths
