"""The columns of the public tables, and how a snapshot becomes their rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from indexer.model import Asset, Block, Coverage, Market, PositionKey


class PositionRow(NamedTuple):
    """One row of `positions`."""

    chain_id: int
    deployment: str
    protocol: str
    account: str
    position_group: str
    owner: str
    owner_via: str
    wallet: str
    mode: str | None
    collateral_value_raw: str | None
    liquidation_limit_raw: str | None
    debt_value_raw: str | None
    health_factor_raw: str | None
    health_factor: float | None
    health_factor_accrued_raw: str | None
    health_factor_accrued: float | None
    next_health_factor_raw: str | None
    next_health_factor: float | None
    collateral_usd: float | None
    debt_usd: float | None
    net_usd: float | None
    leverage: float | None
    ltv: float | None
    status: str  # one of `Status`
    blocked_by: str | None
    block_number: int
    block_hash: str
    block_timestamp: int | None  # None in rows that an older version wrote
    note: str | None = None  # why the row is unpriceable or unverified
    supplies_complete: int = 1  # 0: supplies that back nothing are not read yet

    @property
    def key(self) -> PositionKey:
        return PositionKey(self.account, self.position_group)

    @property
    def people(self) -> tuple[str, str, str]:
        """Everyone whose position it is: the wallet behind it, its owner, and the account that the protocol knows."""
        return self.wallet, self.owner, self.account


class BalanceRow(NamedTuple):
    """One row of `balances`."""

    chain_id: int
    deployment: str
    account: str
    position_group: str
    asset: str
    market: str
    symbol: str
    side: str
    scaled_raw: str
    amount_raw: str
    amount: float
    value_usd: float | None
    is_collateral: int
    block_number: int


#: a row of `balances` on its way into the file: a plain tuple, which SQLite and `marshal` take in half the time
BalanceValues = tuple[int, str, str, str, str, str, str, str, str, str, float, float | None, int, int]
POSITION_COLUMNS = PositionRow._fields
Pair = tuple[str, str]  # account, position group
#: account and position group, which equal the row's `key` and take a tenth of the time
pair_of: Callable[[PositionRow], Pair] = itemgetter(*map(POSITION_COLUMNS.index, ("account", "position_group")))
BALANCE_COLUMNS = BalanceRow._fields


class Parts(Protocol):
    """Rows of positions, each with all of its balances, part by part."""

    def __iter__(self) -> Iterator[tuple[Sequence[PositionRow], Sequence[BalanceValues]]]: ...
    def rows(self) -> Iterator[PositionRow]:
        """The rows of positions alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that one deployment's snapshot commits, already computed.

    `parts` are rows and balances of every known position if `whole`, else of those that were evaluated, while the others are
    proven to keep their rows' status. Rows with a health factor below `exact_below` are exact at this block; None if all
    rows are.
    """

    chain_id: int
    deployment: str
    protocol: str
    accounts: str
    state: str
    note: str | None = None
    complete_from: int | None = None
    coverage: str = Coverage.HISTORY
    market: Market
    market_json: str
    parts: Parts
    whole: bool = True
    exact_below: float | None = None

    @property
    def block(self) -> Block:
        return self.market.block

    @property
    def where(self) -> tuple[int, str]:
        return self.chain_id, self.deployment


#: the positions whose wallet, owner or account is one of the JSON list ?1, each once and found by an index: only an owner
#: that is no account has one
OF_ADDRESSES = """
select * from positions where wallet in (select value from json_each(?1))
union select * from positions where owner in (select value from json_each(?1)) and owner_via <> 'self'
union select * from positions where account in (select value from json_each(?1))
    and (chain_id, deployment) in (select chain_id, deployment from deployments)
"""


def as_text(value: int | None) -> str | None:
    """An exact integer as its column holds it."""
    return None if value is None else str(value)


def market_row(snapshot: Snapshot, a: Asset) -> tuple[Any, ...]:
    """A row of `markets`."""
    return (
        snapshot.chain_id,
        snapshot.deployment,
        snapshot.protocol,
        a.group,
        a.asset,
        a.market,
        a.symbol,
        a.decimals,
        as_text(a.price),
        a.price_usd,
        as_text(a.supply_index),
        as_text(a.debt_index),
        a.supply_rate,
        a.borrow_rate,
        a.ltv,
        a.liquidation_threshold,
        a.liquidation_bonus,
        as_text(a.supply_cap),
        as_text(a.borrow_cap),
        as_text(a.total_supply),
        as_text(a.total_debt),
        a.active,
        a.frozen,
        a.paused,
        snapshot.block.number,
    )
