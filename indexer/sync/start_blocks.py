"""From which block on a deployment's logs are read: the configuration says, and what the chain proves corrects it.

A start that is too late would miss accounts, one that is too early only takes longer. So a proven block replaces 0, and
moves any other value earlier, never later.
"""

import logging
from dataclasses import replace

from indexer.adapter import AnyAdapter
from indexer.chain.client import Chain
from indexer.chain.first_block import first_block
from indexer.chain.limits import FIRST_WINDOW
from indexer.model import Block
from indexer.store.store import Store

log = logging.getLogger(__name__)

#: blocks that a request for logs covers anyway: a chain no longer than that is not searched
FEWEST_BLOCKS = FIRST_WINDOW


class StartBlocks:
    """Finds the first block of each deployment before its first snapshot; what was found is kept in the file."""

    def __init__(self, store: Store, chain: Chain) -> None:
        self.store, self.chain = store, chain
        self._searched: dict[str, int | None] = {}

    def settle(self, adapter: AnyAdapter, target: Block) -> None:
        """Gives the adapter's deployment its start block."""
        deployment = adapter.deployment
        found = self._found(adapter, target)
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
                conn.execute(
                    "update deployments set start_block_found = ? where chain_id = ? and deployment = ?",
                    (found, self.chain.chain_id, name),
                )

    def _found(self, adapter: AnyAdapter, target: Block) -> int | None:
        deployment = adapter.deployment
        if deployment.name not in self._searched:
            row = self.store.deployment(self.chain.chain_id, deployment.name) or {}
            found: int | None = row.get("start_block_found")
            if found is None and row.get("block_number") is None and target.number >= FEWEST_BLOCKS:
                addresses = [deployment.addresses[key] for key in adapter.required_addresses]
                found = first_block(self.chain, addresses, target, deployment.start_block)
            self._searched[deployment.name] = found
        return self._searched[deployment.name]
