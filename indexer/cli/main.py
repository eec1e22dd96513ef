"""The command `indexer`: its global options, and the module of each verb."""

import sys
from pathlib import Path

import click
from click.core import ParameterSource

from indexer.cli.verbs import Named, Verbs
from indexer.console import log_to_stderr
from indexer.terminal.options import Session

#: verb -> the module of `indexer` that is imported when the verb is called
MODULES = {
    "accounts": "jobs.accounts",
    "at-risk": "lists.positions",
    "completion": "cli.completion",
    "doctor": "jobs.doctor",
    "export": "lists.query",
    "help": "cli.help",
    "liquidations": "lists.liquidations",
    "levels": "lists.levels",
    "merge": "jobs.merge",
    "movements": "lists.movements",
    "opportunities": "lists.opportunities",
    "protocols": "lists.status",
    "query": "lists.query",
    "report": "lists.report",
    "schema": "lists.schema",
    "show": "lists.positions",
    "simulate": "lists.simulate",
    "status": "lists.status",
    "sync": "jobs.sync",
    "top": "lists.report",
    "verify": "jobs.verify",
    "watch": "jobs.watch",
}


@click.group(
    cls=Verbs,
    commands=Named(MODULES),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  indexer sync && indexer at-risk",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Configuration  [default: ./indexer.toml, else the user's config folder]",
)
@click.option(
    "--db",
    type=click.Path(path_type=Path),
    metavar="FILE",
    default=Path("indexer.db"),
    show_default=True,
    help="The SQLite database.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Log lines.")
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
@click.version_option(package_name="lending-indexer", message="%(version)s")
@click.pass_context
def main(ctx: click.Context, config_path: Path | None, db: Path, log_format: str, verbose: int) -> None:
    """Exact health factors of every wallet on Aave, Compound and Maker, in one SQLite file."""
    for stream in (sys.stdout, sys.stderr):
        # A symbol that the terminal's encoding lacks is spelt out instead of ending the command.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    log_to_stderr(as_json=log_format == "json", verbose=verbose)
    ctx.obj = Session(config_path, db, ctx.get_parameter_source("db") is not ParameterSource.DEFAULT)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


if __name__ == "__main__":
    main()
