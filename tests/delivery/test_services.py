"""What strangers call their tokens, and people their wallets, is text on every service: no link, no mention, nothing lost."""

import gzip
import html
import re
import sqlite3
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from apprise.plugins.discord import NotifyDiscord
from apprise.plugins.slack import NotifySlack
from apprise.plugins.telegram import NotifyTelegram
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from indexer.delivery import outbox
from indexer.delivery.channels import PLACEHOLDERS
from indexer.delivery.outbox import DeliveryWorkers
from indexer.delivery.services import Apprise
from indexer.store.store import Store
from tests.delivery.test_alerts import delivered, queue, states
from tests.memory import peak
from tests.receivers import Chat, Mailbox, until

HOSTILE = [
    '<a href="https://evil.example">x</a>', "<script>alert(1)</script>", "Smith & Sons <main>", "[x](https://evil.example)",
    "<!channel>", "<https://evil.example|claim>", "@everyone", "<@123456789>", "*b* _i_ `c` ~s~ ||p||", "# heading", "\\[x](y)",
    "&lt;b&gt;",
]  # fmt: skip
TEXT = "\n".join(f"label {text} end" for text in HOSTILE)
TITLE = f"title {' '.join(HOSTILE)}"


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    with Chat() as chat:
        base = f"http://127.0.0.1:{chat.port}"
        monkeypatch.setattr(NotifyTelegram, "notify_url", f"{base}/bot")
        monkeypatch.setattr(NotifySlack, "webhook_url", base)
        monkeypatch.setattr(NotifyDiscord, "notify_url", base)
        yield chat


def send(url: str) -> Apprise:
    alert = {**dict.fromkeys(PLACEHOLDERS, ""), "id": "1", "event": "crossed", "title": TITLE, "text": TEXT}
    channel = Apprise(url)
    channel.deliver(alert, lambda: None)
    return channel


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_an_endless_answer_of_a_service_takes_no_memory(packed: bool) -> None:
    """64 MB, or what unpacks to it: they are not read, whatever the status says."""
    body = b" " * 2**26
    sent = gzip.compress(body, 1) if packed else body

    def answer(_request: Request) -> Response:
        return Response(sent, headers={"Content-Encoding": "gzip"} if packed else {})

    with HTTPServer() as server:
        server.expect_request("/hook").respond_with_handler(answer)
        url = server.url_for("/hook").replace("http://", "json://")
        assert peak(lambda: send(url)) < 2**25
    assert len(server.log) == 1


class Rendered(HTMLParser):
    """What a reader of HTML sees, and the tags it takes for markup."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen, self.tags = "", set[str]()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.seen += data


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.replace("\xa0", " ").splitlines() if line.strip()]


def without_markup(text: str) -> str:
    """CommonMark's backslash escapes taken back; AssertionError if a character that begins markup has none."""
    plain, place = "", 0
    while place < len(text):
        if text[place] == "\\" and not text[place + 1].isalnum():
            place += 1
        else:
            assert text[place] not in "\\`*_~|<>[]", text[max(place - 20, 0) : place + 20]
        plain += text[place]
        place += 1
    return plain


@pytest.mark.parametrize("options", ["", "?format=markdown", "?format=html"])
def test_telegram_shows_hostile_text_as_text(chat: Chat, options: str) -> None:
    send(f"tgram://123456789:AAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/42424242{options}")
    ((_, body),) = chat.posted
    assert body["parse_mode"] == "HTML"
    rendered = Rendered(body["text"])
    assert rendered.tags == {"b"}  # the title's own
    assert lines_of(rendered.seen) == [TITLE, *lines_of(TEXT)]


@pytest.mark.parametrize("options", ["", "?format=markdown", "?format=text"])
def test_slack_shows_hostile_text_as_text(chat: Chat, options: str) -> None:
    chat.slack = True
    send(f"slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#room{options}")
    ((_, body),) = chat.posted
    (attachment,) = body["attachments"]
    assert body["mrkdwn"] is False
    for text, given in ((attachment["title"], TITLE), (attachment["text"], TEXT)):
        assert not re.search("[<>]", text)  # <!channel>, <@U1> and <url|text> are all there is to links and mentions
        assert html.unescape(text) == given


@pytest.mark.parametrize("options", ["", "?format=markdown"])
def test_discord_shows_hostile_text_as_text(chat: Chat, options: str) -> None:
    send(f"discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV{options}")
    ((_, body),) = chat.posted
    if options:
        (embed,) = body["embeds"]
        text = f"{embed['title']}\n{embed['description']}"
    else:
        text = body["content"]
    assert not re.search("@(everyone|here|[!&]?[0-9])", text)
    assert lines_of(without_markup(text).replace("\u200b", "")) == [TITLE, *lines_of(TEXT)]


@pytest.mark.parametrize("options", ["", "?format=markdown", "?format=html"])
def test_matrix_shows_hostile_text_as_text(chat: Chat, options: str) -> None:
    send(f"matrix://u:p@127.0.0.1:{chat.port}/!r:h{options}")
    (body,) = [body for path, body in chat.posted if "/send/" in path]
    assert lines_of(body["body"].removeprefix("# ")) == [TITLE, *lines_of(TEXT)]
    if "formatted_body" in body:
        rendered = Rendered(body["formatted_body"].replace("</h1>", "\n</h1>"))
        assert rendered.tags <= {"h1", "br"}
        assert lines_of(rendered.seen) == [TITLE, *lines_of(TEXT)]


def test_html_mail_shows_hostile_text_as_text() -> None:
    with Mailbox() as mailbox:
        send(mailbox.url.replace("format=text", "format=html"))
        (mail,) = mailbox.taken
    (part,) = [part for part in mail.walk() if part.get_content_type() == "text/html"]
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    rendered = Rendered(payload.decode())
    assert rendered.tags <= {"html", "head", "body", "br", "b"}
    for line in lines_of(TEXT):
        assert line in lines_of(rendered.seen)


@pytest.mark.slow
def test_telegrams_retry_after_is_honoured(chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAUSES", (0.05,))
    path = tmp_path / "alerts.db"
    with Store(path):
        pass
    refusal = {"ok": False, "error_code": 429, "description": "Too Many Requests: retry after 3", "parameters": {"retry_after": 3}}  # fmt: skip
    chat.refusals.append((429, refusal))
    channel = Apprise("tgram://123456789:AAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/42424242")
    queue(path, [channel.key], 1, account="0xa")
    queue(path, [channel.key], 1, account="0xb")
    with DeliveryWorkers(path, [channel], 3600):
        until(lambda: not chat.refusals and states(path) == ["pending", "pending"])
        with sqlite3.connect(path) as conn:
            until(lambda: conn.execute("select max(next_attempt_at) from deliveries").fetchone()[0] > time.time() + 1)
        time.sleep(0.5)
        assert chat.posted == []
        until(delivered(path))
    assert len(chat.posted) == 2
