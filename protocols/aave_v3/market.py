"""The shared state of an Aave V3 market at one block, and what it implies for an account in one e-mode."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from indexer.model import RAY, Asset, Block
from protocols.aave.market import AaveMarket, asset_row
from protocols.aave.math import PERCENTAGE_FACTOR, compound_v30, ray_mul
from protocols.aave.reserve import AaveReserve
from protocols.aave_v3.rules import NEWEST, RULES, Rules

EVERY_FLAG = 2**256 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve(AaveReserve):
    """A reserve of V3, prices in the base currency.

    `stable_supply` is that of its stable debt token: (principal, average ray rate, last update). `discount`: the debt token
    waives interest (GHO before 3.4).
    """

    stable_supply: tuple[int, int, int] = (0, 0, 0)
    grace_period_until: int = 0
    discount: bool = False

    @property
    def debt_kind(self) -> str:
        return "discounting" if self.discount else "variable"

    @property
    def paused(self) -> bool:
        return bool(self.bits(60, 1))

    @property
    def borrow_cap(self) -> int:
        """In whole tokens, 0 for none."""
        return self.bits(80, 36)

    @property
    def supply_cap(self) -> int:
        return self.bits(116, 36)

    @property
    def liquidation_protocol_fee(self) -> int:
        """Of the bonus, in basis points."""
        return self.bits(152, 16)

    @property
    def category(self) -> int:
        """The e-mode category, up to 3.1."""
        return self.bits(168, 8)

    @property
    def virtual_accounting(self) -> bool:
        """Virtual accounting (3.1 to 3.3); false for GHO, which is minted and not lent."""
        return bool(self.bits(252, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class EMode:
    """An e-mode category; thresholds in basis points, bitmaps by reserve id (before 3.2: the reserves' categories).

    `price_source` (before 3.2) is an asset address for the oracle, with its `price`, None if the oracle has none.
    """

    id: int
    label: str = ""
    ltv: int
    liquidation_threshold: int
    liquidation_bonus: int
    collateral_bitmap: int
    price_source: str | None = None
    price: int | None = None


class Supply(NamedTuple):
    """What one aToken's scaled balance is worth; `counted` is the flag that makes it collateral, 0 if nothing does.

    `price` is 0 where it is missing: see `priced`, and Plan.unpriced.
    """

    reserve: Reserve
    counted: int
    income: int
    price: int
    unit: int
    liquidation_threshold: int
    priced: bool


class Debt(NamedTuple):
    """What one variable debt token's scaled balance is worth; `bias` is added before the division by `unit`."""

    reserve: Reserve
    counted: int
    debt_index: int
    price: int
    unit: int
    bias: int
    priced: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """All reserves as an account in one e-mode sees them, by aToken and by variable debt token.

    Flags of a user configuration: `unpriced` need a price that is missing (getUserAccountData reverts), `worthless`
    one that is 0, `blocked` belong to reserves in which no liquidation is possible. The biases are added to scaled *
    index before the division by a ray.
    """

    supplies: Mapping[str, Supply]
    debts: Mapping[str, Debt]
    unpriced: int
    worthless: int
    blocked: int
    supply_bias: int
    debt_bias: int
    average_threshold: bool


@dataclass(frozen=True, kw_only=True)  # no slots: the cached properties live in the instance
class AaveV3Market(AaveMarket[Reserve]):
    """An Aave V3 market at one block.

    `version` is the key of RULES that is used, None for code the adapter does not know; `candidates` are all that fit
    what the contracts show, `settled` says that accounts have decided between them. `liquidation_allowed` is the price
    oracle sentinel's answer. `base_unit` is the oracle's BASE_CURRENCY_UNIT.
    """

    version: str | None
    candidates: tuple[str, ...] = ()
    settled: bool = False
    reserves: tuple[Reserve, ...] = ()
    e_modes: tuple[EMode, ...] = ()
    liquidation_allowed: bool = True
    base_unit: int | None = None

    @property
    def rules(self) -> Rules:
        """The formulas; for unknown code the newest ones, whose results never count as the contract's."""
        return NEWEST if self.version is None else RULES[self.version]

    @property
    def averages(self) -> bool:
        return self.rules.average_threshold

    @cached_property
    def flags(self) -> int:
        """All flags of a user configuration that belong to a reserve; a dropped one leaves a hole."""
        return sum(reserve.borrowing_flag | reserve.collateral_flag for reserve in self.reserves)

    @cached_property
    def _plans(self) -> dict[int, Plan]:
        return {}

    def plan(self, mode: int) -> Plan:
        """All reserves as an account in e-mode `mode` (0 for none) sees them; computed once per market and mode."""
        plan = self._plans.get(mode)
        if plan is None:
            plan = self._plans[mode] = self._plan(mode)
        return plan

    def _plan(self, mode: int) -> Plan:
        rules = self.rules
        category = next((e for e in self.e_modes if e.id == mode), None)
        supplies, debts = {}, {}
        unpriced = worthless = blocked = 0
        for reserve in self.reserves:
            inside = category is not None and bool(category.collateral_bitmap >> reserve.id & 1)
            # EModeLogic.getEModeConfiguration, up to 3.1: one price for the whole category, unless it is 0.
            price = category.price if category is not None and inside and category.price else reserve.price
            unit = 10**reserve.decimals
            both = reserve.borrowing_flag | reserve.collateral_flag
            unpriced |= both if price is None else 0
            worthless |= both if price == 0 else 0
            blocked |= both if reserve_blocks(reserve, self.block.timestamp) else 0
            counts = rules.zero_threshold_counts or reserve.liquidation_threshold != 0
            supplies[reserve.a_token] = Supply(
                reserve,
                reserve.collateral_flag if counts else 0,
                reserve.income,
                price or 0,
                unit,
                category.liquidation_threshold if category is not None and inside else reserve.liquidation_threshold,
                price is not None,
            )
            debts[reserve.variable_debt_token] = Debt(
                reserve,
                reserve.borrowing_flag,
                reserve.debt_index,
                price or 0,
                unit,
                unit - 1 if rules.explicit_rounding else 0,
                price is not None,
            )
        if category is not None and category.price_source is not None and category.price is None:
            unpriced = EVERY_FLAG  # the pool asks for the category's price before any reserve's
        biases = rules.supply_bias, rules.debt_bias
        return Plan(supplies, debts, unpriced, worthless, blocked, *biases, rules.average_threshold)

    def at(self, block: Block) -> "AaveV3Market":
        """With the indexes of a later `block` if nobody acts."""
        rules = self.rules
        return replace(
            self, block=block, reserves=tuple(r.projected(rules.compound, block.timestamp) for r in self.reserves)
        ).with_assets()

    @property
    def thresholds(self) -> dict[str, Fraction]:
        """Liquidation thresholds by asset, and by `e-mode:ID`."""
        modes = {f"e-mode:{e.id}": Fraction(e.liquidation_threshold, PERCENTAGE_FACTOR) for e in self.e_modes}
        return super().thresholds | modes

    def with_thresholds(self, thresholds: Mapping[str, Fraction]) -> "AaveV3Market":
        """With other thresholds. An e-mode has one of its own: a reserve's does not affect the accounts in it."""
        points = {key: int(threshold * PERCENTAGE_FACTOR) for key, threshold in thresholds.items()}
        e_modes = tuple(
            replace(e, liquidation_threshold=points.get(f"e-mode:{e.id}", e.liquidation_threshold))
            for e in self.e_modes
        )
        return replace(super().with_thresholds(thresholds), e_modes=e_modes)

    def with_assets(self) -> "AaveV3Market":
        """With the rows of `assets` that follow from the reserves."""
        return replace(self, assets=tuple(row_of(self, reserve) for reserve in self.reserves))

    def with_reserves(self, reserves: tuple[Reserve, ...]) -> "AaveV3Market":
        """With others in the place of the reserves, in their order; the rows of those that stay the same stay."""
        rows = {row.market: row for row in self.assets}
        for old, new in zip(self.reserves, reserves, strict=True):
            if new is not old or new.a_token not in rows:
                rows[new.a_token] = row_of(self, new)
        return replace(self, reserves=reserves, assets=tuple(rows[reserve.a_token] for reserve in reserves))


def reserve_blocks(reserve: Reserve, timestamp: int) -> str | None:
    """Why ValidationLogic.validateLiquidationCall refuses this reserve, None if it does not."""
    if not reserve.active:
        return "inactive"
    if reserve.paused:
        return "paused"
    return "grace-period" if reserve.grace_period_until >= timestamp else None


def row_of(market: AaveV3Market, reserve: Reserve) -> Asset:
    """Caps of 0 mean none; totals are None for code whose rounding is unknown."""
    unit, unknown = 10**reserve.decimals, market.version is None
    return asset_row(
        market,
        reserve,
        supply_cap=reserve.supply_cap * unit or None,
        borrow_cap=reserve.borrow_cap * unit or None,
        total_supply=None if unknown else supply_balance(market.rules, reserve.scaled_supply, reserve.income),
        total_debt=None if unknown else total_debt(market, reserve),
        paused=reserve.paused,
    )


def total_debt(market: AaveV3Market, reserve: Reserve) -> int:
    """The sum of the totalSupply of the reserve's debt tokens at the market's block."""
    variable = debt_balance(market.rules, reserve.scaled_debt, reserve.debt_index)
    return variable + stable_balance(*reserve.stable_supply, market.block.timestamp)


def supply_balance(rules: Rules, scaled: int, income: int) -> int:
    """AToken.balanceOf and totalSupply: rayMul, from 3.5 rayMulFloor."""
    return (scaled * income + rules.supply_bias) // RAY


def debt_balance(rules: Rules, scaled: int, index: int) -> int:
    """VariableDebtToken.balanceOf and totalSupply: rayMul, from 3.5 rayMulCeil."""
    return (scaled * index + rules.debt_bias) // RAY


def stable_balance(principal: int, rate: int, last_update: int, timestamp: int) -> int:
    """StableDebtToken.balanceOf and totalSupply, up to 3.1."""
    return ray_mul(principal, compound_v30(rate, timestamp - last_update)) if principal else 0
