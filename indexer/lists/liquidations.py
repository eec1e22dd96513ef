"""The verb `liquidations`."""

import click

from indexer.queries import liquidations as reading
from indexer.store.liquidations import SORTS
from indexer.terminal.freshness import fails_when_old
from indexer.terminal.options import Session, holds, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import remark

TABLE = (
    "deployment account block_time debt_symbol repaid repaid_usd position_group collateral_symbol seized seized_usd "
    "liquidator block_number"
).split()


@click.command(
    epilog="\b\nExamples:\n  indexer liquidations --since 7d\n  indexer liquidations --protocol maker --sort seized --limit 20"
    "\n  indexer liquidations --since 21000000 --until 21007200 --csv"
)
@list_options(sort="the newest first; also time, repaid, seized", what="Logs")
@output_options
@fails_when_old
@session_of
def liquidations(session: Session, asked: Asked, output: Output) -> None:
    """List the liquidations that logs tell of, the newest first.

    One row a log. Amounts are in whole tokens and, where the column ends in _raw, in smallest units; USD only where a price
    of that time is known. Aave tells what the liquidator got, without the protocol's fee; Compound V2 seizes cTokens;
    Comet tells of an absorption in a row for the debt and one for each collateral; Maker of an auction that begins,
    and not who called. `indexer sync --liquidations` fetches those from before a deployment was followed.
    """
    with session.read(for_people=output.table) as conn:
        scope = asked.scope(session, conn)
        if not holds(session, conn, chain_id=scope.chain_id, protocols=asked.protocols, deployments=asked.deployments):
            output.write_dicts([], TABLE, reading.COLUMNS)
            return
        rows = reading.rows(conn, scope, protocols=asked.protocols, min_repaid=asked.min_debt)
        for line in reading.missing(conn, scope, asked.protocols):
            remark(line)
    if not rows and output.table:
        remark("no liquidation is known of that")
    ranked = scope.order is not None and scope.order.column in SORTS
    output.write_dicts(rows[: scope.limit] if ranked else scope.arranged(rows, reading.COLUMNS), TABLE, reading.COLUMNS)
