"""What one run of the backtest found, and what of it is proven: a claim holds only if its whole interval does."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import gcd
from pathlib import Path
from typing import NamedTuple

from indexer.backtest import barriers, maker, mixed, recorded, vaults
from indexer.backtest.barriers import Barrier
from indexer.backtest.leads import Lead
from indexer.backtest.sample import CLIMATOLOGY, HOUR, Judged, Sample, judged
from indexer.backtest.scores import Bin, Value
from indexer.backtest.series import Series, files, load, load_all
from indexer.progress import Progress

#: bins with fewer observations are shown and not judged
ENOUGH = 300
#: share of first barks and bites that the rebuild must explain, and of liquidations that the oracle's hour must
REBUILT, EXPLAINED = 0.9, 0.97
#: falls' mean probability may be off their frequency by this
GAP = 0.035


class Verdict(StrEnum):
    """Whether the data show a claim: with the whole interval, not, or the opposite with the whole interval."""

    SHOWN = "shown"
    NOT_PROVEN = "not proven"
    CONTRADICTED = "contradicted"


class Finding(NamedTuple):
    """One claim: `sample` and `horizon` (hours) it is about, the value that decides, in words what that value is."""

    sample: str
    every: int | None
    horizon: int | None
    claim: str
    measure: str
    value: Value
    verdict: Verdict


class Settings(NamedTuple):
    """How a run was made; times are unix seconds, `step` hours."""

    since: int | None
    until: int | None
    step: int
    seed: int
    paths: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that one run measured, and why parts of it are missing."""

    source: str
    settings: Settings
    books: Sequence[maker.Run] = ()
    samples: Sequence[Judged] = ()
    leads: Sequence[tuple[str, Lead]] = ()
    barriers: Sequence[Barrier] = ()
    remarks: Sequence[str] = field(default_factory=list)


def of_files(
    folder: Path, settings: Settings, progress: Progress, where: str | None = None, *, insecure: bool = False
) -> Evidence:
    """Run on files: `prices/` always, and every `maker_*/` beside it. Raises `ConfigError` where the data are not usable.

    Each symbol's prices are a task, which `executors.results` runs at `where`. Vaults and invented positions are judged
    here: what they answer is a row for each position and decision, and moving those costs more than it saves.
    """
    prices = dict(load_all(folder / "prices"))
    books, samples, leads, remarks = [], list[Judged](), list[tuple[str, Lead]](), list[str]()
    for path in sorted(folder.glob("maker_*")):
        if not path.is_dir():
            continue
        found = maker_run(path, prices, settings, progress, remarks)
        if found is None:
            continue
        books.append(found)
        for every in sorted({settings.step, min(settings.step, maker.OFTEN)}, reverse=True):
            samples += [judged(one) for one in (*maker.left_alone(found, every), *maker.liquidated(found, every))]
        leads += [(found.ilk, one) for one in maker.lead_times(found)]
    if where is None:
        judged_prices = [of_prices(str(folder), symbol, settings, progress) for symbol in prices]
    else:
        from indexer.executors import results  # noqa: PLC0415 - the modules of processes are slow to import

        progress.start("prices", len(prices), "symbols")
        judged_prices = results(
            where, of_prices, [(str(folder.absolute()), one, settings) for one in prices], insecure=insecure
        )
        progress.done("prices")
    found_barriers = [one for part in judged_prices for one in part]
    remarks += [
        f"{symbol}: too few prices in that time, half a year before it and 7 days after it are needed"
        for symbol, part in zip(prices, judged_prices, strict=True)
        if not part
    ]
    samples += [judged(one) for one in mixed_samples(prices, settings, progress, remarks)]
    return Evidence(str(folder), settings, books, samples, leads, found_barriers, remarks)


def of_prices(folder: str, symbol: str, settings: Settings, progress: Progress | None = None) -> list[Barrier]:
    """What the prices of one symbol show; nothing where there are too few."""
    series, name = load(files(Path(folder) / "prices")[symbol]), f"prices of {symbol}"
    times = barriers.decisions(series, settings.since, settings.until, settings.step * HOUR)
    if not len(times):
        return []
    if progress is None:
        return [*barriers.judged(symbol, series, times, settings.seed, settings.paths)]
    progress.start(name, len(times), "decisions")
    found = barriers.judged(symbol, series, times, settings.seed, settings.paths, lambda _: progress.advance(name, 1))
    progress.done(name)
    return [*found]


def maker_run(
    path: Path, prices: Mapping[str, Series], settings: Settings, progress: Progress, remarks: list[str]
) -> maker.Run | None:
    """One Maker book on the finest grid that the run needs; None, with a remark, without a decision time."""
    finest = gcd(settings.step, maker.OFTEN)
    name, series, happened = path.name, maker.prices_of(path, prices), vaults.events(path)
    times = maker.decisions(happened, series, settings.since, settings.until, finest)
    if not len(times):
        remarks.append(f"{name}: nothing to decide in that time; 7 days of events and prices are needed after it")
        return None
    progress.start(name, len(times), "decisions")
    found = maker.run(
        path, series, happened, times, finest, settings.seed, settings.paths, lambda _: progress.advance(name, 1)
    )
    progress.done(name)
    return found


def mixed_samples(
    prices: Mapping[str, Series], settings: Settings, progress: Progress, remarks: list[str]
) -> Sequence[Sample]:
    """The invented positions, where at least two symbols move over the same time."""
    moving = mixed.moving(prices)
    if len(moving) < 2:
        remarks.append("invented positions need prices of two symbols that move")
        return []
    times = mixed.decisions(moving, settings.since, settings.until, settings.step * HOUR)
    if not len(times):
        remarks.append("invented positions: the symbols have no time in common that is long enough")
        return []
    progress.start("invented positions", len(times), "decisions")
    found = mixed.samples(
        moving, times, settings.step, settings.seed, settings.paths, lambda _: progress.advance("invented positions", 1)
    )
    progress.done("invented positions")
    return found


def of_database(conn: sqlite3.Connection, name: str, settings: Settings) -> Evidence:
    """Judge the database's own forecasts, each as it was made."""
    found, remarks = recorded.samples(conn, settings.since, settings.until)
    return Evidence(name, settings, samples=[judged(one) for one in found], remarks=remarks)


# what is proven -----------------------------------------------------------------------------------------------------


def lower(value: Value) -> Verdict:
    """Of a difference that should be negative."""
    if value.below_zero:
        return Verdict.SHOWN
    return Verdict.CONTRADICTED if value.above_zero else Verdict.NOT_PROVEN


def higher(value: Value) -> Verdict:
    """Of a difference that should be positive."""
    if value.above_zero:
        return Verdict.SHOWN
    return Verdict.CONTRADICTED if value.below_zero else Verdict.NOT_PROVEN


def findings(evidence: Evidence) -> list[Finding]:
    """Every claim that the run can judge, with its verdict."""
    found = [finding for book in evidence.books for finding in of_book(book)]
    for one in evidence.samples:
        found += [*of_scores(one), *of_bins(one)]
    for ilk, lead in evidence.leads:
        if lead.alarm == "model minus rule":
            found += of_lead(ilk, lead)
    for barrier in evidence.barriers:
        found += of_barrier(barrier, evidence.settings.step)
    return found


def share(part: int, whole: int, least: float) -> tuple[Value, Verdict]:
    value = part / whole if whole else None
    good = value is not None and value >= least
    return Value(value), Verdict.SHOWN if good else Verdict.NOT_PROVEN


def of_book(book: maker.Run) -> list[Finding]:
    """Does the rebuilt book explain what the logs of liquidations tell, and the oracle's hour when they came?"""
    rebuild, oracle, measure = book.rebuild, book.oracle, "share of first liquidations"
    found = []
    for part, whole, claim in (
        (rebuild.barks_same, rebuild.barks, "the rebuilt debt is that of the first bark, to 0.1 %"),
        (rebuild.bites_same, rebuild.bites, "the rebuilt debt is that of a first bite of the whole, to 0.1 %"),
    ):
        if whole:
            found.append(
                Finding(
                    f"{book.ilk} rebuilt",
                    None,
                    None,
                    f"{claim} ({part} of {whole})",
                    measure,
                    *share(part, whole, REBUILT),
                )
            )
    if oracle.first_liquidations:
        value = Value(oracle.below[1])
        good = oracle.below[1] >= EXPLAINED
        claim = f"health factor < {maker.NEAR:g} at the close one hour before the last full hour"
        found.append(
            Finding(
                f"{book.ilk} oracle", None, None, claim, measure, value, Verdict.SHOWN if good else Verdict.NOT_PROVEN
            )
        )
    return found


def of_scores(one: Judged) -> list[Finding]:
    """Is the model better than each baseline on the same observations?"""
    sample = one.sample
    return [
        Finding(
            sample.name, sample.every, sample.horizon, f"better than {score.forecast}", "difference of log loss",
            score.difference, lower(score.difference),
        )
        for score in one.scores
        if score.difference is not None and score.forecast != CLIMATOLOGY
    ]  # fmt: skip


def bound(probability: float, *, often: bool) -> float:
    """How far the frequency of a bin may lie from its probability."""
    return max(0.5 * probability, 0.002) if often else max(0.65 * probability, 0.003)


def looks_often(one: Judged) -> bool:
    """Whether its decisions are at most 4 h apart: the bounds of bins are tighter then."""
    return one.sample.every is not None and one.sample.every <= maker.OFTEN


def judges_bins(one: Judged) -> bool:
    """Only of a day's forecast is calibration claimed: of positions left alone, bounds say how far a bin may be off."""
    return one.sample.horizon == 24 and not one.sample.calibrated


def of_bins(one: Judged) -> list[Finding]:
    """Does what was forecast happen as often as forecast, bin by bin?"""
    if not judges_bins(one):
        return []
    sample, often = one.sample, looks_often(one)
    found = []
    for bin_ in one.bins:
        if bin_.observations >= ENOUGH and bin_.frequency.value is not None:
            off = abs(bin_.frequency.value - bin_.probability)
            limit = bound(bin_.probability, often=often)
            claim = f"comes about as often as forecast: {edges(bin_)}, within {limit:.4f}"
            verdict = Verdict.SHOWN if off <= limit else beyond(bin_, limit)
            found.append(
                Finding(sample.name, sample.every, sample.horizon, claim, "|frequency - mean p|", Value(off), verdict)
            )
    return found


def beyond(bin_: Bin, limit: float) -> Verdict:
    """Of a bin that is off by more than its bound: contradicted only if its frequency's whole interval is."""
    low, high = bin_.frequency.low, bin_.frequency.high
    if low is None or high is None:
        return Verdict.NOT_PROVEN
    outside = low > bin_.probability + limit or high < bin_.probability - limit
    return Verdict.CONTRADICTED if outside else Verdict.NOT_PROVEN


def edges(bin_: Bin) -> str:
    return f"{bin_.low * 100:g} to {bin_.high * 100:g} %"


def of_lead(ilk: str, lead: Lead) -> list[Finding]:
    """Does the model warn earlier than the rule at as many alarms?"""
    load = f"alarm as often as HF < {lead.rule:g} ({lead.load * 100:.1f} % of vault-time)"
    statistics = {"median lead (h)": lead.median} | {f"share warned >= {h} h before": v for h, v in lead.warned.items()}
    return [
        Finding(
            f"{ilk} lead time",
            maker.OFTEN,
            24,
            f"earlier than HF < {lead.rule:g}: {load}",
            f"{name}, minus the rule's",
            v,
            higher(v),
        )
        for name, v in statistics.items()
    ]


def of_barrier(one: Barrier, every: int) -> list[Finding]:
    """Is the model better than each estimate of volatility, and does a fall come as often as forecast?"""
    sample = f"price of {one.symbol}"
    found = [
        Finding(sample, every, one.horizon, f"better than {name}", "difference of log loss", value, lower(value))
        for name, value in one.differences.items()
        if name != CLIMATOLOGY
    ]
    verdict = Verdict.SHOWN if one.gap <= GAP else Verdict.NOT_PROVEN
    claim = f"falls of 2 % and more come as often as forecast, within {GAP}"
    found.append(
        Finding(
            sample,
            every,
            one.horizon,
            claim,
            f"largest |frequency - mean p|, at {one.gap_at} %",
            Value(one.gap),
            verdict,
        )
    )
    return found
