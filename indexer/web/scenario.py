"""A scenario in an address: prices that change, time that passes; computed as `indexer simulate` computes it."""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from indexer.adapter import WhatIf
from indexer.errors import ConfigError
from indexer.queries.markets import totals, weightiest
from indexer.risk import simulate as simulating
from indexer.risk.scenario import GROUPS, Change, Names, Scenario, Sweep, canonical, spelt
from indexer.store import books as loading
from indexer.text.values import printable
from indexer.web.asked import number, text_of
from indexer.web.desk import Desk

#: a slider's name in an address is this and the asset's
PREFIX = "price."
#: the ends of a slider, in per cent
LOWEST, HIGHEST = -99, 100
SLIDERS = 8
MOST_DAYS = 3_650


@dataclass(frozen=True, slots=True)
class Assumed:
    """What an address supposes: changes of prices in per cent by name, more of them as on the command line, days of interest."""

    prices: tuple[tuple[str, float], ...] = ()
    also: str = ""
    days: float = 0.0
    sweep: str = ""

    @classmethod
    def of(cls, query: QueryParams) -> "Assumed":
        """Reads an address. Raises `ConfigError` for what is no change."""
        prices = []
        for name in query:
            if name.startswith(PREFIX) and len(name) > len(PREFIX):
                value = number(query, name, LOWEST, HIGHEST)
                if value:
                    prices.append((name.removeprefix(PREFIX), value))
        return cls(
            tuple(prices), text_of(query, "also"), number(query, "days", 0, MOST_DAYS) or 0.0, text_of(query, "sweep")
        )

    def __bool__(self) -> bool:
        return bool(self.prices or self.also or self.days or self.sweep)

    @property
    def supposes(self) -> bool:
        """Whether there is more than a curve to draw."""
        return bool(self.prices or self.also or self.days)

    def percent(self, name: str) -> float:
        return dict(self.prices).get(name, 0.0)

    @property
    def shocks(self) -> list[str]:
        """As `simulate --shock` takes them."""
        given = [f"{name}={value:+.15g}%" for name, value in self.prices]
        return given + [text for text in self.also.replace(",", " ").split() if text]

    @property
    def command(self) -> str:
        """What prints the same rows in a terminal."""
        parts = [f"--shock {text}" for text in self.shocks]
        parts += [f"--days {self.days:g}"] if self.days else []
        parts += [f"--sweep {self.sweep}"] if self.sweep else []
        return " ".join(["indexer simulate", *parts])


def sliders_of(conn: sqlite3.Connection, wallets: Sequence[str]) -> list[str]:
    """The symbols that matter most to these wallets, by what they hold and owe of them."""
    return [symbol for symbol in weightiest(conn, wallets, SLIDERS) if named(symbol)]


def sliders_of_all(desk: Desk, conn: sqlite3.Connection) -> list[str]:
    """The groups that have a member here, then the symbols of which most is supplied or owed."""
    sums: dict[str, float] = defaultdict(float)
    for symbol, supplied, owed, decimals, price in totals(conn):
        sums[symbol] += max(int(supplied or 0), int(owed or 0)) / 10**decimals * (price or 0.0)
    groups = [name for name, members in names_of(desk).groups.items() if not members.isdisjoint(map(canonical, sums))]
    largest = sorted(sums, key=lambda symbol: (-sums[symbol], symbol))
    return [*groups, *(symbol for symbol in largest if named(symbol))][: SLIDERS + len(groups)]


def named(symbol: str) -> bool:
    """Whether a symbol can be written as NAME=-20% and read back."""
    return bool(symbol) and symbol == printable(symbol) and not set("= ,") & set(symbol)


def books_of(desk: Desk, conn: sqlite3.Connection, wallets: Sequence[str] = ()) -> list[loading.Book]:
    """The books of every deployment whose protocol says what other prices would do to it."""
    rows, _ = loading.able(loading.deployments(conn), WhatIf)
    known = desk.session.deployments(conn)
    return loading.load(conn, [row for row in rows if row["deployment"] in known], known, wallets=wallets)


def names_of(desk: Desk) -> Names:
    return Names({**GROUPS, **desk.session.config.groups})


def scenario_of(
    desk: Desk, conn: sqlite3.Connection, assumed: Assumed, books: Sequence[loading.Book]
) -> tuple[Scenario, Sweep | None]:
    """The scenario with every name as the books write it. Raises `ConfigError` for a name that none of them has."""
    if not books:
        raise ConfigError("nothing is synced whose protocol says what other prices would do to it")
    swept = (
        Sweep.parse(assumed.sweep if "=" in assumed.sweep else f"{assumed.sweep}=0..-60%") if assumed.sweep else None
    )
    pace = simulating.seconds_per_block(conn, books[0].chain_id)
    markets = [(book.adapter, book.market) for book in books]
    return spelt(
        markets, names_of(desk), [Change.shock(text) for text in assumed.shocks], [], swept, assumed.days, pace
    )


def computed(
    desk: Desk, conn: sqlite3.Connection, assumed: Assumed, wallets: Sequence[str] = ()
) -> simulating.Simulation:
    """The outcome: of wallets all of their positions, else those that become liquidatable."""
    books = books_of(desk, conn, wallets)
    scenario, _ = scenario_of(desk, conn, assumed, books)
    return simulating.simulate(
        books,
        scenario,
        names_of(desk),
        at_risk_below=desk.session.config.settings.at_risk_below,
        every=bool(wallets),
    )


def swept_rows(desk: Desk, conn: sqlite3.Connection, assumed: Assumed) -> list[dict[str, Any]]:
    """The rows of `simulate --sweep`."""
    books = books_of(desk, conn)
    scenario, swept = scenario_of(desk, conn, assumed, books)
    assert swept is not None
    steps = simulating.sweep(
        books, scenario, swept, names_of(desk), at_risk_below=desk.session.config.settings.at_risk_below
    )
    return simulating.sweep_rows(books, steps)


def outcome_rows(found: simulating.Simulation) -> list[Mapping[str, Any]]:
    return [simulating.outcome_row(outcome) for outcome in found.outcomes]
