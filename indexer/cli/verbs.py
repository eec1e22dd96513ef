"""The verbs by name, each imported when it is called, and how errors end them."""

import logging
import os
import sqlite3
import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from indexer.cli.completion import with_values
from indexer.errors import ConfigError, IndexerError
from indexer.text.console import drop_stderr, remark


class Verb(NamedTuple):
    """The module of `indexer` that a verb is in, imported when it is called, and its short help."""

    module: str
    summary: str


class Named(Mapping[str, click.Command]):
    """The commands `name` of the modules that they are said to be in, as the function of that name.

    One that would hide a name of Python has an underscore behind it.
    """

    def __init__(self, verbs: Mapping[str, Verb]) -> None:
        self.verbs = verbs

    def __getitem__(self, name: str) -> click.Command:
        module = import_module(f"indexer.{self.verbs[name].module}")
        function = name.replace("-", "_")
        command: click.Command = getattr(module, function, None) or getattr(module, f"{function}_")
        return with_values(command)

    def __iter__(self) -> Iterator[str]:
        return iter(self.verbs)

    def __len__(self) -> int:
        return len(self.verbs)

    def __contains__(self, name: object) -> bool:
        return name in self.verbs


class Verbs(click.Group):
    """Any error ends a command with one line on stderr; exit code 2 for wrong usage, 130 when interrupted, else 1."""

    def __init__(self, *, verbs: Mapping[str, Verb], **extra: Any) -> None:
        commands: Any = Named(verbs)
        super().__init__(commands=commands, **extra)
        #: what lists of verbs need: names and summaries, and nothing that could be called
        self.listed = {name: click.Command(name, short_help=verb.summary) for name, verb in verbs.items()}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the verbs without importing them."""
        click.Group(commands=self.listed).format_commands(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Completes to verbs without importing them, and to the global options."""
        named = {name: verb for name, verb in sorted(self.listed.items()) if name.startswith(incomplete)}
        found = [CompletionItem(name, help=verb.get_short_help_str()) for name, verb in named.items()]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, ArithmeticError, sqlite3.DatabaseError) as error:
            # Another program may have written into the file; what the file does not explain is a defect and keeps its trace.
            from indexer.queries.damage import blame

            if ctx.obj:
                blame(ctx.obj.db_path, error)
            raise

    def main(self, *args: Any, **extra: Any) -> Any:
        # Whoever started us may have closed them.
        sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for good
        sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for good
        code: Any = 0
        try:
            try:
                code = super().main(*args, **{**extra, "standalone_mode": False})
            finally:
                sys.stdout.flush()
        except click.UsageError as error:
            hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
            code = failed(error.format_message() + hint, 2)
        except ConfigError as error:
            code = failed(str(error), 2)
        except click.ClickException as error:
            code = failed(error.format_message(), 1)
        except IndexerError as error:
            if error.__cause__ is not None:
                logging.getLogger("indexer").info("the trace behind it", exc_info=error)
            code = failed(str(error), 1)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the rest of the buffer has nowhere to go either
            where = error.filename or "standard output"
            code = 1 if isinstance(error, BrokenPipeError) else failed(f"{where}: {error.strerror or error}", 1)
        except UnicodeEncodeError:  # from an argument, as text of nodes and files is decoded
            code = failed("an argument holds bytes that are no text in UTF-8: check how it was typed or copied", 2)
        except MemoryError:
            code = failed(
                "this machine, or a limit such as ulimit's or a container's, gives too little memory or too few threads: raise "
                "that; a list takes less with fewer rows, or with --csv or --nl",
                1,
            )
        except (KeyboardInterrupt, click.Abort):
            remark("Interrupted. What was saved stays; the same command goes on from there.")
            code = 130
        except Exception as error:  # noqa: BLE001 - whatever else happens is one line too
            code = failed(unforeseen(error), 1)
        try:
            sys.stderr.flush()
        except OSError:
            drop_stderr()
        sys.exit(code if isinstance(code, int) else 0)


def unforeseen(error: Exception) -> str:
    """One line about an unforeseen error; its trace goes to the log of -v."""
    from indexer.boundary.masking import masked

    logging.getLogger("indexer").info("the trace of an unforeseen error", exc_info=error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}indexer{os.sep}" in frame.filename] or frames
    where = f"{'.'.join(Path(own[-1].filename).with_suffix('').parts[-2:])}:{own[-1].lineno}" if own else "nowhere"
    return (
        f"unforeseen error {type(error).__name__}: {masked(str(error))[:300]} (at {where}): if the database or "
        "a file was changed by hand, undo that or sync into a new one; else please report this, with the trace that "
        "`indexer -v` shows"
    )


def failed(message: str, code: int) -> int:
    remark(f"Error: {' '.join(message.split())}")
    return code
