"""A database's record of its own deployments, so that it can be read without the configuration it was synced with."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from indexer.boundary.stored_json import stored_object
from indexer.errors import ConfigError, StoreError
from indexer.model import Deployment
from indexer.plugins import did_you_mean


def describe(conn: sqlite3.Connection, chain_id: int, deployment: Deployment) -> None:
    """Record what an adapter of this deployment needs."""
    options = {"native_symbol": deployment.native_symbol, **deployment.options}
    conn.execute(
        "update deployments set chain = ?, start_block = ?, addresses = ?, options = ? where chain_id = ? and deployment = ?",
        (
            deployment.chain,
            deployment.start_block,
            json.dumps(dict(deployment.addresses)),
            json.dumps(options),
            chain_id,
            deployment.name,
        ),
    )


def keep_start_block(conn: sqlite3.Connection, chain_id: int, name: str, block: int) -> None:
    """Records from which block on a deployment exists, as the chain proved."""
    conn.execute(
        "update deployments set start_block_found = ? where chain_id = ? and deployment = ?", (block, chain_id, name)
    )


def described(conn: sqlite3.Connection, configured: Callable[[], Mapping[str, Deployment]]) -> Mapping[str, Deployment]:
    """The file's deployments by name: as recorded in it, or as configured where an older version recorded nothing.

    The configuration is asked for only then. Raises `StoreError` for a row that no version of this program wrote.
    """
    found: dict[str, Deployment] = {}
    for row in conn.execute("select * from deployments"):
        if row["addresses"] is None:
            found.update({name: known for name, known in configured().items() if name == row["deployment"]})
            continue
        where = f"deployments.{row['deployment']}"
        options = texts(row["options"], f"{where}.options")
        native = options.pop("native_symbol", "ETH")
        found[row["deployment"]] = Deployment(
            row["deployment"],
            row["protocol"],
            row["chain"],
            row["start_block"],
            texts(row["addresses"], f"{where}.addresses"),
            options,
            str(native),
        )
    return found


def texts(text: str | None, where: str) -> dict[str, Any]:
    """A JSON object of texts and numbers. Raises `StoreError` for anything else."""
    try:
        value = stored_object(text or "", where)
        plain = all(isinstance(inner, str | int | float) for inner in value.values())
    except StoreError:
        plain = False
    if not plain:
        raise StoreError(f"{where} is damaged: it is no JSON object of texts and numbers; run `indexer sync` again")
    return value


def chain_id_of(conn: sqlite3.Connection, name: str, configured: Mapping[str, int]) -> int:
    """The id of a chain that the file names, else of a configured one. Raises `ConfigError` for another name."""
    row = conn.execute("select chain_id from deployments where chain = ?", (name,)).fetchone()
    if row is None and name not in configured:
        raise ConfigError(f"unknown chain {name!r}{did_you_mean(name, configured)}")
    return int(configured[name] if row is None else row[0])
