"""The rows of `indexer levels`: how much debt becomes liquidatable at which price of an asset, from the file alone."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from indexer.adapter import Liquidation
from indexer.errors import ConfigError
from indexer.model import Deployment
from indexer.plugins import did_you_mean
from indexer.progress import NoProgress, Progress
from indexer.queries import markets
from indexer.queries.exports import MIN_DEBT
from indexer.queries.freshness import freshness
from indexer.queries.scope import Scope
from indexer.risk import levels
from indexer.risk.chosen import liquidatable
from indexer.risk.levels import Level, histogram, levels_of
from indexer.store import books
from indexer.text.values import iso

#: the oldest block among the rows of the chosen deployments, with its time
OLDEST = ("oldest_block_number", "oldest_block_time")
COLUMNS = [*levels.COLUMNS, *OLDEST]


def rows(
    conn: sqlite3.Connection,
    known: Mapping[str, Deployment],
    asset: str,
    *,
    say: Callable[[str], None],
    step: int,
    min_debt: float | None = None,
    protocols: Sequence[str] = (),
    scope: Scope | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """The histogram of an asset, a symbol or an address, the nearest prices first; none where nothing is synced.

    `step` is in per cent, `min_debt` in USD. What is left out it will `say`. Raises `ConfigError` for an asset that no market
    has.
    """
    scope = scope or Scope()
    ages = freshness(conn, chain_id=scope.chain_id, protocols=protocols, deployments=scope.deployments)
    there = [(row.block_timestamp, row.block_number) for row in ages if row.block_timestamp is not None]
    if not there:
        return []
    at, block = min(there)
    keys, price = named(conn, asset, scope)
    who = holders(keys, min_debt, scope)
    progress = progress or NoProgress()
    found = histogram(list(each(conn, known, asset, who, protocols, scope, say, progress)), step, price)
    if not found:
        say(f"no position with debt depends on the price of {asset}")
    return [row | dict(zip(OLDEST, (block, iso(at)), strict=True)) for row in found]


def named(conn: sqlite3.Connection, asset: str, scope: Scope) -> tuple[list[str], float | None]:
    """The addresses of an asset, and the median of its prices. Raises `ConfigError` for one that no market has."""
    priced = markets.priced(conn, scope)
    mine = [row for row in priced if levels.named(asset, row["asset"], row["symbol"])]
    if not mine:
        raise ConfigError(f"no market has the asset {asset!r}{did_you_mean(asset, {row['symbol'] for row in priced})}")
    prices = [row["price_usd"] for row in mine if row["price_usd"] is not None]
    return sorted({row["asset"].lower() for row in mine}), median(prices) if prices else None


def holders(keys: Sequence[str], min_debt: float | None, scope: Scope) -> tuple[str, list[Any]]:
    """The SQL condition on `positions p` for debtors who hold or owe one of these assets, and its values."""
    conditions, values = scope.of_positions("p.block_timestamp")
    conditions += ["p.status <> 'no-debt'", markets.holds_one_of(keys)]
    given: list[Any] = [*values, *keys]
    if min_debt is not None:
        conditions.append(MIN_DEBT)
        given.append(min_debt)
    return " and ".join(conditions), given


def each(
    conn: sqlite3.Connection,
    known: Mapping[str, Deployment],
    asset: str,
    who: tuple[str, list[Any]],
    protocols: Sequence[str],
    scope: Scope,
    say: Callable[[str], None],
    progress: Progress,
) -> Iterator[Level]:
    """The levels of every position with debt that holds or owes the asset."""
    chosen = liquidatable(
        conn,
        known,
        of="what endangers a position",
        computed="levels",
        say=say,
        protocols=protocols,
        scope=scope,
    )
    for book in chosen:
        assert isinstance(book.adapter, Liquidation)
        progress.start(book.name, 0, "positions")
        for _, position in books.chosen(conn, book, *who):
            yield from levels_of(book.adapter, book.market, position, asset)
            progress.advance(book.name, 1)
        progress.done(book.name)
