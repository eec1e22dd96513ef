"""The page Book: all positions by health factor, deployment and asset, the largest wallets, and how concentrated it is."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from starlette.requests import Request

from indexer.queries import exports
from indexer.queries.exports import Kind
from indexer.report.book import book
from indexer.report.document import Report
from indexer.web.band import band
from indexer.web.desk import Desk
from indexer.web.render import Shown, sections


def made(conn: sqlite3.Connection) -> Report | None:
    return book(conn)


def shown(desk: Desk, _request: Request) -> Shown:
    with desk.read() as conn:
        above = band(conn, desk.session.db)
    report, fresh = desk.kept("book", made)
    return Shown(
        "Book",
        "book.html",
        {
            "report": None if report is None else sections(report),
            "as_of": None if report is None else report.as_of,
            "fresh": fresh,
        },
        above,
        twin="/book.{form}",
    )


def rows(desk: Desk, _request: Request) -> tuple[Sequence[str], Iterable[Any]]:
    """The rows of `export markets`."""
    with desk.read() as conn:
        columns, found = exports.select(conn, Kind.MARKETS)
        return columns, list(found)
