"""Wallets' positions straight from the chain, without a database."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from indexer.adapter import AnyAdapter
from indexer.chain.client import Chain
from indexer.chain.pace import seconds_per_block
from indexer.errors import ChainError
from indexer.model import Accounts, Market, Position
from indexer.reads.multicall import PinnedReader
from indexer.risk.liquidation import SECONDS_PER_BLOCK
from indexer.snapshot.everyone import build
from indexer.snapshot.known import KnownDeployment
from indexer.store.rows import BalanceRow, PositionRow

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LivePosition:
    """A position straight from the chain: its rows, and the market and state they follow from."""

    row: PositionRow
    balances: Sequence[BalanceRow]
    adapter: AnyAdapter
    market: Market
    position: Position
    seconds_per_block: float


def live(
    chain: Chain,
    adapters: Sequence[AnyAdapter],
    wallets: Sequence[str],
    to: str = "latest",
    tell: Callable[[str, ChainError], None] | None = None,
) -> Iterator[LivePosition]:
    """These wallets' positions at one block, in a few calls a deployment and without a database.

    A deployment that cannot be read is left out: `tell` hears its name and why, else the log.
    """
    tell = tell or (lambda name, error: log.error("%s: %s", name, error))
    block = chain.block(int(to) if to.isdecimal() else to)
    read = PinnedReader(chain, block)
    pace = seconds_per_block(chain, block) or SECONDS_PER_BLOCK
    for adapter in adapters:
        deployment = KnownDeployment(chain.chain_id, adapter, Accounts.WATCHED, lambda: list(wallets))
        try:
            spool = build(deployment, read)
        except ChainError as error:
            tell(adapter.deployment.name, error)
            continue
        for rows, values in spool:
            balances = [*map(BalanceRow._make, values)]
            for row, position in zip(rows, deployment.loaded(row.key for row in rows), strict=True):
                mine = [b for b in balances if (b.account, b.position_group) == row.key]
                yield LivePosition(row, mine, adapter, deployment.market, position, pace)
