"""When to raise an alert about a watched position: thresholds, falls, chances, unknown values, with hysteresis. All pure.

`below X`   crossed when the health factor is below X. Recovered, and armed again, once it is above
            X * (1 + hysteresis) or there is no debt.
`drop P%`   crossed when the health factor is P % or more below its reference: the highest one since the rule's last
            alert, or since the watch began. A crossing makes the present value the reference, so that a fall that goes
            on raises the next alert P % lower. Recovered once it is above the crossed threshold * (1 + hysteresis).
`oracle`    crossed when an oracle of a price that the position hangs on is stale, overdue, capped or off its peg, as the last
            sync of prices saw it. Recovered, without hysteresis, when none is; without synced prices it decides nothing.
`unknown`   crossed when the position cannot be priced or could not be verified, and has or may have debt. Recovered
            with the first value that is known.
`liquidatable`  crossed when the contract itself allows liquidation, whatever the health factor: Compound V2 lets a
            debt be closed at any health once its market is deprecated. Recovered, without hysteresis, at the first
            trusted snapshot in which the contract does not.

`chance P%/T`  crossed when the chance that the position, left alone, fails the health test within T is P % or more, and
            recovered once it is below P / (1 + hysteresis) or there is no debt. What has no forecast decides nothing.

Every watch has `unknown` and `liquidatable`.

An unverified value never counts as safe: it may cross a rule, and arm it for the next crossing, but only a verified
value raises a "recovered".
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from indexer.model import UNCLEAR, WAD, Status
from indexer.units import decimal_text, scaled

HUNDRED = 100 * WAD


class Event(StrEnum):
    """What happened, as a message says it."""

    CROSSED = "crossed"
    RECOVERED = "recovered"


class Kind(StrEnum):
    """The kinds of rules, in the order of their alerts."""

    UNKNOWN = "unknown"
    LIQUIDATABLE = "liquidatable"
    DROP = "drop"
    BELOW = "below"
    CHANCE = "chance"
    ORACLE = "oracle"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `threshold` is a health factor (below) or a percentage (drop, chance), scaled by 1e18.

    `seconds` is the horizon of a chance.
    """

    kind: Kind
    threshold: int = 0
    seconds: int = 0

    def __str__(self) -> str:
        if self in ALWAYS or self.kind is Kind.ORACLE:
            return self.kind.value
        number = f"{self.kind} {decimal_text(self.threshold)}"
        if self.kind is Kind.CHANCE:
            return f"{number}%/{span(self.seconds)}"
        return f"{number}%" if self.kind is Kind.DROP else number


UNKNOWN = Rule(Kind.UNKNOWN)
LIQUIDATABLE = Rule(Kind.LIQUIDATABLE)
ORACLE = Rule(Kind.ORACLE)
#: the rules of every watch
ALWAYS = (UNKNOWN, LIQUIDATABLE)


@dataclass(frozen=True, slots=True)
class State:
    """What a rule remembers of one position: whether it may raise an alert, and whether a crossing has yet to end.

    `reference` and `crossed` are a drop's reference and the threshold it last crossed, scaled by 1e18.
    """

    armed: bool = True
    open: bool = False
    reference: int | None = None
    crossed: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What one snapshot says of a position: health factor scaled by 1e18, None without debt or where unknown.

    `chances` is p_unsafe by horizon in seconds, in per cent scaled by 1e18; one that is not in it was not asked.
    `oracle` is what is wrong with the oracles of its prices; None: not asked, or not known.
    """

    health_factor: int | None
    status: Status
    debt_value: int | None = None
    chances: Mapping[int, int | None] = field(default_factory=dict)
    oracle: Sequence[str] | None = None

    @property
    def trusted(self) -> bool:
        return self.status not in UNCLEAR

    @property
    def free(self) -> bool:
        """Whether there is certainly no debt."""
        return self.status == Status.NO_DEBT

    @property
    def liquidatable(self) -> bool:
        """The contract's own verdict."""
        return self.status == Status.LIQUIDATABLE

    @property
    def unknown(self) -> bool:
        return not self.trusted and self.debt_value != 0


def decide(rule: Rule, state: State, reading: Reading, hysteresis: int) -> tuple[State, Event | None]:
    """The rule's next state, and the event to report, if any; `hysteresis` is a fraction scaled by 1e18."""
    match rule.kind:
        case Kind.UNKNOWN:
            return _unknown(state, reading)
        case Kind.LIQUIDATABLE:
            return _liquidatable(state, reading)
        case Kind.DROP:
            return _drop(rule, state, reading, hysteresis)
        case Kind.BELOW:
            return _below(rule, state, reading, hysteresis)
        case Kind.CHANCE:
            return _chance(rule, state, reading, hysteresis)
        case Kind.ORACLE:
            return _oracle(state, reading)


def _unknown(state: State, reading: Reading) -> tuple[State, Event | None]:
    if reading.unknown:
        return State(armed=False, open=True), None if state.open else Event.CROSSED
    return State(), Event.RECOVERED if state.open else None


def _liquidatable(state: State, reading: Reading) -> tuple[State, Event | None]:
    if reading.liquidatable:
        return State(armed=False, open=True), None if state.open else Event.CROSSED
    if not reading.trusted:
        return state, None
    return State(), Event.RECOVERED if state.open else None


def _below(rule: Rule, state: State, reading: Reading, hysteresis: int) -> tuple[State, Event | None]:
    health = reading.health_factor
    if health is not None and health < rule.threshold:
        return State(armed=False, open=True), Event.CROSSED if state.armed else None
    if reading.free or (health is not None and above(health, rule.threshold, hysteresis)):
        return _safe(replace(state, armed=True), reading)
    return state, None


def _drop(rule: Rule, state: State, reading: Reading, hysteresis: int) -> tuple[State, Event | None]:
    health, reference = reading.health_factor, state.reference
    if reading.free:
        return _safe(replace(state, reference=None), reading)
    if health is None:
        return state, None
    if reference and health * HUNDRED <= reference * (HUNDRED - rule.threshold):
        return State(open=True, reference=health, crossed=reference * (HUNDRED - rule.threshold) // HUNDRED), (
            Event.CROSSED
        )
    if reading.trusted:
        state = replace(state, reference=max(reference or 0, health))
        if state.crossed is not None and above(health, state.crossed, hysteresis):
            return _safe(state, reading)
    return state, None


def _chance(rule: Rule, state: State, reading: Reading, hysteresis: int) -> tuple[State, Event | None]:
    percent = reading.chances.get(rule.seconds)
    if percent is not None and percent >= rule.threshold:
        return State(armed=False, open=True), Event.CROSSED if state.armed else None
    if reading.free or (percent is not None and above(rule.threshold, percent, hysteresis)):
        return _safe(replace(state, armed=True), reading)
    return state, None


def _oracle(state: State, reading: Reading) -> tuple[State, Event | None]:
    if reading.oracle is None:
        return state, None
    if reading.oracle:
        return State(armed=False, open=True), None if state.open else Event.CROSSED
    return State(), Event.RECOVERED if state.open else None


def _safe(state: State, reading: Reading) -> tuple[State, Event | None]:
    if state.open and reading.trusted:
        return replace(state, open=False, crossed=None), Event.RECOVERED
    return state, None


def above(health: int, threshold: int, hysteresis: int) -> bool:
    """Whether a health factor is above the threshold by more than the hysteresis."""
    return health * WAD > threshold * (WAD + hysteresis)


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """Sorts the crossings of one block: unknown first, then the contract's verdict, falls, and the highest threshold."""
    order = list(Kind)
    return sorted(rules, key=lambda rule: (order.index(rule.kind), -rule.threshold))


# texts ----------------------------------------------------------------------------------------------------------------


def below(text: str | float) -> Rule:
    """The rule `below X`. ValueError if X is not a health factor."""
    value = scaled(text)
    if not 0 < value <= 1000 * WAD:
        raise ValueError(f"{text} is no health factor to watch for: a number above 0 and up to 1000, such as 1.1")
    return Rule(Kind.BELOW, value)


def drop(text: str | float) -> Rule:
    """The rule `drop P%`, with or without the sign. ValueError if P is not a percentage."""
    value = scaled(text.strip().removesuffix("%") if isinstance(text, str) else text)
    if not 0 < value < HUNDRED:
        raise ValueError(f"{text} is no fall to watch for: a percentage between 0 and 100, such as 10%")
    return Rule(Kind.DROP, value)


HOURS = {"h": 1, "d": 24}
MOST_HOURS = 30 * 24


def span(seconds: int) -> str:
    """A horizon as a rule has it: 12h, 1d."""
    hours = seconds // 3_600
    return f"{hours}h" if hours % 24 else f"{hours // 24}d"


def chance(text: str) -> Rule:
    """The rule `chance P%/T`. ValueError if P is not a percentage, or T no full hours or days up to 30d."""
    match = re.fullmatch(r"\s*([\d.]+)\s*%?\s*/\s*(\d{1,4})\s*([hd])\s*", text, re.ASCII)
    hours = int(match[2]) * HOURS[match[3]] if match else 0
    value = scaled(match[1]) if match else 0
    if not (0 < value < HUNDRED and 0 < hours <= MOST_HOURS):
        raise ValueError(
            f"{text} is no chance to watch for: a percentage within hours or days, such as 20%/1d, up to 30d"
        )
    return Rule(Kind.CHANCE, value, hours * 3_600)


def parse(text: str) -> Rule:
    """The rule that `str()` wrote."""
    kind, _, value = text.partition(" ")
    return {"below": below, "drop": drop, "chance": chance}[kind](value) if value else Rule(Kind(kind))
