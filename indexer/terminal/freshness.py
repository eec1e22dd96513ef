"""Tells people, and the exit code, how old the rows are that a command shows."""

import functools
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import click

from indexer.queries.freshness import Freshness, described, freshness
from indexer.text.console import remark

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")

#: the default of --max-age where the exit code depends on it, in seconds
MAX_AGE_SECONDS = 600.0
UNITS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
ANYONE_LISTED, NOBODY_KNOWS = 3, 1
#: where a command that read something else than the file leaves of which blocks its rows are
AGES = "indexer.ages"


def seconds_of(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """A time span in seconds: 90s, 10m, 2h, 7d; a bare number is seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(s|m|min|h|d|w)?\s*", value, re.ASCII)
    if found is None:
        raise click.BadParameter(f"{value!r} is no time span: 90s, 10m, 2h or 7d")
    return float(found[1]) * UNITS[found[2] or "s"]


def max_age_option(text: str) -> Callable[[F], F]:
    return click.option("--max-age", callback=seconds_of, metavar="AGE", help=text)


def fails_when_old(command: Callable[P, None]) -> Callable[P, None]:
    """Adds --max-age to a command that reads the database: exit code 1, after its rows, if they are old or incomplete."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        max_age: Any = kwargs.pop("max_age")
        command(*args, **kwargs)
        if max_age is None or kwargs.get("live"):
            return
        asked: Any = kwargs.get("asked")
        chosen: Any = {
            name: kwargs.get(name) or getattr(asked, name, None) or () for name in ("protocols", "deployments")
        }
        context = click.get_current_context()
        ages: Any = context.meta.get(AGES)
        if ages is None:
            with context.obj.opened() as conn:
                ages = freshness(conn, **chosen)
        code = verdict(ages, listed=False, exit_code=False, max_age=max_age)
        if code:
            raise SystemExit(code)

    return max_age_option("Exit with 1 if rows are older than this (10m, 2h), failed or incomplete.")(wrapped)


def say(conn: sqlite3.Connection, deployments: Sequence[str] = (), *, only_old: bool = False) -> None:
    """Prints on stderr the block and the age of the rows, of all or these deployments, or of those with old rows."""
    now = time.time()
    rows = [
        row
        for row in freshness(conn, deployments=deployments)
        if not only_old or (row.seconds(now) or 0) > MAX_AGE_SECONDS
    ]
    for line in described(rows, now):
        remark(line)


def verdict(
    rows: Sequence[Freshness], *, listed: bool, exit_code: bool, max_age: float | None, nothing: bool = False
) -> int:
    """The exit code for rows that were shown; deployments about which nothing is certain are named on stderr.

    0 unless `--exit-code` or `--max-age` is given; 3 if anyone is listed; else 1 if a deployment is failed, incomplete,
    never synced or too old, or there is none (`nothing`).
    """
    if not exit_code and max_age is None:
        return 0
    now = time.time()
    limit = MAX_AGE_SECONDS if max_age is None else max_age
    blind = False
    for row in rows:
        doubt = row.doubt(now, limit)
        if doubt is not None:
            blind = True
            remark(f"{row.deployment} {doubt}: its present state is unknown")
    if listed:
        return ANYONE_LISTED
    return NOBODY_KNOWS if blind or nothing or not rows else 0
