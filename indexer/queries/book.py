"""What `report book` asks beside `holders`: the deployments, buckets of health factors, and the wallets that owe most.

Positions without a USD value are left out of USD sums and counted beside them.
"""

import heapq
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import ge, itemgetter
from typing import Any

from indexer.model import WAD
from indexer.queries.exports import IS_AT_RISK
from indexer.queries.ranking import ROUNDING
from indexer.queries.shards import chained
from indexer.store.shards import each

#: the lower bounds of the buckets of health factors; each reaches up to the next
BOUNDS = (0.0, 0.9, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0)


class Chosen:
    """The part of the book that a report covers, as an SQL condition on a table with these columns."""

    def __init__(self, protocols: Sequence[str], deployments: Sequence[str]) -> None:
        parts, self.values = [], [*protocols, *deployments]
        for column, names in (("protocol", protocols), ("deployment", deployments)):
            if names:
                parts.append(f"{column} in ({', '.join('?' * len(names))})")
        self.sql = " and ".join(parts) or "true"
        #: the same where the table `deployments` is joined as d
        self.beside_deployments = self.sql.replace("protocol", "d.protocol")


def blocks(conn: sqlite3.Connection, chosen: Chosen) -> list[sqlite3.Row]:
    """The synced deployments with their block and its time (UTC)."""
    return conn.execute(
        "select chain_id, deployment, protocol, state, accounts, block_number,"  # noqa: S608 - our own names
        " strftime('%Y-%m-%dT%H:%M:%SZ', block_timestamp, 'unixepoch') as block_time, note"
        f" from deployments where block_number is not null and {chosen.sql} order by chain_id, deployment",
        chosen.values,
    ).fetchall()


def decimals(conn: sqlite3.Connection) -> dict[tuple[int, str], int]:
    """(chain, asset in lower case) -> the decimals of its amounts."""
    return {
        (chain_id, asset.lower()): count
        for chain_id, asset, count in conn.execute("select chain_id, asset, decimals from assets")
    }


def bucket_sql() -> str:
    """A CASE that gives the number of a health factor's bucket by its exact digits; NULL without a health factor.

    They are compared only where the float, which is the nearest to them, is the bound's: else it lies on their side of it.
    """
    cases = []
    for i, bound in enumerate(BOUNDS[1:]):
        digits = str(round(bound * 100) * WAD // 100)
        below = f"(length(health_factor_raw), health_factor_raw) < ({len(digits)}, '{digits}')"
        cases.append(f"when health_factor < {bound!r} or (health_factor = {bound!r} and {below}) then {i}")
    return f"case when health_factor_raw is null then null {' '.join(cases)} else {len(BOUNDS) - 1} end"


def worst_health(conn: sqlite3.Connection, chosen: Chosen, wallet: str) -> int | None:
    """The lowest health factor of a wallet's positions, scaled by 1e18; by its digits, as a float cannot tell 1 - 1e-18 from 1."""
    worst = chained(
        conn,
        f"select health_factor_raw from positions where wallet = ? and health_factor_raw is not null and {chosen.sql}"  # noqa: S608
        " order by length(health_factor_raw), health_factor_raw limit 1",
        [wallet, *chosen.values],
    )
    return min((int(raw) for (raw,) in worst), default=None)


def owing(conn: sqlite3.Connection, chosen: Chosen, among: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The sums of each wallet that owes anything, or of these, over all files; wallets in their order."""
    known = "true" if among is None else f"wallet in ({', '.join('?' * len(among))})"
    sql = (
        "select wallet, count(*) as positions, total(debt_usd) as debt_usd, total(collateral_usd) as collateral_usd,"  # noqa: S608 - our own names
        f" total(debt_usd) filter (where {IS_AT_RISK}) as debt_at_risk_usd"
        f" from positions where {chosen.sql} and {known} group by wallet order by wallet"
    )
    names = "positions debt_usd collateral_usd debt_at_risk_usd".split()
    rows = heapq.merge(*(part.execute(sql, [*chosen.values, *(among or ())]) for part in each(conn)), key=itemgetter(0))
    for wallet, mine in groupby(rows, itemgetter(0)):
        sums = map(sum, zip(*(tuple(row)[1:] for row in mine), strict=True))
        found = {"wallet": wallet, **dict(zip(names, sums, strict=True))}
        if found["debt_usd"] > 0:
            yield found


def owing_most(
    conn: sqlite3.Connection, chosen: Chosen, count: int, debts: Sequence[float], likely: Sequence[str]
) -> list[dict[str, Any]]:
    """The sums of the `count` wallets that owe most, over all files.

    `debts` is what these and the next one owe, so that it is seen whether the `likely` wallets have all of them; else
    every wallet is added up.
    """
    wanted = [debt for debt in debts[:count] if debt]
    beyond = debts[count] if len(debts) > count else 0.0
    found = first(count, owing(conn, chosen, likely))
    owed = [row["debt_usd"] * ROUNDING for row in found]
    told = len(owed) == len(wanted) and all(map(ge, owed, wanted)) and (not owed or beyond * ROUNDING < owed[-1])
    return found if told else first(count, owing(conn, chosen))


def first(count: int, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return heapq.nsmallest(count, rows, key=lambda row: (-row["debt_usd"], row["wallet"]))
