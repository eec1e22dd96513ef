"""The pages as one application: their addresses, what every error looks like, and what stands before them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from indexer.errors import ConfigError, IndexerError, StoreError
from indexer.queries.freshness import freshness
from indexer.report.style import STYLE
from indexer.web import alerts, at_risk, book, forecast, opportunities, state, wallet, what_if
from indexer.web.band import STALE_SECONDS, band, is_syncing
from indexer.web.desk import BusyError, Desk, TooSlowError
from indexer.web.events import Bell
from indexer.web.guard import LOOPBACK, Guard
from indexer.web.render import Shown, environment, refused, response
from indexer.web.twins import TYPES, of_dicts, twin

STATIC = Path(__file__).parent / "static"
#: answers shorter than this are sent as they are
SMALL = 1_000
Answer = Callable[[Request], Awaitable[Response]]


class Page(NamedTuple):
    """What shows a page, and what has its rows for programs."""

    shown: Callable[[Desk, Request], Shown]
    rows: Callable[[Desk, Request], tuple[Sequence[str], Iterable[Any]]]


#: path -> page; the twins of a path are the same with an ending
PAGES: Mapping[str, Page] = {
    "/at-risk": Page(at_risk.shown, at_risk.rows),
    "/wallet/{whom}": Page(wallet.shown, wallet.rows),
    "/book": Page(book.shown, book.rows),
    "/what-if": Page(what_if.shown, what_if.rows),
    "/opportunities": Page(opportunities.shown, opportunities.rows),
    "/forecast": Page(forecast.shown, forecast.rows),
    "/alerts": Page(alerts.shown, alerts.rows),
    "/sync": Page(state.shown, state.rows),
}


def application(
    desk: Desk, hosts: Collection[str] = LOOPBACK, token: str | None = None, *, bell: Bell | None = None
) -> Guard:
    """The whole desk; while it runs, one task watches the file."""
    bell = bell or Bell(desk)
    environment().get_template("at_risk.html")  # so that the first page need not wait for it

    @asynccontextmanager
    async def running(_app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(bell.watch())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            desk.close()

    app = Starlette(
        routes=routes(desk, bell),
        middleware=[Middleware(GZipMiddleware, minimum_size=SMALL)],
        exception_handlers=dict.fromkeys((IndexerError, HTTPException, Exception), told),
        lifespan=running,
    )
    return Guard(app, hosts, token)  # outside everything, answers to defects included


def routes(desk: Desk, bell: Bell) -> list[BaseRoute]:
    found: list[BaseRoute] = [
        Route("/healthz", partial(health, desk)),
        Route("/events", bell.stream),
        Route("/band", partial(strip, desk)),
        Route("/static/report.css", style),
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/wallet", partial(search, desk)),
        Route("/", partial(show, desk, at_risk.shown)),
    ]
    for path, page in PAGES.items():
        found += [Route(f"{path}.{form}", partial(rows, desk, page.rows, form)) for form in TYPES]
        found.append(Route(path, partial(show, desk, page.shown)))
    return found


def show(desk: Desk, page: Callable[[Desk, Request], Shown], request: Request) -> Response:
    return response(request, page(desk, request))


def rows(
    desk: Desk, page: Callable[[Desk, Request], tuple[Sequence[str], Iterable[Any]]], form: str, request: Request
) -> Response:
    columns, found = page(desk, request)
    lines = list(found)
    return of_dicts(lines, columns, form) if lines and isinstance(lines[0], Mapping) else twin(columns, lines, form)


def search(desk: Desk, request: Request) -> Response:
    """The search field's answer: the page of whom it found, else the field again with what was wrong."""
    page = wallet.shown(desk, request)
    if page.template == "wallet.html":
        return RedirectResponse(f"/wallet/{quote(wallet.of(request), safe='')}", 303)
    return response(request, page)


def strip(desk: Desk, _request: Request) -> Response:
    """Only what stands above every page."""
    with desk.read() as conn:
        above = band(conn, desk.session.db)
    module: Any = environment().get_template("band.html").module
    return HTMLResponse(module.strip(above, oob=False))


def style(_request: Request) -> Response:
    """The design that documents carry inside."""
    return Response(STYLE, media_type="text/css")


def health(desk: Desk, _request: Request) -> Response:
    """Whether rows can be read and are fresh: 200, else 503; no row is in it."""
    now = time.time()
    try:
        with desk.read() as conn:
            ages = [row.seconds(now) for row in freshness(conn)]
    except IndexerError:
        return JSONResponse({"status": "unreadable"}, 503)
    known = [seconds for seconds in ages if seconds is not None]
    status = "empty" if not known else "stale" if max(known) > STALE_SECONDS else "ok"
    told = {"status": status, "age_seconds": int(max(known)) if known else None, "syncing": is_syncing(desk.session.db)}
    return JSONResponse(told, 200 if status == "ok" else 503)


def told(request: Request, error: Exception) -> Response:
    """What a reader sees of an error; a defect is also logged, with its trace."""
    title, words, status = "That did not work", "The server met a defect; its log says which.", 500
    if isinstance(error, TooSlowError):
        title, status = "Too much at once", 503
        words = f"{error}: narrow it, for example by a protocol, a least debt or a lower health factor."
    elif isinstance(error, BusyError):
        title, words, status = "Busy", str(error), 429
    elif isinstance(error, StoreError):
        title, words, status = (
            "The database cannot be read now",
            f"{error}. This page comes back by itself when it can.",
            503,
        )
    elif isinstance(error, ConfigError):
        title, words, status = "Nothing is asked by that", str(error), 400
    elif isinstance(error, IndexerError):
        words, status = str(error), 503
    elif isinstance(error, HTTPException):
        title, words, status = "No such page", "The navigation above has all there are.", error.status_code
    if request.url.path.endswith(tuple(f".{form}" for form in TYPES)):
        return JSONResponse({"error": words}, status)
    return refused(request, title, words, status)
