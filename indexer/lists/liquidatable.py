"""The books whose protocols say what a liquidation needs and takes."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from indexer.text.console import remark

if TYPE_CHECKING:
    from indexer.model import Deployment
    from indexer.store.books import Book


def liquidatable(
    conn: sqlite3.Connection,
    known: "Mapping[str, Deployment]",
    *,
    of: str,
    computed: str,
    chain_id: int | None = None,
    protocols: Sequence[str] = (),
    names: Sequence[str] = (),
) -> "Iterator[Book]":
    """Loads the chosen deployments, one by one; remarks name those whose protocol does not say `of`, or whose addresses are
    not `known`, so that nothing of them is `computed`.
    """
    from indexer.adapter import Liquidation
    from indexer.store import books as loading

    chosen = loading.deployments(conn, chain_id=chain_id, protocols=protocols, names=names)
    rows, lacking = loading.able(chosen, Liquidation)
    for name in lacking:
        remark(f"{name}: its protocol does not say {of}, so it is left out")
    for row in rows:
        if row["deployment"] in known:
            yield from loading.load(conn, [row], known)
        else:
            remark(f"the addresses of {row['deployment']} are unknown: its {computed} are not computed")
