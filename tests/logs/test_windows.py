"""Windows in flight: every block once and in order, whatever is refused, cut off, late or broken meanwhile."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.chain.client import Chain
from indexer.chain.errors import RejectedError, TooBigError
from indexer.chain.limits import LogLimit
from indexer.errors import ChainError, PrunedError
from indexer.logs.windows import Answered, in_windows
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.faulty import FaultyNode

Span = tuple[int, int]


class Provider:
    """A stand-in for a chain: only its limits and its room are real. It keeps what it was asked and what it answered."""

    def __init__(self, room: int, window: int = 10) -> None:
        self.log_limit = LogLimit(window=window)
        self.log_limit.answers = room  # as after so many answers
        self.room, self.retries = room, 0
        self.asked: list[Span] = []
        self.answered: list[Span] = []
        self.logs: dict[int, int] = {}
        self.most: int | None = None
        self.broken: dict[int, ChainError] = {}
        self.inside = self.peak = 0
        self.two = threading.Event()  # set once two requests are in flight
        self.waits_for_two = False
        self.lock = threading.Lock()

    def read(self, first: int, last: int) -> Answered[Span]:
        with self.lock:
            self.asked.append((first, last))
            self.inside += 1
            self.peak = max(self.peak, self.inside)
            if self.inside > 1:
                self.two.set()
        if self.waits_for_two:
            self.two.wait(30)
        with self.lock:
            self.inside -= 1
        for block, error in self.broken.items():
            if first <= block <= last:
                raise error
        count = sum(self.logs.get(block, 0) for block in range(first, last + 1))
        if self.most is not None and count > self.most:
            raise TooBigError(f"query returned more than {self.most} results")
        with self.lock:
            self.answered.append((first, last))
        return Answered((first, last), [count])

    def windows(self, first: int, last: int, **options: Any) -> Iterator[Span]:
        def alone(first: int, last: int, _: ChainError) -> Iterator[Span]:
            yield first, last

        return in_windows(self, first, last, self.read, alone, **options)  # type: ignore[arg-type]


def contiguous(spans: list[Span], first: int, last: int) -> None:
    at = first
    for begin, end in spans:
        assert begin == at <= end
        at = end + 1
    assert at == last + 1


@pytest.mark.slow
@given(
    logs=st.dictionaries(st.integers(0, 299), st.integers(1, 60), max_size=40),
    room=st.integers(1, 9),
    window=st.integers(1, 60),
    most=st.integers(1, 80),
)
def test_every_block_comes_once_in_order_and_no_answer_is_asked_for_again(
    logs: dict[int, int], room: int, window: int, most: int
) -> None:
    provider = Provider(room, window)
    provider.logs, provider.most = logs, most
    got = list(provider.windows(0, 299))
    contiguous(got, 0, 299)
    assert len(provider.answered) == len(set(provider.answered))
    assert provider.peak <= max(room, 1) + 1


def test_several_are_asked_at_once_and_a_refusal_costs_only_its_own_window() -> None:
    provider = Provider(4)
    provider.logs, provider.most, provider.waits_for_two = {25: 90}, 80, True
    got = list(provider.windows(0, 99))
    contiguous(got, 0, 99)
    assert provider.peak > 1
    assert (25, 25) in got
    assert sorted(provider.answered) == sorted(span for span in got if span != (25, 25))


def test_what_has_begun_is_waited_for_and_nothing_more_is_asked() -> None:
    provider = Provider(4)
    got = list(provider.windows(0, 999, go_on=lambda: len(provider.answered) < 3))
    contiguous(got, 0, got[-1][1])
    assert sorted(provider.asked) == got
    assert 3 <= len(got) <= 3 + 5


def test_an_error_is_raised_where_its_window_stands() -> None:
    provider = Provider(4)
    provider.broken = {35: PrunedError("gone")}
    got: list[Span] = []
    with pytest.raises(PrunedError, match="gone"):
        got.extend(provider.windows(0, 99))
    assert got[-1][1] < 35 <= got[-1][1] + 10
    assert provider.inside == 0, "requests went on behind the error"


def test_a_refusal_that_no_narrower_window_cures_is_left_to_the_other_way() -> None:
    provider = Provider(4)
    provider.broken = {35: RejectedError("no")}
    got = list(provider.windows(0, 99, narrows=TooBigError))
    contiguous(got, 0, 99)
    assert [span for span in got if span not in provider.answered] == [(30, 39)]


def test_the_same_number_of_logs_again_is_noticed_in_flight_as_well() -> None:
    """Of two answers with exactly as many logs the second may have been cut off there, though neither knew of the other."""
    provider = Provider(4)
    provider.logs = {5: 47, 15: 47}
    got = list(provider.windows(0, 39))
    contiguous(got, 0, 39)
    assert (0, 9) in got
    assert (10, 19) not in got
    assert (10, 19) in provider.answered


def test_only_an_endpoint_that_knows_the_last_block_is_asked_for_logs(needs_node: None) -> None:
    with Anvil() as behind, Anvil() as ahead:
        ahead.rpc("anvil_mine", "0x20")
        with (
            FaultyNode(behind.url, seed=1) as lagging,
            Chain("devnet", CHAIN_ID, [lagging.url, ahead.url], MULTICALL3, backoff=0.01) as chain,
        ):
            asked = {"fromBlock": "0x0", "toBlock": "0x10"}
            assert chain.request("eth_getLogs", [asked], known=0x20) == []
            assert lagging.calls["eth_getBlockByNumber"] > 0
            assert lagging.calls["eth_getLogs"] == 0
            before = chain.requests
            assert chain.request("eth_getLogs", [asked], known=0x20) == []
            assert chain.requests == before + 1, "an endpoint shows it once"
