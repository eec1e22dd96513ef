"""The nouns: frozen dataclasses of plain ints and strings, no I/O, no web3 types.

Addresses are lower-case 0x hex. Amounts are integers in the smallest unit; None means unknown, never 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any, NamedTuple

from indexer.auctions import Auction, Sale

WAD = 10**18
RAY = 10**27


class Accounts(StrEnum):
    """Which accounts are discovered: those that can be liquidated, all with a balance, or only the watched wallets'."""

    BORROWERS = "borrowers"
    ALL = "all"
    WATCHED = "watched"


class Status(StrEnum):
    """A position's status: the first that applies, in this order."""

    UNVERIFIED = "unverified"  # the contracts' own answers differ, or could not be compared
    UNPRICEABLE = "unpriceable"  # a needed price is missing
    NO_DEBT = "no-debt"
    LIQUIDATABLE = "liquidatable"  # the contract's own health test fails
    AT_RISK = "at-risk"
    HEALTHY = "healthy"


class Coverage(StrEnum):
    """How it is known that nobody with debt is missing from a deployment."""

    HISTORY = "history"  # all logs that can name an account were read
    SUMS = "sums"  # not all, but the contracts' own totals of debt are reached; former borrowers may be missing
    PARTIAL = "partial"  # somebody may be missing


#: the statuses that the view `at_risk` lists
ENDANGERED = frozenset({Status.AT_RISK, Status.LIQUIDATABLE})
#: the statuses that leave open whether the position is in danger
UNCLEAR = frozenset({Status.UNVERIFIED, Status.UNPRICEABLE})


class PositionKey(NamedTuple):
    """What is liquidated as a unit: an Aave or Comet account, a Maker urn (group = ilk name)."""

    account: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """The part of a block header that a snapshot needs; `timestamp` in seconds."""

    number: int
    hash: str
    parent_hash: str
    timestamp: int

    def after(self, seconds: int, blocks: int) -> "Block":
        """A block that much later. It does not exist yet: its hash and its parent's are ""."""
        if not (seconds or blocks):
            return self
        return Block(self.number + blocks, "", "", self.timestamp + seconds)


@dataclass(frozen=True, slots=True)
class Event:
    """One log, undecoded: an adapter reads only the words it needs.

    `topics` are 0x and 64 hex digits each, `data` raw bytes. Some nodes restart `log_index` in each transaction, so the
    order in a block is that of (`transaction_index`, `log_index`). The word accessors return None where the log is too
    short or the word is not of that type, so that a foreign log under a known topic touches no position.
    """

    address: str
    topics: tuple[str, ...]
    data: bytes
    block_number: int
    block_hash: str
    transaction_hash: str
    log_index: int
    transaction_index: int = 0

    @property
    def topic0(self) -> str:
        return self.topics[0] if self.topics else ""

    def topic_address(self, i: int) -> str | None:
        """Topic `i` as an address, None if absent or not left-padded with zeros."""
        if i >= len(self.topics) or not self.topics[i].startswith("0x000000000000000000000000"):
            return None
        return "0x" + self.topics[i][26:]

    def word(self, i: int) -> int | None:
        """Data word `i` as an unsigned integer."""
        piece = self.data[32 * i : 32 * i + 32]
        return int.from_bytes(piece) if len(piece) == 32 else None

    def word_address(self, i: int) -> str | None:
        piece = self.data[32 * i : 32 * i + 32]
        if len(piece) != 32 or any(piece[:12]):
            return None
        return "0x" + piece[12:].hex()


@dataclass(frozen=True, slots=True)
class LogSource:
    """Logs of any of `addresses` whose topic0 is any of `topics` (0x and 64 hex digits)."""

    addresses: frozenset[str]
    topics: frozenset[str]

    def pairs(self) -> frozenset[tuple[str, str]]:
        return frozenset((address, topic) for address in self.addresses for topic in self.topics)


@dataclass(frozen=True, slots=True)
class Logs:
    """The logs that matter to one deployment.

    `discovery`: the events by which an account can first matter; all of history is searched for them. `activity`: the
    events that can change a position, followed from the first snapshot on; those of `discovery` need not be repeated.
    """

    discovery: Sequence[LogSource]
    activity: Sequence[LogSource]


class Shape(NamedTuple):
    """The layout of the logs of one event, and where they name accounts: so many topics, so many words of data.

    `accounts` are the numbers of the topics that hold an account, `account_words` those of data words. If the data word
    `unless_zero` is 0 the log names nobody.
    """

    topics: int
    words: int
    accounts: tuple[int, ...] = ()
    account_words: tuple[int, ...] = ()
    unless_zero: int | None = None


class Read(NamedTuple):
    """One contract read, e.g. Read(pool, "getReserveData(address)((uint256,uint128))", (asset,)).

    `signature` names the inputs and, after them, the outputs: `poke()()` has neither. The answer is the bare value for one
    output, a tuple for several, nested tuples for structs; addresses are lower-case strings, bytesN are bytes. A call that
    reverts or whose answer does not decode gives a `Failed`. With `sender` the call is made from that account (outside the
    multicall). `mutates`: the call may change state, as that of a stranger's contract or of an unknown fallback may; it is
    made after all others, so that none sees what it does.
    """

    target: str
    signature: str
    args: tuple[Any, ...] = ()
    sender: str | None = None
    mutates: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer of a read that failed: its revert data, or the data that could not be decoded. It is falsy."""

    read: Read
    data: bytes = b""
    reason: str = ""

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Registered:
    """What an `adapter.Registry` has found so far: the positions that a contract numbers (Maker's CdpManager: cdp -> urn, ilk).

    `contracts` are those that only logs name, in order of their first log.
    """

    keys: Mapping[int, PositionKey] = field(default_factory=dict)
    numbers: Mapping[PositionKey, int] = field(default_factory=dict)
    contracts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One row of `assets` and `markets`: an asset as one deployment prices and limits it.

    `asset` is the underlying token, `market` the contract that carries it there (aToken, cToken, Comet, gem join),
    `group` the Maker ilk. `price` in the deployment's price unit (`price_usd` in USD); indexes as the contract
    scales them; rates and factors are fractions (0.8 = 80 %), rates a year; caps and totals in smallest units of
    the asset.
    """

    asset: str
    market: str
    symbol: str
    decimals: int
    group: str = ""
    price: int | None = None
    price_usd: float | None = None
    supply_index: int | None = None
    debt_index: int | None = None
    supply_rate: float | None = None
    borrow_rate: float | None = None
    ltv: float | None = None
    liquidation_threshold: float | None = None
    liquidation_bonus: float | None = None
    supply_cap: int | None = None
    borrow_cap: int | None = None
    total_supply: int | None = None
    total_debt: int | None = None
    active: bool | None = None
    frozen: bool | None = None
    paused: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """A deployment's shared state at one block; each adapter has a subclass of plain ints, strings, tuples and dicts.

    `revision` names what code runs there. `exact` is False where that code is unknown: rows then carry the
    contract's own answers and the status `unverified`, and `note` says why. `usd` = (numerator, denominator):
    USD = value_raw * numerator / denominator, None if there is no way to USD. It is stored as JSON, as
    msgspec writes and reads the subclass, without `registry`, which the sync fills in from the store.
    """

    block: Block
    revision: str
    exact: bool = True
    note: str | None = None
    usd: tuple[int, int] | None = None
    assets: tuple[Asset, ...] = ()
    registry: Registered = field(default_factory=Registered, repr=False, compare=False)

    @property
    def averages(self) -> bool:
        """Whether the limit is the collateral times an average threshold rounded down to basis points, as in Aave.

        Such a limit can drop when more collateral lowers the average, so health is not monotone in every price. It is a
        property because it depends on the version of the code that `revision` names.
        """
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What one position holds, as read from the contracts at `block_number`; each adapter has a subclass.

    Plain ints, strings, tuples and dicts only (stored as JSON): scaled values, which stay valid until an event touches the
    account, never projected ones.
    """

    key: PositionKey
    block_number: int
    #: False: only what decides health was read, not the supplies that back nothing; see `indexer.adapter.HealthFirst`
    supplies_complete: bool = True

    @property
    def empty(self) -> bool:
        """Whether it holds nothing: neither collateral nor debt nor supply."""
        raise NotImplementedError


class Balance(NamedTuple):
    """One row of `balances`; `market` is the contract that keeps the balance.

    `market` distinguishes stable from variable debt, and two markets of one asset: aToken, debt token, cToken, Comet,
    Vat. `side` is "supply" or "debt". `value` is in the protocol's value unit, None if unpriceable.
    """

    asset: str
    market: str
    symbol: str
    decimals: int
    side: str
    scaled: int
    amount: int
    value: int | None
    is_collateral: bool


@dataclass(slots=True, kw_only=True)  # not frozen: that takes three times as long to make, and a million are made
class Health:
    """A position evaluated at the market's block, in the protocol's own value unit. Nobody changes it.

    `health_factor*` are scaled by 1e18, None without debt or when unknown. `liquidatable` is the contract's own
    health test (not caps and pauses, which go to `blocked_by`); `unpriceable` says that a needed price is missing.
    """

    key: PositionKey
    collateral_value: int | None
    liquidation_limit: int | None
    debt_value: int | None
    health_factor: int | None
    health_factor_accrued: int | None = None
    next_health_factor: int | None = None
    has_debt: bool
    liquidatable: bool
    unpriceable: bool = False
    blocked_by: tuple[str, ...] = ()
    mode: str | None = None
    owner: str | None = None
    owner_via: str = "self"
    wallet: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotes:
    """The prices of a market by the keys that `WhatIf.with_prices` takes: assets, Maker ilks, e-modes' price sources.

    `numeraire` is the key of the asset in which prices are counted (WETH), whose own price therefore cannot move; None
    where they are counted in USD.
    """

    prices: Mapping[str, int]
    numeraire: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A price that a position's health depends on, in the oracle's own integer: 10**`decimals` of it are one `unit`.

    `key` is what `WhatIf.with_prices` takes: an asset, an e-mode's price source, a Maker ilk. An asset can be collateral
    and debt of the same position.
    """

    key: str
    symbol: str
    price: int
    decimals: int
    unit: str
    collateral: bool
    debt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A market and a position in it after one act; `refused` says why the contracts would refuse that act now."""

    market: Market
    position: Position
    refused: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiquidationCall:
    """The most of one debt that one liquidation call can close for one collateral now; amounts in smallest units.

    `repaid` is what the liquidator pays, `seized` what the position loses for it, `seized_scaled` as the contract keeps
    it: of an aToken what its balanceOf loses at the call's index, cTokens at the exchange rate before the call.
    `received` is what the liquidator gets of that (the contract rounds it by itself), the rest is the protocol's.
    `bonus` as a fraction (0.05 = 5 %), None if unknown: the liquidator's (Aave, Compound V2), the discount at which
    absorbed collateral is sold (Comet), the penalty on the debt (Maker).
    `whole`: the call closes the whole account at once, all its collateral for all its debt. `returned` is then what the
    account has of the debt asset after it. `refused` says why the contracts accept no call at all for this pair;
    the amounts are then 0.

    For searchers, None where the adapter does not say: `received_scaled` is `received` in what the contract pays out
    (cTokens), `close_factor` the part of the debt that one call may repay, `cost` and `gain` what the caller pays and gets
    at the oracle's prices in the market's value unit, `function` the function to call, `gas` roughly what that uses.
    """

    debt: Balance
    collateral: Balance
    repaid: int
    seized: int
    seized_scaled: int
    received: int
    bonus: float | None
    whole: bool = False
    returned: int = 0
    refused: str | None = None
    received_scaled: int | None = None
    close_factor: float | None = None
    cost: Fraction | None = None
    gain: Fraction | None = None
    function: str | None = None
    gas: int | None = None
    auction: Auction | None = None
    sale: Sale | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The contracts' own answers about a position, for `verify` and for unknown revisions.

    `columns` maps columns of `positions` to the contract's value (ints for *_raw, strings for owners, None for
    "no debt"); only what a contract really answers is in it. `amounts` and `scaled` map (market or asset, side) of
    `balances`, whichever is unique there, to the contract's amount_raw and scaled_raw; 0: no such row may exist.
    """

    key: PositionKey
    columns: Mapping[str, int | str | None]
    liquidatable: bool | None = None
    amounts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    scaled: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A sum over all known positions whose total the contracts keep too, e.g. the scaled debt of one reserve.

    `want` is the contracts' total, None where the market does not have it. With `at_most` the sum may be smaller (rounding
    drift, or accounts outside the chosen discovery); otherwise both must be equal. If all `debt` checks are equal, nobody
    with debt is unknown.
    """

    name: str
    have: int
    want: int | None
    at_most: bool = False
    debt: bool = False

    @property
    def holds(self) -> bool:
        return self.want is None or (self.have <= self.want if self.at_most else self.have == self.want)

    @property
    def equal(self) -> bool:
        return self.have == self.want


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment of a protocol on a chain, from configuration or the built-in list.

    `options` are those that its adapter declares; `native_symbol` is the symbol of the chain's own coin, `seconds_per_block`
    the measured pace of its blocks (None: unknown).
    """

    name: str
    protocol: str
    chain: str
    start_block: int
    addresses: Mapping[str, str]
    options: Mapping[str, str | float] = field(default_factory=dict)
    native_symbol: str = "ETH"
    seconds_per_block: float | None = None
