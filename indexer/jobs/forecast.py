"""The verb `forecast`."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from indexer.queries.scope import Scope
from indexer.terminal.freshness import fails_when_old
from indexer.terminal.options import Session, holds, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.people import WALLETS, person, person_option
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import bars, remark
from indexer.text.values import for_people

if TYPE_CHECKING:
    from indexer.forecast.forecast import Forecast
    from indexer.forecast.listed import Told

HOURS = {"h": 1, "d": 24, "w": 168}
MOST_HOURS = 30 * 24
#: positions in a table of everyone
WORST = 20
BOOK = "book"

TABLE = "deployment position_group wallet within unsafe liquidated pending health_factor debt_usd note".split()
BOOK_TABLE = (
    "deployment within expected_debt_usd var_95_debt_usd es_95_debt_usd var_99_debt_usd es_99_debt_usd "
    "expected_bad_debt_usd es_99_bad_debt_usd expected_positions forecast"
).split()
PART_TABLE = ["within", "name", "expected_debt_usd", "share_percent"]


def horizons(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """1h,1d,7d as seconds, ascending; full hours, as the grid of the paths has them."""
    found = set()
    for text in value.split(","):
        match = re.fullmatch(r"\s*(\d{1,4})\s*([hdw])\s*", text, re.ASCII)
        hours = int(match[1]) * HOURS[match[2]] if match else 0
        if not 0 < hours <= MOST_HOURS:
            raise click.BadParameter(f"{text.strip()!r} is no horizon: full hours or days up to 30d, such as 1h,1d,7d")
        found.add(hours * 3_600)
    return tuple(sorted(found))


def within(seconds: int) -> str:
    """A horizon as it is given: 1h, 7d."""
    hours = seconds // 3_600
    return f"{hours // 24}d" if hours % 24 == 0 else f"{hours}h"


@click.command(
    short_help="Say how likely positions become liquidatable, and when.",
    epilog="\b\nExamples:\n  indexer forecast treasury --within 1d,7d\n  indexer sync --prices && indexer forecast"
    "\n  indexer forecast book --within 1d --by asset --json",
)
@click.argument("whom", nargs=-1, metavar=f"[{WALLETS}|{BOOK}]")
@click.option(
    "--within",
    "asked_horizons",
    callback=horizons,
    default="1h,1d,7d",
    show_default=True,
    metavar="1h,1d,7d",
    help="Horizons, in full hours or days up to 30d.",
)
@click.option(
    "--paths",
    type=click.IntRange(100, 1_000_000),
    metavar="N",
    help="Price paths.  [default: 2000, and 10000 where the chance is open of who is named, watched or at risk]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    default=0,
    show_default=True,
    metavar="N",
    help="Of the paths: the same gives the same digits.",
)
@click.option("--exact", is_flag=True, help="Evaluate each position on each path; slow, and the same result.")
@click.option(
    "--by",
    type=click.Choice(["deployment", "wallet", "asset"]),
    default="deployment",
    show_default=True,
    help="Which rows of the book JSON, CSV and TSV contain.",
)
@list_options(sort="the likeliest first", what="Deployments whose last snapshot is")
@person_option
@output_options
@fails_when_old
@session_of
def forecast(
    session: Session,
    whom: Sequence[str],
    asked_horizons: tuple[int, ...],
    paths: int | None,
    seed: int,
    exact: bool,
    by: str,
    asked: Asked,
    rpc_urls: Sequence[str],
    output: Output,
) -> None:
    """Say how likely positions become liquidatable within some time, and what is decided already.

    Three statements that are not mixed. pending: a price that is on the chain and not in force, or interest alone, makes
    the position liquidatable; no chance is in it. unsafe: the chance that the position, LEFT ALONE, fails the contract's
    health test within the time. liquidated: how often positions of that chance were liquidated, as their owners act;
    unknown until 50 were. Prices go on as in their past year: `indexer sync --prices` fetches it. The rows are kept in
    the table `forecasts`. `indexer forecast book` adds up everyone: expected debt, value at risk, expected shortfall.
    """
    from indexer.forecast import listed

    whole = list(whom) == [BOOK]
    if not whole and BOOK in whom:
        raise click.UsageError(f"{BOOK} is everyone: name it alone, or wallets")
    who = person(session, [] if whole else [*whom, *asked.wallets], rpc_urls)
    plan = listed.planned(asked_horizons, paths, seed, exact=exact)
    with session.read(for_people=output.table) as conn:
        scope = asked.scope(session, conn)
        holds(session, conn, chain_id=scope.chain_id, protocols=asked.protocols, deployments=asked.deployments)
        books = listed.chosen(
            conn, session.deployments(conn), say=remark, wallets=who.wallets, protocols=asked.protocols, scope=scope
        )
        if not books:
            empty(output, whole=whole, by=by)
            return
        with bars() as progress:
            found = listed.computed(conn, books, plan, session.config.groups, progress)
        parts = listed.told(conn, found, int(time.time()))
    write(session, parts)
    told = [row for part in parts for row in part.listed]
    for line in listed.remarks(found, told):
        remark(line)
    if whole:
        write_book(found, by, Scope(order=asked.order, limit=asked.limit), output)
        return
    theirs = [row for row in told if asked.keeps(row)]
    if who.wallets and asked.min_debt is None:
        who.say_who_is_unknown(theirs, f"with debt in {session.db}")
    write_rows(theirs, asked, scope, output, whole=not who.wallets)


def empty(output: Output, *, whole: bool, by: str) -> None:
    """Nothing to forecast: no rows, with the columns that there would be."""
    from indexer.forecast.rows import LISTED
    from indexer.forecast.sums import BOOK_COLUMNS, PART_COLUMNS

    output.write_dicts([], (BOOK_COLUMNS if by == "deployment" else PART_COLUMNS) if whole else LISTED)


def write(session: Session, parts: "Sequence[Told]") -> None:
    """Writes each part of a forecast into the file of its chain, with the fits that it rests on."""
    from indexer.forecast import calibration, rows
    from indexer.store.shards import chain_files, places
    from indexer.store.store import Store

    files = places(chain_files(session.db)) if session.folder else {}
    for part in parts:
        with Store(files.get(part.chain_id, session.db)) as store, store.transaction() as conn:
            calibration.save(conn, part.fits)
            rows.write(conn, part.made)


# output ---------------------------------------------------------------------------------------------------------------


def chance(p: float | None, bound: float | None) -> str | None:
    """A chance for people: 12.3 %, < 0.15 % where no path failed, > 99.85 % where all did."""
    if p is not None:
        return f"{p * 100:.3g} %"
    if bound is None:
        return None
    return f"{'<' if bound < 0.5 else '>'} {bound * 100:.4g} %"


def pending(row: Mapping[str, Any]) -> str | None:
    """What is decided already, in few words."""
    from indexer.text.values import iso

    if row["pending_kind"] is None:
        return None
    when = "" if row["pending_at"] is None else f" {iso(row['pending_at'])}"
    return f"{row['pending_kind']}{when}"


def write_rows(rows: Sequence[dict[str, Any]], asked: Asked, scope: Scope, output: Output, *, whole: bool) -> None:
    """Writes the positions: a person's in the order of horizons, everyone's the likeliest first."""
    from indexer.forecast.listed import ranked
    from indexer.forecast.rows import LISTED

    if whole:
        rows = ranked(rows)
    limit = asked.limit or (WORST if whole and output.table else None)
    listed = Scope(order=scope.order, limit=limit).arranged(rows, LISTED)
    if not output.table:
        output.write_dicts(listed, LISTED)
        return
    shown = [
        {
            **row,
            "within": within(row["horizon_seconds"]),
            "unsafe": chance(row["p_unsafe"], row["p_unsafe_bound"]),
            "liquidated": chance(row["p_liquidated"], None),
            "pending": pending(row),
        }
        for row in listed
    ]
    output.write_sets(("Positions, left alone", TABLE, for_people(TABLE, shown)))
    if len(rows) > len(listed):
        remark(f"{len(rows) - len(listed):,} more rows; --limit N shows them, --csv all")


def write_book(found: "Forecast", by: str, scope: Scope, output: Output) -> None:
    """Writes the sums, the wallets that add most and the collateral as tables, or in other formats what --by names."""
    from indexer.forecast.listed import book_rows, parts
    from indexer.forecast.sums import BOOK_COLUMNS, PART_COLUMNS, TOP

    names = {"wallet": "by_wallet", "asset": "by_asset"}
    if not output.table:
        if by == "deployment":
            output.write_dicts(scope.arranged(book_rows(found), BOOK_COLUMNS), BOOK_COLUMNS)
        else:
            output.write_dicts(scope.arranged(parts(found, names[by]), PART_COLUMNS), PART_COLUMNS)
        return
    last = found.plan.horizons[-1]

    def shown(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, "within": within(row["horizon_seconds"])} for row in rows]

    wallets = [row for row in parts(found, "by_wallet") if row["horizon_seconds"] == last][:TOP]
    assets = [row for row in parts(found, "by_asset") if row["horizon_seconds"] == last]
    output.write_sets(
        ("Debt that becomes liquidatable, left alone", BOOK_TABLE, for_people(BOOK_TABLE, shown(book_rows(found)))),
        ("Wallets that add most", PART_TABLE, for_people(PART_TABLE, shown(wallets))),
        ("By collateral", PART_TABLE, for_people(PART_TABLE, shown(assets))),
    )
