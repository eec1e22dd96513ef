"""Which formulas an Aave V3 pool runs: one table from POOL_REVISION, narrowed by what the contracts show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from indexer.abi import abi
from indexer.model import RAY
from protocols.aave.math import HALF_RAY, compound_v30, compound_v34

POOL = abi("aave_v3_pool")

#: Pool functions in the order of the versions that added them (3.1, 3.2, 3.3, 3.4, 3.6, 3.7). The number of leading ones
#: that answer is the pool's level: a fork can have any revision number, but not functions that it lacks.
PROBES = (
    (POOL.function("getLiquidationGracePeriod"), ("0x" + "00" * 20,)),
    (POOL.function("getEModeCategoryCollateralBitmap"), (1,)),
    (POOL.function("getReserveDeficit"), ("0x" + "00" * 20,)),
    (POOL.function("RESERVE_INTEREST_RATE_STRATEGY"), ()),
    (POOL.function("getEModeCategoryLtvzeroBitmap"), (1,)),
    (POOL.function("getIsEModeCategoryIsolated"), (1,)),
)
GRACE_PERIOD, BITMAPS, DEFICIT, ONE_STRATEGY, LTVZERO, ISOLATED = range(1, 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How one version computes an account (GenericLogic.calculateUserAccountData) and its token balances.

    `explicit_rounding`: aTokens round down, debts up, in tokens and in base currency (3.5); else half up, then down.
    `average_threshold`: the health factor uses the average threshold, rounded down to basis points (up to 3.4).
    `zero_threshold_counts`: flagged collateral counts even where the reserve's own threshold is 0 (3.6).
    `balance_without_accounting`: the debt of a reserve without virtual accounting is its token's balanceOf (3.3, GHO).
    `repaid_up`: the debt repaid for all of a collateral is rounded up (3.5), else half up.
    `received_down`: the liquidator's part of the collateral is rounded down, the treasury gets the rest (3.7).
    """

    version: str
    level: int
    compound: Callable[[int, int], int] = compound_v30
    explicit_rounding: bool = False
    average_threshold: bool = True
    zero_threshold_counts: bool = False
    balance_without_accounting: bool = False
    repaid_up: bool = False
    received_down: bool = False
    sentinel: bool = True

    @property
    def supply_bias(self) -> int:
        """Added to scaled * index before the division by a ray."""
        return 0 if self.explicit_rounding else HALF_RAY

    @property
    def debt_bias(self) -> int:
        return RAY - 1 if self.explicit_rounding else HALF_RAY


_ALL = (
    Rules(version="3.0", level=0),
    # SparkLend's own line of 3.0.2: the rounding of 3.5 on the old e-modes and stable debt, without and with the
    # health factor of 3.5 (sparklend-v1-core, GenericLogic).
    Rules(version="3.0-explicit-rounding", level=0, explicit_rounding=True),
    Rules(
        version="3.0-explicit-rounding-untruncated",
        level=0,
        explicit_rounding=True,
        average_threshold=False,
    ),
    Rules(version="3.1", level=GRACE_PERIOD),
    Rules(version="3.2", level=BITMAPS),
    Rules(version="3.3", level=DEFICIT, balance_without_accounting=True),
    Rules(version="3.4", level=ONE_STRATEGY, compound=compound_v34),
    Rules(
        version="3.5",
        level=ONE_STRATEGY,
        compound=compound_v34,
        explicit_rounding=True,
        average_threshold=False,
        repaid_up=True,
    ),
    Rules(
        version="3.6",
        level=LTVZERO,
        compound=compound_v34,
        explicit_rounding=True,
        average_threshold=False,
        zero_threshold_counts=True,
        repaid_up=True,
    ),
    Rules(
        version="3.7",
        level=ISOLATED,
        compound=compound_v34,
        explicit_rounding=True,
        average_threshold=False,
        zero_threshold_counts=True,
        repaid_up=True,
        received_down=True,
        sentinel=False,
    ),
)
RULES: Mapping[str, Rules] = MappingProxyType({rules.version: rules for rules in _ALL})
NEWEST = _ALL[-1]

_SPARK = ("3.0-explicit-rounding-untruncated", "3.0-explicit-rounding")

#: POOL_REVISION -> the versions that were released under it (core-v3, aave-v3-origin, the upgrade payloads, Spark).
REVISIONS: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        1: ("3.0",),
        2: ("3.0", *_SPARK),
        3: ("3.0", "3.1", *_SPARK),
        4: ("3.1",),
        5: ("3.2",),
        6: ("3.2", "3.3"),
        7: ("3.3", "3.4"),
        8: ("3.4",),
        9: ("3.5",),
        10: ("3.6",),
        11: ("3.7",),
    }
)


def level_of(answers: Sequence[bool]) -> int | None:
    """The pool's level by the PROBES that answer, None if a later function exists without an earlier one."""
    level = sum(answers)
    return level if all(answers[:level]) else None


def versions_of(revision: int, level: int | None) -> tuple[str, ...]:
    """The versions that match a pool's revision number and functions, the likeliest first; () if none does."""
    return tuple(version for version in REVISIONS.get(revision, ()) if RULES[version].level == level)
