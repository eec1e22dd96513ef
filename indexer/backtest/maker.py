"""A Maker book as it was, left alone or not: every vault at every decision time, its forecast and what came."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from indexer.backtest import leads, passage, vaults
from indexer.backtest.sample import RULES, Before, Sample
from indexer.backtest.scores import Bools, Ints, threshold
from indexer.backtest.series import HOUR, Series, records
from indexer.backtest.vaults import Book, Event, only
from indexer.errors import ConfigError
from indexer.forecast import model
from indexer.forecast.model import Floats

HORIZONS = (4, 24, 168)
DAY = 86_400
#: alarms are looked at this often, in hours
OFTEN = 4
#: a vault counts with more debt (DAI) and collateral (tokens) than this, while the price in force leaves it safe
DUST_DEBT, DUST_INK = 100.0, 0.05
NEAR = 1.01
#: a debt rebuilt within this share of what the log tells is the same
SAME_DEBT = 1e-3


class Rebuild(NamedTuple):
    """How well the events explain what the liquidations' logs tell: how many of how many."""

    barks_same: int
    barks: int
    bites_same: int
    bites: int
    negative: int


class Oracle(NamedTuple):
    """Shares of first liquidations with a health factor below 1.01 at the close so many full hours before."""

    first_liquidations: int
    below: dict[int, float]
    highest: float


class Run(NamedTuple):
    """Forecasts of one ilk on the finest grid of decision times, `every` hours: arrays (T, vaults), p (horizons, T, vaults)."""

    ilk: str
    series: Series
    book: Book
    first: int
    every: int
    known: Floats
    counted: Bools
    alive: Bools
    p: Floats
    rebuild: Rebuild
    oracle: Oracle
    before: "Older | None" = None


class Older(NamedTuple):
    """The book before the first forecast: health factors at known prices (T, vaults), and who counts."""

    times: Ints
    known: Floats
    counted: Bools

    def labelled(self, series: Series, every: int, horizon: int) -> Before:
        """Its observations of every so many hours."""
        rows, columns = np.nonzero(at_every(self.counted, self.times, int(self.times[0]), every))
        known = self.known[rows, columns]
        return Before(self.times[rows], known, falls(series, self.times, horizon)[rows] < -np.log(known))


def ilk_of(folder: Path) -> str:
    """The ilk whose vaults a folder has, such as ETH-B."""
    path = only(folder, "*_vault_creations.csv*")
    for line in records(path, ("ILK",)):
        return line["ILK"]
    raise ConfigError(f"{path} has no vault")


def decisions(happened: Sequence[Event], series: Series, since: int | None, until: int | None, step: int) -> Ints:
    """Every `step` hours from the first full month on, each with the longest horizon before the end of events and prices."""
    begun = datetime.fromtimestamp(happened[0].at, UTC)
    month = datetime(begun.year + begun.month // 12, begun.month % 12 + 1, 1, tzinfo=UTC)
    least = max(int(month.timestamp()), series.first + model.LEAST * HOUR)
    begin = -(-max(least, since or 0) // DAY) * DAY
    end = min(-(-max(event.at for event in happened) // DAY) * DAY, series.last + HOUR) - HORIZONS[-1] * HOUR
    return np.arange(begin, min(end, until or end), step * HOUR, dtype=np.int64)


def prices_of(folder: Path, prices: Mapping[str, Series]) -> Series:
    """The prices of the collateral. Raises `ConfigError` where there are none."""
    symbol = ilk_of(folder).partition("-")[0]
    if symbol not in prices:
        raise ConfigError(f"{folder} is of {ilk_of(folder)}, and there are no prices of it: add {symbol}USDT_1h.csv")
    return prices[symbol]


def run(
    folder: Path, series: Series, happened: Sequence[Event], times: Ints, every: int, seed: int, paths: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Run:  # fmt: skip
    """Rebuild the book of a folder from its events, and forecast each vault at each of `times`, `every` hours apart."""
    book = vaults.rebuilt(folder, happened, times)
    known = health(book, series, 0)
    alive = owing(book)
    return Run(
        ilk=ilk_of(folder),
        series=series,
        book=book,
        first=int(times[0]),
        every=every,
        known=known,
        counted=alive & (health(book, series, 1) >= 1),
        alive=alive,
        p=forecasts(series, times, -np.log(np.maximum(known, 1e-12)), seed, paths, advance),
        rebuild=rebuild(book),
        oracle=oracle(book, series),
        before=older(folder, series, happened, int(times[0]), every),
    )


def older(folder: Path, series: Series, happened: Sequence[Event], until: int, every: int) -> Older | None:
    """The decisions that data before `until` allow; their labels may end later."""
    times = decisions(happened, series, None, until, every)
    if not len(times):
        return None
    book = vaults.rebuilt(folder, happened, times)
    return Older(times, health(book, series, 0), owing(book) & (health(book, series, 1) >= 1))


def owing(book: Book) -> Bools:
    return np.asarray((book.debt > DUST_DEBT) & (book.ink > DUST_INK))


def health(book: Book, series: Series, hours_before: int) -> Floats:
    """Health factors (T, vaults) at the close so many hours before each time; infinite without debt."""
    rows = (book.times - series.first) // HOUR - hours_before
    limit = book.ink * np.exp(series.log[rows])[:, None] / book.ratios[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(book.debt > 0, limit / book.debt, np.inf)


def forecasts(
    series: Series, times: Ints, barriers: Floats, seed: int, paths: int, advance: Callable[[int], None]
) -> Floats:
    """The chance (horizons, T, vaults) that a price in force within each horizon lies below each log barrier (T, vaults).

    Maker's oracle: the close known at t is in force an hour later, so one simulation of the price serves all vaults.
    """
    past = model.filtered(series.log[:, None])
    p = np.empty((len(HORIZONS), *barriers.shape))
    for number, at in enumerate(times):
        start = model.state(past, series.row(int(at)))
        simulated = model.simulate(start, paths, HORIZONS[-1], model.generator(seed, int(at)))
        for k, minima in enumerate(model.minima(simulated[0], list(HORIZONS), delayed=True)):
            p[k, number] = model.chance(minima, barriers[number])
        advance(1)
    return p


def left_alone(found: Run, every: int) -> list[Sample]:
    """A sample a horizon: does the price in force make the vault unsafe, with collateral and debt as they are at t?"""
    rows, columns = np.nonzero(chosen(found, every))
    known, at = found.known[rows, columns], (found.book.times - found.series.first) // HOUR
    ewma, static = (estimate(found.series.log)[at][rows] for estimate in (passage.ewma, passage.static))
    barriers = -np.log(known)
    samples = []
    for k, horizon in enumerate(HORIZONS):
        steps = horizon - 1
        older = found.before
        samples.append(
            Sample(
                name=f"{found.ilk} left alone", label="unsafe", every=every, horizon=horizon, first=found.first,
                times=found.book.times[rows], health=known, p=found.p[k, rows, columns],
                y=falls(found.series, found.book.times, horizon)[rows] < barriers,
                baselines={
                    "static": passage.passed(barriers, static, steps),
                    "EWMA": passage.passed(barriers, ewma, steps),
                    "EWMA hourly": passage.passed(barriers, ewma, steps, watched_hourly=True),
                },
                before=None if older is None else older.labelled(found.series, every, horizon),
            )
        )  # fmt: skip
    return samples


def falls(series: Series, times: Ints, horizon: int) -> Floats:
    """The lowest log price that comes into force within `horizon` hours of each time, relative to the one known then."""
    rows = (times - series.first) // HOUR
    return np.array([series.log[row : row + horizon].min() - series.log[row] for row in rows])


def liquidated(found: Run, every: int) -> list[Sample]:
    """A sample a horizon from a day on: was the vault liquidated, its owner acting as owners do?"""
    rows, columns = np.nonzero(chosen(found, every))
    column = {vault: i for i, vault in enumerate(found.book.vaults)}
    times = found.book.times
    samples = []
    for k, horizon in enumerate(HORIZONS):
        came = np.zeros(found.counted.shape, bool)
        for one in found.book.liquidations:
            came[(times < one.at) & (one.at <= times + horizon * HOUR), column[one.vault]] = True
        if horizon >= 24:
            samples.append(
                Sample(
                    name=f"{found.ilk} liquidated", label="liquidated", every=every, horizon=horizon, first=found.first,
                    times=times[rows], health=found.known[rows, columns], p=found.p[k, rows, columns],
                    y=came[rows, columns], baselines={}, calibrated=True,
                )
            )  # fmt: skip
    return samples


def chosen(found: Run, every: int) -> Bools:
    """The observations of every so many hours since the first decision."""
    return at_every(found.counted, found.book.times, found.first, every)


def at_every(counted: Bools, times: Ints, first: int, every: int) -> Bools:
    return np.asarray(counted & ((times - first) % (every * HOUR) == 0)[:, None])


def lead_times(found: Run) -> list[leads.Lead]:
    """Leads of the model's 24 h forecast and of the rules every 4 hours, each at the load of the rule.

    A vault that may be liquidated already keeps its alarm, though it counts as no observation any more.
    """
    rows = (found.book.times - found.first) % (OFTEN * HOUR) == 0
    times, known, counted = found.book.times[rows], found.known[rows], found.counted[rows]
    p = found.p[HORIZONS.index(24)][rows]
    happened = leads.episodes(found.book.liquidations, found.first, int(times[-1]) + HORIZONS[-1] * HOUR)
    columns = {vault: i for i, vault in enumerate(found.book.vaults)}
    table = []
    for rule in RULES if happened and counted.any() else ():
        load = float((known[counted] < rule).mean())
        level = threshold(p[counted], load)
        own, ruled = (
            leads.hours(alarm & found.alive[rows], times, columns, happened) for alarm in (p >= level, known < rule)
        )
        table += leads.compared(rule, load, f"HF < {rule:g}", own, ruled, happened, found.first)
    return table


def rebuild(book: Book) -> Rebuild:
    """Compare the rebuilt debt with the logs of each vault's first bark, and of first bites that took the whole debt."""
    barks, bites = dict[int, vaults.Liquidation](), dict[int, vaults.Liquidation]()
    for one in book.liquidations:
        (barks if one.by_dog else bites).setdefault(one.vault, one)
    whole = [one for one in bites.values() if book.lot is None or abs(one.debt - book.lot) > 1]

    def same(found: Sequence[vaults.Liquidation]) -> int:
        return sum(abs(one.rebuilt_debt / one.debt - 1) <= SAME_DEBT for one in found)

    return Rebuild(same([*barks.values()]), len(barks), same(whole), len(whole), len(book.negative))


def oracle(book: Book, series: Series) -> Oracle:
    """Health factors just before each episode's first liquidation, at the close of 0, 1 and 2 full hours before it."""
    firsts = leads.episodes(book.liquidations, int(book.times[0]), int(book.times[-1]) + HORIZONS[-1] * HOUR)
    factors = {
        back: np.array([one.health(float(np.exp(series.log[series.row(one.at) - back]))) for one in firsts])
        for back in (0, 1, 2)
    }
    below = {back: float((found < NEAR).mean()) if len(found) else float("nan") for back, found in factors.items()}
    return Oracle(len(firsts), below, float(factors[1].max()) if len(firsts) else float("nan"))
