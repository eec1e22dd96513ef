"""The verbs `status` and `protocols`: what is synced, and what can be synced."""

import time

import click

from indexer.console import remark
from indexer.queries import queries as reading
from indexer.terminal.options import Session, session_of
from indexer.terminal.output import Output, output_options
from indexer.text import age

STATUS_TABLE = "chain deployment state block_number age positions at_risk requests note".split()


@click.command(epilog="\b\nExample:\n  indexer status")
@output_options
@session_of
def status(session: Session, output: Output) -> None:
    """Show how far each deployment is synced, and which alerts were refused."""
    from indexer.delivery.queue import refused

    with session.read() as conn:
        rows = reading.status(conn, session.config.chain_name, time.time())
        for line in refused(conn):
            remark(line)
    if output.table:
        rows = [{**row, "age": age(row["age_seconds"])} for row in rows]
    output.write_dicts(rows, STATUS_TABLE, reading.STATUS_COLUMNS)


@click.command(epilog="\b\nExample:\n  indexer protocols --chain mainnet")
@click.option("--chain", metavar="NAME", help="Only this chain.")
@output_options
@session_of
def protocols(session: Session, chain: str | None, output: Output) -> None:
    """List the known deployments with their addresses and start blocks."""
    config = session.config
    config.check_own()
    if chain is not None:
        config.chain(chain)
    rows = [
        (found.chain, found.name, found.protocol, found.start_block, dict(found.addresses))
        for found in config.deployments.values()
        if chain in (None, found.chain)
    ]
    output.write(["chain", "deployment", "protocol", "start_block", "addresses"], rows)
