"""A made-up past of prices for the feeds of a file: what `sync --prices` would have written, without its chain."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from indexer import config
from indexer.adapter import WhatIf
from indexer.store import books
from indexer.store.store import Store
from tests.bench.population import SYMBOLS

HOUR = 3_600
#: of every feed
DECIMALS = 8
Past = Callable[[str, int], "np.ndarray[tuple[int], np.dtype[np.float64]]"]


def walk(hourly: float = 0.006, seed: int = 0) -> Past:
    """Hourly prices relative to the last one: a random walk of its own for each symbol, with fat tails."""

    def made(symbol: str, hours: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        rng = np.random.default_rng([seed, *symbol.encode()])
        path = np.cumsum(rng.standard_t(4, hours + 1) * hourly / 2**0.5)
        return np.exp(path - path[-1])

    return made


def constant(symbol: str, hours: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Prices that never moved."""
    return np.ones(hours + 1)


#: made-up assets share so many feeds, so that a past is soon written
SHARED = 8


def named(symbol: str) -> str:
    """The name of a symbol's feed: well-known assets have one of their own."""
    return symbol if symbol in SYMBOLS else f"shared {crc32(symbol.encode()) % SHARED}"


def feed_of(name: str) -> str:
    """The address of the made-up feed of that name."""
    return f"0x{name.encode().hex()[:40]:0>40}"


def fill(path: Path, toml: Path, **past: Any) -> None:
    """A past for every deployment of a file, as `fill_books` makes it."""
    known = config.load(toml, {}).deployments
    with Store(path) as store:
        store.conn.row_factory = sqlite3.Row
        with store.transaction() as conn:
            fill_books(conn, books.load(conn, books.deployments(conn), known), **past)


def fill_books(
    conn: sqlite3.Connection,
    found: Sequence[books.Book],
    *,
    past: Past | None = None,
    days: int = 40,
    ago: int = 0,
    without: Sequence[str] = (),
    looks: int = 1,
    beat: int | None = HOUR,
) -> None:
    """One feed a symbol with `looks` answers an hour, the last `ago` seconds before the snapshot; heartbeat `beat`."""
    for table in ("feeds", "feed_prices", "market_prices"):
        conn.execute(f"delete from {table}")
    for book in found:
        _fill(conn, book, past or walk(), days, ago, without, looks, beat)


def _fill(
    conn: sqlite3.Connection,
    book: books.Book,
    past: Past,
    days: int,
    ago: int,
    without: Sequence[str],
    looks: int,
    beat: int | None,
) -> None:
    assert isinstance(book.adapter, WhatIf)
    quoted = book.adapter.quotes(book.market).prices
    until = book.market.block.timestamp - ago
    for row in book.market.assets:
        key = row.group or row.asset
        if not quoted.get(key) or row.symbol in without:
            continue
        name, price = named(row.symbol), 1_000.0
        feed = feed_of(name)
        if conn.execute("select 1 from feeds where address = ?", (feed,)).fetchone() is None:
            conn.execute(
                "insert into feeds (chain_id, address, kind, decimals, description, heartbeat_seconds, deviation_bps, learned_at, "
                "known_until) "
                "values (?, ?, 'chainlink', ?, ?, ?, 50.0, ?, ?)",
                (book.chain_id, feed, DECIMALS, name, beat, until, until),
            )
            answers = past(name, days * 24 * looks) * price
            conn.executemany(
                "insert into feed_prices (chain_id, feed, phase, round, block_number, block_timestamp, "
                "in_force_timestamp, answer_raw, answer) values (?, ?, 1, ?, ?, ?, ?, ?, ?)",
                [
                    (book.chain_id, feed, n, n, at, at, str(round(answer * 10**DECIMALS)), answer)
                    for n, answer in enumerate(answers.tolist(), 1)
                    for at in [until - HOUR // looks * (len(answers) - n)]
                ],
            )
        conn.execute(
            "insert or ignore into market_prices (chain_id, deployment, asset, position_group, feed, role, exponent) "
            "values (?, ?, ?, ?, ?, 'price', 1)",
            (book.chain_id, book.name, row.asset, row.group, feed),
        )
