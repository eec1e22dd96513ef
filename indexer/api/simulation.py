"""What would be liquidatable if prices, thresholds or time changed."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from indexer.api.rows import Record
from indexer.errors import ConfigError

if TYPE_CHECKING:
    from indexer.config import Config
    from indexer.model import Deployment
    from indexer.queries.scope import Scope
    from indexer.risk import simulate as simulating
    from indexer.risk.scenario import Change

#: a share such as -0.2, or a text as `--shock` takes it: "-20%"
Share = float | Decimal | str


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedPosition(Record):
    """A position before and after; USD are at the changed prices, health factors (`_raw`) scaled by 1e18.

    `health_factor_accrued_after` has the interest stored that Compound and Maker store only when somebody acts.
    """

    chain_id: int
    deployment: str
    protocol: str
    position_group: str
    account: str
    wallet: str
    status_before: str
    status_after: str
    health_factor_before_raw: int | None
    health_factor_before: float | None
    health_factor_after_raw: int | None
    health_factor_after: float | None
    health_factor_accrued_after_raw: int | None
    health_factor_accrued_after: float | None
    debt_usd: float | None
    collateral_usd: float | None
    blocked_by: str | None
    block_number: int
    block_time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAsset(Record):
    """Debt or collateral (`side`) of those who become liquidatable, of one asset, in whole tokens and USD."""

    chain_id: int
    deployment: str
    side: str
    symbol: str
    asset: str
    positions: int
    amount: float
    value_usd: float | None
    block_number: int
    block_time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDeployment(Record):
    """What is liquidatable in one deployment before and after, and what is new; values in USD at the changed prices."""

    chain_id: int
    deployment: str
    protocol: str
    positions: int
    liquidatable_before: int
    liquidatable_after: int
    new: int
    new_wallets: int
    new_debt_usd: float
    liquidatable_debt_usd: float
    bad_debt_usd: float
    unpriceable: int
    block_number: int
    block_time: str


class Simulation:
    """The result of a scenario; `positions` are those who become liquidatable, or all of the wallets that were asked about.

    `remarks` say what a reader must know: what is left out, and which prices stay as they are.
    """

    def __init__(self, found: "simulating.Simulation | None", remarks: Sequence[str]) -> None:
        self._found = found
        self.remarks = tuple(remarks)

    @property
    def positions(self) -> tuple[SimulatedPosition, ...]:
        """The positions, as `indexer simulate --json` lists them."""
        from indexer.risk.simulate import outcome_row

        outcomes = () if self._found is None else self._found.outcomes
        return tuple(SimulatedPosition.from_row(outcome_row(outcome)) for outcome in outcomes)

    @property
    def newly_liquidatable(self) -> tuple[SimulatedPosition, ...]:
        """Who becomes liquidatable, the largest debt first."""
        return tuple(p for p in self.positions if p.status_after == "liquidatable" != p.status_before)

    def by_asset(self) -> list[SimulatedAsset]:
        """Debts and collateral of those who become liquidatable."""
        from indexer.risk.simulate import asset_rows

        return [] if self._found is None else [SimulatedAsset.from_row(row) for row in asset_rows(self._found)]

    def by_deployment(self) -> list[SimulatedDeployment]:
        """Sums over each deployment."""
        from indexer.risk.simulate import deployment_rows

        return (
            [] if self._found is None else [SimulatedDeployment.from_row(row) for row in deployment_rows(self._found)]
        )


def simulated(
    conn: sqlite3.Connection,
    known: "Mapping[str, Deployment]",
    config: "Config",
    scope: "Scope",
    *,
    shocks: Mapping[str, Share],
    thresholds: Mapping[str, Share],
    days: float,
    protocols: Sequence[str],
    seconds_per_block: float | None,
) -> Simulation:
    """The scenario in what the file holds of the scope. Raises `ConfigError` for a name that no market has."""
    from indexer.adapter import WhatIf
    from indexer.risk import simulate as simulating
    from indexer.risk.chosen import suitable
    from indexer.risk.scenario import GROUPS, Change, Names, spelt
    from indexer.store import books as stored

    supposed, limits = changes(Change.shock, shocks), changes(Change.threshold, thresholds)
    left_out: list[str] = []
    rows = suitable(conn, WhatIf, of=simulating.TOLD, say=left_out.append, protocols=protocols, scope=scope)
    if not rows:
        return Simulation(None, left_out)
    books = stored.load(conn, rows, known, wallets=scope.wallets)
    names = Names({**GROUPS, **config.groups})
    pace = seconds_per_block or simulating.seconds_per_block(conn, rows[0]["chain_id"])
    scenario, _ = spelt([(book.adapter, book.market) for book in books], names, supposed, limits, None, days, pace)
    found = simulating.simulate(
        books,
        scenario,
        names,
        at_risk_below=config.settings.at_risk_below,
        every=bool(scope.wallets),
    )
    return Simulation(found, [*left_out, *simulating.remarks(books, scenario, names)])


def changes(kind: "Callable[[str], Change]", given: Mapping[str, Share]) -> "list[Change]":
    """Changes by name, parsed by `Change.shock` or `Change.threshold`. Raises `ConfigError` for what is no share."""
    return [kind(f"{name}={percent(name, share)}") for name, share in given.items()]


def percent(name: str, share: Share) -> str:
    """A share such as -0.2 as -20%, without a rounding error: a float counts as the decimal that it prints as."""
    if isinstance(share, str):
        return share
    number = Decimal(str(share))
    if not number.is_finite():
        raise ConfigError(f"{name}: {share} is no share such as -0.2, which is -20 %")
    return f"{number * 100:+f}%"
