"""One deployment while it is synced: what the store knows of it, in memory, and the reading of its positions."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pydantic import TypeAdapter

from indexer.adapter import AnyAdapter, Reader, Registry
from indexer.model import Accounts, Answer, LogSource, Market, Position, PositionKey
from indexer.store.ranges import Ranges
from indexer.store.store import Store

log = logging.getLogger(__name__)

ACTIVITY = "activity"


def source_name(pair: tuple[str, str]) -> str:
    """How `synced_ranges` names one discovery log: address:topic0."""
    return ":".join(pair)


def pairs_of(sources: Iterable[LogSource]) -> frozenset[tuple[str, str]]:
    return frozenset(pair for source in sources for pair in source.pairs())


def with_keys(adapter: AnyAdapter, read: Reader, market: Market, keys: Iterable[PositionKey]) -> Market:
    """The market with what only these keys, or the contracts that logs named, tell of: where there is a registry."""
    found: Market = adapter.with_keys(read, market, keys) if isinstance(adapter, Registry) else market
    return found


def keys_of_wallets(
    adapter: AnyAdapter, read: Reader, market: Market, wallets: Iterable[str]
) -> tuple[Market, list[PositionKey]]:
    """The keys under which the wallets may hold positions, and the market that knows them."""
    if isinstance(adapter, Registry):
        return adapter.of_wallets(read, market, list(wallets))
    return market, [PositionKey(wallet) for wallet in dict.fromkeys(wallets)]


class TrackedDeployment:
    """A deployment's adapter with everything its snapshots build on; kept between snapshots in follow mode."""

    def __init__(self, store: Store, chain_id: int, adapter: AnyAdapter, accounts: Accounts) -> None:
        self.store, self.chain_id, self.adapter, self.accounts = store, chain_id, adapter, accounts
        self.name = adapter.deployment.name
        store.register(chain_id, self.name, adapter.protocol, accounts)
        row = store.deployment(chain_id, self.name)
        assert row is not None
        if row["accounts"] == Accounts.WATCHED and accounts is not Accounts.WATCHED:
            store.widen(chain_id, self.name, accounts)
            row = store.deployment(chain_id, self.name)
            assert row is not None
        self._market_json = TypeAdapter(adapter.market_type)
        self._position_json = TypeAdapter(adapter.position_type)
        self.complete_from: int | None = row["complete_from"]
        self.previous: Market | None = None
        if row["market"] is not None:
            self.previous = self._market_json.validate_json(row["market"])
        self.known = store.events(chain_id, self.name)
        self.ranges: dict[str, Ranges] = store.ranges(chain_id, self.name)
        self.registry = store.registry(chain_id, self.name)
        self.positions: dict[PositionKey, Position] = {}
        for block_number, state in store.states(chain_id, self.name):
            position = self._position_json.validate_json(state)
            if position.block_number != block_number:  # a reorg moved the block it is known to be right at
                position = replace(position, block_number=block_number)
            self.positions[position.key] = position
        self.market: Market = self.previous  # type: ignore[assignment]  # set by read_market before any use
        self.candidates: list[PositionKey] = []
        self.answers: Mapping[PositionKey, Answer] | None = None
        self.read_count = 0

    # the market -----------------------------------------------------------------------------------------------------

    def read_market(self, read: Reader) -> None:
        """The market at the reader's block, and the positions that contracts have numbered since."""
        market = self.adapter.read_market(read, self.previous)
        if self.previous is not None and not self.previous.exact and market.exact:
            self.forget_positions()  # they were read for the contract's own answers
        after = max(self.registry.keys, default=0)
        numbered_since = self.adapter.enumerate(read, market, after) if isinstance(self.adapter, Registry) else []
        new = dict(enumerate(numbered_since, after + 1))
        if new:
            self.store.save_registry(self.chain_id, self.name, new, read.block.number)
            self.registry = self.store.registry(self.chain_id, self.name)
        # A numbered position that nothing names may still hold something where the history is pruned.
        numbered = self.registry.numbers if self.previous is None else new.values()
        self.candidates = [key for key in numbered if key not in self.known]
        self.market = replace(market, registry=self.registry)
        self._skip_before_joining()

    def _skip_before_joining(self) -> None:
        """A contract that joined the market after the last snapshot was of no use to anybody before: no log is missed."""
        activity = self.ranges.get(ACTIVITY)
        if self.previous is None or not self.previous.exact or not activity:
            return
        # A reorg moves the snapshot's block back together with the activity.
        first, last = self.adapter.deployment.start_block, min(self.previous.block.number, activity.to_list()[-1][1])
        pairs = [
            pairs_of(self.adapter.logs(market, self.accounts).discovery) for market in (self.market, self.previous)
        ]
        joined = [name for name in map(source_name, pairs[0] - pairs[1]) if not self.ranges.get(name)]
        if joined and first <= last:
            self.store.add_ranges(self.chain_id, self.name, joined, first, last)
            self.mark_logs(joined, first, last)

    def dump_market(self) -> str:
        return self._market_json.dump_json(self.market, exclude={"registry"}).decode()

    # logs -----------------------------------------------------------------------------------------------------------

    def discovery(self, target: int) -> dict[tuple[str, str], list[tuple[int, int]]]:
        """Discovery logs (address, topic0) -> the block ranges up to `target` that are still to be fetched."""
        start = self.adapter.deployment.start_block
        pairs = pairs_of(self.adapter.logs(self.market, self.accounts).discovery)
        return {pair: self.ranges.get(source_name(pair), Ranges()).missing(start, target) for pair in pairs}

    def activity_gap(self, target: int) -> list[tuple[int, int]]:
        """The blocks whose activity is still to be fetched: from the first position read on."""
        ranges = self.ranges.get(ACTIVITY)
        if not ranges:
            return []
        return ranges.missing(next(iter(ranges))[0], target)

    def mark_logs(self, sources: Iterable[str], first: int, last: int) -> None:
        for source in sources:
            self.ranges[source] = self.ranges.get(source, Ranges()).add(first, last)

    def touch(self, touches: dict[PositionKey, tuple[int, int]]) -> None:
        for key, (first, last) in touches.items():
            old = self.known.get(key)
            self.known[key] = (first, last) if old is None else (min(old[0], first), max(old[1], last))

    def name_contracts(self, named: Iterable[str]) -> None:
        if not set(named) <= set(self.registry.contracts):
            self.registry = self.store.registry(self.chain_id, self.name)

    # positions ------------------------------------------------------------------------------------------------------

    def to_read(self, read: Reader) -> list[PositionKey]:
        """Known positions whose stored state is not that of the reader's block, and candidates never read.

        Call it behind the logs, at the market's block: the market first learns what only the keys and logs name.
        """
        market = replace(self.market, registry=self.registry)
        self.market = with_keys(self.adapter, read, market, [*self.known, *self.candidates])
        target = read.block.number
        keys = []
        for key, (_, last) in self.known.items():
            position = self.positions.get(key)
            if (
                position is None
                or last > position.block_number
                or (position.block_number < target and self.adapter.changes_silently(self.market, position))
            ):
                keys.append(key)
        return keys + [k for k in self.candidates if k not in self.known]

    def read(self, read: Reader, keys: Sequence[PositionKey]) -> None:
        """Reads and saves the positions of `keys` at the reader's block; survives a kill right after."""
        positions = self.adapter.read_positions(read, self.market, keys)
        self.read_count += len(keys)
        self.begin_activity(read.block.number)
        found = {}
        for key, position in zip(keys, positions, strict=True):
            if key not in self.known:
                if position.empty:
                    continue
                found[key] = (read.block.number, read.block.number)
            self.positions[key] = position
        if found:
            self.store.save_logs(self.chain_id, {self.name: found}, {}, 0, 0)
            self.touch(found)
        self.store.save_states(
            self.chain_id,
            self.name,
            [
                (key, position.block_number, self._position_json.dump_json(position).decode())
                for key, position in zip(keys, positions, strict=True)
                if key in self.known
            ],
        )

    def begin_activity(self, block: int) -> None:
        """From the block of the first read on, whoever is touched is read again."""
        if ACTIVITY not in self.ranges:
            self.store.add_ranges(self.chain_id, self.name, [ACTIVITY], block, block)
            self.mark_logs([ACTIVITY], block, block)

    def forget_positions(self) -> None:
        """Every position is read again; heals whatever a lying node left behind."""
        self.store.drop_states(self.chain_id, self.name)
        self.positions.clear()

    def forget_activity(self) -> None:
        """Nobody can tell any more who was touched since the positions were read: all are read again, from then on."""
        self.forget_positions()
        self.store.drop_source(self.chain_id, self.name, ACTIVITY)
        self.ranges.pop(ACTIVITY, None)

    def forget_logs(self, first: int) -> None:
        """Discovery logs are fetched again from block `first` on; positions stay, activity restarts with them."""
        self.store.drop_ranges(self.chain_id, self.name, first)
        self.ranges = self.store.ranges(self.chain_id, self.name)

    def held(self) -> list[Position]:
        return [self.positions[key] for key in self.known]


class WatchedDeployment(TrackedDeployment):
    """A deployment of which only the watched wallets' positions are known; no log is ever asked for.

    The contracts themselves name the positions, which are few and are all read at each snapshot. So there is no
    history to fill, nothing to catch up with after a pause, and as many requests a block as the block before.
    """

    def __init__(self, store: Store, chain_id: int, adapter: AnyAdapter) -> None:
        super().__init__(store, chain_id, adapter, Accounts.WATCHED)
        store.set_accounts(chain_id, self.name, Accounts.WATCHED)  # a first sync may have begun without any result

    def read_market(self, read: Reader) -> None:
        market = replace(self.adapter.read_market(read, self.previous), registry=self.registry)
        market, keys = keys_of_wallets(self.adapter, read, market, self.store.watched())
        new = {n: key for n, key in market.registry.keys.items() if self.registry.keys.get(n) != key}
        if new:
            self.store.save_registry(self.chain_id, self.name, new, read.block.number)
            self.registry = market.registry
        self.candidates = [key for key in keys if key not in self.known]
        self.market = market

    def discovery(self, target: int) -> dict[tuple[str, str], list[tuple[int, int]]]:
        return {}

    def activity_gap(self, target: int) -> list[tuple[int, int]]:
        return []

    def begin_activity(self, block: int) -> None:
        """Activity is not followed; a later sync of everyone starts with no block done."""

    def to_read(self, read: Reader) -> list[PositionKey]:
        self.market = with_keys(self.adapter, read, self.market, [*self.known, *self.candidates])
        block = read.block.number
        due = [key for key in self.known if key not in self.positions or self.positions[key].block_number < block]
        return due + [key for key in self.candidates if key not in self.known]
