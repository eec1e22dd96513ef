"""The columns of the public tables, and how a snapshot becomes their rows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.model import Asset, Balance, Block, PositionKey

Row = Sequence[Any]

POSITION_COLUMNS = (
    "chain_id deployment protocol account position_group owner owner_via wallet mode collateral_value_raw "
    "liquidation_limit_raw debt_value_raw health_factor_raw health_factor health_factor_accrued_raw "
    "health_factor_accrued next_health_factor_raw next_health_factor collateral_usd debt_usd net_usd leverage ltv "
    "status blocked_by block_number block_hash"
).split()

BALANCE_COLUMNS = (
    "chain_id deployment account position_group asset market symbol side scaled_raw amount_raw amount value_usd "
    "is_collateral block_number"
).split()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one deployment's snapshot commits; `rows` and `balances` are of every known position."""

    chain_id: int
    deployment: str
    protocol: str
    accounts: str
    block: Block
    revision: str
    state: str
    note: str | None
    complete_from: int | None
    market: str
    assets: Sequence[Asset]
    rows: Sequence[Row]
    balances: Iterable[tuple[PositionKey, Sequence[Balance]]]
    usd: tuple[int, int] | None


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def balance_row(where: Row, balance: Balance, usd: tuple[int, int] | None, block_number: int) -> Row:
    """A row of `balances`; `where` = (chain_id, deployment, account, position_group), `usd` as in `Market`."""
    value = None if balance.value is None or usd is None else balance.value * usd[0] / usd[1]
    return (
        *where,
        balance.asset,
        balance.market,
        balance.symbol,
        balance.side,
        str(balance.scaled),
        str(balance.amount),
        balance.amount / 10**balance.decimals,
        value,
        int(balance.is_collateral),
        block_number,
    )


def balance_rows(snapshot: Snapshot) -> Iterator[Row]:
    for key, balances in snapshot.balances:
        where = (snapshot.chain_id, snapshot.deployment, key.account, key.group)
        for balance in balances:
            yield balance_row(where, balance, snapshot.usd, snapshot.block.number)


def market_row(snapshot: Snapshot, a: Asset) -> Row:
    return (
        snapshot.chain_id,
        snapshot.deployment,
        snapshot.protocol,
        a.group,
        a.asset,
        a.market,
        a.symbol,
        a.decimals,
        _text(a.price),
        a.price_usd,
        _text(a.supply_index),
        _text(a.debt_index),
        a.supply_rate,
        a.borrow_rate,
        a.ltv,
        a.liquidation_threshold,
        a.liquidation_bonus,
        _text(a.supply_cap),
        _text(a.borrow_cap),
        _text(a.total_supply),
        _text(a.total_debt),
        a.active,
        a.frozen,
        a.paused,
        snapshot.block.number,
    )
