"""Evaluates a deployment, and compares it with the contracts before its rows are committed."""

import heapq
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from indexer.adapter import Reader
from indexer.chain.client import Chain
from indexer.model import ENDANGERED, Accounts, Answer, Block, Check, Coverage, PositionKey, Status
from indexer.reads.lockstep import Habit, side_by_side
from indexer.reads.multicall import PinnedReader
from indexer.settings import Settings
from indexer.snapshot.everyone import Everyone, evaluate
from indexer.snapshot.tracked import TrackedDeployment
from indexer.store import disputes
from indexer.store.rows import PositionRow, Snapshot, pair_of
from indexer.store.store import Store
from indexer.sync.comparison import compared
from indexer.sync.cross_check import CrossCheck
from indexer.sync.failures import Failures
from indexer.sync.missing_logs import AGAIN_SECONDS, MissingLogs

log = logging.getLogger(__name__)

#: Seconds between comparisons of sums while following the chain, at least, and as a multiple of the processor time that
#: adding up took: it grows with the number of positions, and what sums reveal, logs that a node left out, does not go away
#: by itself.
SUMS_SECONDS, SUMS_SHARE = 60.0, 100.0

#: so many rows of a deployment that an interrupted run left behind are compared: of most markets all
LEFT_BEHIND = 1_000


class Auditor:
    """Turns a deployment's positions into a snapshot compared with the contracts."""

    def __init__(self, store: Store, chain: Chain, settings: Settings, missing: MissingLogs) -> None:
        self.store, self.chain, self.settings, self.missing = store, chain, settings, missing
        self.left: dict[str, tuple[set[str], float]] = {}  # sums that the last repair could not mend, and when
        self.due: dict[str, float] = {}  # when sums are compared next
        self.adding_up = 0.0  # what the last sums took, in seconds of this thread
        self.checks: dict[str, list[Check]] = {}  # their results then
        self.cross_check = CrossCheck(store, chain, settings)
        self.habits: dict[str, Habit] = defaultdict(Habit)
        self.stage: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext()
        self.random = random.Random()  # noqa: S311 - a sample, not a secret

    def snapshots(self, deployments: Sequence[TrackedDeployment], target: Block, failures: Failures) -> list[Snapshot]:
        """Rows of every known position of each deployment, compared with the contracts."""
        found: dict[str, Snapshot] = {}

        def one(tracked: TrackedDeployment, read: Reader) -> None:
            with failures.alone(tracked.adapter):
                found[tracked.name] = self._snapshot(tracked, target, read)

        tasks = [(partial(one, tracked), self.habits[tracked.name]) for tracked in deployments]
        side_by_side(PinnedReader(self.chain, target), tasks)
        return [found[tracked.name] for tracked in deployments if tracked.name in found]

    def _snapshot(self, tracked: TrackedDeployment, target: Block, read: Reader) -> Snapshot:
        below = self.settings.at_risk_below
        doubted = self.cross_check.choose(tracked)
        sample = [*self._sample(tracked), *doubted]
        seen = Seen(sample, self.settings.audit_at_risk)
        with self.stage("evaluate"):
            checks = self._reconcile(tracked, target, Everyone(tracked, read, below, seen))
            also = [*tracked.watched_positions(), *sample]
            parts = evaluate(tracked, read, seen, at_risk_below=below, also=also)
        wrong = self._audit(tracked, target, seen.rows(), read)
        if wrong:
            log.error("%s: %d rows differ from the contracts; reading every position again", tracked.name, len(wrong))
            read = PinnedReader(self.chain, target)  # alone, and nothing remembered
            tracked.forget_positions()
            tracked.read_market(read)
            tracked.read(read, tracked.to_read(read))
            parts = evaluate(tracked, read, seen, at_risk_below=below)  # all: what the screen knew is void
            wrong = self._audit(tracked, target, seen.rows(), read)
        lacks = tracked.lacks_history(target.number)
        coverage = self._coverage(tracked, checks, lacks=lacks)
        state, note = self._state(tracked, coverage, checks, wrong, lacks=lacks)
        if wrong:
            parts.mark = partial(unverified, note=note)
        else:
            disputed = self.cross_check.disputes(tracked, target, [row for row in seen.rows() if row.key in {*doubted}])
            if disputed:
                parts.mark = lambda row: unverified(row, note=disputes.NOTE) if row.key in disputed else row
            note = note or self.cross_check.note(tracked)
        return Snapshot(
            chain_id=self.chain.chain_id,
            deployment=tracked.name,
            protocol=tracked.adapter.protocol,
            accounts=tracked.accounts,
            state=state,
            note=note,
            complete_from=tracked.complete_from,
            coverage=coverage,
            market=tracked.market,
            market_json=tracked.dump_market(),
            parts=parts,
            whole=tracked.screen is None,
            exact_below=None if tracked.screen is None else tracked.screen.exact_below,
        )

    @staticmethod
    def _coverage(tracked: TrackedDeployment, checks: Sequence[Check], *, lacks: bool) -> Coverage:
        """How it is known that nobody with debt is missing; `lacks` if logs that may name accounts were not read."""
        if tracked.complete_from is None and not lacks:
            if all(check.holds for check in checks):
                return Coverage.HISTORY
        elif not tracked.market.exact or tracked.accounts is Accounts.WATCHED:
            return Coverage.PARTIAL
        proofs = [check for check in checks if check.debt]
        return Coverage.SUMS if proofs and all(check.equal for check in proofs) else Coverage.PARTIAL

    @staticmethod
    def _state(
        tracked: TrackedDeployment, coverage: Coverage, checks: Sequence[Check], wrong: Sequence[object], *, lacks: bool
    ) -> tuple[str, str | None]:
        """The state and note of a deployment: the gravest problem that it has."""
        if wrong:
            return "unverified", f"{len(wrong)} of the compared values differ from the contracts"
        if not tracked.market.exact:
            return "unverified", tracked.market.note
        broken = [check for check in checks if not check.holds]
        if tracked.complete_from is not None:
            return "incomplete", PRUNED.format(tracked.complete_from)
        if coverage is Coverage.SUMS and not broken:
            return "ok", PROVEN
        if tracked.accounts is Accounts.WATCHED:
            return "ok", tracked.market.note or "only the watched wallets are known"
        told = "; ".join(map(describe, broken))
        if lacks:
            return "incomplete", f"{told or unproven(checks)}: not all accounts are known; {MORE_ACCOUNTS}"
        if broken:
            return "incomplete", f"{told}: some account is missing; add a second endpoint"
        if tracked.doubted:
            return "ok", tracked.market.note or (
                f"{len(tracked.doubted)} accounts without debt may never have had any: an older version named them, and no "
                "endpoint has all logs that would tell"
            )
        return "ok", tracked.market.note

    def _sample(self, tracked: TrackedDeployment) -> list[PositionKey]:
        """Some rows at random, and many of those that an interrupted run read and never compared."""
        if not self.settings.audit_sample:
            return []
        some = self.random.sample(tracked.known.keys_by_number, min(self.settings.audit_sample, len(tracked.known)))
        left = [key for key in tracked.left_behind if key in tracked.known]
        return [*some, *self.random.sample(left, min(LEFT_BEHIND, len(left)))]

    def _audit(
        self, tracked: TrackedDeployment, target: Block, rows: Sequence[PositionRow], read: Reader
    ) -> list[dict[str, Any]]:
        """Compares a random sample and the worst rows with the contracts' own answers; returns what differs."""
        if not tracked.market.exact or not rows:
            return []
        positions = {position.key: position for position in tracked.loaded(row.key for row in rows)}
        held = {key: tracked.adapter.balances(tracked.market, position) for key, position in positions.items()}

        def ask(keys: Sequence[PositionKey]) -> list[Answer]:
            return tracked.adapter.audit_answers(read, tracked.market, [positions[key] for key in keys])

        found = compared(read, tracked.adapter, tracked.market, rows, held, ask)
        wrong = [
            {"position": list(key), "what": what, "ours": str(ours), "contract": str(theirs)}
            for key, differences in found.items()
            for what, ours, theirs in differences
        ]
        self.store.audit(
            self.chain.chain_id,
            tracked.name,
            "self-audit",
            checked=len(rows),
            mismatches=len({tuple(w["position"]) for w in wrong}),
            block=target,
            detail=wrong[:20] or None,
        )
        return wrong

    # reconciliation ---------------------------------------------------------------------------------------------------

    def _reconcile(self, tracked: TrackedDeployment, target: Block, everyone: Everyone) -> list[Check]:
        """Sums and the contracts' totals; if logs were omitted, reads and fetches again until they agree.

        It first reads every known position again (a change was missed), then fetches the logs since the last snapshot,
        then all logs (an account was missed). What stays unexplained is returned, and tried again after a while.
        """
        if tracked.screen is not None and time.monotonic() < self.due.get(tracked.name, 0.0):
            return self.checks.get(tracked.name, [])
        began = time.monotonic()
        checks = self.checks[tracked.name] = self._mended(tracked, target, everyone)
        self.due[tracked.name] = began + max(SUMS_SECONDS, SUMS_SHARE * self.adding_up)
        return checks

    def _mended(self, tracked: TrackedDeployment, target: Block, everyone: Everyone) -> list[Check]:
        checks = self._checks(tracked, everyone)
        broken = found = [check for check in checks if not check.holds]
        if not broken or self._tried_lately(tracked, target, broken):
            return checks
        since = tracked.previous.block.number if tracked.previous is not None else target.number
        steps = [("positions", None), ("recent logs", since), ("all logs", 0)]
        if tracked.lacks_history(target.number):
            del steps[-1]
        for step, first in steps:
            log.warning("%s: %s; reading %s again", tracked.name, "; ".join(map(describe, broken)), step)
            tracked.forget_positions()
            if first is not None:
                tracked.forget_logs(first)
                self.missing.fetch([tracked], target)
            read = PinnedReader(self.chain, target)
            keys = tracked.to_read(read)
            for start in range(0, len(keys), self.settings.read_chunk):
                tracked.read(read, keys[start : start + self.settings.read_chunk])
            checks = self._checks(tracked, everyone)
            broken = [check for check in checks if not check.holds]
            if not broken:
                break
        self.left[tracked.name] = ({c.name for c in broken}, time.monotonic())
        self.store.audit(
            self.chain.chain_id,
            tracked.name,
            "reconciliation",
            checked=len(found),
            mismatches=len(broken),
            block=target,
            detail={"found": [*map(describe, found)], "left": [*map(describe, broken)], "read_again": step},
        )
        return checks

    def _checks(self, tracked: TrackedDeployment, everyone: Everyone) -> list[Check]:
        if tracked.accounts is Accounts.WATCHED:
            return []  # sums over a few positions mean nothing
        began = time.thread_time()
        checks = tracked.adapter.checks(tracked.market, everyone, tracked.accounts)
        self.adding_up = time.thread_time() - began - everyone.seconds
        return checks

    def _tried_lately(self, tracked: TrackedDeployment, target: Block, broken: Sequence[Check]) -> bool:
        """Whether a repair is not worth its requests: history is known to be incomplete, or a repair failed recently."""
        names, at = self.left.get(tracked.name, (set(), 0.0))
        if tracked.coverage != Coverage.SUMS and tracked.lacks_history(target.number):
            return True
        return tracked.complete_from is not None or (
            {c.name for c in broken} <= names and time.monotonic() - at < AGAIN_SECONDS
        )


class Seen:
    """Of all rows that go by, those of a sample, and so many of those at risk with the lowest health factors."""

    def __init__(self, sample: Iterable[PositionKey], worst: int) -> None:
        self.sample, self.count = set(sample), worst
        self.sampled: list[PositionRow] = []
        self.worst: list[PositionRow] = []

    def begin(self) -> None:
        self.sampled, self.worst = [], []

    def see(self, rows: Sequence[PositionRow]) -> None:
        self.sampled += [row for row in rows if pair_of(row) in self.sample]
        risky = [row for row in rows if row.status in ENDANGERED and row.health_factor is not None]
        self.worst = heapq.nsmallest(self.count, [*self.worst, *risky], key=lambda row: row.health_factor or 0.0)

    def rows(self) -> list[PositionRow]:
        return list({row.key: row for row in (*self.worst, *self.sampled)}.values())


def unverified(row: PositionRow, note: str | None) -> PositionRow:
    return row._replace(status=Status.UNVERIFIED.value, note=note)


PRUNED = (
    "logs before block {} are pruned on every endpoint: accounts that only appear before it are missing; "
    "add an endpoint with full log history"
)
PROVEN = "nobody with debt is missing, as the contracts' own totals show; former borrowers may be"
MORE_ACCOUNTS = "`indexer sync` reads the rest of the history, or import a better list with `indexer accounts import`"


def unproven(checks: Sequence[Check]) -> str:
    """Why sums that hold prove nothing."""
    told = [describe(check) for check in checks if check.debt and not check.equal]
    return "; ".join(told) or "no sums of this protocol tell whether anybody with debt is missing"


def describe(check: Check) -> str:
    """One line with what was summed, our sum and the contract's."""
    return f"{check.name} sums to {check.have}, the contract says {check.want}"
