"""Accounts that an older version took for borrowers or holders, though no log says that they were.

It believed a Borrow or a Transfer of nothing. A migration only marks who may be one of them (`doubted`). Here the logs
between the first and the last block in which such an account was named are read again, as today's rules read them: whom
they name stays for good. Whoever is named nowhere in a complete range, and holds no debt now, is dropped, as a first sync
would not know him either. Where logs of the range are missing nobody is dropped, and the deployment says so.
"""

import logging

from indexer.chain.client import Chain
from indexer.chain.endpoint import Endpoint
from indexer.errors import ChainError, PrunedError, ReorgError
from indexer.logs.ranges import fetch
from indexer.model import Block, PositionKey
from indexer.snapshot.tracked import TrackedDeployment, pairs_of
from indexer.store import doubted as doubts
from indexer.store.block_ranges import Ranges
from indexer.store.store import Store

log = logging.getLogger(__name__)

#: rounds through an endpoint that is asked for a second opinion
ROUNDS = 3


class OlderNames:
    """Settles once a process who of the marked accounts is to stay; call `settle` behind the logs of a snapshot."""

    def __init__(self, store: Store, chain: Chain) -> None:
        self.store, self.chain = store, chain
        self._done: set[str] = set()

    def settle(self, tracked: TrackedDeployment, target: Block) -> None:
        """Drops whom complete logs never name, keeps whom they name; the rest stays marked."""
        where = (self.chain.chain_id, tracked.name)
        if tracked.name in self._done:
            return
        doubted = doubts.doubted(self.store.conn, where)
        self._done.add(tracked.name)
        tracked.doubted = {key for key in doubted if key in tracked.known and doubted[key][1] <= target.number}
        if not tracked.doubted or tracked.wallets is not None:
            return
        ranges = Ranges(doubted[key] for key in tracked.doubted)
        log.info(
            "%s: an older version named %d accounts that may never have had debt", *where[1:], len(tracked.doubted)
        )
        try:
            named = self._named(tracked, ranges)
        except PrunedError as error:
            log.warning("%s: %d accounts cannot be looked up again: %s", tracked.name, len(tracked.doubted), error)
            return
        indebted = {key for key in tracked.doubted if not self._holds_nothing(tracked, key)}
        never = tracked.doubted - named - indebted
        doubts.settle(self.store, where, dropped=never)
        if never:
            tracked.known.drop(never)
            tracked.unread -= never
        self.store.audit(
            *where,
            "never-borrowed",
            checked=len(tracked.doubted),
            mismatches=0,
            block=target,
            detail={"ranges": ranges.to_list(), "dropped": [list(key) for key in sorted(never)]},
        )
        tracked.doubted = set()

    @staticmethod
    def _holds_nothing(tracked: TrackedDeployment, key: PositionKey) -> bool:
        """Whether the position, as it was read last, has no debt."""
        position = tracked.position(key)
        if position is None:
            return False
        return not any(b.side == "debt" and b.amount for b in tracked.adapter.balances(tracked.market, position))

    def _named(self, tracked: TrackedDeployment, ranges: Ranges) -> set[PositionKey]:
        """Whom the discovery logs of these blocks name, by each endpoint that has them. PrunedError if none does."""
        found = self._named_by(self.chain, tracked, ranges)
        for other in self.chain.others():
            found |= self._second(other, tracked, ranges)
        return found

    def _second(self, other: Endpoint, tracked: TrackedDeployment, ranges: Ranges) -> set[PositionKey]:
        try:
            with self.chain.behind(other, rounds=ROUNDS) as second:
                return self._named_by(second, tracked, ranges)
        except ReorgError:
            raise
        except ChainError as error:
            log.info("%s does not say who was named in older blocks: %s", other.masked, error)
            return set()

    @staticmethod
    def _named_by(chain: Chain, tracked: TrackedDeployment, ranges: Ranges) -> set[PositionKey]:
        pairs = pairs_of(tracked.adapter.logs(tracked.market, tracked.accounts).discovery)
        addresses, topics = ({pair[i] for pair in pairs} for i in (0, 1))
        return {
            key
            for first, last in ranges
            for chunk in fetch(chain, first, last, addresses, topics)
            for event in chunk.events
            if (event.address, event.topic0) in pairs
            for key in tracked.adapter.touched(tracked.market, event)
        }
