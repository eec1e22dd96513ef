"""From which block on a deployment's logs are read: the configuration says, and what the chain proves corrects it.

A start that is too late would miss accounts, one that is too early only takes longer. So a proven block replaces 0, and
moves any other value earlier, never later.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from indexer.adapter import AnyAdapter
from indexer.chain.client import Chain
from indexer.chain.flight import Ahead
from indexer.chain.limits import FIRST_WINDOW
from indexer.model import Block
from indexer.reads.first_block import first_block
from indexer.store.deployments import keep_start_block
from indexer.store.store import Store

log = logging.getLogger(__name__)

#: blocks that a request for logs covers anyway: a chain no longer than that is not searched
FEWEST_BLOCKS = FIRST_WINDOW


class StartBlocks:
    """Finds the first block of each deployment before its first snapshot; what was found is kept in the file."""

    def __init__(self, store: Store, chain: Chain) -> None:
        self.store, self.chain = store, chain
        self._searched: dict[str, int | None] = {}

    def search(self, adapters: Iterable[AnyAdapter], target: Block) -> None:
        """Looks for the first blocks of several deployments at once, where they are not known."""
        due = [adapter for adapter in adapters if self._unknown(adapter, target)]
        with Ahead((partial(self._first, adapter, target) for adapter in due), lambda: self.chain.room) as ahead:
            for adapter, done in zip(due, ahead, strict=True):
                self._searched[adapter.deployment.name] = done.result()

    def settle(self, adapter: AnyAdapter) -> None:
        """Gives the adapter's deployment its start block, after `search`."""
        deployment = adapter.deployment
        found = self._searched.get(deployment.name)
        if found is None or (deployment.start_block and found >= deployment.start_block):
            return
        if deployment.start_block:
            log.warning(
                "%s exists since block %d, before its start_block %d: its logs are read from there on",
                deployment.name,
                found,
                deployment.start_block,
            )
        adapter.deployment = replace(deployment, start_block=found)

    def keep(self, name: str) -> None:
        """Stores what was found for a deployment that is registered by now."""
        found = self._searched.get(name)
        if found is not None:
            with self.store.transaction() as conn:
                keep_start_block(conn, self.chain.chain_id, name, found)

    def _unknown(self, adapter: AnyAdapter, target: Block) -> bool:
        """Whether it has to be looked for; what the file knows is taken from there."""
        name = adapter.deployment.name
        if name in self._searched:
            return False
        row = self.store.deployment(self.chain.chain_id, name) or {}
        self._searched[name] = row.get("start_block_found")
        return self._searched[name] is None and row.get("block_number") is None and target.number >= FEWEST_BLOCKS

    def _first(self, adapter: AnyAdapter, target: Block) -> int | None:
        deployment = adapter.deployment
        addresses = [deployment.addresses[key] for key in adapter.required_addresses]
        return first_block(self.chain, addresses, target, deployment.start_block)
