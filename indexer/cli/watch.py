"""The verbs of `indexer watch`: who is watched, and telling when one comes near liquidation."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from indexer.address import checked_address
from indexer.cli.options import Number, Session, chain_options, connected, interruptible, session_of
from indexer.cli.output import Output, output_options
from indexer.console import remark
from indexer.errors import ConfigError, IndexerError
from indexer.model import Accounts
from indexer.store.store import Store
from indexer.text import age

if TYPE_CHECKING:
    from indexer.alert.delivery import Dispatch
    from indexer.alert.places import Places
    from indexer.alert.watcher import Watcher
    from indexer.alert.watches import Watch
    from indexer.chain.client import Chain
    from indexer.sync.sync import Outcome, Sync

F = TypeVar("F", bound=Callable[..., Any])

NOBODY = "no wallet is watched: `indexer watch add WALLET` begins"


@click.group(
    invoke_without_command=True,
    epilog="\b\nExample:\n  indexer watch add 0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503 --below 1.2\n  indexer watch run",
)
@click.pass_context
def watch(ctx: click.Context) -> None:
    """Watch wallets and tell when one comes near liquidation.

    A rule tells once, and again only after the health factor has recovered beyond a margin (hysteresis); the recovery
    is told too. A wallet without rules of its own has those of the configuration: below 1.1. Besides, every wallet is
    told of when the contract itself allows its liquidation, and when its health is unknown.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@watch.command(
    epilog="\b\nExamples:\n  indexer watch add 0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503 --label treasury --below 1.2 --below 1.05"
    "\n  indexer watch add vitalik.eth --drop 10%"
)
@click.argument("wallet", metavar="WALLET|ENS")
@click.option("--label", metavar="TEXT", help="What alerts call it.")
@click.option("--below", "thresholds", multiple=True, metavar="HF", help="Tell below this health factor; repeatable.")
@click.option("--drop", "falls", multiple=True, metavar="P%", help="Tell when it fell by that much; repeatable.")
@click.option("--rpc-url", "rpc_urls", multiple=True, metavar="URL", help="Mainnet endpoint, to resolve an ENS name.")
@session_of
def add(
    session: Session,
    wallet: str,
    label: str | None,
    thresholds: Sequence[str],
    falls: Sequence[str],
    rpc_urls: Sequence[str],
) -> None:
    """Watch a wallet, or change its label or rules.

    A fall is measured from the highest health factor since the last alert of that rule, or since the watch began.
    """
    from indexer.alert.wallets_file import rules_of
    from indexer.alert.watches import Watch, checked_label
    from indexer.alert.watches import add as add_watches

    try:
        rules = rules_of(thresholds, falls)
        label = checked_label(label) if label else None
        name = None if wallet[:2].lower() == "0x" or "." not in wallet else wallet
        address = checked_address(wallet) if name is None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if address is None:
        address = resolved(session, wallet, rpc_urls)
    with Store(session.db) as store:
        _, changed = add_watches(store, [Watch(address, label, name, rules)])
        (found,) = (w for w in stored(store) if w.wallet == address)
    told = ", ".join(map(str, found.rules)) or f"the default rules ({default_rules(session)})"
    remark(f"{address}{f' ({name})' if name else ''} is {'still' if changed else 'now'} watched: {told}")


def resolved(session: Session, name: str, rpc_urls: Sequence[str]) -> str:
    """The address behind an ENS name."""
    from indexer.chain.ens import resolve

    mainnet = session.config.chain("mainnet")
    endpoints = session.config.endpoints(mainnet, rpc_urls)
    return resolve(name, [endpoint.url for endpoint in endpoints], mainnet.chain_id)


def stored(store: Store) -> "list[Watch]":
    from indexer.alert.watches import watches

    return watches(store.conn)


def default_rules(session: Session) -> str:
    from indexer.alert.watches import Policy

    return ", ".join(map(str, Policy.of(session.config.alerts).rules))


LIST_TABLE = "wallet label rules deployment position_group health_factor status open".split()


@watch.command("list", epilog="\b\nExample:\n  indexer watch list --json")
@output_options
@session_of
def list_(session: Session, output: Output) -> None:
    """List the watched wallets with what the last snapshot says of their positions."""
    rows = []
    if session.db.exists():
        from indexer.alert.queue import refused
        from indexer.alert.watches import listing

        with Store(session.db) as store:
            rows = listing(store.conn, default_rules(session))
            for line in refused(store.conn):
                remark(line)
    if not rows:
        remark(NOBODY)
    output.write_dicts(rows, LIST_TABLE)


@watch.command(epilog="\b\nExample:\n  indexer watch remove 0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503")
@click.argument("wallets", nargs=-1, required=True, metavar="WALLET|ENS|LABEL...")
@session_of
def remove(session: Session, wallets: Sequence[str]) -> None:
    """Watch wallets no longer."""
    from indexer.alert.watches import remove as remove_watches

    if not session.db.exists():
        raise IndexerError(NOBODY)
    with Store(session.db) as store:
        known = stored(store)
        found = []
        for given in wallets:
            named = [w.wallet for w in known if given in (w.ens, w.label)]
            if len(named) > 1:
                raise click.UsageError(f"{len(named)} wallets are labelled {given}; name the address")
            try:
                found.append(named[0] if named else checked_address(given))
            except ValueError as error:
                raise click.BadParameter(str(error)) from error
        remove_watches(store, found)
    remark(f"{len(found)} no longer watched")


@watch.command("import", epilog="\b\nExamples:\n  indexer watch import wallets.csv\n  indexer watch import wallets.txt")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@session_of
def import_(session: Session, file: Path) -> None:
    """Watch every wallet of a file: CSV, JSON, or one address a line.

    CSV has a header with wallet and perhaps label, below and drop (several values separated by blanks); JSON is a list
    of addresses or of objects with these keys. Nothing is changed if anything in it is wrong.
    """
    from indexer.alert.wallets_file import load_watches
    from indexer.alert.watches import add as add_watches

    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as text in UTF-8 ({error})") from error
    found = load_watches(file, text)
    with Store(session.db) as store:
        added, changed = add_watches(store, found)
    remark(f"{added} wallets are now watched, {changed} were already")


# telling --------------------------------------------------------------------------------------------------------------


def alert_options(command: F) -> F:
    """Where alerts go, and their margin; each outweighs [alerts] of the configuration."""
    flags = [
        click.option("--notify", "urls", multiple=True, metavar="URL", help="Any URL of apprise; repeatable."),
        click.option("--command", metavar="'PROG {wallet}'", help="Run this; the alert is JSON on its standard input."),
        click.option("--stdout", is_flag=True, help="JSON lines on standard output, the default without a channel."),
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


@contextmanager
def watching(session: Session, flags: dict[str, Any]) -> "Iterator[tuple[Chain, Store, Sync, Watcher, Dispatch]]":
    """Everything that watches: the chain, the store under its lock, the sync with its watcher, the couriers at work."""
    from indexer.alert.delivery import Dispatch
    from indexer.alert.queue import waiting
    from indexer.alert.watcher import Watcher
    from indexer.alert.watches import Policy
    from indexer.settings import Alerts
    from indexer.sync.sync import Sync

    config = session.config
    alerts = config.alerts
    places = chosen(session, flags)
    channels = places.channels()
    policy = Policy.of(
        Alerts(
            below=alerts.below,
            drop_percent=alerts.drop_percent,
            hysteresis_percent=alerts.hysteresis_percent if flags["hysteresis"] is None else flags["hysteresis"],
            target=alerts.target if flags["target"] is None else flags["target"],
        )
    )
    if not session.db.exists():
        raise IndexerError(NOBODY)
    with Store(session.db) as store:
        if not stored(store):
            raise IndexerError(NOBODY)
        chain_ids = [row[0] for row in store.conn.execute("select distinct chain_id from deployments")]
        if flags["chain"] is None and not flags["deployments"] and len(chain_ids) == 1:
            flags["chain"] = config.chain_name(chain_ids[0])  # the one that is in the database already
        with connected(session, flags) as (chain, adapters), store.lock():
            keys = {channel.key for channel in channels}
            for key, place, count, _ in waiting(store.conn):
                if key not in keys:
                    remark(f"{count} alerts wait for {place}, which is not among the channels now")
            sync = Sync(store, chain, adapters, Accounts.WATCHED, config.settings)
            watcher = Watcher(chain.name, policy, channels, config.chain(chain.name).explorer)
            sync.committer.planners.append(watcher.plan)
            options = click.get_current_context().find_root().params
            with Dispatch(session.db, places, alerts.expire_hours * 3600, options) as couriers:
                yield chain, store, sync, watcher, couriers


def chosen(session: Session, flags: dict[str, Any]) -> "Places":
    """The channels of the flags, else those of the configuration, else standard output."""
    from indexer.alert.places import Places

    config = session.config
    urls, command, stdout = flags["urls"], flags["command"], flags["stdout"]
    if not urls and command is None and not stdout:
        alerts, source = config.alerts, f"{config.path}: alerts.urls"
        urls = [config.expanded(url, source) for url in alerts.urls]
        command, stdout = alerts.command, alerts.stdout
    return Places(tuple(dict.fromkeys(urls)), command, stdout or not (urls or command is not None))


def told(watcher: "Watcher", outcome: "Outcome", chain: str) -> str:
    """One line on a snapshot."""
    from indexer.alert.message import factor

    worst = "" if watcher.worst is None else f", lowest health factor {factor(watcher.worst)}"
    return (
        f"{chain} block {outcome.block.number}: {watcher.positions} watched positions{worst}; {watcher.queued} alerts, "
        f"{outcome.requests} requests, {age(max(time.time() - outcome.block.timestamp, 0))} old"
    )


@watch.command(
    epilog="\b\nExamples:\n  indexer watch check\n  indexer watch check --notify mailto://user:password@example.org --exit-code"
)
@alert_options
@click.option("--exit-code", is_flag=True, help="Exit with 3 if any rule is crossed and has not recovered.")
@chain_options
@session_of
def check(session: Session, /, exit_code: bool, **flags: Any) -> None:
    """Look once, tell what is to be told, and end; made for cron.

    Works on an empty database for the watched wallets alone. Exit codes: 0 if every deployment was read and every
    alert delivered, 1 if not (what waits is delivered by the next check or run), 3 with --exit-code if all went well
    and a rule is crossed.
    """
    from indexer.alert.queue import refused, waiting
    from indexer.alert.watches import open_crossings

    with watching(session, flags) as (chain, store, sync, watcher, couriers):
        outcome = sync.snapshot()
        delivered = couriers.settle()
        remark(told(watcher, outcome, chain.name))
        if not delivered:
            waits = "; ".join(
                f"{count} for {place}{f' ({error})' if error else ''}" for _, place, count, error in waiting(store.conn)
            )
            if not waits:
                raise IndexerError(f"alerts were refused: {'; '.join(refused(store.conn))}")
            raise IndexerError(f"alerts wait to be delivered: {waits}; the next check or run tries again")
        if outcome.failed:
            raise IndexerError(f"not read: {'; '.join(f'{name}: {why}' for name, why in outcome.failed.items())}")
        crossed = open_crossings(store.conn, chain.chain_id)
    if exit_code and crossed:
        raise SystemExit(3)


@watch.command(
    epilog="\b\nExamples:\n  indexer watch run\n  indexer watch run --chain mainnet --notify tgram://TOKEN/CHAT --command 'alarm {wallet}'"
)
@alert_options
@chain_options
@session_of
def run(session: Session, /, **flags: Any) -> None:
    """Follow the chain and tell, block by block, until interrupted.

    Works on an empty database for the watched wallets alone, in as many requests each block; where everyone is synced
    already, it goes on syncing everyone. `watch add` and `watch remove` may be used meanwhile.
    """
    from indexer.chain.heads import Heads
    from indexer.store.queries import last_block
    from indexer.sync.follow import follow

    config = session.config
    block = None
    with interruptible() as interrupted:
        with suppress(KeyboardInterrupt), watching(session, flags) as (chain, _, sync, watcher, couriers):
            heads = Heads([endpoint.url for endpoint in config.endpoints(config.chain(chain.name), flags["rpc_urls"])])

            def tell(outcome: "Outcome", _lag: float) -> None:
                couriers.wake()
                remark(told(watcher, outcome, chain.name))

            with closing(heads):
                with suppress(KeyboardInterrupt):
                    follow(sync, heads, tell, until=lambda: interrupted() or couriers.gone)
                if couriers.gone:
                    raise IndexerError("nobody reads standard output any more; alerts wait for the next run")
                block = last_block(session.db, chain.chain_id)
        remark("Stopped." if block is None else f"Stopped. The last snapshot is of block {block}.")
