"""The loop: block, market, missing logs, touched positions, evaluation, one transaction.

snapshot of block T = heal reorgs -> read markets at T -> logs up to T -> read what they touched -> evaluate everyone
                      -> compare sums and a sample with the contracts -> commit
"""

import logging
import math
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from indexer.adapter import AnyAdapter
from indexer.chain.client import Chain
from indexer.errors import PrunedError, ReadFailedError, ReorgError
from indexer.model import Accounts, Block
from indexer.progress import NoProgress, Progress
from indexer.settings import Settings
from indexer.snapshot.tracked import TrackedDeployment
from indexer.store.database import unusable
from indexer.store.rows import Snapshot
from indexer.store.store import Store
from indexer.sync.audit import Auditor
from indexer.sync.commit import Committer
from indexer.sync.estimate import dry_run
from indexer.sync.failures import Failures
from indexer.sync.markets import Markets
from indexer.sync.missing_logs import MissingLogs
from indexer.sync.older_names import OlderNames
from indexer.sync.positions import Positions
from indexer.sync.reorg import Canon

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """What one snapshot did; `at_risk` counts wallets, `waiting` positions with supplies that are not read yet."""

    block: Block
    deployments: list[str]
    failed: dict[str, str] = field(default_factory=dict)
    positions: int = 0
    at_risk: int = 0
    waiting: int = 0
    logs: int = 0
    read: int = 0
    requests: int = 0
    retries: int = 0


@dataclass(slots=True)
class Part:
    """A part of a snapshot: which deployments are through, which failed, and of those committed the wallets at risk."""

    block: Block
    finished: Collection[str] = ()
    failed: dict[str, str] = field(default_factory=dict)
    at_risk: dict[str, set[str]] = field(default_factory=dict)


#: how long history goes on between two blocks of a chain that is followed
HISTORY_SECONDS = 5.0


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
        self.positions = Positions(store, chain, settings, progress)
        self.auditor = Auditor(store, chain, settings, self.missing)
        self.committer = Committer(store, settings)
        #: whether the logs of old are read where accounts came from elsewhere
        self.history = True
        #: is told which deployments are usable before all are
        self.tell: Callable[[str], None] = log.info
        self._early: set[str] = set()  # those committed in this run whose history is still to be read
        #: whether snapshots are taken block by block, so that only positions that the bounds leave open need be evaluated
        self.following = False
        #: for how many positions of each deployment a snapshot also reads the supplies that wait; None: for all
        self.supplies: int | None = 0
        #: measures a stage of a snapshot, see indexer/metrics/meters.py
        self.stage: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext()

    def snapshot(self, to: str = "latest", target: Block | None = None) -> Outcome:
        """Brings every deployment to the block `to` names, or to `target` if given; starts again after a reorg meanwhile.

        ChainError if no deployment could be brought there, StoreError if the file cannot be used; `Outcome.failed` and
        `deployments.note` name a deployment that fails alone, while the others go on.
        """
        run = self.store.start_run(self.chain.chain_id)
        requests, retries = self.chain.requests, self.chain.retries
        self.missing.begin(run)
        self.positions.run, read_before = run, self._read_count()
        try:
            outcome = self._all(to, target)
        except PrunedError as error:
            self.markets.tracked.clear()
            raise PrunedError(
                f"no endpoint of {self.chain.name} holds the state of block {to} any more: "
                f"take a newer block, or an endpoint that keeps old states ({error})"
            ) from None
        except sqlite3.DatabaseError as error:
            self.markets.tracked.clear()
            raise unusable(self.store.path, error) from error
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
        """What a snapshot would request, by deployment; it reads nothing but the markets and samples of the logs."""
        target = self.canon.target(to)
        deployments = self.markets.read(target, self._failures())
        return dry_run(self.chain, deployments, target)

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

    def _all(self, to: str, target: Block | None) -> Outcome:
        """Everyone, and whoever is complete at once, before the logs of others are read; behind that all of them anew.

        Accounts that came from elsewhere than from logs make a deployment usable before its history is read, too. While
        the chain is followed the history goes on for a moment at each block.
        """
        self._early.clear()
        left = {adapter.deployment.name for adapter in self.adapters}
        parts: list[Part] = []
        while left:
            committed = any(part.at_risk for part in parts)
            seconds = HISTORY_SECONDS if self.following and committed else math.inf
            part = self._until_settled(to, target, left, committed=committed, seconds=seconds)
            parts.append(part)
            left -= {*part.finished, *part.failed}
            target = None
            if self.following and committed and not part.at_risk:
                break
            if left and part.at_risk:
                self.tell(f"usable now, at block {part.block.number}: {', '.join(part.at_risk)}")
        done = [name for part in parts for name in part.at_risk]
        if len({part.block.hash for part in parts if part.at_risk}) > 1 and not self.following:
            parts.append(self._until_settled(to, None, set(done), committed=True))
        at_risk = {name: wallets for part in parts for name, wallets in part.at_risk.items()}
        return Outcome(
            next(part.block for part in reversed(parts) if part.at_risk or part.failed),
            [adapter.deployment.name for adapter in self.adapters if adapter.deployment.name in at_risk],
            {name: why for part in parts for name, why in part.failed.items()},
            positions=sum(len(self.markets.tracked[name].known) for name in at_risk if name in self.markets.tracked),
            waiting=sum(len(self.markets.tracked[name].waiting) for name in at_risk if name in self.markets.tracked),
            at_risk=len(set[str]().union(*at_risk.values())),
        )

    def _until_settled(
        self, to: str, target: Block | None, names: Collection[str], *, committed: bool, seconds: float = math.inf
    ) -> Part:
        for _ in range(5):
            try:
                return self._snapshot(to, target or self.canon.target(to), names, committed, seconds)
            except ReorgError as error:
                log.warning("the chain was reorganised during the snapshot, starting it again: %s", error)
                self.markets.tracked.clear()
                target = None
        return self._snapshot(to, self.canon.target(to), names, committed, seconds)

    def _snapshot(self, to: str, target: Block, names: Collection[str], committed: bool, seconds: float) -> Part:
        """Those of the named deployments whose logs are complete first, at the target or a newer block.

        None may be, after so many seconds. `committed`: others were in this run, so that it need not fail if these do.
        """
        failures = self._failures()
        ready: Collection[str] = names
        postponed: dict[str, bool] = {}
        while True:
            if self.canon.heal(target):
                self.markets.tracked.clear()
            self.canon.remember(target)
            with self.stage("market"):
                deployments = failures.left(self.markets.read(target, failures, ready), target, none=committed)
            for tracked in deployments:
                with failures.alone(tracked.adapter):
                    name = tracked.name
                    postponed[name] = tracked.postponed = postponed.get(name) or self._postpones(tracked, target)
            deployments = failures.left(deployments, target, none=committed)
            with self.stage("logs"):
                deployments = self.missing.fetch(deployments, target, failures.alone, seconds=seconds)
            if not deployments:
                failures.left([], target, none=committed or not failures.reasons)
                return Part(target, failed=failures.reasons)
            deployments = failures.left(deployments, target, none=committed)
            for tracked in deployments:
                with failures.alone(tracked.adapter):
                    self.older_names.settle(tracked, target)
            deployments = failures.left(deployments, target, none=committed)
            ready = {tracked.name for tracked in deployments}
            fresh = partial(self.canon.fresh, to=to)
            with self.stage("read"):
                newest = self.positions.read(deployments, target, fresh, failures, self.markets.habits, self.supplies)
            deployments = failures.left(deployments, target, none=committed)
            if newest.number == target.number:
                break
            target = self.canon.at_least(newest, to)
        for tracked in deployments:
            tracked.following = self.settings if self.following and self.settings.refresh_seconds else None
        self.auditor.stage = self.stage
        with self.stage("audit"):
            snapshots = self.auditor.snapshots(deployments, target, failures)
        done = {tracked.name: tracked for tracked in failures.left(deployments, target, none=committed)}
        at_risk = self._commit([snapshot for snapshot in snapshots if snapshot.deployment in done], target, done)
        early = {
            name for name, tracked in done.items() if tracked.postponed and self.history and name not in self._early
        }
        self._early |= early
        return Part(target, done.keys() - early, failures.reasons, at_risk)

    def _postpones(self, tracked: TrackedDeployment, target: Block) -> bool:
        """Whether this snapshot of a deployment does without the logs before its first one."""
        if not self.history:
            if not tracked.usable_without_history and tracked.lacks_history(target.number):
                raise ReadFailedError(
                    "without its history nobody is known yet: import accounts with `indexer accounts import FILE`, "
                    "or sync without --no-history"
                )
            return tracked.usable_without_history
        if tracked.name in self._early or not tracked.usable_without_history:
            return False
        return bool(tracked.imported) or tracked.missing_blocks(target.number) > self.chain.log_limit.size

    def _commit(
        self, snapshots: Sequence[Snapshot], target: Block, done: Mapping[str, TrackedDeployment]
    ) -> dict[str, set[str]]:
        final = self.canon.final(target)
        self.canon.still_canonical(target)
        with self.stage("commit"):
            at_risk = self.committer.commit(snapshots, target, self.chain.chain_id, done, final)
        for snapshot in snapshots:
            done[snapshot.deployment].committed(snapshot)
        return at_risk
