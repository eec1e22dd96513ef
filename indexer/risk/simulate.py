"""The stored book under a scenario: who could be liquidated then, for how much, by protocol and by asset.

Everything is computed offline, from the markets and positions of the last snapshot, by the adapters' own exact
`evaluate`: a row here is what a sync would write if exactly that had happened.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from indexer.model import WAD, Health, Market, Position, Status
from indexer.progress import NoProgress, Progress
from indexer.risk.evaluate import status
from indexer.risk.liquidation import SECONDS_PER_BLOCK
from indexer.risk.reach import endangered, reach
from indexer.risk.scenario import Change, Names, Scenario, Sweep
from indexer.store.books import Book
from indexer.store.books import seconds_per_block as stored_pace
from indexer.units import AT_RISK_BELOW, least_at

T = TypeVar("T")

#: positions in memory at a time
CHUNK = 2_000
#: what a protocol must tell to be simulated
TOLD = "what other prices, thresholds or time would do to it"


def seconds_per_block(conn: sqlite3.Connection, chain_id: int) -> float:
    """Seconds per block according to the file's own blocks; 12 s until they are far enough apart."""
    return stored_pace(conn, chain_id) or SECONDS_PER_BLOCK


# one scenario ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """One position before and after; the statuses are those of `positions`."""

    book: Book
    after_market: Market
    position: Position
    before: Health
    after: Health
    status_before: Status
    status_after: Status

    @property
    def becomes_liquidatable(self) -> bool:
        return self.status_after == Status.LIQUIDATABLE != self.status_before

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
    """Sums over positions and over the liquidatable ones among them; USD at the scenario's prices.

    `bad_debt_usd` is the debt of liquidatable positions beyond their collateral. `unvalued` counts positions without a USD
    value, `unpriceable` those that a missing price leaves unknown.
    """

    positions: int = 0
    liquidatable: int = 0
    wallets: set[str] = field(default_factory=set)
    debt_usd: float = 0.0
    collateral_usd: float = 0.0
    bad_debt_usd: float = 0.0
    unvalued: int = 0
    unpriceable: int = 0

    def add(self, name: Status, wallet: str, debt: float | None, collateral: float | None) -> None:
        self.positions += 1
        self.unpriceable += name == Status.UNPRICEABLE
        if name != Status.LIQUIDATABLE:
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
    """One scenario's result: `before` and `after` by book, and every outcome kept."""

    books: list[Book]
    before: list[Totals]
    after: list[Totals]
    outcomes: list[Outcome]


def status_of(market: Market, health: Health, at_risk_below: float, *, accrued: bool) -> Status:
    """The status as in `positions`; if `accrued`, with the interest that a liquidation would store first."""
    name = status(health, verified=market.exact, at_risk_below=at_risk_below)
    factor = health.health_factor_accrued
    if accrued and factor is not None and name in (Status.HEALTHY, Status.AT_RISK):
        if factor < WAD:
            return Status.LIQUIDATABLE
        if factor < least_at(at_risk_below):
            return Status.AT_RISK
    return name


def parts(positions: Iterable[T]) -> Iterator[list[T]]:
    """The positions in chunks of CHUNK, so that not all of them are in memory at once."""
    found = iter(positions)
    while part := list(islice(found, CHUNK)):
        yield part


def simulate(
    books: Sequence[Book],
    scenario: Scenario,
    names: Names,
    *,
    at_risk_below: float = AT_RISK_BELOW,
    every: bool = False,
    progress: Progress | None = None,
) -> Simulation:
    """Every position before and after that is not unverified; outcomes of who becomes liquidatable, or of `every` one.

    With time in the scenario, interest counts as stored, as liquidations do.
    """
    progress = progress or NoProgress()
    markets = [scenario.applied(book.adapter, book.market, names) for book in books]
    books = [endangered(book, [market]) for book, market in zip(books, markets, strict=True)]
    counted = [book.positions.counted() for book in books]
    progress.start("simulating", sum(expected for _, expected in counted), "positions")
    result, told = Simulation(list(books), [], [], []), Told(at_risk_below, bool(scenario.seconds), every)
    for book, market, (healthy, _) in zip(books, markets, counted, strict=True):
        before, after, seen = Totals(), Totals(), 0
        for part in parts(book.positions.with_factors()):
            for (factor, _), (name, outcome) in zip(part, _evaluated(book, market, part, told), strict=True):
                seen += factor > 0
                if outcome is None:
                    before.add(Status.HEALTHY, "", None, None)
                    after.add(name, "", None, None)
                    continue
                old = outcome.before
                values = (usd(book.market, value) for value in (old.debt_value, old.collateral_value))
                before.add(outcome.status_before, outcome.wallet, *values)
                after.add(name, outcome.wallet, outcome.debt_usd, outcome.collateral_usd)
                if every or outcome.becomes_liquidatable:
                    result.outcomes.append(outcome)
            progress.advance("simulating", len(part))
        for totals in (before, after):
            totals.positions += healthy - seen
        result.before.append(before)
        result.after.append(after)
    progress.done("simulating")
    result.outcomes.sort(key=lambda o: (-(o.debt_usd or 0.0), o.book.chain_id, o.book.name, o.position.key))
    return result


class Told(NamedTuple):
    """How statuses are told, `accrued` with the interest that a liquidation would store first; and of whom: of `every` one?"""

    at_risk_below: float
    accrued: bool
    every: bool


def _evaluated(
    book: Book, market: Market, part: Sequence[tuple[float, Position]], told: Told
) -> list[tuple[Status, Outcome | None]]:
    """The status in this market of positions with their factors, and the outcome.

    None of who is healthy by its factor and not liquidatable in this market, as nothing more is told of them.
    """
    evaluate = book.adapter.evaluate
    # An adapter may cache the last market it was asked about: evaluate all positions in one, then in the other.
    healths = [evaluate(market, position) for _, position in part]
    names = [status_of(market, health, told.at_risk_below, accrued=told.accrued) for health in healths]
    found: list[tuple[Status, Outcome | None]] = []
    for (factor, position), new, name in zip(part, healths, names, strict=True):
        if factor and name is not Status.LIQUIDATABLE and not told.every:
            found.append((name, None))
            continue
        old = evaluate(book.market, position)
        before = status_of(book.market, old, told.at_risk_below, accrued=False)
        found.append((name, Outcome(book, market, position, old, new, before, name)))
    return found


OUTCOME_COLUMNS = (
    "chain_id deployment protocol position_group account wallet status_before status_after health_factor_before_raw "
    "health_factor_before health_factor_after_raw health_factor_after health_factor_accrued_after_raw "
    "health_factor_accrued_after debt_usd collateral_usd blocked_by block_number block_time"
).split()


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """One outcome as a row; USD at the scenario's prices, `block_*` of the snapshot it starts from."""
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
        "status_before": outcome.status_before.value,
        "status_after": outcome.status_after.value,
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


def together(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Positions of one person as one row: sums, None where a part is unknown, and the lowest health factors."""
    debts, collaterals = [o.debt_usd for o in outcomes], [o.collateral_usd for o in outcomes]
    row: dict[str, Any] = {
        "positions": len(outcomes),
        "liquidatable_before": sum(o.status_before == Status.LIQUIDATABLE for o in outcomes),
        "liquidatable_after": sum(o.status_after == Status.LIQUIDATABLE for o in outcomes),
        "debt_usd": None if None in debts else sum(filter(None, debts)),
        "collateral_usd": None if None in collaterals else sum(filter(None, collaterals)),
    }
    for name, healths in (("before", [o.before for o in outcomes]), ("after", [o.after for o in outcomes])):
        worst = min((h.health_factor for h in healths if h.health_factor is not None), default=None)
        row[f"health_factor_{name}_raw"] = None if worst is None else str(worst)
        row[f"health_factor_{name}"] = None if worst is None else worst / WAD
    return row


def deployment_rows(simulation: Simulation) -> list[dict[str, Any]]:
    """One row per deployment: what is liquidatable before and after, and what is new."""
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
    """Debts and collateral of the positions that become liquidatable, by deployment and asset; USD at the new prices."""
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
    steps = [replace(scenario, shocks=(*scenario.shocks, Change(swept.name, 1 + share))) for share in swept.shares]
    markets = [[step.applied(book.adapter, book.market, names) for step in steps] for book in books]
    books = [endangered(book, later) for book, later in zip(books, markets, strict=True)]
    counted = [book.positions.counted() for book in books]
    progress.start("sweeping", sum(expected for _, expected in counted), "positions")
    found = [[Totals() for _ in counted] for _ in steps]
    for n, (book, later) in enumerate(zip(books, markets, strict=True)):
        evaluate, bounds = book.adapter.evaluate, [reach(book, [market]) for market in later]
        seen = 0
        for part in parts(book.positions.with_factors()):
            seen += sum(factor > 0 for factor, _ in part)
            for market, bound, totals in zip(later, bounds, (step[n] for step in found), strict=True):
                near = [position for factor, position in part if factor < bound]
                totals.positions += len(part) - len(near)
                for position in near:
                    health = evaluate(market, position)
                    name = status_of(market, health, at_risk_below, accrued=bool(scenario.seconds))
                    wallet = health.wallet or health.owner or position.key.account
                    totals.add(name, wallet, usd(market, health.debt_value), usd(market, health.collateral_value))
            progress.advance("sweeping", len(part))
        for step in found:
            step[n].positions += counted[n][0] - seen
    for share, totals_of in zip(swept.shares, found, strict=True):
        yield float(share * 100), totals_of
    progress.done("sweeping")


def sweep_rows(books: Sequence[Book], steps: Iterable[tuple[float, list[Totals]]]) -> list[dict[str, Any]]:
    """One row per step: liquidatable wallets, positions, debt and collateral, with debt also by protocol."""
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
    """The block and time of all books, or of each where they differ."""
    numbers = dict.fromkeys(book.market.block.number for book in books)
    times = dict.fromkeys(book.time for book in books)
    return next(iter(numbers)) if len(numbers) == 1 else " ".join(map(str, numbers)), " ".join(times)


def remarks(books: Sequence[Book], scenario: Scenario, names: Names) -> list[str]:
    """What a reader must know about the result."""
    found = []
    for book in books:
        if not book.market.exact:
            found.append(f"{book.name} runs code with an unknown formula: nothing is computed for it")
        elif unverified := book.positions.unverified():
            found.append(
                f"{book.name}: nothing is computed for {unverified:,} unverified positions; their notes say why"
            )
        newer = book.positions.newer()
        if newer:
            found.append(f"{book.name}: {newer:,} positions are newer than its last snapshot; run `indexer sync`")
        quoted = book.adapter.quotes(book.market).prices
        hidden = quoted.keys() - {row.group or row.asset for row in book.market.assets}
        fixed = hidden - names.resolved(scenario.shocks, book.market, hidden).keys() if scenario.shocks else set()
        found += [
            f"{book.name} prices an e-mode by {key}, which stays as it is: shock that address too"
            for key in sorted(fixed)
        ]
    return found
