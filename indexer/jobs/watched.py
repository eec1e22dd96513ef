"""The verbs of `indexer watch` for the list of watched wallets: add, list, remove, import."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

import click

from indexer.address import checked_address
from indexer.errors import ChainError, ConfigError, IndexerError
from indexer.store.store import Store
from indexer.terminal.freshness import say
from indexer.terminal.options import Session, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.people import resolved, spellings
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import remark
from indexer.text.values import many

if TYPE_CHECKING:
    from indexer.alert.watches import Watch

NOBODY = "no wallet is watched yet: add one with `indexer watch add WALLET`"


@click.command(
    epilog="\b\nExamples:\n  indexer watch add 0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503 \\"
    "\n    --label treasury --below 1.2 --below 1.05"
    "\n  indexer watch add vitalik.eth --drop 10%"
    "\n  indexer watch add --price 'ETH<2000' --price 'WBTC>150000'"
)
@click.argument("wallet", required=False, metavar="[WALLET|ENS]")
@click.option("--label", metavar="TEXT", help="The name that alerts use.")
@click.option("--below", "thresholds", multiple=True, metavar="HF", help="Alert below this health factor; repeatable.")
@click.option("--drop", "falls", multiple=True, metavar="P%", help="Alert when it has fallen by that much; repeatable.")
@click.option(
    "--chance",
    "chances",
    multiple=True,
    metavar="P%/T",
    help="Alert when it is this likely to fail within that time (20%/1d); repeatable.",
)
@click.option(
    "--oracle", is_flag=True, help="Alert when the oracle of one of its prices is stale, capped or off its peg."
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="'ETH<2000'",
    help="Alert when a price crosses this many USD; repeatable.",
)
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Whose wallet it is: @NAME means all of them.")
@click.option("--rpc-url", "rpc_urls", multiple=True, metavar="URL", help="Mainnet endpoint, to resolve an ENS name.")
@session_of
def add(
    session: Session,
    wallet: str | None,
    label: str | None,
    thresholds: Sequence[str],
    falls: Sequence[str],
    chances: Sequence[str],
    oracle: bool,
    prices: Sequence[str],
    groups: Sequence[str],
    rpc_urls: Sequence[str],
) -> None:
    """Watch a wallet, or change its label, groups or rules.

    A chance is that of `indexer forecast`: that the position, left alone, becomes liquidatable within the time. It needs
    `sync --prices` now and then, and is judged every 10 minutes, or once a price has moved by 1 %.

    An oracle is judged as the last `sync --prices` saw it, or the one that goes on with `sync --follow --prices`: overdue or stale
    by the heartbeat that its own rounds tell, capped, or off its peg. Only those count that the position's health hangs on.

    A fall is measured from the highest health factor since the last alert of that rule, or since the watch began. A
    price is that of the deployments' own oracles, on every chain that is watched; it needs no wallet.
    """
    if wallet is None and (not prices or label or thresholds or falls or chances or oracle or groups):
        raise click.UsageError("say which wallet to watch; only --price needs none")
    from indexer.alert import prices as pricing
    from indexer.alert.wallets_file import PREFIX, ens_name, groups_of, rules_of
    from indexer.alert.watches import Watch, checked_label
    from indexer.alert.watches import add as add_watches

    try:
        priced = [pricing.parse(text) for text in prices]
        rules = rules_of(thresholds, falls, chances, oracle=oracle)
        label = checked_label(label) if label else None
        names = groups_of(groups)
        name = ens_name(wallet or "")
        address = checked_address(PREFIX.sub("", wallet.strip())) if name is None and wallet is not None else ""
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if name is not None:
        address, name = resolved(session, name, rpc_urls)
    with Store(session.made_watch_db()) as store:
        with store.transaction():
            pricing.add(store, priced)
            _, changed = add_watches(store, [] if wallet is None else [Watch(address, label, name, rules, names)])
        if priced:
            remark(f"{', '.join(map(str, priced))} is watched on every chain that `watch run` or `watch check` follows")
        if wallet is None:
            return
        (found,) = (w for w in stored(store) if w.wallet == address)
    told = ", ".join(map(str, found.rules)) or f"the default rules ({default_rules(session)})"
    remark(f"{address}{f' ({name})' if name else ''} is {'still' if changed else 'now'} watched: {told}")


def warn_of_moved_names(session: Session, known: "Sequence[Watch]") -> None:
    """Looks up again the names by which wallets were added, and warns about those that point elsewhere now."""
    for watch in known:
        if watch.ens is None:
            continue
        try:
            address, _ = resolved(session, watch.ens, ())
        except ConfigError as error:
            remark(f"warning: {watch.wallet} was added as {watch.ens}, but: {error}; {watch.wallet} is still watched")
        except ChainError as error:
            remark(f"warning: ENS names were not looked up again: {error}")
            return
        else:
            if address != watch.wallet:
                remark(
                    f"warning: {watch.ens} points to {address} now; {watch.wallet} is still watched, "
                    f"`indexer watch add {watch.ens}` adds the other"
                )


def stored(store: Store) -> "list[Watch]":
    from indexer.alert.watches import watches

    return watches(store.conn)


def default_rules(session: Session) -> str:
    from indexer.alert.watches import Policy

    return ", ".join(map(str, Policy.of(session.config.alerts).rules))


LIST_TABLE = "wallet label status health_factor deployment rules groups position_group open".split()


PRICE_TABLE = "rule chain price_usd open crossing block_number".split()


@click.command(
    "list",
    short_help="List the watched wallets with their positions, or prices.",
    epilog="\b\nExamples:\n  indexer watch list --json\n  indexer watch list --prices",
)
@click.option("--prices", is_flag=True, help="The price rules instead, with the price that decided last.")
@list_options(sort="by wallet")
@output_options
@session_of
def list_(session: Session, prices: bool, asked: Asked, output: Output) -> None:
    """List the watched wallets and their positions as of the last snapshot."""
    rows: list[Mapping[str, Any]] = []
    priced: list[Mapping[str, Any]] = []
    watched = 0
    if session.watch_db.exists():
        from indexer.alert.tables import judged_price_rules
        from indexer.alert.watches import listing
        from indexer.delivery.queue import refused

        with listed(session) as conn:
            everything = listing(conn, default_rules(session))
            scope, watched = asked.scope(session, conn), len(everything)
            if everything:
                rows = scope.arranged(asked.picked(session, conn, everything), [*everything[0]])
            priced = [rule for rule in judged_price_rules(conn) if scope.chain_id in (None, rule["chain_id"])]
            for line in refused(conn):
                remark(line)
            if output.table:
                say(conn)
    if prices:
        if not priced:
            remark("no price is watched: `indexer watch add --price 'ETH<2000'` begins")
        output.write_dicts(priced, PRICE_TABLE)
        return
    if not rows:
        remark("the flags leave out everyone who is watched" if watched else NOBODY)
    if priced:
        remark(f"{many(len(priced), 'price rule')}: --prices lists {'it' if len(priced) == 1 else 'them'}")
    output.write_dicts(rows, LIST_TABLE)


@contextmanager
def listed(session: Session) -> Iterator[Connection]:
    """The database of the watch list and what it holds about those on it, or all of a folder."""
    if not session.folder:
        with Store(session.db) as store:
            yield store.conn
        return
    from indexer.alert.watches import watches
    from indexer.store.shards import lay_positions_of

    with session.opened() as conn:
        lay_positions_of(conn, [watch.wallet for watch in watches(conn)])
        yield conn


@click.command(epilog="\b\nExample:\n  indexer watch remove 0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503")
@click.argument("wallets", nargs=-1, required=True, metavar="WALLET|ENS|LABEL|'ETH<2000'...")
@session_of
def remove(session: Session, wallets: Sequence[str]) -> None:
    """Stop watching wallets or prices."""
    from indexer.alert import prices as pricing
    from indexer.alert.watches import remove as remove_watches

    if not session.watch_db.exists():
        raise IndexerError(NOBODY)
    with Store(session.watch_db) as store:
        known = stored(store)
        found, priced = [], []
        for given in wallets:
            if "<" in given or ">" in given:
                try:
                    priced.append(pricing.parse(given))
                except ValueError as error:
                    raise click.BadParameter(str(error)) from error
                continue
            names = spellings(given)
            named = [
                w.wallet for w in known if w.label == given or (w.ens is not None and names & {w.ens, w.ens.lower()})
            ]
            if len(named) > 1:
                raise click.UsageError(f"{len(named)} wallets are labelled {given}; name the address")
            try:
                found.append(named[0] if named else checked_address(given.strip()))
            except ValueError as error:
                raise click.BadParameter(f"{error}, and no watched wallet has that label or name") from error
        with store.transaction():
            remove_watches(store, found)
            pricing.remove(store, priced)
    for wallet in found:
        was = next((w for w in known if w.wallet == wallet), None)
        label = f" ({was.label})" if was is not None and was.label else ""
        remark(f"{wallet}{label} is no longer watched" if was is not None else f"{wallet} was not watched")
    for price in priced:
        remark(f"{price} is no longer watched")


@click.command(
    "import",
    short_help="Watch every wallet in a file: CSV, JSON, plain text.",
    epilog="\b\nExamples:\n  indexer watch import wallets.csv\n  indexer watch import wallets.txt",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rpc-url", "rpc_urls", multiple=True, metavar="URL", help="Mainnet endpoint, to resolve ENS names.")
@session_of
def import_(session: Session, file: Path, rpc_urls: Sequence[str]) -> None:
    """Watch every wallet in a file: CSV, a Safe's address book, JSON, or one wallet per line, by address or ENS name.

    CSV has a header with wallet (or address) and perhaps label (or name), below and drop (several values separated by
    blanks) and group, or no header: wallet, then label. JSON is a list of addresses or of objects with these keys. Nothing is
    changed if anything in it is wrong.
    """
    from indexer.alert.wallets_file import LARGEST_FILE, load_watches
    from indexer.alert.watches import add as add_watches

    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    found = load_watches(file, data, lambda name: resolved(session, name, rpc_urls))
    with Store(session.made_watch_db()) as store:
        added, changed = add_watches(store, found)
    remark(f"{many(added, 'wallet')} added to the watch list, {changed:,} already on it")
