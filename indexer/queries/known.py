"""What a file or a folder of files holds, by name: chains, protocols, deployments."""

import sqlite3


def chain_names(conn: sqlite3.Connection) -> dict[int, str]:
    """The chains by id; the number itself where the file does not name one."""
    rows = conn.execute("select chain_id, chain from deployments order by 1")
    return {chain_id: name or str(chain_id) for chain_id, name in rows}


def protocols(conn: sqlite3.Connection) -> list[str]:
    return [name for (name,) in conn.execute("select distinct protocol from deployments order by 1")]


def deployments(conn: sqlite3.Connection) -> list[sqlite3.Row]:
    """chain_id, protocol, deployment and block_number of each, also before its first snapshot (NULL)."""
    return conn.execute(
        "select chain_id, protocol, deployment, block_number from deployments order by chain_id, deployment"
    ).fetchall()


def synced(conn: sqlite3.Connection, chain_id: int | None = None) -> list[str]:
    """The deployments of a chain, or of all, that have a snapshot."""
    rows = conn.execute(
        "select deployment from deployments where (?1 is null or chain_id = ?1) and block_number is not null "
        "order by 1",
        (chain_id,),
    )
    return [name for (name,) in rows]


#: what a shell completes -> the statements that list it
COMPLETED = {
    "chains": ["select distinct chain from deployments"],
    "deployments": ["select deployment from deployments"],
    "protocols": ["select distinct protocol from deployments"],
    "people": [
        "select label from watches",
        "select ens from watches",
        "select distinct '@' || name from watch_groups",
        "select wallet from watches",
    ],
}


def completed(conn: sqlite3.Connection, what: str) -> list[str]:
    """The names of one kind."""
    return [name for sql in COMPLETED[what] for (name,) in conn.execute(sql) if name]
