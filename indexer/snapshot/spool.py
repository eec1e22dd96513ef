"""The rows of a snapshot between their evaluation and the transaction that writes them.

Everything is computed before the transaction, and as objects the rows of a million positions would take gigabytes: those
beyond the first KEPT positions wait in a temporary file, which is gone with the process. It lies beside the database, which
takes as much room again; many machines keep /tmp in memory.
"""

import marshal
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from indexer.errors import StoreError
from indexer.store.rows import BalanceValues, PositionRow

#: positions whose rows stay in memory
KEPT = 10_000
#: positions of one part
PART = 2_000

Mark = Callable[[PositionRow], PositionRow]


class Spool:
    """Rows of positions, each with all of its balances, in parts that can be gone through again and again.

    `folder` is that of the file, by default the system's for temporary ones. StoreError if it cannot be written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.count = 0
        #: what a row is replaced by before anybody sees it
        self.mark: Mark | None = None
        self._kept: list[tuple[Sequence[PositionRow], Sequence[BalanceValues]]] = []
        self._file: IO[bytes] | None = None
        self._sizes: list[tuple[int, int]] = []  # bytes of rows and of balances, part by part

    def __len__(self) -> int:
        return self.count

    def add(self, rows: Sequence[PositionRow], balances: Sequence[BalanceValues]) -> None:
        """Takes the next part."""
        self.count += len(rows)
        if self.count <= KEPT:
            self._kept.append((rows, balances))
            return
        blobs = [marshal.dumps([*map(tuple, rows)]), marshal.dumps([*balances])]
        try:
            if self._file is None:
                self._file = TemporaryFile(dir=self.folder)  # noqa: SIM115 - it lives as long as this object
                weakref.finalize(self, self._file.close)
            for blob in blobs:
                self._file.write(blob)
            self._file.flush()
        except OSError as error:
            if self._file is not None:
                with suppress(OSError):  # what is left in its buffer has nowhere to go
                    self._file.close()
            raise StoreError(
                f"rows cannot wait in a temporary file in {self.folder or 'TMPDIR'} ({error.strerror or error}): free some "
                "space there, or check its permissions, and run again; the last snapshot is intact"
            ) from None
        self._sizes.append((len(blobs[0]), len(blobs[1])))

    def __iter__(self) -> Iterator[tuple[Sequence[PositionRow], Sequence[BalanceValues]]]:
        for rows, balances in self._kept:
            yield self._marked(rows), balances
        for rows, blob in self._stored():
            yield rows, marshal.loads(blob)  # noqa: S302 - we wrote it a moment ago

    def rows(self) -> Iterator[PositionRow]:
        """The rows of positions alone."""
        for rows, _ in self._kept:
            yield from self._marked(rows)
        for rows, _ in self._stored():
            yield from rows

    def _stored(self) -> Iterator[tuple[Sequence[PositionRow], bytes]]:
        place = 0
        for size, more in self._sizes:
            assert self._file is not None
            self._file.seek(place)
            rows = [*map(PositionRow._make, marshal.loads(self._file.read(size)))]  # noqa: S302
            yield self._marked(rows), self._file.read(more)
            place += size + more

    def _marked(self, rows: Sequence[PositionRow]) -> Sequence[PositionRow]:
        return rows if self.mark is None else [*map(self.mark, rows)]
