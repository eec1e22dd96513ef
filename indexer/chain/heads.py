"""Wake-ups by the new heads that a node announces over a WebSocket."""

import contextlib
import json
import logging
import socket as socketlib
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from indexer.boundary import bounded_json
from indexer.boundary.masking import mask
from indexer.chain.blocks import quantity

log = logging.getLogger(__name__)

# Its debug lines carry whole URLs, keys included.
logging.getLogger("websockets").setLevel(logging.WARNING)

RECONNECT_SECONDS = 30.0
HEARTBEAT_SECONDS = 15.0


#: bytes of one message
LARGEST_MESSAGE = 2**20
#: seconds between two messages that are read, and between two wake-ups, at least
MESSAGE_SECONDS = 0.02
PACE_SECONDS = 0.2


class Heads:
    """Wakes up whoever waits when the node announces a new head over a WebSocket.

    It uses the first URL that accepts an `eth_subscribe`; while none does, `wait` is a plain pause and the caller polls.
    It runs in a daemon thread, which shares nothing but the wake-up and the announced number.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = [websocket_url(url) for url in urls]
        self.connected = False
        self.announced = -1
        self._socket: ClientConnection | None = None
        self._woken = 0.0
        self._news, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heads", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Waits until a head is announced, the connection is lost or the time is over; wake-ups are `PACE_SECONDS` apart."""
        if self._news.wait(seconds):
            self._stop.wait(self._woken + PACE_SECONDS - time.monotonic())
        self._woken = time.monotonic()
        self._news.clear()

    def close(self) -> None:
        self._stop.set()
        socket = self._socket
        if socket is not None:
            socket.close()
        self._thread.join(2)

    def _run(self) -> None:
        while not self._stop.is_set():
            for url in self.urls:
                try:
                    self._listen(url)
                except (OSError, WebSocketException, ValueError, TypeError) as error:
                    log.info("no new heads over %s (%s), polling instead", mask(url), type(error).__name__)
                finally:
                    self.connected, self._socket = False, None
                    self._news.set()
                if self._stop.is_set():
                    return
            self._stop.wait(RECONNECT_SECONDS)

    def _listen(self, url: str) -> None:
        with contextlib.ExitStack() as stack:
            # over our own connection, so that redirects to other hosts are not followed
            socket = stack.enter_context(
                connect(url, sock=_connection(url), open_timeout=5, close_timeout=1, max_size=LARGEST_MESSAGE)
            )
            self._socket = socket
            socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}))
            if not isinstance(_object(socket.recv(timeout=10)).get("result"), str):
                raise TypeError("no subscriptions")
            self.connected = True
            log.info("new heads are announced over %s", mask(url))
            while not self._stop.is_set():
                try:
                    message = socket.recv(timeout=HEARTBEAT_SECONDS)
                except TimeoutError:
                    continue  # quiet chain; the library's own ping notices a dead connection
                self.announced = head_number(message)
                self._news.set()
                self._stop.wait(MESSAGE_SECONDS)  # a node that announces faster waits until this reads again


def head_number(message: str | bytes) -> int:
    """The number of the block that a message announces. TypeError or ValueError for another message."""
    head = _object(_object(_object(message).get("params")).get("result"))
    number = quantity(head.get("number"))
    if number >> 63:
        raise ValueError("no block number")
    return number


def _object(raw: Any) -> dict[str, Any]:
    """A JSON object, parsed if it is text. TypeError or ValueError for anything else."""
    found = bounded_json.loads(raw.encode() if isinstance(raw, str) else raw) if isinstance(raw, str | bytes) else raw
    if not isinstance(found, dict):
        raise TypeError("no JSON object")
    return found


def _connection(url: str) -> socketlib.socket:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    return socketlib.create_connection((parts.hostname or "", port), timeout=5)


def websocket_url(url: str) -> str:
    """The same endpoint over WebSocket, where most nodes serve it."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit(parts._replace(scheme=scheme))
