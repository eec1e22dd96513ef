"""Evaluating a deployment, and comparing it with the contracts before its rows are committed."""

import logging
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from indexer.chain import Chain
from indexer.evaluate import differences, evaluate_all
from indexer.gaps import Gaps
from indexer.model import Accounts, Answer, Balance, Block, Check, PositionKey
from indexer.settings import Settings
from indexer.store import POSITION_COLUMNS, Snapshot, Store
from indexer.work import Work

log = logging.getLogger(__name__)

STATUS, WALLET = POSITION_COLUMNS.index("status"), POSITION_COLUMNS.index("wallet")
HEALTH = POSITION_COLUMNS.index("health_factor")
ACCOUNT, GROUP = POSITION_COLUMNS.index("account"), POSITION_COLUMNS.index("position_group")

#: a repair that did not help is tried again after this long (a one-shot sync always tries)
REPAIR_AGAIN_SECONDS = 3600.0


class Auditor:
    """Turns a deployment's positions into a snapshot that was compared with the contracts."""

    def __init__(self, store: Store, chain: Chain, settings: Settings, gaps: Gaps) -> None:
        self.store, self.chain, self.settings, self.gaps = store, chain, settings, gaps
        self.left: dict[str, tuple[list[str], float]] = {}  # what the last repair could not explain, and when
        self.random = random.Random()  # noqa: S311 - a sample, not a secret

    def snapshot(self, work: Work, target: Block) -> Snapshot:
        """Rows of every known position, compared with the contracts before they are committed."""
        self._reconcile(work, target)
        read = self.chain.reader(target)
        work.market = work.adapter.calibrate(read, work.market, work.held())
        rows = self._rows(work, target)
        wrong = self._audit(work, target, rows)
        if wrong:
            log.error("%s: %d rows differ from the contracts; reading every position again", work.name, len(wrong))
            work.forget_positions()
            work.read_market(read)
            work.read(read, work.to_read(read))
            work.market = work.adapter.calibrate(read, work.market, work.held())
            rows = self._rows(work, target)
            wrong = self._audit(work, target, rows)
        if wrong:
            work.state = "unverified"
            work.note = f"{len(wrong)} of the compared rows differ from the contracts at block {target.number}"
            rows = self._rows(work, target, verified=False)
        elif not work.market.exact:
            work.state, work.note = "unverified", work.market.note
        elif work.state != "incomplete":
            alone = "only the watched wallets are known" if work.accounts is Accounts.WATCHED else None
            work.state, work.note = "ok", work.market.note or alone
        return Snapshot(
            self.chain.chain_id,
            work.name,
            work.adapter.protocol,
            work.accounts,
            target,
            work.market.revision,
            work.state,
            work.note,
            work.complete_from,
            work.dump_market(),
            work.market.assets,
            rows,
            self._balances(work),
            work.market.usd,
        )

    def _rows(self, work: Work, target: Block, *, verified: bool = True) -> list[tuple[Any, ...]]:
        positions = work.held()
        answers: dict[PositionKey, Answer] | None = None
        if not work.market.exact:
            given = work.adapter.contract_answers(self.chain.reader(target), work.market, [p.key for p in positions])
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

    @staticmethod
    def _balances(work: Work) -> Iterator[tuple[PositionKey, Sequence[Balance]]]:
        """Every position's balances; the contract's own amounts where the code is unknown."""
        for position in work.held():
            balances = work.adapter.balances(work.market, position)
            if work.answers is not None:
                amounts = work.answers[position.key].amounts
                balances = [
                    replace(
                        b, amount=amounts.get((b.market, b.side), amounts.get((b.asset, b.side), b.amount)), value=None
                    )
                    for b in balances
                ]
            yield position.key, balances

    def _audit(self, work: Work, target: Block, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """Compares a random sample and the worst rows with the contracts' own answers; what differs."""
        if not work.market.exact or not rows:
            return []
        worst = sorted(
            (r for r in rows if r[STATUS] in ("at-risk", "liquidatable") and r[HEALTH] is not None),
            key=lambda r: r[HEALTH],
        )[: self.settings.audit_at_risk]
        sample = self.random.sample(list(rows), min(self.settings.audit_sample, len(rows)))
        chosen = {PositionKey(r[ACCOUNT], r[GROUP]): r for r in (*worst, *sample)}
        answers = work.adapter.contract_answers(self.chain.reader(target), work.market, list(chosen))
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

    def _reconcile(self, work: Work, target: Block) -> None:
        """Compares sums with the contracts; where logs were omitted, reads and fetches again until they agree.

        First every known position (a change went unnoticed), then the logs since the last snapshot, then all of them
        (somebody went unnoticed). What stays unexplained is told and not tried again until it changes.
        """
        broken = self._broken(work)
        if not broken and work.state == "incomplete" and work.complete_from is None:
            work.state = "ok"
        if not broken or self._told(work, broken):
            return
        first_finding = broken
        since = work.previous.block.number if work.previous is not None else target.number
        for step, first in (("positions", None), ("recent logs", since), ("all logs", 0)):
            log.warning("%s: %s; reading %s again", work.name, "; ".join(map(describe, broken)), step)
            work.forget_positions()
            if first is not None:
                work.forget_logs(first)
                self.gaps.fetch([work], target)
            read = self.chain.reader(target)
            keys = work.to_read(read)
            for start in range(0, len(keys), self.settings.read_chunk):
                work.read(read, keys[start : start + self.settings.read_chunk])
            broken = self._broken(work)
            if not broken:
                break
        self.left[work.name] = ([check_key(c) for c in broken], time.monotonic())
        detail = {"found": [describe(c) for c in first_finding], "left": [check_key(c) for c in broken], "last": step}
        self.store.audit(
            self.chain.chain_id,
            work.name,
            "reconciliation",
            checked=len(first_finding),
            mismatches=len(broken),
            block=target,
            detail=detail,
        )
        if broken:
            work.state = "incomplete"
            work.note = "; ".join(map(describe, broken)) + ": some account is missing; add a second endpoint"
        elif work.complete_from is None:
            work.state = "ok"

    def _broken(self, work: Work) -> list[Check]:
        if work.accounts is Accounts.WATCHED:
            return []  # a few positions add up to nothing
        return [c for c in work.adapter.checks(work.market, work.held(), work.accounts) if not c.holds]

    def _told(self, work: Work, broken: Sequence[Check]) -> bool:
        """Whether a repair is not worth its requests: history is known to lack something, or it failed just now."""
        if work.complete_from is not None:
            return True
        keys, at = self.left.get(work.name, ([], 0.0))
        return keys == [check_key(c) for c in broken] and time.monotonic() - at < REPAIR_AGAIN_SECONDS


def describe(check: Check) -> str:
    """One line: what was summed, ours and the contract's."""
    return f"{check.name} sums to {check.have}, the contract says {check.want}"


def check_key(check: Check) -> str:
    """Names a difference so that it is known again while nothing changes it."""
    return f"{check.name}: {check.have - (check.want or 0)}"


def amounts_of(balances: Sequence[Balance]) -> dict[tuple[str, str], tuple[int, int]]:
    """(market or asset, side) -> (amount, scaled), as `differences` wants it."""
    found = {(b.asset, b.side): (b.amount, b.scaled) for b in balances}
    return found | {(b.market, b.side): (b.amount, b.scaled) for b in balances}
