"""What a liquidator earns: for each position, the pair of debt and collateral that pays best by the contracts' own rules.

Nothing here has a formula of its own: the amounts a call takes and pays are the adapter's exact ones
(`liquidation_calls`), valued at the prices of the protocol's own oracle.
"""

from dataclasses import dataclass
from fractions import Fraction

from indexer.adapter import AnyLiquidation
from indexer.model import Balance, Health, LiquidationCall, Market, Position

GWEI = Fraction(1, 10**9)
#: why there is no call: the position is not liquidatable, its code or a price is unknown, it has nothing to seize, or
#: the adapter does not know the liquidator contract (a Maker without Dog and Cat)
HEALTHY, UNVERIFIED, UNPRICEABLE = "not-liquidatable", "unverified", "unpriceable"
NO_COLLATERAL, NO_LIQUIDATOR = "no-collateral", "unknown-liquidator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opportunity:
    """The best liquidation call of one position at the market's block, interest stored, as every call begins.

    `call` is None if there is none to make. `refused` says why, or why the contracts refuse the best pair; None if they
    accept it. `debt` and `collateral` are the call's, else the position's largest.
    """

    health: Health
    call: LiquidationCall | None
    debt: Balance | None
    collateral: Balance | None
    refused: str | None

    @property
    def profit(self) -> Fraction | None:
        """What the caller gains before gas, in the market's value unit; None if refused or unknown."""
        return None if self.call is None else profit(self.call)


def opportunity(adapter: AnyLiquidation, market: Market, position: Position) -> Opportunity:
    """The call that pays its caller most; among calls that pay nothing (Comet), the one whose later sale pays most."""
    market = adapter.interest_stored(adapter.narrow(market, position))
    health = adapter.evaluate(market, position)
    refused = None if health.liquidatable else HEALTHY
    if health.unpriceable:
        refused = UNPRICEABLE
    if not market.exact:
        refused = UNVERIFIED
    calls = [] if refused else adapter.liquidation_calls(market, position)
    best = max(calls, key=rank, default=None)
    if best is not None:
        return Opportunity(health=health, call=best, debt=best.debt, collateral=best.collateral, refused=best.refused)
    rows = adapter.balances(market, position)
    collateral = largest([row for row in rows if row.is_collateral])
    nothing = NO_LIQUIDATOR if collateral else NO_COLLATERAL
    return Opportunity(
        health=health,
        call=None,
        debt=largest([row for row in rows if row.side == "debt"]),
        collateral=collateral,
        refused=refused or ", ".join(health.blocked_by) or nothing,
    )


def profit(call: LiquidationCall) -> Fraction | None:
    """What the caller gains before gas, in the market's value unit; None if refused or unknown."""
    if call.refused is not None or call.cost is None or call.gain is None:
        return None
    return call.gain - call.cost


def rank(call: LiquidationCall) -> tuple[Fraction | float, ...]:
    """Ranks accepted before refused calls, then by what the call pays, by what its later sale pays, and by the debt."""
    lowest = -float("inf")
    own, later = profit(call), call.sale.profit if call.sale else None
    return (
        call.refused is None,
        lowest if own is None else own,
        lowest if later is None else later,
        call.debt.value or 0,
        call.collateral.value or 0,
    )


def largest(rows: list[Balance]) -> Balance | None:
    return max(rows, key=lambda row: row.value or 0, default=None)


def in_usd(market: Market, value: Fraction | None) -> float | None:
    """A value in the market's unit as USD, rounded once; None where either is unknown. 0 is 0 in every unit."""
    if not value:
        return None if value is None else 0.0
    if market.usd is None:
        return None
    return float(value * Fraction(*market.usd))


def gas_in_usd(gas: int | None, gas_price: float | None, native_usd: float | None) -> float | None:
    """The cost in USD of that much gas at a price in GWEI, with the chain's own coin at `native_usd`; None if unknown."""
    if gas is None or gas_price is None or native_usd is None:
        return None
    return float(gas * Fraction(gas_price) * GWEI * Fraction(native_usd))
