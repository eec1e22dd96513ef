"""The verb `merge`."""

from pathlib import Path

import click

from indexer.text.console import remark


@click.command(
    short_help="Write several databases into a new one, for lists over all.",
    epilog="\b\nExample:\n  indexer merge mainnet.db base.db --into all.db",
)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--into",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The new database; it must not exist.",
)
def merge(files: tuple[Path, ...], into: Path) -> None:
    """Write several databases into a new one, for lists and reports over all of them.

    Two files may hold deployments of one chain, but not the same deployment. Watched wallets, their rules and alerts stay where they are.
    """
    from indexer.transfer.merging import merge as merged

    if len(files) < 2:
        raise click.UsageError("name two databases or more")
    found = merged(files, into)
    remark(
        f"{into}: {found.positions:,} positions of {found.deployments:,} deployments on {found.chains:,} chains; watched "
        "wallets, rules and alerts were not merged"
    )
