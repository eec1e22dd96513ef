"""The largest wallets, found without adding up every one of them.

The largest positions limit who can be among the first: a wallet with at most FEW positions, none of them among those,
holds no more than FEW times the smallest of them. So only the wallets of the largest positions, and those with more than
FEW, are added up; if that leaves the last places open, more positions are examined, and in the end all.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

from indexer.queries.exports import IS_AT_RISK, RANK, WALLET_NAMES, WALLET_SOURCE, wallet_filters
from indexer.queries.scope import Scope
from indexer.queries.shards import added_up
from indexer.store.shards import each
from indexer.text.values import Row

#: how wallets are ranked
RANKS = {
    "debt": RANK.format("p."),
    "collateral": f"p.supply_usd is null, p.supply_usd desc, {RANK.format('p.')}",
    "risk": f"p.debt_at_risk_usd is null, p.debt_at_risk_usd desc, {RANK.format('p.')}",
}
COLUMNS = {"debt": "debt_usd", "collateral": "supply_usd", "risk": "debt_at_risk_usd"}
FEW = 8
#: how many of the largest positions are examined in each step
LOOKS = (1_000, 20_000)
#: wallets in one query at most (SQLite accepts 32,766 values)
MOST = 30_000
#: how much the order of additions can change a sum of floats
ROUNDING = 1 + 1e-9

MANY = "select wallet from positions group by wallet having count(*) > ?"
#: wallet and USD of the largest positions; a position's supply is the sum of its balances, where it has any
LARGEST = {
    "debt_usd": ("select wallet, debt_usd from positions order by debt_usd desc limit ?",),
    "supply_usd": (
        "select wallet, collateral_usd from positions order by collateral_usd desc limit ?",
        "select wallet, usd from (select chain_id, deployment, account, position_group, total(value_usd) as usd "
        "from balances where side = 'supply' group by 1, 2, 3, 4 order by usd desc limit ?) "
        "join positions using (chain_id, deployment, account, position_group) order by usd desc",
    ),
    "debt_at_risk_usd": (
        f"select wallet, debt_usd from positions where {IS_AT_RISK} order by debt_usd desc limit ?",  # noqa: S608 - ours
    ),
}


def top(
    conn: sqlite3.Connection,
    by: str,
    *,
    limit: int,
    min_debt: float | None = None,
    protocols: Sequence[str] = (),
    scope: Scope | None = None,
) -> tuple[list[str], Iterable[Row]]:
    """The columns of `wallets` and at most `limit` rows, ranked by a key of RANKS; by risk, only those with any."""
    scope = scope or Scope()
    rank = replace(scope, order=None, limit=None)
    filters, values = wallet_filters(None, min_debt, protocols, scope)
    if by == "risk":
        filters.append("(p.debt_at_risk_usd > 0 or p.debt_at_risk_usd is null)")
    column = COLUMNS[by]
    order, rank = f"{RANKS[by]}, p.wallet", replace(rank, limit=int(limit))
    many = of_many(conn)
    for count in LOOKS:
        among, most = candidates(conn, column, count, many)
        if len(among) > MOST:
            break
        names, found = added_up(conn, WALLET_NAMES, WALLET_SOURCE, filters, order, values, rank, among)
        rows = list(found)
        last = rows[-1][names.index(column)] if len(rows) == limit else None
        if most is None or (last or 0.0) > most:
            return names, rows
    return added_up(conn, WALLET_NAMES, WALLET_SOURCE, filters, order, values, rank)


def of_many(conn: sqlite3.Connection) -> set[str]:
    """The wallets with more than FEW positions in a file."""
    return {wallet for part in each(conn) for (wallet,) in part.execute(MANY, (FEW,))}


def candidates(conn: sqlite3.Connection, column: str, count: int, many: set[str]) -> tuple[list[str], float | None]:
    """Those and the wallets of the `count` largest positions, and the most that any other holds; None if there are no others."""
    wallets, least = largest(conn, column, count)
    return [*wallets | many], None if least is None else FEW * len(each(conn)) * least * ROUNDING


def largest(conn: sqlite3.Connection, column: str, count: int) -> tuple[set[str], float | None]:
    """The wallets of the `count` largest positions, and the bound of all other positions, None if there are no others."""
    wallets, least = set(), None
    for part, sql in product(each(conn), LARGEST[column]):
        rows = part.execute(sql, (count,)).fetchall()
        wallets |= {wallet for wallet, _ in rows}
        if len(rows) == count:
            least = max(least or 0.0, rows[-1][1] or 0.0)
    return wallets, least
