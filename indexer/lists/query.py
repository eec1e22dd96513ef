"""The verbs `query` and `export`: the rows of any SQL, and whole lists with every column."""

import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

import click

from indexer.queries import exports as exporting
from indexer.queries import queries as reading
from indexer.queries.exports import Kind
from indexer.queries.freshness import described
from indexer.queries.known import synced
from indexer.schema.dictionary import old_names
from indexer.store.shards import Shards
from indexer.terminal.freshness import AGES, fails_when_old
from indexer.terminal.options import Session, below_option, exact_option, holds, scheduler_options, session_of
from indexer.terminal.output import Output, output_options
from indexer.terminal.scope import Asked, list_options
from indexer.text.console import bars, counted, remark
from indexer.text.values import many


@click.command(
    epilog='\b\nExamples:\n  indexer query "select status, count(*) from positions group by status"'
    '\n  indexer query "select account, profit_before_gas_usd from opportunities"'
)
@click.argument("sql")
@click.option("--chain", metavar="NAME", help="With --db DIR/: only the file of this chain.")
@click.option(
    "--lake",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The lake that `export --lake` and `sync --lake` write, in DuckDB's SQL.",
)
@exact_option
@output_options
@fails_when_old
@session_of
def query(session: Session, sql: str, chain: str | None, lake: Path | None, exact: bool, output: Output) -> None:
    """Run one SELECT on the database; it cannot write.

    `indexer schema` lists the tables. Beside them there is `opportunities`, what `indexer opportunities` lists: its rows are
    computed when a query names it.
    """
    if lake is not None:
        if chain is not None or exact:
            raise click.UsageError("--lake is a place of its own: it takes no --chain and no --exact")
        query_lake(lake, sql, output)
        return
    if chain is not None:
        session = session.of_chain(chain)
    if session.folder and exact:
        raise click.UsageError("--exact is for one chain's file here: name it with --chain")
    with session.read(for_people=output.table, exact=exact) as conn, one_connection(session, conn) as into:
        if reading.names_table(sql, "opportunities"):
            from indexer.risk.opportunity_rows import lay_table

            with bars() as progress:
                progress.start("positions", 1, "query")
                lay_table(conn, session.deployments(conn), into, remark)
            into.execute("pragma query_only = on")
        reads: set[tuple[str, str]] = set()
        columns, rows = reading.run(into, sql, reads)
        for line in old_names(reads, sql):
            remark(line)
        output.write(columns, rows)


def query_lake(lake: Path, sql: str, output: Output) -> None:
    """Runs SQL over a lake, and says how old it is."""
    from indexer.queries import lake as lakes

    columns, rows = lakes.run(lake, sql)
    ages = click.get_current_context().meta[AGES] = lakes.freshness(lake)
    if output.table:
        for line in described(ages, time.time()):
            remark(line)
    output.write(reading.unique(columns), rows)


@contextmanager
def one_connection(session: Session, conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """The connection on which SQL of the user's runs: that of the file, or one of all files of a folder."""
    if not session.folder:
        yield conn
        return
    from indexer.store.shards import TooManyFilesError, attached

    try:
        with attached(session.db) as together:
            yield together
    except TooManyFilesError as error:
        raise click.UsageError(str(error)) from None


@click.command(
    short_help="Write whole lists with every column, as files or for a pipe.",
    epilog="\b\nExamples:\n  indexer export at-risk --csv > at-risk.csv\n  indexer export positions --protocol maker --output maker.json",
)
@click.argument("what", required=False, type=click.Choice([kind.value for kind in Kind]))
@click.option(
    "--lake",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Instead: positions, balances, markets and months of history as Parquet, a file a deployment.",
)
@click.option(
    "--lake-prune",
    is_flag=True,
    help="Then take months of history out of the database that the lake holds, as far as they are final.",
)
@scheduler_options
@below_option
@list_options(sort="the largest debt at risk first")
@exact_option
@output_options
@fails_when_old
@session_of
def export(
    session: Session,
    what: str | None,
    lake: Path | None,
    lake_prune: bool,
    scheduler: str | None,
    insecure_scheduler: bool,
    below: float | None,
    asked: Asked,
    exact: bool,
    output: Output,
) -> None:
    """Write rows with every column, with block and time (UTC), ranked by debt at risk.

    With --lake DIR, all that the file or the folder of files holds goes into a folder of Parquet files, which
    `query --lake DIR` and any program that reads Parquet take as one.
    """
    if (what is None) == (lake is None):
        raise click.UsageError(f"say what to export: {', '.join(Kind)}, or --lake DIR")
    if lake is not None:
        if any(astuple(asked)) or below is not None or exact or output.asked:
            raise click.UsageError("--lake writes everything: it takes no flag that chooses rows or a format")
        export_lake(session, lake, scheduler, insecure=insecure_scheduler, prune=lake_prune)
        return
    if scheduler is not None or lake_prune:
        raise click.UsageError(f"{'--lake-prune' if lake_prune else '--scheduler'} is for --lake")
    assert what is not None  # either it or --lake, see above
    kind = Kind(what)
    with session.read(for_people=output.table, exact=exact, below=below) as conn:
        scope = asked.scope(session, conn)
        holds(session, conn, chain_id=scope.chain_id, protocols=asked.protocols, deployments=asked.deployments)
        columns, rows = exporting.select(
            conn, kind, below=below, min_debt=asked.min_debt, protocols=asked.protocols, scope=scope
        )
        if output.table or output.path or not sys.stdout.isatty():
            rows = counted(rows, exporting.size(conn, kind), "rows")
        output.write(columns, rows)


def export_lake(session: Session, lake: Path, scheduler: str | None, *, insecure: bool, prune: bool) -> None:
    """Writes all that is synced into a lake."""
    from indexer.transfer.lake import write_all

    with session.opened() as conn:
        files = conn.paths if isinstance(conn, Shards) else [session.db]
        count = len(synced(conn))
    written = write_all(files, lake, scheduler, insecure=insecure)
    rows = sum(one.rows for one in written)
    remark(f"{lake}: {many(rows, 'row')} of {many(count, 'deployment')} in {many(len(written), 'file')}")
    for path in files if prune else ():
        from indexer.store.store import Store
        from indexer.transfer.pruning import prune as take_out

        with Store(path) as store, store.lock():
            remark(f"{path}: {take_out(store, lake).told(lake)}")
