"""The verbs `at-risk` and `show`: the positions of everyone near liquidation, and those of one wallet."""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from indexer.queries import exports as exporting
from indexer.queries import queries as reading
from indexer.queries.exports import Kind
from indexer.queries.freshness import freshness, waits
from indexer.queries.scope import Scope
from indexer.queries.wallet import KEY
from indexer.store.progress import left_out
from indexer.store.rows import POSITION_COLUMNS
from indexer.terminal.freshness import fails_when_old, max_age_option, say, verdict
from indexer.terminal.options import (
    Session,
    below_option,
    connected,
    endpoint_options,
    exact_option,
    holds,
    session_of,
    target_option,
)
from indexer.terminal.output import Output, output_options
from indexer.terminal.people import WALLETS, Person, person
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import bars, remark
from indexer.text.values import for_people, many
from indexer.units import AT_RISK_BELOW, scaled

if TYPE_CHECKING:
    from indexer.sync.live import LivePosition

AT_RISK_TABLE = "deployment position_group wallet status health_factor debt_usd collateral_usd blocked_by".split()


@click.command(
    "at-risk", epilog="\b\nExamples:\n  indexer at-risk --min-debt 1000\n  indexer at-risk --below 1.02 --json"
)
@below_option
@list_options()
@exact_option
@click.option("--exit-code", is_flag=True, help="Exit with 3 if anyone is at risk, else with 1 if that is unknown.")
@max_age_option("The same, and rows older than this (10m, 2h) count as unknown.  [default with --exit-code: 10m]")
@output_options
@session_of
def at_risk(
    session: Session,
    below: float | None,
    asked: Asked,
    exact: bool,
    exit_code: bool,
    max_age: float | None,
    output: Output,
) -> None:
    """List who is at risk of liquidation, the largest debt first.

    Without --below, that is everyone who can be liquidated now or has a health factor below 1.1 (at_risk_below in the
    configuration at the time of the sync).
    """
    with session.read(for_people=output.table, exact=exact, below=below) as conn:
        scope = asked.scope(session, conn)
        chosen = {"chain_id": scope.chain_id, "protocols": asked.protocols, "deployments": asked.deployments}
        synced = holds(session, conn, **chosen)  # type: ignore[arg-type]
        ages = freshness(conn, **chosen)  # type: ignore[arg-type]
        hidden = say_who_is_left_out(conn, asked.protocols, scope, synced=synced)
        if not output.table:
            say(conn, only_old=True)  # an empty list of old rows is no good news
        with bars() as progress:
            progress.start("positions", 1, "query")
            columns, found = exporting.select(
                conn, Kind.AT_RISK, below=below, min_debt=asked.min_debt, protocols=asked.protocols, scope=scope
            )
            rows = iter(found)
            first = next(rows, None)  # SQLite has sorted them by now; they are written as they come
        listed = () if first is None else chain((first,), rows)
        output.write_list(AT_RISK_TABLE, columns, listed)
    if first is None and synced and output.table:
        remark("nobody is at risk" if below is None else f"nobody has a health factor below {below:g}")
    anyone = first is not None or (hidden > 0 and below is None)
    raise SystemExit(verdict(ages, listed=anyone, exit_code=exit_code, max_age=max_age, nothing=not synced))


def say_who_is_left_out(conn: sqlite3.Connection, protocols: Sequence[str], scope: Scope, *, synced: bool) -> int:
    """Remarks on positions of unknown status, with how many are below 1.1, and on deployments whose state is not ok."""
    hidden = 0
    far = left_out(conn) if synced else []
    if far:
        remark(f"not all logs are read yet: {', '.join(f'{name} {words}' for name, words in far)}")
    for state, count, lower, note in reading.unlisted(conn, AT_RISK_BELOW, protocols, scope):
        known = f", {lower:,} of them below {AT_RISK_BELOW}: --below {AT_RISK_BELOW} lists them" if lower else ""
        remark(
            f"{many(count, 'position')} {'is' if count == 1 else 'are'} {state}{known}; the column note says why, for example: {note}"
        )
        hidden += lower
    for row in reading.status(conn, str, time.time()) if reading.troubled(conn) else ():
        if row["state"] != "ok" and (synced or row["state"] != "new"):
            remark(f"{row['deployment']} is {row['state']}: {row['note']}")
    return hidden


SHOW_TABLE = (
    "deployment position_group account owner_via status health_factor collateral_usd debt_usd net_usd "
    "liquidation_by_interest block_number"
).split()
SHOW_BALANCES = "deployment position_group account side symbol amount value_usd is_collateral".split()


@click.command(
    short_help="Show a person's positions and what liquidates them.",
    epilog="\b\nExamples:\n  indexer show 0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503"
    "\n  indexer show --live 0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503"
    "\n  indexer show --target 2 treasury @family",
)
@click.argument("whom", nargs=-1, metavar=WALLETS)
@click.option("--live", is_flag=True, help="Read it from the chain now, without the database.")
@target_option()
@list_options()
@endpoint_options
@exact_option
@output_options
@fails_when_old
@session_of
def show(
    session: Session,
    /,
    whom: Sequence[str],
    live: bool,
    target: float,
    asked: Asked,
    exact: bool,
    output: Output,
    **flags: Any,
) -> None:
    """Show a person's positions, those held through a proxy too, their balances, and what liquidates them.

    That is, for each asset, the price at which it happens if the others stay as they are, and how far away that is; the
    time that interest alone takes at today's rates; what to repay or to add to reach a target; what one call could close
    now. Values are in USD, amounts in whole tokens; JSON has the exact integers, CSV and TSV only the positions.

    Several wallets, also those of --wallet, are one person: their positions are listed together and added up, over
    protocols and chains.
    """
    goal = scaled(target)
    who = person(session, named_by(whom, asked), flags["rpc_urls"])
    asked = replace(asked, wallets=())
    if live:
        if asked.since is not None or asked.until is not None:
            raise click.UsageError("--since and --until choose rows of the database, and --live reads the chain now")
        found = shown_live(session, who, goal, asked, flags)
    else:
        found = shown_stored(session, who, goal, asked, exact=exact, for_people=output.table)
    rows = Scope(order=asked.order, limit=asked.limit).arranged(found, POSITION_COLUMNS)
    if not output.table:
        output.write_dicts(rows, SHOW_TABLE, POSITION_COLUMNS)
        return
    if not rows:
        return
    from indexer.report import outlook
    from indexer.report.together import together

    sums = [together(found)] if len(found) > 1 and not output.columns else []
    held_columns = outlook.apart(SHOW_BALANCES, rows)
    balances = [balance for row in rows for balance in row["balances"]]
    shown = [{**row, "liquidation_by_interest": outlook.until(row["outlook"])} for row in rows]
    output.write_sets(
        *(("Together", TOGETHER, for_people(TOGETHER, sums)) for _ in sums),
        ("Positions", SHOW_TABLE, for_people(SHOW_TABLE, shown)),
        ("What they hold and owe", held_columns, for_people(held_columns, balances)),
        *((outlook.TITLES[name], columns, lines) for name, columns, lines in outlook.tables(rows)),
    )


def named_by(whom: Sequence[str], asked: Asked) -> list[str]:
    """Whom the arguments and --wallet name. Raises `click.UsageError` if that is nobody."""
    named = [*whom, *asked.wallets]
    if not named:
        raise click.UsageError("say whose positions: an address, an ENS name, a label, or a @group of the watch list")
    return named


def shown_live(
    session: Session, who: Person, goal: int, asked: Asked, flags: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """A person's positions on the chain now."""
    from indexer.sync.live import live as read_live

    places = {"chain": asked.chain, "protocols": asked.protocols, "deployments": asked.deployments}
    with connected(session, {**flags, **places}) as (chain, adapters):
        rows = [live_row(found, goal) for found in read_live(chain, adapters, who.wallets)]
    who.say_who_is_unknown(rows, f"on {chain.name} now")
    return [row for row in rows if asked.keeps(row)]


def shown_stored(
    session: Session, who: Person, goal: int, asked: Asked, *, exact: bool, for_people: bool
) -> list[Mapping[str, Any]]:
    """A person's positions in the database."""
    from indexer.report import outlook

    with session.read(exact=exact) as conn:
        places = {"protocols": asked.protocols, "deployments": asked.deployments}
        synced = holds(session, conn, chain_id=session.chain_id(conn, asked.chain), **places)
        theirs = reading.wallets(conn, who.wallets)
        rows = asked.picked(session, conn, theirs)
        outlooks = outlook.stored(conn, session.deployments(conn), who.wallets, goal) if rows else {}
        if synced:
            who.say_who_is_unknown(theirs, f"in {session.db}")
        if theirs and not rows:
            remark(f"the flags leave out every position of theirs in {session.db} ({len(theirs):,})")
        if rows and for_people:
            say(conn, sorted({row["deployment"] for row in rows}))
            waiting = waits(rows)
            if waiting:
                remark(waiting)
    return [{**row, "outlook": outlooks.get(tuple(row[name] for name in KEY))} for row in rows]


TOGETHER = "positions supply_usd debt_usd net_usd health_factor".split()


def live_row(found: "LivePosition", target: int) -> dict[str, Any]:
    """A position read from the chain in the shape of `indexer.queries.queries.wallets`."""
    from indexer.report import outlook

    columns = found.row._asdict()
    balances = [row._asdict() for row in found.balances]
    ahead = outlook.ahead(found.adapter, found.market, found.position, target, found.seconds_per_block)
    if ahead is None:
        remark(outlook.unknown(found.adapter.deployment.name))
    return {**columns, "balances": balances, "outlook": ahead}
