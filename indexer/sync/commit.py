"""The last step of a snapshot: computes everything, then writes all rows in one transaction."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence

from indexer.errors import StoreError
from indexer.history.accrual import accrue
from indexer.history.flows import remember
from indexer.history.history import History
from indexer.history.trends import Trends
from indexer.model import ENDANGERED, Block
from indexer.settings import Settings
from indexer.snapshot.tracked import TrackedDeployment
from indexer.store.liquidations import settling
from indexer.store.rows import PositionRow, Snapshot
from indexer.store.store import ChangedMeanwhileError, Rider, Store

#: computes before the transaction what a rider then writes inside it, from the file, the snapshots, and the tracked
#: deployments by name
Planner = Callable[[sqlite3.Connection, Sequence[Snapshot], Mapping[str, TrackedDeployment]], Rider]
#: how often a plan is made anew because another command changed its basis
PLANS = 10


class Committer:
    """Commits snapshots with everything that rides on them; `riders` need only rows, `planners` ask adapters first."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self.history = History()
        self.riders: list[Rider] = [remember, self.history, accrue, settling, Trends(store.sums)]
        self.planners: list[Planner] = []

    def commit(
        self,
        snapshots: Sequence[Snapshot],
        target: Block,
        chain_id: int,
        tracked: Mapping[str, TrackedDeployment],
        final: Block | None,
    ) -> dict[str, set[str]]:
        """Commits all of them at once; what is planned is written exactly if they are.

        Returns the wallets at risk of each deployment, among the rows that were written.
        """
        at_risk: dict[str, set[str]] = {snapshot.deployment: set() for snapshot in snapshots}

        def took(conn: sqlite3.Connection, snapshot: Snapshot, rows: Sequence[PositionRow]) -> None:
            one = tracked[snapshot.deployment]
            settled = one.settled(rows)
            one.took(rows, self.history.take(conn, snapshot, rows, settled), settled)
            at_risk[snapshot.deployment] |= {row.wallet for row in rows if row.status in ENDANGERED}

        for _ in range(PLANS):
            planned = [plan(self.store.conn, snapshots, tracked) for plan in self.planners]
            riders = [*self.riders, *planned]
            try:
                keep = self.settings.keep_blocks, riders, final, self.settings.keep_seconds
                self.store.commit(snapshots, target, chain_id, *keep, took)
            except ChangedMeanwhileError:
                continue
            return at_risk
        raise StoreError(f"other commands keep changing {self.store.path}: run again when they are done")
