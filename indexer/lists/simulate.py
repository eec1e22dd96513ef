"""The verb `simulate`."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from indexer.queries.scope import Scope
from indexer.terminal.freshness import fails_when_old
from indexer.terminal.options import Number, Session, holds, scheduler_options, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.people import WALLETS, person, person_option
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import bars, remark
from indexer.text.values import for_people

if TYPE_CHECKING:
    from indexer.progress import Progress
    from indexer.risk import simulate as simulating
    from indexer.risk.scenario import Change, Names, Sweep
    from indexer.store.books import Book

#: positions in a table of everyone
WORST = 20
NOTHING = "say what changes: --shock WETH=-20%, --days 30, --liquidation-threshold WETH=-5% or --sweep WETH=0..-60%"

DEPLOYMENT_TABLE = (
    "deployment positions liquidatable_before liquidatable_after new new_wallets new_debt_usd bad_debt_usd block_number "
    "block_time"
).split()
ASSET_TABLE = "deployment side symbol positions amount value_usd".split()
TOGETHER_TABLE = (
    "positions liquidatable_before liquidatable_after health_factor_before health_factor_after debt_usd collateral_usd"
).split()
WORST_TABLE = (
    "deployment position_group wallet health_factor_before health_factor_after debt_usd collateral_usd status_before "
    "status_after blocked_by"
).split()


class Supposed(NamedTuple):
    """What the flags suppose, with names as they were typed."""

    shocks: "Sequence[Change]"
    thresholds: "Sequence[Change]"
    swept: "Sweep | None"
    days: float


@click.command(
    short_help="Show who is liquidatable if prices or other things change.",
    epilog="\b\nExamples:\n  indexer simulate --shock WETH=-20% --shock stablecoins=-2%"
    "\n  indexer simulate treasury --shock eth=-30% --days 30"
    "\n  indexer simulate --liquidation-threshold WETH=-5%"
    "\n  indexer simulate --sweep eth=0..-60%:2% --chart eth.png",
)
@click.argument("whom", nargs=-1, metavar=f"[{WALLETS}]")
@click.option("--all", "everyone", is_flag=True, help="The whole book, as without WALLET.")
@click.option("--shock", "shocks", multiple=True, metavar="NAME=-20%", help="A price in USD changes; repeatable.")
@click.option("--days", type=Number(min=0, max=1_000_000), default=0.0, help="Interest of that time, nobody acting.")
@click.option(
    "--liquidation-threshold",
    "thresholds",
    multiple=True,
    metavar="NAME=-5%|80%",
    help="Lower a threshold by 5 % of itself, or set it to 80 %; repeatable.",
)
@click.option("--sweep", metavar="NAME=0..-60%[:2%]", help="Change a price in steps of 5 %, or of the given size.")
@click.option(
    "--chart", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw the sweep as PNG or SVG."
)
@click.option(
    "--by",
    type=click.Choice(["position", "deployment", "asset"]),
    default="position",
    show_default=True,
    help="Which rows JSON, CSV and TSV contain; a table shows all three.",
)
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="As --limit  [default: 20 positions in a table]")
@click.option(
    "--seconds-per-block",
    type=Number(min=0, min_open=True),
    metavar="S",
    help="For interest that counts blocks (Compound V2)  [default: as synced, else 12]",
)
@list_options(sort="the largest debt first", what="Deployments whose last snapshot is")
@scheduler_options
@person_option
@output_options
@fails_when_old
@session_of
def simulate(
    session: Session,
    whom: Sequence[str],
    everyone: bool,
    shocks: Sequence[str],
    days: float,
    thresholds: Sequence[str],
    sweep: str | None,
    chart: Path | None,
    by: str,
    top: int | None,
    seconds_per_block: float | None,
    asked: Asked,
    scheduler: str | None,
    insecure_scheduler: bool,
    rpc_urls: Sequence[str],
    output: Output,
) -> None:
    """Show who could be liquidated, and for how much, if prices, thresholds or time changed.

    Works on the last snapshot, without a node, and lists the positions that become liquidatable (of wallets: all of
    their positions, added up as one person). NAME is a symbol, an address, a Maker ilk, or a group such as stablecoins, eth and btc; [groups] of the
    configuration adds more. A shock to WETH leaves wstETH as it is; the group eth takes both. Prices are rounded down
    to the oracle's integer. Values are in USD at the changed prices.
    """
    from indexer.risk import simulate as simulating
    from indexer.risk.scenario import GROUPS, Names
    from indexer.store import books as stored

    whom, limit = [*whom, *asked.wallets], asked.limit or top
    if whom and everyone:
        raise click.UsageError("WALLET and --all exclude each other; choose one")
    supposed = suppositions(shocks, days, thresholds, sweep, chart, scheduler)
    who = person(session, whom, rpc_urls)
    names = Names({**GROUPS, **session.config.groups})
    with session.read(for_people=output.table) as conn, bars() as progress:
        scope = asked.scope(session, conn)
        rows = suitable(session, conn, asked, scope)
        if not rows:
            output.write_dicts([], simulating.OUTCOME_COLUMNS)
            return
        pace = seconds_per_block or simulating.seconds_per_block(conn, rows[0]["chain_id"])
        books = stored.load(conn, rows, session.deployments(conn), wallets=who.wallets, min_debt=asked.min_debt)
        elsewhere = None if scheduler is None else (scheduler, insecure_scheduler)
        below = session.config.settings.at_risk_below
        found = computed(books, names, supposed, pace, below, progress, elsewhere, whole=not whom)
    if not isinstance(found, simulating.Simulation):
        output.write_dicts(scope.arranged(found, list(found[0])), list(found[0]))
        also = [*shocks, *(f"threshold {text}" for text in thresholds), *([f"{days:g} days"] if days else [])]
        draw(chart, supposed, found, also)
        return
    if whom:
        theirs = [{**simulating.outcome_row(one), "owner": one.after.owner or ""} for one in found.outcomes]
        if asked.min_debt is None:  # else they may only owe less
            who.say_who_is_unknown(theirs, f"in {session.db}")
        if not theirs and output.table:
            return
    write(found, by, Scope(order=asked.order, limit=limit), output, whole=not whom)


def suppositions(
    shocks: Sequence[str],
    days: float,
    thresholds: Sequence[str],
    sweep: str | None,
    chart: Path | None,
    scheduler: str | None,
) -> Supposed:
    """What the flags suppose. Raises `UsageError`, before anything is computed, where that is nothing, or too little."""
    from indexer.risk.scenario import Change, Sweep

    if not (shocks or days or thresholds or sweep):
        raise click.UsageError(NOTHING)
    if chart is not None:
        from indexer.report import sweep_chart

        if sweep is None:
            raise click.UsageError("--chart draws a sweep; add --sweep WETH=0..-60%")
        sweep_chart.check(chart)
    if scheduler is not None and sweep is None:
        raise click.UsageError("--scheduler is for --sweep: one scenario is computed faster than it is sent anywhere")
    return Supposed(
        [Change.shock(text) for text in shocks],
        [Change.threshold(text) for text in thresholds],
        None if sweep is None else Sweep.parse(sweep),
        days,
    )


def computed(
    books: "Sequence[Book]",
    names: "Names",
    supposed: Supposed,
    pace: float,
    at_risk_below: float,
    progress: "Progress",
    elsewhere: tuple[str, bool] | None = None,
    *,
    whole: bool,
) -> "simulating.Simulation | list[dict[str, Any]]":
    """The simulation, of the `whole` book without those who do not become liquidatable; of a sweep its rows.

    A sweep is computed `elsewhere`, if given: by which scheduler, and whether it may be an insecure one.
    """
    from indexer.risk import simulate as simulating
    from indexer.risk.scenario import spelt

    scenario, swept = spelt([(book.adapter, book.market) for book in books], names, *supposed, pace)
    found: simulating.Simulation | list[dict[str, Any]]
    steps: Iterable[tuple[float, list[simulating.Totals]]]
    if swept is not None:
        if elsewhere is not None:
            from indexer.risk.swept import sweep_elsewhere

            steps = sweep_elsewhere(books, scenario, swept, names, at_risk_below, *elsewhere)
        else:
            steps = simulating.sweep(books, scenario, swept, names, at_risk_below=at_risk_below, progress=progress)
        found = simulating.sweep_rows(books, steps)
    else:
        found = simulating.simulate(
            books,
            scenario,
            names,
            at_risk_below=at_risk_below,
            every=not whole,
            progress=progress,
        )
    for line in simulating.remarks(books, scenario, names):
        remark(line)
    if supposed.days:
        remark(f"{supposed.days:g} days are {scenario.blocks:,} blocks of {pace:g} s where interest counts blocks")
    return found


def draw(chart: Path | None, supposed: Supposed, rows: "Sequence[dict[str, Any]]", also: Sequence[str]) -> None:
    """Draws the sweep where a chart is asked for; `also` is what else is supposed."""
    from indexer.report import sweep_chart

    if chart is not None and supposed.swept is not None:
        sweep_chart.draw(chart, supposed.swept.name, rows, "; ".join(also))
        remark(f"{chart} is written")


def suitable(session: Session, conn: sqlite3.Connection, asked: Asked, scope: Scope) -> list[sqlite3.Row]:
    """The deployments that are asked for and can be simulated; remarks say which are left out, and why."""
    from indexer.adapter import WhatIf
    from indexer.risk.chosen import suitable as able
    from indexer.risk.simulate import TOLD

    if not holds(session, conn, chain_id=scope.chain_id, protocols=asked.protocols, deployments=asked.deployments):
        return []
    said: list[str] = []
    rows = able(conn, WhatIf, of=TOLD, say=said.append, protocols=asked.protocols, scope=scope)
    for line in said or ([] if rows else ["no snapshot is of the time that --since and --until ask for"]):
        remark(line)
    return rows


def write(found: "simulating.Simulation", by: str, scope: Scope, output: Output, *, whole: bool) -> None:
    """Writes deployments, assets and the worst positions as tables, or in other formats the rows that --by names."""
    from indexer.risk import simulate as simulating

    if not output.table:
        if by == "deployment":
            rows = simulating.deployment_rows(found)
            output.write_dicts(scope.arranged(rows, list(rows[0])), DEPLOYMENT_TABLE)
        elif by == "asset":
            by_asset = scope.arranged(simulating.asset_rows(found), simulating.ASSET_COLUMNS)
            output.write_dicts(by_asset, ASSET_TABLE, simulating.ASSET_COLUMNS)
        else:
            output.write_dicts(outcome_rows(found, scope), simulating.OUTCOME_COLUMNS)
        return
    shown = scope.limit or (WORST if whole else len(found.outcomes))
    worst = outcome_rows(found, replace(scope, limit=shown))
    columns = WORST_TABLE.copy()
    if any(row["health_factor_accrued_after"] is not None for row in worst):
        columns.insert(columns.index("health_factor_after") + 1, "health_factor_accrued_after")
    sets: list[tuple[str, Sequence[str], Any]] = []
    if whole:
        sets.append(
            ("By deployment", DEPLOYMENT_TABLE, for_people(DEPLOYMENT_TABLE, simulating.deployment_rows(found)))
        )
        assets = simulating.asset_rows(found)
        if assets:
            sets.append(
                ("Debts and collateral of those who become liquidatable", ASSET_TABLE, for_people(ASSET_TABLE, assets))
            )
    elif len(found.outcomes) > 1 and not output.columns:
        sets.append(("Together", TOGETHER_TABLE, for_people(TOGETHER_TABLE, [simulating.together(found.outcomes)])))
    sets.append(("Positions", columns, for_people(columns, worst)))
    output.write_sets(*sets)
    if len(found.outcomes) > shown:
        remark(f"{len(found.outcomes) - shown:,} more become liquidatable; --limit N shows them, --csv all")


def outcome_rows(found: "simulating.Simulation", scope: Scope) -> "list[Mapping[str, Any]]":
    """The rows of the positions that were kept, in the order that is asked for."""
    from indexer.risk import simulate as simulating

    outcomes = found.outcomes if scope.order else found.outcomes[: scope.limit]
    return scope.arranged([simulating.outcome_row(one) for one in outcomes], simulating.OUTCOME_COLUMNS)
