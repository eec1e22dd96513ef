"""The flags of every command that lists rows: which chain, deployments, protocols and wallets, since when, how many."""

import functools
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import click

from indexer.errors import ConfigError
from indexer.queries.scope import Order, Scope, Span, newest
from indexer.terminal.options import Moment, Number, Session, moment, wallet_address

P = ParamSpec("P")
R = TypeVar("R")
#: the largest integer of SQLite
LAST = 2**63 - 1
#: digits of a block number that somebody may mean
LONGEST = 80
#: columns of whoever a row belongs to
WHOSE = ("wallet", "owner", "account")


def block_or_moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | Moment | None:
    """A block number, or the moment of a date or an age."""
    if value is None:
        return None
    return min(int(value), LAST) if value.isdecimal() and len(value) < LONGEST else moment(value)


def addresses(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[str]:
    """Addresses as `wallet_address` takes one."""
    return [wallet_address(context, parameter, value) for value in values]


def order(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Order | None:
    """A column, with :asc or :desc behind it or not."""
    if value is None:
        return None
    column, _, way = value.partition(":")
    if way not in ("", "asc", "desc"):
        raise click.BadParameter(f"{value!r} does not say how to sort: COLUMN, COLUMN:asc or COLUMN:desc")
    return Order(column, ascending=way == "asc")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the flags say; `scope` and `span` need the data, as an age counts back from its last block."""

    chain: str | None = None
    deployments: Sequence[str] = ()
    protocols: Sequence[str] = ()
    wallets: Sequence[str] = ()
    since: int | Moment | None = None
    until: int | Moment | None = None
    min_debt: float | None = None
    order: Order | None = None
    limit: int | None = None

    def scope(self, session: Session, conn: sqlite3.Connection) -> Scope:
        """What is asked of a file. Raises `ConfigError` where it cannot be told whose blocks are meant."""
        chain_id = session.chain_id(conn, self.chain)
        return Scope(
            chain_id=chain_id,
            deployments=self.deployments,
            wallets=self.wallets,
            span=self.span(conn, chain_id),
            order=self.order,
            limit=self.limit,
        )

    def picked(
        self, session: Session, conn: sqlite3.Connection, rows: Iterable[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """Those of the positions' rows that are asked for."""
        scope = self.scope(session, conn)
        return [row for row in rows if self.keeps(row, scope.chain_id) and scope.span.holds(row)]

    def keeps(self, row: Mapping[str, Any], chain_id: int | None = None) -> bool:
        """Whether a position's row is asked for; with an unknown debt, it may be."""
        debt = row["debt_usd"]
        return (
            self.of_place(row, chain_id)
            and (not self.wallets or any(str(row.get(name)).lower() in self.wallets for name in WHOSE))
            and (self.min_debt is None or debt is None or debt >= self.min_debt)
        )

    def of_place(self, row: Mapping[str, Any], chain_id: int | None = None) -> bool:
        """Whether a row is of the chain, and of the deployments and protocols that are asked for."""
        return (
            (chain_id is None or row["chain_id"] == chain_id)
            and (not self.deployments or row["deployment"] in self.deployments)
            and (not self.protocols or row["protocol"] in self.protocols)
        )

    def span(self, conn: sqlite3.Connection, chain_id: int | None, default: Moment | None = None) -> Span:
        """From when to when; `default` where no --since was given."""
        last, chains = newest(conn, chain_id)
        since, until = default if self.since is None else self.since, self.until
        if chains > 1 and (isinstance(since, int) or isinstance(until, int)):
            raise ConfigError("several chains are synced: say whose blocks these are with --chain, or give dates")
        return Span(
            since_block=since if isinstance(since, int) else None,
            since=since.since(last) if isinstance(since, Moment) else None,
            until_block=until if isinstance(until, int) else None,
            until=until.before(last) if isinstance(until, Moment) else None,
        )


def list_flags(
    sort: str, since: str, limit: int | None, what: str
) -> dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """The flags of every list, by the names that `Asked` has for them."""
    metavar = "BLOCK|DATE|AGE"
    return {
        "chain": click.option("--chain", metavar="NAME", help="Only this chain."),
        "deployments": click.option(
            "--deployment", "deployments", multiple=True, metavar="D", help="Only this one; repeatable."
        ),
        "protocols": click.option(
            "--protocol", "protocols", multiple=True, metavar="P", help="Only this protocol; repeatable."
        ),
        "wallets": click.option(
            "--wallet",
            "wallets",
            multiple=True,
            callback=addresses,
            metavar="ADDRESS",
            help="Only this one; repeatable.",
        ),
        "min_debt": click.option(
            "--min-debt", type=Number(min=0), metavar="USD", help="At least this debt; unknown debts are kept."
        ),
        "since": click.option(
            "--since", callback=block_or_moment, metavar=metavar, help=f"{what} from here on  [default: {since}]"
        ),
        "until": click.option(
            "--until", callback=block_or_moment, metavar=metavar, help="Up to here  [default: the last block]"
        ),
        "order": click.option(
            "--sort",
            "order",
            callback=order,
            metavar="COLUMN[:asc]",
            help=f"By this column, the largest first  [default: {sort}]",
        ),
        "limit": click.option(
            "--limit",
            type=click.IntRange(1, 1_000_000),
            default=limit,
            show_default=limit is not None,
            metavar="N",
            help="At most so many rows.",
        ),
    }


def list_options(
    *,
    sort: str = "the largest debt first",
    since: str = "all",
    limit: int | None = None,
    what: str = "Rows of blocks",
    without: Collection[str] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Gives a command that lists rows its flags, as one `asked: Asked`; the texts say its defaults.

    `without` names those that its rows have no column for.
    """
    flags = list_flags(sort, since, limit, what)

    def decorate(command: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(command)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            given: dict[str, Any] = {name: kwargs.pop(name) for name in Asked.__dataclass_fields__ if name in kwargs}
            kwargs["asked"] = Asked(**given)
            return command(*args, **kwargs)

        for name, flag in reversed(flags.items()):
            if name not in without:
                flag(wrapped)
        return wrapped

    return decorate
