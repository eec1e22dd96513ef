"""The rows of `indexer liquidations`, and from when on they are all there."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from indexer.queries.scope import Scope
from indexer.store.liquidations import ADDED, LIQUIDATION_COLUMNS, SORTS, listed, searched
from indexer.text.values import iso

COLUMNS = [*LIQUIDATION_COLUMNS, *ADDED, "wallet", "block_time"]


def rows(
    conn: sqlite3.Connection, scope: Scope, *, protocols: Sequence[str] = (), min_repaid: float | None = None
) -> list[dict[str, Any]]:
    """One row a log in the scope, the newest first unless its order is one of `SORTS`; `min_repaid` is in USD and keeps unknown ones."""
    by = scope.order.column if scope.order is not None and scope.order.column in SORTS else "time"
    span = scope.span
    found = listed(
        conn,
        since_block=span.since_block,
        since=span.since,
        until_block=span.until_block,
        until=span.until,
        chain_id=scope.chain_id,
        deployments=scope.deployments,
        protocols=protocols,
        wallets=scope.wallets,
        sort=by,
    )
    return [
        {**row, "block_time": iso(row["block_timestamp"])}
        for row in found
        if min_repaid is None or row["repaid_usd"] is None or row["repaid_usd"] >= min_repaid
    ]


def missing(conn: sqlite3.Connection, scope: Scope, protocols: Sequence[str] = ()) -> list[str]:
    """Of which deployments in the scope older liquidations are not fetched, a sentence for each block from which on they are."""
    whence: dict[int | None, list[str]] = {}
    for row in searched(conn, scope.chain_id):
        chosen = (not scope.deployments or row["deployment"] in scope.deployments) and (
            not protocols or row["protocol"] in protocols
        )
        first, wanted = row["liquidations_from_block"], max(row["start_block"] or 0, scope.span.since_block or 0)
        if chosen and not (first is not None and first <= wanted):
            whence.setdefault(first, []).append(row["deployment"])
    return [
        f"{', '.join(names)}: "
        + (
            "liquidations before the first sync are not fetched"
            if first is None
            else f"complete from block {first:,} on"
        )
        + "; `indexer sync --liquidations --since 400d` fetches older ones"
        for first, names in whence.items()
    ]
