"""Compares our rows with the contracts' own answers at the rows' block."""

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from indexer.adapter import AnyAdapter
from indexer.chain.client import Chain
from indexer.errors import PrunedError, ReorgError, StoreError
from indexer.model import Accounts, Block, Market, PositionKey, Status
from indexer.reads.multicall import PinnedReader
from indexer.risk.evaluate import Held, evaluate_all
from indexer.settings import Settings
from indexer.store import disputes
from indexer.store.books import load_market, load_positions, lost_positions, position_rows, stored_balances
from indexer.store.rows import PositionRow
from indexer.store.store import Store
from indexer.sync.comparison import compared, contradictions
from indexer.sync.sync import Sync

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One value of one row that differs from the contract's answer."""

    deployment: str
    account: str
    position_group: str
    what: str
    ours: str
    contract: str


@dataclass(frozen=True, slots=True)
class Dispute(Mismatch):
    """One value of one row about which two nodes contradict each other: the contract's answer from each of them."""

    against: str


@dataclass(slots=True)
class Verdict:
    """What was compared for one deployment, and at which block.

    Of the rows older than the deployment's block, `older` were compared at their own block; `evaluated` were evaluated and
    compared at the deployment's block, because no endpoint holds the state of their own any more.
    """

    deployment: str
    block: Block
    checked: int = 0
    older: int = 0
    evaluated: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    disputes: list[Dispute] = field(default_factory=list)
    #: the positions of which all that were asked say what the row says
    agreed: set[PositionKey] = field(default_factory=set)

    @property
    def differ(self) -> int:
        """How many positions have at least one mismatch."""
        return len({(m.account, m.position_group) for m in self.mismatches})

    @property
    def disputed(self) -> set[PositionKey]:
        """The positions about which two nodes contradict each other."""
        return {PositionKey(d.account, d.position_group) for d in self.disputes}

    def add(self, found: Iterable[tuple[str, str, str, str, str]]) -> None:
        """The mismatches as (account, group, what, ours, the contract's)."""
        self.mismatches += [Mismatch(self.deployment, *one) for one in found]


def verify(
    store: Store,
    chain: Chain,
    adapters: Sequence[AnyAdapter],
    *,
    scope: str = "all",
    sample: int = 100,
    settings: Settings | None = None,
    against: Chain | None = None,
) -> list[Verdict]:
    """Compares stored rows with the contracts and writes `audits`.

    `scope` is "all", "sample" (`sample` random rows per deployment) or "at-risk". If no endpoint holds the state of a
    deployment's block any more, or the block has left the chain, a new snapshot is taken first and the log says so.
    `against` is the same chain behind another node, which is asked about the same rows at the same block; rows about which
    the two contradict each other become `unverified`. StoreError if nothing is synced.
    """
    verdicts, settings = [], settings or Settings()
    for adapter in adapters:
        row = store.deployment(chain.chain_id, adapter.deployment.name)
        if row is None or row["block_number"] is None:
            continue
        try:
            verdict = _verify_one(store, chain, adapter, row, scope, sample, settings.at_risk_below, against)
        except (PrunedError, ReorgError) as error:
            log.warning(
                "%s: block %d can no longer be asked (%s); taking a new snapshot first",
                adapter.deployment.name,
                row["block_number"],
                error,
            )
            Sync(store, chain, [adapter], Accounts(row["accounts"]), settings).snapshot()
            row = store.deployment(chain.chain_id, adapter.deployment.name)
            assert row is not None
            verdict = _verify_one(store, chain, adapter, row, scope, sample, settings.at_risk_below, against)
        verdicts.append(verdict)
        store.audit(
            chain.chain_id,
            verdict.deployment,
            "verify",
            checked=verdict.checked,
            mismatches=verdict.differ,
            block=verdict.block,
            detail=[
                {"account": m.account, "what": m.what, "ours": m.ours, "contract": m.contract}
                for m in verdict.mismatches[:20]
            ]
            or None,
        )
        if against is not None:
            _disbelieve(store, chain, verdict, against)
    if not verdicts:
        raise StoreError(f"nothing of {chain.name} is synced in {store.path}: run `indexer sync` first")
    return verdicts


def _disbelieve(store: Store, chain: Chain, verdict: Verdict, against: Chain) -> None:
    """Marks the rows about which the nodes contradict each other `unverified`, and ends the disputes about which they agree."""
    where = (chain.chain_id, verdict.deployment)
    disputes.opened(store, where, verdict.disputed, verdict.block.number)
    disputes.mark(store, where, verdict.disputed)
    agreed = disputes.disputed(store.conn, where) & verdict.agreed
    disputes.ended(store, where, agreed)
    if agreed:
        log.warning(
            "%s: %d positions are in dispute no more; the next sync says what they are", verdict.deployment, len(agreed)
        )
    store.audit(
        chain.chain_id,
        verdict.deployment,
        "cross-check",
        checked=verdict.checked,
        mismatches=len(verdict.disputed),
        block=verdict.block,
        detail=[
            {
                "position": [d.account, d.position_group],
                "what": d.what,
                "answers": [[chain.endpoint, d.contract], [against.endpoint, d.against]],
            }
            for d in verdict.disputes[:20]
        ]
        or None,
    )


def _verify_one(
    store: Store,
    chain: Chain,
    adapter: AnyAdapter,
    row: Mapping[str, Any],
    scope: str,
    sample: int,
    below: float,
    against: Chain | None,
) -> Verdict:
    name = adapter.deployment.name
    block = chain.block(row["block_hash"])
    if chain.block(block.number).hash != block.hash:
        raise ReorgError(f"block {block.number} {block.hash} is no longer on the chain")
    market = load_market(adapter, row["market"], store.registry(chain.chain_id, name))
    rows = position_rows(store.conn, chain.chain_id, name, at_risk=scope == "at-risk")
    if scope == "sample" and len(rows) > sample:
        chosen = set(random.sample(sorted(rows), sample))
        disputed = disputes.disputed(store.conn, (chain.chain_id, name))
        rows = {key: row for key, row in rows.items() if key in disputed or key in chosen}
    held = stored_balances(store.conn, chain.chain_id, name)
    verdict = Verdict(name, block)
    if scope == "all":
        verdict.add((*key, "row", "missing", "named by a log") for key in lost_positions(store.conn, row))
        verdict.add((*key, "balances", "without a position", "") for key in held.keys() - rows.keys())
    comparison = Comparison(chain, adapter, market, verdict, against)
    comparison.at(block, [row for row in rows.values() if row.block_number == block.number], held)
    older = {key: row for key, row in rows.items() if row.block_number != block.number}
    states = store.states(chain.chain_id, name) if older else []
    positions = [position for position in load_positions(adapter, states) if position.key in older]
    now = {r.key: r for r in evaluate_all(chain.chain_id, adapter, market, positions, at_risk_below=below)}
    verdict.add(
        (*key, "status", row.status, now[key].status)
        for key, row in older.items()
        if row.status not in {now[key].status, Status.UNVERIFIED}
    )
    for (number, block_hash), group in groupby(
        sorted(older.values(), key=lambda row: row.block_number), key=lambda row: (row.block_number, row.block_hash)
    ):
        here = list(group)
        try:
            own = chain.block(block_hash)
            if chain.block(number).hash != block_hash:
                raise ReorgError(f"block {number} {block_hash} is no longer on the chain")
            comparison.at(own, here, held)
            verdict.older += len(here)
        except (PrunedError, ReorgError):  # its evaluation at the deployment's block can still be compared there
            keys = {row.key for row in here}
            evaluated = {p.key: list(adapter.balances(market, p)) for p in positions if p.key in keys}
            comparison.at(block, [now[key] for key in keys], evaluated)
            verdict.evaluated += len(here)
    return verdict


class Comparison:
    """Compares rows of one deployment with its contracts through one node, or two."""

    def __init__(
        self, chain: Chain, adapter: AnyAdapter, market: Market, verdict: Verdict, against: Chain | None = None
    ) -> None:
        self.chains = [chain] if against is None else [chain, against]
        self.adapter, self.market, self.verdict = adapter, market, verdict

    def at(self, block: Block, rows: Sequence[PositionRow], held: Mapping[PositionKey, Sequence[Held]]) -> None:
        """Compares rows of one block, with their balances; counts nothing if a node cannot answer for that block."""
        found, *others = [
            compared(PinnedReader(chain, block), self.adapter, self.market, rows, held) for chain in self.chains
        ]
        self.verdict.checked += len(found)
        for key, wrong in found.items():
            if not wrong and not any(other[key] for other in others):
                self.verdict.agreed.add(key)
            self.verdict.add((*key, what, str(mine), str(theirs)) for what, mine, theirs in wrong)
            for other in others:
                self.verdict.disputes += [
                    Dispute(self.verdict.deployment, *key, what, str(mine), str(theirs), str(against))
                    for what, mine, theirs, against in contradictions(wrong, other[key])
                ]
