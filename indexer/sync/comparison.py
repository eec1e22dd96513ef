"""Compares rows with the contracts' own answers, and one node's answers with another's."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from indexer.adapter import AnyAdapter, Reader
from indexer.model import Answer, Market, PositionKey
from indexer.risk.evaluate import Held, amounts_of, differences
from indexer.store.rows import PositionRow

#: positions per request to the contracts
CHUNK = 200

#: what, ours, the contract's
Difference = tuple[str, Any, Any]


def compared(
    read: Reader,
    adapter: AnyAdapter,
    market: Market,
    rows: Sequence[PositionRow],
    held: Mapping[PositionKey, Sequence[Held]],
    ask: Callable[[Sequence[PositionKey]], Sequence[Answer]] | None = None,
) -> dict[PositionKey, list[Difference]]:
    """For each row with its balances, what differs from the contracts' answers at the reader's block; [] is a match.

    `ask` replaces `Adapter.contract_answers` of these positions. Raises the reader's errors.
    """
    ask = ask or partial(adapter.contract_answers, read, market)
    ours = {row.key: row for row in rows}
    keys, block = list(ours), read.block
    found: dict[PositionKey, list[Difference]] = {}
    for start in range(0, len(keys), CHUNK):
        for answer in ask(keys[start : start + CHUNK]):
            row, balances = ours[answer.key], held.get(answer.key, [])
            wrong = found[answer.key] = differences(row, amounts_of(balances), answer)
            if (row.block_number, row.block_hash) != (block.number, block.hash):
                wrong.append(("block", f"{row.block_number} {row.block_hash}", f"{block.number} {block.hash}"))
            for b in balances:
                if answer.amounts and not {(b.market, b.side), (b.asset, b.side)} & answer.amounts.keys():
                    wrong.append((f"amount_raw {b.side} {b.market}", b.amount, "no such balance"))
    return found


def contradictions(one: Sequence[Difference], other: Sequence[Difference]) -> list[tuple[str, Any, Any, Any]]:
    """Where two nodes contradict each other about a row compared with both: (what, ours, one node's, the other's)."""
    first, second = ({what: (mine, theirs) for what, mine, theirs in side} for side in (one, other))
    found = []
    for what, (mine, _) in (first | second).items():
        theirs, others = (side[what][1] if what in side else mine for side in (first, second))
        if theirs != others:
            found.append((what, mine, theirs, others))
    return found
