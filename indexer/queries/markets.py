"""Rows of `markets` as lists and pages need them, and who holds or owes an asset."""

import json
import sqlite3
from collections.abc import Sequence

from indexer.queries.scope import Scope, marks
from indexer.store.rows import OF_ADDRESSES


def priced(conn: sqlite3.Connection, scope: Scope) -> list[sqlite3.Row]:
    """asset, symbol and price_usd of every market in the scope."""
    conditions, values = scope.of_places("m")
    where = " and ".join(["true", *conditions])
    return conn.execute(f"select m.asset, m.symbol, m.price_usd from markets m where {where}", values).fetchall()  # noqa: S608


def usd_prices(conn: sqlite3.Connection, chain_id: int, symbols: Sequence[str]) -> list[float]:
    """Every known price of these symbols on a chain."""
    rows = conn.execute(
        f"select price_usd from markets where chain_id = ? and symbol in ({marks(symbols)}) and price_usd is not null",  # noqa: S608
        (chain_id, *symbols),
    )
    return [price for (price,) in rows]


def holds_one_of(assets: Sequence[str]) -> str:
    """The condition that a position p holds or owes one of so many assets."""
    return (
        "exists (select 1 from balances b where b.chain_id = p.chain_id and b.deployment = p.deployment "  # noqa: S608
        f"and b.account = p.account and b.position_group = p.position_group and b.asset in ({marks(assets)}))"
    )


def weightiest(conn: sqlite3.Connection, wallets: Sequence[str], count: int) -> list[str]:
    """The symbols of which these wallets hold, as collateral, or owe most."""
    rows = conn.execute(
        "select b.symbol, total(b.value_usd) as usd from balances b "  # noqa: S608 - our own SQL
        f"join ({OF_ADDRESSES}) p using (chain_id, deployment, account, position_group) "
        "where b.side = 'debt' or b.is_collateral group by b.symbol order by usd desc, b.symbol limit ?2",
        (json.dumps([*wallets]), count),
    )
    return [symbol for symbol, _ in rows]


def totals(conn: sqlite3.Connection) -> list[tuple[str, str | None, str | None, int, float | None]]:
    """(symbol, all supply, all debt, decimals, USD) of every market."""
    return conn.execute("select symbol, total_supply_raw, total_debt_raw, decimals, price_usd from markets").fetchall()
