"""A pass over every known position of a deployment: while somebody adds up what they hold, their rows are made.

To load a position takes as long as to evaluate it, so whoever goes through all of them shares one pass. Rows are made for
the market as it is then; where it turns out that the positions say otherwise (`Adapter.fit`), or some are read again,
there is another pass.
"""

import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from indexer.adapter import Adapter, Reader
from indexer.model import Position, PositionKey
from indexer.snapshot.spool import PART, Spool
from indexer.store.rows import PositionRow

if TYPE_CHECKING:
    from indexer.snapshot.known import KnownDeployment


class Watcher(Protocol):
    """Is shown all rows, part by part."""

    def begin(self) -> None:
        """Rows are made from the first on; what was seen before is void."""

    def see(self, rows: Sequence[PositionRow]) -> None:
        """These rows were made."""


class Everyone(Iterable[Position]):
    """Every known position that was read, in the order of their keys, at each iteration.

    A whole pass leaves with the deployment (`passed`) one position of each of the adapter's groups, and the rows. Who
    changes silently and is not of the reader's block is read at the end. `fitted`: the market needs no more than it has.
    """

    def __init__(
        self,
        deployment: "KnownDeployment",
        read: Reader,
        at_risk_below: float,
        watcher: Watcher,
        *,
        fitted: bool = False,
    ) -> None:
        self.deployment, self.reader, self.at_risk_below, self.watcher = deployment, read, at_risk_below, watcher
        self.fitted = fitted
        self.groups: dict[Hashable, PositionKey] = {}
        #: None where nobody may be evaluated before the market is fitted
        self.rows: Spool | None = None
        #: how long it took to make them
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Position]:
        known = self.deployment
        if known.screen is not None:
            yield from known.held()
            return
        self._begin()
        late: list[PositionKey] = []
        for part in parts(known.held()):
            current = known.not_silent(part, self.reader.block.number, late)
            yield from current
            self._take(current)
        for start in range(0, len(late), PART):
            keys = late[start : start + PART]
            known.read(self.reader, keys)
            part = known.loaded(keys)
            yield from part
            self._take(part)
        known.passed = self

    def _begin(self) -> None:
        self.deployment.passed = None
        self.deployment.begin()
        self.watcher.begin()
        self.groups, self.seconds = {}, 0.0
        self.rows = Spool() if self.fitted or self.deployment.as_fitted else None

    def _take(self, part: Sequence[Position]) -> None:
        known, began = self.deployment, time.thread_time()
        if not self.fitted and type(known.adapter).fit_group is not Adapter.fit_group:
            group_of, market = known.adapter.fit_group, known.market
            for position in part:
                group = group_of(market, position)
                if group is not None:
                    self.groups.setdefault(group, position.key)
        if self.rows is not None:
            rows, balances = known.rows_of(self.reader, part, self.at_risk_below)
            self.watcher.see(rows)
            self.rows.add(rows, balances)
        self.seconds += time.thread_time() - began


def parts(positions: Iterable[Position]) -> Iterator[list[Position]]:
    """The positions in parts that are evaluated together."""
    left = iter(positions)
    while part := list(islice(left, PART)):
        yield part
