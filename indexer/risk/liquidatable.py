"""The books whose protocols say what a liquidation needs and takes."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence

from indexer.adapter import Liquidation
from indexer.model import Deployment
from indexer.store import books
from indexer.store.books import Book


def liquidatable(
    conn: sqlite3.Connection,
    known: Mapping[str, Deployment],
    *,
    of: str,
    computed: str,
    say: Callable[[str], None],
    chain_id: int | None = None,
    protocols: Sequence[str] = (),
    names: Sequence[str] = (),
) -> Iterator[Book]:
    """Loads the chosen deployments, one by one; it will `say` whose protocol does not say `of`, and whose addresses are not
    `known`, so that nothing of them is `computed`.
    """
    chosen = books.deployments(conn, chain_id=chain_id, protocols=protocols, names=names)
    rows, lacking = books.able(chosen, Liquidation)
    for name in lacking:
        say(f"{name}: its protocol does not say {of}, so it is left out")
    for row in rows:
        if row["deployment"] in known:
            yield from books.load(conn, [row], known)
        else:
            say(f"the addresses of {row['deployment']} are unknown: its {computed} are not computed")
