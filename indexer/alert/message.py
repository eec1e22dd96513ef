"""The content of an alert: one JSON object with units in the names of its keys, and a text for people."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from indexer.adapter import AnyAdapter, Liquidation
from indexer.alert.chances import Chance
from indexer.alert.rules import Event, Kind, Rule, span
from indexer.model import WAD, Asset, Balance, Block, Market, Position, Status
from indexer.risk.liquidation import Outlook, outlook
from indexer.text.values import age, iso, printable, short_address, shown
from indexer.units import decimal_text

log = logging.getLogger(__name__)

ROUND = 10**14  # our own targets are rounded up to this, scaled by 1e18
NAMED = 8  # entries of each list in the text; the JSON has all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an alert is about; health factors, `hysteresis` (a fraction) and `target` are scaled by 1e18.

    `columns` is the row of `positions`. `chance` is what was forecast, where it was asked. `crossed` is the threshold of a drop that was crossed,
    `fell_from` the high it is measured from. `seconds_per_block` is
    the chain's pace.
    """

    chain: str
    chain_id: int
    wallet: str
    label: str | None
    ens: str | None
    rule: Rule
    event: Event
    crossing: int
    crossed: int | None
    chance: Chance | None
    fell_from: int | None
    health_before: int | None
    columns: Mapping[str, Any]
    block: Block
    explorer: str | None
    hysteresis: int
    target: int
    seconds_per_block: float
    oracle: Sequence[str] = ()

    @property
    def health(self) -> int | None:
        raw = self.columns["health_factor_raw"]
        return None if raw is None else int(raw)

    @property
    def percent(self) -> int | None:
        """The chance that a rule asks for, in per cent scaled by 1e18."""
        return None if self.chance is None else self.chance.percent.get(self.rule.seconds)

    @property
    def threshold(self) -> int | None:
        """The health factor that was crossed."""
        return self.rule.threshold if self.rule.kind is Kind.BELOW else self.crossed


@dataclass(frozen=True, slots=True)
class Moved:
    """An asset with its present price, and its price at the snapshot before, raw and in USD."""

    asset: Asset
    before: int
    before_usd: float | None


def compose(
    identity: str, subject: Subject, adapter: AnyAdapter, market: Market, position: Position, moved: Sequence[Moved]
) -> dict[str, Any]:
    """The alert as it is delivered: plain JSON values; integers beyond 2**53 are strings (`_raw`)."""
    columns, block = subject.columns, subject.block
    balances = adapter.balances(market, position)
    held = {(b.asset, b.market) for b in balances} | {(b.asset, "") for b in balances}
    group = columns["position_group"]
    changes = [
        price_change(m)
        for m in moved
        if m.asset.group in ("", group) and ((m.asset.asset, m.asset.market) in held or (m.asset.asset, "") in held)
    ]
    body: dict[str, Any] = {
        "id": identity,
        "kind": "position",
        "event": subject.event.value,
        "rule": str(subject.rule),
        "crossing": subject.crossing,
        "threshold_health_factor": None if subject.threshold is None else decimal_text(subject.threshold),
        "fell_from_health_factor_raw": None if subject.fell_from is None else str(subject.fell_from),
        **likelihood(subject),
        "wallet": subject.wallet,
        "label": subject.label,
        "ens": subject.ens,
        "chain": subject.chain,
        "chain_id": subject.chain_id,
        "protocol": columns["protocol"],
        "deployment": columns["deployment"],
        "account": columns["account"],
        "position_group": group,
        "owner": columns["owner"],
        "owner_via": columns["owner_via"],
        "status": columns["status"],
        "blocked_by": columns["blocked_by"],
        "health_factor_before": None if subject.health_before is None else subject.health_before / WAD,
        "health_factor_before_raw": None if subject.health_before is None else str(subject.health_before),
        "health_factor": columns["health_factor"],
        "health_factor_raw": columns["health_factor_raw"],
        "collateral_usd": columns["collateral_usd"],
        "debt_usd": columns["debt_usd"],
        "collateral": [holding(b, market) for b in balances if b.is_collateral],
        "debt": [holding(b, market) for b in balances if b.side == "debt"],
        "price_changes": changes,
        **prospects(subject, adapter, market, position),
        "block_number": block.number,
        "block_hash": block.hash,
        "block_timestamp_seconds": block.timestamp,
        "block_time_utc": f"{at(block):%Y-%m-%dT%H:%M:%SZ}",
        "explorer_url": None
        if subject.explorer is None
        else f"{subject.explorer.rstrip('/')}/address/{columns['account']}",
    }
    body["title"] = title(subject)
    body["text"] = "\n".join(lines(subject, body))
    return body


def likelihood(subject: Subject) -> dict[str, Any]:
    """What a rule of a chance says: p_unsafe within the horizon, and what is pending; empty for other rules."""
    if subject.rule.kind is not Kind.CHANCE:
        return {}
    coming = None if subject.chance is None else subject.chance.coming
    return {
        "chance_percent": None if subject.percent is None else subject.percent / WAD,
        "threshold_percent": subject.rule.threshold / WAD,
        "horizon_seconds": subject.rule.seconds,
        "pending_kind": None if coming is None else coming.kind,
        "pending_price_raw": None if coming is None or coming.price_raw is None else str(coming.price_raw),
        "pending_at": None if coming is None else coming.at,
    }


def target_of(subject: Subject) -> int:
    """The health factor to aim for: the configured one or, where that would not end the crossing, one that does."""
    ends = (subject.threshold or 0) * (WAD + subject.hysteresis) // WAD
    ends = -(-ends // ROUND) * ROUND
    if subject.rule.kind is Kind.BELOW:
        return max(subject.target, ends)
    return ends if subject.health is not None and subject.health >= subject.target and ends else subject.target


def prospects(subject: Subject, adapter: AnyAdapter, market: Market, position: Position) -> dict[str, Any]:
    """Liquidation prices, and the amounts that lead to the target; null where the protocol cannot tell."""
    target = target_of(subject)
    found: Outlook | None = None
    try:
        if isinstance(adapter, Liquidation):
            found = outlook(adapter, market, position, target=target, seconds_per_block=subject.seconds_per_block)
    except Exception:  # a defect there must not keep a warning from leaving
        log.exception("%s: defect in the outlook of %s", subject.columns["deployment"], position.key.account)
    if found is None:
        unknown = ("liquidation_prices", "seconds_to_liquidation_by_interest", "liquidation_blocked_by", "to_target")
        return {**dict.fromkeys(unknown), "target_health_factor": decimal_text(target)}
    return {
        "liquidation_prices": [
            {
                "symbol": p.price.symbol,
                "price": p.whole(p.price.price),
                "liquidation_price": p.whole(p.liquidatable),
                "unit": p.price.unit,
                "liquidation_price_usd": p.usd(market, p.liquidatable),
                "distance_percent": p.distance,
                "collateral": p.price.collateral,
                "debt": p.price.debt,
            }
            for p in found.prices
        ],
        "seconds_to_liquidation_by_interest": found.seconds,
        "liquidation_blocked_by": list(found.blocked),
        "target_health_factor": decimal_text(target),
        "to_target": [
            {
                "act": r.act,
                "symbol": r.balance.symbol,
                "asset": r.balance.asset,
                "amount": r.amount / 10**r.balance.decimals,
                "amount_raw": str(r.amount),
                "health_factor": None if r.health_factor is None else r.health_factor / WAD,
                "refused": r.refused,
            }
            for r in found.remedies
        ],
    }


def at(block: Block) -> datetime:
    return datetime.fromtimestamp(block.timestamp, UTC)


def holding(balance: Balance, market: Market) -> dict[str, Any]:
    value = None
    if balance.value is not None and market.usd is not None:
        value = balance.value * market.usd[0] / market.usd[1]
    return {
        "symbol": balance.symbol,
        "asset": balance.asset,
        "amount": balance.amount / 10**balance.decimals,
        "amount_raw": str(balance.amount),
        "value_usd": value,
    }


def price_change(moved: Moved) -> dict[str, Any]:
    assert moved.asset.price is not None
    return {
        "symbol": moved.asset.symbol,
        "asset": moved.asset.asset,
        "price_before_usd": moved.before_usd,
        "price_usd": moved.asset.price_usd,
        "change_percent": (moved.asset.price - moved.before) * 100 / moved.before if moved.before else None,
    }


# for people -----------------------------------------------------------------------------------------------------------


def factor(raw: int | None) -> str:
    """A health factor with four decimals, rounded down: 0.99999 never shows as 1."""
    return "unknown" if raw is None else shown("health_factor", Decimal(raw).scaleb(-18))


def who(subject: Subject) -> str:
    name = subject.label or subject.ens
    short = short_address(subject.wallet)
    return f"{printable(name)} ({short})" if name else short


def state(subject: Subject) -> str:
    """The position's health in a few words."""
    if subject.health is not None:
        return f"health factor {factor(subject.health)}"
    return "no debt" if subject.columns["status"] == Status.NO_DEBT else "health factor unknown"


def what(subject: Subject) -> str:
    """What happened, as the end of a sentence that begins with the position's health."""
    recovered = subject.event is Event.RECOVERED
    if subject.rule.kind is Kind.ORACLE:
        return "the oracles of its prices are in order again" if recovered else "; ".join(subject.oracle)
    if subject.rule.kind is Kind.UNKNOWN:
        if recovered:
            return "is known again"
        reason = {
            Status.UNPRICEABLE: "a price is missing",
            Status.UNVERIFIED: "it could not be verified with the contracts",
        }[subject.columns["status"]]
        return f"may be at risk: {reason}"
    if subject.rule.kind is Kind.LIQUIDATABLE:
        return "the contract no longer allows liquidation" if recovered else "the contract allows liquidation now"
    if subject.rule.kind is Kind.CHANCE:
        return likely(subject)
    assert subject.threshold is not None
    threshold = decimal_text(subject.threshold)
    if subject.rule.kind is Kind.BELOW:
        return f"recovered, above {threshold}" if recovered else f"below {threshold}"
    percent = decimal_text(subject.rule.threshold)
    if recovered:
        return f"recovered from its fall by {percent} %"
    if not subject.fell_from or subject.health is None:
        return f"fell by {percent} % or more"
    share = 100 * (subject.fell_from - subject.health) / subject.fell_from
    return f"fell {share:.3g} % from {factor(subject.fell_from)}"


def likely(subject: Subject) -> str:
    """The chance in words; it is of a position that is left alone, and no chance of being liquidated."""
    within = f"within {span(subject.rule.seconds)}"
    limit = f"{decimal_text(subject.rule.threshold)} %"
    if subject.percent is None:
        return (
            f"the chance to become liquidatable {within} no longer counts"
            if subject.event is Event.RECOVERED
            else limit
        )
    percent = f"{subject.percent / WAD:.3g} %"
    if subject.event is Event.RECOVERED:
        return f"left alone, {percent} likely to become liquidatable {within}, below {limit} again"
    return f"left alone, {percent} likely to become liquidatable {within}, {limit} or more"


def decided(body: Mapping[str, Any]) -> str | None:
    """What no chance is in: a price that waits, or interest alone."""
    if body.get("pending_kind") is None:
        return None
    what_ = {
        "osm": "a price that waits in the oracle makes it liquidatable, at the earliest",
        "svr": "a price that is still hidden makes it liquidatable, at the latest",
        "interest": "interest alone makes it liquidatable",
    }[body["pending_kind"]]
    when = "" if body["pending_at"] is None else f" at {iso(body['pending_at'])}"
    return f"pending: {what_}{when}"


def title(subject: Subject) -> str:
    """A one-line summary."""
    mark = "Recovered" if subject.event is Event.RECOVERED else "Liquidation risk"
    if subject.rule.kind is Kind.ORACLE and subject.event is Event.CROSSED:
        mark = "Oracle"
    if subject.columns["status"] == Status.LIQUIDATABLE:
        mark = "Liquidatable"
    place = f"{subject.columns['deployment']} {subject.columns['position_group']}".strip()
    return f"{mark}: {who(subject)} on {place}: {state(subject)}"


def lines(subject: Subject, body: Mapping[str, Any]) -> list[str]:
    """The text for people, line by line; empty lines are left out."""
    columns = subject.columns
    place = f"{columns['deployment']} {columns['position_group']}".strip()
    was = "" if subject.health_before is None else f", was {factor(subject.health_before)}"
    found = [
        f"{who(subject)} on {place} ({columns['protocol']}, {subject.chain})",
        f"{state(subject)}{was}; {what(subject)} (crossing {subject.crossing} of rule: {subject.rule})",
        *filter(None, [decided(body)]),
        f"status {columns['status']}" + (f"; held up by {columns['blocked_by']}" if columns["blocked_by"] else ""),
        f"debt {usd(columns['debt_usd'])}, collateral {usd(columns['collateral_usd'])}",
    ]
    found += [
        f"{name}: " + named(f"{amount(held)} ({usd(held['value_usd'])})" for held in body[name])
        for name in ("debt", "collateral")
        if body[name]
    ]
    if body["price_changes"]:
        moves = (
            f"{printable(c['symbol'])} {usd(c['price_before_usd'])} -> {usd(c['price_usd'])}"
            + ("" if c["change_percent"] is None else f" ({c['change_percent']:+.2f} %)")
            for c in body["price_changes"]
        )
        found.append(f"prices since the last snapshot: {named(moves)}")
    found += ahead(body)
    found.append(f"wallet {subject.wallet}, position {columns['account']}")
    found.append(f"block {subject.block.number:,} of {at(subject.block):%Y-%m-%d %H:%M:%S} UTC")
    if body["explorer_url"]:
        found.append(body["explorer_url"])
    return found


def ahead(body: Mapping[str, Any]) -> list[str]:
    """At which prices the position can be liquidated, and what would lead away from it."""
    found = []
    prices = [
        f"{printable(p['symbol'])} at {shown('', p['liquidation_price'])} {p['unit']}{in_usd(p)} ({p['distance_percent']:+.2f} %)"
        for p in body["liquidation_prices"] or ()
    ]
    if prices:
        found.append(f"liquidation if only one price moves: {named(prices)}")
    if body["seconds_to_liquidation_by_interest"]:
        found.append(f"by interest alone: in {age(body['seconds_to_liquidation_by_interest'])}")
    acts = [
        f"{r['act']} {shown('', r['amount'])} {printable(r['symbol'])}"
        + (f" (refused now: {r['refused']})" if r["refused"] else "")
        for r in body["to_target"] or ()
    ]
    if acts:
        found.append(f"to a health factor of {body['target_health_factor']}: {' or '.join(acts[:NAMED])}")
    if body["liquidation_blocked_by"]:
        found.append(f"cannot be liquidated now: {', '.join(body['liquidation_blocked_by'])}")
    return found


def in_usd(price: Mapping[str, Any]) -> str:
    """The same liquidation price in USD, where its unit is another and worth a known number of them."""
    value = price["liquidation_price_usd"]
    return "" if price["unit"] == "USD" or value is None else f", {usd(value)}"


def amount(holding: Mapping[str, Any]) -> str:
    return f"{shown('', holding['amount'])} {printable(holding['symbol'])}"


def usd(value: float | None) -> str:
    """USD to the cent, small amounts to four digits."""
    if value is None:
        return "unknown USD"
    return f"{value:,.2f} USD" if abs(value) >= 1 or value == 0 else f"{value:.4g} USD"


def named(parts: Any) -> str:
    """The first few items of a list, and how many more there are."""
    every = list(parts)
    rest = f", and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + rest
