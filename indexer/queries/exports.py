"""The rows that can be exported, as SQL: their columns, filters and order."""

import math
import sqlite3
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from indexer.errors import ConfigError
from indexer.queries.scope import Scope
from indexer.queries.shards import added_up, run
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS
from indexer.store.shards import each
from indexer.text.values import Row
from indexer.units import least_at

MARKET_COLUMNS = (
    "chain_id deployment protocol position_group asset market symbol decimals price_raw price_usd supply_index_raw "
    "debt_index_raw supply_rate borrow_rate ltv liquidation_threshold liquidation_bonus supply_cap_raw borrow_cap_raw "
    "total_supply_raw total_debt_raw active frozen paused block_number"
).split()
WALLET_COLUMNS = (
    "wallet positions collateral_usd debt_usd net_usd health_factor_raw health_factor worst_chain_id worst_deployment "
    "worst_account worst_position_group oldest_block_number supply_usd"
).split()

KEY = ("chain_id", "deployment", "account", "position_group")
# the largest debt first, unknown ones last; then the worst health; then the key, so that the order is always the same
RANK = "{0}debt_usd is null, {0}debt_usd desc, {0}health_factor is null, {0}health_factor"
IS_AT_RISK = "status in ('at-risk', 'liquidatable')"
MIN_DEBT = "(p.debt_usd >= ? or (p.debt_usd is null and p.status <> 'no-debt'))"
# lists with rows not at risk are ranked by debt at risk first
RISK_RANK = f"p.debt_usd is null, case when p.{IS_AT_RISK} then p.debt_usd else 0 end desc, {RANK.format('p.')}"
BLOCK_TIME = "strftime('%Y-%m-%dT%H:%M:%SZ', d.block_timestamp, 'unixepoch') as block_time"
#: the time of a row's own block; rows of an older version are all of their deployment's block
ROW_TIME = BLOCK_TIME.replace("d.block_timestamp", "coalesce(p.block_timestamp, d.block_timestamp)")
#: the same as a number, where the rows do not have it
BLOCK_TIMESTAMP = "d.block_timestamp"
ROW_TIMESTAMP = "coalesce(p.block_timestamp, d.block_timestamp) as block_timestamp"
#: the view, and beside it the debt of a wallet's positions at risk, None if one of them is unknown
WALLET_SOURCE = f"""(
    select w.*,
        (select case when count(debt_usd) = count(*) then total(debt_usd) end
            from positions r where r.wallet = w.wallet and r.{IS_AT_RISK}) as debt_at_risk_usd,
        (select strftime('%Y-%m-%dT%H:%M:%SZ', min(coalesce(r.block_timestamp, d.block_timestamp)), 'unixepoch')
            from positions r left join deployments d using (chain_id, deployment) where r.wallet = w.wallet
        ) as oldest_block_time
    from wallets w) p"""  # noqa: S608 - our own names
WALLET_NAMES = [f"p.{name}" for name in (*WALLET_COLUMNS, "debt_at_risk_usd", "oldest_block_time")]
#: the deployment of each row
DEPLOYED = "left join deployments d on (d.chain_id, d.deployment) = (p.chain_id, p.deployment)"
POSITION_SOURCE = f"positions p {DEPLOYED}"
POSITION_NAMES = [f"p.{name}" for name in POSITION_COLUMNS] + [ROW_TIME]


class Kind(StrEnum):
    """What can be exported."""

    AT_RISK = "at-risk"
    POSITIONS = "positions"
    BALANCES = "balances"
    MARKETS = "markets"
    WALLETS = "wallets"


def select(
    conn: sqlite3.Connection,
    kind: Kind,
    *,
    below: float | None = None,
    min_debt: float | None = None,
    protocols: Sequence[str] = (),
    statuses: Sequence[str] = (),
    scope: Scope | None = None,
) -> tuple[list[str], Iterable[Row]]:
    """Columns and rows, ranked by debt at risk, then by debt; the last columns are block and time (UTC).

    `below` keeps rows with a lower health factor, compared exactly; `min_debt` those with at least that debt in USD, or an
    unknown one. Both are of the position (for `wallets`, the worst health factor and the whole debt). At-risk rows are
    those with that status; with `below`, all with debt and a lower health factor; with `statuses`, all with one of these.
    Raises `ConfigError` for a filter that does not apply.
    """
    scope = scope or Scope()
    filters, values = of_rows(kind, below, min_debt, protocols, statuses)
    key = ", ".join(f"p.{name}" for name in KEY)
    if kind is Kind.MARKETS:
        if below is not None or min_debt is not None:
            raise ConfigError("markets have no debtor: --below and --min-debt do not apply to them")
        if scope.wallets:
            raise ConfigError("markets are nobody's: --wallet does not apply to them")
        names = [f"p.{name}" for name in MARKET_COLUMNS] + [BLOCK_TIME, BLOCK_TIMESTAMP]
        source = f"markets p {DEPLOYED}"
        order = ", ".join(f"p.{n}" for n in "chain_id deployment position_group symbol market asset".split())
    elif kind is Kind.WALLETS:
        names, source = WALLET_NAMES, WALLET_SOURCE
        filters, values = wallet_filters(below, min_debt, protocols, scope)
        order = f"p.debt_usd is null, p.debt_at_risk_usd desc, {RANK.format('p.')}, p.wallet"
    elif kind is Kind.BALANCES:
        names = [f"b.{name}" for name in BALANCE_COLUMNS] + [ROW_TIME, ROW_TIMESTAMP]
        source = f"balances b join positions p using ({', '.join(KEY)}) {DEPLOYED}"
        order = f"{RISK_RANK}, {key}, b.side desc, b.value_usd is null, b.value_usd desc, b.market, b.asset"
    else:
        names, source = POSITION_NAMES, POSITION_SOURCE
        order = f"{RANK.format('p.') if kind is Kind.AT_RISK else RISK_RANK}, {key}"
    if kind is not Kind.WALLETS:
        time = "d.block_timestamp" if kind is Kind.MARKETS else "coalesce(p.block_timestamp, d.block_timestamp)"
        more, given = scope.of_positions(time)
        filters, values = [*filters, *more], [*values, *given]
    how = added_up if kind is Kind.WALLETS else run
    return how(conn, names, source, filters, order, values, scope)


def of_rows(
    kind: Kind, below: float | None, min_debt: float | None, protocols: Sequence[str], statuses: Sequence[str] = ()
) -> tuple[list[str], list[Any]]:
    """SQL conditions on `positions p` and their values, without those of a scope."""
    filters, values = below_filter(below)
    if kind is Kind.AT_RISK and below is None and not statuses:
        filters.append(f"p.{IS_AT_RISK}")
    if min_debt is not None:
        filters.append(MIN_DEBT)
        values.append(min_debt)
    for column, names in (("protocol", protocols), ("status", statuses)):
        if names:
            filters.append(f"p.{column} in ({', '.join('?' * len(names))})")
            values += names
    return filters, values


def wallet_filters(
    below: float | None, min_debt: float | None, protocols: Sequence[str], scope: Scope
) -> tuple[list[str], list[Any]]:
    """SQL conditions on the view `wallets` and their values."""
    filters, values = below_filter(below)
    more, given = scope.of_wallets()
    filters, values = [*filters, *more], [*values, *given]
    if min_debt is not None:
        filters.append("(p.debt_usd >= ? or p.debt_usd is null)")
        values.append(min_debt)
    if protocols:
        filters.append(
            f"p.wallet in (select wallet from positions where protocol in ({', '.join('?' * len(protocols))}))"  # noqa: S608 - question marks only
        )
        values += protocols
    return filters, values


def danger_filter(below: float | None, min_debt: float | None, scope: Scope) -> tuple[str, list[Any]]:
    """The SQL condition on `positions p` for rows listed as at risk, see `select`, and its values."""
    filters, values = below_filter(below)
    if below is None:
        filters.append(f"p.{IS_AT_RISK}")
    if min_debt is not None:
        filters.append(MIN_DEBT)
        values.append(min_debt)
    more, given = scope.of_positions("p.block_timestamp")
    return " and ".join([*filters, *more]), [*values, *given]


def below_filter(below: float | None) -> tuple[list[str], list[Any]]:
    """SQL conditions for a lower health factor than that, and their values.

    Floats narrow the rows down and integers decide, as 1 - 1e-18 is 1 in a float. Decimal digits without leading zeros
    are ordered by length, then as text.
    """
    if below is None:
        return [], []
    digits = str(least_at(below)) if math.isfinite(below) else "9" * 100
    filters = [
        "p.health_factor <= ?",
        "(length(p.health_factor_raw), p.health_factor_raw) < (?, ?)",
    ]
    return filters, [below, len(digits), digits]


def size(conn: sqlite3.Connection, kind: Kind) -> int:
    """How many rows there are of which an export chooses, over all files."""
    table = kind if kind in (Kind.BALANCES, Kind.MARKETS) else Kind.POSITIONS
    return sum(part.execute(f"select count(*) from {table}").fetchone()[0] for part in each(conn))  # noqa: S608
