"""From the contracts to rows: the steps of every snapshot, in the only possible order.

    read_market -> registry -> [logs] -> with_keys -> read_positions -> fit -> evaluate

`indexer.snapshot.everyone.build` takes one deployment all the way without logs; the sync takes several through the steps side by side, fetches
their logs together and compares sums in between.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.adapter import Adapter, AnyAdapter, HealthFirst, Reader, Registry
from indexer.model import Accounts, Answer, Market, Position, PositionKey, Registered
from indexer.risk.evaluate import balance_rows, evaluate_all
from indexer.snapshot.keys import Keys
from indexer.snapshot.spool import PART, Spool
from indexer.store.rows import BalanceValues, PositionRow

if TYPE_CHECKING:
    from indexer.snapshot.screen import Screen

NOBODY: Mapping[PositionKey, frozenset[str]] = {}
#: if more of the first PART positions change silently, all who do are found, and read together, before anything is computed
FEW = 20


@dataclass(frozen=True, slots=True)
class Passed:
    """What a pass over everyone leaves: one position of each of the adapter's groups, and the rows if any were made."""

    groups: Mapping[Hashable, PositionKey]
    rows: Spool | None


class KnownDeployment:
    """What is known of one deployment, in memory only, and the steps that lead from there to rows.

    With `wallets`, nothing is discovered by logs: the contracts name the positions of these wallets, which are few and are
    all read at each snapshot. A subclass stores what is found (the methods that begin with `keep_`).
    """

    def __init__(
        self,
        chain_id: int,
        adapter: AnyAdapter,
        accounts: Accounts = Accounts.WATCHED,
        wallets: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self.chain_id, self.adapter, self.accounts, self.wallets = chain_id, adapter, accounts, wallets
        self.name = adapter.deployment.name
        self.previous: Market | None = None
        self.market: Market = None  # type: ignore[assignment]  # set by read_market before any use
        self.registry = Registered()
        self.known = Keys()
        self.candidates: list[PositionKey] = []
        self.read_count = 0
        #: positions that changed since they were last read, according to logs
        self.unread: set[PositionKey] = set()
        #: of some of these the contracts whose logs named them: nothing else of them may have changed
        self.named_by: dict[PositionKey, frozenset[str]] = {}
        #: selects the positions to evaluate while the chain is followed block by block
        self.screen: Screen | None = None
        self._positions: dict[PositionKey, Position] = {}
        #: where rows wait that are too many for memory
        self.folder: Path | None = None
        #: what the last whole pass over everyone left, if none was read since
        self.passed: Passed | None = None

    # the steps ------------------------------------------------------------------------------------------------------

    def read_market(self, read: Reader) -> None:
        """Reads the market at the reader's block, and the positions that contracts themselves number or name."""
        self.passed = None
        market = self.adapter.read_market(read, self.previous)
        if self.previous is not None and not self.previous.exact and market.exact:
            self.forget_positions()  # they were read only to compare with the contract's own answers
        self.market = replace(market, registry=self.registry)
        keys = self._numbered(read) if self.wallets is None else self._of_wallets(read, self.wallets())
        self.candidates = [key for key in keys if key not in self.known]

    def _numbered(self, read: Reader) -> Iterable[PositionKey]:
        """Newly numbered positions; older ones too if no snapshot was committed since they were found.

        Where history is pruned, a numbered position that no log names may still hold something.
        """
        if not isinstance(self.adapter, Registry):
            return ()
        after = max(self.registry.keys, default=0)
        new = dict(enumerate(self.adapter.enumerate(read, self.market, after), after + 1))
        if new:
            self.keep_numbers(new, read.block.number)
            self.market = replace(self.market, registry=self.registry)
        return self.registry.numbers if self.previous is None else new.values()

    def _of_wallets(self, read: Reader, wallets: Sequence[str]) -> Iterable[PositionKey]:
        if not isinstance(self.adapter, Registry):
            return [PositionKey(wallet) for wallet in wallets]
        self.market, keys = self.adapter.of_wallets(read, self.market, wallets)
        new = {n: key for n, key in self.market.registry.keys.items() if self.registry.keys.get(n) != key}
        if new:
            self.keep_numbers(new, read.block.number)
        self.registry = self.market.registry
        return keys

    def to_read(self, read: Reader, supplies: int | None = 0) -> list[PositionKey]:
        """Known positions whose stored state is not that of the reader's block, and candidates never read.

        And up to `supplies` of those whose supplies wait (None: all), if a subclass lets any wait.

        Call it after the logs, at the market's block: it first completes the market by what only keys and logs name. In the
        order of the keys, as they stand in the file: those that are stored together then share its pages.
        """
        self.market = replace(self.market, registry=self.registry)
        if isinstance(self.adapter, Registry):
            self.market = self.adapter.with_keys(read, self.market, [*self.known, *self.candidates])
        due = {key: None for key in (self.known if self.screen is None else self.unread) if self.known.stale(key)}
        self.unread = set(due)
        number, before = self.known.read, read.block.number
        due |= {key: None for key in self._silent_ones() if number[self.known[key]] < before}
        return [*sorted(due), *sorted(key for key in self.candidates if key not in self.known)]

    def _silent_ones(self) -> Iterable[PositionKey]:
        """The positions that may have changed without an event that is followed; few of many are left to `Everyone`."""
        if self.wallets is not None:
            return self.known
        if self.screen is not None:
            return self.screen.silent
        if type(self.adapter).changes_silently is Adapter.changes_silently:
            return ()
        silently = partial(self.adapter.changes_silently, self.market)
        found = [one.key for one in islice(self.held(), PART) if silently(one)]
        return found if len(found) <= FEW else [one.key for one in self.held() if silently(one)]

    def not_silent(self, positions: Sequence[Position], block: int, late: list[PositionKey]) -> Sequence[Position]:
        """Those that are right at `block`; the keys of the others, which may have changed silently, are added to `late`."""
        if type(self.adapter).changes_silently is Adapter.changes_silently:
            return positions
        silently, read = partial(self.adapter.changes_silently, self.market), self.known.read
        found = {one.key for one in positions if silently(one) and read[self.known[one.key]] < block}
        late += sorted(found)
        return [one for one in positions if one.key not in found] if found else positions

    def read(self, read: Reader, keys: Sequence[PositionKey]) -> None:
        """Reads the positions of `keys` at the reader's block; a candidate that logs need not name stays unknown."""
        before = self.loaded(key for key in keys if key in self.named_by)
        silently = partial(self.adapter.changes_silently, self.market)
        changed = [(one, self.named_by[one.key]) for one in before if one.supplies_complete and not silently(one)]
        known = {one.key for one, _ in changed}
        found = self.adapter.read_changed(read, self.market, changed) if changed else []
        self.take(keys, found + self.fetch(read, [key for key in keys if key not in known]), read.block.number)

    def fetch(self, read: Reader, keys: Sequence[PositionKey]) -> list[Position]:
        """The positions of `keys` at the reader's block, in any order. It changes nothing: several may run at once."""
        found: list[Position] = []
        now = keys
        if isinstance(self.adapter, HealthFirst) and (later := [key for key in keys if self.supplies_wait(key)]):
            found = self.adapter.read_health(read, self.market, later)
            waiting = set(later)
            now = [key for key in keys if key not in waiting]
        return found + self.adapter.read_positions(read, self.market, now) if now else found

    def supplies_wait(self, key: PositionKey) -> bool:
        """Whether only what decides the position's health is read now."""
        return False

    def take(self, keys: Sequence[PositionKey], positions: Iterable[Position], block: int) -> None:
        """Takes over positions as `fetch` read them at `block`."""
        self.passed = None
        self.read_count += len(keys)
        here = {position.key: position for position in positions}
        found = {
            key: (block, block)
            for key, position in here.items()
            if key not in self.known and self.adapter.discovers(position, self.accounts)
        }
        kept = {key: position for key, position in here.items() if key in self.known or key in found}
        old = {one.key: one for one in self.loaded(key for key in kept if self.known.was_ever_read(key))}
        changed = {key: position for key, position in kept.items() if not self._as_before(old.get(key), position)}
        self.keep_positions(found, changed, block)
        self.touch(found)
        for key, position in kept.items():
            self.known.was_read(key, position.block_number)
        self.unread -= here.keys()
        self.named_by = {key: by for key, by in self.named_by.items() if key not in here}
        if self.screen is not None:
            for key, position in changed.items():
                self.screen.put(self.known[key], self.market, position)

    def _as_before(self, old: Position | None, position: Position) -> bool:
        """Whether a position that may have changed silently did not, so that its stored state stays valid."""
        if old is None or position.key in self.unread:
            return False
        return replace(position, block_number=old.block_number) == old

    @property
    def as_fitted(self) -> bool:
        """Whether the market is likely to be right as it was read, and may be used: it was fitted before, or needs no fit."""
        kind = type(self.adapter)
        if kind.fit_group is Adapter.fit_group:
            return kind.fit is Adapter.fit
        return self.previous is not None and self.previous.revision == self.market.revision

    def fit(self, read: Reader) -> None:
        """Completes the market by what only positions reveal; where that makes the screen invalid, by all of them."""
        market = self.market
        if self.screen is not None:
            unlike = self.previous is None or self.previous.revision != market.revision or not self.screen.fits(market)
            if not unlike:
                fitting = self.screen.fitting()
                self.market = self.adapter.fit(read, market, self.held() if fitting is None else self.loaded(fitting))
                if self.screen.fits(self.market):
                    return
            self.screen = None
        passed = None if type(self.adapter).fit_group is Adapter.fit_group else self.passed
        some = None if passed is None or len(passed.groups) > PART else sorted(passed.groups.values())
        self.market = self.adapter.fit(read, market, self.held() if some is None else self.loaded(some))

    def begin(self) -> None:
        """Everyone is about to be evaluated."""

    def rows_of(
        self, read: Reader, positions: Sequence[Position], at_risk_below: float
    ) -> tuple[Sequence[PositionRow], Sequence[BalanceValues]]:
        """Rows and balances of some of them."""
        self._see(positions)
        answers = self._answers(read, positions)
        rows = evaluate_all(
            self.chain_id, self.adapter, self.market, positions, at_risk_below=at_risk_below, answers=answers
        )
        return rows, balance_rows(self.chain_id, self.adapter, self.market, positions, answers=answers)

    def _see(self, positions: Sequence[Position]) -> None:
        """Is shown each part before its evaluation."""

    def _answers(self, read: Reader, positions: Sequence[Position]) -> Mapping[PositionKey, Answer] | None:
        if self.market.exact:
            return None
        given = self.adapter.contract_answers(read, self.market, [position.key for position in positions])
        return {answer.key: answer for answer in given}

    # what is known --------------------------------------------------------------------------------------------------

    def held(self) -> Sequence[Position]:
        """Every known position that was read, in the order of their keys; a subclass loads them anew at each iteration."""
        return [self._positions[key] for key in sorted(self._positions)]

    def loaded(self, keys: Iterable[PositionKey]) -> list[Position]:
        """Those of these positions that were read, in the order of `keys`."""
        return [self._positions[key] for key in keys if key in self._positions]

    def position(self, key: PositionKey) -> Position | None:
        """One position as it was read last."""
        return next(iter(self.loaded([key])), None)

    def touch(
        self, touches: Mapping[PositionKey, tuple[int, int]], named_by: Mapping[PositionKey, frozenset[str]] = NOBODY
    ) -> None:
        """Logs touched these; `named_by` are all contracts whose logs did, where they are known."""
        for key, (_, last) in touches.items():
            contracts = named_by.get(key)
            before = self.named_by.pop(key, None)
            if before is None and key in self.known and not self.known.stale(key):
                before = frozenset()
            if contracts is not None and before is not None:
                self.named_by[key] = before | contracts
            self.known.touch(key, last)
            self.unread.add(key)

    def forget_positions(self) -> None:
        """Makes every position be read again, which heals whatever a lying node left behind."""
        self._positions.clear()
        self.passed = None
        self.named_by.clear()
        self.known.forget_reads()
        self.screen = None

    def keep_numbers(self, new: Mapping[int, PositionKey], block: int) -> None:
        """Takes over positions that a contract numbers, read at `block`."""
        keys = {**self.registry.keys, **new}
        numbers = {key: number for number, key in keys.items()}
        self.registry = replace(self.registry, keys=keys, numbers=numbers)

    def keep_positions(
        self, found: Mapping[PositionKey, tuple[int, int]], positions: Mapping[PositionKey, Position], block: int
    ) -> None:
        """Takes over positions as read at `block`; `found` are those that were unknown before."""
        self._positions.update(positions)
