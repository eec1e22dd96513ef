"""Against the real contracts of all five protocols: the screen decides as `evaluate` does, and what is pending comes true."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer.alert.rules import Event, chance
from indexer.alert.watches import Watch
from indexer.store import books as stored
from indexer.store.database import open_readonly
from indexer.store.store import Store
from tests.alert.test_watch import outbox, victims, watch, watching
from tests.devnet.scenario import Devnet
from tests.devnet.worlds import every_protocol, rewound
from tests.forecast.past import fill_books, walk
from tests.forecast.test_screen import compared
from tests.truth import deployment_of, sync_once


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[list[Devnet]]:
    with every_protocol(3, 12) as found:
        yield found


@pytest.fixture(scope="module")
def path(markets: list[Devnet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forecast") / "indexer.db"
    sync_once(path, markets[0].node.url, markets, "borrowers")
    return path


@pytest.fixture
def books(markets: list[Devnet], path: Path) -> Iterator[list[stored.Book]]:
    with closing(open_readonly(path)) as conn:
        known = {market.name: deployment_of(market) for market in markets}
        yield stored.load(conn, stored.deployments(conn), known)


def test_the_screen_decides_as_evaluate_does(books: list[stored.Book]) -> None:
    found = [compared(book, list(book.positions), 200, number) for number, book in enumerate(books)]
    assert sum(count for _, count in found) >= 1_000
    assert sum(failed for failed, _ in found) > 20, found


@pytest.mark.long
def test_the_screen_decides_as_evaluate_does_very_often(books: list[stored.Book]) -> None:
    found = [compared(book, list(book.positions), 20_000, 100 + number) for number, book in enumerate(books)]
    assert sum(count for _, count in found) >= 100_000


def test_a_chance_is_told_when_it_crosses_and_when_it_is_over(markets: list[Devnet], tmp_path: Path) -> None:
    found = [victim for victim in victims(markets, tmp_path / "everyone.db") if victim.health < 2 * 10**18]
    assert found
    path, rule = tmp_path / "watched.db", chance("30%/1d")
    for victim in found:
        watch(path, Watch(victim.wallet, "mine", None, (rule,)))
    with rewound(markets), watching(path, markets[0].node.url, markets) as sync:
        sync.snapshot()
        assert outbox(path) == [], "without a past of prices nothing is judged"
        filled(path, markets)
        sync.committer.planners[0].__self__.chances.at = None  # type: ignore[attr-defined]
        prices = [victim.market.price(victim.symbol) for victim in found]
        sync.snapshot()
        for victim, price in zip(found, prices, strict=True):  # so near that a usual day is enough
            victim.move(1.02 * 10**18 / victim.health, price)
        sync.snapshot()
        near = outbox(path)
        for victim, price in zip(found, prices, strict=True):
            victim.move(3.0, price)
        sync.snapshot()
    told = [body for body in near if body["rule"] == str(rule) == "chance 30%/1d"]
    assert {body["account"] for body in told} == {victim.key.account for victim in found}
    for body in told:
        assert (body["event"], body["horizon_seconds"], body["threshold_percent"]) == (Event.CROSSED, 86_400, 30)
        assert 30 <= body["chance_percent"] <= 100
        assert f"left alone, {body['chance_percent']:.3g} % likely to become liquidatable within 1d" in body["text"]
    after = [body for body in outbox(path)[len(near) :] if body["rule"] == str(rule)]
    assert {(body["account"], body["event"]) for body in after} == {(v.key.account, Event.RECOVERED) for v in found}


def filled(path: Path, markets: list[Devnet]) -> None:
    with Store(path) as store:
        store.conn.row_factory = sqlite3.Row
        known = {market.name: deployment_of(market) for market in markets}
        with store.transaction() as conn:
            fill_books(conn, stored.load(conn, stored.deployments(conn), known), past=walk())
