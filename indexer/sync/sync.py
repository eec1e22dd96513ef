"""The loop: block, market, missing logs, touched positions, evaluation, one transaction.

snapshot of block T = heal reorgs -> read markets at T -> logs up to T -> read what they touched -> evaluate everyone
                      -> compare sums and a sample with the contracts -> commit
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from indexer.adapter import AnyAdapter
from indexer.chain.client import Chain
from indexer.errors import PrunedError, ReorgError
from indexer.model import ENDANGERED, Accounts, Block
from indexer.progress import NoProgress, Progress
from indexer.settings import Settings
from indexer.store.rows import Snapshot
from indexer.store.store import Store
from indexer.sync.alone import Failures
from indexer.sync.audit import Auditor
from indexer.sync.commit import Committer
from indexer.sync.markets import Markets
from indexer.sync.missing_logs import MissingLogs, blocks_per_request, dry_run
from indexer.sync.older_names import OlderNames
from indexer.sync.positions import Positions
from indexer.sync.reorg import Canon

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """What one snapshot did; `at_risk` counts wallets."""

    block: Block
    deployments: list[str]
    failed: dict[str, str] = field(default_factory=dict)
    positions: int = 0
    at_risk: int = 0
    logs: int = 0
    read: int = 0
    requests: int = 0
    retries: int = 0


class Sync:
    """Brings deployments of one chain to a block, and remembers what it learnt for the next snapshot.

    It and its store belong to one thread. `accept_reorg`: the operator says that the chain is right where it contradicts
    final blocks.
    """

    def __init__(
        self,
        store: Store,
        chain: Chain,
        adapters: Sequence[AnyAdapter],
        accounts: Accounts,
        settings: Settings | None = None,
        progress: Progress | None = None,
        *,
        accept_reorg: bool = False,
    ) -> None:
        self.store, self.chain, self.adapters = store, chain, list(adapters)
        self.settings = settings = settings or Settings()
        progress = progress or NoProgress()
        self.markets = Markets(store, chain, adapters, accounts, progress, at_risk_below=settings.at_risk_below)
        names = [adapter.deployment.name for adapter in adapters]
        self.canon = Canon(store, chain, settings, names, self.markets.deployed, accept_reorg=accept_reorg)
        self.missing = MissingLogs(store, chain, settings, progress)
        self.older_names = OlderNames(store, chain)
        self.positions = Positions(chain, settings, progress)
        self.auditor = Auditor(store, chain, settings, self.missing)
        self.committer = Committer(store, settings)
        #: whether snapshots are taken block by block, so that only positions that the bounds leave open need be evaluated
        self.following = False

    def snapshot(self, to: str = "latest", target: Block | None = None) -> Outcome:
        """Brings every deployment to the block `to` names, or to `target` if given; starts again after a reorg meanwhile.

        ChainError if no deployment could be brought there; `Outcome.failed` and `deployments.note` name a deployment that
        fails alone, while the others go on.
        """
        run = self.store.start_run(self.chain.chain_id)
        requests, retries = self.chain.requests, self.chain.retries
        self.missing.seen, read_before = 0, self._read_count()
        try:
            outcome = self._until_settled(to, target)
        except PrunedError as error:
            self.markets.tracked.clear()
            raise PrunedError(
                f"no endpoint of {self.chain.name} holds the state of block {to} any more: "
                f"take a newer block, or an endpoint that keeps old states ({error})"
            ) from None
        except BaseException:
            self.markets.tracked.clear()  # what is in memory may be ahead of the store
            raise
        outcome.requests, outcome.retries = self.chain.requests - requests, self.chain.retries - retries
        outcome.logs = self.missing.seen
        outcome.read = max(self._read_count() - read_before, 0)
        self.store.finish_run(
            run,
            requests=outcome.requests,
            retries=outcome.retries,
            logs=outcome.logs,
            positions_read=outcome.read,
            block_number=outcome.block.number,
        )
        return outcome

    def plan(self, to: str = "latest") -> list[Mapping[str, Any]]:
        """What a snapshot would request, by deployment; it reads nothing but the markets and one range of logs."""
        target = self.canon.target(to)
        deployments = self.markets.read(target, self._failures())
        return dry_run(deployments, target, blocks_per_request(self.chain, deployments, target))

    def backfill_liquidations(self, since: Callable[[Block], int | None], target: Block) -> None:
        """Liquidations from the block `since(target)` on (None: all), up to the target of the last snapshot."""
        for _ in range(5):
            try:
                self.missing.liquidations.backfill(list(self.markets.tracked.values()), since(target), target)
            except ReorgError as error:
                log.warning("the chain was reorganised during the back-fill, going on at the new head: %s", error)
                target = self.snapshot().block
            else:
                return

    def _failures(self) -> Failures:
        return Failures(self.store, self.chain, self.markets.tracked)

    def _read_count(self) -> int:
        return sum(tracked.read_count for tracked in self.markets.tracked.values())

    def _until_settled(self, to: str, target: Block | None) -> Outcome:
        for _ in range(5):
            try:
                return self._snapshot(to, target or self.canon.target(to))
            except ReorgError as error:
                log.warning("the chain was reorganised during the snapshot, starting it again: %s", error)
                self.markets.tracked.clear()
                target = None
        return self._snapshot(to, self.canon.target(to))

    def _snapshot(self, to: str, target: Block) -> Outcome:
        failures = self._failures()
        while True:
            if self.canon.heal(target):
                self.markets.tracked.clear()
            self.canon.remember(target)
            deployments = failures.left(self.markets.read(target, failures), target)
            self.missing.fetch(deployments, target, failures.alone)
            for tracked in failures.left(deployments, target):
                with failures.alone(tracked.adapter):
                    self.older_names.settle(tracked, target)
            deployments = failures.left(deployments, target)
            newest = self.positions.read(deployments, target, lambda at: self.canon.fresh(at, to), failures)
            deployments = failures.left(deployments, target)
            if newest.number == target.number:
                break
            target = self.canon.at_least(newest, to)
        snapshots: list[Snapshot] = []
        for tracked in deployments:
            with failures.alone(tracked.adapter):
                snapshots.append(self.auditor.snapshot(tracked, target))
        done = {tracked.name: tracked for tracked in failures.left(deployments, target)}
        final = self.canon.final(target)
        self.canon.still_canonical(target)
        self.committer.commit(snapshots, target, self.chain.chain_id, done, final)
        for snapshot in snapshots:
            if snapshot.deployment in done:
                tracked = done[snapshot.deployment]
                if self.following and self.settings.refresh_seconds:
                    tracked.follow(self.settings)
                tracked.committed(snapshot, self.committer.history.points(snapshot.where))
        return Outcome(
            target,
            list(done),
            failures.reasons,
            positions=sum(len(tracked.known) for tracked in done.values()),
            at_risk=len({row.wallet for s in snapshots for row in s.rows if row.status in ENDANGERED}),
        )
