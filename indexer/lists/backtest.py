"""The verb `backtest`."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from indexer.boundary.files import write_file
from indexer.errors import ConfigError
from indexer.lists.report import SUFFIXES, document_options
from indexer.terminal.options import Session, moment, scheduler_options, session_of
from indexer.terminal.output import by_ending
from indexer.text.console import bars

if TYPE_CHECKING:
    from indexer.backtest.evidence import Evidence, Settings

STEP = re.compile(r"(\d{1,3})\s*(h|d)")
LONGEST_STEP = 168


def hours(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    """A step in hours: 24h, 4h or 1d."""
    match = STEP.fullmatch(value.strip())
    count = int(match[1]) * (24 if match[2] == "d" else 1) if match else 0
    if not 1 <= count <= LONGEST_STEP:
        raise click.BadParameter(f"{value!r} is no step: 24h, 4h or 1d, at most {LONGEST_STEP}h")
    return count


def date(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Unix seconds of a date or time, UTC unless it says otherwise."""
    if value is None:
        return None
    found = moment(value)
    if found.ago:
        raise click.BadParameter(f"{value!r} is no date: 2021-05-01, or 2021-05-01T12:00")
    return found.seconds


@click.command(
    short_help="Score forecasts of the past against what came.",
    epilog="\b\nExamples:\n  indexer backtest"
    "\n  indexer backtest --data foresight --html backtest.html"
    "\n  indexer backtest --data foresight --from 2022-07-01 --step 12h --format md",
)
@click.option(
    "--data",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Files instead of the database: prices/SYMBOLUSDT_1h.csv and, beside it, maker_*/ with a Maker ilk's events.",
)
@click.option("--from", "since", callback=date, metavar="DATE", help="The first decision.  [default: all data allow]")
@click.option("--until", callback=date, metavar="DATE", help="No decision from here on.  [default: all data allow]")
@click.option(
    "--step", callback=hours, default="24h", show_default=True, metavar="HOURS", help="Time between two decisions."
)
@click.option("--paths", type=click.IntRange(100, 1_000_000), default=2_000, show_default=True, help="Simulated paths.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the generator.")
@scheduler_options
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the page for a risk committee to FILE.",
)
@document_options
@session_of
def backtest(
    session: Session,
    folder: Path | None,
    since: int | None,
    until: int | None,
    step: int,
    paths: int,
    seed: int,
    scheduler: str | None,
    insecure_scheduler: bool,
    html: Path | None,
    form: str | None,
    path: Path | None,
) -> None:
    """Make the forecasts of past times again, from what was known then, and score them against what came.

    Without --data the database's own forecasts are judged as they were made. With --data: every vault of a Maker ilk, prices
    alone, and invented positions under the joint prices. Beside the model stand the baselines it must beat; every number has
    a 95 % interval by blocks of four weeks, and what is not proven comes first.
    """
    from indexer.backtest.evidence import Settings
    from indexer.report.backtest import backtest_report
    from indexer.report.document import Form, write

    if since is not None and until is not None and since >= until:
        raise ConfigError("--from must lie before --until")
    chosen = Form((by_ending(path, SUFFIXES, form) if path else form) or "terminal")
    settings = Settings(since, until, step, seed, paths)
    found = evidence(session, folder, settings, scheduler, insecure=insecure_scheduler)
    if html is not None:
        page = backtest_report(found)
        write_file(html, lambda stream: write(page, Form.HTML, stream))
    report = backtest_report(found, numbers=chosen in (Form.JSON, Form.CSV))

    def fill(stream: TextIO) -> None:
        write(report, chosen, stream)

    if path is not None:
        write_file(path, fill)
    elif html is None or form is not None:
        fill(sys.stdout)


def evidence(
    session: Session, folder: Path | None, settings: "Settings", scheduler: str | None, *, insecure: bool
) -> "Evidence":
    """What the files of a folder show, or else the database."""
    from indexer.backtest.evidence import of_database, of_files

    if folder is None:
        if scheduler is not None:
            raise click.UsageError("--scheduler is for --data: what a database holds is judged in a moment")
        with session.read() as conn:
            return of_database(conn, session.db.name, settings)
    with bars() as progress:
        return of_files(folder, settings, progress, scheduler, insecure=insecure)
