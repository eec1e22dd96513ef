"""The group `indexer accounts`: lists of accounts to export and to import."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TextIO

import click

from indexer.boundary.files import replacing, write_file
from indexer.errors import IndexerError
from indexer.model import Coverage
from indexer.queries.known import deployments as held
from indexer.store import imported
from indexer.store.database import open_readonly
from indexer.terminal.options import Session, require, session_of
from indexer.terminal.output import Format, by_ending, write
from indexer.text.console import counted, remark

ENDINGS = {".csv": Format.CSV, ".parquet": Format.PARQUET}
CHAIN = click.option("--chain", metavar="NAME", help="Only this chain.")
DEPLOYMENT = click.option("--deployment", "deployments", multiple=True, metavar="D", help="Only this one; repeatable.")


@click.group(
    short_help="Export or import lists of accounts, for a quick first sync.",
    invoke_without_command=True,
    epilog="\b\nExample:\n  indexer accounts import borrowers.csv && indexer sync --no-history",
)
@click.pass_context
def accounts(ctx: click.Context) -> None:
    """Write or read lists of accounts, so that a first sync need not search all of history for them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@accounts.command(epilog="\b\nExample:\n  indexer accounts export borrowers.csv --deployment aave-v3-core")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@CHAIN
@DEPLOYMENT
@session_of
def export(session: Session, file: Path, chain: str | None, deployments: Sequence[str]) -> None:
    """Write every known account to FILE (.csv or .parquet).

    One row a position: chain, deployment, account, position_group, the first and last block in which a log named it (or a
    snapshot found it), and the block ranges whose logs were searched.
    """
    kind = by_ending(file, ENDINGS, None)
    if kind is None:
        raise click.UsageError(f"{file.name!r} has no ending that says how to write it: {', '.join(ENDINGS)}")
    with closing(open_readonly(session.db)) as conn:
        conn.execute("begin")
        chain_id = session.chain_id(conn, chain)
        known = [(row["chain_id"], row["deployment"]) for row in held(conn)]
        require("deployment", deployments, {name for _, name in known})
        wanted = [
            (of, name) for of, name in known if chain_id in (None, of) and (not deployments or name in deployments)
        ]
        rows = counted(imported.known_accounts(conn, wanted), imported.logged(conn), "accounts")
        if kind == Format.CSV:

            def fill(stream: TextIO) -> None:
                write(imported.Known._fields, rows, Format.CSV, stream)

            write_file(file, fill)
        else:
            from indexer.terminal.parquet import write_parquet

            with replacing(file) as stream:
                write_parquet(imported.Known._fields, rows, stream)
    remark(f"the accounts of {', '.join(name for _, name in wanted) or 'no deployment'} are in {file}")


@accounts.command(
    "import",
    short_help="Import the accounts in FILE; the next sync reads them.",
    epilog="\b\nExample:\n  indexer accounts import borrowers.csv --deployment aave-v3-core",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@CHAIN
@DEPLOYMENT
@session_of
def import_(session: Session, file: Path, chain: str | None, deployments: Sequence[str]) -> None:
    """Import the accounts in FILE (.csv or .parquet); the next sync asks the contracts what they hold.

    A column account is enough where --deployment names the one that they are of. Nothing in the file is trusted: wrong
    entries cost a read, and the contracts' own totals of debt show whether anybody is missing, which `indexer status`
    tells as coverage: sums (proven), partial (not proven), history (all logs were read).
    """
    from indexer.plugins import adapter_class
    from indexer.store.store import Store
    from indexer.transfer.accounts_file import Place, load

    config = session.config
    require("deployment", deployments, config.deployments.keys())
    if chain is not None:
        config.chain(chain)
    places = {
        name: Place(config.chain(found.chain).chain_id, found.chain, name, adapter_class(found.protocol).group_pattern)
        for name, found in config.deployments.items()
    }
    found = load(file, places, deployments, chain)
    if found.left_out:
        remark(f"{found.left_out:,} rows of {file} are of other deployments and left out")
    if not found.keys:
        raise IndexerError(f"nothing in {file} is of that choice; nothing was changed")
    with Store(session.db) as store, store.lock(), store.transaction() as conn:
        for place, keys in found.keys.items():
            deployment = config.deployments[place.deployment]
            where = (place.chain_id, place.deployment)
            store.register(*where, deployment.protocol, "borrowers")
            store.describe(place.chain_id, deployment)
            row = store.deployment(*where)
            if row is not None and row["coverage"] == Coverage.HISTORY:
                remark(f"{place.deployment}: all its history is known, so that the list adds nobody")
                continue
            new = imported.keep(conn, where, keys)
            remark(
                f"{place.deployment}: {new:,} accounts to ask about, {len(keys) - new:,} known already; "
                "`indexer sync` reads what they hold"
            )
