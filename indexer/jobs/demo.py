"""The verb `demo`."""

import lzma
from importlib.resources import files
from pathlib import Path

import click

from indexer.errors import ConfigError
from indexer.store.store import Store
from indexer.text.console import remark


@click.command(
    short_help="Write a small database to try the commands on.",
    epilog="\b\nExamples:\n  indexer demo\n  cd indexer-demo && indexer at-risk",
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path("indexer-demo"))
def demo(folder: Path) -> None:
    """Write a small database into FOLDER, to try the commands on.

    It is what `make demo` of the sources makes: the real contracts of six markets on a local chain, with a history made from
    a seed, synced and compared with the contracts. FOLDER, indexer-demo unless you name one, must not exist. No node is
    needed for any command that reads; `status` and others tell how old the rows are, as of any file.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise ConfigError(f"{folder} is there already, and nothing was changed: name another folder") from None
    sample = files("indexer").joinpath("sample")
    for name, content in (
        ("indexer.toml", sample.joinpath("indexer.toml").read_bytes()),
        ("indexer.db", lzma.decompress(sample.joinpath("indexer.db.xz").read_bytes())),
    ):
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(content)
    Store(folder / "indexer.db").close()  # it may be of an older version
    remark(f"{folder / 'indexer.db'} is written, with a configuration beside it: cd {folder} && indexer at-risk")
