"""The verb `help`: the same as COMMAND --help."""

from collections.abc import Sequence

import click


@click.command("help", epilog="\b\nExamples:\n  indexer help show\n  indexer help watch add")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_(context: click.Context, words: Sequence[str]) -> None:
    """Show what a command does and its flags."""
    found = context.find_root()
    for word in words:
        group = found.command
        inner = group.get_command(found, word) if isinstance(group, click.Group) else None
        if inner is None:
            raise click.UsageError(f"{found.command_path} has no command {word!r}", found)
        found = click.Context(inner, info_name=word, parent=found)
    click.echo(found.get_help())
