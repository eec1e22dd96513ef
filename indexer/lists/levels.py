"""The verb `levels`: how much debt becomes liquidatable at which price of an asset."""

import click

from indexer.terminal.freshness import fails_when_old
from indexer.terminal.options import Session, holds, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import bars, remark

STEP = 5
#: what matters most first, as a narrow terminal has no room for all
TABLE = (
    "direction change_percent_to price_usd_to positions debt_usd cumulative_debt_usd change_percent_from price_usd_from unvalued"
).split()


@click.command(
    short_help="Show how much debt is liquidatable at which price of ASSET.",
    epilog="\b\nExamples:\n  indexer levels WETH\n  indexer levels WBTC --step 1 --protocol aave-v3 --csv",
)
@click.argument("asset", metavar="ASSET")
@click.option(
    "--step", type=click.IntRange(1, 50), default=STEP, show_default=True, metavar="PERCENT", help="Width of a row."
)
@list_options(sort="now, falls and rises, the nearest first")
@output_options
@fails_when_old
@session_of
def levels(session: Session, asset: str, step: int, asked: Asked, output: Output) -> None:
    """Show how much debt becomes liquidatable at which price of ASSET, a symbol or an address.

    One row a step of the price, other prices as they are: `now` is liquidatable already, `fall` what a lower price makes
    liquidatable (who holds it as collateral), `rise` what a higher one does (who owes it). cumulative_debt_usd adds up from the
    present price on. Each position's price is exact, by the contracts' own rules with interest stored. Prices in USD are the
    median of the oracles'; a position counts by how far its own oracle's price must move.
    """
    from indexer.risk import level_rows as computed

    with session.read(for_people=output.table, exact=True) as conn:
        scope = asked.scope(session, conn)
        holds(session, conn, chain_id=scope.chain_id, protocols=asked.protocols, deployments=asked.deployments)
        with bars() as progress:
            rows = computed.rows(
                conn,
                session.deployments(conn),
                asset,
                say=remark,
                step=step,
                min_debt=asked.min_debt,
                protocols=asked.protocols,
                scope=scope,
                progress=progress,
            )
    output.write_dicts(scope.arranged(rows, computed.COLUMNS), TABLE, computed.COLUMNS)
