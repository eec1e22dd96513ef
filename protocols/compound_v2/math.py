"""Compound V2's integer formulas: conversion factors of both Comptroller generations, and interest."""

from dataclasses import dataclass
from typing import NamedTuple

from indexer.model import WAD

HALF_UP = "half-up"
TRUNCATE = "truncate"
GENERATIONS = (TRUNCATE, HALF_UP)


@dataclass(frozen=True, slots=True, kw_only=True)
class CToken:
    """One market as its contracts answer at the snapshot's block; money in smallest units, factors scaled by 1e18.

    `exchange_rate` and `borrow_index` are the stored ones, `*_accrued` those after `accrueInterest()` in the same
    block. `price` is scaled by 1e(36 - decimals), None where the market cannot be priced. `rate` is per block, or per
    second where the fork counts time (`per_second`); `accrued_at` is in the same unit. `unowned` are cTokens that no
    account can hold: those of the market itself and of the zero address. `seize_share` of what a liquidation seizes goes
    to the reserves; the first cTokens have none.
    """

    address: str
    underlying: str
    symbol: str
    decimals: int
    deprecated: bool
    collateral_factor: int
    price: int | None
    exchange_rate: int
    borrow_index: int
    exchange_rate_accrued: int
    borrow_index_accrued: int
    cash: int
    total_borrows: int
    total_reserves: int
    total_supply: int
    reserve_factor: int
    rate: int
    per_second: bool
    accrued_at: int
    unowned: int
    seize_share: int | None = None

    @property
    def asset(self) -> str:
        return self.underlying


class Weights(NamedTuple):
    """What one market contributes to a position, per cToken and per unit of debt; all scaled by 1e18."""

    value: int  # the value of a cToken, unweighted, at the stored exchange rate; both generations truncate it
    limit: int  # tokensToDenom: the same, weighted with the collateral factor
    limit_accrued: int
    price: int
    borrow_index: int
    borrow_index_accrued: int


def weigh(token: CToken, rounding: str | None) -> Weights | None:
    """The market's weights under one generation's rounding (None: as if it truncated); None without a price."""
    if token.price is None:
        return None
    return Weights(
        value=token.exchange_rate * token.price // WAD,
        limit=tokens_to_denom(token.collateral_factor, token.exchange_rate, token.price, rounding),
        limit_accrued=tokens_to_denom(token.collateral_factor, token.exchange_rate_accrued, token.price, rounding),
        price=token.price,
        borrow_index=token.borrow_index,
        borrow_index_accrued=token.borrow_index_accrued,
    )


def tokens_to_denom(collateral_factor: int, exchange_rate: int, price: int, rounding: str | None) -> int:
    """Comptroller.getHypotheticalAccountLiquidityInternal: collateralFactor * exchangeRate * oraclePrice."""
    return multiply(multiply(collateral_factor, exchange_rate, rounding), price, rounding)


def multiply(a: int, b: int, rounding: str | None) -> int:
    """Exponential.mulExp (half up, to the COMP era) or ExponentialNoError.mul_ (truncating)."""
    return (a * b + WAD // 2) // WAD if rounding == HALF_UP else a * b // WAD


def accrue(token: CToken, elapsed: int) -> tuple[int, int]:
    """(borrow index, exchange rate) `elapsed` blocks (or seconds) after the last accrual: CToken.accrueInterest."""
    index, borrows, reserves = accrued_totals(token, elapsed)
    return index, exchange_rate(token, borrows, reserves)


def accrued_totals(token: CToken, elapsed: int) -> tuple[int, int, int]:
    """(borrow index, totalBorrows, totalReserves) `elapsed` blocks (or seconds) after the last accrual."""
    factor = token.rate * elapsed
    interest = factor * token.total_borrows // WAD
    reserves = token.total_reserves + token.reserve_factor * interest // WAD
    return token.borrow_index + factor * token.borrow_index // WAD, token.total_borrows + interest, reserves


def exchange_rate(token: CToken, borrows: int, reserves: int) -> int:
    """CToken.exchangeRateStored with these totals; the initial rate stays where nothing is supplied."""
    if token.total_supply == 0:
        return token.exchange_rate  # initialExchangeRateMantissa
    return (token.cash + borrows - reserves) * WAD // token.total_supply


def proves(pair: tuple[int, int], borrow_index: int, debt: int) -> bool:
    """Whether (principal, interestIndex) gives the debt that the cToken itself returns: CToken.borrowBalanceStored."""
    principal, index = pair
    return 0 < principal <= debt and 0 < index <= borrow_index and principal * borrow_index // index == debt
