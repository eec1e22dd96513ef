"""What the verbs share: the global options and groups of flags.

Here, and in the modules of the verbs, functions import what is slow to import: --help and completion load every verb, and
a verb that reads the database needs neither a node nor the adapters.
"""

import math
import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from indexer.address import checked_address
from indexer.boundary.files import require_own
from indexer.errors import ConfigError
from indexer.queries import known
from indexer.store.database import BUSY_TIMEOUT_MS, open_readonly
from indexer.store.shards import each
from indexer.text.console import remark
from indexer.text.values import iso

if TYPE_CHECKING:
    from indexer.adapter import AnyAdapter
    from indexer.chain.client import Chain
    from indexer.config import Config
    from indexer.model import Deployment

F = TypeVar("F", bound=Callable[..., Any])
AGO = re.compile(r"(\d{1,9})\s*(h|d|w)")
UNITS = {"h": "hours", "d": "days", "w": "weeks"}


@dataclass
class Session:
    """The global options; the configuration is loaded by the commands that need it."""

    config_path: Path | None
    db_path: Path
    db_named: bool = True
    #: whether `db_path` is a folder with a file for each chain
    folder: bool = False
    #: the file of watched wallets, where this process syncs one chain of a folder
    watch_path: Path | None = None

    @cached_property
    def db(self) -> Path:
        """The database; unless the user named it, it and SQLite's files beside it must be the user's own."""
        if not self.db_named:
            for ending in ("", "-wal", "-journal", "-shm"):
                require_own(self.db_path.with_name(self.db_path.name + ending), f"--db {self.db_path}")
        return self.db_path

    @cached_property
    def config(self) -> "Config":
        from indexer.config import load

        return load(self.config_path, os.environ)

    def deployments(self, conn: sqlite3.Connection) -> "Mapping[str, Deployment]":
        """What the database says of its deployments, and the configuration of those of which it says nothing."""
        from indexer.store.deployments import described

        return described(conn, lambda: self.config.deployments)

    def chain_id(self, conn: sqlite3.Connection, chain: str | None) -> int | None:
        """The id of a chain that the database or the configuration names. Raises `ConfigError` for an unknown one."""
        from indexer.store.deployments import chain_id_of

        if chain is None:
            return None
        return chain_id_of(conn, chain, {name: found.chain_id for name, found in self.config.chains.items()})

    def chain_name(self, chain_id: int) -> str:
        """The configured name of a chain, else its id."""
        return self.config.chain_name(chain_id)

    @contextmanager
    def read(
        self, *, for_people: bool = False, exact: bool = False, below: float | None = None
    ) -> Iterator[sqlite3.Connection]:
        """Opens the database for reading; where nothing is synced yet, a line says what to do.

        `for_people` prints lines on stderr at the end about the block and the age of the rows; other formats have columns.
        With `exact`, or with a `below` above the limit to which a following sync keeps rows current, every row is of its
        deployment's block.
        """
        from indexer.terminal.freshness import say

        with self.opened() as conn:
            if not known.synced(conn):
                remark(f"{self.db} {unsynced(conn)}")
            if exact or below is not None:
                self._lay_exact_rows(conn, None if exact else below)
            yield conn
            if for_people:
                say(conn)

    @contextmanager
    def opened(self, busy_ms: int = BUSY_TIMEOUT_MS) -> Iterator[sqlite3.Connection]:
        """Opens the database, or all of a folder as `store.shards` has them; no statement sees what a sync commits later.

        It waits `busy_ms` for a file that is locked.
        """
        if self.folder:
            from indexer.store.shards import opened

            with opened(self.db, busy_ms) as conn:
                yield conn
            return
        with closing(open_readonly(self.db, busy_ms=busy_ms)) as conn:
            conn.execute("begin")
            yield conn

    def of_chain(self, chain: str) -> "Session":
        """The same with the file of one chain in the folder. Raises `ConfigError` without a folder or such a file."""
        if not self.folder:
            raise ConfigError("--chain chooses a file of a folder: name one with --db DIR/")
        self.config.chain(chain)
        path = self.db / f"{chain}.db"
        if not path.exists():
            raise ConfigError(
                f"{self.db} has no file {path.name}: `indexer --db {self.db}/ sync --chain {chain}` makes it"
            )
        return Session(self.config_path, path, self.db_named)

    def require_one_file(self, verb: str) -> None:
        """Raises `UsageError` where a folder is open and the verb works on one chain and its file."""
        if self.folder:
            raise click.UsageError(f"{verb} is for one chain and its file: name it with --db {self.db}/CHAIN.db")

    @property
    def watch_db(self) -> Path:
        """The database of watched wallets, rules and alerts."""
        from indexer.store.shards import WATCH_FILE

        if self.watch_path is not None:
            return self.watch_path
        return self.db / WATCH_FILE if self.folder else self.db

    def made_watch_db(self) -> Path:
        """The same, to be written: a folder that is named is there."""
        from indexer.store.shards import make_folder

        if self.folder:
            make_folder(self.db)
        return self.watch_db

    def _lay_exact_rows(self, conn: sqlite3.Connection, below: float | None) -> None:
        from indexer.queries.freshness import older_rows

        for part in each(conn):
            if older_rows(part, below):
                from indexer.risk.exact import lay_exact_rows
                from indexer.text.console import bars

                with bars() as progress:
                    lay_exact_rows(part, self.deployments(conn), progress)
                if part is conn:
                    part.execute("pragma query_only = on")


def unsynced(conn: sqlite3.Connection) -> str:
    """Why a database without a snapshot has no rows, as the end of a sentence."""
    from indexer.queries.queries import status

    begun = [row for row in status(conn, str, time.time()) if row["percent"] is not None]
    if not begun:
        return "holds nothing yet: run `indexer sync`"
    far = ", ".join(f"{row['deployment']} {row['percent']:g} %" for row in begun)
    return f"is in its first sync, and nothing can be listed before that is through ({far}); `indexer status` says more"


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Treats SIGTERM (a service manager, `kill`) like Ctrl-C; knows whether either came, even if the exception gets lost."""
    came = threading.Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        came.set()
        raise KeyboardInterrupt

    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.signal(number, interrupt) for number in heeded]
    try:
        yield came.is_set
    finally:
        for number, handler in zip(heeded, before, strict=True):
            signal.signal(number, handler)


session_of = click.make_pass_decorator(Session)


def holds(
    session: Session,
    conn: sqlite3.Connection,
    *,
    chain_id: int | None = None,
    protocols: Sequence[str] = (),
    deployments: Sequence[str] = (),
) -> bool:
    """Whether a snapshot of the chosen deployments is stored; if only others are, a remark says so.

    Raises `ConfigError` for a name that neither the database nor the installation knows: a typing error must not read
    as "nobody is at risk".
    """
    rows = known_names(session, conn, protocols, deployments)
    synced = [row for row in rows if row["block_number"] is not None]
    if any(
        (chain_id is None or row["chain_id"] == chain_id)
        and (not protocols or row["protocol"] in protocols)
        and (not deployments or row["deployment"] in deployments)
        for row in synced
    ):
        return True
    if synced:
        remark(f"{session.db} holds none of those deployments: `indexer status` lists what it holds")
    return False


def known_names(
    session: Session, conn: sqlite3.Connection, protocols: Sequence[str], deployments: Sequence[str]
) -> list[sqlite3.Row]:
    """The deployments of the file. Raises `ConfigError` for a name that neither it nor the installation knows."""
    rows = known.deployments(conn)
    if protocols:
        from indexer.plugins import installed

        require("protocol", protocols, {row["protocol"] for row in rows} | installed().keys())
    if deployments:
        require("deployment", deployments, {row["deployment"] for row in rows} | session.config.deployments.keys())
    return rows


def require(what: str, names: Sequence[str], known: Collection[str]) -> None:
    from indexer.plugins import did_you_mean

    for name in names:
        if name not in known:
            raise ConfigError(f"unknown {what} {name!r}{did_you_mean(name, known)}")


class Number(click.FloatRange):
    """A finite number in a range: nothing is below NaN, so NaN as a bound would silently empty a list."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return super().convert(number, param, ctx)


def chain_options(command: F, *, several: bool = False) -> F:
    """Which deployments of which chain, or of `several`, and the endpoints to reach it."""
    default = "[default: mainnet, or that of the named deployments]"
    flags = [
        click.option("--chain", multiple=True, metavar="NAME|all", help=f"Repeatable with --db DIR/.  {default}")
        if several
        else click.option("--chain", metavar="NAME", help=default),
        click.option("--protocol", "protocols", multiple=True, metavar="P", help="Only this protocol; repeatable."),
        click.option("--deployment", "deployments", multiple=True, metavar="D", help="Only this one; repeatable."),
    ]
    command = endpoint_options(command)
    for flag in reversed(flags):
        command = flag(command)
    return command


def endpoint_options(command: F) -> F:
    """The endpoints of the chain, and how to treat them."""
    flags = [
        click.option(
            "--rpc-url", "rpc_urls", multiple=True, metavar="URL", help="Endpoint; repeat it for a fail-over."
        ),
        click.option(
            "--max-requests-per-second",
            type=Number(min=0, min_open=True),
            metavar="N",
            help="Spare the endpoint; each call of a JSON-RPC batch counts, as with most providers.",
        ),
        click.option(
            "--spread", is_flag=True, help="Send requests that leave together to all endpoints, not only to the first."
        ),
    ]
    for flag in reversed(flags):
        command = flag(command)
    return command


def scheduler_options(command: F) -> F:
    """Where work runs that only computes; the function gets `scheduler` and `insecure_scheduler`."""
    flags = [
        click.option(
            "--scheduler",
            metavar="processes:N|tls://HOST:PORT",
            callback=scheduler_name,
            help="Compute in N processes, or on the workers of a Dask scheduler.",
        ),
        click.option("--insecure-scheduler", is_flag=True, is_eager=True, help="Accept tcp:// to another machine."),
    ]
    for flag in reversed(flags):
        command = flag(command)
    return command


def scheduler_name(context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """A place for tasks, as `executors.check` has it."""
    if value is not None:
        from indexer.executors import check

        check(value, insecure=bool(context.params.get("insecure_scheduler")))
    return value


@contextmanager
def connected(session: Session, flags: Mapping[str, Any]) -> Iterator[tuple["Chain", list["AnyAdapter"]]]:
    """The chain and the adapters that `chain_options` chose."""
    from indexer.chain.connect import adapters, connect

    chain, deployments = session.config.select(flags["chain"], flags["protocols"], flags["deployments"])
    found = connect(
        session.config,
        chain,
        flags["rpc_urls"],
        max_requests_per_second=flags["max_requests_per_second"],
        spread=flags["spread"],
    )
    with closing(found):
        yield found, adapters(found, deployments)


def block_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """latest, safe, finalized, a number, or a distance from one of them such as latest:-64."""
    if not re.fullmatch(r"(latest|safe|finalized)(:-\d{1,18})?|\d{1,18}", value, re.ASCII):
        raise click.BadParameter(f"{value!r} is no block: latest, safe, finalized, a number, or latest:-64")
    return value


@dataclass(frozen=True, slots=True)
class Moment:
    """A time the user gave: unix seconds, or seconds back from the last block of the data."""

    seconds: int
    ago: bool = False

    def before(self, last: int) -> int:
        """Unix seconds, where `last` is the time of the data's last block."""
        return max(last - self.seconds, 0) if self.ago else self.seconds

    def since(self, last: int) -> int:
        """As `before`. Raises `ConfigError` for a time after the last block, since which no change can be known."""
        if self.before(last) > last > 0:
            raise ConfigError(
                f"the data ends at {iso(last)}, so it holds nothing since {iso(self.seconds)}: sync first"
            )
        return self.before(last)


def moment(text: str) -> Moment:
    """A date or time (UTC unless it says otherwise), or an age such as 7d."""
    ago = AGO.fullmatch(text.strip())
    try:
        if ago:
            return Moment(int(timedelta(**{UNITS[ago[2]]: int(ago[1])}).total_seconds()), ago=True)
        at = datetime.fromisoformat(text.strip())
        return Moment(int(at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC).timestamp()))
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no time: 2026-01-31, 2026-01-31T12:00, or 7d for a week before the last block"
        ) from None


def wallet_address(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """An address in lower case; a mixed-case one must have the right checksum."""
    try:
        return checked_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def exact_option(command: F) -> F:
    """Adds --exact to a command that reads the database."""
    text = "Evaluate rows that `sync --follow` left at an older block (implied by --below 1.25 and more)."
    return click.option("--exact", is_flag=True, help=text)(command)


def below_option(command: F) -> F:
    """Gives a list of positions --below."""
    text = "Every position with a lower health factor."
    return click.option("--below", type=Number(min=0), metavar="HF", help=text)(command)


def target_option(of: str = "") -> Callable[[F], F]:
    """Gives a command that says what helps a position --target; `of` begins its text."""
    text = f"{of}The health factor to which the amounts to repay or add lead."
    return click.option(
        "--target", type=Number(min=1, max=1000), default=1.5, show_default=True, metavar="HF", help=text
    )
