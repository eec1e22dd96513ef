"""What can be done to a Compound V2 account: mint and repay, and what a liquidateBorrow takes. On stored indexes."""

from dataclasses import replace

from indexer.model import WAD, Balance, Effect, LiquidationCall, Price
from protocols.common import value_at, with_entry
from protocols.compound_v2.market import CompoundV2Market
from protocols.compound_v2.math import CToken, exchange_rate, multiply
from protocols.compound_v2.position import CompoundV2Position, balances, evaluate

#: of liquidateBorrow, with the accrual of both markets
GAS = 480_000


def narrow(market: CompoundV2Market, position: CompoundV2Position) -> CompoundV2Market:
    """The market with only what the position needs; an entered market that is unknown stays unknown and fails the account."""
    tokens = {*position.entered, *position.c_tokens, *position.borrows}
    return replace(
        market,
        c_tokens={address: token for address, token in market.c_tokens.items() if address in tokens},
        assets=tuple(row for row in market.assets if row.market in tokens),
    )


def exposure(market: CompoundV2Market, position: CompoundV2Position) -> list[Price]:
    """Prices by underlying asset, in the oracle's 1e(36 - decimals), of entered markets in which the account has a balance."""
    found: dict[str, Price] = {}
    for address in position.entered:
        token = market.c_tokens.get(address)
        if token is None or token.price is None:
            continue
        collateral = address in position.c_tokens and token.collateral_factor > 0
        debt = address in position.borrows
        old = found.get(token.underlying)
        if collateral or debt:
            found[token.underlying] = Price(
                key=token.underlying,
                symbol=token.symbol,
                price=token.price,
                decimals=36 - token.decimals,
                unit="USD",
                collateral=collateral or bool(old and old.collateral),
                debt=debt or bool(old and old.debt),
            )
    return list(found.values())


def effect(market: CompoundV2Market, position: CompoundV2Position, row: Balance, delta: int) -> Effect | None:
    """After mint, redeemUnderlying, borrow or repayBorrow of `delta` now.

    Minting rounds the cTokens down, which raises the exchange rate of all of them a little, so the market changes too.
    """
    token = market.c_tokens.get(row.market)
    if token is None or not token.exchange_rate:
        return None
    frozen = any(asset.market == row.market and asset.frozen for asset in market.assets)
    if row.side == "debt":
        principal, index = position.borrows[row.market]
        left = max(principal * token.borrow_index // index + delta, 0)
        paid = with_entry(position.borrows, row.market, (left, token.borrow_index) if left else None)
        after = replace(position, borrows=paid, accrued=with_entry(position.accrued, row.market, None))
        return Effect(market=market, position=after, refused="frozen" if frozen and delta > 0 else None)
    held = position.c_tokens.get(row.market, 0)
    moved = min(abs(delta) * WAD // token.exchange_rate, held if delta < 0 else 2**256)
    left = held + (moved if delta > 0 else -moved)
    after = replace(position, c_tokens=with_entry(position.c_tokens, row.market, left))
    tokens = market.c_tokens | {row.market: resupplied(token, delta, moved if delta > 0 else -moved)}
    refused = "amount-too-small" if delta and not moved else None
    if frozen and delta > 0:
        refused = "frozen"
    return Effect(market=replace(market, c_tokens=tokens), position=after, refused=refused)


def resupplied(token: CToken, cash: int, minted: int) -> CToken:
    """The market with that much more cash and cTokens; income other than interest stays in its exchange rate."""
    after = replace(token, cash=token.cash + cash, total_supply=token.total_supply + minted)
    if token.total_supply <= 0 or after.total_supply <= 0:
        return after
    change = exchange_rate(after, after.total_borrows, after.total_reserves)
    change -= exchange_rate(token, token.total_borrows, token.total_reserves)
    return replace(
        after,
        exchange_rate=token.exchange_rate + change,
        exchange_rate_accrued=token.exchange_rate_accrued + change,
    )


def liquidation_calls(market: CompoundV2Market, position: CompoundV2Position) -> list[LiquidationCall]:
    """One call for each debt and each market in which the account holds cTokens, even one it has not entered.

    Without a shortfall only debts in deprecated markets can be liquidated.
    """
    health = evaluate(market, position)
    rows = balances(market, position) if health.liquidatable else []
    short = health.debt_value is None or health.debt_value > (health.liquidation_limit or 0)
    debts = [row for row in rows if row.side == "debt" and (short or row.market in market.deprecated)]
    return [pair(market, debt, held) for debt in debts for held in rows if held.side == "supply"]


def pair(market: CompoundV2Market, debt: Balance, held: Balance) -> LiquidationCall:
    """Comptroller.liquidateBorrowAllowed and liquidateCalculateSeizeTokens with the largest repayAmount.

    The close factor does not bind in a deprecated market; more cTokens than there are cannot be seized.
    """
    owed, collateral = market.c_tokens[debt.market], market.c_tokens[held.market]
    incentive, close_factor = market.liquidation_incentive, market.close_factor
    repaid = seized_tokens = 0
    refused = "seize-paused" if market.seize_paused else None
    if refused is None and owed is collateral and owed.seize_share is None:
        refused = "same-market"  # the first cTokens would call themselves and revert with "re-entered"
    if refused is None and (not owed.price or not collateral.price):
        refused = "no-price"
    if refused is None and (incentive is None or close_factor is None):
        refused = "unknown-close-factor"
    if refused is None:
        assert owed.price is not None
        assert collateral.price is not None
        assert incentive is not None
        assert close_factor is not None
        worth = multiply(incentive, owed.price, market.rounding)
        ratio = worth * WAD // multiply(collateral.price, collateral.exchange_rate, market.rounding)
        repaid = debt.amount if owed.deprecated else close_factor * debt.amount // WAD
        if ratio:
            repaid = min(repaid, ((held.scaled + 1) * WAD - 1) // ratio)
        seized_tokens = ratio * repaid // WAD
        refused = None if repaid else "amount-too-small"
    share = seized_tokens * (collateral.seize_share or 0) // WAD
    received = (seized_tokens - share) * collateral.exchange_rate // WAD
    return LiquidationCall(
        debt=debt,
        collateral=held,
        repaid=repaid,
        seized=seized_tokens * collateral.exchange_rate // WAD,
        seized_scaled=seized_tokens,
        received=received,
        bonus=None if incentive is None else incentive / WAD - 1,
        refused=refused,
        received_scaled=seized_tokens - share,
        close_factor=1.0 if owed.deprecated else None if close_factor is None else close_factor / WAD,
        cost=value_at(repaid, owed.price, WAD),
        gain=value_at(received, collateral.price, WAD),
        function="liquidateBorrow",
        gas=GAS,
    )
