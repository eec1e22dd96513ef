"""A sample of decisions, one observation a position and time, and everything that is measured of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from indexer.backtest.isotonic import Calibrated, expanding
from indexer.backtest.scores import (
    Bin,
    Blocks,
    Bools,
    Ints,
    Value,
    briers,
    log_losses,
    reliability,
    threshold,
)
from indexer.forecast.model import Floats

HOUR = 3_600
#: the rules of thumb against which alarms are compared, at the same load
RULES = (1.05, 1.1)
MODEL, HF_ISOTONIC, CLIMATOLOGY = "model", "HF isotonic", "climatology"


class Before(NamedTuple):
    """Older observations, from before the first forecast: calibration on the health factor learns from them too."""

    times: Ints
    health: Floats
    y: Bools


class Sample(NamedTuple):
    """Observations of one kind: `name` says of what, `label` of which event, `every` (hours) how often (None: whenever), `horizon` (hours).

    `first` is the first decision time; `times`, `health` (health factor at the price known), `p` (the model), `y` (what
    came) and each of `baselines` hold one value an observation. `calibrated`: p is refitted on older labels first.
    """

    name: str
    label: str
    every: int | None
    horizon: int
    first: int
    times: Ints
    health: Floats
    p: Floats
    y: Bools
    baselines: dict[str, Floats]
    calibrated: bool = False
    before: Before | None = None


class Score(NamedTuple):
    """One forecast on one sample; `difference` is the model's log loss minus this one's, on the same observations."""

    forecast: str
    observations: int
    events: int
    log_loss: Value
    brier: Value
    auc: Value
    average_precision: Value
    difference: Value | None


class Alarm(NamedTuple):
    """Alarms at the load of one rule, the share of observations with a health factor below it."""

    rule: float
    load: float
    forecast: str
    threshold: float
    precision: Value
    recall: Value


class Judged(NamedTuple):
    """A sample with its scores, the model first."""

    sample: Sample
    blocks: int
    scores: Sequence[Score]
    bins: Sequence[Bin]
    alarms: Sequence[Alarm]


def judged(sample: Sample) -> Judged:
    """Score the model, its baselines, and what is refitted on labels that had ended before."""
    s, p = sample, sample.p
    everywhere = np.ones(len(s.y), bool)
    by_health = on_health(s)
    if s.calibrated:
        p = expanding(s.p, s.y, s.times, s.first, s.horizon * HOUR).probability
        everywhere = np.isfinite(p)
    parts = {MODEL: (p, everywhere)}
    parts |= {name: (q, everywhere) for name, q in s.baselines.items()}
    later = by_health.known & everywhere
    parts |= {HF_ISOTONIC: (by_health.probability, later), CLIMATOLOGY: (by_health.climatology, later)}
    scores = [score(s, name, q, p, part) for name, (q, part) in parts.items() if part.any()]
    blocks = Blocks(s.times[everywhere], s.first)
    return Judged(
        sample=sample,
        blocks=blocks.count,
        scores=scores,
        bins=reliability(p[everywhere], s.y[everywhere], blocks) if everywhere.any() else [],
        alarms=[] if s.calibrated else alarms(s, blocks),
    )


def on_health(s: Sample) -> Calibrated:
    """The baseline that knows the health factor alone, fitted on every older label there is."""
    older = s.before or Before(s.times[:0], s.health[:0], s.y[:0])
    times = np.concatenate([older.times, s.times])
    first = int(times[0]) if len(older.times) else s.first
    found = expanding(
        -np.concatenate([older.health, s.health]), np.concatenate([older.y, s.y]), times, first, s.horizon * HOUR
    )
    return Calibrated(*(values[len(older.times) :] for values in found))


def score(s: Sample, name: str, q: Floats, p: Floats, part: Bools) -> Score:
    """One forecast on part of a sample, with the model beside it."""
    q, p, y = q[part], p[part], s.y[part]
    blocks = Blocks(s.times[part], s.first)
    losses, own = log_losses(q, y), log_losses(p, y)
    ranked = blocks.ranked(q, y)
    return Score(
        forecast=name,
        observations=len(y),
        events=int(y.sum()),
        log_loss=blocks.mean(losses),
        brier=blocks.mean(briers(q, y)),
        auc=ranked.auc(),
        average_precision=ranked.average_precision(),
        difference=None if name == MODEL else blocks.mean(own - losses),
    )


def alarms(s: Sample, blocks: Blocks) -> list[Alarm]:
    """Precision and recall of the rules, and of the model at as many alarms; thresholds are taken in sample."""
    found = []
    for rule in RULES:
        ruled = s.health < rule
        load = float(ruled.mean()) if len(ruled) else 0.0
        level = threshold(s.p, load)
        for name, on, limit in ((f"HF < {rule:g}", ruled, rule), (MODEL, s.p >= level, level)):
            hits = (on & s.y).astype(float)
            found.append(
                Alarm(
                    rule, load, name, limit, blocks.ratio(hits, on.astype(float)), blocks.ratio(hits, s.y.astype(float))
                )
            )
    return found
