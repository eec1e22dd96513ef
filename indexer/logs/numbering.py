"""Log indexes that count through the whole block, whatever a node counts by.

Some nodes count `logIndex` anew in each transaction. Which way an endpoint counts shows in all logs of one block in which
two transactions log something; until each endpoint has shown that it counts by block, what is given is not believed, and
a log's place among all logs of its block is its number.
"""

from collections.abc import Mapping, Sequence

from indexer.chain.blocks import Header
from indexer.chain.client import Chain
from indexer.chain.endpoint import Endpoint
from indexer.errors import ChainError, ReorgError
from indexer.logs.block_logs import block_logs, by_hash
from indexer.logs.log_filter import EVERYTHING
from indexer.logs.omissions import by_receipts
from indexer.model import Block, Event


class Numbering:
    """The block-wide indexes of logs, by what is known of the endpoints of one chain."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.by_block: dict[str, bool] = {}  # endpoint's URL -> whether it counts by block

    def indexes(self, events: Sequence[Event], headers: Mapping[str, Header]) -> list[int]:
        """One index for each event, in their order; `headers` by block hash.

        Raises ChainError where nobody shows all logs of a block that has to be counted.
        """
        if events and not self._proven(headers[events[0].block_hash].block):
            places: dict[str, list[Event]] = {}
            return [self._place(event, events, headers[event.block_hash], places) for event in events]
        return [event.log_index for event in events]

    def _proven(self, block: Block) -> bool:
        """Whether every endpoint counts by block; those of which it is unknown are asked for all logs of this one."""
        endpoints = self.chain.in_turn()
        for endpoint in endpoints:
            if endpoint.url not in self.by_block:
                shown = self._shown(endpoint, block)
                if shown is not None:
                    self.by_block[endpoint.url] = shown
        return all(self.by_block.get(endpoint.url, False) for endpoint in endpoints)

    def _shown(self, endpoint: Endpoint, block: Block) -> bool | None:
        """Which way an endpoint counts, None where this block does not show it."""
        calls = [("eth_getLogs", [{"blockHash": block.hash}])]
        (logs,) = self.chain.ask_once(endpoint, calls, lambda raw, _: block_logs(raw, EVERYTHING, block))
        firsts: dict[int, int] = {}
        for event in logs or ():
            firsts.setdefault(event.transaction_index, event.log_index)
        if len(firsts) < 2:
            return None
        # By block the first log of a later transaction comes behind all earlier ones; by transaction it is 0 again.
        return list(firsts.values()).count(0) <= 1

    def _place(self, event: Event, events: Sequence[Event], header: Header, places: dict[str, list[Event]]) -> int:
        """The event's place among all logs of its block; those that say the same keep their order."""
        if header.block.hash not in places:
            places[header.block.hash] = self._everything(header)
        same = [place for place, one in enumerate(places[header.block.hash]) if _says(one) == _says(event)]
        twins = [one for one in events if _says(one) == _says(event)]
        number = twins.index(event)
        if number >= len(same):
            raise ChainError(
                f"{self.chain.name}: the logs of block {header.block.number} cannot be counted, since the endpoints show "
                "different ones; give another --rpc-url"
            )
        return same[number]

    def _everything(self, header: Header) -> list[Event]:
        """All logs of a block, ascending."""
        try:
            return by_receipts(self.chain, header, EVERYTHING)
        except ReorgError:
            raise
        except ChainError:
            return by_hash(self.chain, EVERYTHING, header.block)


def _says(event: Event) -> tuple[str, str, tuple[str, ...], bytes]:
    return event.transaction_hash, event.address, event.topics, event.data
