"""A folder of databases, one a chain: which files belong to it, and which chain is in which.

DIR/mainnet.db, DIR/base.db, ...    one chain each
DIR/watch.db                        watched wallets, rules, alerts and deliveries, for all chains
"""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from indexer.errors import StoreError
from indexer.store.database import open_readonly

WATCH_FILE = "watch.db"


def chain_files(folder: Path) -> list[Path]:
    """The databases of chains in a folder, by name. StoreError where there is no such folder."""
    if not folder.is_dir():
        raise StoreError(f"there is no folder {folder}: `indexer --db {folder}/ sync --chain all` makes it")
    return sorted(path for path in folder.glob("*.db") if path.name != WATCH_FILE)


def chains_of(path: Path) -> list[int]:
    """The ids of the chains of which a file holds deployments; none while it is new."""
    with closing(open_readonly(path, current=False)) as conn:
        if not conn.execute("select 1 from sqlite_master where name = 'deployments'").fetchone():
            return []
        return [number for (number,) in conn.execute("select distinct chain_id from deployments order by 1")]


def places(files: Iterable[Path]) -> dict[int, Path]:
    """The file of each chain. StoreError naming both files where a chain is in two."""
    found: dict[int, Path] = {}
    for path in files:
        for chain_id in chains_of(path):
            if chain_id in found:
                raise StoreError(
                    f"chain id {chain_id} is in two files, {found[chain_id]} and {path}: move one of them out of the "
                    "folder, or its rows would be counted twice"
                )
            found[chain_id] = path
    return found
