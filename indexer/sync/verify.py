"""Our rows against the contracts' own answers at the block the rows name."""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from indexer.adapter import AnyAdapter
from indexer.chain.client import Chain
from indexer.chain.multicall import PinnedReader
from indexer.errors import PrunedError, ReorgError, StoreError
from indexer.model import Accounts, Block
from indexer.risk.evaluate import amounts_of, differences
from indexer.settings import Settings
from indexer.store.books import load_market, position_rows, stored_balances
from indexer.store.store import Store
from indexer.sync.sync import Sync

log = logging.getLogger(__name__)

CHUNK = 200


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One value of one row that is not what the contract answers."""

    deployment: str
    account: str
    position_group: str
    what: str
    ours: str
    contract: str


@dataclass(slots=True)
class Verdict:
    """What was compared of one deployment, at which block."""

    deployment: str
    block: Block
    checked: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)

    @property
    def differ(self) -> int:
        """How many positions have at least one mismatch."""
        return len({(m.account, m.position_group) for m in self.mismatches})


def verify(
    store: Store,
    chain: Chain,
    adapters: Sequence[AnyAdapter],
    *,
    scope: str = "all",
    sample: int = 100,
    settings: Settings | None = None,
) -> list[Verdict]:
    """Compares stored rows with the contracts and writes `audits`.

    `scope` is "all", "sample" (`sample` random rows a deployment) or "at-risk". Where no endpoint holds the state of
    a deployment's block any more (or the block left the chain), a new snapshot is taken first and the log says so.
    StoreError if nothing is synced.
    """
    verdicts = []
    for adapter in adapters:
        row = store.deployment(chain.chain_id, adapter.deployment.name)
        if row is None or row["block_number"] is None:
            continue
        try:
            verdict = _verify_one(store, chain, adapter, row, scope, sample)
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
            verdict = _verify_one(store, chain, adapter, row, scope, sample)
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
    if not verdicts:
        raise StoreError(f"nothing of {chain.name} is synced in {store.path}: run `indexer sync` first")
    return verdicts


def _verify_one(
    store: Store, chain: Chain, adapter: AnyAdapter, row: Mapping[str, Any], scope: str, sample: int
) -> Verdict:
    name = adapter.deployment.name
    block = chain.block(row["block_hash"])
    if chain.block(block.number).hash != block.hash:
        raise ReorgError(f"block {block.number} {block.hash} is no longer on the chain")
    market = load_market(adapter, row["market"], store.registry(chain.chain_id, name))
    positions = position_rows(store.conn, chain.chain_id, name, at_risk=scope == "at-risk")
    if scope == "sample" and len(positions) > sample:
        chosen = random.sample(sorted(positions), sample)
        positions = {key: positions[key] for key in chosen}
    held = stored_balances(store.conn, chain.chain_id, name)
    verdict = Verdict(name, block)
    found = verdict.mismatches
    if scope == "all":
        known = store.events(chain.chain_id, name).keys()
        found += [Mismatch(name, *key, "row", "missing", "named by a log") for key in known - positions.keys()]
        found += [Mismatch(name, *key, "balances", "without a position", "") for key in held.keys() - positions.keys()]
    read = PinnedReader(chain, block)
    keys = list(positions)
    for start in range(0, len(keys), CHUNK):
        for answer in adapter.contract_answers(read, market, keys[start : start + CHUNK]):
            verdict.checked += 1
            ours, balances = positions[answer.key], held.get(answer.key, [])
            wrong = differences(ours, amounts_of(balances), answer)
            if (ours.block_number, ours.block_hash) != (block.number, block.hash):
                stored = f"{ours.block_number} {ours.block_hash}"
                wrong.append(("block", stored, f"{block.number} {block.hash}, that of the deployment"))
            for b in balances:
                if answer.amounts and not {(b.market, b.side), (b.asset, b.side)} & answer.amounts.keys():
                    wrong.append((f"amount_raw {b.side} {b.market}", b.amount, "no such balance"))
            found += [Mismatch(name, *answer.key, what, str(mine), str(theirs)) for what, mine, theirs in wrong]
    return verdict
