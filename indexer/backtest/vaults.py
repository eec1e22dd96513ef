"""The vaults of one Maker ilk through time, rebuilt from the events of their files: collateral, debt, liquidations.

Debt is kept normalised (art) and grows by the stability fee as Jug does. A liquidation tells collateral in whole units, so
what then remains within 0.51 of it is nothing; the debt it tells is without the penalty, under Cat and under Dog.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.backtest.series import records
from indexer.errors import ConfigError
from indexer.forecast.model import Floats

YEAR_SECONDS = 365 * 86_400
ROUNDING = 0.51
#: the kinds of events, in the order in which those of one block are applied
DEPOSIT, BORROW, REPAY, WITHDRAW, LIQUIDATE = range(5)


class Event(NamedTuple):
    """What happened to a vault; amounts in whole tokens, positive."""

    block: int
    kind: int
    at: int
    vault: int
    collateral: float
    debt: float


class Liquidation(NamedTuple):
    """A bite or a bark, and the debt and collateral of the rebuilt vault just before it, with the liquidation ratio."""

    at: int
    vault: int
    debt: float
    rebuilt_debt: float
    by_dog: bool
    rebuilt_ink: float
    ratio: float

    def health(self, price: float) -> float:
        """The health factor just before, at a price."""
        return self.rebuilt_ink * price / self.ratio / self.rebuilt_debt if self.rebuilt_debt > 0 else float("inf")


class Fees:
    """What one unit of normalised debt has grown to: Jug's duty, compounded by the second."""

    def __init__(self, changes: list[tuple[int, float]]) -> None:
        """Take (unix seconds, yearly fee), ascending."""
        self.times = [at for at, _ in changes]
        self.fees = [fee for _, fee in changes]
        self.grown = [1.0]
        for i in range(1, len(changes)):
            self.grown.append(
                self.grown[-1] * (1 + self.fees[i - 1]) ** ((self.times[i] - self.times[i - 1]) / YEAR_SECONDS)
            )

    def rate(self, at: int) -> float:
        i = max(bisect_right(self.times, at) - 1, 0)
        return float(self.grown[i] * (1 + self.fees[i]) ** (max(at - self.times[i], 0) / YEAR_SECONDS))


class Book(NamedTuple):
    """Vaults at decision times (T,): `ink` and `debt` (T, vaults) in whole tokens, `ratios` (T,) the liquidation ratio.

    `lot` is Cat's largest bite of debt, `negative` the vaults whose collateral the events make negative.
    """

    times: NDArray[np.int64]
    vaults: list[int]
    ink: Floats
    debt: Floats
    ratios: Floats
    liquidations: list[Liquidation]
    lot: float | None
    negative: list[int]


def seconds(text: str, path: Path) -> int:
    try:
        plain = text.partition(".")[0].replace("T", " ").removesuffix("Z").removesuffix(" UTC")
        return int(datetime.strptime(plain, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())
    except (AttributeError, ValueError) as error:
        raise ConfigError(f"{path}: {text!r} is no time, such as 2021-05-06 15:45:10") from error


def amount(text: str, path: Path) -> float:
    try:
        return abs(float(text))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {text!r} is no number") from error


#: file -> (kind, column of collateral, column of debt)
FILES = {
    "deposits": (DEPOSIT, "DEPOSIT_AMOUNT_ADJ", None),
    "borrows": (BORROW, None, "DAI_MINTED"),
    "repayments": (REPAY, None, "DAI_REPAYED"),
    "withdrawals": (WITHDRAW, "WITHDRAWN_AMOUNT_ADJ", None),
    "liquidations": (LIQUIDATE, "COLLATERAL_LIQUIDATED_AMOUNT", "DAI_REPAYED_AMOUNT"),
}


def events(folder: Path) -> list[Event]:
    """Every event of the folder, in the order of blocks. Raises `ConfigError` for files that are missing or broken."""
    found = []
    for name, (kind, collateral, debt) in FILES.items():
        path = only(folder, f"*_{name}.csv*")
        columns = ("BLOCK_NUMBER", "BLOCK_TIMESTAMP", "VAULT_NUMBER", *(c for c in (collateral, debt) if c))
        for line in records(path, columns):
            found.append(  # noqa: PERF401 - a comprehension of this length is no easier to read
                Event(
                    block=int(amount(line["BLOCK_NUMBER"], path)),
                    kind=kind,
                    at=seconds(line["BLOCK_TIMESTAMP"], path),
                    vault=int(amount(line["VAULT_NUMBER"], path)),
                    collateral=amount(line[collateral], path) if collateral else 0.0,
                    debt=amount(line[debt], path) if debt else 0.0,
                )
            )
    return sorted(found)


def only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ConfigError(f"{folder} must have one file {pattern}, and has {len(found)}")
    return found[0]


def parameters(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Parameter -> (unix seconds, new value), ascending."""
    path = only(folder, "*Parameter-Changes.csv*")
    found = defaultdict(list)
    for line in records(path, ("TIMESTAMP", "PARAMETER", "TO_VALUE")):
        found[line["PARAMETER"]].append((seconds(line["TIMESTAMP"], path), amount(line["TO_VALUE"], path)))
    return {name: sorted(changes) for name, changes in found.items()}


def rebuilt(folder: Path, happened: Sequence[Event], times: NDArray[np.int64]) -> Book:
    """The vaults at each of `times`, ascending: with every event up to then and none later."""
    changes = parameters(folder)
    for needed in ("JUG.ilks.duty", "SPOTTER.ilks.mat"):
        if needed not in changes:
            raise ConfigError(f"{folder}: the parameter changes have no {needed}")
    fees = Fees(changes["JUG.ilks.duty"])
    dog = dog_since(changes)
    dunk, chop = changes.get("CAT.ilks.dunk"), changes.get("CAT.ilks.chop")
    vaults = sorted({event.vault for event in happened})
    column = {vault: i for i, vault in enumerate(vaults)}
    ink, art = np.zeros(len(vaults)), np.zeros(len(vaults))
    inks, debts = np.zeros((len(times), len(vaults))), np.zeros((len(times), len(vaults)))
    liquidations, negative, done = [], set(), 0
    for row, at in enumerate([*(int(time) for time in times), None]):
        while done < len(happened) and (at is None or happened[done].at <= at):
            event = happened[done]
            done += 1
            i, rate = column[event.vault], fees.rate(event.at)
            if event.kind == LIQUIDATE:
                owed = float(art[i] * rate)
                ratio = value_at(changes["SPOTTER.ilks.mat"], event.at)
                liquidations.append(
                    Liquidation(event.at, event.vault, event.debt, owed, event.at >= dog, float(ink[i]), ratio)
                )
            taken = event.kind in (WITHDRAW, LIQUIDATE)
            ink[i] += -event.collateral if taken else event.collateral
            art[i] += (event.debt if event.kind == BORROW else -event.debt) / rate
            if event.kind == LIQUIDATE and abs(ink[i]) <= ROUNDING:
                ink[i] = 0.0
            if ink[i] < -1e-6:
                negative.add(event.vault)
        if at is not None:
            inks[row], debts[row] = ink, art * fees.rate(at)
    return Book(
        times=times,
        vaults=vaults,
        ink=inks,
        debt=debts,
        ratios=np.array([value_at(changes["SPOTTER.ilks.mat"], int(at)) for at in times]),
        liquidations=liquidations,
        lot=dunk[-1][1] / (1 + chop[-1][1]) if dunk and chop else None,
        negative=sorted(negative),
    )


def dog_since(changes: dict[str, list[tuple[int, float]]]) -> float:
    """When Dog took the ilk over from Cat: its first penalty there; from the start where the files know no Cat."""
    if "DOG.ilks.chop" in changes:
        return changes["DOG.ilks.chop"][0][0]
    return inf if "CAT.ilks.chop" in changes else 0


def value_at(changes: list[tuple[int, float]], at: int) -> float:
    return changes[max(bisect_right([time for time, _ in changes], at) - 1, 0)][1]
