"""The deployments of a sync, what is known of each, and their markets at the block in progress."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from indexer.adapter import AnyAdapter, Reader
from indexer.chain.client import Chain
from indexer.errors import NoCodeError
from indexer.model import Accounts, Block
from indexer.progress import NoProgress, Progress
from indexer.reads.lockstep import Habit, side_by_side
from indexer.reads.multicall import PinnedReader
from indexer.snapshot.tracked import TrackedDeployment
from indexer.store.store import Store
from indexer.sync.failures import Failures
from indexer.sync.start_blocks import StartBlocks
from indexer.units import AT_RISK_BELOW


class Markets:
    """The deployments of a sync; `tracked` keeps what is known of them between snapshots, while that is surely right."""

    def __init__(
        self,
        store: Store,
        chain: Chain,
        adapters: Sequence[AnyAdapter],
        accounts: Accounts,
        progress: Progress | None = None,
        *,
        at_risk_below: float = AT_RISK_BELOW,
    ) -> None:
        self.progress, self.at_risk_below = progress or NoProgress(), at_risk_below
        self.store, self.chain, self.adapters, self.accounts = store, chain, list(adapters), accounts
        self.tracked: dict[str, TrackedDeployment] = {}
        self.checked_code: set[str] = set()
        self.start_blocks = StartBlocks(store, chain)
        self.habits: dict[str, Habit] = defaultdict(Habit)

    def read(self, target: Block, failures: Failures, names: Collection[str] | None = None) -> list[TrackedDeployment]:
        """Every deployment, or each of these, that has not failed, with its market at the target."""
        found: dict[str, TrackedDeployment] = {}

        def read_one(adapter: AnyAdapter, read: Reader) -> None:
            name = adapter.deployment.name
            with failures.alone(adapter):
                tracked = self.tracked.get(name)
                if tracked is None or self.accounts not in (tracked.accounts, Accounts.WATCHED):
                    if self.accounts is not Accounts.WATCHED:
                        self.start_blocks.settle(adapter)
                    tracked = self.tracked[name] = self._tracked(adapter)
                    self.start_blocks.keep(name)
                self._check_code(adapter, codes, target)
                tracked.read_market(read)
                found[name] = tracked
            self.progress.advance("markets", 1)

        wanted = [one for one in self.adapters if names is None or one.deployment.name in names]
        adapters = [one for one in wanted if one.deployment.name not in failures.reasons]
        tasks = [(partial(read_one, one), self.habits[one.deployment.name]) for one in adapters]
        self.progress.start("markets", len(adapters), "deployments")
        if self.accounts is not Accounts.WATCHED:
            self.start_blocks.search((one for one in adapters if one.deployment.name not in self.tracked), target)
        codes = self._codes(adapters, target)
        side_by_side(PinnedReader(self.chain, target), tasks)
        self.progress.done("markets")
        return [found[one.deployment.name] for one in adapters if one.deployment.name in found]

    def _tracked(self, adapter: AnyAdapter) -> TrackedDeployment:
        """What is known of a deployment; if its accounts are discovered, watching it goes on discovering them."""
        chain_id, accounts = self.chain.chain_id, self.accounts
        if accounts is Accounts.WATCHED:
            discovers = self.store.discovers(chain_id, adapter.deployment.name)
            accounts = accounts if discovers is None else Accounts(discovers)
        return TrackedDeployment(self.store, chain_id, adapter, accounts, at_risk_below=self.at_risk_below)

    def _codes(self, adapters: Sequence[AnyAdapter], target: Block) -> dict[str, bytes]:
        """The code at each address that an adapter needs and that was not looked at before."""
        unseen = [adapter for adapter in adapters if adapter.deployment.name not in self.checked_code]
        needed = list(dict.fromkeys(a.deployment.addresses[key] for a in unseen for key in a.required_addresses))
        return dict(zip(needed, self.chain.codes(needed, target), strict=True)) if needed else {}

    def _check_code(self, adapter: AnyAdapter, codes: Mapping[str, bytes], target: Block) -> None:
        name = adapter.deployment.name
        if name in self.checked_code:
            return
        for key in adapter.required_addresses:
            address = adapter.deployment.addresses[key]
            if not codes[address]:
                raise NoCodeError(
                    f"no contract at {key} {address} of deployment {name} on {self.chain.name} "
                    f"at block {target.number}: check the address and the chain"
                )
        self.checked_code.add(name)

    def deployed(self, target: Block) -> list[str]:
        """The deployments whose contracts exist at the target, as far as its state can be read."""
        return [adapter.deployment.name for adapter in self.adapters if self._deployed(adapter, target)]

    def _deployed(self, adapter: AnyAdapter, target: Block) -> bool:
        addresses = adapter.deployment.addresses
        return all(self.chain.code(addresses[key], target) for key in adapter.required_addresses)
