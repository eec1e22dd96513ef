"""One deployment as the store knows it: its logs' ranges beside its positions, and all that is learnt written down."""

from collections.abc import Iterable, Mapping

from indexer.adapter import AnyAdapter, Reader
from indexer.model import Accounts, LogSource, Position, PositionKey
from indexer.store.books import dump_market, dump_position, load_market, load_positions
from indexer.store.store import Store
from indexer.store.synced import ACTIVITY
from indexer.sync.snapshot import KnownDeployment

Pair = tuple[str, str]  # address and topic0 of a log


def source_name(pair: Pair) -> str:
    """How `synced_ranges` names one discovery log: address:topic0."""
    return ":".join(pair)


def pairs_of(sources: Iterable[LogSource]) -> frozenset[Pair]:
    return frozenset(pair for source in sources for pair in source.pairs())


class TrackedDeployment(KnownDeployment):
    """A deployment with everything its snapshots build on, in the store too; kept between snapshots in follow mode."""

    def __init__(self, store: Store, chain_id: int, adapter: AnyAdapter, accounts: Accounts) -> None:
        watched = accounts is Accounts.WATCHED
        super().__init__(chain_id, adapter, accounts, store.watched if watched else None)
        self.store = store
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
        if row["market"] is not None:
            self.previous = load_market(adapter, row["market"])
        self.registry = store.registry(chain_id, self.name)
        self.known = store.events(chain_id, self.name)
        self.positions = {p.key: p for p in load_positions(adapter, store.states(chain_id, self.name))}
        self.ranges = store.ranges(chain_id, self.name)

    def read_market(self, read: Reader) -> None:
        super().read_market(read)
        self._skip_before_joining()

    def _skip_before_joining(self) -> None:
        """A contract that joined the market after the last snapshot was of no use to anybody before: no log is missed."""
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
        return dump_market(self.adapter, self.market)

    # logs -----------------------------------------------------------------------------------------------------------

    def discovery(self, target: int) -> dict[Pair, list[tuple[int, int]]]:
        """Discovery logs -> the block ranges up to `target` that are still to be fetched; no log of watched wallets."""
        if self.wallets is not None:
            return {}
        start = self.adapter.deployment.start_block
        pairs = pairs_of(self.adapter.logs(self.market, self.accounts).discovery)
        return {pair: self.ranges[source_name(pair)].missing(start, target) for pair in pairs}

    def activity_gap(self, target: int) -> list[tuple[int, int]]:
        """The blocks whose activity is still to be fetched: from the first position read on."""
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
        """Survives a kill right after. From the block of the first read on, whoever is touched is read again."""
        states = [(key, p.block_number, dump_position(self.adapter, p)) for key, p in positions.items()]
        with self.store.transaction():
            if self.wallets is None and ACTIVITY not in self.ranges:
                self.ranges.add([ACTIVITY], block, block)
            self.store.save_touches(self.chain_id, self.name, found)
            self.store.save_states(self.chain_id, self.name, states)

    def forget_positions(self) -> None:
        super().forget_positions()
        self.store.drop_states(self.chain_id, self.name)

    def forget_activity(self) -> None:
        """Nobody can tell any more who was touched since the positions were read: all are read again, from then on."""
        self.forget_positions()
        with self.store.transaction():
            self.ranges.drop(ACTIVITY)

    def forget_logs(self, first: int) -> None:
        """Logs are fetched again from block `first` on; positions stay, activity restarts with them."""
        with self.store.transaction():
            self.ranges.forget_from(first)
