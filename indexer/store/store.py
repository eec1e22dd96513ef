"""What a sync reads and writes in the database, with one transaction per snapshot."""

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from indexer.model import Accounts, Block, Deployment, PositionKey, Registered
from indexer.store import imported, reorgs
from indexer.store.changes import Place, noted
from indexer.store.chosen import rows_of
from indexer.store.deployments import describe
from indexer.store.row_writes import insert, insert_all, overwritten
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS, BalanceValues, PositionRow, Snapshot, market_row
from indexer.store.synced_ranges import SyncedRanges
from indexer.store.writable import WritableFile

KEPT_AUDITS = 10_000


class ChangedMeanwhileError(Exception):
    """A rider found that the file has changed since its plan was made; nothing is written, and the plan is made anew."""


#: called before the rows are replaced; what it returns, if anything, is called afterwards
Rider = Callable[[sqlite3.Connection, Sequence[Snapshot], Block], Callable[[], None] | None]
Taker = Callable[[sqlite3.Connection, Snapshot, Sequence[PositionRow]], None]


class Store(WritableFile):
    """What a sync reads and writes in the database. Use as a context manager."""

    # what is known ------------------------------------------------------------------------------------------------

    def deployment(self, chain_id: int, name: str) -> dict[str, Any] | None:
        """The row of `deployments`, with the stored market's JSON as `market`."""
        cursor = self.conn.execute(
            "select d.*, s.market from deployments d left join snapshots s using (chain_id, deployment) "
            "where chain_id = ? and deployment = ?",
            (chain_id, name),
        )
        row = cursor.fetchone()
        return None if row is None else dict(zip([c[0] for c in cursor.description], row, strict=True))

    def known(self, chain_id: int, deployment: str) -> Iterator[tuple[PositionKey, int, int | None, bool]]:
        """Every known position, in the order of the keys: the last block in which an event named it, the block at which its
        stored state is known to be right, None where there is none, and whether that has all supplies.
        """
        rows = self.conn.execute(
            "select e.account, e.position_group, e.last_block, s.block_number, "
            "instr(s.state, '\"supplies_complete\":false') from events e left join states s "
            "using (chain_id, deployment, account, position_group) where e.chain_id = ? and e.deployment = ? "
            "order by e.account, e.position_group",
            (chain_id, deployment),
        )
        for account, group, named, read, incomplete in rows:
            yield PositionKey(account, group), named, read, not incomplete

    def states(self, chain_id: int, deployment: str) -> Iterator[tuple[int, str]]:
        """Every position as last read, in the order of the keys: the block it is known to be right at, and its JSON."""
        return self.conn.execute(
            "select block_number, state from states where chain_id = ? and deployment = ? "
            "order by account, position_group",
            (chain_id, deployment),
        )

    def states_of(self, chain_id: int, deployment: str, keys: Iterable[PositionKey]) -> list[tuple[int, str]]:
        """Those of these positions that were read, in their order."""
        return rows_of(self.conn, "t.block_number, t.state", "states", (chain_id, deployment), keys).fetchall()

    def ranges(self, chain_id: int, deployment: str) -> SyncedRanges:
        """The blocks whose logs were fetched."""
        return SyncedRanges(self.conn, chain_id, deployment)

    def registry(self, chain_id: int, deployment: str) -> Registered:
        rows = self.conn.execute(
            "select number, account, position_group from registry where chain_id = ? and deployment = ?",
            (chain_id, deployment),
        )
        keys = {number: PositionKey(a, g) for number, a, g in rows}
        named = self.conn.execute(
            "select contract from contracts where chain_id = ? and deployment = ? order by first_block, contract",
            (chain_id, deployment),
        )
        return Registered(keys, {key: number for number, key in keys.items()}, tuple(c for (c,) in named))

    def blocks(self, chain_id: int) -> list[tuple[int, str]]:
        """Kept (number, hash) pairs, newest first."""
        return self.conn.execute(
            "select number, hash from blocks where chain_id = ? order by number desc", (chain_id,)
        ).fetchall()

    # progress that survives a kill -----------------------------------------------------------------------------------

    def save_touches(self, chain_id: int, deployment: str, keys: Mapping[PositionKey, tuple[int, int]]) -> None:
        """Records positions that events named, with the first and the last block."""
        with self.transaction() as conn:
            conn.executemany(
                "insert into events values (?, ?, ?, ?, ?, ?) on conflict do update set "
                "first_block = min(first_block, excluded.first_block), "
                "last_block = max(last_block, excluded.last_block)",
                # in the order of the keys, as they stand in the file: a page is then looked up once, not for each
                [(chain_id, deployment, *key, *blocks) for key, blocks in sorted(keys.items())],
            )

    def save_contracts(self, chain_id: int, deployment: str, named: Mapping[str, int]) -> None:
        """Records contracts that logs name, with the first block."""
        with self.transaction() as conn:
            conn.executemany(
                "insert into contracts values (?, ?, ?, ?) on conflict do update set "
                "first_block = min(first_block, excluded.first_block)",
                [(chain_id, deployment, contract, block) for contract, block in named.items()],
            )

    def save_states(self, chain_id: int, deployment: str, rows: Iterable[tuple[PositionKey, int, str]]) -> None:
        """Records positions as read: key, block, JSON."""
        with self.transaction() as conn:
            conn.executemany(
                "insert or replace into states values (?, ?, ?, ?, ?, ?)",
                [(chain_id, deployment, k.account, k.group, block, state) for k, block, state in rows],
            )

    def drop_states(self, chain_id: int, deployment: str) -> None:
        """Deletes every position as read, so that the next snapshot reads them all again.

        Evidence: sums or rows that differ from the contracts', or code whose formula has become known. It needs no
        confirmation, as nothing is lost: the same snapshot reads them again.
        """
        with self.transaction() as conn:
            conn.execute("delete from states where chain_id = ? and deployment = ?", (chain_id, deployment))

    def save_blocks(self, chain_id: int, blocks: Iterable[Block]) -> None:
        """Records hashes, by which a reorg is noticed later."""
        with self.transaction() as conn:
            for block in blocks:
                self._save_block(conn, chain_id, block)

    @staticmethod
    def _save_block(conn: sqlite3.Connection, chain_id: int, block: Block) -> None:
        conn.execute(
            "insert or replace into blocks values (?, ?, ?, ?)", (chain_id, block.number, block.hash, block.timestamp)
        )

    def save_registry(self, chain_id: int, deployment: str, keys: Mapping[int, PositionKey], block: int) -> None:
        with self.transaction() as conn:
            conn.executemany(
                "insert or replace into registry values (?, ?, ?, ?, ?, ?)",
                [(chain_id, deployment, n, k.account, k.group, block) for n, k in keys.items()],
            )

    def set_state(self, chain_id: int, deployment: str, state: str, note: str | None) -> None:
        """Records the state and note of a deployment that could not be brought to the new block."""
        with self.transaction() as conn:
            conn.execute(
                "update deployments set state = ?, note = ? where chain_id = ? and deployment = ?",
                (state, note, chain_id, deployment),
            )

    def register(self, chain_id: int, deployment: str, protocol: str, accounts: str) -> None:
        """Records a deployment that is about to be synced for the first time; a known one stays as it is."""
        with self.transaction() as conn:
            conn.execute(
                "insert or ignore into deployments (chain_id, deployment, protocol, accounts, state) "
                "values (?, ?, ?, ?, 'new')",
                (chain_id, deployment, protocol, accounts),
            )

    def describe(self, chain_id: int, deployment: Deployment) -> None:
        """Records what is needed to interpret the deployment's rows, so that the file explains itself."""
        with self.transaction() as conn:
            describe(conn, chain_id, deployment)

    def watched(self) -> list[str]:
        """The watched wallets."""
        return [wallet for (wallet,) in self.conn.execute("select wallet from watches order by wallet")]

    def widen(self, chain_id: int, deployment: str, accounts: str) -> None:
        """Turns a deployment of watched wallets alone into one whose accounts are discovered from the first block on.

        Its rows stay until the next commit replaces them as a whole. Evidence: the user asks for all accounts. The rows
        deleted here name some of those accounts, and the back-fill finds them again; history and alerts stay.
        """
        with self.transaction() as conn:
            for table in ("events", "states", "registry", "contracts", "synced_ranges"):
                conn.execute(
                    f"delete from {table} where chain_id = ? and deployment = ?",  # noqa: S608 - our own names
                    (chain_id, deployment),
                )
            conn.execute(
                "update deployments set accounts = ?, state = 'incomplete', "
                "note = 'only watched wallets are known until the next sync is through' "
                "where chain_id = ? and deployment = ?",
                (accounts, chain_id, deployment),
            )

    def set_accounts(self, chain_id: int, deployment: str, accounts: str) -> None:
        """Records which accounts of a deployment are discovered, before the first one is."""
        with self.transaction() as conn:
            conn.execute(
                "update deployments set accounts = ? where chain_id = ? and deployment = ?",
                (accounts, chain_id, deployment),
            )

    def discovers(self, chain_id: int, deployment: str) -> str | None:
        """Which accounts' history is synced or begun, "borrowers" or "all"; None for a new or merely watched deployment."""
        found = self.conn.execute(
            "select accounts from deployments d where chain_id = ? and deployment = ? and accounts <> 'watched' "
            "and (block_number is not null or exists (select 1 from synced_ranges r "
            "where r.chain_id = d.chain_id and r.deployment = d.deployment))",
            (chain_id, deployment),
        ).fetchone()
        return None if found is None else str(found[0])

    # the snapshot ---------------------------------------------------------------------------------------------------

    def commit(
        self,
        snapshots: Sequence[Snapshot],
        block: Block,
        chain_id: int,
        keep_blocks: int,
        riders: Sequence[Rider] = (),
        final: Block | None = None,
        keep_seconds: float = 0,
        took: Taker = lambda *_: None,
    ) -> None:
        """Writes every row of these deployments, and the block, in one transaction; `final` as in `reorgs.settle`.

        `took` is called inside it with each part of the rows, once that is written.

        Each rider runs inside it, before the rows are replaced: what it writes from old and new rows (history, alerts)
        is kept exactly if the snapshot is. A rider may return a function to call once the rows are replaced.
        """
        with self.transaction() as conn:
            left = [rider(conn, snapshots, block) for rider in riders]
            with noted(conn, chain_id, Place(block.number, block.hash, block.timestamp)):
                self._clear(conn, {snapshot.where for snapshot in snapshots if snapshot.whole})
                for snapshot in snapshots:
                    self._commit_deployment(conn, snapshot, took)
            for rest in left:
                if rest is not None:
                    rest()
            self._save_block(conn, chain_id, block)
            if final is not None:
                reorgs.settle(conn, chain_id, final)
            now = reorgs.earlier(block)
            reorgs.expire(conn, now)
            # Beyond the window, the final block's hash stays, and one in 1,000, so that a reorg of any depth finds an
            # ancestor. Going back further than the window takes a second opinion anyway. Evidence: `now`, see `earlier`.
            conn.execute(
                "delete from blocks where chain_id = ?1 and number < ?2 - ?3 and block_timestamp < ?4 and number not in ("
                "select min(number) from blocks where chain_id = ?1 group by number / 1000) "
                "and number not in (select block_number from finality where chain_id = ?1)",
                (chain_id, block.number, keep_blocks, now - int(keep_seconds)),
            )

    def _clear(self, conn: sqlite3.Connection, whole: Collection[tuple[int, str]]) -> None:
        """Deletes all rows of these deployments. Evidence: they are about to be written whole, see `_commit_deployment`.

        Where nobody else has any, the tables are emptied: SQLite then frees pages and looks at no row.
        """
        for where in whole:
            self.sums.empty(where)
        others = {(*row,) for row in conn.execute("select chain_id, deployment from deployments")} - {*whole}
        has_rows = "select exists (select 1 from positions where chain_id = ? and deployment = ?)"
        kept = any(conn.execute(has_rows, where).fetchone()[0] for where in others)
        for table in ("positions", "balances"):
            if whole and not kept:
                conn.execute(f"delete from {table}")  # noqa: S608 - our own names
                continue
            conn.executemany(f"delete from {table} where chain_id = ? and deployment = ?", whole)  # noqa: S608

    def _commit_deployment(self, conn: sqlite3.Connection, snapshot: Snapshot, took: Taker) -> None:
        """Replaces the rows of the last snapshot by those of this one.

        Evidence: all of them follow from the contracts' answers at one block, which was on the chain right before; a
        sample was compared with the contracts. Undone by the next snapshot; history keeps the past.
        """
        where = snapshot.where
        for table in ("markets", "snapshots"):
            conn.execute(f"delete from {table} where chain_id = ? and deployment = ?", where)  # noqa: S608
        conn.execute(
            "insert into deployments (chain_id, deployment, protocol, accounts, block_number, block_hash, "
            "block_timestamp, revision, state, note, complete_from, synced_at, exact_below, coverage) "
            "values (?,?,?,?,?,?,?,?,?,?,?,?,?,?) "
            "on conflict do update set protocol = excluded.protocol, accounts = excluded.accounts, "
            "block_number = excluded.block_number, block_hash = excluded.block_hash, "
            "block_timestamp = excluded.block_timestamp, revision = excluded.revision, state = excluded.state, "
            "note = excluded.note, complete_from = excluded.complete_from, synced_at = excluded.synced_at, "
            "exact_below = excluded.exact_below, coverage = excluded.coverage",
            (
                *where,
                snapshot.protocol,
                snapshot.accounts,
                snapshot.block.number,
                snapshot.block.hash,
                snapshot.block.timestamp,
                snapshot.market.revision,
                snapshot.state,
                snapshot.note,
                snapshot.complete_from,
                int(time.time()),
                snapshot.exact_below,
                snapshot.coverage,
            ),
        )
        if snapshot.accounts != Accounts.WATCHED:
            imported.forget(conn, where)
        conn.execute("insert into snapshots values (?, ?, ?)", (*where, snapshot.market_json))
        reorgs.record(conn, snapshot)
        for rows, balances in snapshot.parts:
            self._write_rows(conn, where, rows, balances, replace=not snapshot.whole)
            took(conn, snapshot, rows)
        conn.executemany(insert("markets", 25), [market_row(snapshot, asset) for asset in snapshot.market.assets])
        conn.executemany(
            insert("assets", 4, "insert or replace"),
            [(snapshot.chain_id, a.asset, a.symbol, a.decimals) for a in snapshot.market.assets],
        )
        if not snapshot.whole:
            return
        # States of positions that no log names any more after a reorg; those named again are read again.
        conn.execute(
            "delete from states where chain_id = ?1 and deployment = ?2 and not exists (select 1 from events e "
            "where e.chain_id = ?1 and e.deployment = ?2 and e.account = states.account "
            "and e.position_group = states.position_group)",
            where,
        )

    def _write_rows(
        self,
        conn: sqlite3.Connection,
        where: tuple[int, str],
        rows: Sequence[PositionRow],
        balances: Sequence[BalanceValues],
        *,
        replace: bool,
    ) -> None:
        """Writes rows of positions, each with all of its balances; with `replace`, over those that are there.

        Evidence: the same positions' new rows, in the same transaction.
        """
        if replace:
            self.sums.take_out(where, *overwritten(conn, where, rows, balances))
        else:
            insert_all(conn, "positions", len(POSITION_COLUMNS), rows)
            insert_all(conn, "balances", len(BALANCE_COLUMNS), balances)
        self.sums.put_in(where, rows, balances)

    def older_rows(self, where: tuple[int, str], keys: Iterable[PositionKey], block: int) -> list[PositionKey]:
        """The positions among these whose row is verified and of an older block than `number`."""
        rows = rows_of(self.conn, "t.account, t.position_group, t.block_number, t.status", "positions", where, keys)
        return [PositionKey(a, g) for a, g, number, status in rows if number < block and status != "unverified"]

    def rewrite_rows(self, rows: Sequence[PositionRow], balances: Sequence[BalanceValues]) -> None:
        """Replaces older rows of one deployment by those of the last snapshot's own block."""
        place = Place(rows[0].block_number, rows[0].block_hash, rows[0].block_timestamp)
        with self.transaction() as conn, noted(conn, rows[0].chain_id, place, always=False, only=rows):
            self._write_rows(conn, (rows[0].chain_id, rows[0].deployment), rows, balances, replace=True)

    def of_people(self, where: tuple[int, str], people: Iterable[str]) -> set[PositionKey]:
        """The positions whose wallet, owner or account is one of these. (Evidence: the table is temporary.)"""
        with self.transaction() as conn:
            conn.execute("create temp table if not exists people (address text primary key collate nocase)")
            conn.execute("delete from people")
            conn.executemany("insert into people values (?)", [(address,) for address in people])
            rows = conn.execute(
                "select account, position_group from positions p where chain_id = ? and deployment = ? and exists "
                "(select 1 from people where address in (p.wallet, p.owner, p.account))",
                where,
            )
            return {PositionKey(*row) for row in rows}

    # what happened --------------------------------------------------------------------------------------------------

    def audit(
        self,
        chain_id: int,
        deployment: str,
        kind: str,
        *,
        checked: int,
        mismatches: int,
        block: Block | None = None,
        detail: Any = None,
    ) -> None:
        """Records what was checked, found and done; `detail` becomes JSON."""
        with self.transaction() as conn:
            conn.execute(
                "insert into audits (chain_id, deployment, at, block_number, block_hash, kind, checked, mismatches, "
                "detail) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    chain_id,
                    deployment,
                    int(time.time()),
                    block and block.number,
                    block and block.hash,
                    kind,
                    checked,
                    mismatches,
                    None if detail is None else json.dumps(detail),
                ),
            )
            # A live tail audits every block: only the last audits without mismatches stay. Those with any are never deleted.
            # Evidence: their number alone; nothing is decided by them.
            conn.execute(
                "delete from audits where kind in ('self-audit', 'cross-check') and mismatches = 0 "
                "and id < (select max(id) from audits) - ?",
                (KEPT_AUDITS,),
            )

    def start_run(self, chain_id: int) -> int:
        with self.transaction() as conn:
            run = conn.execute(
                "insert into runs (chain_id, started_at) values (?, ?)", (chain_id, int(time.time()))
            ).lastrowid
            # Evidence: their number alone. It is a log of what syncs cost; nothing is decided by it.
            conn.execute("delete from runs where id <= ? - 1000", (run,))
        assert run is not None
        return run

    def finish_run(self, run: int, **columns: int) -> None:
        """Sets requests, retries, logs, positions_read and block_number of a run."""
        names = ", ".join(f"{name} = ?" for name in columns)
        with self.transaction() as conn:
            conn.execute(
                f"update runs set finished_at = ?, {names} where id = ?",  # noqa: S608 - names are ours
                (int(time.time()), *columns.values(), run),
            )
