"""The verbs `report` and `top`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any, TextIO

import click

from indexer.cli.freshness import fails_when_old, say
from indexer.cli.options import Moment, Number, Session, exact_option, holds, moment, session_of
from indexer.cli.output import Output, by_ending, output_options
from indexer.cli.people import WALLETS, Person, person, person_option
from indexer.console import bars, remark
from indexer.files import write_file
from indexer.store import ranking
from indexer.units import scaled

if TYPE_CHECKING:
    from indexer.report.document import Report, Section
    from indexer.report.outlook import Key

#: the values of `indexer.report.document.Form`
FORMS = ("terminal", "md", "html")
SUFFIXES = {".md": "md", ".markdown": "md", ".html": "html", ".htm": "html", ".txt": "terminal"}


def since_when(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Moment | None:
    return None if value is None else moment(value)


@click.command(
    epilog="\b\nExamples:\n  indexer report book"
    "\n  indexer report book --protocol aave-v3 --fall WETH --output book.html"
    "\n  indexer report treasury --since 2026-01-31 --format md"
    "\n  indexer report treasury @family --output together.html"
)
@click.argument("what", nargs=-1, required=True, metavar=f"book|{WALLETS}")
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
@click.option(
    "--target",
    type=Number(min=1, max=1000),
    default=1.5,
    show_default=True,
    metavar="HF",
    help="Of a wallet: the health factor to which the amounts to repay or add lead.",
)
@person_option
@fails_when_old
@session_of
def report(
    session: Session,
    what: Sequence[str],
    since: Moment | None,
    fall: str | None,
    protocols: Sequence[str],
    deployments: Sequence[str],
    form: str | None,
    path: Path | None,
    target: float,
    rpc_urls: Sequence[str],
) -> None:
    """Explain one person's wallets, or the whole book of positions, as of the last snapshot.

    For a wallet: equity, leverage, margin use, what liquidates it and what to repay or add, net exposure by asset, accrued
    interest, change since a date, history; several wallets are added up as one person. For the book: collateral, debt and
    health by protocol and asset, the largest wallets, and what becomes liquidatable if prices fall, of every asset but the
    stablecoins or of --fall NAME. HTML is one file with its charts inside.
    """
    from indexer.report.document import Form, write

    found: Report | None = None

    chosen = Form((by_ending(path, SUFFIXES, form) if path else form) or "terminal")
    whole = list(what) == ["book"]
    if whole and since is not None:
        raise click.UsageError("--since is for a wallet; the book has no change since a date")
    if not whole and (fall or protocols or deployments):
        raise click.UsageError("--fall, --protocol and --deployment are for `report book`")
    who = Person({}) if whole else person(session, what, rpc_urls, "; or write book")
    with session.read(exact=True) as conn:
        if not holds(session, conn, protocols=protocols, deployments=deployments):
            return
        if whole:
            found = book_report(session, conn, fall, protocols, deployments)
        else:
            from indexer.report.wallet import positions, wallet_report

            rows = positions(conn, who.wallets)
            who.say_who_is_unknown(rows, f"in {session.db}")
            newest = max((row["block_timestamp"] for row in rows), default=0)
            since_seconds = None if since is None else since.since(newest)
            if rows:
                found = wallet_report(conn, who.title, rows, outlooks(session, conn, who, target), since_seconds)
        if found is not None and chosen is Form("terminal"):
            say(conn)
    if found is None:
        return

    def fill(stream: TextIO) -> None:
        write(found, chosen, stream)

    if path is None:
        fill(sys.stdout)
    else:
        write_file(path, fill)


def outlooks(session: Session, conn: Connection, who: Person, target: float) -> "dict[Key, dict[str, Any]]":
    """What endangers each position and what helps; the adapters are imported for it."""
    from indexer.report.outlook import stored

    return stored(conn, session.deployments(conn), who.wallets, scaled(target))


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
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, metavar="N", help="Wallets.")
@click.option("--min-debt", type=Number(min=0), metavar="USD", help="At least this debt; unknown debts are kept.")
@click.option("--protocol", "protocols", multiple=True, metavar="P", help="Only wallets in this protocol; repeatable.")
@exact_option
@output_options
@fails_when_old
@session_of
def top(
    session: Session,
    by: str,
    limit: int,
    min_debt: float | None,
    protocols: Sequence[str],
    exact: bool,
    output: Output,
) -> None:
    """List the largest wallets over all protocols, in USD; collateral is all they supply."""
    with session.read(for_people=output.table, exact=exact) as conn, bars() as progress:
        progress.start("wallets", 1, "query")
        columns, found = ranking.top(conn, by, limit=limit, min_debt=min_debt, protocols=protocols)
        rows = [dict(zip(columns, row, strict=True)) for row in found]
        if holds(session, conn, protocols=protocols) and not rows:
            remark(f"{session.db} has no such wallet: ask for less")
    output.write_dicts(rows, TOP_TABLE, columns)
