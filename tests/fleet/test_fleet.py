"""When a chain's process is started again, and what the table says of it."""

import io
import time

import pytest
from rich.console import Console

from indexer.fleet.member import FOLLOW_PAUSES, HOPELESS, ONCE_PAUSES, Member, State
from indexer.fleet.messages import Stages, Told, understood
from indexer.fleet.table import row, table

SAMPLE = {"block_number": 7, "block_timestamp": 1_700_000_000, "positions": 1200, "at_risk": 3, "requests": 9}


def member(*, follow: bool) -> Member:
    return Member("base", ["sync"], follow, FOLLOW_PAUSES if follow else ONCE_PAUSES)


def test_a_process_that_did_its_work_is_not_started_again() -> None:
    one = member(follow=False)
    one.ended(0, 100.0)
    assert (one.state, one.restarts) == (State.DONE, 0)


def test_a_process_that_fails_is_started_again_later_and_later_until_it_is_given_up() -> None:
    one = member(follow=False)
    pauses = []
    while one.state is not State.GAVE_UP:
        one.ended(-9, 100.0)
        pauses.append(one.due - 100.0)
    assert tuple(pauses[:-1]) == ONCE_PAUSES
    assert one.restarts == len(ONCE_PAUSES)


@pytest.mark.parametrize("follow", [False, True])
def test_wrong_usage_is_given_up_at_once(follow: bool) -> None:
    one = member(follow=follow)
    one.ended(HOPELESS, 100.0)
    assert one.state is State.GAVE_UP


def test_a_chain_that_was_followed_is_never_given_up_and_a_snapshot_ends_the_growing_pauses() -> None:
    one = member(follow=True)
    one.heard({"snapshot": SAMPLE})
    assert one.state is State.FOLLOWING
    for _ in range(2 * len(FOLLOW_PAUSES)):
        one.ended(1, 100.0)
    assert (one.state, one.due) == (State.WAITING, 100.0 + FOLLOW_PAUSES[-1])
    one.heard({"snapshot": SAMPLE})
    one.ended(1, 200.0)
    assert one.due == 200.0 + FOLLOW_PAUSES[0]


def test_a_followed_chain_that_never_came_to_a_snapshot_is_given_up() -> None:
    one = member(follow=True)
    for _ in FOLLOW_PAUSES:
        one.ended(1, 100.0)
        assert one.state is State.WAITING
    one.ended(1, 100.0)
    assert one.state is State.GAVE_UP


def test_a_followed_chain_whose_process_was_told_to_end_by_somebody_else_is_started_again() -> None:
    one = member(follow=True)
    one.ended(0, 100.0)
    assert (one.state, one.failures, one.due) == (State.WAITING, 0, 100.0 + FOLLOW_PAUSES[0])


def test_what_a_process_tells_is_understood_and_half_a_line_is_nothing() -> None:
    stream = io.StringIO()
    told = Told(stream)
    stages = Stages(told)
    stages.start("logs", 2000, "blocks", 500)
    told.snapshot(SAMPLE)
    told.line("hello")
    one = member(follow=True)
    for line in stream.getvalue().splitlines():
        one.heard(understood(line))
    assert (one.sample, one.said) == (SAMPLE, "hello")
    assert row(one)[-1] == "logs: 500 of 2,000 blocks"
    stages.done("logs")
    one.heard(understood(stream.getvalue().splitlines()[-1]))
    assert row(one)[-1] == ""
    assert [understood(text) for text in ('{"line": "a', "[]", "")] == [{}, {}, {}]


def test_the_table_says_what_is_known_and_nothing_else() -> None:
    one = member(follow=True)
    assert row(one) == ["base", "waiting", "", "", "", "", "", "", ""]
    one.heard({"snapshot": SAMPLE})
    assert row(one)[:3] + row(one)[4:8] == ["base", "following", "7", "1,200", "3", "9", ""]
    one.heard({"line": "no node"})
    one.ended(1, time.monotonic() + 60)
    assert row(one)[7] == "1"
    assert row(one)[8].startswith("starts again in 6")
    assert row(one)[8].endswith("no node")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_table_fits_the_terminal_and_shows_chain_state_and_block_whole(width: int) -> None:
    names = ["mainnet", "arbitrum", "base", "polygon"]
    members = [Member(name, ["sync"], True, FOLLOW_PAUSES) for name in names]
    for number, one in enumerate(members):
        one.heard({"snapshot": {**SAMPLE, "block_number": 412_345_678 + number}})
    members[1].heard({"stage": "logs of aave-v3-arbitrum", "done": 123_456_789, "total": 412_345_678, "unit": "blocks"})
    members[2].heard({"line": "https://rpc.example answered 429 Too Many Requests"})
    members[2].ended(1, time.monotonic())
    console = Console(width=width, file=io.StringIO())
    console.print(table(members, width))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 1 + len(members)
    assert max(map(len, lines)) <= width
    for number, (name, line) in enumerate(zip(names, lines[1:], strict=True)):
        assert line.split()[:3] == [name, "waiting" if number == 2 else "following", str(412_345_678 + number)]
    assert "logs of aave-v3" in lines[2]
    assert ("requests" in lines[0], "at risk" in lines[0]) == (width >= 120, width >= 120)


def test_nobody_reads_any_more_is_no_error() -> None:
    stream = io.StringIO()
    told = Told(stream)
    stream.close()
    told.line("lost")
