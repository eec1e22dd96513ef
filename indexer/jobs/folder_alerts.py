"""Alerts over a folder: the process of each chain judges inside its own transactions, the one above them delivers.

    DIR/watch.db   who is watched, the rules, alerts and deliveries; the process above writes it, the others read it
    DIR/CHAIN.db   what each rule remembers of the chain's positions, and its alerts, which are then collected

An alert is written exactly if its snapshot is, and collected when the process tells of the snapshot, when it ends, and
when the command begins: whoever is killed in between, it is there for the next.
"""

import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.errors import ChainError, StoreError
from indexer.fleet.member import Member, State
from indexer.jobs.watched import NOBODY, stored
from indexer.jobs.watching import alerting, judged
from indexer.store.database import open_readonly
from indexer.store.shards import RULES, chain_files, chains_of
from indexer.store.store import Store
from indexer.terminal.options import Session
from indexer.text.console import remark, troubles

if TYPE_CHECKING:
    from indexer.alert.blind import Lookout
    from indexer.alert.watches import Policy
    from indexer.config import ChainConfig
    from indexer.delivery.channels import Channel
    from indexer.delivery.dispatch import Dispatch
    from indexer.sync.sync import Outcome, Sync

log = logging.getLogger(__name__)


# the process of one chain -----------------------------------------------------------------------------------------------


class Reporter:
    """Tells the process above why there are no newer rows, as `Desk` tells its lookout."""

    def look(self, outcome: "Outcome") -> None:
        """Behind a snapshot."""
        self._tell("; ".join(outcome.failed.values()) or None)

    def failed(self, error: ChainError) -> None:
        """There was none."""
        self._tell(str(error))

    @staticmethod
    def _tell(reason: str | None) -> None:
        for listener in troubles:
            listener(reason)


def judging_for_a_folder(session: Session, worker: "Sync", policy: "Policy", watch_db: Path) -> Reporter:
    """Has each snapshot of one chain judged by the rules of the folder; the alerts wait in the chain's file."""
    from indexer.alert.tables import forget_unwatched

    worker.store.lay_over(watch_db, RULES)
    judged(session, worker, policy, ())
    worker.committer.planners.append(lambda *_: forget_unwatched)
    return Reporter()


# the process above ------------------------------------------------------------------------------------------------------


@dataclass
class FolderDesk:
    """Collects the alerts of all chains, and sees to their delivery."""

    store: Store
    channels: "Sequence[Channel]"
    couriers: "Dispatch"
    files: Mapping[str, Path]
    lookouts: "Mapping[str, Lookout]"
    #: whether alerts are printed where the table of progress is
    prints: bool = False
    #: the last number that was looked at in each file
    after: dict[Path, int] = field(default_factory=dict)

    def committed(self, member: Member) -> None:
        """Behind a snapshot of a chain, and behind the end of its process."""
        lookout = self.lookouts[member.name]
        lookout.reason = member.trouble
        self.collect(self.files[member.name])
        if member.state is State.GAVE_UP:
            lookout.reason = member.said
            lookout.look(time.time())
        self.couriers.wake()

    def collect(self, path: Path) -> None:
        """Queues the alerts of a chain's file for the channels; what fails is tried again behind the next snapshot."""
        from indexer.delivery.queue import collect

        try:
            if not path.exists() or not chains_of(path):
                return
            with closing(open_readonly(path)) as source, self.store.transaction() as conn:
                after = collect(conn, source, self.after.get(path, 0), self.channels)
        except (StoreError, sqlite3.Error) as error:
            log.error("the alerts of %s are not collected yet: %s", path, error)
            return
        self.after[path] = after


@contextmanager
def delivering(
    session: Session, flags: Mapping[str, Any], store: Store, chains: "Sequence[ChainConfig]", files: Mapping[str, Path]
) -> "Iterator[FolderDesk | None]":
    """Collects and delivers what the chains' processes find, with --watch; looks out for chains that cannot be read."""
    if not flags["watch"]:
        yield None
        return
    from indexer.alert.blind import Lookout
    from indexer.alert.prices import rules as price_rules
    from indexer.delivery.dispatch import Dispatch
    from indexer.delivery.queue import waiting

    to, alerts = alerting(session, flags), session.config.alerts
    keys = {channel.key for channel in to.channels}
    for key, place, count, _ in waiting(store.conn):
        if key not in keys:
            remark(f"{count} alerts wait for {place}, which is not among the channels now")
    if not stored(store) and not price_rules(store.conn):
        remark(f"{NOBODY}; the sync goes on")
    lookouts = {
        chain.name: Lookout(
            session.watch_db,
            chain.name,
            chain.chain_id,
            [one.name for one in session.config.select(chain.name, flags["protocols"])[1]],
            to.channels,
            alerts.blind_after_seconds,
            files[chain.name],
        )
        for chain in chains
    }
    options = click.get_current_context().find_root().params
    with ExitStack() as stack:
        couriers = stack.enter_context(Dispatch(session.watch_db, to.places, alerts.expire_hours * 3600, options))
        desk = FolderDesk(store, to.channels, couriers, files, lookouts, prints=to.places.stdout)
        for path in chain_files(session.db):
            desk.collect(path)
        couriers.wake()
        for lookout in lookouts.values():
            stack.enter_context(lookout.watching(couriers.wake))
        yield desk
