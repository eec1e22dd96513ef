"""The rules of a watch: what each tells on a path of health factors, and its hysteresis."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.alert.rules import (
    LIQUIDATABLE,
    ORACLE,
    UNKNOWN,
    Event,
    Reading,
    Rule,
    State,
    below,
    chance,
    decide,
    drop,
    in_order,
    parse,
)
from indexer.model import WAD, Status
from indexer.units import scaled

TWO_PERCENT = WAD // 50


MARGIN = (51, 50)  # 1.02, as a fraction


def tell(rule: Rule, readings: Sequence[Reading], state: State | None = None) -> list[tuple[int, Event]]:
    """(place, event) of everything a rule tells on a path."""
    state, told = state or State(), []
    for place, reading in enumerate(readings):
        state, event = decide(rule, state, reading, TWO_PERCENT)
        if event is not None:
            told.append((place, event))
    return told


def at(*values: float | None) -> list[Reading]:
    """Verified readings; None is a position without debt."""
    return [Reading(None, Status.NO_DEBT, 0) if v is None else Reading(scaled(v), Status.HEALTHY, 1) for v in values]


def chances(*percents: float | None) -> list[Reading]:
    """Healthy readings with a chance within a day, in per cent; None where none was asked."""
    return [
        Reading(2 * WAD, Status.HEALTHY, 1, {} if p is None else {86_400: scaled(p), 3_600: 99 * WAD}) for p in percents
    ]


def test_a_chance_tells_once_until_it_is_below_the_margin() -> None:
    path = chances(10, 19.99, 20, 50, None, 19.7, 25, 19.5, None, 20.1)
    assert tell(chance("20%/1d"), path) == [(2, Event.CROSSED), (7, Event.RECOVERED), (9, Event.CROSSED)]
    unknown = Reading(2 * WAD, Status.HEALTHY, 1, {86_400: None})
    assert tell(chance("20%/1d"), [*chances(30), unknown, unknown, Reading(None, Status.NO_DEBT, 0)]) == [
        (0, Event.CROSSED), (3, Event.RECOVERED)
    ]  # fmt: skip


def test_a_chance_that_told_waits_until_it_is_armed_again() -> None:
    assert decide(chance("20%/1d"), State(), chances(30)[0], TWO_PERCENT) == (State(False, True), Event.CROSSED)


def test_what_is_wrong_with_an_oracle_is_told_once_until_nothing_is() -> None:
    wrong, right, unknown = (Reading(2 * WAD, Status.HEALTHY, 1, oracle=found) for found in (["stale"], [], None))
    path = [unknown, wrong, wrong, unknown, right, right, wrong]
    assert tell(ORACLE, path) == [(1, Event.CROSSED), (4, Event.RECOVERED), (6, Event.CROSSED)]
    told = State(armed=False, open=True)
    assert decide(ORACLE, State(), wrong, TWO_PERCENT) == (told, Event.CROSSED)
    assert decide(ORACLE, told, wrong, TWO_PERCENT) == decide(ORACLE, told, unknown, TWO_PERCENT) == (told, None)
    assert decide(ORACLE, told, right, TWO_PERCENT) == (State(), Event.RECOVERED)
    assert str(ORACLE) == "oracle"
    assert parse("oracle") == ORACLE


def test_the_least_chance_of_the_shortest_time_is_a_rule() -> None:
    least = chance("0.000000000000000001%/1h")
    assert (least.threshold, least.seconds) == (1, 3_600)


@pytest.mark.parametrize("text", ["20%/1d", "0.5%/12h", "99.9%/30d"])
def test_a_chance_is_written_as_it_is_read(text: str) -> None:
    assert parse(str(chance(text))) == chance(text)
    assert str(chance(text)) == f"chance {text}"


@pytest.mark.parametrize(
    "text", ["20%", "0%/1d", "100%/1d", "20%/0h", "20%/31d", "20%/90m", "x/1d", "1.2.3%/1d", "٢٠%/1d", ""]
)
def test_what_is_no_chance_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (chance|number)"):
        chance(text)


def test_below_tells_once_until_it_is_above_the_margin() -> None:
    path = at(1.3, 1.1, 1.0999, 1.05, 1.11, 1.09, 1.122, 1.09, 1.1221, 1.0999, None)
    assert tell(below("1.1"), path) == [
        (2, Event.CROSSED), (8, Event.RECOVERED), (9, Event.CROSSED), (10, Event.RECOVERED)
    ]  # fmt: skip


def test_below_compares_exact_integers() -> None:
    threshold = 11 * WAD // 10
    around = [Reading(threshold, Status.HEALTHY, 1), Reading(threshold - 1, Status.HEALTHY, 1)]
    assert tell(below(1.1), around) == [(1, Event.CROSSED)]
    margin = threshold * 51 // 50
    assert tell(
        below(1.1), [Reading(margin, Status.HEALTHY, 1), Reading(margin + 1, Status.HEALTHY, 1)], State(False, True)
    ) == [(1, Event.RECOVERED)]


def test_a_wallet_that_is_below_from_the_start_is_told() -> None:
    assert tell(below(1.1), at(1.0)) == [(0, Event.CROSSED)]


@pytest.mark.parametrize(("rule", "fall"), [(below(1.1), 1.0), (drop("10%"), 1.2)])
def test_a_recovery_is_told_once(rule: Rule, fall: float) -> None:
    assert tell(rule, at(2.0, fall, 2.0, 2.0, 2.5, None, None)) == [(1, Event.CROSSED), (2, Event.RECOVERED)]


def test_what_a_rule_remembers_is_whether_it_may_tell_and_what_waits() -> None:
    told, _ = decide(below(1.1), State(), at(1.0)[0], TWO_PERCENT)
    assert told == State(armed=False, open=True)
    assert decide(below(1.1), told, at(2.0)[0], TWO_PERCENT)[0] == State()
    # 90 % of 2e18 + 3 is 1.8e18 + 2.7, cut
    told, _ = decide(drop(10), State(reference=2 * WAD + 3), at(1.5)[0], TWO_PERCENT)
    assert told == State(open=True, reference=3 * WAD // 2, crossed=1_800_000_000_000_000_002)
    assert decide(drop(10), told, at(2.0)[0], TWO_PERCENT)[0] == State(reference=2 * WAD)


@pytest.mark.parametrize("text", ["0", "0%", "100", "-1%", "much"])
def test_no_fall_is_a_fall_of_nothing_or_of_everything(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no fall to watch for|is no number"):
        drop(text)


@pytest.mark.parametrize("text", ["0", "1000.000000000000000001", "-1", "much"])
def test_no_health_factor_is_a_threshold_of_nothing_or_beyond_a_thousand(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no health factor to watch for|is no number"):
        below(text)
    assert below("1000").threshold == 1000 * WAD


def test_the_least_number_is_a_threshold() -> None:
    assert (below("0.000000000000000001").threshold, drop("0.000000000000000001").threshold) == (1, 1)


def test_a_fall_is_measured_from_the_highest_since_the_last_alert() -> None:
    path = at(2.0, 1.9, 2.2, 1.99, 1.98, 1.85, 1.79, 1.78, 1.82, 1.9)
    assert tell(drop("10%"), path) == [(4, Event.CROSSED), (7, Event.CROSSED), (8, Event.RECOVERED)]


def test_a_health_factor_of_zero_falls_no_further() -> None:
    assert tell(drop("10%"), at(0.0, 0.0)) == []
    assert tell(drop("10%"), at(1.0, 0.0, 0.0)) == [(1, Event.CROSSED)]


def test_a_fall_begins_anew_behind_a_time_without_debt() -> None:
    assert tell(drop(10), at(5.0, None, 1.5, 1.4, 1.35)) == [(4, Event.CROSSED)]
    assert tell(drop(10), at(2.0, 1.0, None, 1.0)) == [(1, Event.CROSSED), (2, Event.RECOVERED)]


def test_unknown_is_told_once_and_never_counts_as_safe() -> None:
    blind, doubtful = Reading(None, Status.UNPRICEABLE, None), Reading(3 * WAD, Status.UNVERIFIED, 1)
    path = [*at(1.0), blind, doubtful, doubtful, *at(1.0), *at(1.5)]
    assert tell(UNKNOWN, path) == [(1, Event.CROSSED), (4, Event.RECOVERED)]
    assert tell(below(1.1), path) == [(0, Event.CROSSED), (4, Event.CROSSED), (5, Event.RECOVERED)]
    assert tell(UNKNOWN, [Reading(None, Status.UNVERIFIED, 0)]) == []
    # once it told, a rule is not armed and waits for the end
    assert decide(UNKNOWN, State(), blind, TWO_PERCENT) == (State(armed=False, open=True), Event.CROSSED)


def test_the_contracts_verdict_is_told_whatever_the_health_factor() -> None:
    deprecated, doubtful = Reading(2 * WAD, Status.LIQUIDATABLE, 1), Reading(2 * WAD, Status.UNVERIFIED, 1)
    path = [*at(2.0), deprecated, deprecated, doubtful, *at(2.0), deprecated, *at(None)]
    assert tell(LIQUIDATABLE, path) == [
        (1, Event.CROSSED), (4, Event.RECOVERED), (5, Event.CROSSED), (6, Event.RECOVERED)
    ]  # fmt: skip
    assert tell(below(1.1), path) == []
    assert decide(LIQUIDATABLE, State(), deprecated, TWO_PERCENT) == (State(armed=False, open=True), Event.CROSSED)


def test_the_verdict_is_told_after_what_is_unknown_and_before_every_number() -> None:
    rules = [below(1.1), drop(10), LIQUIDATABLE, below(1.2), UNKNOWN]
    assert in_order(rules) == [UNKNOWN, LIQUIDATABLE, drop(10), below(1.2), below(1.1)]


healths = st.one_of(st.none(), st.integers(0, 3 * WAD))


statuses = st.sampled_from(["healthy", "healthy", "unverified"])


@given(st.lists(st.tuples(healths, statuses), max_size=30), st.integers(1, 2 * WAD))
def test_below_never_repeats_itself_and_never_misses(path: list[tuple[int | None, str]], threshold: int) -> None:
    readings = [Reading(h, Status.NO_DEBT if h is None else s, 0 if h is None else 1) for h, s in path]
    rule = Rule(below(1).kind, threshold)
    told = dict(tell(rule, readings))
    quiet = False  # told, and not above the margin since
    for place, reading in enumerate(readings):
        health = reading.health_factor
        if health is not None and health < threshold:
            assert (told.get(place) is Event.CROSSED) == (not quiet)
            quiet = True
        elif health is None or health * MARGIN[1] > threshold * MARGIN[0]:
            assert told.get(place) is not Event.CROSSED
            quiet = False
        else:
            assert place not in told
        if told.get(place) is Event.RECOVERED:
            assert reading.trusted
            assert not quiet


@given(st.lists(st.integers(1, 3 * WAD), max_size=30), st.integers(1, 99))
def test_a_fall_is_told_only_where_it_is_one(path: list[int], percent: int) -> None:
    since: list[int] = []
    told = dict(tell(drop(percent), [Reading(h, Status.HEALTHY, 1) for h in path]))
    for place, health in enumerate(path):
        fell = bool(since) and health * 100 <= max(since) * (100 - percent)
        assert (told.get(place) is Event.CROSSED) == fell
        since = [health] if fell else [*since, health]


@pytest.mark.parametrize("text", ["below 1.1", "below 0.95", "drop 10%", "drop 2.5%", "unknown", "liquidatable"])
def test_a_rule_is_read_as_it_is_written(text: str) -> None:
    assert str(parse(text)) == text
