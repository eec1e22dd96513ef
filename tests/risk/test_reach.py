"""Leaving out who is safe changes nothing of a result: everyone who could become liquidatable is evaluated."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from indexer import config
from indexer.adapter import WhatIf
from indexer.model import PositionKey
from indexer.risk import simulate as simulating
from indexer.risk.reach import endangered, reach
from indexer.risk.scenario import GROUPS, Change, Names, Scenario, Sweep
from indexer.store import books as stored
from indexer.store.books import dump_position
from indexer.store.database import open_readonly
from indexer.store.store import Store
from indexer.terminal.options import Session
from tests.bench.population import compound_v2_position, deployments, fill, populate, wallet

#: of the reserves that fall, and of those that rise: a debt that rises endangers as a collateral that falls does
SCENARIOS = (
    ["WETH=-20%"],
    ["WETH=-60%", "wstETH=-60%"],
    ["USDC=+5%", "WBTC=-1%"],
    ["DAI=+40%"],
    ["eth=-35%"],
    ["GEM0-A=-60%"],
)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[stored.Book]]:
    """Six deployments of five protocols, a third of whose debtors are below 1.25."""
    folder: Path = tmp_path_factory.mktemp("reach")
    populate(folder / "large.db", folder / "bench.toml", 3_000, near=0.3)
    known = config.load(folder / "bench.toml", {}).deployments
    with closing(open_readonly(folder / "large.db")) as conn:
        yield stored.load(conn, stored.deployments(conn), known)


def result(books: list[stored.Book], shocks: list[str]) -> object:
    found = simulating.simulate(books, Scenario(shocks=tuple(map(Change.shock, shocks))), Names(GROUPS))
    rows = [simulating.outcome_row(outcome) for outcome in found.outcomes]
    return rows, simulating.deployment_rows(found), found.before, found.after


@pytest.mark.parametrize("least", [None, 5_000.0])
@pytest.mark.parametrize("shocks", SCENARIOS)
def test_a_scenario_has_the_same_result_without_who_is_safe(
    books: list[stored.Book], shocks: list[str], least: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = [replace(book, positions=replace(book.positions, least=least)) for book in books]
    told = result(books, shocks)
    monkeypatch.setattr(simulating, "endangered", lambda book, later: book.trusted())
    assert told == result(books, shocks)


def test_a_sweep_has_the_same_result_without_who_is_safe(
    books: list[stored.Book], monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = Sweep("eth", tuple(Fraction(-tenths, 10) for tenths in range(6)))
    told = list(simulating.sweep(books, Scenario(), swept, Names(GROUPS)))
    monkeypatch.setattr(simulating, "endangered", lambda book, later: book.trusted())
    monkeypatch.setattr(simulating, "reach", lambda book, later: float("inf"))
    assert told == list(simulating.sweep(books, Scenario(), swept, Names(GROUPS)))


@pytest.mark.parametrize("least", [0.0, 5_000.0])
def test_everyone_who_owes_enough_is_counted_once(books: list[stored.Book], least: float) -> None:
    books = [replace(book, positions=replace(book.positions, least=least)) for book in books]
    found = simulating.simulate(books, Scenario(shocks=(Change.shock("WETH=-20%"),)), Names(GROUPS))
    for book, *sums in zip(books, found.before, found.after, strict=True):
        (expected,) = book.positions.conn.execute(
            "select count(*) from positions where deployment = ? and status <> 'no-debt' and debt_usd >= ?",
            (book.name, least),
        ).fetchone()
        assert [totals.positions for totals in sums] == [expected] * 2


@pytest.mark.parametrize(("share", "liquidatable"), [(Fraction(2), 1), (Fraction(-1, 2), 0)])
def test_debt_that_is_worth_nothing_counts_where_its_price_rises(
    tmp_path: Path, share: Fraction, liquidatable: int
) -> None:
    adapter, market = next((a, m) for a, m, *_ in deployments() if a.protocol == "compound-v2")
    assert isinstance(adapter, WhatIf)
    market = adapter.with_prices(market, dict.fromkeys(adapter.quotes(market).prices, 6 * 10**17))
    _, owing = compound_v2_position(market, PositionKey(wallet(1)), 1.0, random.Random(1))
    with Store(tmp_path / "x.db") as store:
        fill(store, adapter, market, iter([replace(owing(0.0), c_tokens={})]))
        assert store.conn.execute("select status from positions").fetchall() == [("no-debt",)]
    with closing(open_readonly(tmp_path / "x.db")) as conn:
        books = stored.load(conn, stored.deployments(conn), {adapter.deployment.name: adapter.deployment})
        names = Names({"all": list(adapter.quotes(market).prices)})
        ((_, (totals,)),) = simulating.sweep(books, Scenario(), Sweep("all", (share,)), names)
        assert totals.liquidatable == liquidatable


def test_a_state_that_is_newer_than_its_row_is_evaluated_in_each_step(tmp_path: Path) -> None:
    adapter, market, make, _ = deployments()[0]
    _, owing = make(market, PositionKey(wallet(1)), 1_000.0, random.Random(1))
    with Store(tmp_path / "x.db") as store:
        fill(store, adapter, market, iter([owing(100.0)]))
        assert store.conn.execute("select status from positions where health_factor > 5").fetchall() == [("healthy",)]
        changed = (market.block.number + 1, dump_position(owing(10_000.0)))
        store.conn.execute("update states set block_number = ?, state = ?", changed)
        store.conn.commit()
    with closing(open_readonly(tmp_path / "x.db")) as conn:
        books = stored.load(conn, stored.deployments(conn), {adapter.deployment.name: adapter.deployment})
        swept = Sweep("eth", (Fraction(0), Fraction(-1, 2)))
        for _, (totals,) in simulating.sweep(books, Scenario(), swept, Names(GROUPS)):
            assert totals.liquidatable == 1


def test_most_are_left_out_of_a_small_fall(books: list[stored.Book]) -> None:
    scenario = Scenario(shocks=(Change.shock("WETH=-10%"),))
    for book in books:
        market = scenario.applied(book.adapter, book.market, Names(GROUPS))
        assert 1 < reach(book, [market]) < 1.2
        near = endangered(book, [market]).positions
        assert sum(1 for _ in near) <= near.counted()[1] < sum(1 for _ in book.positions) / 2


def test_time_and_thresholds_leave_nobody_out(books: list[stored.Book]) -> None:
    for scenario in (Scenario(seconds=60, blocks=5), Scenario(thresholds=(Change.threshold("WETH=-5%"),))):
        for book in books:
            market = scenario.applied(book.adapter, book.market, Names(GROUPS))
            if market != book.market:
                assert reach(book, [market]) == float("inf")
                assert endangered(book, [market]) == book.trusted()


def test_a_command_reads_one_snapshot_while_another_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "large.db"
    populate(path, tmp_path / "bench.toml", 300)
    with Session(None, path).read() as conn, closing(sqlite3.connect(path)) as other:
        (before,) = conn.execute("select count(*) from positions").fetchone()
        other.execute("delete from positions")
        other.commit()
        assert tuple(conn.execute("select count(*) from positions").fetchone()) == (before,)
