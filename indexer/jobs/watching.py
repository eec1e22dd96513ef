"""The verbs of `indexer watch` that read the chain and send alerts: check and run."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from indexer.errors import ChainError, IndexerError
from indexer.jobs.measuring import measuring, metrics_options
from indexer.jobs.watched import NOBODY, stored, warn_of_moved_names
from indexer.model import Accounts
from indexer.store.store import Store
from indexer.terminal.freshness import ANYONE_LISTED, MAX_AGE_SECONDS, max_age_option
from indexer.terminal.options import Number, Session, chain_options, connected, interruptible, session_of
from indexer.text.console import remark
from indexer.text.values import age, many

if TYPE_CHECKING:
    from indexer.alert.blind import Lookout
    from indexer.alert.watcher import Watcher
    from indexer.alert.watches import Policy
    from indexer.chain.client import Chain
    from indexer.delivery.channels import Channel
    from indexer.delivery.dispatch import Dispatch
    from indexer.delivery.places import Places
    from indexer.sync.sync import Outcome, Sync

F = TypeVar("F", bound=Callable[..., Any])


#: the parameters that `alert_options` gives a command, those of where alerts go first
CHANNEL_FLAGS = ("urls", "command", "stdout")
ALERT_FLAGS = (*CHANNEL_FLAGS, "hysteresis", "target")


def alert_options(command: F) -> F:
    """Adds the flags for the channels of alerts and their margin; each overrides [alerts] of the configuration."""
    flags = [
        click.option(
            "--notify",
            "urls",
            multiple=True,
            metavar="URL",
            help="Any URL of apprise, ${NAME} from the environment; repeatable.",
        ),
        click.option("--command", metavar="'PROG {wallet}'", help="Run this; the alert is JSON on its standard input."),
        click.option("--stdout", is_flag=True, help="On standard output, the default: JSON lines, text in a terminal."),
        click.option("--hysteresis", type=Number(min=0, max=100), metavar="P", help="Margin in percent.  [default: 2]"),
        click.option(
            "--target",
            type=Number(min=0, max=1000, min_open=True),
            metavar="HF",
            help="To repay or add up to.  [default: 1.5]",
        ),
    ]
    for flag in reversed(flags):
        command = flag(command)
    return command


@dataclass
class Desk:
    """Everything that watching needs but the chain: the locked store, the channels, the lookout and the couriers."""

    session: Session
    flags: dict[str, Any]
    store: Store
    policy: "Policy"
    channels: "Sequence[Channel]"
    couriers: "Dispatch"
    lookout: "Lookout"

    @contextmanager
    def connected(self) -> "Iterator[tuple[Chain, Sync, Watcher]]":
        """The chain, and the sync with its watcher."""
        from indexer.sync.sync import Sync

        with connected(self.session, self.flags) as (chain, adapters):
            sync = Sync(self.store, chain, adapters, Accounts.WATCHED, self.session.config.settings)
            yield chain, sync, self.judging(sync)

    def judging(self, sync: "Sync") -> "Watcher":
        """The watcher that from now on judges each snapshot of a sync."""
        return judged(self.session, sync, self.policy, self.channels)

    def look(self, outcome: "Outcome") -> None:
        """Behind a snapshot: what it could not read is known to the lookout, and there may be something to deliver."""
        self.lookout.reason = "; ".join(outcome.failed.values()) or None
        self.couriers.wake()

    def failed(self, error: ChainError) -> None:
        """The lookout will say why there are no newer rows."""
        self.lookout.reason = str(error)

    def blind(self, error: ChainError) -> None:
        """Nothing could be read: raises the alert at once where the rows are old already."""
        self.lookout.reason = str(error)
        self.lookout.look(time.time())


def judged(session: Session, sync: "Sync", policy: "Policy", channels: "Sequence[Channel]") -> "Watcher":
    """The watcher that from now on judges each snapshot of a sync, and queues alerts for these channels."""
    from indexer.alert.watcher import Watcher

    chain = sync.chain.name
    config = session.config
    watcher = Watcher(chain, policy, channels, config.chain(chain).explorer, config.groups)
    sync.committer.planners.append(watcher.plan)
    return watcher


@dataclass(frozen=True)
class Alerting:
    """Where alerts go and by which defaults wallets are watched, from the flags and [alerts] of the configuration."""

    places: "Places"
    channels: "Sequence[Channel]"
    policy: "Policy"


def alerting(session: Session, flags: Mapping[str, Any]) -> Alerting:
    """Reads the flags of `alert_options`. ConfigError for a channel that cannot work."""
    from indexer.alert.watches import Policy
    from indexer.settings import Alerts

    alerts = session.config.alerts
    places = chosen(session, flags)
    policy = Policy.of(
        Alerts(
            below=alerts.below,
            drop_percent=alerts.drop_percent,
            hysteresis_percent=alerts.hysteresis_percent if flags["hysteresis"] is None else flags["hysteresis"],
            target=alerts.target if flags["target"] is None else flags["target"],
        )
    )
    return Alerting(places, places.channels(), policy)


@contextmanager
def watching(session: Session, flags: dict[str, Any]) -> "Iterator[Desk]":
    """Opens what watching needs, with the couriers running."""
    from indexer.alert.prices import rules as price_rules
    from indexer.queries.known import chain_names

    config = session.config
    to = alerting(session, flags)
    if not session.db.exists():
        raise IndexerError(NOBODY)
    with Store(session.db) as store:
        if not stored(store) and not price_rules(store.conn):
            raise IndexerError(NOBODY)
        chain_ids = list(chain_names(store.conn))
        if flags["chain"] is None and not flags["deployments"] and len(chain_ids) == 1:
            flags["chain"] = config.chain_name(chain_ids[0])  # the one that is in the database already
        chain, _ = config.select(flags["chain"], flags["protocols"], flags["deployments"])
        config.endpoints(chain, flags["rpc_urls"])  # so that errors in them are reported before anything is begun
        with store.lock(), staffed(session, flags, to, store) as desk:
            yield desk


@contextmanager
def staffed(session: Session, flags: dict[str, Any], to: Alerting, store: Store) -> "Iterator[Desk]":
    """A desk on a store that is locked, with the couriers running."""
    from indexer.alert.blind import Lookout
    from indexer.delivery.dispatch import Dispatch
    from indexer.delivery.queue import waiting

    alerts = session.config.alerts
    chain, deployments = session.config.select(flags["chain"], flags["protocols"], flags["deployments"])
    keys = {channel.key for channel in to.channels}
    for key, place, count, _ in waiting(store.conn):
        if key not in keys:
            remark(f"{count} alerts wait for {place}, which is not among the channels now")
    names = [deployment.name for deployment in deployments]
    lookout = Lookout(session.db, chain.name, chain.chain_id, names, to.channels, alerts.blind_after_seconds)
    options = click.get_current_context().find_root().params
    with Dispatch(session.db, to.places, alerts.expire_hours * 3600, options) as couriers:
        yield Desk(session, flags, store, to.policy, to.channels, couriers, lookout)


def chosen(session: Session, flags: Mapping[str, Any]) -> "Places":
    """The channels of the flags, else those of the configuration, else standard output."""
    from indexer.delivery.places import Places

    config = session.config
    urls, command, stdout = [config.expanded(u, "--notify") for u in flags["urls"]], flags["command"], flags["stdout"]
    if not urls and command is None and not stdout:
        alerts, source = config.alerts, f"{config.path}: alerts.urls"
        urls = [config.expanded(url, source) for url in alerts.urls]
        command, stdout = alerts.command, alerts.stdout
    return Places(tuple(dict.fromkeys(urls)), command, stdout or not (urls or command is not None))


def told(watcher: "Watcher", outcome: "Outcome", chain: str) -> str:
    """One line about a snapshot."""
    from indexer.alert.message import factor

    worst = "" if watcher.worst is None else f", lowest health factor {factor(watcher.worst)}"
    return (
        f"{chain} block {outcome.block.number}: {many(watcher.positions, 'watched position')}{worst}; "
        f"{many(watcher.queued, 'alert')}, {many(outcome.requests, 'request')}, {age(max(time.time() - outcome.block.timestamp, 0))} old"
    )


@click.command(
    epilog="\b\nExamples:\n  indexer watch check\n  indexer watch check --exit-code \\"
    "\n    --notify 'mailto://${MAIL_USER}:${MAIL_PASSWORD}@example.org'"
)
@alert_options
@click.option("--exit-code", is_flag=True, help="Exit with 3 if any rule is crossed and has not recovered.")
@max_age_option("Fail if rows are older than this afterwards (10m, 2h).  [default: 10m]")
@chain_options
@session_of
def check(session: Session, /, exit_code: bool, max_age: float | None, **flags: Any) -> None:
    """Read the chain once, send the alerts, and end; made for cron.

    On an empty database it works for the watched wallets alone. Exit codes: with --exit-code 3 if a rule is crossed; else
    1 if a deployment was not read, is incomplete or its rows are old, or an alert was not delivered (the next check or run
    delivers it); else 0.
    """
    from indexer.alert.tables import open_crossings
    from indexer.queries.freshness import freshness

    with watching(session, flags) as desk:
        problems = []
        try:
            with desk.connected() as (chain, sync, watcher):
                outcome = sync.snapshot()
                desk.lookout.look(time.time())
                line = told(watcher, outcome, chain.name)
            problems += [f"not read: {name}: {why}" for name, why in outcome.failed.items()]
        except ChainError as error:
            desk.blind(error)
            problems.append(str(error))
            line = None
        undelivered = leftover(desk)
        if line is not None:
            remark(line)
        now, limit = time.time(), MAX_AGE_SECONDS if max_age is None else max_age
        ages = freshness(desk.store.conn, chain_id=desk.lookout.chain_id, deployments=desk.lookout.deployments)
        doubts = [(row, row.doubt(now, limit)) for row in ages]
        # A deployment that is reported as not read need not be reported as old as well.
        problems = undelivered + (problems or [f"{row.deployment} {doubt}" for row, doubt in doubts if doubt])
        crossed = open_crossings(desk.store.conn, desk.lookout.chain_id)
    if exit_code and crossed:
        for problem in problems:
            remark(problem)
        raise SystemExit(ANYONE_LISTED)
    if problems:
        raise IndexerError("; ".join(problems))


def leftover(desk: Desk) -> list[str]:
    """Delivers what is queued; returns what is left."""
    from indexer.delivery.queue import refused, waiting

    if desk.couriers.settle():
        return []
    waits = "; ".join(
        f"{count} for {place}{f' ({error})' if error else ''}" for _, place, count, error in waiting(desk.store.conn)
    )
    if waits:
        return [f"alerts wait to be delivered: {waits}; the next check or run tries again"]
    return [f"alerts were refused: {'; '.join(refused(desk.store.conn))}"]


@click.command(
    short_help="Follow the chain and send alerts until interrupted.",
    epilog="\b\nExamples:\n  indexer watch run\n  indexer watch run --chain mainnet --command 'alarm {wallet}' \\"
    "\n    --notify 'tgram://${TELEGRAM_TOKEN}/42424242'",
)
@alert_options
@metrics_options
@chain_options
@session_of
def run(session: Session, /, **flags: Any) -> None:
    """Follow the chain and send alerts, block by block, until interrupted.

    On an empty database it works for the watched wallets alone; where everyone is synced already, it goes on syncing
    everyone. `watch add` and `watch remove` may be used meanwhile. If rows grow older than `blind_after_seconds` in
    [alerts] (10 minutes), for whatever reason, an alert about that goes to the same channels.
    """
    from indexer.queries.queries import last_block

    block = None
    with interruptible() as interrupted:
        with suppress(KeyboardInterrupt), watching(session, flags) as desk:
            names = threading.Thread(target=warn_of_moved_names, args=(session, stored(desk.store)), daemon=True)
            names.start()  # in the background: the watch does not wait for mainnet's answers
            try:
                keep_watching(desk, interrupted)
            except ChainError as error:  # before the first snapshot: the watch ends, and its supervisor starts it again
                desk.blind(error)
                leftover(desk)
                raise
            if desk.couriers.gone:
                raise IndexerError("nobody reads standard output any more; alerts wait for the next run")
            block = last_block(session.db, desk.lookout.chain_id)
        remark("Stopped." if block is None else f"Stopped. The last snapshot is of block {block}.")


def keep_watching(desk: Desk, interrupted: Callable[[], bool]) -> None:
    """Takes a snapshot of every new block until interrupted, or until nobody is left to deliver to."""
    from indexer.chain.heads import Heads
    from indexer.sync.follow import follow

    config, rpc_urls = desk.session.config, desk.flags["rpc_urls"]
    with (
        desk.connected() as (chain, sync, watcher),
        desk.lookout.watching(desk.couriers.wake),
        measuring(desk.session, sync, desk.flags) as measured,
    ):

        def tell(outcome: "Outcome", _lag: float) -> None:
            desk.look(outcome)
            remark(told(watcher, outcome, chain.name))
            measured.write()

        def failed(error: ChainError) -> None:
            desk.failed(error)
            measured.write()

        heads = Heads([endpoint.url for endpoint in config.endpoints(config.chain(chain.name), rpc_urls)])
        measured.follows(heads)
        with closing(heads), suppress(KeyboardInterrupt):
            follow(sync, heads, tell, until=lambda: interrupted() or desk.couriers.gone, failed=failed)
