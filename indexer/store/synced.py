"""Which blocks' logs of a deployment are fetched: the rows of `synced_ranges`, and the only memory of them."""

import sqlite3
from collections.abc import Iterable

from indexer.store.ranges import Ranges

#: the source of everything that can change a known position; the others are address:topic0 of a discovery log
ACTIVITY = "activity"
LAST = 2**63 - 1


class SyncedRanges:
    """Source -> the blocks that are done, in memory as in the file. Changes belong into a transaction of the caller.

    Should that fail, drop this object with everything else that was learnt: it may be ahead of the file.
    """

    def __init__(self, conn: sqlite3.Connection, chain_id: int, deployment: str) -> None:
        self._conn, self._where = conn, (chain_id, deployment)
        pairs: dict[str, list[tuple[int, int]]] = {}
        for source, first, last in conn.execute(
            "select source, from_block, to_block from synced_ranges where chain_id = ? and deployment = ?", self._where
        ):
            pairs.setdefault(source, []).append((first, last))
        self._ranges = {source: Ranges(found) for source, found in pairs.items()}

    def __getitem__(self, source: str) -> Ranges:
        """The blocks whose logs of this source are fetched; none of a source that is new."""
        return self._ranges.get(source, Ranges())

    def __contains__(self, source: str) -> bool:
        return source in self._ranges

    def add(self, sources: Iterable[str], first: int, last: int) -> None:
        """These sources are done for blocks `first`..`last`, none if `first` is beyond."""
        for source in sources:
            self._set(source, self[source].add(first, last))

    def drop(self, source: str) -> None:
        """As if nothing of this source had been fetched; undone by fetching it."""
        self._set(source, Ranges())

    def forget_from(self, first: int) -> None:
        """Blocks from `first` on are fetched again, whatever the source; undone by fetching them."""
        for source, ranges in list(self._ranges.items()):
            self._set(source, ranges.remove(first, LAST))

    def _set(self, source: str, ranges: Ranges) -> None:
        if ranges == self[source]:
            return
        where = (*self._where, source)
        self._conn.execute("delete from synced_ranges where chain_id = ? and deployment = ? and source = ?", where)
        rows = [(*where, first, last) for first, last in ranges]
        self._conn.executemany("insert into synced_ranges values (?, ?, ?, ?, ?)", rows)
        if ranges:
            self._ranges[source] = ranges
        else:
            self._ranges.pop(source, None)
