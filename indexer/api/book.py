"""A database as other programs read it: one snapshot of it, from the moment it is opened until `refresh`."""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from indexer.api.positions import Position
from indexer.api.rows import Rows
from indexer.api.simulation import Share, Simulation, changes
from indexer.api.wallet import Wallet, addresses_of
from indexer.errors import ConfigError
from indexer.queries import exports, known, queries
from indexer.queries.exports import Kind
from indexer.queries.freshness import older_rows
from indexer.queries.scope import Scope
from indexer.store.database import open_readonly

if TYPE_CHECKING:
    from datetime import datetime

    from indexer.config import Config
    from indexer.model import Deployment


def opened(path: Path | str = "indexer.db", *, config: Path | str | None = None, exact: bool = False) -> "Book":
    """Opens a database, or a folder with one a chain, for reading; it never writes, and never holds up a sync.

    `exact` evaluates the rows that `sync --follow` left at an older block, from the file alone. `config` is the file that
    `--config` names, else found as the command finds it; it is read only where the database does not explain itself, and
    for the groups of `simulate`. Raises `StoreError` where there is no database, or one of another version.
    """
    return Book(Path(path), None if config is None else Path(config), exact=exact)


class Book:
    """The positions of a database. Use it as a context, or close it."""

    def __init__(self, path: Path, config_path: Path | None = None, *, exact: bool = False) -> None:
        self.path, self._config_path, self._exact = path, config_path, exact
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; what was read stays usable, but for rows that were not iterated yet."""
        self._files.close()

    def refresh(self) -> None:
        """Goes on to the newest snapshot of the file."""
        self.close()
        self._begin()

    def _begin(self) -> None:
        """Opens the file or files; all answers are of one snapshot, while a sync may commit the next one."""
        from indexer.store import shards

        self._conn: sqlite3.Connection
        with ExitStack() as files:
            if self.path.is_dir():
                self._conn = files.enter_context(shards.opened(self.path))
            else:
                self._conn = files.enter_context(closing(open_readonly(self.path)))
                self._conn.execute("begin")
            if self._exact:
                self._lay_exact_rows(None)
            self._files = files.pop_all()
        self._together: sqlite3.Connection | None = None

    def _lay_exact_rows(self, below: float | None) -> None:
        """Evaluates rows of older blocks that may have a lower health factor than that; None: all."""
        from indexer.store.shards import each

        for part in each(self._conn):
            if older_rows(part, below):
                from indexer.progress import NoProgress
                from indexer.risk.exact import lay_exact_rows

                part.set_authorizer(None)  # that of `sql` allows no temporary table
                lay_exact_rows(part, self._deployments(), NoProgress())

    @cached_property
    def _config(self) -> "Config":
        from indexer.config import load

        return load(self._config_path, os.environ)

    def _deployments(self) -> "Mapping[str, Deployment]":
        from indexer.store.deployments import described

        return described(self._conn, lambda: self._config.deployments)

    def at_risk(
        self,
        *,
        below: float | None = None,
        min_debt: float | None = None,
        chain: str | None = None,
        protocols: Sequence[str] = (),
        deployments: Sequence[str] = (),
    ) -> Iterator[Position]:
        """Who is at risk of liquidation, the largest debt first: the rows of `indexer at-risk`.

        That is, whoever can be liquidated or has a health factor below 1.1 (`at_risk_below` at the time of the sync), or with
        `below` everyone with a lower one. `min_debt` is in USD; unknown debts are kept. Raises `ConfigError` for a name
        that the file does not have.
        """
        return self._select(Kind.AT_RISK, below, min_debt, chain, protocols, deployments)

    def positions(
        self,
        *,
        below: float | None = None,
        min_debt: float | None = None,
        chain: str | None = None,
        protocols: Sequence[str] = (),
        deployments: Sequence[str] = (),
    ) -> Iterator[Position]:
        """Every position, those at risk first: the rows of `indexer export positions`. The rest as for `at_risk`."""
        return self._select(Kind.POSITIONS, below, min_debt, chain, protocols, deployments)

    def _select(
        self,
        kind: Kind,
        below: float | None,
        min_debt: float | None,
        chain: str | None,
        protocols: Sequence[str],
        deployments: Sequence[str],
    ) -> Iterator[Position]:
        scope = Scope(chain_id=self._chain_id(chain), deployments=tuple(deployments))
        self._require(protocols, deployments)
        if below is not None and not self._exact:
            self._lay_exact_rows(below)
        columns, rows = exports.select(
            self._conn, kind, below=below, min_debt=min_debt, protocols=tuple(protocols), scope=scope
        )
        return (Position.of(dict(zip(columns, row, strict=True))) for row in rows)

    def _chain_id(self, chain: str | None) -> int | None:
        from indexer.store.deployments import chain_id_of

        if chain is None:
            return None
        with suppress(ConfigError):
            return chain_id_of(self._conn, chain, {})
        return chain_id_of(self._conn, chain, {name: c.chain_id for name, c in self._config.chains.items()})

    def _require(self, protocols: Sequence[str], deployments: Sequence[str]) -> None:
        """Raises `ConfigError` for a name that the file does not have: a typing error must not read as "nobody"."""
        from indexer.plugins import did_you_mean

        for column, names in (("protocol", protocols), ("deployment", deployments)):
            held = {row[column] for row in known.deployments(self._conn)}
            for name in names:
                if name not in held:
                    raise ConfigError(f"{self.path} holds no {column} {name!r}{did_you_mean(name, held)}")

    def wallet(self, *addresses: str) -> Wallet:
        """What these wallets hold and owe, as one person, also through a proxy or a Maker vault; without a node.

        Addresses in lower or upper case, or with their checksum. Raises `ConfigError` for one that is none.
        """
        from indexer.report.outlook import held

        wallets = addresses_of(addresses)
        rows = queries.wallets(self._conn, wallets)
        left_out: list[str] = []
        found = list(held(self._conn, self._deployments(), wallets, left_out.append)) if rows else []
        return Wallet(wallets, (Position.of(row) for row in rows), found, left_out)

    def simulate(
        self,
        *,
        shocks: Mapping[str, Share] | None = None,
        days: float = 0.0,
        liquidation_thresholds: Mapping[str, Share] | None = None,
        wallets: Sequence[str] = (),
        protocols: Sequence[str] = (),
        deployments: Sequence[str] = (),
        chain: str | None = None,
        seconds_per_block: float | None = None,
    ) -> Simulation:
        """Who could be liquidated if prices, thresholds or time changed, by the contracts' formulas and without a node.

        A change is a share such as -0.2, or a text as the flags of `indexer simulate` take it ("-20%"); its name a symbol, an
        address, a Maker ilk or a group. Of `wallets` every position is kept. Raises `ConfigError` for an unknown name.
        """
        from indexer.adapter import WhatIf
        from indexer.risk import simulate as simulating
        from indexer.risk.scenario import GROUPS, Change, Names, spelt
        from indexer.store import books as stored

        self._require(protocols, deployments)
        supposed = changes(Change.shock, shocks or {})
        limits = changes(Change.threshold, liquidation_thresholds or {})
        synced = stored.deployments(
            self._conn, chain_id=self._chain_id(chain), protocols=tuple(protocols), names=tuple(deployments)
        )
        rows, lacking = stored.able(synced, WhatIf)
        left_out = [
            f"{name} is left out: its protocol does not say what other prices, thresholds or time would do to it"
            for name in lacking
        ]
        if not rows:
            return Simulation(None, left_out)
        people = addresses_of(wallets) if wallets else []
        books = stored.load(self._conn, rows, self._deployments(), wallets=people)
        names = Names({**GROUPS, **self._config.groups})
        pace = seconds_per_block or simulating.seconds_per_block(self._conn, rows[0]["chain_id"])
        markets = [(book.adapter, book.market) for book in books]
        scenario, _ = spelt(markets, names, supposed, limits, None, days, pace)
        found = simulating.simulate(
            books,
            scenario,
            names,
            at_risk_below=self._config.settings.at_risk_below,
            keep=lambda outcome: bool(people) or outcome.becomes_liquidatable,
        )
        return Simulation(found, [*left_out, *simulating.remarks(books, scenario, names)])

    def top(
        self,
        by: str = "debt",
        *,
        limit: int = 20,
        min_debt: float | None = None,
        chain: str | None = None,
        protocols: Sequence[str] = (),
        deployments: Sequence[str] = (),
    ) -> Rows:
        """The largest wallets over all protocols: the rows of `indexer top --by debt|collateral|risk`, in USD.

        Raises `ConfigError` for another `by`, and for a name that the file does not have.
        """
        from indexer.queries import ranking

        if by not in ranking.RANKS:
            raise ConfigError(f"{by!r} is no rank of wallets: {', '.join(ranking.RANKS)}")
        self._require(protocols, deployments)
        scope = Scope(chain_id=self._chain_id(chain), deployments=tuple(deployments))
        columns, rows = ranking.top(
            self._conn, by, limit=limit, min_debt=min_debt, protocols=tuple(protocols), scope=scope
        )
        return Rows(columns, iter(rows))

    def movements(
        self,
        *,
        since: "datetime | int",
        until: "datetime | int | None" = None,
        min_usd: float = 0.0,
        chain: str | None = None,
        protocols: Sequence[str] = (),
    ) -> Rows:
        """Who added or removed most between two moments: the rows of `indexer movements`, the largest first, in USD.

        A moment is a time with a zone, or a block's number. History that has left the file for a lake is read there. Raises
        `ConfigError` for a time without a zone, and for a name that the file does not have.
        """
        from indexer.history import history

        self._require(protocols, ())
        rows = history.movements(
            self._conn,
            since_block=since if isinstance(since, int) else None,
            since=None if isinstance(since, int) else seconds(since),
            until_block=until if isinstance(until, int) else None,
            until=None if until is None or isinstance(until, int) else seconds(until),
            min_usd=min_usd,
            chain_id=self._chain_id(chain),
            protocols=tuple(protocols),
        )
        return Rows(history.MOVEMENT_COLUMNS, (tuple(row.values()) for row in rows))

    def status(self) -> Rows:
        """How far each deployment is synced: the rows of `indexer status`. `age_seconds` counts to now."""
        rows = queries.status(self._conn, lambda number: self._config.chain_name(number), time.time())  # noqa: PLW0108 - read only where needed
        return Rows(queries.STATUS_COLUMNS, (list(row.values()) for row in rows))

    def sql(self, select: str) -> Rows:
        """The rows of one SELECT; it cannot write. Raises `IndexerError` for anything else, and for SQLite's errors."""
        columns, rows = queries.run(self._one_connection(), select)
        return Rows(columns, (tuple(row) for row in rows))

    def _one_connection(self) -> sqlite3.Connection:
        """The connection on which SQL of the user's runs: that of the file, or one of all files of a folder."""
        from indexer.store import shards

        if not isinstance(self._conn, shards.Shards):
            return self._conn
        if self._together is None:
            self._together = self._files.enter_context(shards.attached(self.path))
        return self._together


def seconds(moment: "datetime") -> int:
    """Unix seconds of a time. Raises `ConfigError` for one without a zone, which may mean any."""
    if moment.tzinfo is None:
        raise ConfigError(f"{moment.isoformat()} has no zone: give one, such as datetime.UTC")
    return int(moment.timestamp())
