"""The command `indexer`: its global options, and the module of each verb."""

import os
import sys
from pathlib import Path

import click
from click.core import ParameterSource

from indexer.cli.verbs import Verb, Verbs
from indexer.terminal.options import Session
from indexer.text.console import log_to_stderr

#: what `--help` and completion list without importing anything
VERBS = {
    "accounts": Verb("jobs.accounts", "Export or import lists of accounts, for a quick first sync."),
    "at-risk": Verb("lists.positions", "List who is at risk of liquidation, the largest debt first."),
    "backtest": Verb("lists.backtest", "Score forecasts of the past against what came."),
    "completion": Verb("cli.completion", "Print what makes a shell complete commands and names."),
    "demo": Verb("jobs.demo", "Write a small database to try the commands on."),
    "doctor": Verb("jobs.doctor", "Examine the endpoints of a chain, recommend its settings."),
    "export": Verb("lists.query", "Write whole lists with every column, as files or for a pipe."),
    "forecast": Verb("jobs.forecast", "Say how likely positions become liquidatable, and when."),
    "help": Verb("cli.help", "Show what a command does and its flags."),
    "init": Verb("jobs.init", "Write a configuration to begin with, and check it."),
    "liquidations": Verb("lists.liquidations", "List the liquidations that logs tell of, the newest first."),
    "levels": Verb("lists.levels", "Show how much debt is liquidatable at which price of ASSET."),
    "merge": Verb("jobs.merge", "Write several databases into a new one, for lists over all."),
    "movements": Verb("lists.movements", "List who added or removed most between two snapshots."),
    "opportunities": Verb("lists.opportunities", "List what a liquidation call pays for everyone at risk."),
    "oracles": Verb("lists.oracles", "Show the oracle behind each price: age, cap, what waits."),
    "protocols": Verb("lists.status", "List the known deployments and their addresses."),
    "query": Verb("lists.query", "Run one SELECT on the database; it cannot write."),
    "report": Verb("lists.report", "Explain one person's wallets, or the whole book."),
    "schema": Verb("lists.schema", "Show what every column means, its unit and its source."),
    "serve": Verb("web.serve", "Show who is at risk as pages that update themselves."),
    "show": Verb("lists.positions", "Show a person's positions and what liquidates them."),
    "simulate": Verb("lists.simulate", "Show who is liquidatable if prices or other things change."),
    "status": Verb("lists.status", "Show how far each deployment is synced."),
    "sync": Verb("jobs.sync", "Bring the database to a block of the chain."),
    "top": Verb("lists.report", "List the largest wallets over all protocols, in USD."),
    "verify": Verb("jobs.verify", "Compare the rows with the contracts' own answers."),
    "volatility": Verb("lists.oracles", "Show how much the price of each feed moves."),
    "watch": Verb("jobs.watch", "Watch wallets; be told when one comes near liquidation."),
}


@click.group(
    cls=Verbs,
    verbs=VERBS,
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
    type=click.Path(),
    metavar="FILE|DIR/",
    default="indexer.db",
    show_default=True,
    help="The SQLite database, or a folder with one a chain.",
)
@click.option("--watch-db", "watch_path", type=click.Path(dir_okay=False, path_type=Path), hidden=True)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Log lines.")
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
@click.version_option(package_name="lending-indexer", message="%(version)s")
@click.pass_context
def main(
    ctx: click.Context, config_path: Path | None, db: str, watch_path: Path | None, log_format: str, verbose: int
) -> None:
    """Exact health factors of every wallet on Aave, Compound and Maker, in one SQLite file."""
    for stream in (sys.stdout, sys.stderr):
        # A symbol that the terminal's encoding lacks is spelt out instead of ending the command.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    log_to_stderr(as_json=log_format == "json", verbose=verbose)
    named = ctx.get_parameter_source("db") is not ParameterSource.DEFAULT
    folder = named and (db.endswith(os.sep) or Path(db).is_dir())
    ctx.obj = Session(config_path, Path(db), named, folder, watch_path)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


if __name__ == "__main__":
    main()
