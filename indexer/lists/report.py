"""The verbs `report` and `top`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO, TypeVar

import click

from indexer.boundary.files import write_file
from indexer.errors import ConfigError
from indexer.queries import ranking
from indexer.queries.known import synced
from indexer.queries.scope import newest
from indexer.queries.trends import times_since_block
from indexer.terminal.freshness import fails_when_old, say
from indexer.terminal.options import Moment, Session, exact_option, holds, session_of, target_option
from indexer.terminal.output import Output, by_ending, output_options
from indexer.terminal.people import WALLETS, Person, person, person_option
from indexer.terminal.scope import Asked, block_or_moment, list_options
from indexer.text.console import bars, remark
from indexer.text.values import many
from indexer.units import scaled

if TYPE_CHECKING:
    from indexer.progress import Progress
    from indexer.report.document import Form, Report, Section
    from indexer.report.outlook import Key

#: the values of `indexer.report.document.Form`
FORMS = ("terminal", "md", "html", "json", "csv")
SUFFIXES = {
    ".md": "md",
    ".markdown": "md",
    ".html": "html",
    ".htm": "html",
    ".txt": "terminal",
    ".json": "json",
    ".csv": "csv",
}
P = ParamSpec("P")
R = TypeVar("R")


def document_options(verb: Callable[P, R]) -> Callable[P, R]:
    """Adds --format and --output of a document, as `form` and `path`."""
    to_file = click.option(
        "-o",
        "--output",
        "path",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write to FILE instead; its ending (.md, .html, .txt, .json, .csv) chooses the format.",
    )
    return click.option("--format", "form", type=click.Choice(FORMS), help="[default: terminal]")(to_file(verb))


@click.command(
    short_help="Explain one person's wallets, or the whole book.",
    epilog="\b\nExamples:\n  indexer report book"
    "\n  indexer report book --protocol aave-v3 --fall WETH --output book.html"
    "\n  indexer report treasury --since 2026-01-31 --format md"
    "\n  indexer report treasury @family --output together.html",
)
@click.argument("what", nargs=-1, required=True, metavar=f"book|{WALLETS}")
@click.option(
    "--since",
    callback=block_or_moment,
    metavar="BLOCK|DATE|AGE",
    help="Show what changed since then: a block, a date, or an age such as 7d before the last block.",
)
@click.option(
    "--levels",
    multiple=True,
    metavar="ASSET",
    help="For the book: at which price of this asset how much debt becomes liquidatable; repeatable.",
)
@click.option("--chain", metavar="NAME", help="For the book: only this chain.")
@click.option("--fall", metavar="NAME", help="For the book: the asset or group whose price falls by 10, 20, 30 %.")
@click.option(
    "--protocol", "protocols", multiple=True, metavar="P", help="For the book: only this protocol; repeatable."
)
@click.option(
    "--deployment", "deployments", multiple=True, metavar="D", help="For the book: only this deployment; repeatable."
)
@document_options
@target_option("Of a wallet. ")
@person_option
@fails_when_old
@session_of
def report(
    session: Session,
    what: Sequence[str],
    since: int | Moment | None,
    chain: str | None,
    fall: str | None,
    levels: Sequence[str],
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
    from indexer.report.document import Form

    found: Report | None = None
    chosen = Form((by_ending(path, SUFFIXES, form) if path else form) or "terminal")
    whole = list(what) == ["book"]
    if not whole and (chain or fall or levels or protocols or deployments):
        raise click.UsageError("--chain, --fall, --levels, --protocol and --deployment are for `report book`")
    who = Person({}) if whole else person(session, what, rpc_urls, "; or write book")
    with session.read(exact=True) as conn:
        chain_id = session.chain_id(conn, chain)
        if not holds(session, conn, chain_id=chain_id, protocols=protocols, deployments=deployments):
            return
        if chain_id is not None and synced(conn, chain_id) != synced(conn):
            deployments = [name for name in synced(conn, chain_id) if not deployments or name in deployments]
        if whole:
            asked = Asked(deployments=deployments, protocols=protocols, since=since)
            found = book_report(session, conn, fall, levels, asked)
        else:
            from indexer.report.wallet import positions, wallet_report

            rows = positions(conn, who.wallets)
            who.say_who_is_unknown(rows, f"in {session.db}")
            last = max((row["block_timestamp"] for row in rows), default=0)
            since_seconds = time_of(conn, since, last)
            if rows:
                found = wallet_report(conn, who.title, rows, outlooks(session, conn, who, target), since_seconds)
        if found is not None and chosen is Form("terminal"):
            say(conn, () if whole else sorted({row["deployment"] for row in rows}))
    if found is not None:
        deliver(found, chosen, path)


def deliver(found: "Report", form: "Form", path: Path | None) -> None:
    """Writes a document into a file, or to standard output."""
    from indexer.report.document import write

    def fill(stream: TextIO) -> None:
        write(found, form, stream)

    if path is None:
        fill(sys.stdout)
    else:
        write_file(path, fill)


def time_of(conn: Connection, since: int | Moment | None, last: int) -> int | None:
    """Unix seconds of what --since says. Raises `ConfigError` for a block that no snapshot and no history is of."""
    if not isinstance(since, int):
        return None if since is None else since.since(last)
    found = times_since_block(conn, since)
    if not found:
        raise ConfigError(f"nothing is known since block {since:,}: the data ends before it")
    if len(found) > 1:
        raise ConfigError("several chains are synced: give a date instead of a block")
    return found[0]


def outlooks(session: Session, conn: Connection, who: Person, target: float) -> "dict[Key, dict[str, Any]]":
    """What endangers each position and what helps; the adapters are imported for it."""
    from indexer.report.outlook import stored

    return stored(conn, session.deployments(conn), who.wallets, scaled(target))


def book_report(
    session: Session, conn: Connection, fall: str | None, levels: Sequence[str], asked: Asked
) -> "Report | None":
    """The book with its trend, its falls in price and its levels; a bar shows the progress of what is evaluated."""
    from indexer.report.book import book
    from indexer.report.price_falls import falls
    from indexer.report.trend import trends

    extra: list[Section] = []
    protocols, deployments = asked.protocols, asked.deployments
    if asked.since is not None:
        (last, _) = newest(conn, None)
        since = time_of(conn, asked.since, last)
        assert since is not None
        extra += trends(conn, since, protocols, deployments)
    with bars() as progress:
        section = falls(conn, session.config, fall, protocols, deployments, progress)
        extra += [section] if section else []
        extra += [level_section(session, conn, asset, replace(asked, since=None), progress) for asset in levels]
        return book(conn, protocols=protocols, deployments=deployments, extra=extra, progress=progress)


def level_section(session: Session, conn: Connection, asset: str, asked: Asked, progress: "Progress") -> "Section":
    """The histogram of `indexer levels ASSET`."""
    from indexer.lists.levels import STEP
    from indexer.report.charts import Bars
    from indexer.report.document import Section
    from indexer.risk.level_rows import rows as computed
    from indexer.risk.levels import COLUMNS

    rows = computed(
        conn,
        session.deployments(conn),
        asset,
        say=remark,
        step=STEP,
        min_debt=asked.min_debt,
        protocols=asked.protocols,
        scope=asked.scope(session, conn),
        progress=progress,
    )
    bars_of = [
        ("now" if row["direction"] == "now" else f"{row['change_percent_to']:+d} %", row["debt_usd"])
        for row in rows
        if row["change_percent_to"] is not None
    ]
    note = "The exact price of each position by the contracts' own rules, other prices as they are; cumulative from now on."
    return Section(
        f"Debt by liquidation price of {asset}",
        COLUMNS,
        [[row[name] for name in COLUMNS] for row in rows],
        [note],
        [Bars(f"Debt that becomes liquidatable as {asset} moves", "USD", bars_of)] if bars_of else [],
    )


TOP_TABLE = (
    "wallet positions debt_usd supply_usd debt_at_risk_usd health_factor worst_deployment oldest_block_number "
    "oldest_block_time"
).split()


@click.command(
    short_help="List the largest wallets over all protocols, in USD.",
    epilog="\b\nExamples:\n  indexer top --by debt\n  indexer top --by risk --protocol maker --limit 50 --csv",
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
        unknown = sum(row["supply_usd"] is None for row in rows)
        if unknown and output.table:
            remark(
                f"what {unknown:,} of {many(len(rows), 'wallet')} supply is unknown while it is not read or not priced: "
                "`indexer sync --supplies` reads it"
            )
    output.write_dicts(scope.arranged(rows, columns), TOP_TABLE, columns)
