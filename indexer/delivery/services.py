"""Alerts over apprise: text escaped for each service's format, refusals with their reason and pause, no secrets."""

import html
import importlib
import logging
import re
import smtplib
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from indexer.boundary.masking import mask, secrets
from indexer.delivery.channels import Alert, AtSend, Channel, DeliveryError, RefusedError, channel_key
from indexer.errors import ConfigError
from indexer.extras import how_to_install

#: apprise schemas whose host and path are an address of the user's own rather than a token
PLAIN_SCHEMAS = {"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos", "apprise", "apprises"}
#: services that render Markdown in what apprise sends them as plain text
MARKDOWN_AS_TEXT = {
    "NotifyDiscord", "NotifyFluxer", "NotifyGuilded", "NotifyMattermost", "NotifyNextcloudTalk", "NotifyRevolt", "NotifyZulip",
}  # fmt: skip
MARKUP = re.compile(r"[\\`*_~|<>\[\](){}#!]")
#: HTTP statuses of passing failures, and those that mean a wrong address or wrong credentials
PASSING_STATUS = {408, 429}
CHANNEL_STATUS = {401, 402, 403, 404, 405, 407, 410}
#: bytes of a service's answer that are read, unpacked
LARGEST_ANSWER = 2**18


class Apprise(Channel):
    """Any URL of apprise. https://github.com/caronc/apprise/wiki lists them.

    Labels, names and symbols come from strangers, so the text is escaped for the format each service shows. Apprise
    does so only in parts: not for Telegram, nor for services that render Markdown in what they declare as text.

    The alert's id goes along as `Idempotency-Key` where the service takes headers (JSON, XML and form webhooks, and
    mail, whose Message-ID it is too), and JSON webhooks get the whole alert under `alert`.
    """

    def __init__(self, url: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", DeprecationWarning
                )  # warnings from what its plugins import do not concern the user
                import apprise  # noqa: PLC0415 - an extra, and slow to import

                self.plugin: Any = instantiated(apprise, url)
        except ImportError as error:
            raise ConfigError(f"alerts over apprise need it: {how_to_install('alerts')}") from error
        self.url, self.place = url, masked(url)
        if self.plugin is None:
            raise ConfigError(f"{self.place} is no URL that apprise understands: github.com/caronc/apprise lists them")
        if hasattr(self.plugin, "smtp_host"):
            self.plugin.request_rate_per_sec = (
                0  # a mail server has its own limits; apprise's pause of 5.5 s is for unknown services
            )
        watch_sends()
        self.key = channel_key("apprise", url)
        self.format = self._written_format(apprise.NotifyFormat)
        self.titles = {"crossed": apprise.NotifyType.WARNING, "recovered": apprise.NotifyType.SUCCESS}

    def deliver(self, alert: Alert, at_send: AtSend) -> None:
        if hasattr(self.plugin, "headers"):
            self.plugin.headers["Idempotency-Key"] = alert["id"]
        if type(self.plugin).__name__ == "NotifyJSON":
            self.plugin.payload_extras["alert"] = dict(alert)
        REASONS.pop(threading.get_ident(), None)
        SENDING.begin(at_send, alert["id"])
        try:
            taken = self.plugin.notify(
                body=self.literal(alert["text"]),
                title=self.literal(alert["title"], title=True),
                notify_type=self.titles[alert["event"]],
                body_format=self.format,
            )
            answer = SENDING.answer
        finally:
            SENDING.end()
        if not taken:
            raise refusal(scrubbed(REASONS.pop(threading.get_ident(), "it was refused"), self.url), answer)

    def _written_format(self, formats: Any) -> Any:
        """Chooses the one format in which alerts are written for the service, and fixes it.

        That is the one its URL asks for, but plain text or HTML instead of Markdown where the service accepts either:
        apprise's translations of Markdown to a service's own dialect let links through.
        """
        declared = self.plugin.notify_format
        possible = list(declared) if isinstance(declared, list | tuple) else [declared]
        chosen = self.plugin.resolve_format(formats.TEXT)
        if chosen == formats.MARKDOWN:
            chosen = next((kind for kind in (formats.TEXT, formats.HTML) if kind in possible), chosen)
        self.plugin.notify_format = chosen
        return chosen

    def literal(self, text: str, *, title: bool = False) -> str:
        """The text escaped so that the service shows it literally: nothing in it is markup, a link or a mention."""
        if type(self.plugin).__name__ in MARKDOWN_AS_TEXT or self.format == "markdown":
            return MARKUP.sub(r"\\\g<0>", text).replace("@", "@\u200b")
        if self.format == "html" and not (title and self.plugin.title_maxlen > 0):  # such a title is a field of its own
            return html.escape(text).replace("\n", "<br/>\n")
        return text


@dataclass(frozen=True, slots=True)
class Refusal:
    """A service's refusal: an HTTP status or SMTP code, and when it asks to be tried again."""

    code: int
    smtp: bool = False
    retry_after: float | None = None


def refusal(reason: str, answer: Refusal | None) -> DeliveryError:
    """The error for a delivery that was not accepted: whether to try again, and when."""
    if answer is not None and str(answer.code) not in reason:
        reason = f"{reason} ({'SMTP' if answer.smtp else 'HTTP'} {answer.code})"
    named = re.search(r"retry after (\d{1,9})", reason, re.IGNORECASE)  # Telegram says so in its text
    after = answer.retry_after if answer else None
    if after is None and named:
        after = float(named[1])
    if answer is None or after is not None:
        return DeliveryError(reason, after)
    if answer.smtp:
        return RefusedError(reason) if 500 <= answer.code < 600 else DeliveryError(reason)
    if 400 <= answer.code < 500 and answer.code not in PASSING_STATUS:
        return RefusedError(reason, of_channel=answer.code in CHANNEL_STATUS)
    return DeliveryError(reason)


def instantiated(apprise: Any, url: str) -> Any:
    """Apprise's plugin for a URL, None if it has none."""
    try:
        return apprise.Apprise.instantiate(url, suppress_exceptions=False)
    except (TypeError, apprise.exception.AppriseException):
        return None


def masked(url: str) -> str:
    """The URL without anything that may be a secret; only the schema for services whose host is a token."""
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
    """What this thread is delivering, and the last refusal of a service."""

    at_send: AtSend | None = None
    message_id: str | None = None
    answer: Refusal | None = None

    def begin(self, at_send: AtSend, message_id: str) -> None:
        self.at_send, self.message_id, self.answer = at_send, message_id, None

    def end(self) -> None:
        self.at_send = self.message_id = self.answer = None


SENDING = Sending()
REASONS: dict[int, str] = {}  # thread -> apprise's last complaint


class Reasons(logging.Handler):
    """Keeps apprise's complaints by thread, as reasons of failed deliveries; none of them reaches a log."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        before = REASONS.get(record.thread or 0)
        REASONS[record.thread or 0] = f"{before} {text}" if before else text


def about_to_send(event: str, arguments: Sequence[Any]) -> None:
    """Python's audit hook: notifies a delivery that its last bytes are about to leave over HTTP or SMTP.

    http.client and smtplib raise these events right before each `sendall`, whichever service of apprise uses them. The
    head alone of a request with a body does not count yet, nor does a mail before its closing dot.
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
    """Installs, once, the hooks on what apprise logs and sends, and names mails after their alerts."""
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
        """The alert's own Message-ID, by which mail servers recognise a repeated message."""
        return f"<{SENDING.message_id}@{domain or 'localhost'}>" if SENDING.message_id else made(idstring, domain)

    mail.make_msgid = message_id
    note_answers()


def note_answers() -> None:
    """Makes `requests` and `smtplib`, which apprise sends with, record what a service refuses: apprise says too little."""
    import requests  # noqa: PLC0415 - apprise has imported it

    build = requests.adapters.HTTPAdapter.build_response
    send = smtplib.SMTP.sendmail

    def build_response(self: Any, request: Any, response: Any) -> Any:
        built = build(self, request, response)
        if SENDING.at_send is None:
            return built
        if built.status_code >= 400:
            SENDING.answer = Refusal(built.status_code, retry_after=seconds_of(built.headers.get("Retry-After")))
        # what it has to say is read here, before whoever asked reads all of it
        built._content = built.raw.read(LARGEST_ANSWER, decode_content=True)  # noqa: SLF001 - requests has no bound of its own
        built._content_consumed = True  # noqa: SLF001
        return built

    def sendmail(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return send(self, *args, **options)
        except smtplib.SMTPRecipientsRefused as error:
            SENDING.answer = Refusal(min(code for code, _ in error.recipients.values()), smtp=True)
            raise
        except smtplib.SMTPResponseException as error:
            SENDING.answer = Refusal(error.smtp_code, smtp=True)
            raise

    requests.adapters.HTTPAdapter.build_response = build_response  # type: ignore[assignment,method-assign]
    smtplib.SMTP.sendmail = sendmail  # type: ignore[method-assign]


def seconds_of(header: str | None) -> float | None:
    """The seconds of a Retry-After header, given as a number or a date; None if it is neither."""
    if header is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", header):
        return float(header)
    try:
        return max(parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None
