"""Positions and balances: the rows of the tables of the same names, with exact integers as `int`.

They are not `store.rows.PositionRow` and `BalanceRow`, though a test holds names and types of both together: those are what SQLite
takes by position, exact integers as text since they exceed its 64 bits and flags as 0 or 1, a million times in a sync; these
are promised to other programs, so that a new column of a table reaches them only with a line in CHANGELOG.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from indexer.api.rows import BlockRef, Record, exact
from indexer.text.values import iso


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance(Record):
    """One asset of a position, as a row of `balances`: amounts in whole tokens, `_raw` in the token's smallest unit.

    `side` is `supply` or `debt`; `scaled_raw` is what the contract stores.
    """

    chain_id: int
    deployment: str
    account: str
    position_group: str
    asset: str
    market: str
    symbol: str
    side: str
    scaled_raw: int
    amount_raw: int
    amount: float
    value_usd: float | None
    is_collateral: bool
    block_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position(Record):
    """One position, as a row of `positions`: what a protocol liquidates as a unit.

    None is "unknown" or "none", never 0. Values (`_value_raw`, `liquidation_limit_raw`) are in the protocol's own unit, health
    factors (`_raw`) are scaled by 1e18, `_usd` is in USD. `balances` is there if a wallet was asked for, else None.
    """

    chain_id: int
    deployment: str
    protocol: str
    account: str
    position_group: str
    owner: str
    owner_via: str
    wallet: str
    mode: str | None
    collateral_value_raw: int | None
    liquidation_limit_raw: int | None
    debt_value_raw: int | None
    health_factor_raw: int | None
    health_factor: float | None
    health_factor_accrued_raw: int | None
    health_factor_accrued: float | None
    next_health_factor_raw: int | None
    next_health_factor: float | None
    collateral_usd: float | None
    debt_usd: float | None
    net_usd: float | None
    leverage: float | None
    ltv: float | None
    status: str
    blocked_by: str | None
    block_number: int
    block_hash: str
    block_timestamp: int | None
    note: str | None
    supplies_complete: bool
    balances: tuple[Balance, ...] | None = None

    @property
    def block(self) -> BlockRef:
        """The block at which every digit of the position is exact."""
        return BlockRef(self.block_number, self.block_hash, self.block_timestamp)

    @property
    def health_factor_exact(self) -> Fraction | None:
        """The health factor without a rounding error."""
        return exact(self.health_factor_raw)

    @property
    def key(self) -> tuple[int, str, str, str]:
        """Chain id, deployment, account and group, which name a position in every table."""
        return self.chain_id, self.deployment, self.account, self.position_group

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Position":
        """The position of a row, with the balances that the row has."""
        held = row["balances"] if "balances" in row.keys() else None  # noqa: SIM118 - a row of SQLite
        found = {name: row[name] for name in row.keys() if name != "balances"}  # noqa: SIM118 - as above
        balances = None if held is None else tuple(Balance.from_row(balance) for balance in held)
        return cls.from_row({**found, "balances": balances})

    def as_row(self) -> dict[str, Any]:
        """The row as `at-risk --json` prints it, and its balances where it has them."""
        row = Record.as_row(self)
        row["block_time"] = None if self.block_timestamp is None else iso(self.block_timestamp)
        held = row.pop("balances")
        return row if held is None else {**row, "balances": [balance.as_row() for balance in held]}
