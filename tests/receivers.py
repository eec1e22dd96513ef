"""Real receivers of alerts on this machine: an HTTP endpoint and a mail server that can be down in several ways."""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller


class Hook:
    """An HTTP endpoint that remembers what it took, in order.

    `mode`: "ok" takes, "503" refuses, "hang" reads a request, takes it not, and never answers. `close` and `open` take
    its port away and back. `judge` sees each body and may answer with a status, headers and a body of its own.
    """

    def __init__(self) -> None:
        self.mode = "ok"
        self.judge: Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes] | None] = lambda _: None
        self.seen: list[dict[str, Any]] = []
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
                hook.seen.append(json.loads(body))
                own = hook.judge(hook.seen[-1]) if hook.mode == "ok" else None
                if own is not None:
                    self.send_response(own[0])
                    for name, value in own[1].items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(own[2])))
                    self.end_headers()
                    self.wfile.write(own[2])
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


class Chat:
    """A chat service over HTTP that remembers what was posted; its answers satisfy Telegram, Slack, Discord and Matrix."""

    ANSWER: Mapping[str, Any] = {
        "ok": True, "result": {"message_id": 1}, "access_token": "t", "user_id": "@u:h", "room_id": "!r:h",
        "event_id": "$e", "joined_rooms": ["!r:h"],
    }  # fmt: skip

    def __init__(self) -> None:
        self.posted: list[tuple[str, dict[str, Any]]] = []
        #: (status, body) instead of taking the next message
        self.refusals: list[tuple[int, Mapping[str, Any]]] = []
        self.slack = False
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
                status, answer = chat.refusals.pop(0) if chat.refusals else (200, chat.ANSWER)
                if status == 200:
                    chat.posted.append((self.path, body))
                text = b"ok" if chat.slack and status == 200 else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = do_POST  # noqa: N815 - the library's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the library
                """Stays quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class Mailbox:
    """A mail server that remembers what it took, in order; with `full` it refuses mail for now."""

    def __init__(self) -> None:
        self.full = False
        self.refuse: str | None = None  # the subject of a mail that is never taken
        self.taken: list[Message] = []
        with socket.create_server(("127.0.0.1", 0)) as free:  # the controller cannot be asked for any free port
            port = free.getsockname()[1]
        self.controller = Controller(self, hostname="127.0.0.1", port=port, ready_timeout=30)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.full:
            return "452 4.2.2 mailbox full"
        if self.refuse is not None and message_from_bytes(envelope.content)["Subject"] == self.refuse:
            return "554 5.7.1 refused"
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
