"""A pass over every known position of a deployment: while somebody adds up what they hold, their rows are made.

To load a position takes as long as to evaluate it, so whoever goes through all of them shares one pass. Rows are made for
the market as it is then; where it turns out that the positions say otherwise (`Adapter.fit`), or some are read again,
there is another pass.
"""

import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from indexer.adapter import Adapter, Reader
from indexer.model import Position, PositionKey
from indexer.snapshot.known import KnownDeployment, Passed
from indexer.snapshot.spool import PART, Spool
from indexer.store.rows import PositionRow
from indexer.units import AT_RISK_BELOW


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
        deployment: KnownDeployment,
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
        known.passed = Passed(self.groups, self.rows)

    def _begin(self) -> None:
        self.deployment.passed = None
        self.deployment.begin()
        self.watcher.begin()
        self.groups, self.seconds = {}, 0.0
        self.rows = Spool(self.deployment.folder) if self.fitted or self.deployment.as_fitted else None

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


def evaluate(
    known: KnownDeployment,
    read: Reader,
    watcher: Watcher,
    *,
    at_risk_below: float = AT_RISK_BELOW,
    also: Iterable[PositionKey] = (),
) -> Spool:
    """Rows and balances of every known position, with the contracts' own answers where the code is unknown.

    With a screen, only of those that it leaves open, and of `also`.
    """
    passed = None
    if known.screen is None:
        passed = known.passed or whole(Everyone(known, read, at_risk_below, watcher))
    before = known.market
    known.fit(read)
    if known.screen is not None:
        return due(known, read, watcher, at_risk_below, also)
    like = known.market == before and known.market.registry is before.registry
    if passed is None or passed.rows is None or not like:
        passed = whole(Everyone(known, read, at_risk_below, watcher, fitted=True))
    assert passed.rows is not None
    known.passed = None  # whose rows they are from now on
    return passed.rows


def whole(everyone: Everyone) -> Passed:
    """A pass that only makes rows."""
    deque(everyone, 0)
    assert everyone.deployment.passed is not None
    return everyone.deployment.passed


def due(
    known: KnownDeployment, read: Reader, watcher: Watcher, at_risk_below: float, also: Iterable[PositionKey]
) -> Spool:
    """Rows of those that the screen leaves open."""
    assert known.screen is not None
    spool = Spool(known.folder)
    watcher.begin()
    for part in parts(known.loaded(known.screen.due(known.known, known.market, also))):
        rows, balances = known.rows_of(read, part, at_risk_below)
        watcher.see(rows)
        spool.add(rows, balances)
    return spool


def build(deployment: KnownDeployment, read: Reader, *, at_risk_below: float = AT_RISK_BELOW) -> Spool:
    """Rows and balances of a deployment's known positions, and those its contracts name, at the reader's block, without logs."""
    deployment.read_market(read)
    deployment.read(read, deployment.to_read(read))
    return evaluate(deployment, read, Nobody(), at_risk_below=at_risk_below) if deployment.known else Spool()


class Nobody:
    """Looks at no rows."""

    def begin(self) -> None:
        pass

    def see(self, rows: Sequence[PositionRow]) -> None:
        pass
