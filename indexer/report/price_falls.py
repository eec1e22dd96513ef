"""How much of the book becomes liquidatable if prices fall by 10, 20 and 30 %, evaluated as `simulate` does."""

import sqlite3
from collections.abc import Sequence
from fractions import Fraction

from indexer.adapter import WhatIf
from indexer.config import Config
from indexer.progress import Progress
from indexer.report.charts import Bars
from indexer.report.document import Section
from indexer.risk import simulate as simulating
from indexer.risk.scenario import GROUPS, Change, Names, Scenario, Sweep, canonical, named
from indexer.store import books as stored
from indexer.store.deployments import described

SHARES = tuple(Fraction(-tenths, 10) for tenths in range(4))
STABLE = "stablecoins"
VOLATILE = f"everything but {STABLE}"
HIDDEN = ("block_number", "block_time")


def falls(
    conn: sqlite3.Connection,
    config: Config,
    name: str | None,
    protocols: Sequence[str],
    deployments: Sequence[str],
    progress: Progress,
) -> Section | None:
    """One row per fall, from 0 % on; `name` is an asset or a group, None for every asset but the stablecoins.

    Raises `ConfigError` for an unknown name. None where nothing is synced.
    """
    rows = stored.deployments(conn, protocols=protocols, names=deployments)
    found = described(conn, lambda: config.deployments)
    known = [row for row in rows if row["deployment"] in found]
    if not rows:
        return None
    left = sorted({row["deployment"] for row in rows} - {row["deployment"] for row in known})
    notes = (
        [f"Not computed for {', '.join(left)}, whose addresses neither the file nor the configuration has."]
        if left
        else []
    )
    known, lacking = stored.able(known, WhatIf)
    if lacking:
        notes.append(
            f"Not computed for {', '.join(lacking)}: that protocol does not say what other prices would do to it."
        )
    title = f"Liquidatable if prices fall: {name or VOLATILE}"
    if not known:
        return Section(title, notes=notes)
    books = stored.load(conn, known, found)
    groups = {**GROUPS, **config.groups}
    names = Names({**groups, VOLATILE: volatile(books, frozenset(map(canonical, groups[STABLE])))})
    if name is not None:
        (change,) = names.spelt(
            [Change(name)], [(book.market, book.adapter.quotes(book.market).prices) for book in books]
        )
        name = change.name
    swept = Sweep(name or VOLATILE, SHARES)
    steps = simulating.sweep(
        books, Scenario(), swept, names, at_risk_below=config.settings.at_risk_below, progress=progress
    )
    lines = simulating.sweep_rows(books, steps)
    columns = [column for column in lines[0] if column not in HIDDEN]
    notes.append(
        "Positions that the contracts' own test calls liquidatable at those prices, with their debt and collateral in USD at them; "
        "bad_debt: the debt beyond the collateral. Other prices stay as they are."
    )
    notes += simulating.remarks(books, Scenario(), names)
    chart = Bars(
        "Liquidatable debt by fall in price", "USD", [(f"{r['change_percent']:g} %", r["debt_usd"]) for r in lines]
    )
    return Section(title, columns, [[line[column] for column in columns] for line in lines], notes, [chart])


def volatile(books: Sequence[stored.Book], stable: frozenset[str]) -> list[str]:
    """The keys (assets, ilks) whose symbol is not a stablecoin's."""
    found = set()
    for book in books:
        for key, called in named(book.market, book.adapter.quotes(book.market).prices).items():
            if len(called) > 1 and called.isdisjoint(stable):
                found.add(key)
    return sorted(found)
