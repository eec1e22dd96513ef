"""One deployment as the store knows it: its positions and ranges of logs, with everything learnt stored at once."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, overload

from indexer.adapter import AnyAdapter, Bounded, HealthFirst, Reader
from indexer.model import Accounts, Coverage, LogSource, Position, PositionKey
from indexer.risk.evaluate import balance_rows, evaluate_all
from indexer.settings import Settings
from indexer.snapshot.keys import NEVER
from indexer.snapshot.known import KnownDeployment
from indexer.store import reorgs
from indexer.store.books import dump_market, dump_position, load_market, load_positions
from indexer.store.imported import imported
from indexer.store.rows import Pair, PositionRow, Snapshot
from indexer.store.store import Store
from indexer.store.synced_ranges import ACTIVITY
from indexer.units import AT_RISK_BELOW

if TYPE_CHECKING:
    from indexer.snapshot.screen import Screen

Topic = tuple[str, str]  # address and topic0 of a log


def source_name(pair: Topic) -> str:
    """How `synced_ranges` names one discovery log: address:topic0."""
    return ":".join(pair)


def pairs_of(sources: Iterable[LogSource]) -> frozenset[Topic]:
    return frozenset(pair for source in sources for pair in source.pairs())


class TrackedDeployment(KnownDeployment):
    """A deployment with everything its snapshots build on, also in the store; kept between snapshots while following."""

    def __init__(
        self,
        store: Store,
        chain_id: int,
        adapter: AnyAdapter,
        accounts: Accounts,
        *,
        at_risk_below: float = AT_RISK_BELOW,
    ) -> None:
        watched = accounts is Accounts.WATCHED
        super().__init__(chain_id, adapter, accounts, store.watched if watched else None)
        self.store, self.folder = store, store.path.absolute().parent
        store.register(chain_id, self.name, adapter.protocol, accounts)
        store.describe(chain_id, adapter.deployment)
        row = store.deployment(chain_id, self.name)
        assert row is not None
        if row["accounts"] == Accounts.WATCHED and not watched:
            store.widen(chain_id, self.name, accounts)
            row = store.deployment(chain_id, self.name)
            assert row is not None
        if watched:
            store.set_accounts(chain_id, self.name, accounts)  # a first sync may have begun without any result
        self.complete_from: int | None = row["complete_from"]
        self.coverage: str | None = row["coverage"]
        #: whether the logs before the first read are left for later, or for good: accounts came from elsewhere
        self.postponed = False
        #: accounts that a file named, until they were asked what they hold
        self.imported = [] if watched else imported(store.conn, (chain_id, self.name))
        if row["market"] is not None:
            self.previous = load_market(adapter, row["market"])
        self.registry = store.registry(chain_id, self.name)
        #: positions whose supplies wait, in the order in which they were read; and those whose turn it is
        self.waiting: dict[PositionKey, None] = {}
        #: who was read by a run that ended before it had compared and committed a snapshot
        self.left_behind: list[PositionKey] = []
        recorded = reorgs.recorded(store.conn, (chain_id, self.name))
        for key, named, read, complete in store.known(chain_id, self.name):
            self.known.add(key, named, NEVER if read is None else read)
            if read is not None:
                if read > recorded:
                    self.left_behind.append(key)
                if not complete:
                    self.waiting[key] = None
        self.ranges = store.ranges(chain_id, self.name)
        self.at_risk_below = at_risk_below
        #: of whom it could not be found out whether they were named for a cause, see `older_names`
        self.doubted: set[PositionKey] = set()
        self.turn: set[PositionKey] = set()
        self.complete: set[PositionKey] = set()  # positions to read again that had all their supplies
        #: set while snapshots are taken block by block; and the screen that is made of a snapshot of everyone
        self.following: Settings | None = None
        self.building: Screen | None = None
        self._watched: frozenset[str] = frozenset()
        self._of_watched: set[PositionKey] = set()

    def read_market(self, read: Reader) -> None:
        super().read_market(read)
        self.candidates += [key for key in self.imported if key not in self.known]
        self._skip_before_joining()

    # supplies that back nothing ---------------------------------------------------------------------------------------

    @property
    def _health_first(self) -> bool:
        """Whether supplies wait at all: where borrowers are looked for, and the code is known."""
        return self.accounts is Accounts.BORROWERS and self.market.exact and isinstance(self.adapter, HealthFirst)

    def to_read(self, read: Reader, supplies: int | None = 0) -> list[PositionKey]:
        """Also gives their turn to watched wallets whose supplies wait, and to everyone where nothing waits any more."""
        due = super().to_read(read)
        watched = {address.lower() for address in self.store.watched()}
        turn = list(islice(self.waiting, None if supplies is None or not self._health_first else supplies))
        turn += [key for key in self.waiting if key.account in watched] if watched else []
        self.turn = {*turn, *(key for key in due if key.account in watched)}
        return list(dict.fromkeys([*due, *turn]))

    def supplies_wait(self, key: PositionKey) -> bool:
        """A position that had all its supplies keeps them; any other waits for its turn."""
        if not self._health_first or key in self.turn or key in self.complete:
            return False
        return key in self.waiting or not self.known.was_ever_read(key)

    def take(self, keys: Sequence[PositionKey], positions: Iterable[Position], block: int) -> None:
        here = list(positions)
        super().take(keys, here, block)
        for key in keys:
            self.waiting.pop(key, None)
            self.complete.discard(key)
        self.waiting |= {one.key: None for one in here if not one.supplies_complete and one.key in self.known}
        if self.imported:  # whoever holds nothing by now is named by a log when that changes
            asked = set(keys)
            self.imported = [key for key in self.imported if key not in asked]

    def _skip_before_joining(self) -> None:
        """A contract that joined the market after the last snapshot could not be used before, so no log is missing."""
        activity = self.ranges[ACTIVITY]
        if self.previous is None or not self.previous.exact or not activity:
            return
        # A reorg moves the snapshot's block back together with the activity.
        first, last = self.adapter.deployment.start_block, min(self.previous.block.number, activity.to_list()[-1][1])
        pairs = [
            pairs_of(self.adapter.logs(market, self.accounts).discovery) for market in (self.market, self.previous)
        ]
        joined = [name for name in map(source_name, pairs[0] - pairs[1]) if name not in self.ranges]
        if joined and first <= last:
            with self.store.transaction():
                self.ranges.add(joined, first, last)

    def dump_market(self) -> str:
        return dump_market(self.market)

    # logs -----------------------------------------------------------------------------------------------------------

    def discovery(self, target: int) -> dict[Topic, list[tuple[int, int]]]:
        """Discovery logs -> the block ranges up to `target` still to be fetched; none for watched wallets."""
        if self.wallets is not None:
            return {}
        activity = self.ranges[ACTIVITY].to_list()
        start = self.adapter.deployment.start_block
        if self.postponed:
            start = activity[0][0] if activity else target + 1
        return self._undiscovered(start, target)

    def _undiscovered(self, start: int, target: int) -> dict[Topic, list[tuple[int, int]]]:
        pairs = pairs_of(self.adapter.logs(self.market, self.accounts).discovery)
        return {pair: self.ranges[source_name(pair)].missing(start, target) for pair in pairs}

    def lacks_history(self, target: int) -> bool:
        """Whether logs that may name accounts were not read, be they postponed or pruned."""
        if self.wallets is not None:
            return True
        return any(self._undiscovered(self.adapter.deployment.start_block, target).values())

    @property
    def usable_without_history(self) -> bool:
        """Whether accounts came from elsewhere, so that a snapshot need not wait for the logs of old."""
        if self.wallets is not None or self.complete_from is not None:
            return False
        if self.previous is not None:
            return bool(self.imported) or self.coverage in (Coverage.SUMS, Coverage.PARTIAL)
        return bool(self.imported or self.candidates)

    def missing_blocks(self, target: int) -> int:
        """How many blocks of history lack some log, by the log that lacks most."""
        gaps = self._undiscovered(self.adapter.deployment.start_block, target).values()
        return max((sum(last - first + 1 for first, last in spans) for spans in gaps), default=0)

    def activity_gap(self, target: int) -> list[tuple[int, int]]:
        """The blocks whose activity is still to be fetched, from the first position read on."""
        ranges = self.ranges[ACTIVITY]
        if not ranges or self.wallets is not None:
            return []
        return ranges.missing(next(iter(ranges))[0], target)

    def name_contracts(self, named: Iterable[str]) -> None:
        if not set(named) <= set(self.registry.contracts):
            self.registry = self.store.registry(self.chain_id, self.name)

    # what is written down -------------------------------------------------------------------------------------------

    def keep_numbers(self, new: Mapping[int, PositionKey], block: int) -> None:
        self.store.save_registry(self.chain_id, self.name, new, block)
        self.registry = self.store.registry(self.chain_id, self.name)

    def keep_positions(
        self, found: Mapping[PositionKey, tuple[int, int]], positions: Mapping[PositionKey, Position], block: int
    ) -> None:
        """Stores positions, to survive a kill right after. From the first read's block on, touched ones are read again.

        Rows older than the last snapshot are first brought to its block, so that measurements between snapshots are the
        same as if every snapshot wrote every row.
        """
        states = [(key, p.block_number, dump_position(p)) for key, p in positions.items()]
        with self.store.transaction():
            self._rewrite_rows(positions)
            if self.wallets is None and ACTIVITY not in self.ranges:
                self.ranges.add([ACTIVITY], block, block)
            self.store.save_touches(self.chain_id, self.name, found)
            self.store.save_states(self.chain_id, self.name, states)

    def _rewrite_rows(self, keys: Iterable[PositionKey]) -> None:
        """Brings the rows of these positions to the last snapshot's block, from their states before the new read."""
        previous = self.previous
        if previous is None or not previous.exact:
            return
        older = self.loaded(self.store.older_rows((self.chain_id, self.name), keys, previous.block.number))
        if older:
            market = replace(previous, registry=self.registry)
            rows = evaluate_all(self.chain_id, self.adapter, market, older, at_risk_below=self.at_risk_below)
            self.store.rewrite_rows(rows, balance_rows(self.chain_id, self.adapter, market, older))

    # what is in the file --------------------------------------------------------------------------------------------

    def held(self) -> Sequence[Position]:
        return Held(self)

    def loaded(self, keys: Iterable[PositionKey]) -> list[Position]:
        return [*load_positions(self.adapter, self.store.states_of(self.chain_id, self.name, keys))]

    # following the chain --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self.building = None

    def _see(self, positions: Sequence[Position]) -> None:
        """Where the chain is followed, the next snapshots evaluate only whom bounds leave open, from all of these on."""
        settings, adapter = self.following, self.adapter
        if self.screen is not None or settings is None or self.wallets is not None or not self.market.exact:
            return
        if not isinstance(adapter, Bounded):
            return
        if self.building is None:
            from indexer.snapshot.screen import Screen  # noqa: PLC0415 - numpy, which only a live tail needs

            self.known.sort()  # so that neighbours in the file are refreshed together
            self.building = Screen(
                adapter, self.market, exact_below=settings.exact_below, refresh_seconds=settings.refresh_seconds
            )
        for position in positions:
            self.building.put(self.known[position.key], self.market, position)

    def watched_positions(self) -> set[PositionKey]:
        """The positions of watched wallets."""
        watched = frozenset(address.lower() for address in self.store.watched())
        if watched != self._watched:
            self._watched = watched
            self._of_watched = self.store.of_people((self.chain_id, self.name), watched) if watched else set()
        return {key for key in self._of_watched if self.known.was_ever_read(key)}

    def settled(self, rows: Sequence[PositionRow]) -> set[Pair]:
        """Of these new rows those of which it is known that they make no point of history unless something else does."""
        return set() if self.screen is None else self.screen.settled(self.known, rows)

    def took(
        self,
        rows: Sequence[PositionRow],
        points: Mapping[Pair, tuple[str, str | None]],
        settled: Collection[Pair] = (),
    ) -> None:
        """These rows were written; `points` are the last points of their history, but of those that are `settled`."""
        if self._watched:
            self._of_watched |= {row.key for row in rows if not self._watched.isdisjoint(row.people)}
        screen = self.building or self.screen
        if screen is not None:
            screen.took(self.known, rows, points, settled)

    def committed(self, snapshot: Snapshot) -> None:
        """Keeps what the next snapshot needs."""
        self.previous, self.coverage = self.market, snapshot.coverage
        self.screen, self.building = self.building or self.screen, None
        self.left_behind.clear()

    def forget_positions(self) -> None:
        """Also those of the file; nothing is lost, as the same snapshot reads them again (`Store.drop_states`)."""
        self.complete |= {key for key in self.known if self.known.was_ever_read(key) and key not in self.waiting}
        self.waiting.clear()
        super().forget_positions()
        self.store.drop_states(self.chain_id, self.name)

    def forget_activity(self) -> None:
        """Makes all positions be read again, as it is no longer known which were touched since they were read.

        Evidence: no endpoint has the logs of that time. Undone by reading; history and alerts stay.
        """
        self.forget_positions()
        with self.store.transaction():
            self.ranges.drop(ACTIVITY)

    def forget_logs(self, first: int) -> None:
        """Makes logs from block `first` on be fetched again; positions stay, and activity restarts from them.

        Evidence: sums that differ from the contracts' after every position was read again. Who was known stays known.
        """
        with self.store.transaction():
            self.ranges.forget_from(first)


class Held(Sequence[Position]):
    """Every known position of a deployment that was read, loaded anew at each iteration, in the order of the keys."""

    def __init__(self, tracked: TrackedDeployment) -> None:
        self.tracked = tracked

    def __len__(self) -> int:
        return sum(block != NEVER for block in self.tracked.known.read)

    def __iter__(self) -> Iterator[Position]:
        tracked = self.tracked
        states = tracked.store.states(tracked.chain_id, tracked.name)
        return (one for one in load_positions(tracked.adapter, states) if one.key in tracked.known)

    @overload
    def __getitem__(self, index: int) -> Position: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Position]: ...
    def __getitem__(self, index: int | slice) -> Position | Sequence[Position]:
        return list(self)[index]
