"""Exact rows of every position at the last snapshot's block, from the file alone.

While a sync follows the chain, most rows are some minutes old (`positions.block_number`); only their status is current.
This module evaluates them at the deployment's block, from the stored market and the stored positions, and puts them into
temporary tables and views of the same names, which the connection then reads instead. The file is not changed.
"""

import sqlite3
from collections.abc import Mapping

from indexer.model import Deployment
from indexer.plugins import adapter_class
from indexer.progress import Progress
from indexer.queries.freshness import OLDER
from indexer.risk.evaluate import balance_rows, evaluate_all
from indexer.store.books import load_market, load_positions
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS

CHUNK = 2_000


def lay_exact_rows(conn: sqlite3.Connection, known: Mapping[str, Deployment], progress: Progress) -> None:
    """Replace rows of older blocks by exact ones in this connection; `known` are the deployments by name."""
    deployments = conn.execute(
        f"select d.*, s.market, d.older from (select d.*, count(*) as older {OLDER} group by d.chain_id, d.deployment) d "  # noqa: S608
        "join main.snapshots s using (chain_id, deployment)"
    ).fetchall()
    _lay_tables(conn)
    for row in deployments:
        _evaluate(conn, row, known[row["deployment"]], progress)


def _lay_tables(conn: sqlite3.Connection) -> None:
    """Copies the tables into temporary ones, with their indexes and views as the file defines them."""
    schema = conn.execute("select type, name, tbl_name, sql from main.sqlite_master where sql is not null").fetchall()
    tables = {"positions": POSITION_COLUMNS, "balances": BALANCE_COLUMNS}
    for kind, name, table, sql in sorted(schema, key=lambda entry: ("table", "index", "view").index(entry[0])):
        if kind == "table" and name in tables:
            conn.execute(f"create temp table {name} {sql[sql.index('(') :]}")
            stored = ", ".join(tables[name])  # not what SQLite computes of them
            conn.execute(f"insert into temp.{name} ({stored}) select {stored} from main.{name}")  # noqa: S608 - our own names
        elif kind == "index" and table in tables:
            conn.execute(sql.replace(f" {name} ", f" temp.{name} ", 1))
        elif kind == "view":
            conn.execute(f"create temp view {name} {sql[sql.lower().index(' as') :]}")


def _evaluate(conn: sqlite3.Connection, row: sqlite3.Row, deployment: Deployment, progress: Progress) -> None:
    """Replaces the older rows of one deployment and their balances."""
    chain_id, name = where = (row["chain_id"], row["deployment"])
    adapter = adapter_class(row["protocol"])(deployment)
    market = load_market(adapter, row["market"])
    states = conn.execute(
        "select s.block_number, s.state from main.positions p join main.states s "
        "using (chain_id, deployment, account, position_group) "
        "where p.chain_id = ? and p.deployment = ? and p.block_number < ? and p.status <> 'unverified'",
        (*where, row["block_number"]),
    )
    progress.start(name, row["older"], "positions")
    while found := states.fetchmany(CHUNK):
        positions = list(load_positions(adapter, [(number, state) for number, state in found]))
        rows = evaluate_all(chain_id, adapter, market, positions)
        balances = balance_rows(chain_id, adapter, market, positions)
        # Evidence: rows of the same positions, right below; the table is temporary.
        conn.executemany(
            "delete from temp.balances where chain_id = ? and deployment = ? and account = ? and position_group = ?",
            [(*where, *position.key) for position in positions],
        )
        for table, columns, new in (("positions", POSITION_COLUMNS, rows), ("balances", BALANCE_COLUMNS, balances)):
            places = ", ".join("?" * len(columns))
            conn.executemany(f"insert or replace into temp.{table} values ({places})", new)  # noqa: S608 - our own names
        progress.advance(name, len(found))
    progress.done(name)
