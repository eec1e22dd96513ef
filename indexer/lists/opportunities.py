"""The verb `opportunities`: what a liquidator would earn from everyone near liquidation, from the database alone."""

import click

from indexer.lists.positions import say_who_is_left_out
from indexer.terminal.freshness import fails_when_old
from indexer.terminal.options import Number, Session, below_option, holds, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import bars, remark

TABLE = (
    "deployment position_group account profit_before_gas_usd profit_after_gas_usd debt_symbol repaid collateral_symbol seized "
    "refused function bonus_percent sale_profit_before_gas_usd"
).split()


@click.command(
    short_help="List what a liquidation call pays for everyone at risk.",
    epilog="\b\nExamples:\n  indexer opportunities\n  indexer opportunities --min-profit 50 --gas-price 12.5"
    "\n  indexer opportunities --below 1.02 --protocol aave-v3 --json",
)
@click.option(
    "--min-profit",
    type=Number(),
    metavar="USD",
    help="Only calls that pay at least this, after gas where its price is given; unknown and refused ones are left out.",
)
@click.option("--gas-price", type=Number(min=0), metavar="GWEI", help="What a unit of gas costs, for profit after gas.")
@below_option
@list_options(sort="the most profitable first")
@output_options
@fails_when_old
@session_of
def opportunities(
    session: Session,
    min_profit: float | None,
    gas_price: float | None,
    below: float | None,
    asked: Asked,
    output: Output,
) -> None:
    """List what one liquidation call pays for everyone at risk, the most profitable first.

    For each position, the pair of debt and collateral that pays best by the contracts' own rules: the most that may be
    repaid, what is seized for it, bonus, the protocol's share, and the profit at the oracle's prices, at the last
    snapshot's block with its interest stored. Positions that are only close have `refused` and no profit. Comet's absorb
    pays its caller nothing; the columns sale_* say what buyCollateral then earns. Maker pays a reward for starting an
    auction.
    Values are in USD, amounts in whole tokens and, where the column ends in _raw, in smallest units.
    """
    from indexer.risk import opportunity_rows as computed

    with session.read(for_people=output.table, below=below) as conn:
        scope = asked.scope(session, conn)
        synced = holds(session, conn, chain_id=scope.chain_id, protocols=asked.protocols, deployments=asked.deployments)
        with bars() as progress:
            progress.start("positions", 1, "query")
            rows = computed.rows(
                conn,
                session.deployments(conn),
                say=remark,
                below=below,
                min_debt=asked.min_debt,
                min_profit=min_profit,
                gas_price=gas_price,
                protocols=asked.protocols,
                scope=scope,
            )
        say_who_is_left_out(conn, asked.protocols, scope, synced=synced)
    if synced and not rows:
        remark("nobody can be liquidated for that" if min_profit is not None else "nobody is at risk")
    output.write_dicts(scope.arranged(rows, computed.COLUMNS), TABLE, computed.COLUMNS)
