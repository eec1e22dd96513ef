"""The verb `levels`: how much debt becomes liquidatable at which price of an asset."""

import sqlite3
from collections.abc import Iterator, Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from indexer.errors import ConfigError
from indexer.lists.liquidatable import liquidatable
from indexer.queries import markets
from indexer.queries.exports import MIN_DEBT
from indexer.queries.freshness import freshness
from indexer.queries.scope import Scope
from indexer.terminal.freshness import fails_when_old
from indexer.terminal.options import Session, holds, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import bars, remark
from indexer.text.values import iso

if TYPE_CHECKING:
    from indexer.model import Deployment
    from indexer.progress import Progress
    from indexer.risk.levels import Level

STEP = 5
OLDEST = ("oldest_block_number", "oldest_block_time")
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
    from indexer.risk import levels as computed

    columns = [*computed.COLUMNS, *OLDEST]
    with session.read(for_people=output.table, exact=True) as conn:
        scope = asked.scope(session, conn)
        if not holds(session, conn, chain_id=scope.chain_id, protocols=asked.protocols, deployments=asked.deployments):
            output.write_dicts([], columns, columns)
            return
        with bars() as progress:
            rows = found(session, conn, asset, step, asked, progress)
        oldest = oldest_of(conn, scope, asked)
    if not rows:
        remark(f"no position with debt depends on the price of {asset}")
    output.write_dicts(scope.arranged([row | oldest for row in rows], columns), TABLE, columns)


def oldest_of(conn: sqlite3.Connection, scope: Scope, asked: Asked) -> dict[str, Any]:
    """The oldest block among the chosen deployments' rows, with its time."""
    rows = freshness(conn, chain_id=scope.chain_id, protocols=asked.protocols, deployments=asked.deployments)
    at, block = min((row.block_timestamp, row.block_number) for row in rows if row.block_timestamp is not None)
    return dict(zip(OLDEST, (block, iso(at)), strict=True))


def found(
    session: Session, conn: sqlite3.Connection, asset: str, step: int, asked: Asked, progress: "Progress"
) -> list[dict[str, Any]]:
    """The rows of the histogram."""
    from indexer.risk.levels import histogram

    scope = asked.scope(session, conn)
    keys, price = named(conn, asset, scope)
    return histogram(list(each(conn, session.deployments(conn), asset, keys, asked, scope, progress)), step, price)


def named(conn: sqlite3.Connection, asset: str, scope: Scope) -> tuple[list[str], float | None]:
    """The addresses of an asset, and the median of its prices. Raises `ConfigError` for one that no market has."""
    from indexer.plugins import did_you_mean
    from indexer.risk.levels import named as is_named

    rows = markets.priced(conn, scope)
    mine = [row for row in rows if is_named(asset, row["asset"], row["symbol"])]
    if not mine:
        raise ConfigError(f"no market has the asset {asset!r}{did_you_mean(asset, {row['symbol'] for row in rows})}")
    prices = [row["price_usd"] for row in mine if row["price_usd"] is not None]
    return sorted({row["asset"].lower() for row in mine}), median(prices) if prices else None


def each(
    conn: sqlite3.Connection,
    known: "Mapping[str, Deployment]",
    asset: str,
    keys: list[str],
    asked: Asked,
    scope: Scope,
    progress: "Progress",
) -> "Iterator[Level]":
    """The levels of every position with debt that holds or owes the asset."""
    from indexer.adapter import Liquidation
    from indexer.risk.levels import levels_of
    from indexer.store import books as loading

    conditions, values = scope.of_positions("p.block_timestamp")
    conditions += ["p.status <> 'no-debt'", markets.holds_one_of(keys)]
    given: list[Any] = [*values, *keys]
    if asked.min_debt is not None:
        conditions.append(MIN_DEBT)
        given.append(asked.min_debt)
    books = liquidatable(
        conn,
        known,
        of="what endangers a position",
        computed="levels",
        chain_id=scope.chain_id,
        protocols=asked.protocols,
        names=asked.deployments,
    )
    for book in books:
        assert isinstance(book.adapter, Liquidation)
        progress.start(book.name, 0, "positions")
        for _, position in loading.chosen(conn, book, " and ".join(conditions), given):
            yield from levels_of(book.adapter, book.market, position, asset)
            progress.advance(book.name, 1)
        progress.done(book.name)
