"""A chain as other programs ask it: wallets as they are now, and syncs into a file."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from indexer.api.positions import Position
from indexer.api.rows import BlockRef
from indexer.api.wallet import Wallet, addresses_of

if TYPE_CHECKING:
    from indexer.adapter import AnyAdapter
    from indexer.chain.client import Chain
    from indexer.config import Config
    from indexer.model import Accounts
    from indexer.progress import Progress
    from indexer.settings import Settings
    from indexer.sync.sync import Sync


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOutcome:
    """What one snapshot did.

    `at_risk` counts wallets, `waiting` positions whose supplies that back no debt are not read yet; `failed` has, by
    deployment, why it stayed behind.
    """

    block: BlockRef
    deployments: tuple[str, ...]
    failed: Mapping[str, str]
    positions: int
    at_risk: int
    waiting: int
    logs: int
    read: int
    requests: int


def connect(
    chain: str = "mainnet",
    *,
    config: Path | str | None = None,
    rpc_urls: Sequence[str] = (),
    protocols: Sequence[str] = (),
    deployments: Sequence[str] = (),
    max_requests_per_second: float | None = None,
    spread: bool = False,
) -> "Connection":
    """Connects to a chain, with the configuration and the environment that the command has.

    Raises `ConfigError` for a name that is not configured, `ChainError` if no endpoint answers.
    """
    from indexer.chain.connect import connect as connected
    from indexer.config import load

    configured = load(None if config is None else Path(config), os.environ)
    chosen, _ = configured.select(chain, protocols, deployments)
    found = connected(configured, chosen, rpc_urls, max_requests_per_second=max_requests_per_second, spread=spread)
    return Connection(found, configured, protocols, deployments)


class Connection:
    """A connection to a chain. Use it as a context, or close it; it belongs to one thread."""

    def __init__(
        self, chain: "Chain", config: "Config", protocols: Sequence[str] = (), deployments: Sequence[str] = ()
    ) -> None:
        self._chain, self._config = chain, config
        self._protocols, self._names = tuple(protocols), tuple(deployments)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections to the endpoints."""
        self._chain.close()

    @property
    def name(self) -> str:
        """The configured name of the chain."""
        return self._chain.name

    @property
    def chain_id(self) -> int:
        """The id of the chain."""
        return self._chain.chain_id

    def wallet(self, *addresses: str, to: str = "latest") -> Wallet:
        """What these wallets hold and owe at a block, read from the contracts in a few requests and without a database.

        `to` is `latest`, `safe`, `finalized` or a number. Raises `ConfigError` for what is no address. A deployment that
        cannot be read is named in `Wallet.left_out`.
        """
        from indexer.report.outlook import Held
        from indexer.sync.live import live

        wallets = addresses_of(addresses)
        left_out: list[str] = []
        found = list(
            live(self._chain, self._adapters(), wallets, to, lambda name, why: left_out.append(f"{name}: {why}"))
        )
        positions = [
            Position.of({**one.row._asdict(), "balances": [balance._asdict() for balance in one.balances]})
            for one in found
        ]
        held = [
            Held(position.key, one.adapter, one.market, one.position, one.seconds_per_block)
            for position, one in zip(positions, found, strict=True)
        ]
        return Wallet(wallets, positions, held, left_out)

    def sync(
        self,
        db: Path | str = "indexer.db",
        *,
        protocols: Sequence[str] = (),
        deployments: Sequence[str] = (),
        accounts: str = "borrowers",
        to: str = "latest",
        history: bool = True,
        supplies: bool = False,
    ) -> SyncOutcome:
        """Brings a database to a block: one snapshot, as `indexer sync`; it goes on where one was interrupted.

        `protocols` and `deployments` default to those of `connect`. `accounts` is `borrowers` or `all`. `history=False` leaves
        out old logs where accounts were imported or are numbered; `supplies` then reads those that back no debt. Raises
        `StoreLockedError` while another sync works on the file, `ChainError` if no deployment could be brought there.
        """
        from indexer.model import Accounts

        adapters = self._adapters(protocols, deployments)
        with opened_sync(Path(db), self._chain, adapters, Accounts(accounts), self._config.settings) as worker:
            worker.history = history
            outcome = worker.snapshot(to)
            if supplies and outcome.waiting:
                worker.supplies = None
                outcome = worker.snapshot(to)
        block = outcome.block
        return SyncOutcome(
            block=BlockRef(block.number, block.hash, block.timestamp),
            deployments=tuple(outcome.deployments),
            failed=dict(outcome.failed),
            positions=outcome.positions,
            at_risk=outcome.at_risk,
            waiting=outcome.waiting,
            logs=outcome.logs,
            read=outcome.read,
            requests=outcome.requests,
        )

    def _adapters(self, protocols: Sequence[str] = (), deployments: Sequence[str] = ()) -> "list[AnyAdapter]":
        from indexer.chain.connect import adapters

        asked = protocols or deployments
        _, found = self._config.select(
            self.name, protocols if asked else self._protocols, deployments if asked else self._names
        )
        return adapters(self._chain, found)


@contextmanager
def opened_sync(
    path: Path,
    chain: "Chain",
    adapters: "Sequence[AnyAdapter]",
    accounts: "Accounts",
    settings: "Settings",
    progress: "Progress | None" = None,
    *,
    accept_reorg: bool = False,
) -> "Iterator[Sync]":
    """A sync of these deployments into a file, which it locks; refused before anything is written where a contract is missing."""
    from indexer.chain.connect import require_contracts
    from indexer.queries.queries import known_deployments
    from indexer.store.store import Store
    from indexer.sync.sync import Sync

    if progress is not None:
        progress.start("connecting", 1, "nodes")
    require_contracts(chain, adapters, known_deployments(path))
    if progress is not None:
        progress.done("connecting")
    with Store(path) as store, store.lock():
        yield Sync(store, chain, adapters, accounts, settings, progress, accept_reorg=accept_reorg)
