"""The ways an alert leaves: anything apprise knows, a command, standard output. What is secret in them is never shown.

A channel says, by calling `at_send`, when the message is about to become irrevocable: right before the last bytes of
it are handed to the system. See `indexer.alert.outbox` for what that is good for.
"""

import importlib
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from string import Formatter
from typing import Any

from indexer.errors import ConfigError, IndexerError
from indexer.extras import how_to_install
from indexer.masking import mask, secrets

Alert = Mapping[str, Any]
AtSend = Callable[[], None]

COMMAND_SECONDS = 60.0
#: what a command's arguments may name between braces
PLACEHOLDERS = ("id", "event", "rule", "wallet", "label", "chain", "protocol", "deployment", "health_factor", "text")
#: apprise schemas whose host and path are an address of the user's own rather than a token
PLAIN_SCHEMAS = {"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos", "apprise", "apprises"}


class DeliveryError(IndexerError):
    """An alert was not taken; str() is the reason, without secrets. It is tried again."""


class GoneError(DeliveryError):
    """Nobody will ever read there again in this process."""


class Channel(ABC):
    """One place that alerts go to. `key` tells it from others across runs, `place` names it to people."""

    key: str
    place: str

    @abstractmethod
    def deliver(self, alert: Alert, at_send: AtSend) -> None:
        """Returns once the alert is taken. DeliveryError if it was not, or if nobody knows."""


def channel_key(kind: str, address: str) -> str:
    return f"{kind}-{sha256(address.encode()).hexdigest()[:16]}"


class Stdout(Channel):
    """JSON, one object a line, on standard output."""

    key = place = "stdout"

    def deliver(self, alert: Alert, at_send: AtSend) -> None:
        line = json.dumps(alert).replace("\x7f", "\\u007f") + "\n"
        at_send()
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except (OSError, ValueError) as error:
            raise GoneError(f"standard output is closed ({error})") from error


class Command(Channel):
    """A program of the user's: the alert as JSON on its standard input, taken if it exits with 0.

    Words such as {wallet} in its arguments are replaced; no shell is involved. The input is a file that is complete
    before the program starts, and the program has a session of its own, so the end of this process cannot cut it off.
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
        values = {name: "" if alert[name] is None else str(alert[name]) for name in PLACEHOLDERS}
        words = [word.format(**values) for word in self.words]
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(json.dumps(alert).encode() + b"\n")
            given.seek(0)
            at_send()
            try:
                process = subprocess.Popen(  # noqa: S603 - the user's own command, without a shell
                    words, stdin=given, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
                )
            except OSError as error:
                raise DeliveryError(f"{self.place} cannot be started: {error.strerror}") from error
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


@dataclass(frozen=True, slots=True)
class Places:
    """Where alerts go, as the user wrote it."""

    urls: tuple[str, ...] = field(default=(), repr=False)
    command: str | None = field(default=None, repr=False)
    stdout: bool = False

    def channels(self) -> list[Channel]:
        """The channels. ConfigError for one that cannot work."""
        found: list[Channel] = [Apprise(url) for url in self.urls]
        if self.command is not None:
            found.append(Command(self.command))
        if self.stdout:
            found.append(Stdout())
        return found


# apprise --------------------------------------------------------------------------------------------------------------


class Apprise(Channel):
    """Any URL of apprise. https://github.com/caronc/apprise/wiki lists them.

    The alert's id goes along as `Idempotency-Key` where the service takes headers (JSON, XML and form webhooks, and
    mail, whose Message-ID it is too), and JSON webhooks get the whole alert under `alert`.
    """

    def __init__(self, url: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # what its plugins import is not the user's affair
                import apprise  # noqa: PLC0415 - an extra, and slow to import

                self.plugin: Any = instantiated(apprise, url)
        except ImportError as error:
            raise ConfigError(f"alerts over apprise need it: {how_to_install('alerts')}") from error
        self.url, self.place = url, masked(url)
        if self.plugin is None:
            raise ConfigError(f"{self.place} is no URL that apprise understands: github.com/caronc/apprise lists them")
        if hasattr(self.plugin, "smtp_host"):
            self.plugin.request_rate_per_sec = 0  # a mail server has its own limits; 5.5 s is for those unknown
        watch_sends()
        self.key = channel_key("apprise", url)
        self.titles = {"crossed": apprise.NotifyType.WARNING, "recovered": apprise.NotifyType.SUCCESS}

    def deliver(self, alert: Alert, at_send: AtSend) -> None:
        if hasattr(self.plugin, "headers"):
            self.plugin.headers["Idempotency-Key"] = alert["id"]
        if type(self.plugin).__name__ == "NotifyJSON":
            self.plugin.payload_extras["alert"] = dict(alert)
        REASONS.pop(threading.get_ident(), None)
        SENDING.at_send, SENDING.message_id = at_send, alert["id"]
        try:
            taken = self.plugin.notify(
                body=alert["text"], title=alert["title"], notify_type=self.titles[alert["event"]], body_format="text"
            )
        finally:
            SENDING.at_send = SENDING.message_id = None
        if not taken:
            raise DeliveryError(scrubbed(REASONS.pop(threading.get_ident(), "it was refused"), self.url))


def instantiated(apprise: Any, url: str) -> Any:
    """Apprise's plugin for a URL, None if it knows none."""
    try:
        return apprise.Apprise.instantiate(url, suppress_exceptions=False)
    except (TypeError, apprise.exception.AppriseException):
        return None


def masked(url: str) -> str:
    """The URL without what may be a secret; of services whose host is a token, only the schema is left."""
    schema, separator, _ = url.partition("://")
    if not separator or not re.fullmatch(r"[a-zA-Z0-9+.-]{1,20}", schema):
        return "<malformed URL>"
    return mask(url) if schema.lower() in PLAIN_SCHEMAS else f"{schema}://***"


def scrubbed(text: str, url: str) -> str:
    """One line of a service's answer without the secrets of its URL."""
    hidden = secrets(url)
    if url.partition("://")[0].lower() not in PLAIN_SCHEMAS:
        hidden = sorted({*hidden, *re.split(r"[/:@?&=#,]+", url)[1:]}, key=len, reverse=True)
    for part in hidden:
        if len(part) >= 3:
            text = text.replace(part, "***")
    return " ".join(text.split())[:300]


class Sending(threading.local):
    """What this thread is delivering."""

    at_send: AtSend | None = None
    message_id: str | None = None


SENDING = Sending()
REASONS: dict[int, str] = {}  # thread -> what apprise last complained about


class Reasons(logging.Handler):
    """Keeps apprise's complaints, by thread, as the reasons of failed deliveries; nothing of them reaches a log."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        before = REASONS.get(record.thread or 0)
        REASONS[record.thread or 0] = f"{before} {text}" if before else text


def about_to_send(event: str, arguments: Sequence[Any]) -> None:
    """Python's audit hook: tells a delivery that its last bytes are about to leave over HTTP or SMTP.

    http.client and smtplib raise these events right before each `sendall`, whichever service of apprise uses them. Of
    a request with a body the head alone sends nothing, and of a mail nothing counts before the closing dot.
    """
    if event not in ("http.client.send", "smtplib.send"):
        return
    at_send = SENDING.at_send
    if at_send is None:
        return
    data = arguments[1]
    if not isinstance(data, bytes | bytearray):
        data = str(data).encode(errors="replace")
    if event == "smtplib.send":
        if bytes(data).endswith(b"\r\n.\r\n"):
            at_send()
        return
    head = bytes(data[:8192]).lower()
    with_body = re.search(rb"\r\ncontent-length: [1-9]|\r\ntransfer-encoding:", head)
    if data.endswith(b"\r\n\r\n") and with_body and re.match(rb"[a-z]+ \S+ http/1", head):
        return
    at_send()


HOOKED = threading.Event()


def watch_sends() -> None:
    """Listens, once, to what apprise logs and sends; names mails after their alerts."""
    if HOOKED.is_set():
        return
    HOOKED.set()
    logger = logging.getLogger("apprise")
    logger.handlers, logger.propagate = [Reasons(logging.WARNING)], False
    logger.setLevel(logging.WARNING)
    sys.addaudithook(about_to_send)
    mail: Any = importlib.import_module("apprise.plugins.email.base")
    made = mail.make_msgid

    def message_id(idstring: str | None = None, domain: str | None = None) -> str:
        """The alert's own Message-ID, by which mail servers know a message again."""
        return f"<{SENDING.message_id}@{domain or 'localhost'}>" if SENDING.message_id else made(idstring, domain)

    mail.make_msgid = message_id
