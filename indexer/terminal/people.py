"""Whom a command is about: addresses, ENS names, labels and groups of the watch list, all of them as one person."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from indexer.address import checked_address
from indexer.errors import ChainError, ConfigError
from indexer.store.database import open_readonly
from indexer.terminal.options import F, Session
from indexer.text.console import remark
from indexer.text.values import many

if TYPE_CHECKING:
    from indexer.alert.watches import Watch

#: for everything that is asked about one ENS name, however often and of however many endpoints
RESOLVING_SECONDS = 15.0
WALLETS = "WALLET|ENS|LABEL|@GROUP..."


@dataclass(frozen=True, slots=True)
class Person:
    """Wallets that are summed up together; `given` is how the user named them, each with its addresses."""

    given: Mapping[str, Sequence[str]]

    @property
    def wallets(self) -> list[str]:
        """Their addresses in lower case, each once."""
        return list(dict.fromkeys(address for addresses in self.given.values() for address in addresses))

    @property
    def title(self) -> str:
        names = ", ".join(self.given)
        count = len(self.wallets)
        return (
            f"Wallet {names}" if [*self.given] == self.wallets and count == 1 else f"{names} ({many(count, 'wallet')})"
        )

    def say_who_is_unknown(self, rows: Sequence[Mapping[str, Any]], where: str) -> None:
        """One remark on each wallet that none of these positions is of."""
        known = {str(row[name]).lower() for row in rows for name in ("wallet", "owner", "account")}
        for given, addresses in self.given.items():
            for address in addresses:
                if address not in known:
                    remark(f"{address}{f' ({given})' if given != address else ''} has no position {where}")


def person_option(command: F) -> F:
    """Gives a command --rpc-url for ENS names, where it has none."""
    text = "Mainnet endpoint, to resolve an ENS name that is not on the watch list."
    return click.option("--rpc-url", "rpc_urls", multiple=True, metavar="URL", help=text)(command)


def person(session: Session, given: Sequence[str], rpc_urls: Sequence[str] = (), hint: str = "") -> Person:
    """Who that is. `click.BadParameter`, whose message ends with the hint, for what is no address, name, label or group."""
    found: dict[str, Sequence[str]] = {}
    watched: list[Watch] | None = None
    for text in (one.strip() for one in given):
        try:
            address = checked_address(text)
            found[address] = [address]
        except ValueError as error:
            if text[:2].lower() == "0x":
                raise click.BadParameter(f"{error}{hint}") from error
            watched = on_watch(session) if watched is None else watched
            found[text] = named(session, text, watched, rpc_urls, hint)
    return Person(found)


def on_watch(session: Session) -> "list[Watch]":
    """The watch list; empty before there is a database."""
    from indexer.alert.watches import watches

    if not session.watch_db.exists():
        return []
    with closing(open_readonly(session.watch_db)) as conn:
        return watches(conn)


def named(session: Session, text: str, watched: "Sequence[Watch]", rpc_urls: Sequence[str], hint: str) -> list[str]:
    """The addresses behind a group, a label or an ENS name."""
    from indexer.plugins import did_you_mean

    found = on_list(text, watched)
    if found:
        return found
    if text.startswith("@"):
        groups = {name for watch in watched for name in watch.groups}
        raise click.BadParameter(
            f"no watched wallet is in the group {text}{did_you_mean(text[1:], groups)}"
            f"{'' if groups else '; `indexer watch add WALLET --group NAME` begins one'}"
        )
    if "." in text:
        return [resolved(session, text, rpc_urls)[0]]
    labels = {watch.label for watch in watched if watch.label}
    raise click.BadParameter(
        f"{text!r} is not an address (0x and 40 hex digits), an ENS name, or a label or @group of the watch list"
        f"{did_you_mean(text, labels)}{hint}"
    )


def on_list(text: str, watched: "Sequence[Watch]") -> list[str]:
    """The watched addresses behind a @group, a label or an ENS name; none where the watch list has no such name."""
    if text.startswith("@"):
        return [watch.wallet for watch in watched if text[1:].lower() in watch.groups]
    labelled = [watch.wallet for watch in watched if watch.label == text]
    if labelled or "." not in text:
        return labelled
    names = spellings(text)
    return [watch.wallet for watch in watched if watch.ens is not None and names & {watch.ens, watch.ens.lower()}]


def resolved(session: Session, name: str, rpc_urls: Sequence[str]) -> tuple[str, str]:
    """The address behind an ENS name, and the name in its one spelling."""
    from indexer.chain.connect import connect
    from indexer.chain.ens import normalized, resolve

    name = normalized(name)
    deadline = time.monotonic() + RESOLVING_SECONDS
    try:
        # several endpoints may each need their time before one answers
        chain = connect(
            session.config, session.config.chain("mainnet"), rpc_urls, timeout=RESOLVING_SECONDS / 4, deadline=deadline
        )
    except ChainError as error:
        raise ChainError(f"{name} cannot be resolved: {error}, or give the address") from None
    with chain:
        return resolve(name, chain), name


def spellings(given: str) -> set[str]:
    """How an ENS name that somebody typed may be kept: as it is, and in its one spelling."""
    from indexer.alert.wallets_file import ens_name
    from indexer.chain.ens import normalized

    name = ens_name(given)
    try:
        return {given} if name is None else {name, normalized(name)}
    except ConfigError:
        return {given}
