"""The history of prices of one chain, brought to a block: feeds and phases by state, rounds by logs, else by state."""

import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from indexer.adapter import AnyAdapter, PriceSource, PriceSources
from indexer.chain.client import Chain
from indexer.errors import ChainError, ReorgError
from indexer.logs.ranges import fetch
from indexer.model import Block, Event, Market
from indexer.prices import from_state, svr, tables
from indexer.prices.from_logs import OF_AGGREGATOR, OF_MEDIAN, OF_OSM, POKE, Queues, Readers, Told, told, untimed
from indexer.prices.from_state import Wanted, differing, new_phases
from indexer.prices.settling import learn_all, settle
from indexer.prices.tables import FeedRow, PhaseRow, PriceRow, Round
from indexer.prices.unwrap import Composition, Feed, Unwrapped, unwrap
from indexer.progress import NoProgress, Progress
from indexer.reads.multicall import PinnedReader
from indexer.store.store import Store
from indexer.sync.liquidated import first_block_since, headers_of

log = logging.getLogger(__name__)

#: the part of the rounds out of logs that is compared with getRoundData, and at most so many
SAMPLE = 100
MOST_SAMPLED = 500
#: a feed and the number of one of its aggregators
Place = tuple[str, int]
#: blocks whose logs are wanted for some phases
Gap = tuple[int, int]


@dataclass
class Brought:
    """What was done: how many feeds are followed, rounds added, and prices that only snapshots tell."""

    feeds: int = 0
    rounds: int = 0
    snapshots: int = 0
    checked: int = 0
    differing: int = 0
    refused: str | None = None


@dataclass
class PriceHistory:
    """Brings the history of prices to a block; keeps what it learnt for the next one. Belongs to the store's thread."""

    store: Store
    chain: Chain
    progress: Progress = field(default_factory=NoProgress)
    feeds: dict[str, Feed] = field(default_factory=dict)
    phases: dict[Place, PhaseRow] = field(default_factory=dict)
    hiding: set[Place] = field(default_factory=set)
    queues: Queues = field(default_factory=Queues)
    changed: set[Place] = field(default_factory=set)
    #: the contracts between oracles and feeds
    adapters: tuple[str, ...] = ()
    #: feeds that are what snapshots saw
    seen: set[str] = field(default_factory=set)

    @property
    def chain_id(self) -> int:
        return self.chain.chain_id

    def bring(self, markets: Sequence[tuple[AnyAdapter, Market]], block: Block, since: int) -> Brought:
        """Everything up to `block` and back to `since` (unix seconds). ReorgError if the chain changed meanwhile."""
        read, done = PinnedReader(self.chain, block), Brought()
        before = tables.count(self.store.conn, self.chain_id)
        self.compose(read, markets)
        self._find_phases(read, block)
        self._load_queues()
        for gap, places in self._gaps(block, since).items():
            self._fetch(read, gap, places, since, done)
        self._queue(read)
        self.changed |= self.hiding  # what was hidden comes into force by time alone
        learnt_of = {feed for feed, _ in self.changed}
        self._settle(block)
        with self.store.transaction() as conn:
            learn_all(conn, self.chain_id, learnt_of, block.timestamp)
            tables.known_until(conn, self.chain_id, [*self.feeds, *self.seen], block.timestamp)
            present = [(feed, phase, self.feeds[feed].round or 0) for feed, phase in self.hiding]
            tables.serve(conn, self.chain_id, present, block.timestamp)
        done.feeds, done.rounds = len(self.feeds), tables.count(self.store.conn, self.chain_id) - before
        return done

    # what prices are made of ------------------------------------------------------------------------------------------

    def compose(self, read: PinnedReader, markets: Sequence[tuple[AnyAdapter, Market]]) -> None:
        """Asks the oracles for their sources, and unwraps them; prices without a source are those that snapshots saw."""
        named = {
            adapter.deployment.name: adapter.sources(read, market) if isinstance(adapter, PriceSources) else []
            for adapter, market in markets
        }
        found = unwrap(read, [source for sources in named.values() for source in sources])
        self.feeds, self.adapters, self.seen = found.feeds, found.adapters, set()
        with self.store.transaction() as conn:
            tables.save_feeds(conn, self.chain_id, map(feed_row, found.feeds.values()))
            for adapter, market in markets:
                self._save_prices(adapter.deployment.name, market, named[adapter.deployment.name], found)

    def _save_prices(self, name: str, market: Market, sources: Sequence[PriceSource], found: Unwrapped) -> None:
        conn, rows, seen = self.store.conn, list[PriceRow](), dict[str, tuple[str, str]]()
        by_key = {(source.asset, source.group): source.contract for source in sources}
        for key in dict.fromkeys([*by_key, *((row.asset, row.group) for row in market.assets)]):
            made = found.made.get(by_key.get(key, ""), Composition())
            rows += [price_row(key, made, *part) for part in made.parts]
            if not made.parts:
                feed = f"{name}:{key[1] or key[0]}"
                seen[feed] = key
                rows.append(price_row(key, replace(made, adapter=by_key.get(key)), feed, "price", 1))
        self.seen |= seen.keys()
        tables.save_feeds(conn, self.chain_id, [FeedRow(feed, "snapshot", None, None) for feed in seen])
        tables.save_market_prices(conn, self.chain_id, name, rows)
        tables.copy_snapshots(conn, self.chain_id, name, seen)

    # aggregators ------------------------------------------------------------------------------------------------------

    def _find_phases(self, read: PinnedReader, block: Block) -> None:
        """Adds aggregators that proxies turned to since; finds those that hide rounds, and for how long."""
        known = tables.phases(self.store.conn, self.chain_id)
        followed = {feed for feed, _ in known}
        new = new_phases(read, [*self.feeds.values()], known.keys())
        for row in new:
            turned = row.feed in followed and row.phase == self.feeds[row.feed].phase
            known[row.feed, row.phase] = row._replace(since_timestamp=block.timestamp if turned else None)
        self.phases = {place: row for place, row in known.items() if row.feed in self.feeds}
        hiding = svr.hiding(self.chain, read, self.phases.values())
        self.hiding = {(row.feed, row.phase) for row in hiding}
        for row in hiding:
            seconds = svr.cutoff(read, row.aggregator)
            if seconds is not None:
                self.phases[row.feed, row.phase] = row._replace(cutoff_seconds=seconds)
        with self.store.transaction() as conn:
            tables.save_phases(conn, self.chain_id, self.phases.values())
            turned_to = [
                Round(feed.address, feed.phase, feed.round, None, feed.at, feed.at, feed.answer)
                for feed in (self.feeds[row.feed] for row in new if row.feed in followed)
                if feed.round and feed.at and feed.answer is not None
            ]
            tables.save_rounds(conn, self.chain_id, turned_to, self._decimals)
        self.changed |= {(row.feed, row.phase) for row in new if row.feed in followed}

    @property
    def _decimals(self) -> dict[str, int | None]:
        return {address: feed.decimals for address, feed in self.feeds.items()}

    def _gaps(self, block: Block, since: int) -> dict[Gap, list[Place]]:
        """Which blocks are still to be looked at for which phases."""
        turned = [row for row in self.phases.values() if row.since_timestamp is not None]  # followed from then on
        starts = [row.from_block for row in self.phases.values() if row.from_block is not None and row not in turned]
        fresh = [row for row in self.phases.values() if row.from_block is None]
        first: int | None = None
        if fresh or (starts and self.chain.block(max(starts)).timestamp > since):
            first = first_block_since(self.chain, since, block)
        gaps: dict[Gap, list[Place]] = {}
        for place, row in self.phases.items():
            wanted: list[Gap] = []
            if row.from_block is None or row.to_block is None:
                start = first
                if row.since_timestamp is not None:  # what its proxy read before is followed up to here
                    ends = [
                        other.to_block for other in self.phases.values() if other.feed == row.feed and other.to_block
                    ]
                    start = max(ends) + 1 if ends else first
                wanted.append((start or 0, block.number))
            else:
                wanted.append((row.to_block + 1, block.number))
                if first is not None and row.since_timestamp is None:
                    wanted.append((first, row.from_block - 1))
            for gap in wanted:
                if gap[0] <= gap[1]:
                    gaps.setdefault(gap, []).append(place)
        return gaps

    # rounds -----------------------------------------------------------------------------------------------------------

    def _readers(self, places: Iterable[Place]) -> Readers:
        open_: dict[str, list[Place]] = {}
        hiding: dict[str, list[Place]] = {}
        takers, medians = {}, []
        for place in places:
            feed, aggregator = self.feeds[place[0]], self.phases[place].aggregator
            if feed.kind == "osm":
                takers[feed.address] = feed.taker or ""
            elif feed.kind == "median":
                medians.append(feed.address)
            else:
                (hiding if place in self.hiding else open_).setdefault(aggregator, []).append(place)
        return Readers(open_, hiding, takers, medians)

    def _fetch(self, read: PinnedReader, gap: Gap, places: Sequence[Place], since: int, done: Brought) -> None:
        """The rounds of a gap from logs; where these are pruned or refused, from state."""
        first, last = gap
        readers = self._readers(places)
        topics = {
            *(OF_AGGREGATOR if readers.open or readers.hiding else ()),
            *((*OF_OSM, POKE) if readers.takers else ()),
            *(OF_MEDIAN if readers.medians else ()),
        }
        self.progress.start("prices", last - first + 1, "blocks")
        try:
            for chunk in fetch(self.chain, first, last, readers.addresses() - {""}, topics):
                self._save(read, self._told(chunk.events, readers), places, (first, chunk.to_block, gap), done)
                self.progress.advance("prices", chunk.to_block - chunk.from_block + 1)
        except ReorgError:
            raise
        except ChainError as error:
            log.warning("rounds are read from the contracts' state, as their logs cannot be had: %s", error)
            done.refused = str(error)
            self._from_state(read, gap, places, since)
        self.progress.done("prices")

    def _told(self, events: Sequence[Event], readers: Readers) -> Told:
        blind = untimed(events)
        headers = headers_of(self.chain, blind) if blind else {}
        return told(events, readers, lambda event: headers[event.block_hash].block.timestamp, self.queues)

    def _save(
        self, read: PinnedReader, found: Told, places: Sequence[Place], at: tuple[int, int, Gap], done: Brought
    ) -> None:
        """Rounds, what was revealed, and that the blocks are done, in one transaction; a part is compared with state."""
        first, to_block, gap = at
        for place, seconds in found.cutoffs.items():
            if self.phases[place].cutoff_seconds is None:
                self.phases[place] = self.phases[place]._replace(cutoff_seconds=seconds)
        with self.store.transaction() as conn:
            tables.save_rounds(conn, self.chain_id, found.rounds, self._decimals)
            for place, times in found.reveals.items():
                tables.put_in_force(conn, self.chain_id, *place, times.items())
            for place in places:
                self.phases[place] = grown(self.phases[place], first, to_block, gap)
            tables.save_phases(conn, self.chain_id, (self.phases[place] for place in places))
        self.changed |= {(one.feed, one.phase) for one in found.rounds} | found.reveals.keys()
        self._compare(read, found.rounds, done)

    def _compare(self, read: PinnedReader, rounds: Sequence[Round], done: Brought) -> None:
        """Asks the contracts about a random hundredth of the rounds, and tells a difference in `audits`."""
        plain = [
            one
            for one in rounds
            if self.feeds[one.feed].kind == "chainlink" and (one.feed, one.phase) not in self.hiding
        ]
        count = min(-(-len(plain) // SAMPLE), MOST_SAMPLED - done.checked)
        if count <= 0:
            return
        sample = random.sample(plain, count)
        wrong = differing(read, sample)
        done.checked += len(sample)
        done.differing += len(wrong)
        if wrong:
            log.warning(
                "%d of %d rounds out of logs differ from getRoundData; see the table audits", len(wrong), len(sample)
            )
            self.store.audit(
                self.chain_id, "", "prices", checked=len(sample), mismatches=len(wrong), block=read.block, detail=wrong
            )

    def _from_state(self, read: PinnedReader, gap: Gap, places: Sequence[Place], since: int) -> None:
        last = tables.last_rounds(self.store.conn, self.chain_id)
        rest = [place for place in places if self.feeds[place[0]].kind == "chainlink"]
        wanted = [
            Wanted(
                *place,
                self.phases[place].aggregator,
                last.get(place, 0) if self.phases[place].to_block else 0,
                since,
                place in self.hiding,
            )
            for place in rest
        ]
        for piece in from_state.rounds(read, wanted):
            with self.store.transaction() as conn:
                tables.save_rounds(conn, self.chain_id, piece, self._decimals)
            self.changed |= {(one.feed, one.phase) for one in piece}
        with self.store.transaction() as conn:
            for place in rest:
                self.phases[place] = grown(self.phases[place], gap[0], gap[1], gap)
            tables.save_phases(conn, self.chain_id, (self.phases[place] for place in rest))

    # what waits, and what is in force ---------------------------------------------------------------------------------

    def _load_queues(self) -> None:
        """Where each OSM was at the last sync: its last poke, and a price that came out and was not taken over."""
        self.queues = Queues()
        for feed, rounds in tables.queues(self.store.conn, self.chain_id).items():
            newest = rounds[-1]
            let_out = [one for one in rounds if one.block_number is not None and one.in_force is None]
            if newest.block_number is None:
                self.queues.queued[feed] = newest.round
            elif newest.in_force is not None:
                self.queues.queued[feed] = newest.in_force
            if let_out:
                self.queues.out[feed] = let_out[-1]

    def _queue(self, read: PinnedReader) -> None:
        """Writes down the price that waits in each OSM (OSM.peep, which its taker may read)."""
        waiting = from_state.queued(read, [feed for feed in self.feeds.values() if feed.kind == "osm"])
        rounds = [
            Round(osm, 0, at, None, at, None, value)
            for osm, (zzz, value) in waiting.items()
            for at in [self.queues.queued.get(osm, zzz)]
        ]
        with self.store.transaction() as conn:
            tables.save_rounds(conn, self.chain_id, rounds, self._decimals)

    def poked(self, block: Block) -> None:
        """Brings the OSMs alone to a block: what a poke let out, who took it over, and what waits now."""
        read = PinnedReader(self.chain, block)
        osms = [place for place in self.phases if self.feeds[place[0]].kind == "osm"]
        starts = [self.phases[place].to_block for place in osms]
        if starts and None not in starts:
            gap = min(start for start in starts if start is not None) + 1, block.number
            if gap[0] <= gap[1]:
                self._fetch(read, gap, osms, block.timestamp, Brought())
        self._queue(read)
        self._settle(block)

    def _settle(self, block: Block) -> None:
        """Flags what is no answer, and finds what was in force when; for the phases that got rounds."""
        with self.store.transaction() as conn:
            tables.count_rounds(conn, self.chain_id, {feed for feed, _ in self.changed})
            settle(conn, self.chain_id, self.changed, self.phases, self.hiding, block.timestamp)
        self.changed.clear()


def feed_row(feed: Feed) -> FeedRow:
    return FeedRow(feed.address, feed.kind, feed.decimals, feed.description, feed.hop)


def price_row(key: tuple[str, str], made: Composition, feed: str, role: str, exponent: int) -> PriceRow:
    return PriceRow(
        *key, feed, role, exponent, made.adapter, made.ratio, made.cap, made.capped, made.days_to_cap
    )  # fmt: skip


def grown(row: PhaseRow, first: int, to_block: int, gap: Gap) -> PhaseRow:
    """A phase with the blocks first..to_block of a gap done; those before what is kept count once they reach up to it."""
    if row.from_block is None or row.to_block is None:
        return row._replace(from_block=first, to_block=to_block)
    if first == row.to_block + 1 or row.from_block <= first <= row.to_block:
        return row._replace(to_block=max(to_block, row.to_block))
    return row._replace(from_block=first) if to_block == gap[1] and gap[1] == row.from_block - 1 else row
