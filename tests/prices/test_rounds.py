"""Which answers count, and from when on: jumps, hidden rounds (SVR), proxies that turn to another aggregator."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.prices.rounds import Answered, Phase, flaws, of_phases, revealed

NOW = 10_000


def rounds(*answers: tuple[int, int]) -> list[Answered]:
    """Rounds 1, 2, ... with these (time, answer)."""
    return [Answered(number, at, answer) for number, (at, answer) in enumerate(answers, 1)]


def test_ordinary_answers_have_no_flaw() -> None:
    assert flaws(rounds((1, 100), (2, 110), (2, 1_100), (9_999, 200)), NOW) == [None] * 4


@pytest.mark.parametrize("answer", [0, -1])
def test_an_answer_is_above_0(answer: int) -> None:
    assert flaws(rounds((1, 100), (2, answer), (3, 101)), NOW) == [None, "not above 0", None]


def test_an_answer_is_not_from_the_future() -> None:
    assert flaws(rounds((NOW, 100), (NOW + 1, 101)), NOW) == [None, "from the future"]


def test_rounds_do_not_go_back_in_time() -> None:
    assert flaws(rounds((5, 100), (4, 101), (6, 102)), NOW) == [None, "older than the round before", None]


@pytest.mark.parametrize("wild", [1_001, 9])
def test_a_jump_by_more_than_ten_is_flagged_and_the_way_back_is_not(wild: int) -> None:
    assert flaws(rounds((1, 100), (2, wild), (3, 100)), NOW) == [None, "a jump by a factor above 10", None]


def test_a_jump_that_the_next_round_confirms_counts_from_there() -> None:
    assert flaws(rounds((1, 100), (2, 5_000), (3, 5_100), (4, 5_000)), NOW) == [
        None,
        "a jump by a factor above 10",
        None,
        None,
    ]


def test_a_hidden_round_counts_once_revealed_and_else_after_the_cut_off() -> None:
    found = rounds((100, 1), (200, 2), (300, 3))
    assert revealed(found, {2: 205}, 30, NOW) == [131, 205, 331]
    assert revealed(found, {2: 205}, 30, 320) == [131, 205, None]
    assert revealed(found, {2: 205}, None, NOW) == [None, 205, None]


def test_a_round_is_never_in_force_once_a_newer_one_was_shown() -> None:
    assert revealed(rounds((100, 1), (110, 2), (200, 3)), {2: 112}, 30, NOW) == [None, 112, 231]


@given(
    gaps=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    reveals=st.dictionaries(st.integers(1, 12), st.integers(0, 60)),
    cutoff=st.integers(1, 50),
)
def test_what_is_in_force_is_what_the_contract_walks_back_to(
    gaps: list[int], reveals: dict[int, int], cutoff: int
) -> None:
    """Against DualAggregator._getSyncPrimaryRound, as it stands in the source, at every second."""
    times = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    found = [Answered(number, at, 1) for number, at in enumerate(times, 1)]
    shown: dict[int, int] = {}
    for number, delay in sorted(reveals.items()):  # the contract refuses to reveal an older round than the last one
        if number <= len(times):
            moment = times[number - 1] + delay
            if all(moment >= other for other in shown.values()):
                shown[number] = moment
    now = times[-1] + 2 * cutoff + 60
    in_force = revealed(found, shown, cutoff, now)
    for second in range(1, now):
        latest = max((one.round for one in found if one.at <= second), default=0)
        secondary = max((number for number, moment in shown.items() if moment <= second), default=0)
        contract = secondary
        for number in range(latest, 0, -1):
            if number == secondary or times[number - 1] + cutoff < second:
                contract = number
                break
        ours = [(at, one.round) for at, one in zip(in_force, found, strict=True) if at is not None and at <= second]
        assert max(ours, default=(0, 0))[1] == contract


def test_the_next_aggregator_counts_from_its_first_round_where_nobody_saw_the_change() -> None:
    phases = [Phase(None, rounds((10, 1), (20, 2), (30, 3))), Phase(None, rounds((25, 4), (35, 5)))]
    assert of_phases(phases) == [[10, 20, None], [25, 35]]


def test_the_next_aggregator_counts_from_when_it_was_seen_with_what_it_answered_then() -> None:
    phases = [Phase(None, rounds((10, 1), (20, 2), (30, 3), (50, 9))), Phase(40, rounds((5, 4), (35, 5), (45, 6)))]
    assert of_phases(phases) == [[10, 20, 30, None], [None, 40, 45]]


def test_an_aggregator_without_rounds_ends_nothing() -> None:
    assert of_phases([Phase(None, rounds((10, 1))), Phase(None, [])]) == [[10], []]
