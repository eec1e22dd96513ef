"""Requests in flight against servers that count them: as many as the endpoint takes, results in order, the pace of the sum."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest

from indexer.chain.client import Chain
from indexer.chain.flight import MOST, PATIENCE, Ahead, Flight
from indexer.chain.limits import Pace
from indexer.errors import ChainError
from tests.devnet.node import MULTICALL3


class Counting:
    """A node that answers each eth_call with its data after `seconds`, at most `most` at a time: HTTP 429 beyond."""

    def __init__(self, most: int = 0, seconds: float = 0.02) -> None:
        self.most, self.seconds = most, seconds
        self.inside = self.peak = self.refused = 0
        self.times: list[float] = []
        self.slow: set[str] = set()  # data whose first request takes longer than any patience
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.times.append(time.monotonic())
                    outer.inside += 1
                    outer.peak = max(outer.peak, outer.inside)
                    refused = bool(outer.most) and outer.inside > outer.most
                    outer.refused += refused
                try:
                    self.answer(body, refused)
                finally:
                    with lock:
                        outer.inside -= 1

            def answer(self, body: dict[str, Any], refused: bool) -> None:
                result = "0x539" if body["method"] == "eth_chainId" else body["params"][0]["data"]
                slow = result in outer.slow
                outer.slow.discard(result)
                time.sleep(5 if slow else 0 if refused else outer.seconds)
                answer = (
                    b"{}" if refused else json.dumps({"jsonrpc": "2.0", "id": body["id"], "result": result}).encode()
                )
                try:
                    self.send_response(429 if refused else 200)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    return  # the client has lost patience

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.request_queue_size = 64

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def asked(chain: Chain, count: int) -> list[str]:
    """The answers to so many requests, begun together as far as the chain has room."""

    def tasks() -> Iterator[Callable[[], str]]:
        for n in range(count):
            yield lambda n=n: chain.request("eth_call", [{"data": hex(n)}, "latest"])

    with Ahead(tasks(), lambda: chain.room) as ahead:
        return [done.result() for done in ahead]


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 3, 8])
def test_a_node_that_takes_few_at_a_time_is_asked_that_many_and_everything_is_answered_in_order(most: int) -> None:
    with Counting(most) as node, Chain("test", 1337, [node.url], MULTICALL3, backoff=0.01) as chain:
        assert asked(chain, 300) == [hex(n) for n in range(300)]
        assert node.peak >= most
        assert chain.room <= 2 * most + 2
        assert 0 < node.refused < 30
        assert chain.retries >= node.refused


@pytest.mark.slow
def test_a_node_without_a_cap_gets_no_more_than_the_most() -> None:
    with Counting() as node, Chain("test", 1337, [node.url], MULTICALL3) as chain:
        asked(chain, 200)
        assert MOST // 2 < node.peak <= MOST
        assert chain.retries == 0


@pytest.mark.slow
def test_the_pace_holds_for_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    left, reserve = [], Pace.reserve
    monkeypatch.setattr(Pace, "reserve", lambda *given: left.append(reserve(*given)) or left[-1])
    with (
        Counting(seconds=0.3) as node,
        Chain("test", 1337, [node.url], MULTICALL3, max_requests_per_second=20) as chain,
    ):
        begun = time.monotonic()
        asked(chain, 60)
        assert node.peak > 1
        assert len(node.times) >= 60
        # Times to leave, as those of arrival come late, and several together, where the machine is busy.
        assert all(sum(first <= at < first + 1 for at in left) <= 20 for first in left)
        assert len(left) == len(node.times)
        assert all(at - begun > number / 20 - 0.01 for number, at in enumerate(sorted(node.times)))


@pytest.mark.slow
def test_a_request_that_takes_too_long_does_not_break_off_the_others() -> None:
    with (
        Counting(seconds=0.1) as node,
        Chain("test", 1337, [node.url], MULTICALL3, timeout=1, backoff=0.01) as chain,
    ):
        asked(chain, 20)
        node.slow = {hex(7)}
        assert asked(chain, 30) == [hex(n) for n in range(30)]
        assert chain.retries == 1


@pytest.mark.slow
def test_only_the_first_endpoint_is_asked_unless_requests_are_spread() -> None:
    with Counting() as first, Counting() as second:
        with Chain("test", 1337, [first.url, second.url], MULTICALL3) as chain:
            asked(chain, 50)
        assert (len(first.times) >= 50, len(second.times)) == (True, 0)
        with Chain("test", 1337, [first.url, second.url], MULTICALL3, spread=True) as chain:
            assert asked(chain, 100) == [hex(n) for n in range(100)]
        assert len(second.times) > 20


def test_an_error_is_raised_in_its_place_and_waits_for_what_runs() -> None:
    ended: list[int] = []

    def task(n: int) -> None:
        time.sleep(0.05)
        ended.append(n)
        if n == 2:
            raise ChainError("the third")

    with pytest.raises(ChainError, match="the third"):
        drain(Ahead(((lambda n=n: task(n)) for n in range(20)), lambda: 4))
    assert sorted(ended) == list(range(len(ended)))
    assert 5 <= len(ended) <= 6


def test_an_interrupt_waits_for_nothing() -> None:
    main = threading.main_thread().ident
    assert main is not None
    began = time.monotonic()
    threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        drain(Ahead([lambda: time.sleep(30)] * 3, lambda: 3))
    assert time.monotonic() - began < 10


def drain(ahead: Ahead[None]) -> None:
    with ahead:
        for done in ahead:
            done.result()


def test_refusals_of_requests_that_left_together_halve_the_limit_once() -> None:
    flight = Flight(limit=8)
    places = [flight.place() for _ in range(8)]
    tickets = [place.__enter__() for place in places]
    assert [flight.refused(ticket) for ticket in tickets[5:]] == [True] * 3
    assert flight.limit == 4
    for place in places:
        place.__exit__(None, None, None)
    flight.waiting = 1
    for _ in range(PATIENCE):
        flight.answered()
    assert flight.limit == 5  # one below what was refused
    for _ in range(PATIENCE):
        flight.answered()
    assert flight.limit > 5
