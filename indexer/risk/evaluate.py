"""Evaluates all positions of a deployment at one block: the adapter's exact integers, and readable numbers beside them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from indexer.adapter import AnyAdapter
from indexer.model import UNCLEAR, WAD, Answer, Balance, Health, Market, Position, PositionKey, Status
from indexer.store.rows import BalanceValues, PositionRow, as_text
from indexer.units import AT_RISK_BELOW, least_at


def status(health: Health, *, verified: bool, at_risk_below: float = AT_RISK_BELOW) -> Status:
    """The first status that applies, in the order of `Status`."""
    if not verified:
        return Status.UNVERIFIED
    if health.unpriceable:
        return Status.UNPRICEABLE
    if not health.has_debt or (not health.debt_value and not health.liquidatable):
        return Status.NO_DEBT
    if health.liquidatable:
        return Status.LIQUIDATABLE
    if health.health_factor is None:
        return Status.UNPRICEABLE
    return Status.AT_RISK if health.health_factor < least_at(at_risk_below) else Status.HEALTHY


def from_answer(health: Health, answer: Answer) -> Health:
    """The health with the contract's values in place of ours, for code whose formula is unknown."""
    columns = answer.columns
    debt = columns.get("debt_value_raw")
    return replace(
        health,
        collateral_value=_int(columns.get("collateral_value_raw")),
        liquidation_limit=_int(columns.get("liquidation_limit_raw")),
        debt_value=_int(debt),
        health_factor=_int(columns.get("health_factor_raw")),
        health_factor_accrued=_int(columns.get("health_factor_accrued_raw")),
        next_health_factor=None,
        has_debt=bool(debt),
        liquidatable=bool(answer.liquidatable),
        unpriceable=False,
    )


def _int(value: int | str | None) -> int | None:
    return None if value is None else int(value)


def row(
    chain_id: int,
    adapter: AnyAdapter,
    market: Market,
    health: Health,
    name: Status,
    note: str | None = None,
    *,
    supplies_complete: bool = True,
) -> PositionRow:
    """One row of `positions`; `name` is its status."""
    collateral = debt = net = leverage = ltv = None
    backing, owed = health.collateral_value, health.debt_value
    if market.usd is not None:
        numerator, denominator = market.usd
        collateral = None if backing is None else backing * numerator / denominator
        debt = None if owed is None else owed * numerator / denominator
        if collateral is not None and debt is not None:
            net = collateral - debt
    if backing is not None and owed is not None:
        if backing > 0:
            ltv = owed / backing
        if backing > owed:
            leverage = backing / (backing - owed)
    account, group = health.key
    owner, block = health.owner or account, market.block
    now, accrued, coming = health.health_factor, health.health_factor_accrued, health.next_health_factor
    return PositionRow(
        chain_id,
        adapter.deployment.name,
        adapter.protocol,
        account,
        group,
        owner,
        health.owner_via,
        health.wallet or owner,
        health.mode,
        as_text(backing),
        as_text(health.liquidation_limit),
        as_text(owed),
        as_text(now),
        None if now is None else now / WAD,
        as_text(accrued),
        None if accrued is None else accrued / WAD,
        as_text(coming),
        None if coming is None else coming / WAD,
        collateral,
        debt,
        net,
        leverage,
        ltv,
        name.value,
        ", ".join(health.blocked_by) or None,
        block.number,
        block.hash,
        block.timestamp,
        note,
        int(supplies_complete),
    )


def reason(adapter: AnyAdapter, market: Market, position: Position, name: Status) -> str:
    """Why a position is unverified or unpriceable, the latter with the assets without a price and their price sources."""
    if name is Status.UNVERIFIED:
        return market.note or "the contracts' own answers differ from the values computed here"
    held = {balance.asset for balance in adapter.balances(market, position)}
    silent = [a for a in market.assets if not a.price and a.group in ("", position.key.group)]
    # A contract may need prices of assets that are not held, such as those of every market an account has entered.
    missing = [a for a in silent if a.asset in held] or silent
    if not missing:
        return "a price that the contract needs is missing"
    sources = [adapter.price_source(market, asset) for asset in missing]
    texts = [
        f"{asset.symbol[:32]} {asset.asset}" + (f" from {source}" if source else "")
        for asset, source in zip(missing, sources, strict=True)
    ]
    more = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
    return f"no price of {', '.join(texts[:5])}{more}"


def evaluate_all(
    chain_id: int,
    adapter: AnyAdapter,
    market: Market,
    positions: Iterable[Position],
    *,
    verified: bool = True,
    at_risk_below: float = AT_RISK_BELOW,
    answers: Mapping[PositionKey, Answer] | None = None,
) -> list[PositionRow]:
    """Rows of `positions` for every position. `answers` (by key) replace our values where the code is unknown."""
    rows = []
    for position in positions:
        health = adapter.evaluate(market, position)
        if answers is not None:
            health = from_answer(health, answers[position.key])
        name = status(health, verified=verified and market.exact, at_risk_below=at_risk_below)
        note = reason(adapter, market, position, name) if name in UNCLEAR else None
        rows.append(row(chain_id, adapter, market, health, name, note, supplies_complete=position.supplies_complete))
    return rows


def balance_rows(
    chain_id: int,
    adapter: AnyAdapter,
    market: Market,
    positions: Iterable[Position],
    *,
    answers: Mapping[PositionKey, Answer] | None = None,
) -> list[BalanceValues]:
    """Rows of `balances` for every balance, as BALANCE_COLUMNS, position by position; `answers` as in `evaluate_all`."""
    name, block, usd = adapter.deployment.name, market.block.number, market.usd
    found: list[BalanceValues] = []
    for position in positions:
        account, group = position.key
        balances: Iterable[Balance] = adapter.balances(market, position)
        if answers is not None:
            balances = answered_balances(balances, answers[position.key])
        found += [
            (
                chain_id,
                name,
                account,
                group,
                asset,
                contract,
                symbol,
                side,
                str(scaled),
                str(amount),
                amount / 10**decimals,
                None if value is None or usd is None else value * usd[0] / usd[1],
                int(is_collateral),
                block,
            )
            for asset, contract, symbol, decimals, side, scaled, amount, value, is_collateral in balances
        ]
    return found


def answered_balances(balances: Iterable[Balance], answer: Answer) -> list[Balance]:
    """The balances with the contract's amounts in place of ours, and without values."""
    amounts = answer.amounts
    return [
        b._replace(amount=amounts.get((b.market, b.side), amounts.get((b.asset, b.side), b.amount)), value=None)
        for b in balances
    ]


def differences(
    row: PositionRow, amounts: Mapping[tuple[str, str], tuple[int, int]], answer: Answer
) -> list[tuple[str, Any, Any]]:
    """(what, ours, the contract's) for every value of a stored row that differs from the contract's answer.

    `amounts` maps (market or asset, side) to (amount_raw, scaled_raw) of `balances`. A supply that the row does not claim
    to know is not compared.
    """
    found: list[tuple[str, Any, Any]] = []
    ours: dict[str, Any] = row._asdict()
    limit, debt = _int(ours.get("liquidation_limit_raw")), _int(ours.get("debt_value_raw"))
    if limit is not None and debt is not None:
        ours["liquidity_raw"], ours["shortfall_raw"] = max(limit - debt, 0), max(debt - limit, 0)
    accrued = _int(ours.get("health_factor_accrued_raw"))
    if accrued is not None:
        ours["liquidatable_accrued"] = accrued < WAD
    for name, theirs in answer.columns.items():
        if name not in ours:
            continue
        mine = ours[name]
        if isinstance(theirs, int):
            mine = _int(mine)
        if mine != theirs:
            found.append((name, mine, theirs))
    if answer.liquidatable is not None and row.status not in UNCLEAR:
        mine = row.status == Status.LIQUIDATABLE
        if mine != answer.liquidatable:
            found.append(("liquidatable", mine, answer.liquidatable))
    for index, theirs_by_place in enumerate((answer.amounts, answer.scaled)):
        for place, amount in theirs_by_place.items():
            if place[1] == "supply" and place not in amounts and not row.supplies_complete:
                continue
            mine = amounts.get(place, (0, 0))[index]
            if mine != amount:
                found.append((f"{('amount_raw', 'scaled_raw')[index]} {place[1]} {place[0]}", mine, amount))
    return found


class Held(Protocol):
    """A balance, as evaluated or as stored."""

    @property
    def market(self) -> str: ...
    @property
    def asset(self) -> str: ...
    @property
    def side(self) -> str: ...
    @property
    def amount(self) -> int: ...
    @property
    def scaled(self) -> int: ...


def amounts_of(balances: Sequence[Held]) -> dict[tuple[str, str], tuple[int, int]]:
    """(market or asset, side) -> (amount, scaled), as `differences` takes them."""
    found = {(b.asset, b.side): (b.amount, b.scaled) for b in balances}
    return found | {(b.market, b.side): (b.amount, b.scaled) for b in balances}
