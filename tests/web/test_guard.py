"""Who may read: hosts, origins, methods, the token, and what every answer forbids a browser."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from indexer.cli.main import main
from indexer.errors import ConfigError
from indexer.web.app import PAGES, application, routes
from indexer.web.desk import Desk
from indexer.web.events import Bell
from indexer.web.guard import COOKIE, HEADERS, Guard, name_of, token_of

TOKEN = "correct-horse-battery-staple-0123456789"
PATHS = ["/", "/at-risk.json", "/sync", "/wallet", "/events", "/static/desk.js", "/nothing", "/healthz"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8420", "127.0.0.1.evil.example", "localhost@evil.example", "", "a/b"]
)
def test_another_host_name_is_refused(client: TestClient, path: str, host: str) -> None:
    """A page of another site may make its own name resolve to this machine; its requests still carry that name."""
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == 400
    assert "0x" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8420", "localhost:1", "LOCALHOST", "[::1]:8420"])
def test_names_of_this_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/sync", headers={"Host": host}).status_code == 200


def test_a_name_that_the_user_gives_is_answered(desk: Desk) -> None:
    with TestClient(application(desk, ["desk.example.org"]), base_url="http://desk.example.org") as found:
        assert found.get("/sync").status_code == 200
        assert found.get("/sync", headers={"Host": "localhost"}).status_code == 400


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://evil.example", 403), ("null", 403), ("http://127.0.0.1.evil.example", 403), ("file://", 403),
     ("http://127.0.0.1:8420", 200), ("http://localhost:3000", 200)],
)  # fmt: skip
def test_pages_of_other_sites_get_no_answer(client: TestClient, origin: str, status: int) -> None:
    assert client.get("/at-risk.json", headers={"Origin": origin}).status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"])
@pytest.mark.parametrize("path", PATHS)
def test_only_reading_is_answered(client: TestClient, path: str, method: str) -> None:
    assert client.request(method, path).status_code == 405


def test_no_route_takes_anything_but_reading(desk: Desk) -> None:
    taken = {method for route in routes(desk, Bell(desk)) for method in getattr(route, "methods", None) or ()}
    assert taken == {"GET", "HEAD"}


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/events"])
def test_every_answer_forbids_what_a_page_does_not_need(client: TestClient, path: str) -> None:
    for headers in ({}, {"Host": "evil.example"}):
        answer = client.get(path, headers=headers)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert answer.headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")
        assert "server" not in answer.headers


def test_a_defect_is_answered_with_the_same_headers_and_tells_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_desk: Desk) -> None:
        raise RuntimeError("/home/someone/secret")

    monkeypatch.setattr(Desk, "read", fails)
    with TestClient(application(desk), base_url="http://localhost", raise_server_exceptions=False) as found:
        answer = found.get("/sync")
    assert answer.status_code == 500
    assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
    assert "secret" not in answer.text


def test_pages_hold_no_script_and_no_style_of_their_own(client: TestClient) -> None:
    """So that the policy needs no exception for them."""
    for path in PAGES:
        text = client.get(path.replace("{whom}", "0x" + "12" * 20)).text
        assert "<style" not in text
        assert " style=" not in text
        assert "javascript:" not in text
        assert text.count("<script") == text.count("<script src=") > 0


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
    ],
)
def test_nothing_beside_the_static_files_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "import" not in answer.text
    assert "root:" not in answer.text


# the token ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(desk: Desk) -> TestClient:
    return TestClient(application(desk, token=TOKEN), base_url="http://127.0.0.1:8420")


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/healthz"])
def test_nothing_is_shown_without_the_token(guarded: TestClient, path: str) -> None:
    for headers in (
        {},
        {"Cookie": f"{COOKIE}=0"},
        {"Cookie": f"{COOKIE}={TOKEN}"},
        {"Cookie": "x=\u00e9".encode("latin-1").decode("latin-1")},
    ):
        answer = guarded.get(path, headers={name: value.encode("latin-1") for name, value in headers.items()})
        assert answer.status_code == 401
        assert "0x" not in answer.text
    assert guarded.get(f"{path}?token=wrong").status_code == 401
    assert guarded.get(f"{path}?token=").status_code == 401


def test_the_token_is_taken_once_and_leaves_the_address(guarded: TestClient) -> None:
    answer = guarded.get(f"/at-risk?below=2&token={TOKEN}&sort=health", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/at-risk?below=2&sort=health")
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "httponly" in cookie.lower()
    assert "samesite=lax" in cookie.lower()
    assert "secure" not in cookie.lower()
    assert guarded.get("/at-risk").status_code == 200


def test_the_cookie_stays_on_https_where_the_token_came_by_it(desk: Desk) -> None:
    with TestClient(application(desk, token=TOKEN), base_url="https://127.0.0.1") as found:
        assert "secure" in found.get(f"/?token={TOKEN}", follow_redirects=False).headers["set-cookie"].lower()


def test_the_token_leads_to_no_other_site(guarded: TestClient) -> None:
    for path in ("//evil.example/", "/\\evil.example/", "///evil.example"):
        answer = guarded.get(f"http://127.0.0.1:8420{path}?token={TOKEN}", follow_redirects=False)
        assert answer.headers.get("location", "/x")[1:2] not in ("/", "\\")


@pytest.mark.parametrize(
    ("text", "mode", "wrong"),
    [
        (TOKEN, 0o644, "chmod 600"),
        ("short", 0o600, "at least 32"),
        ("", 0o600, "at least 32"),
        ("\u00e9" * 40, 0o600, "ASCII"),
        ("t" * 10**6, 0o600, "below 4096"),
    ],
)
def test_a_weak_token_is_refused(tmp_path: Path, text: str, mode: int, wrong: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=wrong) as refused:
        token_of(path)
    assert not text or text not in str(refused.value)


@given(
    st.lists(st.tuples(st.sampled_from([b"host", b"cookie", b"origin"]), st.binary(max_size=60)), max_size=4),
    st.binary(max_size=60),
)
@example([(b"cookie", f'{COOKIE}="\\377\\000"; '.encode())], b"token=%ED%A0%80&token=%00")
@example([(b"host", b"[::1]:99999"), (b"host", b"[")], b"")
@example([(b"host", b"127.0.0.1"), (b"origin", b"http://[")], b"token=\xff")
def test_any_header_and_query_is_answered(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": query, "headers": headers}
    for token in (None, TOKEN):
        answer = Guard(lambda *_: None, token=token).refusal(scope)  # type: ignore[arg-type, return-value]
        assert answer is None or 300 <= answer.status_code < 500


def test_a_good_token_is_read_without_the_line_end(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    assert token_of(path) == TOKEN
    with pytest.raises(ConfigError, match="cannot be read"):
        token_of(tmp_path / "none")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("LocalHost:80", "localhost"),
        ("[::1]:80", "[::1]"),
        ("a@b", ""),
        ("a/b", ""),
        ("a:x", ""),
        ("[::1", ""),
        ("a?b", ""),
    ],
)
def test_the_name_of_a_host(host: str, name: str) -> None:
    assert name_of(host) == name


# the verb -------------------------------------------------------------------------------------------------------------


def refused(database: Path, *flags: str) -> str:
    result = CliRunner().invoke(main, ["--db", str(database), "serve", *flags])
    assert result.exit_code != 0
    return result.output


@pytest.mark.parametrize("bind", ["0.0.0.0", "192.0.2.1", "::"])
def test_beyond_this_machine_a_token_is_required(database: Path, bind: str) -> None:
    assert "--token-file" in refused(database, "--bind", bind)


def test_what_serve_refuses(database: Path) -> None:
    assert "CHAIN.db" in refused(database.parent, "--sync")
    assert "no address" in refused(database, "--bind", "elsewhere.example")
    assert "are for --sync" in refused(database, "--rpc-url", "http://127.0.0.1:1")
    assert "cannot be read" in refused(database, "--token-file", os.devnull + "/x")


def test_a_taken_port_names_the_flag(database: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(main, ["--db", str(database), "serve", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "choose another with --port" in result.output
