"""Announced heads: what a hostile server of them can do, which is to be left."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from indexer.chain import heads as announcing
from indexer.chain.heads import PACE_SECONDS, Heads


@contextmanager
def server(talk: Callable[[ServerConnection], None], **options: Any) -> Iterator[str]:
    """A WebSocket server that takes a subscription and then does what `talk` does."""

    def handle(connection: ServerConnection) -> None:
        connection.recv()
        connection.send(json.dumps({"jsonrpc": "2.0", "id": 1, "result": "0x1"}))
        talk(connection)

    with serve(handle, "127.0.0.1", 0, **options) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{found.socket.getsockname()[1]}"
        found.shutdown()


def head(number: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": {"result": {"number": number}}})


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "RECONNECT_SECONDS", 60.0)


@pytest.mark.parametrize(
    "message",
    ["[" * 10**6, '{"params":' * 10**5, "x" * (2**20 + 1), "null", "[]", '{"params": 7}', head("0x" + "f" * 64), head(7), head(None)],
    ids=range(9),
)  # fmt: skip
def test_a_message_that_is_no_head_ends_the_connection_and_no_more(message: str) -> None:
    with server(lambda connection: (connection.send(message), time.sleep(1))) as url, closing(Heads([url])) as heads:
        deadline = time.monotonic() + 10
        heads.wait(10)
        while heads.connected and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not heads.connected
        assert heads.announced == -1


@pytest.mark.slow
def test_a_flood_of_heads_wakes_up_at_a_walking_pace() -> None:
    done = threading.Event()

    def flood(connection: ServerConnection) -> None:
        number = 0
        while not done.is_set():
            number += 1
            connection.send(head(hex(number)))

    with server(flood) as url, closing(Heads([url])) as heads:
        heads.wait(10)
        started, woken = time.monotonic(), 0
        while time.monotonic() - started < 2:
            heads.wait(10)
            woken += 1
        assert woken <= 2 / PACE_SECONDS + 1
        assert heads.announced > 1
        done.set()


def test_a_redirect_is_not_followed() -> None:
    asked = threading.Event()

    def elsewhere(connection: ServerConnection) -> None:
        asked.set()

    with server(elsewhere) as target:

        def redirect(connection: ServerConnection, request: Request) -> Response:
            return Response(302, "Found", Headers({"Location": target}), b"")

        with server(lambda _: None, process_request=redirect) as url, closing(Heads([url])) as heads:
            heads.wait(5)
            assert not heads.connected
            assert not asked.is_set()
