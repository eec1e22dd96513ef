"""The group `indexer watch`: the watched wallets, and alerts when one comes near liquidation."""

import click

from indexer.jobs.watched import add, import_, list_, remove
from indexer.jobs.watching import check, run


@click.group(
    short_help="Watch wallets; be told when one comes near liquidation.",
    invoke_without_command=True,
    epilog="\b\nExample:\n  indexer watch add 0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503 --below 1.2\n  indexer watch run",
)
@click.pass_context
def watch(ctx: click.Context) -> None:
    """Watch wallets and send an alert when one comes near liquidation.

    A rule alerts once, and again only after the health factor has recovered beyond a margin (hysteresis); the recovery is
    reported too. A wallet without rules of its own has those of the configuration: below 1.1. Besides, there are alerts
    for every wallet when the contract itself allows its liquidation, and when its health is unknown.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for command in (add, list_, remove, import_, check, run):
    watch.add_command(command)
