"""The verb `schema`: what every table and column means."""

import click

from indexer.errors import ConfigError
from indexer.store.shards import each
from indexer.terminal.options import Session, session_of
from indexer.terminal.output import Output, output_options

TABLE = ("column", "type", "unit", "meaning")
FORMS = ("markdown", "sql", "datasette")


@click.command(
    short_help="Show what every column means, its unit and its source.",
    epilog="\b\nExamples:\n  indexer schema\n  indexer schema positions --json\n  indexer schema --datasette > metadata.json",
)
@click.argument("table", required=False, metavar="[TABLE]")
@click.option("--markdown", is_flag=True, help="The whole reference, as docs/reference-tables.md has it.")
@click.option("--sql", is_flag=True, help="The tables of this database as SQL, with a comment on each column.")
@click.option("--datasette", is_flag=True, help="Metadata for `datasette --metadata FILE`.")
@output_options
@session_of
def schema(session: Session, table: str | None, markdown: bool, sql: bool, datasette: bool, output: Output) -> None:
    """Show what every column means, its unit and its source, for all tables and views, or for one.

    A list of a command (opportunities, status, levels ...) is shown by its name too. Without a table a terminal lists the tables. Only --sql needs a database.
    """
    from indexer.plugins import did_you_mean
    from indexer.schema import dictionary as reference

    tables = reference.dictionary().tables
    asked = [name for name, given in zip(FORMS, (markdown, sql, datasette), strict=True) if given]
    if len(asked) > 1:
        raise click.UsageError(f"--{asked[0]} and --{asked[1]} exclude each other; choose one")
    if asked and (output.asked or (table and not sql)):
        raise click.UsageError(f"--{asked[0]} is a form of its own, of all tables; leave the other away")
    known = {one.name for one in reference.dictionary()}
    if table is not None and table not in (tables if sql else known):
        hint = did_you_mean(table, tables) or f": there are {', '.join(tables)}"
        raise ConfigError(f"unknown table {table!r}{hint}")
    if markdown:
        click.echo(reference.markdown(), nl=False)
    elif datasette:
        click.echo(reference.datasette(session.db_path.stem), nl=False)
    elif sql:
        with session.read() as conn:
            click.echo(reference.commented(next(iter(each(conn)), conn), table), nl=False)
    elif output.table and table is None and not output.columns:
        output.write(("table", "columns", "about"), [(t.name, len(t.columns), t.about) for t in tables.values()])
    else:
        output.write_dicts(reference.rows(table), TABLE if table else ("table", *TABLE), reference.ROW_COLUMNS)
