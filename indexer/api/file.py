"""A file, or a folder of files, as `book.Book` has it open: one snapshot of it, with what its names mean."""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.api.wallet import addresses_of
from indexer.errors import ConfigError
from indexer.queries import known, queries
from indexer.queries.freshness import older_rows
from indexer.queries.scope import Scope, Span
from indexer.store.database import open_readonly

if TYPE_CHECKING:
    from indexer.config import Config
    from indexer.model import Deployment

#: a time with a zone, or a block's number
Moment = datetime | int


class OpenFile:
    """Open for reading until `close`; all answers are of one snapshot, while a sync may commit the next one."""

    def __init__(self, path: Path, config_path: Path | None, *, exact: bool) -> None:
        from indexer.store import shards

        self.path, self.config_path = path, config_path
        self.conn: sqlite3.Connection
        self._exact_parts: list[sqlite3.Connection] = []
        with ExitStack() as files:
            if path.is_dir():
                self.conn = files.enter_context(shards.opened(path))
            else:
                self.conn = files.enter_context(closing(open_readonly(path)))
                self.conn.execute("begin")
            if exact:
                self.lay_exact_rows(None)
            self._files = files.pop_all()
        self._together: sqlite3.Connection | None = None
        self._laid = False

    def close(self) -> None:
        """Closes the file or files."""
        self._files.close()

    def lay_exact_rows(self, below: float | None) -> None:
        """Evaluates all rows of older blocks, once, where one may have a lower health factor than that; None: in any case."""
        from indexer.store.shards import each

        for part in each(self.conn):
            if part not in self._exact_parts and older_rows(part, below):
                from indexer.progress import NoProgress
                from indexer.risk.exact import lay_exact_rows

                part.set_authorizer(None)  # that of `for_sql` allows no temporary table
                lay_exact_rows(part, self.deployments(), NoProgress())
                self._exact_parts.append(part)

    @cached_property
    def config(self) -> "Config":
        """The configuration, as the command finds it."""
        from indexer.config import load

        return load(self.config_path, os.environ)

    def deployments(self) -> "Mapping[str, Deployment]":
        """What the file says of its deployments, and the configuration of those of which it says nothing."""
        from indexer.store.deployments import described

        return described(self.conn, lambda: self.config.deployments)

    def scope(
        self,
        chain: str | None,
        deployments: Sequence[str] = (),
        *,
        wallets: Sequence[str] = (),
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> Scope:
        """The part of a list that is asked for. Raises `ConfigError` for an unknown chain, for what is no address or no moment."""
        return Scope(
            chain_id=self.chain_id(chain),
            deployments=tuple(deployments),
            wallets=addresses_of(wallets) if wallets else (),
            span=Span(
                since_block=since if isinstance(since, int) else None,
                since=None if since is None or isinstance(since, int) else seconds(since),
                until_block=until if isinstance(until, int) else None,
                until=None if until is None or isinstance(until, int) else seconds(until),
            ),
        )

    def chain_id(self, chain: str | None) -> int | None:
        """The id of a chain. Raises `ConfigError` for one that neither the file nor the configuration names."""
        from indexer.store.deployments import chain_id_of

        if chain is None:
            return None
        with suppress(ConfigError):
            return chain_id_of(self.conn, chain, {})
        return chain_id_of(self.conn, chain, {name: c.chain_id for name, c in self.config.chains.items()})

    def require(self, protocols: Sequence[str], deployments: Sequence[str]) -> None:
        """Raises `ConfigError` for a name that the file does not have: a typing error must not read as "nobody"."""
        from indexer.plugins import did_you_mean

        for column, names in (("protocol", protocols), ("deployment", deployments)):
            held = {row[column] for row in known.deployments(self.conn)}
            for name in names:
                if name not in held:
                    raise ConfigError(f"{self.path} holds no {column} {name!r}{did_you_mean(name, held)}")

    def for_sql(self, select: str, remarks: list[str]) -> sqlite3.Connection:
        """The connection on which SQL of the user's runs: that of the file, or one of all files of a folder.

        It has the table `opportunities` once a query names it; what is left out of that goes into `remarks`.
        """
        from indexer.store import shards

        conn = self.conn
        if isinstance(conn, shards.Shards):
            if self._together is None:
                self._together = self._files.enter_context(shards.attached(self.path))
            conn = self._together
        if queries.names_table(select, "opportunities") and not self._laid:
            from indexer.risk.opportunity_rows import lay_table

            conn.set_authorizer(None)  # that of the last query allows no temporary table
            lay_table(self.conn, self.deployments(), conn, remarks.append)
            self._laid = True
        return conn


def seconds(moment: datetime) -> int:
    """Unix seconds of a time. Raises `ConfigError` for one without a zone, which may mean any."""
    if moment.tzinfo is None:
        raise ConfigError(f"{moment.isoformat()} has no zone: give one, such as datetime.UTC")
    return int(moment.timestamp())
