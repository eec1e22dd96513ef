"""The rows of `indexer oracles` and `indexer volatility`: of every chain of the file or files, those that a name means."""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from indexer.errors import ConfigError
from indexer.plugins import did_you_mean
from indexer.queries import prices
from indexer.store.shards import each

NOTHING = "no price feed is followed yet: `indexer sync --prices` reads them"
#: columns of a row by which the user may name it
NAMES = ("feed", "description", "symbol", "asset", "position_group", "assets")


class Rows(Protocol):
    """`rows` of `oracles` or `volatility`: those of one chain in one file."""

    def __call__(
        self, conn: sqlite3.Connection, chain_id: int, chain: str | None, /
    ) -> Sequence[Mapping[str, Any]]: ...


def listed(
    conn: sqlite3.Connection, rows: Rows, names: Collection[str] = (), *, chain_id: int | None = None
) -> list[Mapping[str, Any]]:
    """The rows of every chain, or of one, that these names mean, all without names; none where no feed is followed.

    Raises `ConfigError` for a name that means no row.
    """
    found = [row for file in each(conn) for chain in prices.chains(file, chain_id) for row in rows(file, *chain)]
    return named(found, names)


def named(rows: Sequence[Mapping[str, Any]], names: Collection[str]) -> list[Mapping[str, Any]]:
    """The rows that one of the names means; all without names. Raises `ConfigError` for a name that means none."""
    if not names:
        return [*rows]
    found: dict[int, Mapping[str, Any]] = {}
    for name in names:
        mine = {place: row for place, row in enumerate(rows) if is_named(row, name)}
        if not mine:
            known = {word.lower() for row in rows for column in ("symbol", "assets") for word in words(row.get(column))}
            why = did_you_mean(name, known) if rows else f": {NOTHING}"
            raise ConfigError(f"no followed feed or asset is called {name!r}{why}")
        found |= mine
    return [found[place] for place in sorted(found)]


def is_named(row: Mapping[str, Any], name: str) -> bool:
    """Whether a name, in any case, is one of the row's."""
    wanted = name.lower()
    alike = {wanted, "w" + wanted} if wanted in ("eth", "btc") else {wanted}
    return any(
        str(row.get(column) or "").lower() in alike
        or (column == "assets" and not alike.isdisjoint(map(str.lower, words(row.get(column)))))
        for column in NAMES
    )


def words(text: Any) -> list[str]:
    """The names in a list with commas."""
    return [word.strip() for word in str(text or "").split(",") if word.strip()]
