"""The history of prices as it is read: what was in force up to a time, what waits, and of what prices are made."""

import sqlite3
from collections.abc import Iterator

import pytest

from indexer.queries.prices import Component, Pending, components, in_force, pending
from indexer.store.store import Store

CHAIN = 1
ETH, OSM, SVR = "0x" + "e1" * 20, "0x" + "05" * 20, "0x" + "5e" * 20
NOON = 1_700_000_000 - 1_700_000_000 % 3600


@pytest.fixture
def conn(tmp_path: object) -> Iterator[sqlite3.Connection]:
    with Store(f"{tmp_path}/indexer.db") as store:
        yield store.conn


def feed(conn: sqlite3.Connection, address: str, kind: str = "chainlink", heartbeat: int | None = None) -> None:
    conn.execute(
        "insert into feeds values (?, ?, ?, 8, 'X / USD', ?, null, null, null)", (CHAIN, address, kind, heartbeat)
    )


def price(
    conn: sqlite3.Connection,
    address: str,
    place: tuple[int, int],
    known: int,
    force: int | None,
    raw: int,
    *,
    invalid: str | None = None,
) -> None:
    conn.execute(
        "insert into feed_prices values (?, ?, ?, ?, null, ?, ?, ?, ?, ?)",
        (CHAIN, address, *place, known, force, str(raw), raw / 10**8, invalid),
    )


def test_nothing_later_than_the_time_is_read_and_phases_follow_each_other(conn: sqlite3.Connection) -> None:
    feed(conn, ETH)
    price(conn, ETH, (1, 7), 100, 100, 10**8)
    price(conn, ETH, (2, 1), 200, 200, 2 * 10**8)
    price(conn, ETH, (2, 2), 300, 300, 3 * 10**8)
    series = in_force(conn, CHAIN, 299)[ETH]
    assert (list(series.times), list(series.answers), series.raws) == ([100, 200], [1.0, 2.0], [10**8, 2 * 10**8])
    assert len(in_force(conn, CHAIN, 99)[ETH]) == 0


def test_the_answer_in_force_at_the_beginning_comes_first(conn: sqlite3.Connection) -> None:
    feed(conn, ETH)
    for number, time in enumerate((100, 200, 300), 1):
        price(conn, ETH, (1, number), time, time, number)
    assert list(in_force(conn, CHAIN, 400, since=250)[ETH].times) == [200, 300]
    assert list(in_force(conn, CHAIN, 400, since=900)[ETH].times) == [300]


def test_flagged_and_hidden_answers_are_not_used(conn: sqlite3.Connection) -> None:
    feed(conn, ETH)
    price(conn, ETH, (1, 1), 100, 100, 1)
    price(conn, ETH, (1, 2), 200, 200, 2, invalid="jump")
    price(conn, ETH, (1, 3), 300, None, 3)
    assert in_force(conn, CHAIN, 400)[ETH].raws == [1]


def test_of_two_answers_at_once_the_newer_round_counts(conn: sqlite3.Connection) -> None:
    feed(conn, ETH)
    price(conn, ETH, (1, 1), 100, 100, 1)
    price(conn, ETH, (1, 2), 100, 100, 2)
    assert in_force(conn, CHAIN, 400)[ETH].raws == [2]


def test_an_osm_price_waits_for_the_next_whole_hop(conn: sqlite3.Connection) -> None:
    feed(conn, OSM, "osm", 3600)
    price(conn, OSM, (0, NOON - 3590), NOON - 3590, NOON + 10, 5)
    price(conn, OSM, (0, NOON + 10), NOON + 10, None, 6)
    assert pending(conn, CHAIN, NOON + 20) == [Pending(OSM, "osm", 6, NOON + 10, NOON + 3600)]
    assert pending(conn, CHAIN, NOON + 9) == []


def test_a_hidden_round_appears_at_the_latest_after_the_cut_off(conn: sqlite3.Connection) -> None:
    feed(conn, SVR)
    feed(conn, ETH)
    conn.execute("insert into feed_phases values (?, ?, 1, ?, 1, 3, null, 1, 9, 30)", (CHAIN, SVR, ETH))
    price(conn, SVR, (1, 1), 100, None, 1)  # never revealed: a later round was
    price(conn, SVR, (1, 2), 110, 115, 2)
    price(conn, SVR, (1, 3), 120, None, 3)
    price(conn, ETH, (1, 1), 120, None, 4)
    assert pending(conn, CHAIN, 130, [SVR]) == [Pending(SVR, "svr", 3, 120, 150)]
    assert pending(conn, CHAIN, 130, [ETH]) == [Pending(ETH, "svr", 4, 120, None)]


def test_components_have_the_key_that_prices_are_changed_by(conn: sqlite3.Connection) -> None:
    conn.execute(
        "insert into market_prices values (1, 'maker', ?, 'ETH-A', ?, 'price', 1, null, null, null, null, null)",
        (ETH, OSM),
    )
    conn.execute(
        "insert into market_prices values (1, 'aave', ?, '', ?, 'price', 1, ?, '12', '11', 1, null)", (ETH, SVR, OSM)
    )
    aave, maker = components(conn, CHAIN)
    assert (aave.key, maker.key) == (ETH, "ETH-A")
    assert aave == Component("aave", ETH, "", SVR, "price", 1, OSM, 12, 11, True)
    assert components(conn, CHAIN, ["maker"]) == [maker]
