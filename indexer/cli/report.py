"""The verbs `report` and `top`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING, TextIO

import click

from indexer.address import checked_address
from indexer.cli.freshness import fails_when_old
from indexer.cli.options import Moment, Session, exact_option, holds, moment, session_of
from indexer.cli.output import Output, by_ending, output_options
from indexer.cli.scope import Asked, list_options
from indexer.console import bars, remark
from indexer.files import write_file
from indexer.store import ranking

if TYPE_CHECKING:
    from indexer.report.document import Report, Section

#: the values of `indexer.report.document.Form`
FORMS = ("terminal", "md", "html")
SUFFIXES = {".md": "md", ".markdown": "md", ".html": "html", ".htm": "html", ".txt": "terminal"}


def subject(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """The word book, or an address in lower case."""
    if value == "book":
        return value
    try:
        return checked_address(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; or write book") from error


def since_when(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Moment | None:
    return None if value is None else moment(value)


@click.command(
    epilog="\b\nExamples:\n  indexer report book"
    "\n  indexer report book --protocol aave-v3 --fall WETH --output book.html"
    "\n  indexer report 0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503 --since 2026-01-31 --format md"
)
@click.argument("what", callback=subject, metavar="WALLET|book")
@click.option(
    "--since",
    callback=since_when,
    metavar="DATE|AGE",
    help="For a wallet: show the change since a date, or an age such as 7d before the last block.",
)
@click.option("--fall", metavar="NAME", help="For the book: the asset or group whose price falls by 10, 20, 30 %.")
@click.option(
    "--protocol", "protocols", multiple=True, metavar="P", help="For the book: only this protocol; repeatable."
)
@click.option(
    "--deployment", "deployments", multiple=True, metavar="D", help="For the book: only this deployment; repeatable."
)
@click.option("--format", "form", type=click.Choice(FORMS), help="[default: terminal]")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE instead; its ending (.md, .html, .txt) chooses the format.",
)
@fails_when_old
@session_of
def report(
    session: Session,
    what: str,
    since: Moment | None,
    fall: str | None,
    protocols: Sequence[str],
    deployments: Sequence[str],
    form: str | None,
    path: Path | None,
) -> None:
    """Explain one wallet, or the whole book of positions, as of the last snapshot.

    For a wallet: equity, leverage, margin use, net exposure by asset, accrued interest, change since a date, history. For
    the book: collateral, debt and health by protocol and asset, the largest wallets, and what becomes liquidatable if
    prices fall, of every asset but the stablecoins or of --fall NAME. HTML is one file with its charts inside.
    """
    from indexer.report.document import Form, write

    chosen = Form((by_ending(path, SUFFIXES, form) if path else form) or "terminal")
    if what == "book" and since is not None:
        raise click.UsageError("--since is for a wallet; the book has no change since a date")
    if what != "book" and (fall or protocols or deployments):
        raise click.UsageError("--fall, --protocol and --deployment are for `report book`")
    with session.read(for_people=chosen is Form("terminal"), exact=True) as conn:
        if not holds(session, conn, protocols=protocols, deployments=deployments):
            return
        if what == "book":
            found = book_report(session, conn, fall, protocols, deployments)
        else:
            from indexer.report.wallet import wallet_report

            found = wallet_report(conn, what, None if since is None else since.since(last_time(conn, what)))
    if found is None:
        remark(f"{what} has no position in {session.db}")
        return

    def fill(stream: TextIO) -> None:
        write(found, chosen, stream)

    if path is None:
        fill(sys.stdout)
    else:
        write_file(path, fill)


def last_time(conn: Connection, wallet: str) -> int:
    """The time of the newest block at which the wallet has rows, in unix seconds; 0 without any."""
    found: tuple[int] = conn.execute(
        "select coalesce(max(d.block_timestamp), 0) from positions p join deployments d using (chain_id, deployment) "
        "where p.wallet = ?1 or p.owner = ?1 or p.account = ?1",
        (wallet,),
    ).fetchone()
    return found[0]


def book_report(
    session: Session, conn: Connection, fall: str | None, protocols: Sequence[str], deployments: Sequence[str]
) -> "Report | None":
    """The book with its falls in price; a bar shows the progress, as positions are evaluated again for each fall."""
    from indexer.report.book import book
    from indexer.report.price_falls import falls

    section: Section | None
    with bars() as progress:
        section = falls(conn, session.config, fall, protocols, deployments, progress)
        return book(conn, protocols=protocols, deployments=deployments, falls=section, progress=progress)


TOP_TABLE = (
    "wallet positions debt_usd supply_usd debt_at_risk_usd health_factor worst_deployment oldest_block_number "
    "oldest_block_time"
).split()


@click.command(
    epilog="\b\nExamples:\n  indexer top --by debt\n  indexer top --by risk --protocol maker --limit 50 --csv"
)
@click.option(
    "--by",
    type=click.Choice(list(ranking.RANKS)),
    default="debt",
    show_default=True,
    help="risk: the debt of positions at risk or liquidatable.",
)
@list_options(sort="as --by ranks", limit=20)
@exact_option
@output_options
@fails_when_old
@session_of
def top(
    session: Session,
    by: str,
    asked: Asked,
    exact: bool,
    output: Output,
) -> None:
    """List the largest wallets over all protocols, in USD; collateral is all they supply."""
    with session.read(for_people=output.table, exact=exact) as conn, bars() as progress:
        progress.start("wallets", 1, "query")
        scope = asked.scope(session, conn)
        columns, found = ranking.top(
            conn, by, limit=asked.limit or 20, min_debt=asked.min_debt, protocols=asked.protocols, scope=scope
        )
        rows = [dict(zip(columns, row, strict=True)) for row in found]
        chosen = {"chain_id": scope.chain_id, "protocols": asked.protocols, "deployments": asked.deployments}
        if holds(session, conn, **chosen) and not rows:  # type: ignore[arg-type]
            remark(f"{session.db} has no such wallet: ask for less")
    output.write_dicts(scope.arranged(rows, columns), TOP_TABLE, columns)
