"""The backtest as a document for a risk committee: what is not proven first, then what is, then every number behind it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from indexer.backtest.barriers import FALLS, SCORED, Barrier
from indexer.backtest.evidence import (
    ENOUGH,
    Evidence,
    Finding,
    Verdict,
    bound,
    edges,
    findings,
    judges_bins,
    looks_often,
)
from indexer.backtest.leads import WARNED
from indexer.backtest.sample import Judged
from indexer.backtest.scores import Value
from indexer.forecast import model
from indexer.report.diagram import Diagram
from indexer.report.document import Report, Section
from indexer.text.values import many

TITLE = "What the forecast is worth: a backtest"
#: a bin that is off by less than this share of its forecast is not worth a word
TELLING = 0.1
FINDING = ("sample", "every_h", "horizon_h", "claim", "measure", "value", "verdict")
SCORE = (
    "sample every_h horizon_h forecast observations events log_loss brier auc average_precision model_minus_it verdict"
).split()


def backtest_report(found: Evidence, *, numbers: bool = False) -> Report:
    """The document; with `numbers`, for programs, each interval is columns of its own instead of text."""
    if not numbers and not (found.samples or found.barriers):
        nothing = Section("Nothing to judge", notes=found.remarks)
        return Report(TITLE, f"data {found.source}", [nothing])
    judged = findings(found)
    open_ = [one for one in judged if one.verdict is not Verdict.SHOWN]
    shown = [one for one in judged if one.verdict is Verdict.SHOWN]
    rows = Rows(numbers=numbers)
    return Report(
        title=TITLE,
        as_of=as_of(found),
        sections=[
            Section("What is not proven", *rows.of(map(finding, open_)), notes=[*limits(found), *found.remarks]),
            Section("What is shown", *rows.of(map(finding, shown)), notes=VERDICTS),
            Section("Scores", *rows.of(row for one in found.samples for row in scores(one)), notes=SCORES),
            *(
                reliability(one, rows)
                for one in found.samples
                if one.bins and (judges_bins(one) or one.sample.horizon == 168)
            ),
            Section("Alarms", *rows.of(row for one in found.samples for row in alarms(one)), notes=ALARMS),
            Section("Warning before liquidations", *rows.of(leads(found)), notes=LEADS),
            Section("Prices alone", *rows.of(row for one in found.barriers for row in barrier(one)), notes=BARRIERS),
            Section("How it is measured", notes=DEFINITIONS),
        ],
    )


class Rows:
    """Turns rows of values into columns and rows, each `Value` as one text or as three numbers."""

    def __init__(self, *, numbers: bool) -> None:
        self.numbers = numbers

    def of(self, rows: Iterable[dict[str, Any]]) -> tuple[Sequence[str], Sequence[list[Any]]]:
        shaped = [self.shaped(row) for row in rows]
        return ([*shaped[0]] if shaped else []), [[*row.values()] for row in shaped]

    def shaped(self, row: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, value in row.items():
            if not isinstance(value, Value):
                out[name] = value
            elif self.numbers:
                out |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
            else:
                out[name] = text(value)
        return out


def text(value: Value) -> str | None:
    """A number with its interval."""
    if value.value is None:
        return None
    digits = 1 if abs(value.value) >= 2 else 4
    ends = "" if value.low is None or value.high is None else f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    return f"{value.value:.{digits}f}{ends}"


def every(hours: int | None) -> str:
    return "as they were made" if hours is None else f"every {hours} h"


def day(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def as_of(found: Evidence) -> str:
    """What was run on what, so that anybody gets the same digits."""
    spans = [
        (int(one.sample.times.min()), int(one.sample.times.max())) for one in found.samples if len(one.sample.times)
    ]
    spans += [(one.first, one.last) for one in found.barriers]
    when = f"{day(min(s for s, _ in spans))} to {day(max(e for _, e in spans))}" if spans else "no decisions"
    s = found.settings
    if found.samples and all(one.sample.every is None for one in found.samples):
        return f"forecasts of {when} as they were made, from {found.source}"
    return (
        f"decisions {when}, every {s.step} h, {s.paths:,} paths, seed {s.seed}, data {found.source}; "
        f"model {model.NAME}, its parameters chosen on prices before {day(model.CHOSEN_UNTIL)}"
    )


def finding(one: Finding) -> dict[str, Any]:
    return dict(
        zip(
            FINDING,
            (one.sample, one.every, one.horizon, one.claim, one.measure, one.value, str(one.verdict)),
            strict=True,
        )
    )


def limits(found: Evidence) -> list[str]:
    """What these data cannot show, whatever the numbers are, and how much they hold."""
    said = [
        "A claim is proven here only if its whole 95 % interval is on the right side; a mean alone proves nothing.",
        "The forecast speaks of positions left alone. Owners act: it is no forecast of liquidations until it is calibrated on them.",
    ]
    for book in found.books:
        unsafe = [
            one for one in found.samples if one.sample.name == f"{book.ilk} left alone" and one.sample.horizon == 24
        ]
        came = [
            one for one in found.samples if one.sample.name == f"{book.ilk} liquidated" and one.sample.horizon == 24
        ]
        for alone, liquidated in zip(unsafe[:1], came[:1], strict=False):
            both = int((alone.sample.y & liquidated.sample.y).sum())
            events = int(alone.sample.y.sum())
            said.append(
                f"{book.ilk}: of {events:,} times that a vault would have become unsafe within 24 h if left alone, {both:,} were "
                f"liquidated ({both / events * 100 if events else 0:.0f} %). One market, one collateral, {many(alone.blocks, 'block')} of four weeks: "
                f"crashes come in clusters, so this is less than the number of observations suggests."
            )
    said += [told for one in found.samples if judges_bins(one) for told in off(one)]
    said += [gain(one) for one in found.barriers if one.horizon == 4 and one.differences["EWMA"].below_zero]
    said.append(
        "Prices are those of an exchange by the hour, not the answers of an oracle; what happens within the hour is not seen."
    )
    return said


def off(one: Judged) -> Iterable[str]:
    """In which bins the forecast was too low, and in which too high, by more than a tenth of itself."""
    judged = [(b, b.frequency.value) for b in one.bins if b.observations >= ENOUGH and b.frequency.value is not None]
    for word, sign in (("low", 1), ("high", -1)):
        bins = [(b, came) for b, came in judged if sign * (came - b.probability) > TELLING * b.probability]
        if bins:
            told = ", ".join(
                f"{edges(b)} ({b.probability * 100:.2f} forecast, {came * 100:.2f} came)" for b, came in bins
            )
            yield f"{one.sample.name}, {every(one.sample.every)}: the 24 h forecast was too {word} in the bins {told}."


def gain(one: Barrier) -> str:
    """How much of the gain over plain EWMA is only that it counts looks by the hour."""
    whole, beyond = one.differences["EWMA"].value or 0.0, one.differences["EWMA hourly"].value or 0.0
    share = (1 - beyond / whole) * 100 if whole else 0.0
    return (
        f"{one.symbol}, 4 h: {share:.0f} % of the gain over EWMA ({whole:.4f}) comes from looking by the hour, which a correction of "
        f"EWMA (Broadie, Glasserman, Kou) gives too, and not from the model ({beyond:.4f} remains)."
    )


def scores(one: Judged) -> Iterable[dict[str, Any]]:
    s = one.sample
    for score in one.scores:
        difference = score.difference or Value(None)
        verdict = (
            None
            if score.difference is None
            else "better"
            if difference.below_zero
            else "worse"
            if difference.above_zero
            else "not proven"
        )
        yield dict(
            zip(
                SCORE,
                (
                    s.name, s.every, s.horizon, score.forecast, score.observations, score.events, score.log_loss, score.brier,
                    score.auc, score.average_precision, difference, verdict and f"model {verdict}".replace("model not", "not"),
                ),
                strict=True,
            )
        )  # fmt: skip


def reliability(one: Judged, rows: Rows) -> Section:
    """Bin by bin what was forecast and what came, with the diagram."""
    s, often = one.sample, looks_often(one)
    claims = judges_bins(one)

    def line(b: Any) -> dict[str, Any]:
        limit = bound(b.probability, often=often)
        off = None if b.frequency.value is None else abs(b.frequency.value - b.probability)
        told = (
            "not judged"
            if not claims or b.observations < ENOUGH or off is None
            else "within"
            if off <= limit
            else "outside"
        )
        return {
            "bin": edges(b), "observations": b.observations, "mean_forecast": round(b.probability, 5), "came": b.frequency,
            "bound": round(limit, 5) if claims else None, "verdict": told,
        }  # fmt: skip

    points = [
        (b.probability, b.frequency.value, b.frequency.low, b.frequency.high, b.observations)
        for b in one.bins
        if b.frequency.value is not None
    ]
    title = f"Reliability: {s.name}, {s.label} within {s.horizon} h, {every(s.every)}"
    note = f"Bins with fewer than {ENOUGH} observations are not judged." if claims else "Printed without a claim."
    return Section(title, *rows.of(map(line, one.bins)), notes=[note], charts=[Diagram(title, points)])


def alarms(one: Judged) -> Iterable[dict[str, Any]]:
    for alarm in one.alarms:
        yield {
            "sample": one.sample.name, "every_h": one.sample.every, "horizon_h": one.sample.horizon,
            "at_load_of": f"HF < {alarm.rule:g}", "load_percent": round(alarm.load * 100, 2), "alarm": alarm.forecast,
            "threshold": round(alarm.threshold, 4), "precision": alarm.precision, "recall": alarm.recall,
        }  # fmt: skip


def leads(found: Evidence) -> Iterable[dict[str, Any]]:
    for ilk, lead in found.leads:
        yield {
            "ilk": ilk, "at_load_of": f"HF < {lead.rule:g}", "load_percent": round(lead.load * 100, 2), "alarm": lead.alarm,
            "episodes": lead.episodes, "blocks": lead.blocks, "median_lead_h": lead.median,
            **{f"share_warned_{hours}_h": lead.warned[hours] for hours in WARNED},
        }  # fmt: skip


def barrier(one: Barrier) -> Iterable[dict[str, Any]]:
    for name, value in (("model", one.model), *one.baselines.items()):
        yield {
            "symbol": one.symbol, "horizon_h": one.horizon, "forecast": name, "times": one.times, "first": day(one.first),
            "last": day(one.last), "log_loss": value, "model_minus_it": one.differences.get(name, Value(None)),
            "largest_gap": round(one.gap, 4) if name == "model" else None,
            "gap_at_percent": one.gap_at if name == "model" else None,
        }  # fmt: skip


VERDICTS = [
    "shown: the whole interval lies on the right side, or the bound holds. not proven: the interval holds 0. "
    "contradicted: the whole interval lies on the wrong side, or the bound is broken.",
]
SCORES = [
    "Lower log loss and Brier score are better, higher AUC and average precision are. model_minus_it is the difference of log loss "
    "on the same observations. HF isotonic and climatology know only labels that had ended before; they exist where there were "
    "3,000 rows and 20 events by then. 'liquidated' is calibrated in the same way on older liquidations.",
]
ALARMS = [
    "As many alarms for the model as the rule gives; both thresholds are taken in sample. precision: alarms that came true; "
    "recall: events that had an alarm.",
]
LEADS = [
    "Since when the alarm had been on without a break, every 4 h, when the first liquidation of an episode came (liquidations of a "
    "vault more than 7 days apart). The model's alarm is its 24 h forecast. Intervals by blocks, of episodes.",
]
BARRIERS = [
    f"The chance that a close of the next hours lies below the present price by {', '.join(map(str, SCORED))} %; largest_gap is "
    f"over every fall of 2 to {FALLS[-1]} %. EWMA hourly counts that the price is looked at by the hour. Climatology is in sample.",
]
DEFINITIONS = [
    "Decision times are full UTC hours. A forecast at t knows closes up to t; a vault counts with more than 100 DAI of debt and "
    "0.05 of collateral while the price in force, the close of t - 1 h, leaves it safe. Maker's oracle puts the close of t in "
    "force at t + 1 h, so the label over h hours is the lowest close of t to t + h - 1 h against collateral and debt as of t. "
    "Prices alone and invented positions: closes of t + 1 h to t + h. Missing hours are filled forward.",
    "Every probability is clipped to 0.0001 to 0.9999 before it is scored. static and EWMA: lognormal first passage, with the "
    "standard deviation of the last year of hourly returns, and with an EWMA (0.98) of their squares.",
    "Intervals: 95 %, blocks of 28 days from the first decision time, drawn again 2,000 times.",
]
