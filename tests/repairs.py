"""What syncs repaired. A self-audit that heals what it finds would hide a defect: an undisturbed sync repairs nothing."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.store.store import Store

REPAIRS = (
    "select deployment, kind, block_number, detail from audits "
    "where kind in ('reconciliation', 'omitted-logs') or kind = 'self-audit' and mismatches > 0"
)


@contextmanager
def noted() -> Iterator[list[str]]:
    """The repairs that this process writes to any database meanwhile, one line each."""
    found: list[str] = []
    audit: Callable[..., None] = Store.audit

    def noting(store: Store, chain_id: int, deployment: str, kind: str, **columns: Any) -> None:
        if kind in {"reconciliation", "omitted-logs"} or (kind == "self-audit" and columns["mismatches"]):
            found.append(f"{deployment}: {kind} {json.dumps(columns.get('detail'))}")
        audit(store, chain_id, deployment, kind, **columns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "audit", noting)
        yield found


def stored(folder: Path) -> list[str]:
    """The repairs that the databases in a folder tell of: other processes may have synced them."""
    found = []
    for path in sorted(folder.rglob("*.db")):
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as conn:
                rows = conn.execute(REPAIRS).fetchall()
        except sqlite3.Error:
            continue  # no database of the indexer, or none that can be read
        found += [
            f"{path.name}: {deployment}: {kind} in block {block} {detail}" for deployment, kind, block, detail in rows
        ]
    return found
