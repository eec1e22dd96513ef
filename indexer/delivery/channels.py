"""Where alerts are sent: what a channel is, and two of them, a command and standard output. Secrets are never shown.

A channel calls `at_send` when the message is about to become irrevocable, right before it hands the last bytes to the
system. `indexer.delivery.outbox` explains why.
"""

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from string import Formatter
from typing import Any

from indexer.errors import ConfigError, IndexerError
from indexer.text.table import folded, room
from indexer.text.values import printable

Alert = Mapping[str, Any]
AtSend = Callable[[], None]

COMMAND_SECONDS = 60.0
#: names that a command's arguments may hold between braces
PLACEHOLDERS = ("id", "event", "rule", "wallet", "label", "chain", "protocol", "deployment", "health_factor", "text")


class DeliveryError(IndexerError):
    """The channel did not accept an alert, which is tried again later; str() is the reason, without secrets.

    `retry_after` is how many seconds the channel asks to be left alone, None if it does not say.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RefusedError(DeliveryError):
    """The channel will never accept this message. `of_channel`: because of the channel, not because of the message."""

    def __init__(self, reason: str, *, of_channel: bool = False) -> None:
        super().__init__(reason)
        self.of_channel = of_channel


class GoneError(DeliveryError):
    """Nobody reads the channel any more, for as long as this process lives."""


class Channel(ABC):
    """One place that alerts go to. `key` identifies it across runs, `place` is its name for people."""

    key: str
    place: str

    @abstractmethod
    def deliver(self, alert: Alert, at_send: AtSend) -> None:
        """Returns once the channel has accepted the alert. DeliveryError if it did not, or if that is uncertain."""


def channel_key(kind: str, address: str) -> str:
    return f"{kind}-{sha256(address.encode()).hexdigest()[:16]}"


class Stdout(Channel):
    """JSON on standard output, one object per line; in a terminal the text that people read."""

    key = place = "stdout"

    def deliver(self, alert: Alert, at_send: AtSend) -> None:
        line = json.dumps(alert).replace("\x7f", "\\u007f") + "\n"
        width = room(sys.stdout)
        if width is not None:
            said = [alert["title"], *str(alert["text"]).split("\n")]
            line = "\n".join(part for told in said for part in folded(printable(told), width)) + "\n\n"
        at_send()
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except (OSError, ValueError) as error:
            raise GoneError(f"standard output is closed ({error})") from error


class Command(Channel):
    """A program of the user's: it gets the alert as JSON on its standard input and accepts it by exiting with 0.

    Placeholders such as {wallet} in its arguments are replaced; no shell is involved. The input is a file, complete
    before the program starts, and the program has a session of its own, so that it outlives this process unharmed.
    """

    def __init__(self, text: str) -> None:
        try:
            self.words = shlex.split(text)
        except ValueError as error:
            raise ConfigError(f"--command: {error}") from error
        if not self.words:
            raise ConfigError("--command: no program is named")
        for word in self.words:
            for name in names_in(word):
                if name not in PLACEHOLDERS:
                    raise ConfigError(f"--command: {{{name}}} is unknown; there are {', '.join(PLACEHOLDERS)}")
        if shutil.which(self.words[0]) is None:
            raise ConfigError(f"--command: no program {self.words[0]!r} on PATH that may be executed")
        self.key, self.place = channel_key("command", text), f"command {os.path.basename(self.words[0])}"  # noqa: PTH119

    def deliver(self, alert: Alert, at_send: AtSend) -> None:
        # An argument can hold no NUL; newlines are kept only in the text.
        values = {
            name: "" if alert.get(name) is None else "\n".join(map(printable, str(alert[name]).split("\n")))
            for name in PLACEHOLDERS
        }
        words = [word.format(**values) for word in self.words]
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(json.dumps(alert).encode() + b"\n")
            given.seek(0)
            at_send()
            try:
                process = subprocess.Popen(  # noqa: S603 - the user's own command, without a shell
                    words, stdin=given, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
                )
            except ValueError as error:
                raise RefusedError(f"{self.place} cannot be started: {error}") from error
            except OSError as error:
                reason = f"{self.place} cannot be started: {error.strerror}"
                raise (RefusedError if error.errno == errno.E2BIG else DeliveryError)(reason) from error
            try:
                code = process.wait(COMMAND_SECONDS)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise DeliveryError(f"{self.place} was still running after {COMMAND_SECONDS:g} s") from None
            if code:
                said.seek(0)
                lines = said.read(10_000).decode(errors="replace").split("\n")
                last = next((line.strip() for line in reversed(lines) if line.strip()), "")
                raise DeliveryError(f"{self.place} exited with {code}{': ' if last else ''}{last[:200]}")


def names_in(word: str) -> list[str]:
    """The placeholders of one argument. ConfigError if its braces do not match."""
    try:
        return [name for _, name, _, _ in Formatter().parse(word) if name is not None]
    except ValueError as error:
        raise ConfigError(f"--command: {error} in {word!r}; a brace itself is written twice") from error
