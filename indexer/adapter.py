"""The one page a protocol author reads; docs/protocol-author.md walks through the smallest example.

An adapter knows one protocol's contracts. It never opens a connection and never sees the store: it is given a
`Reader`, in tests a dict. One instance serves one deployment. Register the class in the entry-point group
`lending_indexer.protocols`.

    Adapter        seven methods: health factors, synced and verified
    HealthFirst    health before the supplies that back nothing, which then follow when there is time
    Registry       positions that contracts number, contracts that only logs name
    WhatIf         other prices, other thresholds, later: `simulate`, the falls in `report`
    Liquidation    a WhatIf that also knows what endangers and what heals: the outlook of `show` and of alerts
    Bounded        limit and debt as sums over lines, so that most positions need not be evaluated at each block
    LiquidationLogs  the logs that tell of liquidations: the table `liquidations`
    PriceSources   the contracts that prices come from: `sync --prices`
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from indexer.errors import ReadFailedError
from indexer.model import (
    Accounts,
    Answer,
    Asset,
    Balance,
    Block,
    Check,
    Deployment,
    Effect,
    Event,
    Failed,
    Health,
    LiquidationCall,
    Logs,
    LogSource,
    Market,
    Position,
    PositionKey,
    Price,
    Quotes,
    Read,
    Shape,
)

M = TypeVar("M", bound=Market)
P = TypeVar("P", bound=Position)

ONE = Fraction(1)


#: a contract, and a function of it that takes an address and answers one number, e.g. balanceOf(address)(uint256)
Part = tuple[str, str]


class Reader(Protocol):
    """Contract reads pinned to one block, however many; every read is answered exactly once, in order."""

    @property
    def block(self) -> Block: ...

    def __call__(self, reads: Sequence[Read], prelude: Sequence[Read] = ()) -> list[Any]:
        """The answers to `reads`, a `Failed` for each that failed.

        `prelude` is executed first, in the same eth_call, for every batch (accrueInterest, drip, ...): the reads after
        it see its state changes, which are then discarded, and so are its answers. Reads of
        several calls, and of several deployments, may share an eth_call: what may change state is a prelude or is marked
        (`Read.mutates`).
        """

    def storage(self, slots: Sequence[tuple[str, int]]) -> list[int] | None:
        """Raw storage words of (contract, slot) pairs; None where the node cannot (no eth_call state override)."""

    def by_flags(
        self, accounts: Sequence[str], always: Sequence[Part], by_bit: Mapping[int, Sequence[Part]]
    ) -> list[list[Any]] | None:
        """For each account the answers to `always`, the first of which are its flags, and then to the functions that each
        bit set in them names, lowest bit first. `by_bit` has them by the power of two that the bit is.

        None where that cannot be asked in one go, or a function failed: plain reads then tell.
        """


def answered(answers: list[Any]) -> list[Any]:
    """Return the same answers if none of them failed; ReadFailedError names the first that did."""
    for answer in answers:
        if isinstance(answer, Failed):
            name = answer.read.signature.partition("(")[0]
            raise ReadFailedError(f"{answer.read.target} does not answer {name}: {answer.reason or 'reverted'}")
    return answers


def required(read: Reader, reads: Sequence[Read], prelude: Sequence[Read] = ()) -> list[Any]:
    """Read what nothing can be computed without; ReadFailedError if one read fails."""
    return answered(read(reads, prelude)) if reads else []


class Adapter(ABC, Generic[M, P]):
    """One protocol's contracts: what to read, which logs matter, and the exact arithmetic.

    `M` and `P` are its own Market and Position, named again as `market_type` and `position_type` for the store. A
    protocol that can do more inherits from the capabilities below; the indexer finds them with `isinstance`.
    """

    protocol: ClassVar[str]
    market_type: ClassVar[type[Market]]
    position_type: ClassVar[type[Position]]
    #: the address keys that a deployment's configuration must have, and those that it may have
    required_addresses: ClassVar[tuple[str, ...]]
    optional_addresses: ClassVar[tuple[str, ...]] = ()
    #: keys that `options` of a deployment may have, and their types: a text, or a number above 0
    options: ClassVar[Mapping[str, type[str] | type[float]]] = {}
    #: what a position's group looks like, as a regular expression; empty where positions have none
    group_pattern: ClassVar[str] = ""

    #: whether `read_positions` and `read_health` keep nothing in the adapter, so that several threads may read at once
    concurrent: ClassVar[bool] = False

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    @abstractmethod
    def read_market(self, read: Reader, previous: M | None) -> M:
        """Read the shared state at the reader's block: reserves, indexes, rates, prices, thresholds, modes, revision.

        A handful of calls however many wallets there are. `previous` is the market of the last committed snapshot, for
        what is kept across blocks (a fitted rounding); never take from it what the chain answers.
        """

    @abstractmethod
    def logs(self, market: M, accounts: Accounts) -> Logs:
        """Name the logs that discover accounts (`accounts` says whose), and those that can change any position."""

    @abstractmethod
    def touched(self, market: M, event: Event) -> Iterable[PositionKey]:
        """Name the positions that an event may have changed. Dispatch on (address, topic0), never on topic0 alone.

        Every key of an event in `Logs.discovery` becomes a known position; others count only where already known.
        """

    @abstractmethod
    def read_positions(self, read: Reader, market: M, keys: Sequence[PositionKey]) -> list[P]:
        """Read the positions of `keys`, in their order, at the reader's block (which may be later than the market's)."""

    @abstractmethod
    def evaluate(self, market: M, position: P) -> Health:
        """Compute the health at the market's block, pure and exact: the contract's own formula and rounding."""

    def price_source(self, market: M, asset: Asset) -> str | None:
        """The contract that gives the price of one of `market.assets`, for people; None where the market does not say."""
        return None

    @abstractmethod
    def balances(self, market: M, position: P) -> list[Balance]:
        """List the non-zero balances, projected to the market's block as the contract would answer them."""

    @abstractmethod
    def contract_answers(self, read: Reader, market: M, keys: Sequence[PositionKey]) -> list[Answer]:
        """Ask the contracts what they say about these positions at the reader's block, in the order of `keys`."""

    # Optional: the defaults fit a protocol whose events name everyone who changes.

    def changes_silently(self, market: M, position: P) -> bool:
        """Whether this position may have changed without any event, so that each snapshot reads it again."""
        return False

    def read_changed(self, read: Reader, market: M, changed: Sequence[tuple[P, Collection[str]]]) -> list[P]:
        """Read again positions that logs touched: each as it was, and the contracts whose logs named it since.

        It may leave out what only a log of another contract could have changed. Not asked where anything else is unclear.
        """
        return self.read_positions(read, market, [position.key for position, _ in changed])

    def audit_answers(self, read: Reader, market: M, positions: Sequence[P]) -> list[Answer]:
        """Ask as `contract_answers` does, for the comparison before each commit: it may ask only about what the positions
        hold, and about something that they do not, another thing in each block.
        """
        return self.contract_answers(read, market, [position.key for position in positions])

    def fit(self, read: Reader, market: M, positions: Sequence[P]) -> M:
        """Complete the market with what only positions reveal (a generation of rounding), asking the contracts if needed."""
        return market

    def fit_group(self, market: M, position: P) -> Hashable | None:
        """Sort positions by what `fit` learns from them: while the chain is followed it is given one of each group, and none
        of None. Optional; without it `fit` is given all positions, which are loaded as it goes through them.

        Where a fit changes `Bounded.layout` or `read_market` finds other code, everyone is fitted again.
        """
        return position.key

    def checks(self, market: M, positions: Iterable[P], accounts: Accounts) -> list[Check]:
        """Compare sums over all known positions with the contracts' own totals: they reveal logs that a node left out.

        Those that are `debt` prove that nobody with debt is missing, where accounts come from elsewhere than from logs.
        """
        return []

    def shapes(self, market: M) -> Mapping[str, Shape]:
        """The layout of discovery logs by topic0, for a quick look at long histories; optional.

        Of a log of exactly that layout, whichever discovery contract emits it, `touched` names the same accounts, all
        without group, and `contracts` names none. Every other log goes through `touched`.
        """
        return {}

    def discovers(self, position: P, accounts: Accounts) -> bool:
        """Whether the logs of discovery name whoever holds this; False wherever that is not certain."""
        return not position.empty


class HealthFirst(Adapter[M, P]):
    """A capability: what decides health can be read alone, for a part of the calls; supplies that back nothing can wait."""

    @abstractmethod
    def read_health(self, read: Reader, market: M, keys: Sequence[PositionKey]) -> list[P]:
        """Read like `read_positions`, but leave out supplies that back no debt, and set `supplies_complete` to False.

        `evaluate` must give the same health for both; `checks` must leave out sums that need every supply while one of the
        positions is incomplete.
        """


class Registry(Adapter[M, P]):
    """A capability: contracts number positions (Maker's CdpManager), or only logs name contracts that matter."""

    @abstractmethod
    def enumerate(self, read: Reader, market: M, after: int) -> list[PositionKey]:
        """List the positions that the contracts number, from number `after` + 1 on."""

    @abstractmethod
    def contracts(self, event: Event) -> Iterable[str]:
        """Name contracts that only logs reveal (a Maker join, a new ward of the Vat), and maybe others.

        Called with the events of `Logs.discovery`; the answers are kept in `market.registry.contracts`.
        """

    @abstractmethod
    def with_keys(self, read: Reader, market: M, keys: Iterable[PositionKey]) -> M:
        """Add to the market what only these keys (a Maker ilk first seen in a log) or `registry.contracts` name.

        Called after the logs are read, with every known key, and before any position is read; `read` is pinned to the
        market's block.
        """

    @abstractmethod
    def of_wallets(self, read: Reader, market: M, wallets: Sequence[str]) -> tuple[M, list[PositionKey]]:
        """Ask the contracts alone (no logs, no store) under which keys these wallets may hold positions.

        Returns the market too, with the keys that a contract numbers added to its registry.
        """


class WhatIf(Adapter[M, P]):
    """A capability: the market as it would be with other prices, other thresholds, or later. `simulate` needs it."""

    def quotes(self, market: M) -> Quotes:
        """Every price that `with_prices` can change, with its present value; what has no price is left out."""
        return Quotes(prices={row.group or row.asset: row.price for row in market.assets if row.price is not None})

    @abstractmethod
    def with_prices(self, market: M, prices: Mapping[str, int], numeraire: Fraction = ONE) -> M:
        """The market with other prices, each in its own unit, whose numeraire is worth `numeraire` times as many USD."""

    @abstractmethod
    def thresholds(self, market: M) -> dict[str, Fraction]:
        """Liquidation thresholds by asset, by ilk (1 / mat), or by what else has one (`e-mode:1`)."""

    @abstractmethod
    def with_thresholds(self, market: M, thresholds: Mapping[str, Fraction]) -> M:
        """The market with other thresholds, each rounded so that nobody is safer than it says."""

    @abstractmethod
    def after(self, market: M, seconds: int, blocks: int) -> M:
        """The market after that much time if nobody acts, with the indexes the views would then return (`Block.after`)."""


class Liquidation(WhatIf[M, P]):
    """A capability: what endangers a position, what heals it, and what a liquidator can take. `show` and `opportunities` need it."""

    @abstractmethod
    def exposure(self, market: M, position: P) -> list[Price]:
        """The prices that the position's health depends on; one that is missing or fixed is left out."""

    @abstractmethod
    def interest_stored(self, market: M) -> M:
        """The market as if all interest up to its block had just been stored, which every liquidation begins with."""

    @abstractmethod
    def effect(self, market: M, position: P, balance: Balance, delta: int) -> Effect | None:
        """Supply or withdraw, borrow or repay `delta` smallest units of one balance (below 0: less of it) right now.

        At the market's stored indexes and with the contracts' rounding; `delta` is capped at the balance. None where
        the adapter does not know the rounding.
        """

    @abstractmethod
    def liquidation_calls(self, market: M, position: P) -> list[LiquidationCall]:
        """The most that one liquidation call closes, for each pair of debt and collateral of a liquidatable position.

        At the market's stored indexes; empty for a position that is not liquidatable.
        """

    def narrow(self, market: M, position: P) -> M:
        """The market with nothing but what this position's health needs, so that many what-ifs of it are fast."""
        return market


#: what the amount of a line is counted in: a token in an e-mode, an ilk's collateral or debt
Slot = Hashable


class Line(NamedTuple):
    """An amount of a position that stays valid until somebody acts on it."""

    slot: Slot
    amount: float
    debt: bool = False


class Weight(NamedTuple):
    """What one unit of a slot's amount adds to the liquidation limit and to the debt, in the market's value unit.

    The limit is bounded from both sides. The slacks are the most that the protocol's own rounding can add to or take
    from a line of any amount, including the line's share of the rounding of the sum.
    """

    limit_low: float
    limit_high: float
    debt: float
    limit_slack: float
    debt_slack: float


class Bounded(Adapter[M, P]):
    """A capability: limit and debt are sums over lines, so that most positions need not be evaluated at each block.

    Without it every position is evaluated exactly at every snapshot.
    """

    @abstractmethod
    def layout(self, market: M) -> Hashable:
        """The part of the market that `lines` depends on: lines stay valid while it stays equal."""

    @abstractmethod
    def lines(self, market: M, position: P) -> Sequence[Line] | None:
        """The position as lines; None where it is not such a sum (stable debt, a rebasing token) and so stays open."""

    @abstractmethod
    def slot_weights(self, market: M, slots: Iterable[Slot]) -> list[Weight | None]:
        """The weight of each slot, in their order; None where a line in it may decide a status by itself (no price)."""


class Quantity(NamedTuple):
    """An amount of an asset in its smallest unit; `usd` at the market's price, `decimals` and `usd` None if unknown."""

    asset: str
    amount: int
    decimals: int | None
    usd: float | None


class Liquidated(NamedTuple):
    """What one log says of a liquidation: whose position, by whom (None: it does not say), how much of what.

    `told_usd`: the values are those that the log itself tells, and so true at its block, not only near the market's.
    """

    key: PositionKey
    liquidator: str | None
    repaid: Quantity | None
    seized: Quantity | None
    told_usd: bool = False


class LiquidationLogs(Adapter[M, P]):
    """A capability: the logs that tell of liquidations. The table `liquidations` needs it."""

    @abstractmethod
    def liquidation_logs(self, market: M) -> Sequence[LogSource]:
        """Name the logs that tell of liquidations; all of them are in `Logs.activity` or `Logs.discovery` as well."""

    @abstractmethod
    def liquidated(self, market: M, event: Event) -> Liquidated | None:
        """What a log says of a liquidation, None for any other log. One log, one row: some tell only half of it."""


class PriceSource(NamedTuple):
    """The contract that a deployment's oracle asks for one price; `asset` and `group` as in `Asset`.

    It may be a feed or whatever wraps one: the indexer unwraps it. `taker`: the contract that takes the price over when it
    is poked, and that alone may read it (Maker's Spotter); None where the price counts at once.
    """

    asset: str
    contract: str
    group: str = ""
    taker: str | None = None


class PriceSources(Adapter[M, P]):
    """A capability: which contracts the prices come from. Without it the history of prices is what snapshots saw."""

    def source_reads(self, market: M) -> list[Read]:
        """What `sources` asks; nothing where the market already says it. Another answer means other sources."""
        return []

    @abstractmethod
    def sources(self, read: Reader, market: M) -> list[PriceSource]:
        """Name the contract behind each price of the market, as the oracle says at the reader's block; a price that has
        none, or that the oracle makes itself, is left out.
        """


#: adapters of any protocol
AnyAdapter = Adapter[Any, Any]
AnyWhatIf = WhatIf[Any, Any]
AnyLiquidation = Liquidation[Any, Any]
AnyBounded = Bounded[Any, Any]
AnyLiquidationLogs = LiquidationLogs[Any, Any]
