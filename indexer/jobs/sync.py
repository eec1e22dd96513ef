"""The verb `sync`."""

import gc
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from indexer.console import bars, remark
from indexer.errors import IndexerError
from indexer.jobs.watched import NOBODY, stored
from indexer.jobs.watching import ALERT_FLAGS, alert_options, alerting, staffed
from indexer.model import Accounts
from indexer.queries import queries as reading
from indexer.terminal.options import Moment, Session, block_name, chain_options, connected, interruptible, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.scope import block_or_moment
from indexer.text import age

if TYPE_CHECKING:
    from indexer.delivery.stream import Receiver
    from indexer.jobs.watching import Alerting, Desk
    from indexer.model import Block
    from indexer.sync.sync import Outcome, Sync


@click.command(
    epilog="\b\nExamples:\n  indexer sync\n  indexer sync --rpc-url http://127.0.0.1:8545 --protocol aave-v3\n  indexer sync --dry-run"
)
@chain_options
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
    "--liquidations",
    is_flag=True,
    help="Then fetch the liquidations from before a deployment was followed; see --since.",
)
@click.option(
    "--watch", is_flag=True, help="With --follow: also judge the rules of watched wallets, as `watch run` does."
)
@alert_options
@click.option(
    "--webhook",
    metavar="URL",
    help="With --follow: POST how the list of who is at risk changes, as --nl prints it; ${NAME} from the environment.",
)
@click.option(
    "--since",
    callback=block_or_moment,
    metavar="BLOCK|DATE|AGE",
    help="With --liquidations: only from here on. With --nl or --webhook: the block from which to catch up.",
)
@output_options
@session_of
def sync(
    session: Session,
    /,
    accounts: str,
    to: str,
    follow: bool,
    no_history: bool,
    supplies: bool,
    dry_run: bool,
    accept_reorg: bool,
    cross_check: int | None,
    refresh_seconds: float | None,
    liquidations: bool,
    watch: bool,
    webhook: str | None,
    since: int | Moment | None,
    output: Output,
    **flags: Any,
) -> None:
    """Bring the database to a block of the chain.

    It prints no rows, so --json, --output and the like are for the plan that --dry-run prints. But `--follow --nl` prints how
    the list of who is at risk changes, line by line (docs/searcher-stream.md): all of it first, or with --since BLOCK
    what has changed from that block on.
    """
    streams = follow and (webhook is not None or output.lines)
    if webhook is not None and not follow:
        raise click.UsageError("--webhook is for --follow: it tells what changes from block to block")
    if output.asked and not dry_run and not (follow and output.lines):
        raise click.UsageError(
            "a sync prints no rows, so it takes no --json, --output and the like; with --dry-run they print the plan, "
            "afterwards `indexer export` writes rows"
        )
    if accept_reorg and (follow or dry_run):
        raise click.UsageError("--accept-reorg is for one sync: run it alone, then --follow")
    if watch and not follow:
        raise click.UsageError("--watch is for --follow; `indexer watch check` judges once")
    if not watch and any(flags[name] not in (None, (), False) for name in ALERT_FLAGS):
        raise click.UsageError("--notify, --command, --stdout, --hysteresis and --target are for --follow --watch")
    if since is not None and not liquidations and not streams:
        raise click.UsageError("--since is for --liquidations, and for --follow with --nl or --webhook")
    if streams and isinstance(since, Moment):
        raise click.UsageError("--since of a stream is a block: that of the last line that was read")
    if liquidations and (follow or dry_run):
        raise click.UsageError("--liquidations is for one sync: run it alone, then --follow keeps the table up to date")
    if refresh_seconds is not None and not follow:
        raise click.UsageError("--refresh-seconds is for --follow: one sync brings every row to its block")
    if refresh_seconds is not None and not math.isfinite(refresh_seconds):
        raise click.UsageError(f"--refresh-seconds is a number of seconds such as 600, not {refresh_seconds}")
    if supplies and (follow or dry_run):
        raise click.UsageError("--supplies is for one sync: --follow reads them by itself, --dry-run reads nothing")
    if follow and to.isdecimal():
        raise click.UsageError(f"--follow needs a block that moves on, such as latest or latest:-64, not {to}")
    if dry_run:
        from indexer.sync.dry_run import expected

        with connected(session, flags) as (chain, adapters):
            plan = expected(session.db, chain, adapters, Accounts(accounts), to)
        output.write_dicts(plan, list(plan[0]))
        remark(f"{sum(row['log_requests'] for row in plan):,} requests for logs are expected; nothing was changed")
        return
    if follow:
        chain_id = session.config.select(flags["chain"], flags["protocols"], flags["deployments"])[0].chain_id
        with interruptible() as interrupted:
            receivers = receivers_of(session, webhook, stdout=output.lines)
            alerts = alerting(session, flags) if watch else None
            if alerts is not None and alerts.places.stdout and output.lines:
                raise click.UsageError("alerts and --nl cannot share standard output: name --notify or --command")
            block = since if isinstance(since, int) else None
            with (
                suppress(KeyboardInterrupt),
                syncing(session, flags, accounts, cross_check=cross_check, refresh_seconds=refresh_seconds) as worker,
                streaming(session, worker, receivers, block) as wake,
                judging(session, flags, worker, alerts) as desk,
            ):
                worker.history = not no_history
                tail(session, flags, worker, to, interrupted, wake, desk)
            remark(stopped(reading.last_block(session.db, chain_id)))
        return
    with syncing(session, flags, accounts, accept_reorg=accept_reorg, cross_check=cross_check) as worker:
        started = time.monotonic()
        worker.history, worker.tell = not no_history, remark
        outcome = worker.snapshot(to)
        remark(told(worker, outcome, time.time() - outcome.block.timestamp))
        if supplies and outcome.waiting:
            worker.supplies = None
            outcome = worker.snapshot(to)
            remark(told(worker, outcome, time.time() - outcome.block.timestamp))
        if liquidations:
            worker.backfill_liquidations(lambda target: first_block(worker, since, target), outcome.block)
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


#: new objects between two searches for cycles
GC_OBJECTS = 50_000


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
    from indexer.chain.connect import require_contracts
    from indexer.store.store import Store
    from indexer.sync.sync import Sync

    # Rows by the hundred thousand and hardly a cycle among them: looking for one at each 700th object took a tenth of a sync.
    gc.set_threshold(GC_OBJECTS)
    with bars() as progress, connected(session, flags) as (chain, adapters):
        if settings.get("cross_check") is not None and not chain.others():
            raise click.UsageError(
                f"--cross-check needs a second endpoint of {chain.name}: name one with another --rpc-url"
            )
        progress.start("connecting", 1, "nodes")
        require_contracts(chain, adapters, reading.known_deployments(session.db))
        progress.done("connecting")
        with Store(session.db) as store, store.lock():
            given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
            used = replace(session.config.settings, **given)
            yield Sync(store, chain, adapters, Accounts(accounts), used, progress, accept_reorg=accept_reorg)


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
) -> Iterator["Desk | None"]:
    """Has the rules of watched wallets judged at each snapshot, and their alerts delivered; nothing without `alerts`."""
    if alerts is None:
        yield None
        return
    from indexer.alert.prices import rules as price_rules

    with staffed(session, flags, alerts, worker.store) as desk, desk.lookout.watching(desk.couriers.wake):
        if not stored(worker.store) and not price_rules(worker.store.conn):
            remark(f"{NOBODY}; the sync goes on")
        desk.judging(worker)
        yield desk


def tail(
    session: Session,
    flags: Mapping[str, Any],
    worker: "Sync",
    to: str,
    interrupted: Callable[[], bool],
    wake: Callable[[], None],
    desk: "Desk | None",
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
            remark(told(worker, outcome, lag))

        failed = desk.failed if desk is not None else lambda _: None
        follow(worker, heads, tell, to=to, until=interrupted, failed=failed)


def told(worker: "Sync", outcome: "Outcome", lag: float) -> str:
    """One line about a snapshot."""
    waiting = f"; of {outcome.waiting:,} positions the supplies that back no debt are not read yet"
    return (
        f"{worker.chain.name} block {outcome.block.number}: {outcome.positions:,} positions, {outcome.at_risk:,} wallets "
        f"at risk; {outcome.logs:,} logs, {outcome.read:,} read, {outcome.requests:,} requests, {age(lag)} old"
    ) + (waiting if outcome.waiting else "")


def stopped(block: int | None) -> str:
    """The last line of an interrupted `sync --follow`."""
    if block is None:
        return "Stopped before the first snapshot. What was saved stays; the same command goes on from there."
    return f"Stopped. The last snapshot is of block {block}; the same command goes on from there."
