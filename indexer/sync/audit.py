"""Evaluating a deployment, and comparing it with the contracts before its rows are committed."""

import logging
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from indexer.chain.client import Chain
from indexer.chain.multicall import PinnedReader
from indexer.errors import DefectError
from indexer.model import Accounts, Answer, Balance, Block, Check, PositionKey
from indexer.risk.evaluate import amounts_of, differences, evaluate_all
from indexer.settings import Settings
from indexer.store.rows import POSITION_COLUMNS, Snapshot
from indexer.store.store import Store
from indexer.sync.missing_logs import AGAIN_SECONDS, MissingLogs
from indexer.sync.tracked import TrackedDeployment

log = logging.getLogger(__name__)

STATUS, WALLET = POSITION_COLUMNS.index("status"), POSITION_COLUMNS.index("wallet")
HEALTH = POSITION_COLUMNS.index("health_factor")
ACCOUNT, GROUP = POSITION_COLUMNS.index("account"), POSITION_COLUMNS.index("position_group")


class Balances:
    """Every position's balances, made one by one as they are written; the contract's own where the code is unknown."""

    def __init__(self, work: TrackedDeployment) -> None:
        self.name, self.adapter, self.market = work.name, work.adapter, work.market
        self.positions, self.answers = work.held(), work.answers

    def __iter__(self) -> Iterator[tuple[PositionKey, Sequence[Balance]]]:
        for position in self.positions:
            try:
                balances = self.adapter.balances(self.market, position)
            except Exception as error:
                log.exception("%s: balances of %s", self.name, position.key)
                reason = f"defect in the {self.adapter.protocol} adapter: {type(error).__name__}: {error}"
                raise DefectError(reason, self.name) from error
            if self.answers is not None:
                amounts = self.answers[position.key].amounts
                balances = [
                    replace(
                        b, amount=amounts.get((b.market, b.side), amounts.get((b.asset, b.side), b.amount)), value=None
                    )
                    for b in balances
                ]
            yield position.key, balances


class Auditor:
    """Turns a deployment's positions into a snapshot that was compared with the contracts."""

    def __init__(self, store: Store, chain: Chain, settings: Settings, gaps: MissingLogs) -> None:
        self.store, self.chain, self.settings, self.gaps = store, chain, settings, gaps
        self.left: dict[str, tuple[set[str], float]] = {}  # sums that the last repair could not mend, and when
        self.random = random.Random()  # noqa: S311 - a sample, not a secret

    def snapshot(self, work: TrackedDeployment, target: Block) -> Snapshot:
        """Rows of every known position, compared with the contracts before they are committed."""
        broken = self._reconcile(work, target)
        read = PinnedReader(self.chain, target)
        work.market = work.adapter.fit(read, work.market, work.held())
        rows = self._rows(work, target)
        wrong = self._audit(work, target, rows)
        if wrong:
            log.error("%s: %d rows differ from the contracts; reading every position again", work.name, len(wrong))
            work.forget_positions()
            work.read_market(read)
            work.read(read, work.to_read(read))
            work.market = work.adapter.fit(read, work.market, work.held())
            rows = self._rows(work, target)
            wrong = self._audit(work, target, rows)
        if wrong:
            rows = self._rows(work, target, verified=False)
        state, note = self._state(work, broken, wrong)
        return Snapshot(
            self.chain.chain_id,
            work.name,
            work.adapter.protocol,
            work.accounts,
            target,
            work.market.revision,
            state,
            note,
            work.complete_from,
            work.dump_market(),
            work.market.assets,
            rows,
            Balances(work),
            work.market.usd,
        )

    @staticmethod
    def _state(work: TrackedDeployment, broken: Sequence[Check], wrong: Sequence[Any]) -> tuple[str, str | None]:
        """What the user is told of a deployment: the gravest thing that is true of it."""
        if wrong:
            return "unverified", f"{len(wrong)} of the compared values differ from the contracts"
        if not work.market.exact:
            return "unverified", work.market.note
        if work.complete_from is not None:
            return "incomplete", (
                f"logs before block {work.complete_from} are pruned on every endpoint: accounts that only appear before "
                "it are missing; add an endpoint with full log history"
            )
        if broken:
            told = "; ".join(map(describe, broken))
            return "incomplete", f"{told}: some account is missing; add a second endpoint"
        alone = "only the watched wallets are known" if work.accounts is Accounts.WATCHED else None
        return "ok", work.market.note or alone

    def _rows(self, work: TrackedDeployment, target: Block, *, verified: bool = True) -> list[tuple[Any, ...]]:
        positions = work.held()
        answers: dict[PositionKey, Answer] | None = None
        if not work.market.exact:
            given = work.adapter.contract_answers(
                PinnedReader(self.chain, target), work.market, [p.key for p in positions]
            )
            answers = {answer.key: answer for answer in given}
        work.answers = answers
        return evaluate_all(
            self.chain.chain_id,
            work.adapter,
            work.market,
            positions,
            verified=verified,
            at_risk_below=self.settings.at_risk_below,
            answers=answers,
        )

    def _audit(self, work: TrackedDeployment, target: Block, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """Compares a random sample and the worst rows with the contracts' own answers; what differs."""
        if not work.market.exact or not rows:
            return []
        worst = sorted(
            (r for r in rows if r[STATUS] in ("at-risk", "liquidatable") and r[HEALTH] is not None),
            key=lambda r: r[HEALTH],
        )[: self.settings.audit_at_risk]
        sample = self.random.sample(list(rows), min(self.settings.audit_sample, len(rows)))
        chosen = {PositionKey(r[ACCOUNT], r[GROUP]): r for r in (*worst, *sample)}
        answers = work.adapter.contract_answers(PinnedReader(self.chain, target), work.market, list(chosen))
        wrong = []
        for answer in answers:
            columns = dict(zip(POSITION_COLUMNS, chosen[answer.key], strict=True))
            balances = work.adapter.balances(work.market, work.positions[answer.key])
            for what, ours, theirs in differences(columns, amounts_of(balances), answer):
                wrong.append({"position": list(answer.key), "what": what, "ours": str(ours), "contract": str(theirs)})
        self.store.audit(
            self.chain.chain_id,
            work.name,
            "self-audit",
            checked=len(chosen),
            mismatches=len({tuple(w["position"]) for w in wrong}),
            block=target,
            detail=wrong[:20] or None,
        )
        return wrong

    # reconciliation ---------------------------------------------------------------------------------------------------

    def _reconcile(self, work: TrackedDeployment, target: Block) -> list[Check]:
        """Compares sums with the contracts; where logs were omitted, reads and fetches again until they agree.

        First every known position (a change went unnoticed), then the logs since the last snapshot, then all of them
        (somebody went unnoticed). What stays unexplained is returned, and tried again after a while.
        """
        broken = self._broken(work)
        if not broken or self._tried_lately(work, broken):
            return broken
        found = broken
        since = work.previous.block.number if work.previous is not None else target.number
        for step, first in (("positions", None), ("recent logs", since), ("all logs", 0)):
            log.warning("%s: %s; reading %s again", work.name, "; ".join(map(describe, broken)), step)
            work.forget_positions()
            if first is not None:
                work.forget_logs(first)
                self.gaps.fetch([work], target)
            read = PinnedReader(self.chain, target)
            keys = work.to_read(read)
            for start in range(0, len(keys), self.settings.read_chunk):
                work.read(read, keys[start : start + self.settings.read_chunk])
            broken = self._broken(work)
            if not broken:
                break
        self.left[work.name] = ({c.name for c in broken}, time.monotonic())
        self.store.audit(
            self.chain.chain_id,
            work.name,
            "reconciliation",
            checked=len(found),
            mismatches=len(broken),
            block=target,
            detail={"found": [*map(describe, found)], "left": [*map(describe, broken)], "read_again": step},
        )
        return broken

    def _broken(self, work: TrackedDeployment) -> list[Check]:
        if work.accounts is Accounts.WATCHED:
            return []  # a few positions add up to nothing
        return [c for c in work.adapter.checks(work.market, work.held(), work.accounts) if not c.holds]

    def _tried_lately(self, work: TrackedDeployment, broken: Sequence[Check]) -> bool:
        """Whether a repair is not worth its requests: history is known to lack something, or it failed just now."""
        names, at = self.left.get(work.name, (set(), 0.0))
        return work.complete_from is not None or (
            {c.name for c in broken} <= names and time.monotonic() - at < AGAIN_SECONDS
        )


def describe(check: Check) -> str:
    """One line: what was summed, ours and the contract's."""
    return f"{check.name} sums to {check.have}, the contract says {check.want}"
