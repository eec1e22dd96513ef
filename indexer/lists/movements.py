"""The verb `movements`."""

import click

from indexer.terminal.freshness import fails_when_old
from indexer.terminal.options import Moment, Number, Session, holds, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import bars, remark

DAY = 86_400
MOVEMENT_TABLE = (
    "deployment wallet supply_change_usd debt_change_usd collateral_usd debt_usd health_factor status first_block_number "
    "last_block_number last_block_time"
).split()


@click.command(
    epilog="\b\nExamples:\n  indexer movements --min 100000\n  indexer movements --since 7d --protocol aave-v3"
    "\n  indexer movements --since 21000000 --until 21007200 --csv"
)
@list_options(sort="the largest movement first", since="a day before the last block", what="What moved")
@click.option(
    "--min",
    "min_usd",
    type=Number(min=0),
    default=1000.0,
    show_default=True,
    metavar="USD",
    help="Supplied, withdrawn, borrowed or repaid at least so much.",
)
@output_options
@fails_when_old
@session_of
def movements(
    session: Session,
    asked: Asked,
    min_usd: float,
    output: Output,
) -> None:
    """List who added or removed most between two snapshots.

    Sums over all of a wallet's positions in a deployment, in USD at the prices of the snapshots that saw the change,
    without the effect of prices and interest; below 0 is withdrawn, repaid or liquidated. An age such as 7d counts back
    from the last block of the data. Movements are known from the first snapshot on, as finely as snapshots were taken, and
    for older times as finely as history is kept.
    """
    from indexer.history import history as moved

    columns = moved.MOVEMENT_COLUMNS
    with session.read(for_people=output.table) as conn, bars() as progress:
        scope = asked.scope(session, conn)
        progress.start("movements", 1, "query")
        where = {"chain_id": scope.chain_id, "protocols": asked.protocols}
        if not holds(session, conn, deployments=asked.deployments, **where):  # type: ignore[arg-type]
            output.write_dicts([], MOVEMENT_TABLE, columns)
            return
        span = asked.span(conn, scope.chain_id, Moment(DAY, ago=True))
        rows = moved.movements(
            conn,
            since_block=span.since_block,
            since=span.since,
            until_block=span.until_block,
            until=span.until,
            min_usd=min_usd,
            **where,  # type: ignore[arg-type]
        )
        said = moved.movement_remarks(conn, scope.chain_id)
    rows = [row for row in rows if asked.keeps(row)]
    for line in said:
        remark(line)
    if not rows:
        remark(f"nobody moved {min_usd:,.0f} USD in that time")
    output.write_dicts(scope.arranged(rows, columns), MOVEMENT_TABLE, columns)
