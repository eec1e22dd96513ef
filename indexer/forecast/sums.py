"""What a whole book may lose: debt that becomes liquidatable and debt without cover, over the same paths for everybody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from indexer.forecast.exposures import Exposures
from indexer.forecast.screen import Paths, Verdict, along
from indexer.model import Market
from indexer.risk.bounds import Floats

LEVELS = (95, 99)
#: wallets that are listed by what they add to the expected debt
TOP = 10

BOOK_COLUMNS = [
    *"chain_id deployment horizon_seconds positions forecast expected_positions expected_debt_usd".split(),
    *(f"{kind}_{level}_debt_usd" for level in LEVELS for kind in ("var", "es")),
    "expected_bad_debt_usd",
    *(f"{kind}_{level}_bad_debt_usd" for level in LEVELS for kind in ("var", "es")),
    *"paths seed prices_until block_number block_time".split(),
]
#: what a wallet or a collateral adds to the expected debt
PART_COLUMNS = ["horizon_seconds", "name", "expected_debt_usd", "share_percent"]
#: the row over all deployments
TOGETHER = "all"


@dataclass(slots=True)
class BookSums:
    """Of one deployment, in USD of now: (horizon, path), and what its positions add."""

    debt: Floats
    bad: Floats
    positions: int = 0
    forecast: int = 0
    hits: list[int] = field(default_factory=list)
    by_wallet: dict[str, list[float]] = field(default_factory=dict)
    by_asset: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def empty(cls, horizons: int, paths: int) -> "BookSums":
        return cls(np.zeros((horizons, paths)), np.zeros((horizons, paths)), hits=[0] * horizons)

    def add(
        self,
        verdict: Verdict,
        begin: int,
        debt_usd: float,
        wallet: str,
        shares: Mapping[str, float],
        uncovered: Floats | None,
    ) -> None:
        """Adds a position that fails on some paths, of which the first is `begin`; `shares` of its collateral by symbol.

        `uncovered` (horizon, path of the verdict) is the debt beyond the collateral, None for none.
        """
        for horizon in range(len(self.debt)):
            failed = verdict.window <= horizon
            paths = begin + verdict.paths[failed]
            self.debt[horizon, paths] += debt_usd
            count = int(failed.sum())
            self.hits[horizon] += count
            self.by_wallet.setdefault(wallet, [0.0] * len(self.debt))[horizon] += count * debt_usd
            for symbol, share in shares.items():
                self.by_asset.setdefault(symbol, [0.0] * len(self.debt))[horizon] += count * debt_usd * share
            if uncovered is not None:
                self.bad[horizon, paths] += uncovered[horizon, failed]


def uncovered(
    found: Exposures, row: int, paths: Paths, verdict: Verdict, ends: Sequence[int], kept: Floats, usd: tuple[int, int]
) -> Floats | None:
    """(horizon, path): the most by which debt exceeds collateral less the liquidation bonus, in USD; None where it never does.

    The position is left alone until the worst hour of the horizon. `kept` is 1 / (1 + bonus) by price key.
    """
    into = np.zeros((len(found.keys) + 1, len(paths.moves) + 1))
    for place, key in enumerate(found.keys):
        into[place, paths.column[key]] = 1.0
    into[-1, -1] = 1.0
    start, end = ((found.debt[time, row] - found.collateral[time, row] * kept) @ into for time in (0, -1))
    low, high = paths.low[:, verdict.paths], paths.high[:, verdict.paths]
    most = max(
        float((np.maximum(of[:-1], 0) @ high + np.minimum(of[:-1], 0) @ low).max() + of[-1]) for of in (start, end)
    )
    if most <= 0:
        return None
    worst = np.maximum.accumulate(along(paths, start, end - start, verdict.paths), axis=1)
    return np.maximum(worst[:, [last - 1 for last in ends]].T, 0.0) * usd[0] / usd[1]


def kept_of(market: Market, keys: Sequence[str]) -> Floats:
    """What a liquidator leaves of a unit of collateral, by price key and 1 for the constant: 1 / (1 + bonus)."""
    bonus = {row.group or row.asset: row.liquidation_bonus for row in market.assets}
    return np.array([1 / (1 + (bonus.get(key) or 0.0)) for key in keys] + [1.0])


def tail(losses: Floats, level: int) -> tuple[float, float]:
    """Value at risk and expected shortfall: the loss that `level` % of the paths stay below, and the mean of the others."""
    ordered = np.sort(losses)
    first = min(int(np.ceil(len(ordered) * level / 100)), len(ordered) - 1)
    return float(ordered[first]), float(ordered[first:].mean())


def book_row(horizon: int, sums: Sequence[BookSums]) -> dict[str, Any]:
    """The sums of one or several deployments over the same paths; NULL where they have positions and none could be forecast."""
    debt, bad = (np.sum([getattr(one, name)[horizon] for one in sums], axis=0) for name in ("debt", "bad"))
    positions, forecast = sum(one.positions for one in sums), sum(one.forecast for one in sums)
    row: dict[str, Any] = {
        "positions": positions,
        "forecast": forecast,
        "expected_positions": sum(one.hits[horizon] for one in sums) / len(debt),
        "expected_debt_usd": float(debt.mean()),
        "expected_bad_debt_usd": float(bad.mean()),
    }
    for name, losses in (("debt", debt), ("bad_debt", bad)):
        for level in LEVELS:
            row[f"var_{level}_{name}_usd"], row[f"es_{level}_{name}_usd"] = tail(losses, level)
    if positions and not forecast:
        row |= dict.fromkeys([*row][2:])
    return row


def contributions(found: Mapping[str, Sequence[float]], horizon: int, paths: int) -> list[tuple[str, float]]:
    """(name, expected debt in USD), the largest first, without those that add nothing."""
    rows = [(name, of[horizon] / paths) for name, of in found.items() if of[horizon] > 0]
    return sorted(rows, key=lambda one: (-one[1], one[0]))


def shares_of(found: Exposures, row: int, symbols: Mapping[str, str]) -> dict[str, float]:
    """What part of the collateral each asset is, by symbol; what has no price of its own is the unit of prices."""
    whole = float(found.collateral[0, row].sum())
    shares: dict[str, float] = {}
    for key, value in zip((*found.keys, ""), found.collateral[0, row].tolist(), strict=True):
        if whole > 0 and value > whole * 1e-6:
            name = symbols.get(key, key) or "the unit of account"
            shares[name] = shares.get(name, 0.0) + value / whole
    return shares
