"""Plans what a sync would request, without changing anything."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from indexer.adapter import AnyAdapter
from indexer.chain.client import Chain
from indexer.errors import ChainError
from indexer.model import Accounts
from indexer.store.database import open_readonly
from indexer.store.store import Store
from indexer.sync.sync import Sync


def expected(
    db: Path, chain: Chain, adapters: Sequence[AnyAdapter], accounts: Accounts, to: str
) -> list[Mapping[str, Any]]:
    """Per deployment, the blocks whose logs are missing and the requests they will take.

    Works on a copy of the database, or an empty one; it asks the chain only for a block, the markets and samples of the logs.
    """
    with TemporaryDirectory(prefix="lending-indexer-") as folder:
        copy = Path(folder) / "copy.db"
        if db.exists():
            with closing(open_readonly(db, current=False)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
        with Store(copy) as store:
            plan = Sync(store, chain, adapters, accounts).plan(to)
    if not plan:
        raise ChainError(f"no deployment could be read on {chain.name}; the lines above say why")
    return plan
