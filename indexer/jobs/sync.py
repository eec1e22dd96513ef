"""The verb `sync`."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.errors import ChainError, IndexerError
from indexer.jobs.folder_alerts import judging_for_a_folder
from indexer.jobs.many import ALL, many_chains
from indexer.jobs.measuring import Measured, measuring, metrics_options
from indexer.jobs.wanted import Wanted, check
from indexer.jobs.watched import NOBODY, stored
from indexer.jobs.watching import alert_options, alerting, leftover, staffed
from indexer.memory import share_one_heap
from indexer.model import Accounts
from indexer.queries import queries as reading
from indexer.store import liquidations
from indexer.store.store import Store
from indexer.terminal.options import Moment, Session, block_name, chain_options, connected, interruptible, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.scope import block_or_moment
from indexer.text.console import bars, listeners, remark
from indexer.text.values import age, many

if TYPE_CHECKING:
    from indexer.delivery.stream import Receiver
    from indexer.jobs.folder_alerts import Reporter
    from indexer.jobs.watching import Alerting, Desk
    from indexer.model import Block
    from indexer.sync.sync import Outcome, Sync


@click.command(
    epilog="\b\nExamples:\n  indexer sync\n  indexer sync --rpc-url http://127.0.0.1:8545 --protocol aave-v3\n  indexer sync --dry-run"
)
@partial(chain_options, several=True)
@click.option(
    "--accounts",
    type=click.Choice([Accounts.BORROWERS.value, Accounts.ALL.value]),
    default=Accounts.BORROWERS.value,
    show_default=True,
    help="Whom to find: those who can be liquidated, or everyone.",
)
@click.option("--to", default="latest", show_default=True, callback=block_name, metavar="BLOCK", help="Target block.")
@click.option("--follow", is_flag=True, help="Go on, block by block, until interrupted.")
@click.option("--no-history", is_flag=True, help="Leave out old logs where accounts were imported or are numbered.")
@click.option(
    "--supplies",
    is_flag=True,
    help="Then read the supplies that back no debt, which are left for later with --accounts borrowers.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be requested, and do nothing.")
@click.option(
    "--accept-reorg",
    is_flag=True,
    help="Trust the chain where it contradicts finalized blocks, without a second endpoint.",
)
@click.option(
    "--cross-check",
    type=click.IntRange(min=1),
    metavar="N",
    help="Ask a second endpoint about N rows per deployment at each snapshot; contradicted rows become unverified.",
)
@click.option(
    "--refresh-seconds",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="With --follow: how old the digits of a row may grow whose status is proven to hold; 0 for none.  "
    "[default: settings.refresh_seconds, else 600]",
)
@click.option(
    "--every",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="With --follow: a snapshot at most this often.  [default: settings.every_seconds, else at every block, "
    "12 where blocks come faster than one a second]",
)
@click.option(
    "--liquidations",
    is_flag=True,
    help="Then fetch the liquidations from before a deployment was followed; see --since.",
)
@click.option(
    "--prices",
    is_flag=True,
    help="Then bring the history of the prices behind the oracles up to date, 400 days back or --since.",
)
@click.option(
    "--watch", is_flag=True, help="With --follow: also judge the rules of watched wallets, as `watch run` does."
)
@alert_options
@metrics_options
@click.option(
    "--lake",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write positions, balances, markets and months of history as Parquet after snapshots, at most every minute.",
)
@click.option(
    "--lake-prune",
    is_flag=True,
    help="Take months of history out of the database that the lake holds, as far as they are final; once a day.",
)
@click.option(
    "--webhook",
    metavar="URL",
    help="With --follow: POST how the list of who is at risk changes, as --nl prints it; ${NAME} from the environment.",
)
@click.option(
    "--since",
    callback=block_or_moment,
    metavar="BLOCK|DATE|AGE",
    help="With --liquidations or --prices: only from here on. With --nl or --webhook: the block from which to catch up.",
)
@output_options
@session_of
def sync(session: Session, /, output: Output, **given: Any) -> None:
    """Bring the database to a block of the chain.

    It prints no rows, so --json, --output and the like are for the plan that --dry-run prints. But `--follow --nl` prints how
    the list of who is at risk changes, line by line (docs/searcher-stream.md): all of it first, or with --since BLOCK
    what has changed from that block on.
    """
    own = {one.name: given.pop(one.name) for one in fields(Wanted) if one.name in given}
    chains = given["chain"]
    given["chain"] = chains[0] if chains else None
    wanted = Wanted(**own, output=output, flags=given)
    check(wanted)
    if session.folder or len(chains) > 1 or ALL in chains:
        many_chains(session, chains, click.get_current_context().params, streams=wanted.streams)
    elif wanted.dry_run:
        plan(session, wanted)
    else:
        with filling(session, wanted):
            (keep_up if wanted.follow else bring)(session, wanted)


@contextmanager
def filling(session: Session, wanted: Wanted) -> Iterator[None]:
    """Has the lake that --lake names written after snapshots."""
    if wanted.lake is None:
        yield
        return
    from indexer.transfer.lake import PAUSE, Pauses
    from indexer.transfer.pruning import prune

    place = wanted.lake

    def let_go() -> None:
        with Store(session.db) as store:  # the lock is this process's
            gone = prune(store, place)
        if gone.rows:
            remark(f"{session.db}: {gone.told(place)}")

    lake = Pauses(session.db, place, PAUSE if wanted.follow else 0.0, let_go if wanted.lake_prune else None)
    listeners.append(lake.committed)
    try:
        yield
    finally:
        listeners.remove(lake.committed)


def plan(session: Session, wanted: Wanted) -> None:
    """Prints what a sync would request."""
    from indexer.sync.dry_run import expected

    with connected(session, wanted.flags) as (chain, adapters):
        rows = expected(session.db, chain, adapters, Accounts(wanted.accounts), wanted.to)
    wanted.output.write_dicts(rows, list(rows[0]))
    requests, least, most = (sum(row[name] for row in rows) for name in ("log_requests", "at_least", "at_most"))
    remark(f"{requests:,} requests for logs are expected, between {least:,} and {most:,}; nothing was changed")


def keep_up(session: Session, wanted: Wanted) -> None:
    """Follows the chain until interrupted."""
    from indexer.jobs.prices import following

    share_one_heap()
    flags, lines = wanted.flags, wanted.output.lines
    chain_id = session.config.select(flags["chain"], flags["protocols"], flags["deployments"])[0].chain_id
    with interruptible() as interrupted:
        receivers = receivers_of(session, wanted.webhook, stdout=lines)
        alerts = alerting(session, flags) if wanted.watch else None
        if alerts is not None and alerts.places.stdout and lines:
            raise click.UsageError("alerts and --nl cannot share standard output: name --notify or --command")
        block = wanted.since if isinstance(wanted.since, int) else None
        settings: dict[str, Any] = {
            "cross_check": wanted.cross_check,
            "refresh_seconds": wanted.refresh_seconds,
            "every_seconds": wanted.every,
        }
        with (
            suppress(KeyboardInterrupt),
            telling_that_it_is_blind(session, flags, alerts),
            syncing(session, flags, wanted.accounts, **settings) as worker,
            streaming(session, worker, receivers, block) as wake,
            judging(session, flags, worker, alerts) as desk,
            measuring(session, worker, flags) as measured,
        ):
            worker.history = not wanted.no_history
            prices = following(worker) if wanted.prices else None
            tail(session, flags, worker, wanted.to, interrupted, wake, desk, prices, measured)
        remark(stopped(reading.last_block(session.db, chain_id)))


def bring(session: Session, wanted: Wanted) -> None:
    """Takes one snapshot, then what is left for after it."""
    with syncing(
        session, wanted.flags, wanted.accounts, accept_reorg=wanted.accept_reorg, cross_check=wanted.cross_check
    ) as worker:
        started = time.monotonic()
        worker.history, worker.tell = not wanted.no_history, remark
        outcome = worker.snapshot(wanted.to)
        tell_of(worker, outcome, time.time() - outcome.block.timestamp)
        if wanted.supplies and outcome.waiting:
            worker.supplies = None
            outcome = worker.snapshot(wanted.to)
            tell_of(worker, outcome, time.time() - outcome.block.timestamp)
        if wanted.liquidations:
            worker.backfill_liquidations(lambda target: first_block(worker, wanted.since, target), outcome.block)
            known = liquidations.count(worker.store.conn, worker.chain.chain_id)
            remark(f"{many(known, 'log')} of liquidations are known: `indexer liquidations` lists them")
        if wanted.prices:
            from indexer.jobs.prices import fill

            fill(worker, wanted.since, outcome.block)
        remark(f"{time.monotonic() - started:.1f} s")
        if outcome.failed:
            raise IndexerError(
                f"{len(outcome.failed)} of {len(worker.adapters)} deployments stayed behind: {', '.join(outcome.failed)}; "
                "`indexer status` says why"
            )


def first_block(worker: "Sync", since: int | Moment | None, target: "Block") -> int | None:
    """The block that --since means, None for the first of each deployment."""
    from indexer.sync.liquidated import first_block_since

    if isinstance(since, Moment):
        return first_block_since(worker.chain, since.since(target.timestamp), target)
    return since


@contextmanager
def syncing(
    session: Session,
    flags: Mapping[str, Any],
    accounts: str,
    *,
    accept_reorg: bool = False,
    **settings: float | None,
) -> Iterator["Sync"]:
    """Connects to the chain, and opens and locks the database; `settings` that are not None replace the configuration's."""
    from indexer.api.chain import opened_sync

    with bars() as progress, connected(session, flags) as (chain, adapters):
        if settings.get("cross_check") is not None and not chain.others():
            raise click.UsageError(
                f"--cross-check needs a second endpoint of {chain.name}: name one with another --rpc-url"
            )
        given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
        used = replace(session.config.settings, **given)
        wanted = Accounts(accounts)
        with opened_sync(session.db, chain, adapters, wanted, used, progress, accept_reorg=accept_reorg) as worker:
            yield worker


def receivers_of(session: Session, webhook: str | None, *, stdout: bool) -> "list[Receiver]":
    """Where the change stream goes."""
    from indexer.delivery.receivers import Pipe, Webhook

    found: list[Receiver] = [Pipe(sys.stdout.fileno())] if stdout else []
    if webhook is not None:
        found.append(Webhook(session.config.expanded(webhook, "--webhook")))
    return found


@contextmanager
def streaming(
    session: Session, worker: "Sync", receivers: "Sequence[Receiver]", since: int | None
) -> Iterator[Callable[[], None]]:
    """Runs the change stream beside a tail; yields the function that wakes it."""
    if not receivers:
        yield lambda: None
        return
    from indexer.delivery.stream import Stream

    with Stream(session.db, worker.chain.chain_id, receivers, since) as wake:
        yield wake


@contextmanager
def judging(
    session: Session, flags: dict[str, Any], worker: "Sync", alerts: "Alerting | None"
) -> "Iterator[Desk | Reporter | None]":
    """Has the rules of watched wallets judged at each snapshot, and their alerts delivered; nothing without `alerts`."""
    if alerts is None:
        yield None
        return
    if session.watch_path is not None:
        yield judging_for_a_folder(session, worker, alerts.policy, session.watch_path)
        return
    from indexer.alert.prices import rules as price_rules

    with staffed(session, flags, alerts, worker.store) as desk, desk.lookout.watching(desk.couriers.wake):
        if not stored(worker.store) and not price_rules(worker.store.conn):
            remark(f"{NOBODY}; the sync goes on")
        desk.judging(worker)
        yield desk


@contextmanager
def telling_that_it_is_blind(session: Session, flags: dict[str, Any], alerts: "Alerting | None") -> Iterator[None]:
    """Where the node keeps a watch from its first snapshot, its channels get to know before the command ends."""
    from indexer.alert.prices import rules as price_rules

    try:
        yield
    except ChainError as error:
        if alerts is not None and session.watch_path is None and session.db.exists():
            with Store(session.db) as store, store.lock():
                if stored(store) or price_rules(store.conn):
                    with staffed(session, flags, alerts, store) as desk:
                        desk.blind(error)
                        leftover(desk)
        raise


def tail(
    session: Session,
    flags: Mapping[str, Any],
    worker: "Sync",
    to: str,
    interrupted: Callable[[], bool],
    wake: Callable[[], None],
    desk: "Desk | Reporter | None",
    prices: "Callable[[Outcome], None] | None",
    measured: Measured,
) -> None:
    """Takes a snapshot of every new block until interrupted, and calls `wake` after each."""
    from indexer.chain.heads import Heads
    from indexer.sync.follow import follow

    config = session.config
    endpoints = config.endpoints(config.chain(worker.chain.name), flags["rpc_urls"])
    with closing(Heads([endpoint.url for endpoint in endpoints])) as heads:

        def tell(outcome: "Outcome", lag: float) -> None:
            wake()
            if desk is not None:
                desk.look(outcome)
            tell_of(worker, outcome, lag)
            measured.write()
            if prices is not None:
                prices(outcome)

        def failed(error: ChainError) -> None:
            if desk is not None:
                desk.failed(error)
            measured.write()

        measured.follows(heads)
        follow(worker, heads, tell, to=to, until=interrupted, failed=failed)


def tell_of(worker: "Sync", outcome: "Outcome", lag: float) -> None:
    """Says on stderr what a snapshot did, and as numbers to whoever listens."""
    remark(told(worker, outcome, lag))
    for listener in listeners:
        listener(
            {
                "block_number": outcome.block.number,
                "block_timestamp": outcome.block.timestamp,
                "positions": outcome.positions,
                "at_risk": outcome.at_risk,
                "logs": outcome.logs,
                "positions_read": outcome.read,
                "requests": outcome.requests,
                "retries": outcome.retries,
                "failed": sorted(outcome.failed),
            }
        )


def told(worker: "Sync", outcome: "Outcome", lag: float) -> str:
    """One line about a snapshot."""
    waiting = f"; of {many(outcome.waiting, 'position')} the supplies that back no debt are not read yet"
    return (
        f"{worker.chain.name} block {outcome.block.number}: {many(outcome.positions, 'position')}, "
        f"{many(outcome.at_risk, 'wallet')} at risk; {many(outcome.logs, 'log')}, {outcome.read:,} read, "
        f"{many(outcome.requests, 'request')}, {age(lag)} old"
    ) + (waiting if outcome.waiting else "")


def stopped(block: int | None) -> str:
    """The last line of an interrupted `sync --follow`."""
    if block is None:
        return "Stopped before the first snapshot. What was saved stays; the same command goes on from there."
    return f"Stopped. The last snapshot is of block {block}; the same command goes on from there."
