"""The verb `liquidations`."""

from collections.abc import Sequence

import click

from indexer.cli.freshness import fails_when_old
from indexer.cli.movements import block_or_moment
from indexer.cli.options import Moment, Session, holds, session_of, wallet_address
from indexer.cli.output import Output, output_options
from indexer.console import remark
from indexer.errors import ConfigError
from indexer.store.liquidations import ADDED, LIQUIDATION_COLUMNS, SORTS
from indexer.text import iso

TABLE = (
    "deployment position_group account block_number block_time repaid debt_symbol repaid_usd seized collateral_symbol "
    "seized_usd liquidator"
).split()


def addresses(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[str]:
    """Addresses as `wallet_address` takes one."""
    return [wallet_address(context, parameter, value) for value in values]


@click.command(
    epilog="\b\nExamples:\n  indexer liquidations --since 7d\n  indexer liquidations --protocol maker --sort seized --limit 20"
    "\n  indexer liquidations --since 21000000 --until 21007200 --csv"
)
@click.option("--since", callback=block_or_moment, metavar="BLOCK|DATE|AGE", help="From here on  [default: all]")
@click.option(
    "--until", callback=block_or_moment, metavar="BLOCK|DATE|AGE", help="Up to this  [default: the last block]"
)
@click.option("--chain", metavar="NAME", help="Only this chain; block numbers need it where several are synced.")
@click.option("--deployment", "deployments", multiple=True, metavar="D", help="Only this one; repeatable.")
@click.option("--protocol", "protocols", multiple=True, metavar="P", help="Only this protocol; repeatable.")
@click.option("--wallet", "wallets", multiple=True, callback=addresses, metavar="ADDRESS", help="Whose; repeatable.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many rows.")
@click.option(
    "--sort", type=click.Choice(list(SORTS)), default="time", show_default=True, help="The newest or the largest first."
)
@output_options
@fails_when_old
@session_of
def liquidations(
    session: Session,
    since: int | Moment | None,
    until: int | Moment | None,
    chain: str | None,
    deployments: Sequence[str],
    protocols: Sequence[str],
    wallets: Sequence[str],
    limit: int | None,
    sort: str,
    output: Output,
) -> None:
    """List the liquidations that logs tell of, the newest first.

    One row a log. Amounts are in whole tokens and, where the column ends in _raw, in smallest units; USD only where a price
    of that time is known. Aave tells what the liquidator got, without the protocol's fee; Compound V2 seizes cTokens;
    Comet tells of an absorption in a row for the debt and one for each collateral; Maker of an auction that begins,
    and not who called. `indexer sync --liquidations` fetches those from before a deployment was followed.
    """
    from indexer.store import liquidations as store

    columns = [*LIQUIDATION_COLUMNS, *ADDED, "wallet", "block_time"]
    with session.read(for_people=output.table) as conn:
        chain_id = session.chain_id(conn, chain)
        choice = {"chain_id": chain_id, "protocols": protocols, "deployments": deployments}
        if not holds(session, conn, **choice):  # type: ignore[arg-type]
            output.write_dicts([], TABLE, columns)
            return
        synced = conn.execute(
            "select chain_id, deployment, protocol, block_timestamp, liquidations_from_block from deployments "
            "where block_number is not null and (?1 is null or chain_id = ?1)",
            (chain_id,),
        ).fetchall()
        if len({row["chain_id"] for row in synced}) > 1 and (isinstance(since, int) or isinstance(until, int)):
            raise ConfigError("several chains are synced: say whose blocks these are with --chain, or give dates")
        newest = max(row["block_timestamp"] for row in synced)
        rows = store.listed(
            conn,
            since_block=since if isinstance(since, int) else None,
            since=since.since(newest) if isinstance(since, Moment) else None,
            until_block=until if isinstance(until, int) else None,
            until=until.before(newest) if isinstance(until, Moment) else None,
            chain_id=chain_id,
            deployments=deployments,
            protocols=protocols,
            wallets=wallets,
            sort=sort,
            limit=limit,
        )
    for row in synced:
        chosen = (not deployments or row["deployment"] in deployments) and (
            not protocols or row["protocol"] in protocols
        )
        first = row["liquidations_from_block"]
        if chosen and not (isinstance(since, int) and first is not None and first <= since):
            whole = "none is complete yet" if first is None else f"complete from block {first} on"
            remark(f"{row['deployment']}: {whole}; `indexer sync --liquidations --since 400d` fetches older ones")
    for row in rows:
        row["block_time"] = iso(row["block_timestamp"])
    output.write_dicts(rows, TABLE, columns)
