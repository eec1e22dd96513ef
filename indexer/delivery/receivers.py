"""Where the change stream goes: standard output, and a webhook whose URL is never shown."""

import os
import re
import select
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from indexer.boundary.masking import mask, secrets
from indexer.delivery.channels import DeliveryError, GoneError, RefusedError
from indexer.delivery.queue import PAUSES
from indexer.delivery.services import PASSING_STATUS, seconds_of
from indexer.delivery.stream import Receiver
from indexer.errors import ConfigError

if TYPE_CHECKING:
    import requests

#: what a pipe takes without blocking once it is said to be writable (PIPE_BUF)
PIECE = 4_096
LOOK_SECONDS = 0.5
#: bytes of one request's body
LONGEST_BODY = 262_144
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 10.0
LONGEST_PAUSE = 60.0


class Pipe(Receiver):
    """NDJSON into a file descriptor. A reader that does not read holds up this receiver alone."""

    place = "standard output"

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def take(self, lines: Sequence[bytes], stopped: threading.Event) -> None:
        left = memoryview(b"".join(lines))
        while left and not stopped.is_set():
            try:
                _, ready, _ = select.select([], [self.descriptor], [], LOOK_SECONDS)
                if ready:
                    left = left[os.write(self.descriptor, left[:PIECE]) :]
            except BlockingIOError:
                stopped.wait(LOOK_SECONDS)
            except (OSError, ValueError) as error:
                raise GoneError(f"nobody reads it any more ({error})") from error


class Webhook(Receiver):
    """Lines as the body of a POST, `application/x-ndjson`, at most LONGEST_BODY bytes each; 2xx takes them.

    What fails is tried again after PAUSES, or when the receiver says (`Retry-After`, at most LONGEST_PAUSE). Redirects
    are not followed, answers not read. `Idempotency-Key` has the ids of the first and the last line.
    """

    longest_line = LONGEST_BODY

    def __init__(self, url: str) -> None:
        self.url, self.place = url, mask(url)
        try:
            parts = urlsplit(url)
            fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            fits = False
        if not fits:
            raise ConfigError(f"--webhook: {self.place} is no http:// or https:// URL")
        self.secrets = secrets(url)
        self.session: requests.Session | None = None

    def take(self, lines: Sequence[bytes], stopped: threading.Event) -> None:
        for body in bodies(lines):
            self._post(body, stopped)

    def _post(self, body: Sequence[bytes], stopped: threading.Event) -> None:
        for pause in (*PAUSES, None):
            if stopped.is_set():
                return
            try:
                self._attempt(body)
            except RefusedError:
                raise
            except DeliveryError as error:
                if pause is None:
                    raise
                stopped.wait(pause if error.retry_after is None else min(max(error.retry_after, 0), LONGEST_PAUSE))
            else:
                return

    def _attempt(self, body: Sequence[bytes]) -> None:
        import requests  # noqa: PLC0415 - slow to import, and used where somebody asks for it alone

        if self.session is None:
            self.session = requests.Session()
        headers = {
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": f"{id_of(body[0])}-{id_of(body[-1])}",
        }
        try:
            with self.session.post(
                self.url,
                data=b"".join(body),
                headers=headers,
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as answer:
                status, wanted = answer.status_code, seconds_of(answer.headers.get("Retry-After"))
        except (requests.RequestException, ValueError, OSError) as error:
            raise DeliveryError(self._scrubbed(error)) from None
        if 200 <= status < 300:
            return
        if 300 <= status < 500 and status not in PASSING_STATUS:
            raise RefusedError(f"HTTP {status}")
        raise DeliveryError(f"HTTP {status}", wanted)

    def _scrubbed(self, error: Exception) -> str:
        """What went wrong, without addresses: libraries put whole URLs into their texts."""
        reason: Any = error
        while getattr(reason, "args", None) and isinstance(reason.args[0], Exception):
            reason = reason.args[0]
        text = " ".join(str(getattr(reason, "reason", reason)).split())
        for part in [self.url, *self.secrets]:
            text = text.replace(part, "***")
        return f"{type(error).__name__}: {text[:200]}"


def id_of(line: bytes) -> str:
    """The id of an encoded line, and the part of a snapshot's."""
    number = re.search(rb'"id":(\d+)', line)
    part = re.search(rb'"part":(\d+)', line[:400])
    return (number[1].decode() if number else "") + (f".{part[1].decode()}" if part else "")


def bodies(lines: Sequence[bytes]) -> Iterator[list[bytes]]:
    """The lines in bodies of at most LONGEST_BODY bytes, each of at least one line."""
    body: list[bytes] = []
    for line in lines:
        if body and sum(map(len, body)) + len(line) > LONGEST_BODY:
            yield body
            body = []
        body.append(line)
    if body:
        yield body
