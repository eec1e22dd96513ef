"""The history of prices beside a chain that is followed: one call a block, and more only where something changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from indexer.adapter import AnyAdapter, PriceSources
from indexer.model import Block, Market, Read
from indexer.prices import tables
from indexer.prices.from_state import NUMBER, Wanted, answered, question, told
from indexer.prices.history import Brought, Place, PriceHistory
from indexer.prices.settling import settle_newest
from indexer.prices.tables import Round
from indexer.prices.unwrap import CAPS, PROBES, Feed
from indexer.reads.multicall import PinnedReader

#: so often everything is looked at anew, and whenever a source or a cap changes: ratios, prices that only snapshots tell
WHOLE_SECONDS = 3600


class News(NamedTuple):
    """What a block brought: rounds, the rounds (feed, phase, number) that proxies serve from which some are hidden, and
    whether an OSM was poked.
    """

    rounds: list[Round]
    served: list[tuple[str, int, int]]
    poked: bool


@dataclass
class FollowedPrices:
    """Keeps the history up to the block of each snapshot; `markets` are those of that snapshot."""

    history: PriceHistory
    markets: Callable[[], Sequence[tuple[AnyAdapter, Market]]]
    since_seconds: int
    whole_at: int | None = None
    last: dict[Place, int] = field(default_factory=dict)
    zzz: dict[str, int] = field(default_factory=dict)
    #: the sources and caps of the last block
    governed: list[object] = field(default_factory=list)

    def look(self, block: Block) -> Brought | None:
        """Brings the history to a block; what was done where everything was looked at, None after a quick look.

        ReorgError if the block left the chain meanwhile.
        """
        if self.whole_at is not None and 0 <= block.timestamp - self.whole_at < WHOLE_SECONDS:
            news = self._ask(block)
            if news is not None:
                self._keep(block, news)
                return None
        done = self.history.bring(self.markets(), block, block.timestamp - self.since_seconds)
        self.last = tables.last_rounds(self.history.store.conn, self.history.chain_id)
        self.zzz = {feed.address: feed.at or 0 for feed in self._of("osm")}
        self.whole_at = block.timestamp
        read, reads = PinnedReader(self.history.chain, block), self._governing()
        self.governed = self._named(read) + (read(reads) if reads else [])
        return done

    def _governing(self) -> list[Read]:
        """What tells that a price has another source, or a cap moved: proxies log neither."""
        reads = [
            read
            for adapter, market in self.markets()
            if isinstance(adapter, PriceSources)
            for read in adapter.source_reads(market)
        ]
        return reads + [Read(one, PROBES[name], mutates=True) for one in self.history.adapters for name in CAPS]

    def _named(self, read: PinnedReader) -> list[object]:
        """The sources that the markets say without a question."""
        return [
            source
            for adapter, market in self.markets()
            if isinstance(adapter, PriceSources) and not adapter.source_reads(market)
            for source in adapter.sources(read, market)
        ]

    def _of(self, kind: str) -> list[Feed]:
        return [feed for feed in self.history.feeds.values() if feed.kind == kind]

    def _ask(self, block: Block) -> News | None:
        """What is new since the block before; None where a proxy, an oracle or a cap turned to something else."""
        read, history = PinnedReader(self.history.chain, block), self.history
        feeds, osms = self._of("chainlink"), self._of("osm")
        hidden = sorted(history.hiding)
        reads = [
            Read(feed.address, PROBES[name], mutates=True) for feed in feeds for name in ("phaseId", "latestRoundData")
        ]
        reads += [Read(osm.address, PROBES["zzz"], mutates=True) for osm in osms]
        reads += [Read(history.phases[place].aggregator, PROBES["latestRoundData"], mutates=True) for place in hidden]
        governing = self._governing()
        found = read(reads + governing) if reads or governing else []
        if self._named(read) + found[len(reads) :] != self.governed:
            return None
        answers = iter(found)
        newest: dict[Place, int] = {}
        turned = False
        for feed in feeds:
            phase, latest = next(answers) or 0, next(answers)
            turned = turned or phase != feed.phase
            if latest:
                newest[feed.address, phase] = latest[0] & NUMBER
        served = [(*place, newest[place]) for place in hidden if place in newest]
        zzz = {osm.address: next(answers) or 0 for osm in osms}
        for place in hidden:
            latest = next(answers)
            if latest:
                newest[place] = latest[0]
        pokes, self.zzz = zzz != self.zzz, zzz
        return None if turned else News(self._new(read, newest), served, pokes)

    def _new(self, read: PinnedReader, newest: dict[Place, int]) -> list[Round]:
        """The rounds behind the last ones that are kept."""
        asked = [
            (Wanted(*place, self.history.phases[place].aggregator, 0, 0, place in self.history.hiding), number)
            for place, latest in newest.items()
            if place in self.last
            for number in range(self.last[place] + 1, latest + 1)
        ]
        answers = read([question(*one) for one in asked]) if asked else []
        rounds = [answered(*one, answer) for one, answer in zip(asked, answers, strict=True) if told(answer)]
        number, now = read.block.number, read.block.timestamp
        return [one._replace(block_number=number) if one.block_timestamp == now else one for one in rounds]

    def _keep(self, block: Block, news: News) -> None:
        history, rounds = self.history, news.rounds
        new: dict[Place, int] = {}
        for one in rounds:
            new[one.feed, one.phase] = min(one.round, new.get((one.feed, one.phase), one.round))
        if news.poked or history.queues.out:
            history.poked(block)
        with history.store.transaction() as conn:
            tables.known_until(conn, history.chain_id, None, block.timestamp)
            decimals = {address: feed.decimals for address, feed in history.feeds.items()}
            tables.save_rounds(conn, history.chain_id, rounds, decimals)
            tables.serve(conn, history.chain_id, news.served, block.timestamp)
            hiding = {place: history.phases[place] for place in history.hiding}
            settle_newest(conn, history.chain_id, new, hiding, block.timestamp)
        for one in rounds:
            place = one.feed, one.phase
            self.last[place] = max(one.round, self.last[place])
