"""Who may read: the right host, the right origin, the right token; and what every answer forbids a browser.

A page of another site must not read these, whatever name it makes resolve to this machine (DNS rebinding): the request
names the host it is for, and only names that the user knows are answered.
"""

import hashlib
import hmac
from collections.abc import Collection, Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexer.errors import ConfigError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
COOKIE = "indexer_desk"
#: the shortest token that nobody guesses
TOKEN_CHARACTERS = 32
#: bytes of a token's file that are read
LONGEST_FILE = 4_096
#: open without the token, as it holds no row: for whoever only looks whether the server lives
OPEN = "/healthz"
READING = ("GET", "HEAD")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def token_of(path: Path) -> str:
    """The token in a file that only its owner can read. Raises `ConfigError` for one that others can, or that is short."""
    try:
        mode = path.stat().st_mode
        with path.open("rb") as stream:
            token = stream.read(LONGEST_FILE).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {path} cannot be read: {error}") from error
    if mode & 0o077:
        raise ConfigError(f"--token-file {path} can be read by others: chmod 600 {path}")
    if not TOKEN_CHARACTERS <= len(token) < LONGEST_FILE or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"--token-file {path} holds no token of at least {TOKEN_CHARACTERS} and below {LONGEST_FILE} ASCII characters: "
            f"python -c 'import secrets; print(secrets.token_urlsafe())' prints one"
        )
    return token


def name_of(host: str) -> str:
    """A host's name without its port, in lower case; empty for what is no host."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        return ""
    name = parts.hostname or ""
    return f"[{name}]" if ":" in name else name


class Guard:
    """Stands before the pages; `token` is asked of everyone if there is one."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = LOOPBACK, token: str | None = None) -> None:
        self.app = app
        self.hosts = frozenset(host.lower() for host in hosts)
        self.token = token
        self.cookie = "" if token is None else hmac.new(token.encode(), b"indexer desk", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["Cache-Control"] = "no-cache" if scope["path"].startswith("/static/") else "no-store"
            await send(message)

        answer = self.refusal(scope)
        await (self.app if answer is None else answer)(scope, receive, guarded)

    def refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that goes no further; None for one that may pass."""
        headers = Headers(scope=scope)
        if len(headers.getlist("host")) != 1 or name_of(headers["host"]) not in self.hosts:
            return PlainTextResponse(
                "This host name is not served here: indexer serve --host-name NAME allows one.\n", 400
            )
        if scope["method"] not in READING:
            return PlainTextResponse("Only GET is answered.\n", 405, {"Allow": ", ".join(READING)})
        if not all(self.own(origin) for origin in headers.getlist("origin")):
            return PlainTextResponse("Pages of other sites get no answer.\n", 403)
        return None if self.token is None or scope["path"] == OPEN else self.unknown(scope, headers)

    def own(self, origin: str) -> bool:
        parts = origin.split("://", 1)
        return len(parts) == 2 and parts[0] in ("http", "https") and name_of(parts[1]) in self.hosts

    def unknown(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to whoever has no cookie: one for the token, which leaves the address bar, or a refusal."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if given:
            assert self.token is not None
            if not hmac.compare_digest(given[-1].encode(), self.token.encode()):
                return PlainTextResponse("That is not the token.\n", 401)
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            where = "/" + quote(scope["path"].lstrip("/\\"))
            answer = RedirectResponse(where + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(COOKIE, self.cookie, httponly=True, samesite="lax", secure=scope.get("scheme") == "https")
            return answer
        if any(
            hmac.compare_digest(value.encode(), self.cookie.encode()) for value in cookies(headers.getlist("cookie"))
        ):
            return None
        return PlainTextResponse("Open this address once with ?token= and the token of the --token-file.\n", 401)


def cookies(headers: Iterable[str]) -> list[str]:
    """The values of our cookie."""
    found = []
    for header in headers:
        try:
            morsel = SimpleCookie(header).get(COOKIE)
        except CookieError:
            continue
        if morsel is not None:
            found.append(morsel.value)
    return found
