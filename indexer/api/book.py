"""A database as other programs read it: one snapshot of it, from the moment it is opened until `refresh`."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from indexer.api.file import Moment, OpenFile
from indexer.api.forecasting import Forecast, forecasted
from indexer.api.positions import Position
from indexer.api.rows import Rows
from indexer.api.simulation import Share, Simulation, simulated
from indexer.api.wallet import Wallet, addresses_of
from indexer.errors import ConfigError
from indexer.queries import exports, queries
from indexer.queries.exports import Kind


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
        self._file = OpenFile(path, config_path, exact=exact)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; what was read stays usable, but for rows that were not iterated yet."""
        self._file.close()

    def refresh(self) -> None:
        """Goes on to the newest snapshot of the file."""
        self.close()
        self._file = OpenFile(self.path, self._config_path, exact=self._exact)

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
        scope = self._file.scope(chain, deployments)
        self._file.require(protocols, deployments)
        if below is not None:
            self._file.lay_exact_rows(below)
        columns, rows = exports.select(
            self._file.conn, kind, below=below, min_debt=min_debt, protocols=tuple(protocols), scope=scope
        )
        return (Position.of(dict(zip(columns, row, strict=True))) for row in rows)

    def wallet(self, *addresses: str) -> Wallet:
        """What these wallets hold and owe, as one person, also through a proxy or a Maker vault; without a node.

        Addresses in lower or upper case, or with their checksum. Raises `ConfigError` for one that is none.
        """
        from indexer.report.outlook import held

        wallets = addresses_of(addresses)
        rows = queries.wallets(self._file.conn, wallets)
        left_out: list[str] = []
        found = list(held(self._file.conn, self._file.deployments(), wallets, left_out.append)) if rows else []
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
        self._file.require(protocols, deployments)
        return simulated(
            self._file.conn,
            self._file.deployments(),
            self._file.config,
            self._file.scope(chain, deployments, wallets=wallets),
            shocks=shocks or {},
            thresholds=liquidation_thresholds or {},
            days=days,
            protocols=tuple(protocols),
            seconds_per_block=seconds_per_block,
        )

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
        self._file.require(protocols, deployments)
        scope = self._file.scope(chain, deployments)
        columns, rows = ranking.top(
            self._file.conn, by, limit=limit, min_debt=min_debt, protocols=tuple(protocols), scope=scope
        )
        return Rows(columns, iter(rows))

    def movements(
        self,
        *,
        since: Moment,
        until: Moment | None = None,
        min_usd: float = 0.0,
        chain: str | None = None,
        protocols: Sequence[str] = (),
    ) -> Rows:
        """Who added or removed most between two moments: the rows of `indexer movements`, the largest first, in USD.

        A moment is a time with a zone, or a block's number. History that has left the file for a lake is read there. Raises
        `ConfigError` for a time without a zone, and for a name that the file does not have.
        """
        from indexer.history import history

        self._file.require(protocols, ())
        scope = self._file.scope(chain, since=since, until=until)
        rows = history.movements(
            self._file.conn,
            since_block=scope.span.since_block,
            since=scope.span.since,
            until_block=scope.span.until_block,
            until=scope.span.until,
            min_usd=min_usd,
            chain_id=scope.chain_id,
            protocols=tuple(protocols),
        )
        return Rows.of(history.MOVEMENT_COLUMNS, rows, history.movement_remarks(self._file.conn, scope.chain_id))

    def liquidations(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        wallets: Sequence[str] = (),
        min_repaid: float | None = None,
        chain: str | None = None,
        protocols: Sequence[str] = (),
        deployments: Sequence[str] = (),
    ) -> Rows:
        """The liquidations that logs tell of, the newest first: the rows of `indexer liquidations`.

        A moment is a time with a zone, or a block's number. `min_repaid` is in USD; unknown values are kept. `remarks` say from
        which block on they are complete.
        """
        from indexer.queries import liquidations

        self._file.require(protocols, deployments)
        scope = self._file.scope(chain, deployments, wallets=wallets, since=since, until=until)
        rows = liquidations.rows(self._file.conn, scope, protocols=protocols, min_repaid=min_repaid)
        return Rows.of(liquidations.COLUMNS, rows, liquidations.missing(self._file.conn, scope, protocols))

    def opportunities(
        self,
        *,
        below: float | None = None,
        min_debt: float | None = None,
        min_profit: float | None = None,
        gas_price: float | None = None,
        chain: str | None = None,
        protocols: Sequence[str] = (),
        deployments: Sequence[str] = (),
    ) -> Rows:
        """What one liquidation call pays for everyone at risk, the most profitable first: the rows of `indexer opportunities`.

        With `below`, for everyone with a lower health factor. `gas_price` is in GWEI, debts and profits are in USD; `min_profit`
        leaves out calls that are refused or of unknown profit. Raises `ConfigError` for a name that the file does not have.
        """
        from indexer.risk import opportunity_rows as computed

        self._file.require(protocols, deployments)
        if below is not None:
            self._file.lay_exact_rows(below)
        said: list[str] = []
        rows = computed.rows(
            self._file.conn,
            self._file.deployments(),
            say=said.append,
            below=below,
            min_debt=min_debt,
            min_profit=min_profit,
            gas_price=gas_price,
            protocols=tuple(protocols),
            scope=self._file.scope(chain, deployments),
        )
        return Rows.of(computed.COLUMNS, rows, said)

    def levels(
        self,
        asset: str,
        *,
        step: int = 5,
        min_debt: float | None = None,
        chain: str | None = None,
        protocols: Sequence[str] = (),
        deployments: Sequence[str] = (),
    ) -> Rows:
        """How much debt becomes liquidatable at which price of an asset, a symbol or an address: the rows of `indexer levels`.

        One row for each `step` of the price, 1 to 50 per cent, other prices as they are; values in USD. Raises `ConfigError` for
        another step, and for a name that the file does not have.
        """
        from indexer.risk import level_rows as computed

        if not 1 <= step <= 50:
            raise ConfigError(f"{step} is no step: 1 to 50 per cent of the present price")
        self._file.require(protocols, deployments)
        self._file.lay_exact_rows(None)
        said: list[str] = []
        rows = computed.rows(
            self._file.conn,
            self._file.deployments(),
            asset,
            say=said.append,
            step=step,
            min_debt=min_debt,
            protocols=tuple(protocols),
            scope=self._file.scope(chain, deployments),
        )
        return Rows.of(computed.COLUMNS, rows, said)

    def forecast(
        self,
        *wallets: str,
        within: Sequence[timedelta] = (),
        paths: int | None = None,
        seed: int = 0,
        exact: bool = False,
        chain: str | None = None,
        protocols: Sequence[str] = (),
        deployments: Sequence[str] = (),
    ) -> Forecast:
        """How likely these wallets' positions, or all, become liquidatable, as `indexer forecast` says it; writes nothing.

        `within` are times of full hours up to 30 days; by default an hour, a day and a week. `paths` are 2,000, and 10,000 of
        whoever is named, watched or at risk and may fail; the same `seed` gives the same digits. `exact` evaluates each position
        on each path. The command keeps its rows in the table `forecasts`; this does not. Raises `ConfigError` for another time,
        and for a name that the file does not have.
        """
        self._file.require(protocols, deployments)
        return forecasted(
            self._file.conn,
            self._file.deployments(),
            self._file.config.groups,
            self._file.scope(chain, deployments, wallets=wallets),
            horizons=[int(one.total_seconds()) for one in within],
            paths=paths,
            seed=seed,
            exact=exact,
            protocols=tuple(protocols),
        )

    def oracles(self, *names: str, chain: str | None = None) -> Rows:
        """The oracle behind each price, as the last `indexer sync --prices` saw it: the rows of `indexer oracles`.

        Names are symbols, feeds' addresses or descriptions. Raises `ConfigError` for one that means no followed feed.
        """
        from indexer.prices import listed, oracles

        rows = listed.listed(self._file.conn, oracles.rows, names, chain_id=self._file.chain_id(chain))
        return Rows.of(oracles.COLUMNS, rows, () if rows else (listed.NOTHING,))

    def volatility(self, *names: str, chain: str | None = None) -> Rows:
        """How much each feed's price moves, as a fraction a year: the rows of `indexer volatility`; names as for `oracles`."""
        from indexer.prices import listed, volatility

        rows = listed.listed(self._file.conn, volatility.rows, names, chain_id=self._file.chain_id(chain))
        return Rows.of(volatility.COLUMNS, rows, () if rows else (listed.NOTHING,))

    def status(self) -> Rows:
        """How far each deployment is synced: the rows of `indexer status`. `age_seconds` counts to now."""
        rows = queries.status(self._file.conn, lambda number: self._file.config.chain_name(number), time.time())  # noqa: PLW0108 - read only where needed
        return Rows(queries.STATUS_COLUMNS, (list(row.values()) for row in rows))

    def sql(self, select: str) -> Rows:
        """The rows of one SELECT; it cannot write. Raises `IndexerError` for anything else, and for SQLite's errors.

        Beside the tables of the file there is `opportunities`, as for `indexer query`.
        """
        remarks: list[str] = []
        columns, rows = queries.run(self._file.for_sql(select, remarks), select)
        return Rows(columns, (tuple(row) for row in rows), remarks)
