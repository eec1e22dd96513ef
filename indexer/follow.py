"""A live tail: one snapshot a block, or as fast as it can, skipping to the newest block when behind."""

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from indexer.abi import quantity
from indexer.errors import ChainError, PrunedError
from indexer.model import Block
from indexer.rpc import mask
from indexer.sync import Outcome, Sync

log = logging.getLogger(__name__)

# Its debug lines carry whole URLs, keys included.
logging.getLogger("websockets").setLevel(logging.WARNING)

POLL_SECONDS = 2.0
RECONNECT_SECONDS = 30.0
BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
HEARTBEAT_SECONDS = 15.0
#: how long a tail waits for a node that fell behind before it believes that the chain got shorter
BEHIND_SECONDS = 60.0


class Heads:
    """Wakes up whoever waits when the node announces a new head over a WebSocket.

    The first URL that takes an `eth_subscribe` is used; while none does, `wait` is a plain pause, and the caller
    polls. Runs in a daemon thread; nothing but the wake-up and the announced number crosses over.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = [websocket_url(url) for url in urls]
        self.connected = False
        self.announced = -1
        self._socket: ClientConnection | None = None
        self._news, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heads", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until a new head is announced or the connection is lost, or that long."""
        self._news.wait(seconds)
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
        with connect(url, open_timeout=5, close_timeout=1, max_size=2**20) as socket:
            self._socket = socket
            socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}))
            if not isinstance(_object(socket.recv(timeout=10)).get("result"), str):
                raise TypeError("no subscriptions")
            self.connected = True
            log.info("new heads are announced over %s", mask(url))
            while not self._stop.is_set():
                try:
                    message = _object(socket.recv(timeout=HEARTBEAT_SECONDS))
                except TimeoutError:
                    continue  # quiet chain; the library's own ping notices a dead connection
                head = _object(_object(message.get("params")).get("result"))
                self.announced = quantity(head.get("number"))
                self._news.set()


def _object(raw: Any) -> dict[str, Any]:
    """A JSON object, parsed if it is text. TypeError or ValueError if it is none."""
    found = json.loads(raw) if isinstance(raw, str | bytes) else raw
    if not isinstance(found, dict):
        raise TypeError("no JSON object")
    return found


def websocket_url(url: str) -> str:
    """The same endpoint over WebSocket, where most nodes serve it."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit(parts._replace(scheme=scheme))


def follow(
    sync: Sync,
    heads: Heads,
    tell: Callable[[Outcome, float], None],
    *,
    to: str = "latest",
    poll_seconds: float = POLL_SECONDS,
    behind_seconds: float = BEHIND_SECONDS,
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Snapshots every new block until interrupted (or `until()`); `tell` gets each outcome and its lag in seconds.

    Failures of the node are logged and tried again with a growing, bounded pause; StoreError ends it. An interrupt
    (KeyboardInterrupt) abandons the snapshot in work as a whole.
    """
    sync.behind_seconds = behind_seconds
    last: Block | None = None
    failures = 0
    while not until():
        try:
            head = sync.target(to)
            if last is not None and (head.hash == last.hash or sync.holds(last, head)):
                # Announced over there, not yet known here: ask again soon.
                late = to == "latest" and heads.announced > head.number
                heads.wait(HEARTBEAT_SECONDS if heads.connected and not late else poll_seconds)
                continue
            outcome = sync.snapshot(to, head)
        except ChainError as error:
            pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
            failures += 1
            kind = "needs an endpoint with older state" if isinstance(error, PrunedError) else "trying again"
            log.error("%s; %s in %g s", error, kind, pause)
            time.sleep(pause)
            continue
        failures, last = 0, outcome.block
        tell(outcome, max(time.time() - outcome.block.timestamp, 0.0))
