"""The verb `liquidations`."""

import sqlite3
from collections.abc import Sequence

import click

from indexer.store.liquidations import ADDED, LIQUIDATION_COLUMNS
from indexer.terminal.freshness import fails_when_old
from indexer.terminal.options import Session, holds, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import remark
from indexer.text.values import iso

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
    from indexer.store import liquidations as store

    columns = [*LIQUIDATION_COLUMNS, *ADDED, "wallet", "block_time"]
    with session.read(for_people=output.table) as conn:
        scope = asked.scope(session, conn)
        choice = {"chain_id": scope.chain_id, "protocols": asked.protocols, "deployments": asked.deployments}
        if not holds(session, conn, **choice):  # type: ignore[arg-type]
            output.write_dicts([], TABLE, columns)
            return
        synced = store.searched(conn, scope.chain_id)
        named = scope.order is not None and scope.order.column in store.SORTS
        span = scope.span
        rows = store.listed(
            conn,
            since_block=span.since_block,
            since=span.since,
            until_block=span.until_block,
            until=span.until,
            wallets=asked.wallets,
            sort=scope.order.column if scope.order and named else "time",
            **choice,  # type: ignore[arg-type]
        )
    say_what_is_missing(synced, asked, span.since_block or 0)
    for row in rows:
        row["block_time"] = iso(row["block_timestamp"])
    if asked.min_debt is not None:
        rows = [row for row in rows if row["repaid_usd"] is None or row["repaid_usd"] >= asked.min_debt]
    if not rows and output.table:
        remark("no liquidation is known of that")
    kept = rows[: scope.limit] if named else scope.arranged(rows, columns)
    output.write_dicts(kept, TABLE, columns)


def say_what_is_missing(synced: Sequence[sqlite3.Row], asked: Asked, since_block: int) -> None:
    """Says of which deployments older liquidations are not fetched."""
    whence: dict[int | None, list[str]] = {}
    for row in synced:
        chosen = (not asked.deployments or row["deployment"] in asked.deployments) and (
            not asked.protocols or row["protocol"] in asked.protocols
        )
        first, wanted = row["liquidations_from_block"], max(row["start_block"] or 0, since_block)
        if chosen and not (first is not None and first <= wanted):
            whence.setdefault(first, []).append(row["deployment"])
    for first, names in whence.items():
        whole = (
            "liquidations before the first sync are not fetched"
            if first is None
            else f"complete from block {first:,} on"
        )
        remark(f"{', '.join(names)}: {whole}; `indexer sync --liquidations --since 400d` fetches older ones")
