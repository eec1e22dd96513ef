"""What the tests of both Compound adapters share: a node's readers and logs, answers that lie, recorded logs."""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from indexer.adapter import AnyAdapter, Reader
from indexer.chain.client import Chain
from indexer.logs.log_filter import LogParser
from indexer.model import Accounts, Block, Event, LogSource, Market, Position, PositionKey, Read
from indexer.reads.multicall import PinnedReader
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet


class AlteredReader:
    """A reader whose answers pass through `alter`, and which has no storage if told so."""

    def __init__(
        self, reader: Reader, alter: Callable[[Read, Any], Any] = lambda _, answer: answer, *, storage: bool = True
    ) -> None:
        self.reader = reader
        self.alter = alter
        self.has_storage = storage

    @property
    def block(self) -> Block:
        return self.reader.block

    def __call__(self, reads: Sequence[Read], prelude: Sequence[Read] = ()) -> list[Any]:
        return [self.alter(read, answer) for read, answer in zip(reads, self.reader(reads, prelude), strict=True)]

    def by_flags(self, *_: object) -> None:
        """Never: plain reads can be altered."""

    def storage(self, slots: Sequence[tuple[str, int]]) -> list[int] | None:
        return self.reader.storage(slots) if self.has_storage else None


class Connection:
    """One node: readers of its blocks, its logs as events."""

    def __init__(self, node: Anvil) -> None:
        self.node = node
        self.chain = Chain("devnet", CHAIN_ID, [node.url], MULTICALL3)

    def reader(self, block: int | str = "latest") -> Reader:
        return PinnedReader(self.chain, self.chain.block(block))

    def news(self, adapter: AnyAdapter, market: Market) -> list[Event]:
        """The logs behind the market's block that may have changed somebody's state."""
        return self.events(adapter.logs(market, Accounts.ALL).activity, market.block.number + 1)

    def requests(self, act: Callable[[], Any]) -> int:
        """How many requests `act` makes."""
        before = self.chain.requests
        act()
        return self.chain.requests - before

    def events(self, sources: Iterable[LogSource], first: int = 0) -> list[Event]:
        """All logs of the sources from that block on."""
        found = []
        for source in sources:
            query = {
                "fromBlock": hex(first),
                "toBlock": "latest",
                "address": sorted(source.addresses),
                "topics": [sorted(source.topics)],
            }
            found += [LogParser()(raw) for raw in self.node.rpc("eth_getLogs", query)]
        return found


def event(address: str, topics: Sequence[str], words: Sequence[str | int] = ()) -> Event:
    """A log of these topics (topic0, then accounts) and data words (accounts or numbers)."""
    data = b"".join(
        word.to_bytes(32, "big") if isinstance(word, int) else bytes(12) + bytes.fromhex(word[2:]) for word in words
    )
    indexed = tuple("0x" + account[2:].rjust(64, "0") for account in topics)
    return Event(address, indexed, data, 1, "0x" + "1" * 64, "0x" + "2" * 64, 0)


def accounts_in(adapter: AnyAdapter, market: Market, events: Iterable[Event]) -> set[str]:
    """Who the events touch."""
    return {key.account for event in events for key in adapter.touched(market, event)}


def keys(accounts: Iterable[str]) -> list[PositionKey]:
    return [PositionKey(account) for account in accounts]


def by_account(positions: Iterable[Position]) -> dict[str, Position]:
    return {position.key.account: position for position in positions}


def snapshot(adapter: AnyAdapter, node: Connection, devnet: Devnet) -> tuple[Any, dict[str, Any]]:
    """The market and every user's position at the head."""
    read = node.reader()
    market = adapter.read_market(read, None)
    positions = adapter.read_positions(read, market, keys(devnet.users))
    return adapter.fit(read, market, positions), by_account(positions)


def recorded_lending(shared: Path) -> Iterator[tuple[str, list[Event]]]:
    """(transaction hash, events) of the recorded lending transactions of mainnet."""
    with gzip.open(shared / "mainnet" / "lending_receipts.json.gz") as file:
        for entry in json.load(file):
            yield entry["transactionHash"], [LogParser()(raw) for raw in entry["receipt"]["logs"]]


def recorded_others(shared: Path) -> list[Event]:
    """Events of recorded mainnet transactions that have nothing to do with lending."""
    with gzip.open(shared / "mainnet" / "other_receipts.json.gz") as file:
        return [LogParser()(raw) for receipt in json.load(file) for raw in receipt["logs"]]


def recorded_block(shared: Path, number: int) -> list[Event]:
    with gzip.open(shared / "mainnet" / f"block_{number}_logs.json.gz") as file:
        return [LogParser()(raw) for raw in json.load(file)["logs"]]
