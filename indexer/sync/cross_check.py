"""Gets a second opinion on rows of each snapshot: where two endpoints contradict each other, neither is believed."""

import logging
import random
import time
from collections.abc import Collection, Sequence

from indexer.chain.client import Chain
from indexer.chain.endpoint import Endpoint
from indexer.errors import ChainError
from indexer.model import Block, PositionKey
from indexer.reads.multicall import PinnedReader
from indexer.settings import Settings
from indexer.snapshot.tracked import TrackedDeployment
from indexer.store import disputes
from indexer.store.rows import PositionRow
from indexer.store.store import Store
from indexer.sync.comparison import Difference, compared

log = logging.getLogger(__name__)

#: seconds for which an endpoint without an answer is not asked again, so that it does not hold up snapshots
SILENT_SECONDS = 60.0
#: how often an endpoint that may be a block behind is asked
ROUNDS = 3
#: so many rows in dispute are compared with the endpoint in use where nothing is cross-checked
AGAIN = 20


class CrossCheck:
    """Asks an endpoint that is not in use about `settings.cross_check` rows of each snapshot, deployment by deployment.

    Every row has its turn before any has a second. A row in dispute is checked each time, and stays `unverified` until two
    endpoints agree, even where a sync has only one. The rows must already match the endpoint in use, whose answers they
    stand for.
    """

    def __init__(self, store: Store, chain: Chain, settings: Settings) -> None:
        self.store, self.chain, self.count = store, chain, settings.cross_check
        if self.count and not chain.others():
            log.warning("%s has one endpoint only: nothing is cross-checked; name a second", chain.name)
        self.disputed: dict[str, set[PositionKey]] = {}
        self.turns: dict[str, list[PositionKey]] = {}
        #: deployment -> the endpoint that was in use when its rows in work were chosen
        self.speakers: dict[str, Endpoint] = {}
        self.asked = 0
        self.silent_until: dict[Endpoint, float] = {}
        self.random = random.Random()  # noqa: S311 - an order, not a secret

    def choose(self, tracked: TrackedDeployment) -> list[PositionKey]:
        """The rows to ask about: up to `settings.cross_check` of those in dispute, and as many others.

        Where nothing is cross-checked those in dispute are still compared with the endpoint in use: what they hold may
        come from another one.
        """
        name = tracked.name
        self.speakers[name] = self.chain.in_use
        self.disputed[name] = {
            key for key in disputes.disputed(self.store.conn, (self.chain.chain_id, name)) if key in tracked.known
        }
        turns = self.turns.setdefault(name, [])
        if not turns and self.count:
            turns += tracked.known
            self.random.shuffle(turns)
        turn = [turns.pop() for _ in range(min(self.count, len(turns)))]
        disputed = sorted(self.disputed[name])
        again = self.random.sample(disputed, min(self.count or AGAIN, len(disputed)))
        return [key for key in dict.fromkeys([*again, *turn]) if key in tracked.known]

    def disputes(
        self, tracked: TrackedDeployment, target: Block, rows: Sequence[PositionRow]
    ) -> Collection[PositionKey]:
        """The positions in dispute once a second endpoint was asked about these rows, which were chosen."""
        if not tracked.market.exact:
            return ()
        where, disputed = (self.chain.chain_id, tracked.name), self.disputed[tracked.name]
        if self.count:
            found = self._second_opinion(tracked, target, rows)
            agreed, contradicted = (
                {key for key, wrong in found.items() if bool(wrong) is bad} for bad in (False, True)
            )
            disputes.ended(self.store, where, disputed & agreed)
            disputes.opened(self.store, where, contradicted, target.number)
            disputed = self.disputed[tracked.name] = disputed - agreed | contradicted
        return disputed

    def note(self, tracked: TrackedDeployment) -> str | None:
        """The note of a deployment with rows in dispute."""
        disputed = self.disputed.get(tracked.name)
        if not disputed:
            return None
        return (
            f"two endpoints contradict each other about {len(disputed)} positions, which are unverified until two say the "
            "same: see `audits`, and `indexer verify --against URL`"
        )

    def _second_opinion(
        self, tracked: TrackedDeployment, target: Block, rows: Sequence[PositionRow]
    ) -> dict[PositionKey, list[Difference]]:
        """What another endpoint says differently about each row; nothing if none answers."""
        now = time.monotonic()
        others = [other for other in self.chain.others() if self.silent_until.get(other, now) <= now]
        if not others or not rows:
            return {}
        other = others[self.asked % len(others)]
        self.asked += 1
        speaker = self.speakers[tracked.name]
        if speaker is not self.chain.in_use:
            # Some rows were compared with the one, some with the other: whoever of the two is wrong is shown up by both.
            first, second = (self._opinion(tracked, target, rows, each) for each in (speaker, self.chain.in_use))
            return {key: first[key] or second[key] for key in first.keys() & second.keys()}
        return self._opinion(tracked, target, rows, other)

    def _opinion(
        self, tracked: TrackedDeployment, target: Block, rows: Sequence[PositionRow], other: Endpoint
    ) -> dict[PositionKey, list[Difference]]:
        positions = tracked.loaded(row.key for row in rows)
        held = {position.key: tracked.adapter.balances(tracked.market, position) for position in positions}
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
