"""Six markets of the devnet as a sync recorded them, at the schema of today, so that no node is needed."""

import gzip
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from indexer.store.store import Store

OLDER = Path(__file__).parent / "store" / "older"
CONFIG = OLDER / "indexer.toml"


@cache
def contents() -> bytes:
    """The database: unpacked and brought to this version once in each process."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "indexer.db"
        path.write_bytes(gzip.decompress((OLDER / "indexer.db.gz").read_bytes()))
        Store(path).close()
        return path.read_bytes()


def recorded(path: Path) -> Path:
    """A copy of the database."""
    path.write_bytes(contents())
    return path


def recorded_folder(folder: Path) -> Path:
    """Its database and configuration, as a user's folder has them."""
    recorded(folder / "indexer.db")
    (folder / "indexer.toml").write_bytes(CONFIG.read_bytes())
    return folder
