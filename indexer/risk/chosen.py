"""The deployments that are asked for and whose protocols can tell what is asked, with a word about the others."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from indexer.adapter import Liquidation
from indexer.model import Deployment
from indexer.queries.scope import Scope
from indexer.store import books
from indexer.store.books import Book


def suitable(
    conn: sqlite3.Connection,
    capability: type[Any],
    *,
    of: str,
    say: Callable[[str], None],
    protocols: Sequence[str] = (),
    scope: Scope | None = None,
) -> list[sqlite3.Row]:
    """The synced deployments in the scope whose protocol has the capability; it will `say` which do not tell `of`."""
    scope = scope or Scope()
    synced = books.deployments(conn, chain_id=scope.chain_id, protocols=protocols, names=scope.deployments)
    rows, lacking = books.able([row for row in synced if scope.span.holds(row)], capability)
    for name in lacking:
        say(f"{name} is left out: its protocol does not say {of}")
    return rows


def liquidatable(
    conn: sqlite3.Connection,
    known: Mapping[str, Deployment],
    *,
    of: str,
    computed: str,
    say: Callable[[str], None],
    protocols: Sequence[str] = (),
    scope: Scope | None = None,
) -> Iterator[Book]:
    """Loads those whose protocol knows liquidations, one by one; it will `say` whose addresses are not `known`, so that
    nothing of them is `computed`. The span of the scope is that of rows, which may be of an older block than their deployment.
    """
    where = None if scope is None else Scope(chain_id=scope.chain_id, deployments=scope.deployments)
    for row in suitable(conn, Liquidation, of=of, say=say, protocols=protocols, scope=where):
        if row["deployment"] in known:
            yield from books.load(conn, [row], known)
        else:
            say(f"the addresses of {row['deployment']} are unknown: its {computed} are not computed")
