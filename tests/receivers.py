"""Real receivers of alerts on this machine: an HTTP endpoint and a mail server that can be down in several ways."""

import json
import socket
import threading
import time
from collections.abc import Callable
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller


class Hook:
    """An HTTP endpoint that remembers what it took, in order.

    `mode`: "ok" takes, "503" refuses, "hang" reads a request, takes it not, and never answers. `close` and `open` take
    its port away and back.
    """

    def __init__(self) -> None:
        self.mode = "ok"
        self.taken: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.attempts = 0
        self.at_receipt: Callable[[], None] = lambda: None
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self._over = threading.Event()

    @property
    def url(self) -> str:
        """The endpoint as apprise names it."""
        return f"json://127.0.0.1:{self._port}/hook"

    def open(self) -> None:
        if self._server is not None:
            return
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.attempts += 1
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    return  # the sender died in the middle: nothing was received
                hook.at_receipt()
                if hook.mode == "hang":
                    hook._over.wait(60)
                    return
                if hook.mode == "ok":
                    hook.headers.append(dict(self.headers))
                    hook.taken.append(json.loads(body))
                self.send_response(200 if hook.mode == "ok" else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the library
                """Stays quiet."""

            def finish(self) -> None:
                try:
                    super().finish()
                except OSError:
                    self.close_connection = True  # the sender was killed

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self.close()


class Mailbox:
    """A mail server that remembers what it took, in order; with `full` it refuses mail for now."""

    def __init__(self) -> None:
        self.full = False
        self.taken: list[Message] = []
        with socket.create_server(("127.0.0.1", 0)) as free:  # the controller cannot be asked for any free port
            port = free.getsockname()[1]
        self.controller = Controller(self, hostname="127.0.0.1", port=port, ready_timeout=30)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.full:
            return "452 4.2.2 mailbox full"
        self.taken.append(message_from_bytes(envelope.content))
        return "250 taken"

    @property
    def url(self) -> str:
        return f"mailto://127.0.0.1:{self.controller.port}/?from=indexer@example.org&to=owner@example.org&mode=insecure&format=text"

    def __enter__(self) -> Self:
        self.controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.controller.stop()


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Waits for a condition; AssertionError if it never comes true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
