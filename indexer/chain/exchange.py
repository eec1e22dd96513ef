"""One HTTP POST and its whole answer, within one deadline and a number of bytes, however they are compressed or dripped."""

import contextlib
import queue
import socket
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from indexer.chain.flight import in_background

HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "gzip", "User-Agent": "lending-indexer"}
#: bytes read or unpacked at once
PIECE = 2**16
#: bytes unpacked for each byte received, and the size up to which any ratio is accepted (zeros compress well)
LARGEST_RATIO = 200
PLAUSIBLE = 4 * 2**20

#: how servers write that an answer is not packed; some name its alphabet instead (locustio/locust 1233)
NO_PACKING = frozenset({"", "identity", "none", "utf-8", "utf8"})


class OversizeError(Exception):
    """The answer has more bytes than allowed."""


class BrokenAnswerError(Exception):
    """The answer ended early, or its bytes are not what its headers say."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply with its content unpacked."""

    status: int
    headers: Mapping[str, str]
    content: bytearray


class Transport:
    """POSTs to one URL over connections that are kept open, from several threads at once if need be.

    Each POST runs in a thread of its own, so that its deadline covers everything: name look-up, handshake, headers and
    body. Socket time-outs apply to single packets, so a server that drips bytes never triggers them.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[_Wire] = []

    def post(self, payload: bytes, seconds: float, most: int) -> Reply:
        """The reply, of at most `most` bytes. TimeoutError if it is not complete within `seconds`.

        Raises OversizeError, BrokenAnswerError, or the library's own error for a connection that fails.
        """
        try:
            wire = self._idle.pop()
        except IndexError:  # all others carry a POST
            wire = _Wire()
        outcome: queue.SimpleQueue[Reply | Exception] = queue.SimpleQueue()

        def work() -> None:
            try:
                outcome.put(wire.post(self._url, payload, seconds, most))
            except Exception as error:  # noqa: BLE001 - raised again by whoever waits
                outcome.put(error)

        in_background(work, "exchange")
        reply: Reply | Exception | None = None
        try:
            reply = outcome.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        finally:
            if reply is None:  # also where the wait was interrupted
                wire.cut()
            else:
                self._idle.append(wire)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self) -> None:
        for wire in self._idle:
            wire.session.close()


class _Wire:
    """A session for one POST at a time, whose connections can be cut from another thread."""

    def __init__(self) -> None:
        self.session = requests.Session()
        self._sockets: list[socket.socket] = []
        self._is_cut = False
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _Adapter(self))

    def opened(self, connection: HTTPConnection) -> None:
        self._sockets = [known for known in self._sockets if known.fileno() >= 0]
        if isinstance(connection.sock, socket.socket):
            self._sockets.append(connection.sock)
        if self._is_cut:
            self.cut()

    def cut(self) -> None:
        """Cuts the connections, so that whoever reads from one reaches its end."""
        self._is_cut = True
        for known in self._sockets:
            with contextlib.suppress(OSError):  # it may already be closed
                known.shutdown(socket.SHUT_RDWR)

    def post(self, url: str, payload: bytes, seconds: float, most: int) -> Reply:
        try:
            with self.session.post(
                url, data=payload, headers=HEADERS, timeout=seconds, stream=True, allow_redirects=False
            ) as response:
                content = bytearray()
                for piece in _unpacked(response):
                    content += piece
                    if len(content) > most:
                        raise OversizeError(f"exceeds {most} bytes")
                return Reply(response.status_code, response.headers, content)
        except HTTPError as error:
            raise BrokenAnswerError(str(error)) from None
        finally:
            if self._is_cut:
                self.session.close()


class _Adapter(HTTPAdapter):
    """Reports each connection that is opened to the wire."""

    def __init__(self, wire: _Wire) -> None:
        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                wire.opened(self)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                wire.opened(self)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self._pools = {"http": PlainPool, "https": SecurePool}
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _unpacked(response: requests.Response) -> Iterator[bytes]:
    """The unpacked body in small pieces, however well it was compressed."""
    packing = response.headers.get("Content-Encoding", "").strip().lower()
    if packing in NO_PACKING:
        yield from _received(response)
        return
    if packing not in {"gzip", "x-gzip"}:
        raise BrokenAnswerError("compressed in a way that was not asked for")
    unpacker = zlib.decompressobj(wbits=31)
    received = unpacked = 0
    try:
        for piece in _received(response):
            received += len(piece)
            rest = piece
            while rest:
                found = unpacker.decompress(rest, PIECE)
                unpacked += len(found)
                if unpacked > max(LARGEST_RATIO * received, PLAUSIBLE):
                    raise OversizeError(f"unpacks to more than {LARGEST_RATIO} times its size")
                yield found
                rest = unpacker.unconsumed_tail
                if unpacker.eof:
                    rest = unpacker.unused_data
                    unpacker = zlib.decompressobj(wbits=31) if rest else unpacker
        yield unpacker.flush(PIECE)
    except zlib.error as error:
        raise BrokenAnswerError(str(error)) from None
    if not unpacker.eof:
        raise BrokenAnswerError("its packed bytes end early")


def _received(response: requests.Response) -> Iterator[bytes]:
    """The bytes as they came, still compressed."""
    while piece := response.raw.read(PIECE, decode_content=False):
        yield piece
