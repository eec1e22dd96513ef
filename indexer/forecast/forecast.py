"""The forecast of some books: each position on the same paths, and what becomes of it when nobody acts."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from indexer.adapter import AnyLiquidation
from indexer.forecast import model, rows
from indexer.forecast.calibration import liquidated
from indexer.forecast.exposures import Exposures, Later, exposures, relevant
from indexer.forecast.factors import (
    SHORT,
    Factors,
    Feed,
    Mover,
    Priced,
    gathered,
    grouped,
    paths_of,
    priced,
)
from indexer.forecast.pending import Coming, coming
from indexer.forecast.screen import HOUR, Paths, Question, failures
from indexer.forecast.sums import BookSums, kept_of, shares_of, uncovered
from indexer.model import Market, Position, PositionKey, Status
from indexer.progress import NoProgress, Progress
from indexer.queries.prices import Series
from indexer.risk.bounds import Floats
from indexer.risk.liquidation import known
from indexer.risk.scenario import canonical
from indexer.risk.simulate import CHUNK, parts
from indexer.store.books import Book
from indexer.store.shards import at

LIQUIDATABLE = "liquidatable now"
UNVERIFIED = "unverified: its formula is not known to be the contract's"
UNPRICEABLE = "a price is missing"
#: paths of all, and of those whose chance more paths make sharper
PATHS, REFINED = 2_000, 10_000
OPEN = (0.001, 0.5)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked: horizons in seconds, ascending full hours; how many paths of which seed; everything by `evaluate`?

    `refined` is how many paths decide for those whose chance is open and who are asked for, watched or at risk.
    """

    horizons: tuple[int, ...]
    paths: int = PATHS
    seed: int = 0
    exact: bool = False
    refined: int = 0

    @property
    def steps(self) -> int:
        return self.horizons[-1] // HOUR

    @property
    def ends(self) -> list[int]:
        return [seconds // HOUR for seconds in self.horizons]


@dataclass(slots=True)
class Case:
    """One position: why it has no forecast, or its hits by horizon."""

    key: PositionKey
    status: str
    wallet: str
    note: str | None = None
    hits: list[int] | None = None
    coming: Coming | None = None
    exposures: str | None = None
    paths: int = 0
    position: Position | None = None  # of who may be refined


@dataclass(slots=True)
class Desk:
    """One deployment while it is forecast."""

    book: Book
    later: Later
    standings: Mapping[tuple[str, str], rows.Standing]
    positions: Iterable[Position]
    symbols: dict[str, str]
    priced: Priced
    sums: BookSums
    near: frozenset[str] | None  # wallets that may be refined beside those at risk, None for all
    cases: list[Case] = field(default_factory=list)

    @property
    def where(self) -> tuple[int, str]:
        return self.book.chain_id, self.book.name


@dataclass(frozen=True, slots=True)
class Forecast:
    """What was found: the positions and sums of each deployment, and how far the prices reach."""

    plan: Plan
    desks: list[Desk]
    until: int

    def rows(
        self, watched: frozenset[str], chances: "Mapping[tuple[str, int], Sequence[tuple[float, float]]]"
    ) -> Iterator[rows.ForecastRow]:
        """The rows of `forecasts`; `chances` are the knots of `calibrations` by protocol and horizon."""
        for desk in self.desks:
            for case in desk.cases:
                for number, seconds in enumerate(self.plan.horizons):
                    knots = chances.get((desk.book.adapter.protocol, seconds), ())
                    yield row_of(self, desk, case, number, watched, knots)


def forecast(
    conn: sqlite3.Connection,
    books: Sequence[Book],
    plan: Plan,
    groups: Mapping[str, Sequence[str]],
    paces: Mapping[int, float],
    *,
    positions: Mapping[str, Sequence[Position]] | None = None,
    watched: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> Forecast:
    """Every position with debt of these books; `paces` are the seconds per block of each chain.

    With `positions`, by deployment, those instead of the stored ones; they, or the wallets that the books are of, or those
    that are `watched` or at risk are refined. Reads the file, and writes nothing.
    """
    progress = progress or NoProgress()
    until: dict[int, int] = {}
    for book in books:
        until[book.chain_id] = max(until.get(book.chain_id, 0), book.market.block.timestamp)
    series: dict[Feed, Series] = {}
    desks = [
        _desk(
            conn,
            book,
            plan,
            paces[book.chain_id],
            until[book.chain_id],
            series,
            (positions or {}).get(book.name),
            watched,
        )
        for book in books
    ]
    movers = sorted(
        {mover for desk in desks for key, mover in desk.priced.movers.items() if key not in desk.priced.reasons},
        key=str,
    )
    factors = gathered(series, movers, until, _waiting(desks), grouped(_symbols(desks), groups))
    begin, missed = 0, factors.missed(movers)
    for moves in factors.batches(plan.paths, plan.steps, plan.seed, movers):
        for desk in desks:
            _batch(desk, plan, factors, paths_of(moves, missed, movers, desk.priced.movers), begin, progress)
        begin += moves.shape[1]
        del moves  # before the next ones are made
    _refine(desks, plan, factors, movers, missed)
    return Forecast(plan, desks, factors.until)


def _desk(
    conn: sqlite3.Connection,
    book: Book,
    plan: Plan,
    pace: float,
    until: int,
    series: dict[Feed, Series],
    given: Sequence[Position] | None,
    watched: frozenset[str],
) -> Desk:
    """A deployment with what is known of its prices; of few positions only the prices that they need."""
    adapter: AnyLiquidation = book.adapter  # type: ignore[assignment]
    later = Later(adapter, book.market, plan.horizons[-1], pace)
    where, conn = (book.chain_id, book.name), at(conn, book.chain_id)
    few = list(book.positions) if book.positions.wallets else given
    wanted = later.prices.keys() if few is None else {key for one in few for key in relevant(later, one)}
    symbols = _named(book.market)
    found = priced(
        conn,
        where,
        {key: symbols.get(key, key) for key in later.prices if key in wanted and later.prices[key]},
        until,
        series,
    )
    standings = rows.standings(conn, where, None if few is None else [one.key for one in few])
    sums = BookSums.empty(len(plan.horizons), plan.paths)
    near = watched if few is None else None
    return Desk(book, later, standings, book.positions if few is None else few, symbols, found, sums, near)


def _named(market: Market) -> dict[str, str]:
    """The symbol of each price key that has one."""
    return {row.group or row.asset: row.symbol for row in market.assets}


def _symbols(desks: Sequence[Desk]) -> dict[Feed, set[str]]:
    """What each feed is a price of."""
    found: dict[Feed, set[str]] = {}
    for desk in desks:
        for key, mover in desk.priced.movers.items():
            for feed, exponent in mover.feeds:
                if exponent > 0:
                    found.setdefault(feed, set()).add(canonical(desk.symbols.get(key, key)))
    return found


def _waiting(desks: Sequence[Desk]) -> dict[Feed, Any]:
    """The OSM prices that come into force within the hour."""
    return {
        (desk.book.chain_id, answer.feed): answer
        for desk in desks
        for answers in desk.priced.pending.values()
        for answer in answers
        if answer.kind == "osm"
    }


def _batch(desk: Desk, plan: Plan, factors: Factors, paths: Paths, begin: int, progress: Progress) -> None:
    """Adds some paths to every case; the first batch makes the cases."""
    number = 0
    expected = desk.book.positions.counted()[1] if isinstance(desk.positions, type(desk.book.positions)) else 0
    progress.start(desk.book.name, expected, "positions")
    for part in parts(desk.positions):
        if not begin:
            desk.cases += [_case(desk, plan, position, factors) for position in part]
        cases = desk.cases[number : number + len(part)]
        number += len(part)
        chosen = [i for i, case in enumerate(cases) if case.hits is not None]
        _count(desk, plan, paths, begin, [part[i] for i in chosen], [cases[i] for i in chosen])
        progress.advance(desk.book.name, len(part))
    if not begin:
        desk.cases = [case for case in desk.cases if case.status != Status.NO_DEBT]
        desk.sums.positions = len(desk.cases)
        desk.sums.forecast = sum(case.hits is not None for case in desk.cases)
    progress.done(desk.book.name)


def _refine(desks: Sequence[Desk], plan: Plan, factors: Factors, movers: Sequence[Mover], missed: Floats) -> None:
    """Adds paths to who may be refined and whose chance is open; the sums of the book stay over the paths of all."""
    chosen = [[case for case in desk.cases if _open(case, plan)] for desk in desks]
    if plan.refined <= plan.paths or not any(chosen):
        return
    for moves in factors.batches(plan.refined - plan.paths, plan.steps, plan.seed, movers, stream=1):
        for desk, cases in zip(desks, chosen, strict=True):
            paths = paths_of(moves, missed, movers, desk.priced.movers)
            for begin in range(0, len(cases), CHUNK):
                part = cases[begin : begin + CHUNK]
                _count(desk, plan, paths, None, [case.position for case in part if case.position is not None], part)
                for case in part:
                    case.paths += paths.count
            del paths
        del moves


def _open(case: Case, plan: Plan) -> bool:
    """Whether more paths can tell more of a position: some chance between OPEN, of one that may be refined."""
    least, most = (share * plan.paths for share in OPEN)
    return case.position is not None and any(least <= hits <= most for hits in case.hits or ())


def _case(desk: Desk, plan: Plan, position: Position, factors: Factors) -> Case:
    """A position before any path: `hits` is None where there is no forecast, and `note` says why."""
    standing = desk.standings.get(position.key, rows.Standing(position.key.account, ""))
    case = Case(position.key, standing.status, standing.wallet, paths=plan.paths)
    near = desk.near is None or not desk.near.isdisjoint((standing.wallet, position.key.account))
    if near or standing.status == Status.AT_RISK:
        case.position = position
    later = desk.later
    if standing.status == Status.UNVERIFIED or not later.market.exact:
        case.note = UNVERIFIED
        return case
    health = later.adapter.evaluate(later.ends[0], position)
    if health.liquidatable:
        case.note = LIQUIDATABLE
    elif not health.has_debt or health.debt_value == 0:
        case.status = Status.NO_DEBT
    elif not known(later.market, health):
        case.note = UNPRICEABLE
    else:
        keys = relevant(later, position)
        case.note = next((desk.priced.reasons[key] for key in keys if key in desk.priced.reasons), None)
        case.coming = coming(later, position, keys, desk.priced)
        if case.note is None:
            feeds = {feed for key in keys for feed, _ in desk.priced.movers[key].feeds}
            case.note = f"{SHORT}: a young price borrows the past of its group" if feeds & factors.short else None
            case.hits = []
    return case


def _count(
    desk: Desk, plan: Plan, paths: Paths, begin: int | None, positions: Sequence[Position], cases: Sequence[Case]
) -> None:
    """The hits of some positions on some paths, and what they add to the sums, whose first path is `begin`; None: nothing."""
    if not positions:
        return
    keys = sorted({key for position in positions for key in relevant(desk.later, position)})
    found = exposures(desk.later, positions, keys)
    usd = desk.book.market.usd
    kept = kept_of(desk.book.market, keys)
    for row, case in enumerate(cases):
        if not case.hits:
            case.hits = [0] * len(plan.horizons)
            case.exposures = terms(found, row, desk.priced)
    for verdict in failures(Question(desk.later, positions, found, paths, plan.ends), exact=plan.exact):
        case = cases[verdict.row]
        assert case.hits is not None
        for horizon in range(len(plan.horizons)):
            case.hits[horizon] += int((verdict.window <= horizon).sum())
        if usd is not None and begin is not None:
            debt = float(found.debt[0, verdict.row].sum()) * usd[0] / usd[1]
            shares = shares_of(found, verdict.row, desk.symbols)
            bad = uncovered(found, verdict.row, paths, verdict, plan.ends, kept, usd)
            desk.sums.add(verdict, begin, debt, case.wallet, shares, bad)


def terms(found: Exposures, row: int, of: Priced) -> str:
    """A position's exposures as JSON, at present prices and in the value unit, so that later prices tell what became of it.

    `terms`: feeds with exponents, weight in the limit, weight in the debt, and the highest price relative to now or null;
    `constant`: what no price moves, of limit and debt.
    """
    merged: dict[Mover, list[float]] = {}
    for place, key in enumerate(found.keys):
        limit, debt = float(found.limit[0, row, place]), float(found.debt[0, row, place])
        if limit or debt:
            sums = merged.setdefault(of.movers[key], [0.0, 0.0])
            sums[0], sums[1] = sums[0] + limit, sums[1] + debt
    told = [
        [{feed: exponent for (_, feed), exponent in mover.feeds}, limit, debt, mover.cap]
        for mover, (limit, debt) in merged.items()
    ]
    constant = [float(found.limit[0, row, -1]), float(found.debt[0, row, -1])]
    return json.dumps({"terms": told, "constant": constant}, separators=(",", ":"))


def row_of(
    found: Forecast, desk: Desk, case: Case, number: int, watched: frozenset[str], knots: Sequence[tuple[float, float]]
) -> rows.ForecastRow:
    """One row of `forecasts`: three statements, none of which is made of another but `p_liquidated` of `p_unsafe`."""
    plan, block = found.plan, desk.book.market.block
    hits = None if case.hits is None else case.hits[number]
    chance, bound = rows.probability(hits, case.paths)
    coming_ = case.coming
    if coming_ is not None and coming_.at is not None and coming_.at > block.timestamp + plan.horizons[number]:
        coming_ = None
    likely = hits is not None and hits >= rows.LIKELY * case.paths
    held = case.wallet in watched or case.key.account in watched
    return rows.ForecastRow(
        *desk.where,
        *case.key,
        plan.horizons[number],
        hits,
        chance,
        bound,
        liquidated(chance, knots),
        None if coming_ is None or coming_.price_raw is None else str(coming_.price_raw),
        None if coming_ is None else coming_.at,
        None if coming_ is None else coming_.kind,
        case.exposures,
        model.WATCHED_NAME,
        plan.seed,
        case.paths,
        found.until,
        block.number,
        block.timestamp,
        case.note,
        int(likely or held or case.status == Status.AT_RISK),
    )
