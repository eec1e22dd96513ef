"""The verbs `oracles` and `volatility`: the feeds behind the oracles, as the last `sync --prices` saw them."""

import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from time import sleep
from typing import Any

import click

from indexer.queries import prices
from indexer.store.shards import each
from indexer.terminal.freshness import fails_when_old
from indexer.terminal.options import Session, holds, session_of
from indexer.terminal.output import Format, Output, output_options, write
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import remark

ORACLES = (
    "deployment symbol state price_usd age_seconds heartbeat_seconds answer deviation_bps pending_kind pending_price "
    "pending_time cap_distance_percent capped days_to_cap par_distance_percent description position_group"
).split()
VOLATILITY = (
    "description assets volatility_7d volatility_30d volatility_now worst_day_percent correlation_eth samples age_seconds "
    "volatility_1d volatility_365d worst_hour_percent note"
).split()
#: seconds between two looks at the file
PAUSE = 2.0
#: what makes a row worth telling again
TOLD = "state answer_raw updated_at pending_price_raw pending_at cap_raw capped".split()


@click.command(
    short_help="Show the oracle behind each price: age, cap, what waits.",
    epilog="\b\nExamples:\n  indexer oracles\n  indexer oracles WETH --deployment aave-v3-core\n  indexer oracles --follow",
)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--follow", is_flag=True, help="Go on: each row again when it has changed, until Ctrl-C; a table, or --nl."
)
@list_options(sort="what is wrong first", without=("wallets", "min_debt", "since", "until"))
@output_options
@fails_when_old
@session_of
def oracles(session: Session, names: tuple[str, ...], follow: bool, asked: Asked, output: Output) -> None:
    """Show the oracle behind each price: its age, what waits, and how far its cap is.

    NAME is a symbol, a feed's address or its description. One row for each feed of a price, as of the last
    `indexer sync --prices`; price_usd is what the protocol's oracle made of them at the last snapshot. `state` is stale (older than 3 heartbeats), overdue (than 1.1), depeg (usually 1, and three answers
    more than 0.5 % off), capped, ok, or unknown. Heartbeat and deviation are learnt from the feed's own rounds: they are not on
    the chain, and empty where the rounds do not tell. A pending price is on the chain and not in force: of Maker's OSM at
    pending_time at the earliest, of a hidden Chainlink round (svr) at the latest.
    """
    from indexer.prices.oracles import COLUMNS

    if follow and not (output.table or output.lines or not output.asked):
        raise click.UsageError("--follow writes a table or JSON lines (--nl), each row again when it has changed")
    if follow:
        with suppress(KeyboardInterrupt):
            for changed in changes(session, names, asked):
                tell(changed, output)
        return
    with session.read(for_people=output.table) as conn:
        found = rows_of(session, conn, names, asked)
        arranged = asked.scope(session, conn).arranged(found, COLUMNS)
    output.write_dicts(arranged, ORACLES, COLUMNS)


def rows_of(session: Session, conn: sqlite3.Connection, names: Sequence[str], asked: Asked) -> list[Mapping[str, Any]]:
    """The rows that are asked for, as the file has them now."""
    from indexer.prices.listed import NOTHING, listed
    from indexer.prices.oracles import rows

    chain_id = asked.scope(session, conn).chain_id
    if not holds(session, conn, chain_id=chain_id, protocols=asked.protocols, deployments=asked.deployments):
        return []
    found = listed(conn, rows, names, chain_id=chain_id)
    if not found:
        remark(NOTHING)
    return [row for row in found if asked.of_place(row)]


def changes(session: Session, names: Sequence[str], asked: Asked) -> Iterator[list[Mapping[str, Any]]]:
    """The rows, and then without end those that changed, whenever a sync brought the prices further."""
    told: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    seen: object = None
    while True:
        changed = []
        with session.read() as conn:
            reached = [prices.known_until(file, chain) for file in each(conn) for chain, _ in prices.chains(file)]
            rows = rows_of(session, conn, names, asked) if reached != seen else []
            seen = reached
        for row in rows:
            key = row["deployment"], row["asset"], row["position_group"], row["feed"]
            now = tuple(row[name] for name in TOLD)
            if told.get(key) != now:
                told[key] = now
                changed.append(row)
        if changed:
            yield changed
        sleep(PAUSE)


def tell(rows: Sequence[Mapping[str, Any]], output: Output) -> None:
    """Writes rows at once: a table to people, else JSON, one object a line."""
    if output.table:
        output.write_dicts(rows, ORACLES)
    else:
        write([*rows[0]], ([*row.values()] for row in rows), Format.NL, sys.stdout)
    sys.stdout.flush()


@click.command(
    short_help="Show how much the price of each feed moves.",
    epilog="\b\nExamples:\n  indexer volatility\n  indexer volatility WETH WBTC\n  indexer volatility --sort volatility_30d --limit 10",
)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@list_options(
    sort="by description", without=("wallets", "min_debt", "since", "until", "deployments", "protocols")
)  # fmt: skip
@output_options
@session_of
def volatility(session: Session, names: tuple[str, ...], asked: Asked, output: Output) -> None:
    """Show how much the price of each feed moves, from its own rounds.

    NAME is a symbol, a feed's address or its description. Volatilities are fractions a year (0.8 is 80 %), of the last 1, 7, 30
    and 365 days and now (weighted by time); empty where the history is shorter. The worst hour and day are the deepest falls in
    all that is known, up to a year. JSON names the estimators. `indexer sync --prices` brings the history up to date.
    """
    from indexer.prices.listed import NOTHING, listed
    from indexer.prices.volatility import COLUMNS, rows

    with session.read(for_people=output.table) as conn:
        scope = asked.scope(session, conn)
        found = listed(conn, rows, names, chain_id=scope.chain_id)
    if not found:
        remark(NOTHING)
    output.write_dicts(scope.arranged(found, COLUMNS), VOLATILITY, COLUMNS)
