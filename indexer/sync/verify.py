"""Our rows against the contracts' own answers at the block the rows name."""

import logging
import random
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from indexer.adapter import AnyAdapter
from indexer.chain.client import Chain
from indexer.chain.multicall import PinnedReader
from indexer.errors import PrunedError, ReorgError, StoreError
from indexer.model import Accounts, Block, Market, PositionKey
from indexer.risk.evaluate import amounts_of, differences
from indexer.settings import Settings
from indexer.store.rows import POSITION_COLUMNS
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
    market: Market = TypeAdapter(adapter.market_type).validate_json(row["market"])
    market = replace(market, registry=store.registry(chain.chain_id, name))
    positions = stored_positions(store.conn, chain.chain_id, name, at_risk=scope == "at-risk")
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
            row, balances = positions[answer.key], held.get(answer.key, [])
            wrong = differences(row, amounts_of(balances), answer)
            if (row["block_number"], row["block_hash"]) != (block.number, block.hash):
                stored = f"{row['block_number']} {row['block_hash']}"
                wrong.append(("block", stored, f"{block.number} {block.hash}, that of the deployment"))
            for b in balances:
                if answer.amounts and not {(b.market, b.side), (b.asset, b.side)} & answer.amounts.keys():
                    wrong.append((f"amount_raw {b.side} {b.market}", b.amount, "no such balance"))
            found += [Mismatch(name, *answer.key, what, str(ours), str(theirs)) for what, ours, theirs in wrong]
    return verdict


def stored_positions(
    conn: sqlite3.Connection, chain_id: int, deployment: str, *, at_risk: bool = False
) -> dict[PositionKey, dict[str, Any]]:
    """Rows of `positions` by key, as column -> value."""
    rows = conn.execute(
        f"select {', '.join(POSITION_COLUMNS)} from {'at_risk' if at_risk else 'positions'} "  # noqa: S608 - our names
        "where chain_id = ? and deployment = ?",
        (chain_id, deployment),
    )
    found = {}
    for row in rows:
        columns = dict(zip(POSITION_COLUMNS, row, strict=True))
        found[PositionKey(columns["account"], columns["position_group"])] = columns
    return found


class StoredBalance(NamedTuple):
    """What `verify` compares of a row of `balances`."""

    market: str
    asset: str
    side: str
    amount: int
    scaled: int


def stored_balances(conn: sqlite3.Connection, chain_id: int, deployment: str) -> dict[PositionKey, list[StoredBalance]]:
    """Rows of `balances` by position."""
    found: dict[PositionKey, list[StoredBalance]] = defaultdict(list)
    for account, group, market, asset, side, amount, scaled in conn.execute(
        "select account, position_group, market, asset, side, amount_raw, scaled_raw from balances "
        "where chain_id = ? and deployment = ?",
        (chain_id, deployment),
    ):
        found[PositionKey(account, group)].append(StoredBalance(market, asset, side, int(amount), int(scaled)))
    return dict(found)
