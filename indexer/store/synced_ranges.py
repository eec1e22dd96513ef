"""The blocks whose logs are fetched for a deployment: the only owner of the table `synced_ranges`."""

import sqlite3
from collections.abc import Iterable

from indexer.store.block_ranges import Ranges

#: the source for all logs that can change a known position; other sources are address:topic0 of a discovery log
ACTIVITY = "activity"
LAST = 2**63 - 1


class SyncedRanges:
    """Source -> the blocks that are done, in memory as in the file. Make changes within a transaction.

    If the transaction fails, drop this object with everything else that was learnt: it may be ahead of the file.
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
        """The blocks whose logs of this source are fetched; none for a new source."""
        return self._ranges.get(source, Ranges())

    def __contains__(self, source: str) -> bool:
        return source in self._ranges

    def add(self, sources: Iterable[str], first: int, last: int) -> None:
        """Records that these sources are done for blocks `first`..`last`; nothing if `first` is beyond `last`."""
        for source in sources:
            self._set(source, self[source].add(first, last))

    def drop(self, source: str) -> None:
        """Forgets everything fetched for this source; undone by fetching it again."""
        self._set(source, Ranges())

    def forget_from(self, first: int) -> None:
        """Forgets the blocks from `first` on for every source; undone by fetching them again."""
        for source, ranges in list(self._ranges.items()):
            self._set(source, ranges.remove(first, LAST))

    def _set(self, source: str, ranges: Ranges) -> None:
        """Evidence: the ranges in memory, which are what a fetch, or whoever gave one up, says."""
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
