"""Finds which logs are missing, fetches them once for all deployments, and records the positions they touched."""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

from indexer.adapter import AnyAdapter, LiquidationLogs, Registry
from indexer.chain.client import Chain
from indexer.chain.flight import begin
from indexer.errors import PrunedError
from indexer.logs.lean import Named, Touched
from indexer.logs.log_filter import Chunk, Filter
from indexer.logs.ranges import discover, fetch
from indexer.logs.recent_logs import fetch_recent, quiet
from indexer.model import Block, Event, PositionKey, Shape
from indexer.progress import Progress
from indexer.settings import Settings
from indexer.snapshot.tracked import TrackedDeployment, pairs_of, source_name
from indexer.store import liquidations
from indexer.store.liquidations import SOURCE as LIQUIDATIONS
from indexer.store.progress import tell
from indexer.store.store import Store
from indexer.store.synced_ranges import ACTIVITY
from indexer.sync.liquidated import Found, Liquidations, told_by

log = logging.getLogger(__name__)

#: seconds before something that did not help is tried again (a one-shot sync always tries)
AGAIN_SECONDS = 3600.0
#: blocks below the target from which on logs of history are taken without the header of their last block: no reorg and no
#: backend that lags reaches so far
SETTLED = 1_024


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one deployment needs of a block range: log pairs, which of them discover, and which sources are then done."""

    tracked: TrackedDeployment
    pairs: frozenset[tuple[str, str]]
    discovery: frozenset[tuple[str, str]]
    sources: frozenset[str]


#: a block range, and what deployments want there
Piece = tuple[int, int, list[Wanted]]


def blocks_in(pieces: Sequence[Piece]) -> int:
    return sum(last - first + 1 for first, last, _ in pieces)


#: the context in which an adapter runs, which records its failures
Alone = Callable[[AnyAdapter], AbstractContextManager[None]]


def together(_: AnyAdapter) -> AbstractContextManager[None]:
    """A context that raises every failure."""
    return nullcontext()


def plan(deployments: Sequence[TrackedDeployment], target: int, alone: Alone = together) -> Iterator[Piece]:
    """Block ranges up to `target`, the newest first, each with what every deployment still needs there.

    Ranges are cut wherever a deployment's needs change, so that one request with one filter serves all.
    """
    spans: list[tuple[int, int, TrackedDeployment, tuple[str, str] | None]] = []
    discovery, activity = {}, {}
    for tracked in deployments:
        with alone(tracked.adapter):
            logs_of, name = tracked.adapter.logs(tracked.market, tracked.accounts), tracked.name
            discovery[name], activity[name] = pairs_of(logs_of.discovery), pairs_of(logs_of.activity)
            missing = [(*span, tracked, pair) for pair, gaps in tracked.discovery(target).items() for span in gaps]
            spans += [*missing, *((*span, tracked, None) for span in tracked.activity_gap(target))]
    cuts = sorted({s[0] for s in spans} | {s[1] + 1 for s in spans})
    for first, after in reversed(list(pairwise(cuts))):
        here = [s for s in spans if s[0] <= first and s[1] >= after - 1]
        wanted = []
        for tracked in deployments:
            mine = [s[3] for s in here if s[2] is tracked]
            if not mine:
                continue
            pairs = {pair for pair in mine if pair is not None}
            sources = {source_name(pair) for pair in pairs}
            if None in mine:
                # Activity includes every discovery log of the same blocks.
                pairs |= activity[tracked.name] | discovery[tracked.name]
                sources |= {ACTIVITY, *map(source_name, discovery[tracked.name])}
                if tracked.previous is not None and isinstance(tracked.adapter, LiquidationLogs):
                    sources.add(LIQUIDATIONS)
            wanted.append(Wanted(tracked, frozenset(pairs), discovery[tracked.name], frozenset(sources)))
        if wanted:
            yield first, after - 1, wanted


class MissingLogs:
    """Fetches the logs that are missing; `seen` counts them and `fetched` their blocks, in the run `run`."""

    def __init__(self, store: Store, chain: Chain, settings: Settings, progress: Progress) -> None:
        self.store, self.chain, self.settings, self.progress = store, chain, settings, progress
        self.liquidations = Liquidations(store, chain, progress)
        self.begin(None)
        #: whether blocks come too fast to look at each: logs are asked for by range up to the target, and sums decide
        self.by_range = False
        #: deployments whose older logs no endpoint has, and when they were asked for
        self.refused: dict[str, float] = {}
        self._alone: Alone = together
        self._left_out: set[str] = set()
        self._until = math.inf

    def begin(self, run: int | None) -> None:
        """Starts to count for the run of that number."""
        self.run, self.seen, self.fetched, self._began = run, 0, 0, int(time.time())

    def fetch(
        self,
        deployments: Sequence[TrackedDeployment],
        target: Block,
        alone: Alone = together,
        *,
        seconds: float = math.inf,
    ) -> list[TrackedDeployment]:
        """Fetches what is missing up to the target, once for all deployments, and saves it piece by piece.

        The newest blocks come first. Returns the deployments that miss nothing: as soon as there are any while others
        need many more requests, and after `seconds` at the latest. A deployment whose adapter fails in `alone` is left
        out, and the blocks count as not fetched for it.
        """
        self._alone, self._left_out, self._until = alone, set(), time.monotonic() + seconds
        pieces = [piece for piece in plan(deployments, target.number, alone) if not self._pruned_lately(piece)]
        ready = self._ready(deployments, pieces)
        if pieces:
            self._start(deployments, pieces, target)
        while pieces and not self._late() and not (ready and blocks_in(pieces) > self.chain.log_limit.size):
            first, last, wanted = pieces[0]
            self._fetch_piece(first, last, wanted, target)
            if not self._late():
                del pieces[0]
            ready = self._ready(deployments, pieces)
        self.progress.done("logs")
        for tracked in ready:
            with alone(tracked.adapter):
                if tracked.complete_from is not None and not tracked.lacks_history(target.number):
                    tracked.complete_from = None
        return ready

    def _start(self, deployments: Sequence[TrackedDeployment], pieces: Sequence[Piece], target: Block) -> None:
        """Shows the progress; a first sync that was interrupted goes on where it was."""
        left = blocks_in(pieces)
        new = [one for one in deployments if one.previous is None and not one.postponed]
        starts = [one.adapter.deployment.start_block for one in new]
        whole = max(target.number - min(starts) + 1 if starts else left, left)
        self.progress.start("logs", whole, "blocks", whole - left)
        with self.store.transaction() as conn:
            tell(conn, self.run, blocks=self.fetched, blocks_wanted=self.fetched + left, stage_began_at=self._began)

    def _late(self) -> bool:
        return time.monotonic() > self._until

    @staticmethod
    def _ready(deployments: Sequence[TrackedDeployment], pieces: Sequence[Piece]) -> list[TrackedDeployment]:
        waiting = {want.tracked.name for _, _, wanted in pieces for want in wanted}
        return [tracked for tracked in deployments if tracked.name not in waiting]

    def _pruned_lately(self, piece: Piece) -> bool:
        """Whether no endpoint had these logs when they were last asked for, not long ago."""
        _, last, wanted = piece
        return all(
            want.tracked.complete_from is not None
            and last < want.tracked.complete_from
            and time.monotonic() - self.refused.get(want.tracked.name, -math.inf) < AGAIN_SECONDS
            for want in wanted
        )

    def _fetch_piece(self, first: int, last: int, wanted: list[Wanted], target: Block) -> None:
        addresses = frozenset(address for w in wanted for address, _ in w.pairs)
        topics = frozenset(topic for w in wanted for _, topic in w.pairs)
        wants, pairs = Filter.of(addresses, topics), frozenset(pair for w in wanted for pair in w.pairs)
        recent = max(first, target.number - self._checked_blocks(first, addresses, topics, wanted, target) + 1)
        while first <= last:
            try:
                for chunk in self._chunks(first, last, recent, wants, pairs, self._shapes(wanted), target):
                    if isinstance(chunk, Chunk) and chunk.omitted:
                        self._tell_omitted(chunk, wanted)
                    self._save_chunk(chunk, wanted)
                    first = chunk.to_block + 1
                if self._late():
                    return
            except PrunedError as error:
                first = self._after_pruned(first, last, addresses, topics, wanted, error)

    def _chunks(
        self,
        first: int,
        last: int,
        recent: int,
        wants: Filter,
        pairs: frozenset[tuple[str, str]],
        shapes: Mapping[tuple[str, str], Shape],
        target: Block,
    ) -> Iterator[Chunk | Named]:
        """The logs of a range, those of blocks from `recent` on by hash; it ends early when it is late.

        Along with a long history, which comes first, the last blocks are asked for.
        """

        def last_blocks(since: int) -> Iterator[Chunk]:
            return fetch_recent(self.chain, since, last, wants.addresses, wants.topics, target, pairs=pairs)

        def go_on() -> bool:
            return not self._late()

        ahead = None
        settled = min(last, recent - 1, target.number - SETTLED)
        if shapes and settled - first >= SETTLED:
            ahead = begin(lambda: list(last_blocks(recent))) if recent <= last else None
            for found in discover(self.chain, first, settled, wants, shapes, go_on):
                yield found
                first = found.to_block + 1
        if first < recent and (ahead is None or go_on()):
            for chunk in fetch(self.chain, first, min(last, recent - 1), wants.addresses, wants.topics, go_on=go_on):
                yield chunk
                first = chunk.to_block + 1
        if max(first, recent) <= last and go_on():
            yield from last_blocks(max(first, recent)) if ahead is None else ahead.result()

    def _checked_blocks(
        self, first: int, addresses: frozenset[str], topics: frozenset[str], wanted: list[Wanted], target: Block
    ) -> int:
        """How many blocks up to the target are asked for by hash and checked against the headers.

        More of the blocks since the last snapshot, if that is cheap: sums reveal an account that an omitted log of history
        left out, but not always a row that an omitted log of activity left unchanged.
        """
        if self.by_range:
            return 1
        few, many = self.settings.recent_blocks, self.settings.quiet_blocks
        follows = any(ACTIVITY in want.sources for want in wanted)
        if not follows or many <= few or first > target.number - few:
            return few
        return many if quiet(self.chain, addresses, topics, target) else few

    def _shapes(self, wanted: Sequence[Wanted]) -> dict[tuple[str, str], Shape]:
        """The layouts of the logs that all who want them only look through for accounts; none where activity is wanted."""
        if any({ACTIVITY, LIQUIDATIONS} & want.sources for want in wanted):
            return {}
        found: dict[tuple[str, str], Shape | None] = {}
        for want in wanted:
            with self._alone(want.tracked.adapter):
                shapes = want.tracked.adapter.shapes(want.tracked.market)
                for pair in want.pairs:
                    shape = shapes.get(pair[1])
                    found[pair] = shape if found.get(pair, shape) == shape else None
        return {pair: shape for pair, shape in found.items() if shape is not None}

    def _save_chunk(self, chunk: Chunk | Named, wanted: list[Wanted]) -> None:
        by_pair: dict[tuple[str, str], list[Wanted]] = defaultdict(list)
        for want in wanted:
            for pair in want.pairs:
                by_pair[pair].append(want)
        named = chunk.touched if isinstance(chunk, Named) else {}
        self.seen += chunk.count if isinstance(chunk, Named) else len(chunk.events)
        events: dict[str, list[Event]] = defaultdict(list)
        for event in chunk.events:
            for want in by_pair.get((event.address, event.topic0), ()):
                events[want.tracked.name].append(event)
        touches: dict[str, dict[PositionKey, tuple[int, int]]] = {}
        named_by: dict[str, dict[PositionKey, frozenset[str]]] = {}
        contracts: dict[str, dict[str, int]] = {}
        found: dict[str, Found] = {}
        for want in wanted:
            if want.tracked.name not in self._left_out:
                with self._alone(want.tracked.adapter):
                    contracts[want.tracked.name] = self._contracts(want, events[want.tracked.name])
                    told = told_by(want.tracked, events[want.tracked.name]) if LIQUIDATIONS in want.sources else []
                    found[want.tracked.name] = told
                    touched = self._touched(want, events[want.tracked.name])
                    touches[want.tracked.name] = self._touches(want, touched, named)
                    named_by[want.tracked.name] = self._named_by(want, touched)
        self._left_out.update(want.tracked.name for want in wanted if want.tracked.name not in touches)
        done = [want for want in wanted if want.tracked.name in touches]
        rows = [row for want in done for row in self.liquidations.rows(want.tracked, found[want.tracked.name])]
        self.fetched += chunk.to_block - chunk.from_block + 1
        with self.store.transaction() as conn:
            liquidations.save(conn, rows)
            tell(conn, self.run, blocks=self.fetched, logs=self.seen)
            for want in done:
                name = want.tracked.name
                self.store.save_touches(self.chain.chain_id, name, touches[name])
                self.store.save_contracts(self.chain.chain_id, name, contracts[name])
                want.tracked.ranges.add(want.sources, chunk.from_block, chunk.to_block)
        for want in done:
            want.tracked.touch(touches[want.tracked.name], named_by[want.tracked.name])
            want.tracked.name_contracts(contracts[want.tracked.name])
        self.progress.advance("logs", chunk.to_block - chunk.from_block + 1, f"{self.seen:,} logs")

    @staticmethod
    def _touched(want: Wanted, events: Sequence[Event]) -> list[tuple[Event, Sequence[PositionKey]]]:
        """Each event with the positions that it touched."""
        return [(event, [*want.tracked.adapter.touched(want.tracked.market, event)]) for event in events]

    @staticmethod
    def _touches(
        want: Wanted,
        touched: Sequence[tuple[Event, Sequence[PositionKey]]],
        named: Mapping[tuple[str, str], Touched],
    ) -> dict[PositionKey, tuple[int, int]]:
        """The positions that these events touched, with the first and last block."""
        touches: dict[PositionKey, tuple[int, int]] = {}
        for pair in want.pairs & named.keys():
            for account, (first, last) in named[pair].items():
                key = PositionKey(account)
                before = touches.get(key, (first, last))
                touches[key] = (min(first, before[0]), max(last, before[1]))
        for event, keys in touched:
            discovers = (event.address, event.topic0) in want.discovery
            for key in keys:
                if discovers or key in want.tracked.known or key in touches:
                    first, last = touches.get(key, (event.block_number, event.block_number))
                    touches[key] = (min(first, event.block_number), max(last, event.block_number))
        return touches

    @staticmethod
    def _named_by(
        want: Wanted, touched: Sequence[tuple[Event, Sequence[PositionKey]]]
    ) -> dict[PositionKey, frozenset[str]]:
        """The contracts whose logs touched positions, where activity is followed: then they are all."""
        found: dict[PositionKey, frozenset[str]] = {}
        for event, keys in touched if ACTIVITY in want.sources else ():
            for key in keys:
                found[key] = found.get(key, frozenset()) | {event.address}
        return found

    @staticmethod
    def _contracts(want: Wanted, events: Sequence[Event]) -> dict[str, int]:
        """The contracts that these events name, with the first block."""
        named: dict[str, int] = {}
        adapter = want.tracked.adapter
        if not isinstance(adapter, Registry):
            return named
        for event in events:
            for contract in adapter.contracts(event):
                named[contract] = min(named.get(contract, event.block_number), event.block_number)
        return named

    def _tell_omitted(self, chunk: Chunk, wanted: list[Wanted]) -> None:
        log.warning(
            "the node left out %d logs of blocks %d to %d; they were recovered",
            chunk.omitted,
            chunk.from_block,
            chunk.to_block,
        )
        detail = {"from_block": chunk.from_block, "to_block": chunk.to_block, "recovered": chunk.omitted}
        for want in wanted:
            self.store.audit(
                self.chain.chain_id,
                want.tracked.name,
                "omitted-logs",
                checked=chunk.to_block - chunk.from_block + 1,
                mismatches=chunk.omitted,
                detail=detail,
            )

    def _after_pruned(
        self,
        first: int,
        last: int,
        addresses: frozenset[str],
        topics: frozenset[str],
        wanted: list[Wanted],
        error: PrunedError,
    ) -> int:
        """The first block whose logs are available, found by bisection; earlier blocks stay unsynced."""
        low, high = first, last + 1  # logs at `low` are pruned, those at `high` are not
        while high - low > 1:
            middle = (low + high) // 2
            try:
                next(iter(fetch(self.chain, middle, middle, addresses, topics)))
                high = middle
            except PrunedError:
                low = middle
        log.warning("logs of blocks %d to %d are pruned on every endpoint: %s", first, high - 1, error)
        for want in wanted:
            self.refused[want.tracked.name] = time.monotonic()
            want.tracked.complete_from = max(want.tracked.complete_from or 0, high)
            if ACTIVITY in want.sources:
                want.tracked.forget_activity()
        self.progress.advance("logs", high - first)
        return high
