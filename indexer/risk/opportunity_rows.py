"""The rows of `indexer opportunities`: what a liquidator would earn from everyone near liquidation, from the file alone."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from indexer.adapter import Liquidation
from indexer.model import WAD, Balance, Deployment, LiquidationCall, Market
from indexer.queries.exports import danger_filter
from indexer.queries.markets import usd_prices
from indexer.queries.queries import lay_rows
from indexer.queries.scope import Scope
from indexer.risk.chosen import liquidatable
from indexer.risk.opportunities import Opportunity, gas_in_usd, in_usd, opportunity
from indexer.schema.dictionary import dictionary
from indexer.store import books
from indexer.store.books import Book
from indexer.text.values import iso

COLUMNS = (
    "chain_id deployment protocol account position_group wallet status health_factor_raw health_factor function "
    "debt_asset debt_symbol collateral_asset collateral_market collateral_symbol repaid_raw repaid seized_raw seized "
    "received_raw received received_scaled_raw protocol_share_raw protocol_share bonus_percent close_factor_percent "
    "whole_account paid_usd received_usd profit_before_gas_usd gas gas_price_gwei gas_usd profit_after_gas_usd "
    "auction_lot_raw auction_lot auction_tab_raw auction_tab auction_reward_raw auction_reward sale_paid_raw sale_paid "
    "sale_bought_raw sale_bought sale_profit_before_gas_usd sale_refused refused block_number block_time block_timestamp"
).split()
WAD_DIGITS, RAD_DIGITS = 18, 45


def rows(
    conn: sqlite3.Connection,
    known: Mapping[str, Deployment],
    *,
    say: Callable[[str], None],
    below: float | None = None,
    min_debt: float | None = None,
    min_profit: float | None = None,
    gas_price: float | None = None,
    protocols: Sequence[str] = (),
    scope: Scope | None = None,
) -> list[dict[str, Any]]:
    """The rows of everyone at risk, or below a health factor, the most profitable first.

    `gas_price` is in GWEI; `min_profit` in USD, and leaves out calls that are refused or of unknown profit. What is left out or
    unknown it will `say`.
    """
    danger = danger_filter(below, min_debt, scope or Scope())
    found = list(each(conn, known, danger, protocols, gas_price, say))
    if gas_price is not None and any(row["gas"] is not None and row["gas_usd"] is None for row in found):
        say("no market prices the coin that pays for gas: profit after gas is unknown")
    if min_profit is not None:
        found = [row for row in found if pays(row) >= min_profit]
    return sorted(found, key=lambda row: (-pays(row), row["health_factor"] is None, row["health_factor"] or 0.0))


def lay_table(
    conn: sqlite3.Connection, known: Mapping[str, Deployment], into: sqlite3.Connection, say: Callable[[str], None]
) -> None:
    """Puts the rows of everyone at risk into a temporary table `opportunities` of a connection, without a gas price.

    SQL cannot do the contracts' integer maths, so it is made when somebody asks for it; it is then of the same snapshot as
    every other table.
    """
    told = dictionary().lists["opportunities"].columns
    types = {name: told[name].type for name in COLUMNS}
    found = each(conn, known, danger_filter(None, None, Scope()), (), None, say)
    lay_rows(into, "opportunities", types, ([row[name] for name in COLUMNS] for row in found))


def each(
    conn: sqlite3.Connection,
    known: Mapping[str, Deployment],
    danger: tuple[str, list[Any]],
    protocols: Sequence[str],
    gas_price: float | None,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """The row of each position in danger, unordered."""
    of, computed = "what a liquidation takes", "liquidations"
    for book in liquidatable(conn, known, of=of, computed=computed, say=say, protocols=protocols):
        assert isinstance(book.adapter, Liquidation)
        native = native_usd(conn, book) if gas_price is not None else None
        for whose, position in books.chosen(conn, book, *danger):
            one = opportunity(book.adapter, book.market, position)
            yield {
                "chain_id": book.chain_id,
                "deployment": book.name,
                "protocol": book.adapter.protocol,
                "account": position.key.account,
                "position_group": position.key.group,
                "wallet": whose["wallet"],
                "status": whose["status"],
                **plain(one, book.market),
                **after_gas(one, book.market, gas_price, native),
                **auctioned(one.call),
                **sold(one, book.market),
                "refused": one.refused,
                "block_number": book.market.block.number,
                "block_time": iso(book.market.block.timestamp),
                "block_timestamp": book.market.block.timestamp,
            }


def native_usd(conn: sqlite3.Connection, book: Book) -> float | None:
    """The price of the chain's own coin in USD: the median of all stored markets that price it, wrapped or not."""
    symbol = book.adapter.deployment.native_symbol
    return median(usd_prices(conn, book.chain_id, (symbol, f"W{symbol}")) or [0.0]) or None


def pays(row: Mapping[str, Any]) -> float:
    """The value that ranks a row: what its call pays, after gas where that is known, or else the sale after it."""
    own = row["profit_before_gas_usd"] if row["gas_price_gwei"] is None else row["profit_after_gas_usd"]
    both = [value for value in (own, row["sale_profit_before_gas_usd"]) if value is not None]
    return max(both, default=-float("inf"))


# columns --------------------------------------------------------------------------------------------------------------


def plain(one: Opportunity, market: Market) -> dict[str, Any]:
    """Health, the pair and the amounts of the call; NULL where there is no call or it would be refused."""
    health, call, debt, gem = one.health, one.call, one.debt, one.collateral
    taken = call if call is not None and call.refused is None else None
    received = None if taken is None else 0 if taken.auction else taken.received
    share = None if taken is None or received is None or taken.auction else taken.seized - received
    scaled = None if taken is None else 0 if taken.auction else taken.received_scaled
    return {
        "health_factor_raw": None if health.health_factor is None else str(health.health_factor),
        "health_factor": None if health.health_factor is None else health.health_factor / WAD,
        "function": call.function if call else None,
        "debt_asset": debt.asset if debt else None,
        "debt_symbol": debt.symbol if debt else None,
        "collateral_asset": gem.asset if gem else None,
        "collateral_market": gem.market if gem else None,
        "collateral_symbol": gem.symbol if gem else None,
        **amounts("repaid", debt, taken.repaid if taken else None),
        **amounts("seized", gem, taken.seized if taken else None),
        **amounts("received", gem, received),
        "received_scaled_raw": None if scaled is None else str(scaled),
        **amounts("protocol_share", gem, share),
        "bonus_percent": None if call is None or call.bonus is None else 100 * call.bonus,
        "close_factor_percent": None if call is None or call.close_factor is None else 100 * call.close_factor,
        "whole_account": call.whole if call else None,
        "paid_usd": in_usd(market, taken.cost if taken else None),
        "received_usd": in_usd(market, taken.gain if taken else None),
        "profit_before_gas_usd": in_usd(market, one.profit),
    }


def after_gas(one: Opportunity, market: Market, gas_price: float | None, native: float | None) -> dict[str, Any]:
    """What the call costs in gas, and the profit after it; NULL where the gas price or the coin's price is unknown."""
    gas = one.call.gas if one.call is not None and one.refused is None else None
    cost, before = gas_in_usd(gas, gas_price, native), in_usd(market, one.profit)
    return {
        "gas": gas,
        "gas_price_gwei": gas_price,
        "gas_usd": cost,
        "profit_after_gas_usd": None if cost is None or before is None else before - cost,
    }


def auctioned(call: LiquidationCall | None) -> dict[str, Any]:
    """Maker's auction: its lot (wad of the gem), what it is to raise and what its starter is paid (rad of DAI)."""
    auction = call.auction if call else None
    parts = {
        "auction_lot": (auction.lot if auction else None, WAD_DIGITS),
        "auction_tab": (auction.tab if auction else None, RAD_DIGITS),
        "auction_reward": (auction.reward if auction else None, RAD_DIGITS),
    }
    return {
        column: value
        for name, (amount, digits) in parts.items()
        for column, value in (
            (f"{name}_raw", None if amount is None else str(amount)),
            (name, None if amount is None else float(amount / 10**digits)),
        )
    }


def sold(one: Opportunity, market: Market) -> dict[str, Any]:
    """Comet's sale of the collateral after the call: the base asset paid for it, and the profit before gas."""
    sale = one.call.sale if one.call else None
    open_now = sale if sale is not None and sale.refused is None else None
    return {
        **amounts("sale_paid", one.debt, open_now.paid if open_now else None),
        **amounts("sale_bought", one.collateral, open_now.bought if open_now else None),
        "sale_profit_before_gas_usd": in_usd(market, open_now.profit if open_now else None),
        "sale_refused": sale.refused if sale else None,
    }


def amounts(name: str, balance: Balance | None, amount: int | None) -> dict[str, Any]:
    """An amount of the balance's asset in smallest units, as text, and in whole tokens."""
    known = balance is not None and amount is not None
    return {
        f"{name}_raw": str(amount) if known else None,
        name: float(amount / 10**balance.decimals) if balance is not None and amount is not None else None,
    }
