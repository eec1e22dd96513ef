"""The verbs `status` and `protocols`: what is synced, and what can be synced."""

import time

import click

from indexer.queries import queries as reading
from indexer.queries.freshness import freshness
from indexer.queries.scope import Scope
from indexer.terminal.freshness import max_age_option, verdict
from indexer.terminal.options import Session, known_names, require, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import remark
from indexer.text.values import age

STATUS_TABLE = "chain deployment state block_number age positions at_risk requests note".split()


@click.command(
    short_help="Show how far each deployment is synced.",
    epilog="\b\nExamples:\n  indexer status\n  indexer status --protocol aave-v3 --sort age_seconds --json"
    "\n  indexer status --exit-code --max-age 10m || echo stale",
)
@list_options(sort="chain and name", what="Deployments whose last snapshot is")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if one is failed, incomplete, never synced or too old.")
@max_age_option("The same, and a block older than this (10m, 2h) is too old.  [default with --exit-code: 10m]")
@output_options
@session_of
def status(session: Session, asked: Asked, exit_code: bool, max_age: float | None, output: Output) -> None:
    """Show how far each deployment is synced, and which alerts were refused.

    With --wallet or --min-debt, those in which such a position is held. --exit-code is for health checks and cron: stderr names
    each deployment whose present state is unknown, and why.
    """
    from indexer.delivery.queue import refused

    with session.read() as conn:
        known_names(session, conn, asked.protocols, asked.deployments)
        scope = asked.scope(session, conn)
        rows = reading.status(conn, session.chain_name, time.time())
        if asked.wallets or asked.min_debt is not None:
            held = reading.deployments_of(conn, Scope(wallets=asked.wallets), asked.min_debt)
            rows = [row for row in rows if (row["chain_id"], row["deployment"]) in held]
        for line in refused(conn):
            remark(line)
        ages = freshness(conn)
    rows = [row for row in rows if asked.of_place(row, scope.chain_id) and scope.span.holds(row)]
    shown = scope.arranged(rows, reading.STATUS_COLUMNS)
    if output.table:
        shown = [{**row, "age": age(row["age_seconds"])} for row in shown]
    output.write_dicts(shown, STATUS_TABLE, reading.STATUS_COLUMNS)
    chosen = {(row["chain_id"], row["deployment"]) for row in rows}
    known = [one for one in ages if (one.chain_id, one.deployment) in chosen]
    raise SystemExit(verdict(known, listed=False, exit_code=exit_code, max_age=max_age))


PROTOCOL_COLUMNS = ["chain", "deployment", "protocol", "start_block", "addresses"]


@click.command(
    short_help="List the known deployments and their addresses.",
    epilog="\b\nExamples:\n  indexer protocols --chain mainnet\n  indexer protocols --protocol maker --json",
)
@list_options(sort="as configured", without=("wallets", "min_debt", "since", "until"))
@output_options
@session_of
def protocols(session: Session, asked: Asked, output: Output) -> None:
    """List the known deployments with their addresses and start blocks."""
    from indexer.plugins import installed

    config = session.config
    config.check_own()
    if asked.chain is not None:
        config.chain(asked.chain)
    require("protocol", asked.protocols, installed().keys())
    require("deployment", asked.deployments, config.deployments.keys())
    rows = [
        {
            "chain": found.chain,
            "deployment": found.name,
            "protocol": found.protocol,
            "start_block": found.start_block,
            "addresses": dict(found.addresses),
        }
        for found in config.deployments.values()
        if asked.chain in (None, found.chain)
    ]
    kept = Scope(order=asked.order, limit=asked.limit).arranged(
        [row for row in rows if asked.of_place(row)], PROTOCOL_COLUMNS[:-1]
    )
    output.write(PROTOCOL_COLUMNS, [[row[name] for name in PROTOCOL_COLUMNS] for row in kept])
