"""The verb `completion`, and what a shell may complete beside commands and flags: chains, deployments, protocols, labels,
groups and wallets.

Names come from the database and from the configuration; where neither can be read there is nothing to complete, and
nothing is said.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class

from indexer.errors import IndexerError
from indexer.queries.known import completed

if TYPE_CHECKING:
    from indexer.config import Config


def names_in(db: Path, what: str) -> list[str]:
    """Names of one kind; nothing where there is no database."""
    if not db.exists():
        return []
    with closing(sqlite3.connect(f"{db.resolve().as_uri()}?mode=ro", uri=True)) as conn:
        return completed(conn, what)


def configured(context: click.Context) -> "Config":
    from indexer.config import load

    return load(context.find_root().params.get("config_path"), os.environ)


def chains(context: click.Context, db: Path) -> Iterator[str]:
    yield from names_in(db, "chains")
    yield from configured(context).chains


def deployments(context: click.Context, db: Path) -> Iterator[str]:
    yield from names_in(db, "deployments")
    chain = context.params.get("chain")
    yield from (name for name, found in configured(context).deployments.items() if chain in (None, found.chain))


def protocols(context: click.Context, db: Path) -> Iterator[str]:
    yield from names_in(db, "protocols")
    yield from {found.protocol for found in configured(context).deployments.values()}


def people(_context: click.Context, db: Path) -> Iterator[str]:
    yield from names_in(db, "people")


def commands(context: click.Context, _db: Path) -> Iterator[str]:
    yield from sorted(context.find_root().command.commands)  # type: ignore[attr-defined]


Source = Callable[[click.Context, Path], Iterable[str]]
#: by the name of an option or an argument, whatever command it belongs to
SOURCES: dict[str, Source] = {
    "chain": chains,
    "deployments": deployments,
    "protocols": protocols,
    "whom": people,
    "what": people,
    "wallets": people,
    "words": commands,
}


class Known(click.types.StringParamType):
    """A text that may be completed to one of the names that are known."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        db = Path(ctx.find_root().params.get("db") or "indexer.db")
        found: dict[str, None] = {}
        names = iter(self.source(ctx, db))
        while True:
            try:
                found[next(names)] = None
            except StopIteration:
                break
            except (IndexerError, sqlite3.Error, OSError):  # an older file, or a configuration that does not load
                break
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def with_values(command: click.Command) -> click.Command:
    """The command, whose options and arguments of these names know their values."""
    for parameter in command.params:
        source = SOURCES.get(parameter.name or "")
        if source is not None and parameter.type is click.STRING:
            parameter.type = Known(source)
    for inner in getattr(command, "commands", {}).values():
        with_values(inner)
    return command


@click.command(
    short_help="Print what makes a shell complete commands and names.",
    epilog="\b\nExamples:\n  indexer completion zsh > _indexer\n  indexer completion fish > indexer.fish"
    '\n  eval "$(indexer completion bash)"',
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands, flags, and the names that are known.

    Put the last example's line into ~/.bashrc (or the same with zsh into ~/.zshrc); for fish, write the script to
    ~/.config/fish/completions/indexer.fish.
    """
    main = context.find_root()
    kind = get_completion_class(shell)
    assert kind is not None
    name = main.info_name or "indexer"
    click.echo(kind(main.command, {}, name, f"_{name.replace('-', '_').upper()}_COMPLETE").source())
