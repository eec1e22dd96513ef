"""The verb `movements`."""

from collections.abc import Sequence

import click

from indexer.cli.freshness import fails_when_old
from indexer.cli.options import Moment, Number, Session, holds, moment, session_of
from indexer.cli.output import Output, output_options
from indexer.console import bars, remark
from indexer.errors import ConfigError
from indexer.text import iso

DAY = 86_400
MOVEMENT_TABLE = (
    "deployment wallet supply_change_usd debt_change_usd collateral_usd debt_usd health_factor status first_block_number "
    "last_block_number last_block_time"
).split()


def block_or_moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | Moment | None:
    """A block number, or the time that a date or an age means."""
    from indexer.store.history import LAST

    if value is None:
        return None
    return min(int(value), LAST) if value.isdecimal() else moment(value)


@click.command(
    epilog="\b\nExamples:\n  indexer movements --min 100000\n  indexer movements --since 7d --protocol aave-v3"
    "\n  indexer movements --since 21000000 --until 21007200 --csv"
)
@click.option(
    "--since",
    callback=block_or_moment,
    metavar="BLOCK|DATE|AGE",
    help="After this  [default: a day before the last block]",
)
@click.option(
    "--until", callback=block_or_moment, metavar="BLOCK|DATE|AGE", help="Up to this  [default: the last block]"
)
@click.option(
    "--min",
    "min_usd",
    type=Number(min=0),
    default=1000.0,
    show_default=True,
    metavar="USD",
    help="Supplied, withdrawn, borrowed or repaid at least so much.",
)
@click.option("--chain", metavar="NAME", help="Only this chain; block numbers need it where several are synced.")
@click.option("--protocol", "protocols", multiple=True, metavar="P", help="Only this protocol; repeatable.")
@output_options
@fails_when_old
@session_of
def movements(
    session: Session,
    since: int | Moment | None,
    until: int | Moment | None,
    min_usd: float,
    chain: str | None,
    protocols: Sequence[str],
    output: Output,
) -> None:
    """List who added or removed most between two snapshots.

    Sums over all of a wallet's positions in a deployment, in USD at the prices of the snapshots that saw the change,
    without the effect of prices and interest; below 0 is withdrawn, repaid or liquidated. An age such as 7d counts back
    from the last block of the data. Movements are known from the first snapshot on, as finely as snapshots were taken, and
    for older times as finely as history is kept.
    """
    from indexer.store import history as moved

    columns = [*moved.MOVEMENT_COLUMNS, "last_block_time"]
    with session.read(for_people=output.table) as conn, bars() as progress:
        chain_id = session.chain_id(conn, chain)
        progress.start("movements", 1, "query")
        newest, chains = conn.execute(
            "select max(block_timestamp), count(distinct chain_id) from deployments "
            "where block_number is not null and (?1 is null or chain_id = ?1)",
            (chain_id,),
        ).fetchone()
        if not holds(session, conn, chain_id=chain_id, protocols=protocols):
            output.write_dicts([], MOVEMENT_TABLE, columns)
            return
        since = Moment(DAY, ago=True) if since is None else since
        if chains > 1 and (isinstance(since, int) or isinstance(until, int)):
            raise ConfigError("several chains are synced: say whose blocks these are with --chain, or give dates")
        rows = moved.movements(
            conn,
            since_block=since if isinstance(since, int) else None,
            since=since.since(newest) if isinstance(since, Moment) else None,
            until_block=until if isinstance(until, int) else None,
            until=until.before(newest) if isinstance(until, Moment) else None,
            min_usd=min_usd,
            chain_id=chain_id,
            protocols=protocols,
        )
        unknown = moved.unknown_movements(conn, chain_id)
    for row in rows:
        row["last_block_time"] = iso(int(str(row["last_block_timestamp"])))
    if unknown:
        remark(
            f"of {unknown:,} positions some movement is unknown: a price is missing, they were found late, or the snapshot "
            "to compare with was orphaned"
        )
    if not rows:
        remark(f"nobody moved {min_usd:,.0f} USD in that time")
    output.write_dicts(rows, MOVEMENT_TABLE, columns)
