"""Gets a second opinion on rows of each snapshot: where two endpoints contradict each other, neither is believed."""

import logging
import random
import time
from collections.abc import Collection, Sequence

from indexer.chain.client import Chain
from indexer.chain.endpoint import Endpoint
from indexer.chain.multicall import PinnedReader
from indexer.errors import ChainError
from indexer.model import Block, PositionKey, Status
from indexer.settings import Settings
from indexer.store import disputes
from indexer.store.rows import PositionRow
from indexer.store.store import Store
from indexer.sync.comparison import Difference, compared
from indexer.sync.tracked import TrackedDeployment

log = logging.getLogger(__name__)

#: seconds for which an endpoint without an answer is not asked again, so that it does not hold up snapshots
SILENT_SECONDS = 60.0
#: how often an endpoint that may be a block behind is asked
ROUNDS = 3


class CrossCheck:
    """Asks an endpoint that is not in use about `settings.cross_check` rows of each snapshot, deployment by deployment.

    Every row has its turn before any has a second. A row in dispute is checked each time, and stays `unverified` until both
    endpoints agree. The rows must already match the endpoint in use, whose answers they stand for.
    """

    def __init__(self, store: Store, chain: Chain, settings: Settings) -> None:
        self.store, self.chain, self.count = store, chain, settings.cross_check
        if self.count and not chain.others():
            log.warning("%s has one endpoint only: nothing is cross-checked; name a second", chain.name)
        self.disputed: dict[str, set[PositionKey]] = {}
        self.turns: dict[str, list[PositionKey]] = {}
        self.asked = 0
        self.silent_until: dict[Endpoint, float] = {}
        self.random = random.Random()  # noqa: S311 - an order, not a secret

    def choose(self, tracked: TrackedDeployment) -> list[PositionKey]:
        """The rows to ask about: up to `settings.cross_check` of those in dispute, and as many others."""
        if not self.count:
            return []
        name = tracked.name
        if name not in self.disputed:
            self.disputed[name] = disputes.marked(self.store, (self.chain.chain_id, name))
        self.disputed[name] &= tracked.known.keys()
        turns = self.turns.setdefault(name, [])
        if not turns:
            turns += tracked.known
            self.random.shuffle(turns)
        turn = [turns.pop() for _ in range(min(self.count, len(turns)))]
        disputed = sorted(self.disputed[name])
        again = self.random.sample(disputed, min(self.count, len(disputed)))
        return [key for key in dict.fromkeys([*again, *turn]) if key in tracked.known]

    def believed(
        self, tracked: TrackedDeployment, target: Block, rows: Sequence[PositionRow], chosen: Collection[PositionKey]
    ) -> list[PositionRow]:
        """The rows, with those in dispute marked `unverified`."""
        if not self.count or not tracked.market.exact:
            return list(rows)
        wanted, disputed = set(chosen), self.disputed[tracked.name]
        asked = [row for row in rows if row.key in wanted]
        found = self._second_opinion(tracked, target, asked) if asked else {}
        disputed -= {key for key, wrong in found.items() if not wrong}
        disputed |= {key for key, wrong in found.items() if wrong}
        return [
            row._replace(status=Status.UNVERIFIED.value, note=disputes.NOTE) if row.key in disputed else row
            for row in rows
        ]

    def note(self, tracked: TrackedDeployment) -> str | None:
        """The note of a deployment with rows in dispute."""
        disputed = self.disputed.get(tracked.name)
        if not disputed:
            return None
        return (
            f"two endpoints contradict each other about {len(disputed)} positions, which are unverified: see `audits`"
        )

    def _second_opinion(
        self, tracked: TrackedDeployment, target: Block, rows: Sequence[PositionRow]
    ) -> dict[PositionKey, list[Difference]]:
        """What another endpoint says differently about each row; nothing if none answers."""
        now = time.monotonic()
        others = [other for other in self.chain.others() if self.silent_until.get(other, now) <= now]
        if not others:
            return {}
        other = others[self.asked % len(others)]
        self.asked += 1
        held = {row.key: tracked.adapter.balances(tracked.market, tracked.positions[row.key]) for row in rows}
        try:
            with self.chain.behind(other, rounds=ROUNDS) as second:
                found = compared(PinnedReader(second, target), tracked.adapter, tracked.market, rows, held)
        except ChainError as error:  # a reorg too: the snapshot is of the endpoint in use
            self.silent_until[other] = time.monotonic() + SILENT_SECONDS
            log.warning("%s: no second opinion at block %d: %s", tracked.name, target.number, error)
            return {}
        self._tell(tracked, target, other, found)
        return found

    def _tell(
        self, tracked: TrackedDeployment, target: Block, other: Endpoint, found: dict[PositionKey, list[Difference]]
    ) -> None:
        wrong = [(key, *difference) for key, differences in found.items() for difference in differences]
        for key, what, ours, theirs in wrong[:1]:
            log.error(
                "%s: %d rows are unverified: %s and %s contradict each other; of %s %s is %s at one, %s at the other",
                tracked.name,
                len({key for key, *_ in wrong}),
                self.chain.endpoint,
                other.masked,
                " ".join(key).rstrip(),
                what,
                ours,
                theirs,
            )
        self.store.audit(
            self.chain.chain_id,
            tracked.name,
            "cross-check",
            checked=len(found),
            mismatches=len({key for key, *_ in wrong}),
            block=target,
            detail=[
                {
                    "position": list(key),
                    "what": what,
                    "answers": [[self.chain.endpoint, str(ours)], [other.masked, str(theirs)]],
                }
                for key, what, ours, theirs in wrong[:20]
            ]
            or None,
        )
