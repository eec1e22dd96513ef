"""A wallet's positions straight from the chain, without a database."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.adapter import AnyAdapter
from indexer.chain.client import Chain
from indexer.chain.multicall import PinnedReader
from indexer.errors import ChainError
from indexer.model import Balance, Block, Market, Position
from indexer.risk.evaluate import evaluate_all
from indexer.risk.liquidation import SECONDS_PER_BLOCK
from indexer.store.rows import POSITION_COLUMNS
from indexer.sync.tracked import keys_of_wallets, with_keys

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LivePosition:
    """A position straight from the chain: the columns of `positions`, its balances, and what they follow from."""

    columns: Mapping[str, Any]
    balances: Sequence[Balance]
    usd: tuple[int, int] | None
    adapter: AnyAdapter
    market: Market
    position: Position
    seconds_per_block: float


def seconds_per_block(chain: Chain, head: Block) -> float:
    """How long a block takes, over the span that the first sync of a database keeps; 12 s on a chain without one."""
    span = next((blocks for blocks in (256, 128) if blocks <= head.number), None)
    if span is None:
        return SECONDS_PER_BLOCK
    return (head.timestamp - chain.block(head.number - span).timestamp) / span or SECONDS_PER_BLOCK


def live(chain: Chain, adapters: Sequence[AnyAdapter], wallet: str, to: str = "latest") -> Iterator[LivePosition]:
    """The wallet's positions at one block, in a few calls a deployment and without a database.

    A deployment that cannot be read is logged and left out.
    """
    block = chain.block(int(to) if to.isdecimal() else to)
    read = PinnedReader(chain, block)
    pace = seconds_per_block(chain, block)
    for adapter in adapters:
        try:
            market = adapter.read_market(read, None)
            market, keys = keys_of_wallets(adapter, read, market, [wallet])
            market = with_keys(adapter, read, market, keys)
            positions = [p for p in adapter.read_positions(read, market, keys) if not p.empty]
            if not positions:
                continue
            market = adapter.fit(read, market, positions)
            answers = None
            if not market.exact:
                given = adapter.contract_answers(read, market, [p.key for p in positions])
                answers = {answer.key: answer for answer in given}
            rows = evaluate_all(chain.chain_id, adapter, market, positions, answers=answers)
        except ChainError as error:
            log.error("%s: %s", adapter.deployment.name, error)
            continue
        for position, row in zip(positions, rows, strict=True):
            columns = dict(zip(POSITION_COLUMNS, row, strict=True))
            balances = adapter.balances(market, position)
            yield LivePosition(columns, balances, market.usd, adapter, market, position, pace)
