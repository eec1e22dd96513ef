"""One Compound V2 account: what it holds, and the Comptroller's own arithmetic about it. Pure functions."""

from dataclasses import dataclass, field

from indexer.model import WAD, Balance, Health, Position
from protocols.common import balance
from protocols.compound_v2.market import CompoundV2Market


@dataclass(frozen=True, slots=True, kw_only=True)
class CompoundV2Position(Position):
    """An account; `c_tokens`: market -> cTokens; `borrows`: market -> (principal, interestIndex) as the cToken stores them.

    Where a debt's storage cannot be read `stored` is False and its pair is (debt, borrow index) of `block_number`,
    exact at that index only; `accrued` then has the debt after accruing to that block, as the cToken returns it.
    """

    entered: tuple[str, ...] = ()
    c_tokens: dict[str, int] = field(default_factory=dict)
    borrows: dict[str, tuple[int, int]] = field(default_factory=dict)
    stored: bool = True
    accrued: dict[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not self.c_tokens and not self.borrows


def evaluate(market: CompoundV2Market, position: CompoundV2Position) -> Health:
    """Comptroller.getHypotheticalAccountLiquidityInternal over the entered markets; it fails if one has no price.

    `liquidation_limit` is sumCollateral, `debt_value` sumBorrow. Liquidatable: a shortfall, or a debt in a
    deprecated market.
    """
    table, deprecated = market.weights, market.deprecated
    c_tokens, borrows = position.c_tokens, position.borrows
    accrued = position.accrued if position.block_number == market.block.number else {}
    collateral = limit = limit_accrued = debt = debt_accrued = 0
    unpriced: list[str] = []
    for token in position.entered:
        weight = table.get(token)
        if weight is None:
            unpriced.append(token)
            continue
        tokens = c_tokens.get(token)
        if tokens:
            collateral += weight.value * tokens // WAD
            limit += weight.limit * tokens // WAD
            limit_accrued += weight.limit_accrued * tokens // WAD
        pair = borrows.get(token)
        if pair:
            principal, index = pair
            debt += weight.price * (principal * weight.borrow_index // index) // WAD
            owed = accrued.get(token)
            if owed is None:
                owed = principal * weight.borrow_index_accrued // index
            debt_accrued += weight.price * owed // WAD
    return Health(
        key=position.key,
        collateral_value=None if unpriced and any(token in c_tokens for token in unpriced) else collateral,
        liquidation_limit=None if unpriced else limit,
        debt_value=None if unpriced and any(token in borrows for token in unpriced) else debt,
        health_factor=limit * WAD // debt if debt and not unpriced else None,
        health_factor_accrued=limit_accrued * WAD // debt_accrued if debt_accrued and not unpriced else None,
        has_debt=bool(borrows),
        liquidatable=(debt > limit and not unpriced) or not deprecated.isdisjoint(borrows),
        unpriceable=bool(unpriced),
        blocked_by=("seize-paused",) if borrows and market.seize_paused else (),
    )


def balances(market: CompoundV2Market, position: CompoundV2Position) -> list[Balance]:
    """Supply in the underlying asset at the STORED exchange rate, debts as `borrowBalanceStored` returns them.

    A debt's `scaled` is its principal as of its own interestIndex. Markets listed after `market` was read are left out.
    """
    table = market.weights
    rows = []
    for address, tokens in position.c_tokens.items():
        if address in market.c_tokens:
            token, weight = market.c_tokens[address], table[address]
            amount, value = token.exchange_rate * tokens // WAD, weight and weight.value * tokens // WAD
            backs = address in position.entered
            row = balance(token, address, "supply", scaled=tokens, amount=amount, value=value, is_collateral=backs)
            rows.append(row)
    for address, (principal, index) in position.borrows.items():
        if address in market.c_tokens:
            token, weight = market.c_tokens[address], table[address]
            amount = principal * token.borrow_index // index
            value = weight and weight.price * amount // WAD
            rows.append(balance(token, address, "debt", scaled=principal, amount=amount, value=value))
    return rows
