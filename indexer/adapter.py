"""The one page a protocol author reads.

An adapter knows one protocol's contracts. It never opens a connection and never sees the store: it is given a
`Reader`, in tests a dict. One instance serves one deployment. Register the class in the entry-point group
`lending_indexer.protocols`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from indexer.errors import ReadFailedError
from indexer.model import (
    Accounts,
    Answer,
    Balance,
    Block,
    Check,
    Deployment,
    Effect,
    Event,
    Failed,
    Health,
    LiquidationCall,
    LogSource,
    Market,
    Position,
    PositionKey,
    Price,
    Read,
)

M = TypeVar("M", bound=Market)
P = TypeVar("P", bound=Position)


class Reader(Protocol):
    """Contract reads pinned to one block, however many; every read is answered exactly once, in order."""

    @property
    def block(self) -> Block: ...

    def __call__(self, reads: Sequence[Read], prelude: Sequence[Read] = ()) -> list[Any]:
        """The answers to `reads`, a `Failed` for each that failed.

        `prelude` is executed first, in the same eth_call, for every batch (accrueInterest, drip, ...): its state
        changes are seen by the reads behind it and then forgotten; its answers are dropped.
        """

    def storage(self, slots: Sequence[tuple[str, int]]) -> list[int] | None:
        """Raw storage words of (contract, slot) pairs; None where the node cannot (no eth_call state override)."""


def answered(answers: list[Any]) -> list[Any]:
    """The same answers, if none of them failed; ReadFailedError names the first that did."""
    for answer in answers:
        if isinstance(answer, Failed):
            name = answer.read.signature.partition("(")[0]
            raise ReadFailedError(f"{answer.read.target} does not answer {name}: {answer.reason or 'reverted'}")
    return answers


def required(read: Reader, reads: Sequence[Read], prelude: Sequence[Read] = ()) -> list[Any]:
    """The answers of reads without which nothing can be computed; ReadFailedError if one fails."""
    return answered(read(reads, prelude)) if reads else []


class Adapter(ABC, Generic[M, P]):
    """One protocol's contracts: what to read, which logs matter, and the exact maths.

    `M` and `P` are its own Market and Position, named again as `market_type` and `position_type` for the store.
    """

    protocol: ClassVar[str]
    market_type: ClassVar[type[Market]]
    position_type: ClassVar[type[Position]]
    #: address keys of the configuration, and which of them may be missing
    required_addresses: ClassVar[tuple[str, ...]]
    optional_addresses: ClassVar[tuple[str, ...]] = ()

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    @abstractmethod
    def read_market(self, read: Reader, previous: M | None) -> M:
        """Shared state at the reader's block: reserves, indexes, rates, prices, thresholds, modes, revision.

        A handful of calls however many wallets there are. `previous` is the last committed snapshot's market, for
        what is kept across blocks (a fitted rounding); never trust it for anything that the chain tells.
        """

    @abstractmethod
    def discovery(self, market: M, accounts: Accounts) -> list[LogSource]:
        """History: the events by which an account can first matter."""

    @abstractmethod
    def activity(self, market: M) -> list[LogSource]:
        """From the snapshot on: every event that can change a position (a superset of both discoveries)."""

    @abstractmethod
    def touched(self, market: M, event: Event) -> Iterable[PositionKey]:
        """Who an event may have changed. Dispatch on (address, topic0), never on topic0 alone.

        Every key of an event that is also in discovery() becomes a known position; others only matter if known.
        """

    def contracts(self, event: Event) -> Iterable[str]:
        """Contracts of the protocol that only events name, and maybe others (a Maker join, a new ward of the Vat).

        Of the events in discovery(). They are kept; `extend` finds them in `market.registry.contracts`.
        """
        return ()

    @abstractmethod
    def read_positions(self, read: Reader, market: M, keys: Sequence[PositionKey]) -> list[P]:
        """The positions of `keys`, in their order, at the reader's block (which may be later than the market's)."""

    @abstractmethod
    def evaluate(self, market: M, position: P) -> Health:
        """Pure, exact: the contract's own formula and rounding at the market's block."""

    @abstractmethod
    def balances(self, market: M, position: P) -> list[Balance]:
        """The non-zero balances of a position, projected to the market's block as the contract would answer."""

    @abstractmethod
    def contract_answers(self, read: Reader, market: M, keys: Sequence[PositionKey]) -> list[Answer]:
        """The contracts' own answers at the reader's block, in the order of `keys`."""

    def untracked(self, market: M, position: P) -> bool:
        """Whether this position may have changed without any event, and so is read again at each snapshot."""
        return False

    def calibrate(self, read: Reader, market: M, positions: Sequence[P]) -> M:
        """The market with what only positions can tell (a rounding generation), asked of the contracts if in doubt."""
        return market

    def extend(self, read: Reader, market: M, keys: Iterable[PositionKey]) -> M:
        """The market with what only the known keys name (a Maker ilk first seen in a log), or `registry.contracts`.

        Called by the sync after the logs, with every known key, before any position is read; `read` is pinned to
        the market's block.
        """
        return market

    def of_wallet(self, read: Reader, market: M, wallet: str) -> tuple[M, list[PositionKey]]:
        """The keys under which `wallet` may hold positions, asked of the contracts alone (no logs, no store).

        With them the market, whose registry then holds those of them that a contract numbers.
        """
        return market, [PositionKey(wallet)]

    def of_wallets(self, read: Reader, market: M, wallets: Sequence[str]) -> tuple[M, list[PositionKey]]:
        """`of_wallet` of several wallets; to override where it reads, so that many cost as many requests as one."""
        keys: dict[PositionKey, None] = {}
        for wallet in wallets:
            market, found = self.of_wallet(read, market, wallet)
            keys.update(dict.fromkeys(found))
        return market, list(keys)

    def enumerate(self, read: Reader, market: M, after: int) -> list[PositionKey]:
        """Positions that the contracts themselves number, from number `after` + 1 on (Maker's CdpManager)."""
        return []

    def checks(self, market: M, positions: Iterable[P], accounts: Accounts) -> list[Check]:
        """Sums over all known positions that the contracts also tell; they catch omitted logs."""
        return []

    @abstractmethod
    def reprice(self, market: M, prices: Mapping[str, int]) -> M:
        """The market as it would be with other prices: asset (or ilk for Maker) -> price in its own unit."""

    @abstractmethod
    def advance(self, market: M, seconds: int, blocks: int) -> M:
        """The market after that time with no activity: indexes as the views would then answer."""

    def quoted(self, market: M) -> dict[str, int]:
        """Everything that `reprice` takes, with its price now; what has no price is left out."""
        return {row.group or row.asset: row.price for row in market.assets if row.price is not None}

    def numeraire(self, market: M) -> str | None:
        """The key of the asset in which prices are counted (ETH), so that its own cannot move; None where that is USD."""
        return None

    def revalued(self, market: M, factor: Fraction) -> M:
        """The market whose numeraire is worth `factor` times as many USD, where `reprice` cannot tell."""
        return market

    def thresholds(self, market: M) -> dict[str, Fraction]:
        """Liquidation thresholds by asset, ilk, or what else has one (`e-mode:1`); Maker's are 1 / mat."""
        return {}

    def rethreshold(self, market: M, thresholds: Mapping[str, Fraction]) -> M:
        """The market with other thresholds, each rounded so that nobody is safer than it says."""
        return market

    # Liquidation: what `indexer.liquidation` asks. A protocol without these tells health factors all the same.

    def narrow(self, market: M, position: P) -> M:
        """The market with nothing but what this position's health needs, so that many what-ifs of it are fast."""
        return market

    def accrued(self, market: M) -> M:
        """The market as if all interest up to its block had just been stored, as a liquidation begins with."""
        return market

    def averages(self, market: M) -> bool:
        """Whether the limit is the collateral times an average threshold cut to basis points (1 / 10,000).

        It then jumps down where a growing collateral lowers that average, and health is not monotone in every price.
        """
        return False

    def prices(self, market: M, position: P) -> list[Price]:
        """The prices that the position's health hangs on; one that is missing or fixed is left out."""
        return []

    def changed(self, market: M, position: P, balance: Balance, delta: int) -> Effect | None:
        """After `delta` smallest units more (below 0: fewer) of one of its balances, at the market's stored indexes.

        That is to supply or withdraw, to borrow or repay so much of the underlying asset, in the contracts' rounding;
        what goes beyond the balance is cut off. None where the adapter does not know the rounding.
        """
        return None

    def closable(self, market: M, position: P) -> list[LiquidationCall]:
        """What one liquidation call can close of a liquidatable position, for each pair of debt and collateral.

        At the market's stored indexes; empty for a position that is not liquidatable.
        """
        return []


#: an adapter of whatever protocol
AnyAdapter = Adapter[Any, Any]
