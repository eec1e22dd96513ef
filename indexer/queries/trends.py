"""How the book and its prices moved, from `book_history` and `market_history`."""

import sqlite3
from operator import itemgetter

from indexer.queries.book import Chosen
from indexer.queries.shards import chained
from indexer.store.shards import at, each
from indexer.text.values import Row


def book_points(conn: sqlite3.Connection, since: int, chosen: Chosen) -> list[Row]:
    """(chain, deployment, time, collateral, debt, debt at risk, liquidatable debt; in USD) of each point since then, by time."""
    sql = (
        "select h.chain_id, h.deployment, h.block_timestamp, total(h.collateral_usd), total(h.debt_usd), "  # noqa: S608 - ours
        "total(h.debt_usd) filter (where h.status in ('at-risk', 'liquidatable')), "
        "total(h.debt_usd) filter (where h.status = 'liquidatable') "
        "from book_history h join deployments d using (chain_id, deployment) where h.block_timestamp >= ? "
        f"and {chosen.beside_deployments} "
        "group by h.chain_id, h.deployment, h.block_number order by h.block_timestamp, h.block_number"
    )
    return sorted(chained(conn, sql, (since, *chosen.values)), key=itemgetter(2))


def leading_assets(conn: sqlite3.Connection, chosen: Chosen, count: int) -> list[Row]:
    """(chain, deployment, asset, symbol, USD) of the assets of most debt and collateral, where most of each is."""
    sql = (
        "select h.chain_id, h.deployment, h.asset, h.symbol, max(h.usd) from ("  # noqa: S608 - ours
        "  select chain_id, deployment, asset, symbol, total(collateral_usd) + total(debt_usd) as usd from book_history "
        "  join deployments d using (chain_id, deployment, block_number) "
        f"  where {chosen.beside_deployments} group by chain_id, deployment, asset"
        ") h group by h.chain_id, h.asset order by 5 desc limit ?"
    )
    return sorted(chained(conn, sql, (*chosen.values, count)), key=lambda row: -row[4])[:count]


def prices_since(
    conn: sqlite3.Connection, chain_id: int, deployment: str, asset: str, since: int
) -> list[tuple[int, float | None]]:
    """(time, price in USD) of an asset at each kept snapshot since then."""
    return (
        at(conn, chain_id)
        .execute(
            "select block_timestamp, max(price_usd) from market_history where chain_id = ? and deployment = ? and asset = ? "
            "and block_timestamp >= ? group by block_number order by block_number",
            (chain_id, deployment, asset, since),
        )
        .fetchall()
    )


def times_since_block(conn: sqlite3.Connection, block: int) -> list[int]:
    """The first known time (unix seconds) at or after a block, of each chain that has any."""
    sql = (
        "select min(block_timestamp), chain_id from ("
        "select chain_id, block_timestamp from book_history where block_number >= ?1 "
        "union all select chain_id, block_timestamp from blocks where number >= ?1) group by chain_id"
    )
    return [time for part in each(conn) for time, _ in part.execute(sql, (block,))]
