"""The stored book under a scenario: who could be liquidated then, for how much, by protocol and by asset.

Everything is computed offline, from the markets and positions of the last snapshot, by the adapters' own exact
`evaluate`: a row here is what a sync would write if just that had happened.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter

from indexer.adapter import AnyWhatIf, WhatIf
from indexer.errors import IndexerError
from indexer.model import WAD, Deployment, Health, Market, Position
from indexer.plugins import adapter_class
from indexer.progress import NoProgress, Progress
from indexer.risk.evaluate import status
from indexer.risk.liquidation import SECONDS_PER_BLOCK
from indexer.risk.scenario import Change, Names, Scenario, Sweep
from indexer.text import iso
from indexer.units import AT_RISK_BELOW, least_at

#: positions between two looks at the progress bar
CHUNK = 2_000
#: blocks that the kept hashes must span before they tell how long a block takes
SPAN = 100


@dataclass(frozen=True, slots=True)
class Book:
    """One deployment's market and positions as of its last snapshot; `newer` positions were read after it."""

    chain_id: int
    adapter: AnyWhatIf
    market: Market
    positions: list[Position]
    newer: int = 0

    @property
    def name(self) -> str:
        return self.adapter.deployment.name

    @property
    def time(self) -> str:
        """When the snapshot's block was made, UTC."""
        return iso(self.market.block.timestamp)


def deployments(
    conn: sqlite3.Connection,
    *,
    chain_id: int | None = None,
    protocols: Sequence[str] = (),
    names: Sequence[str] = (),
) -> list[sqlite3.Row]:
    """The synced deployments that pass every filter, with their stored market."""
    rows = conn.execute(
        "select d.*, s.market from deployments d join snapshots s using (chain_id, deployment) "
        "order by chain_id, deployment"
    )
    return [
        row
        for row in rows
        if (chain_id is None or row["chain_id"] == chain_id)
        and (not protocols or row["protocol"] in protocols)
        and (not names or row["deployment"] in names)
    ]


def able(rows: Iterable[sqlite3.Row], capability: type[Any]) -> tuple[list[sqlite3.Row], list[str]]:
    """Those of these rows of `deployments` whose protocol has the capability, and the names of the others."""
    found, lacking = [], []
    for row in rows:
        if issubclass(adapter_class(row["protocol"]), capability):
            found.append(row)
        else:
            lacking.append(f"{row['deployment']} ({row['protocol']})")
    return found, lacking


def load(
    conn: sqlite3.Connection,
    rows: Iterable[sqlite3.Row],
    known: Mapping[str, Deployment],
    *,
    wallet: str | None = None,
    progress: Progress | None = None,
) -> list[Book]:
    """The books of these rows of `deployments`: everyone with debt, or all that one wallet holds.

    Raises `IndexerError` for a deployment that the configuration does not know (its addresses are only there), or
    whose protocol is no `WhatIf` (`able` leaves those out).
    """
    progress = progress or NoProgress()
    wanted = list(rows)
    for row in wanted:
        if row["deployment"] not in known:
            raise IndexerError(
                f"the configuration has no deployment {row['deployment']}; name its file with --config, or leave it "
                "out by naming others with --deployment"
            )
    progress.start("reading", sum(count(conn, row, wallet) for row in wanted), "positions")
    books = []
    for row in wanted:
        adapter = adapter_class(row["protocol"])(known[row["deployment"]])
        if not isinstance(adapter, WhatIf):
            raise IndexerError(f"{row['deployment']}: {row['protocol']} does not say what other prices would do to it")
        market: Market = TypeAdapter(adapter.market_type).validate_json(row["market"])
        json = TypeAdapter(adapter.position_type)
        positions, newer = [], 0
        for block_number, state in states(conn, row, wallet):
            position = json.validate_json(state)
            if position.block_number != block_number:  # a reorg moved the block it is known to be right at
                position = replace(position, block_number=block_number)
            newer += block_number > market.block.number
            positions.append(position)
            if len(positions) % CHUNK == 0:
                progress.advance("reading", CHUNK)
        books.append(Book(row["chain_id"], adapter, market, positions, newer))
    progress.done("reading")
    return books


DEBTORS = (
    "from positions p join states s using (chain_id, deployment, account, position_group) "
    "where p.chain_id = ? and p.deployment = ? and (p.status <> 'no-debt' or exists (select 1 from balances b "
    "where b.chain_id = p.chain_id and b.deployment = p.deployment and b.account = p.account "
    "and b.position_group = p.position_group and b.side = 'debt'))"
)
OF_WALLET = (
    "from positions p join states s using (chain_id, deployment, account, position_group) "
    "where p.chain_id = ? and p.deployment = ? and ?3 in (p.wallet, p.owner, p.account)"
)


def states(conn: sqlite3.Connection, row: sqlite3.Row, wallet: str | None) -> Iterator[tuple[int, str]]:
    where = (row["chain_id"], row["deployment"])
    if wallet is None:
        yield from conn.execute(f"select s.block_number, s.state {DEBTORS}", where)
    else:
        yield from conn.execute(f"select s.block_number, s.state {OF_WALLET}", (*where, wallet))


def count(conn: sqlite3.Connection, row: sqlite3.Row, wallet: str | None) -> int:
    """About how many positions will be read."""
    if wallet is not None:
        return 0
    where = (row["chain_id"], row["deployment"])
    found: tuple[int] = conn.execute(
        "select count(*) from positions where chain_id = ? and deployment = ? and status <> 'no-debt'", where
    ).fetchone()
    return found[0]


def seconds_per_block(conn: sqlite3.Connection, chain_id: int) -> float:
    """How long a block takes, by the oldest and newest kept one; 12 s before they are far enough apart."""
    first, began, last, ended = conn.execute(
        "select min(number), min(timestamp), max(number), max(timestamp) from blocks where chain_id = ?", (chain_id,)
    ).fetchone()
    if first is None or last - first < SPAN:
        return SECONDS_PER_BLOCK
    return float((ended - began) / (last - first)) or SECONDS_PER_BLOCK  # a test chain may stand still


# one scenario ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """One position before and after; the statuses are those of `positions`."""

    book: Book
    after_market: Market
    position: Position
    before: Health
    after: Health
    status_before: str
    status_after: str

    @property
    def becomes_liquidatable(self) -> bool:
        return self.status_after == "liquidatable" != self.status_before

    @property
    def debt_usd(self) -> float | None:
        return usd(self.after_market, self.after.debt_value)

    @property
    def collateral_usd(self) -> float | None:
        return usd(self.after_market, self.after.collateral_value)

    @property
    def wallet(self) -> str:
        return self.after.wallet or self.after.owner or self.position.key.account


def usd(market: Market, value: int | None) -> float | None:
    return None if value is None or market.usd is None else value * market.usd[0] / market.usd[1]


@dataclass(slots=True)
class Totals:
    """Sums over positions of which some are liquidatable; USD at the scenario's prices.

    `bad_debt_usd` is the debt beyond the collateral of the liquidatable ones. What has no USD value is in `unvalued`,
    what a missing price leaves unknown in `unpriceable`.
    """

    positions: int = 0
    liquidatable: int = 0
    wallets: set[str] = field(default_factory=set)
    debt_usd: float = 0.0
    collateral_usd: float = 0.0
    bad_debt_usd: float = 0.0
    unvalued: int = 0
    unpriceable: int = 0

    def add(self, name: str, wallet: str, debt: float | None, collateral: float | None) -> None:
        self.positions += 1
        self.unpriceable += name == "unpriceable"
        if name != "liquidatable":
            return
        self.liquidatable += 1
        self.wallets.add(wallet)
        if debt is None or collateral is None:
            self.unvalued += 1
            return
        self.debt_usd += debt
        self.collateral_usd += collateral
        self.bad_debt_usd += max(debt - collateral, 0.0)


@dataclass(slots=True)
class Simulation:
    """One scenario's result: `before` and `after` by book, and every outcome that is kept."""

    books: list[Book]
    before: list[Totals]
    after: list[Totals]
    outcomes: list[Outcome]


def status_of(market: Market, health: Health, at_risk_below: float, *, accrued: bool) -> str:
    """As `positions` has it; `accrued`: by the interest that a liquidation would store first, where that is apart."""
    name = status(health, verified=market.exact, at_risk_below=at_risk_below)
    factor = health.health_factor_accrued
    if accrued and factor is not None and name in ("healthy", "at-risk"):
        if factor < WAD:
            return "liquidatable"
        if factor < least_at(at_risk_below):
            return "at-risk"
    return name


def simulate(
    books: Sequence[Book],
    scenario: Scenario,
    names: Names,
    *,
    at_risk_below: float = AT_RISK_BELOW,
    keep: Callable[[Outcome], bool] = lambda outcome: outcome.becomes_liquidatable,
    progress: Progress | None = None,
) -> Simulation:
    """Every position before and after. With time in the scenario, interest counts as stored, as liquidations do."""
    progress = progress or NoProgress()
    progress.start("simulating", 2 * sum(len(book.positions) for book in books), "evaluations")
    result = Simulation(list(books), [], [], [])
    for book in books:
        market, evaluate = scenario.applied(book.adapter, book.market, names), book.adapter.evaluate
        # An adapter may remember the last market it was asked about: all positions of one, then all of the other.
        healths = []
        for one in (book.market, market):
            evaluated: list[Health] = []
            for start in range(0, len(book.positions), CHUNK):
                part = book.positions[start : start + CHUNK]
                evaluated += [evaluate(one, position) for position in part]
                progress.advance("simulating", len(part))
            healths.append(evaluated)
        before, after = Totals(), Totals()
        for position, old, new in zip(book.positions, *healths, strict=True):
            outcome = Outcome(
                book,
                market,
                position,
                old,
                new,
                status_of(book.market, old, at_risk_below, accrued=False),
                status_of(market, new, at_risk_below, accrued=bool(scenario.seconds)),
            )
            before.add(
                outcome.status_before,
                outcome.wallet,
                usd(book.market, old.debt_value),
                usd(book.market, old.collateral_value),
            )
            after.add(outcome.status_after, outcome.wallet, outcome.debt_usd, outcome.collateral_usd)
            if keep(outcome):
                result.outcomes.append(outcome)
        result.before.append(before)
        result.after.append(after)
    progress.done("simulating")
    result.outcomes.sort(key=lambda o: (-(o.debt_usd or 0.0), o.book.chain_id, o.book.name, o.position.key))
    return result


OUTCOME_COLUMNS = (
    "chain_id deployment protocol position_group account wallet status_before status_after health_factor_before_raw "
    "health_factor_before health_factor_after_raw health_factor_after health_factor_accrued_after_raw "
    "health_factor_accrued_after debt_usd collateral_usd blocked_by block_number block_time"
).split()


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """One outcome; USD at the scenario's prices, `block_*` is the snapshot it starts from."""
    book, after = outcome.book, outcome.after
    factors = {
        "health_factor_before": outcome.before.health_factor,
        "health_factor_after": after.health_factor,
        "health_factor_accrued_after": after.health_factor_accrued,
    }
    row = {
        "chain_id": book.chain_id,
        "deployment": book.name,
        "protocol": book.adapter.protocol,
        "position_group": outcome.position.key.group,
        "account": outcome.position.key.account,
        "wallet": outcome.wallet,
        "status_before": outcome.status_before,
        "status_after": outcome.status_after,
        "debt_usd": outcome.debt_usd,
        "collateral_usd": outcome.collateral_usd,
        "blocked_by": ", ".join(after.blocked_by) or None,
        "block_number": book.market.block.number,
        "block_time": book.time,
    }
    for name, factor in factors.items():
        row[f"{name}_raw"] = None if factor is None else str(factor)
        row[name] = None if factor is None else factor / WAD
    return {name: row[name] for name in OUTCOME_COLUMNS}


def deployment_rows(simulation: Simulation) -> list[dict[str, Any]]:
    """One row a deployment: what is liquidatable before and after, and what is new."""
    rows = []
    for book, before, after in zip(simulation.books, simulation.before, simulation.after, strict=True):
        new = [o for o in simulation.outcomes if o.book is book and o.becomes_liquidatable]
        rows.append(
            {
                "chain_id": book.chain_id,
                "deployment": book.name,
                "protocol": book.adapter.protocol,
                "positions": after.positions,
                "liquidatable_before": before.liquidatable,
                "liquidatable_after": after.liquidatable,
                "new": len(new),
                "new_wallets": len({o.wallet for o in new}),
                "new_debt_usd": sum((o.debt_usd or 0.0 for o in new), 0.0),
                "liquidatable_debt_usd": after.debt_usd,
                "bad_debt_usd": after.bad_debt_usd,
                "unpriceable": after.unpriceable,
                "block_number": book.market.block.number,
                "block_time": book.time,
            }
        )
    return rows


ASSET_COLUMNS = "chain_id deployment side symbol asset positions amount value_usd block_number block_time".split()


def asset_rows(simulation: Simulation) -> list[dict[str, Any]]:
    """What the positions that become liquidatable owe, and what backs them, by deployment and asset; USD after."""
    sums: dict[tuple[int, str, str, str, str], dict[str, Any]] = {}
    for outcome in simulation.outcomes:
        if not outcome.becomes_liquidatable:
            continue
        book, market = outcome.book, outcome.after_market
        for balance in book.adapter.balances(market, outcome.position):
            if balance.side == "supply" and not balance.is_collateral:
                continue
            key = (book.chain_id, book.name, balance.side, balance.symbol, balance.asset)
            row = sums.setdefault(
                key,
                {
                    "chain_id": book.chain_id,
                    "deployment": book.name,
                    "side": "collateral" if balance.side == "supply" else "debt",
                    "symbol": balance.symbol,
                    "asset": balance.asset,
                    "positions": 0,
                    "amount": 0.0,
                    "value_usd": 0.0,
                    "block_number": book.market.block.number,
                    "block_time": book.time,
                },
            )
            value = usd(market, balance.value)
            row["positions"] += 1
            row["amount"] += balance.amount / 10**balance.decimals
            row["value_usd"] = None if value is None or row["value_usd"] is None else row["value_usd"] + value
    return sorted(sums.values(), key=lambda row: (row["side"] != "debt", -(row["value_usd"] or 0.0), row["symbol"]))


# the cascade ------------------------------------------------------------------------------------------------------------


def sweep(
    books: Sequence[Book],
    scenario: Scenario,
    swept: Sweep,
    names: Names,
    *,
    at_risk_below: float = AT_RISK_BELOW,
    progress: Progress | None = None,
) -> Iterator[tuple[float, list[Totals]]]:
    """(change in per cent, totals by book) for each step of the sweep, on top of the scenario's own changes."""
    progress = progress or NoProgress()
    progress.start("sweeping", len(swept.shares) * sum(len(book.positions) for book in books), "positions")
    for share in swept.shares:
        changed = replace(scenario, shocks=(*scenario.shocks, Change(swept.name, 1 + share)))
        found = []
        for book in books:
            market, evaluate, totals = (
                changed.applied(book.adapter, book.market, names),
                book.adapter.evaluate,
                Totals(),
            )
            for start in range(0, len(book.positions), CHUNK):
                part = book.positions[start : start + CHUNK]
                for position in part:
                    health = evaluate(market, position)
                    name = status_of(market, health, at_risk_below, accrued=bool(scenario.seconds))
                    wallet = health.wallet or health.owner or position.key.account
                    totals.add(name, wallet, usd(market, health.debt_value), usd(market, health.collateral_value))
                progress.advance("sweeping", len(part))
            found.append(totals)
        yield float(share * 100), found
    progress.done("sweeping")


def sweep_rows(books: Sequence[Book], steps: Iterable[tuple[float, list[Totals]]]) -> list[dict[str, Any]]:
    """One row a step: wallets, positions, debt and collateral that are liquidatable there, debt also by protocol."""
    protocols = sorted({book.adapter.protocol for book in books})
    blocks = blocks_of(books)
    rows = []
    for percent, totals in steps:
        by_protocol = dict.fromkeys(protocols, 0.0)
        for book, one in zip(books, totals, strict=True):
            by_protocol[book.adapter.protocol] += one.debt_usd
        rows.append(
            {
                "change_percent": percent,
                "wallets": len(set().union(*(one.wallets for one in totals))),
                "positions": sum(one.liquidatable for one in totals),
                "debt_usd": sum(one.debt_usd for one in totals),
                "collateral_usd": sum(one.collateral_usd for one in totals),
                "bad_debt_usd": sum(one.bad_debt_usd for one in totals),
                "unpriceable": sum(one.unpriceable for one in totals),
                **{f"{name.replace('-', '_')}_debt_usd": debt for name, debt in by_protocol.items()},
                "block_number": blocks[0],
                "block_time": blocks[1],
            }
        )
    return rows


def blocks_of(books: Sequence[Book]) -> tuple[int | str, str]:
    """The block that all books are at and its time; several are listed."""
    numbers = dict.fromkeys(book.market.block.number for book in books)
    times = dict.fromkeys(book.time for book in books)
    return next(iter(numbers)) if len(numbers) == 1 else " ".join(map(str, numbers)), " ".join(times)


def remarks(books: Sequence[Book], scenario: Scenario, names: Names) -> list[str]:
    """What a reader of the result must know about it."""
    found = []
    for book in books:
        if not book.market.exact:
            found.append(f"{book.name} runs code of an unknown formula: nothing is computed for it")
        if book.newer:
            found.append(f"{book.name}: {book.newer:,} positions are newer than its last snapshot; run `indexer sync`")
        quoted = book.adapter.quotes(book.market).prices
        hidden = quoted.keys() - {row.group or row.asset for row in book.market.assets}
        fixed = hidden - names.resolved(scenario.shocks, book.market, hidden).keys() if scenario.shocks else set()
        found += [
            f"{book.name} prices an e-mode by {key}, which stays as it is: shock that address too"
            for key in sorted(fixed)
        ]
    return found
