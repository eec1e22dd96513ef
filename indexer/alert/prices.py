"""Price rules such as ETH<2000, in USD: when they tell, what they remember, and what an alert of one says.

A rule is judged on each chain with the prices that the deployments' own oracles answer, as the table `markets` has them
at each commit: `<` with the lowest of them, `>` with the highest. It tells when the price crosses, and again only after
it has gone back beyond the threshold by the hysteresis, which is told too. A price that nobody knows decides nothing.
"""

import hashlib
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from indexer.address import checked_address
from indexer.alert import tables
from indexer.alert.rules import Event, State, above
from indexer.errors import IndexerError
from indexer.model import WAD, Block
from indexer.plugins import did_you_mean
from indexer.store.rows import Snapshot
from indexer.store.store import Store
from indexer.text.values import printable, shown
from indexer.units import decimal_text, scaled

RULE = re.compile(r"\s*([^<>\s]{1,64})\s*([<>])\s*\$?([0-9_.,]+)\s*(?:USD)?\s*", re.IGNORECASE)
LARGEST = 10**12 * WAD
#: what is the same coin, wrapped
WRAPPED = {"WETH": "ETH"}


@dataclass(frozen=True, slots=True)
class PriceRule:
    """`asset` is a symbol in capitals (WETH is ETH) or an address; `threshold` is USD scaled by 1e18."""

    asset: str
    below: bool
    threshold: int

    def __str__(self) -> str:
        return f"{self.asset}{'<' if self.below else '>'}{decimal_text(self.threshold)}"

    def names(self, symbol: str, asset: str) -> bool:
        """Whether it is about this asset."""
        return self.asset in (canonical(symbol), asset.lower())


def canonical(symbol: str) -> str:
    capitals = symbol.upper()
    return WRAPPED.get(capitals, capitals)


def parse(text: str) -> PriceRule:
    """The rule in a text such as ETH<2000. ValueError if it is none."""
    found = RULE.fullmatch(text)
    if found is None or printable(text) != text:
        raise ValueError(
            f"'{printable(text[:80])}' is no price rule: a symbol or an address, < or >, and USD: ETH<2000"
        )
    name, sign, number = found.groups()
    threshold = scaled(number.replace(",", "").replace("_", ""))
    if not 0 < threshold <= LARGEST:
        raise ValueError(f"'{printable(text[:80])}': a price is above 0 and at most {LARGEST // WAD:,} USD")
    asset = checked_address(name) if name[:2].lower() == "0x" else canonical(name)
    return PriceRule(asset, sign == "<", threshold)


def decide(rule: PriceRule, state: State, prices: Sequence[int], hysteresis: int) -> tuple[State, Event | None]:
    """The rule's next state and what is to be told; prices in USD and `hysteresis` (a fraction) scaled by 1e18."""
    if not prices:
        return state, None
    price = min(prices) if rule.below else max(prices)
    if price < rule.threshold if rule.below else price > rule.threshold:
        return State(armed=False, open=True), Event.CROSSED if state.armed else None
    back = above(price, rule.threshold, hysteresis) if rule.below else price * WAD < rule.threshold * (WAD - hysteresis)
    return (State(), Event.RECOVERED if state.open else None) if back else (state, None)


# the file -------------------------------------------------------------------------------------------------------------


def rules(conn: sqlite3.Connection) -> list[PriceRule]:
    return [parse(rule) for rule in tables.price_rules(conn)]


def add(store: Store, new: Iterable[PriceRule]) -> None:
    """Adds rules, all or none. IndexerError for an asset that no synced market has, so that a typing error is no silence."""
    with store.transaction() as conn:
        known = tables.known_assets(conn)
        for rule in new:
            if known and not any(rule.names(symbol, asset) for symbol, asset in known):
                hint = did_you_mean(rule.asset.lower(), {canonical(symbol).lower() for symbol, _ in known})
                raise IndexerError(f"{rule}: no synced market has {printable(rule.asset)}{hint}; nothing was changed")
            tables.add_price_rule(conn, str(rule), rule.asset, rule.threshold, rule.threshold / WAD)


def remove(store: Store, gone: Iterable[PriceRule]) -> None:
    """Removes rules, all or none; IndexerError if there is no such one. Alerts that wait are still delivered."""
    with store.transaction() as conn:
        for rule in gone:
            if not tables.remove_price_rule(conn, str(rule)):
                raise IndexerError(
                    f"there is no price rule {rule}; nothing was changed: see `indexer watch list --prices`"
                )


# judging --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quote:
    """What one deployment's oracle says of an asset."""

    deployment: str
    symbol: str
    price_usd: float

    @property
    def scaled(self) -> int:
        return int(Decimal(repr(self.price_usd)).scaleb(18))


@dataclass(slots=True)
class PriceVerdicts:
    """What is to be written: rows of `price_states`, and alerts; `judged` is what that was decided from."""

    judged: tuple[list[PriceRule], list[tuple[Any, ...]]]
    states: list[tuple[Any, ...]] = field(default_factory=list)
    alerts: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)


def judge(conn: sqlite3.Connection, chain: str, snapshots: Sequence[Snapshot], hysteresis: int) -> PriceVerdicts:
    """Judges every rule with the markets of these snapshots of one chain and the stored ones of its other deployments."""
    verdicts = PriceVerdicts((rules(conn), tables.price_states(conn)))
    if not snapshots or not verdicts.judged[0]:
        return verdicts
    block = max((snapshot.block for snapshot in snapshots), key=lambda block: block.number)
    chain_id = snapshots[0].chain_id
    known = {row[1]: row for row in verdicts.judged[1] if row[0] == chain_id}
    every = quotes(conn, chain_id, snapshots)
    for rule in verdicts.judged[0]:
        _, _, armed, is_open, crossing, before, *_ = known.get(
            str(rule), (0, "", 1, 0, tables.last_price_crossing(conn, str(rule)), None)
        )
        found = [quote for symbol_asset, quote in every if rule.names(*symbol_asset)]
        state, event = decide(rule, State(bool(armed), bool(is_open)), [q.scaled for q in found], hysteresis)
        if not found:
            continue
        quote = (min if rule.below else max)(found, key=lambda quote: quote.scaled)
        crossing += event is Event.CROSSED
        row = (chain_id, str(rule), int(state.armed), int(state.open), crossing, quote.price_usd, block.number)
        verdicts.states.append(row)
        if event is not None:
            verdicts.alerts.append(alert(chain, chain_id, rule, event, crossing, (before, quote), found, block))
    return verdicts


def quotes(
    conn: sqlite3.Connection, chain_id: int, snapshots: Sequence[Snapshot]
) -> list[tuple[tuple[str, str], Quote]]:
    """((symbol, asset), price) of everything priced in USD: fresh ones, and stored ones of deployments without a snapshot."""
    found = [
        ((one.symbol, one.asset), Quote(snapshot.deployment, one.symbol, one.price_usd))
        for snapshot in snapshots
        for one in snapshot.market.assets
        if one.price_usd is not None
    ]
    fresh = {snapshot.deployment for snapshot in snapshots}
    stored = tables.stored_usd_prices(conn, chain_id)
    return found + [((s, asset), Quote(name, s, price)) for name, s, asset, price in stored if name not in fresh]


# the alert ------------------------------------------------------------------------------------------------------------


def alert(
    chain: str, chain_id: int, rule: PriceRule, event: Event, crossing: int, prices: tuple[float | None, Quote],
    every: Sequence[Quote], block: Block,
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """The row of `alerts`, and the alert as it is delivered, with the keys that alerts of positions have too."""
    before, quote = prices
    identity = hashlib.sha256(f"price|{chain_id}|{rule}|{crossing}|{event}|{block.number}".encode()).hexdigest()[:32]
    columns = {
        "id": identity,
        "kind": "price",
        "chain_id": chain_id,
        "rule": str(rule),
        "crossing": crossing,
        "event": event.value,
        "block_number": block.number,
        "block_hash": block.hash,
        "block_timestamp": block.timestamp,
    }
    nothing = dict.fromkeys(
        "threshold_health_factor wallet label ens protocol account position_group health_factor health_factor_raw "
        "status".split()
    )
    at = datetime.fromtimestamp(block.timestamp, UTC)
    body: dict[str, Any] = {
        "id": identity,
        "kind": "price",
        "event": event.value,
        "rule": str(rule),
        "crossing": crossing,
        **nothing,
        "chain": chain,
        "chain_id": chain_id,
        "deployment": quote.deployment,
        "symbol": quote.symbol,
        "threshold_usd": decimal_text(rule.threshold),
        "price_before_usd": before,
        "price_usd": quote.price_usd,
        "prices": [{"deployment": q.deployment, "symbol": q.symbol, "price_usd": q.price_usd} for q in every],
        "block_number": block.number,
        "block_hash": block.hash,
        "block_timestamp_seconds": block.timestamp,
        "block_time_utc": f"{at:%Y-%m-%dT%H:%M:%SZ}",
    }
    body["title"], body["text"] = words(rule, event, body, f"{at:%Y-%m-%d %H:%M:%S} UTC")
    return columns, body


def words(rule: PriceRule, event: Event, body: Mapping[str, Any], at: str) -> tuple[str, str]:
    """Title and text."""
    threshold = f"{shown('', float(rule.threshold / WAD))} USD"
    name, now = printable(body["symbol"]), price(body["price_usd"])
    side = "below" if rule.below == (event is Event.CROSSED) else "above"
    was = "" if body["price_before_usd"] is None else f", was {price(body['price_before_usd'])}"
    mark = "Price" if event is Event.CROSSED else "Price back"
    text = [
        f"{name} at {now}{was}; {side} {threshold} (crossing {body['crossing']} of rule: {rule})",
        f"as the oracle of {body['deployment']} on {body['chain']} says",
        f"block {body['block_number']:,} of {at}",
    ]
    others = [q for q in body["prices"] if q["deployment"] != body["deployment"]]
    if others:
        said = ", ".join(f"{q['deployment']} {price(q['price_usd'])}" for q in others[:8])
        text.insert(2, f"others say: {said}")
    return f"{mark}: {name} at {now}, {side} {threshold}", "\n".join(text)


def price(value: float) -> str:
    return f"{value:,.2f} USD" if value >= 1 else f"{value:.6g} USD"
