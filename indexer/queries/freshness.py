"""How old the rows of each deployment are, and whether an empty list of them can be trusted."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.model import Coverage
from indexer.text.values import age


@dataclass(frozen=True, slots=True)
class Freshness:
    """A deployment's newest rows; block and time (unix seconds) are None before the first snapshot."""

    chain_id: int
    deployment: str
    state: str
    note: str | None
    block_number: int | None
    block_timestamp: int | None
    coverage: str | None = None

    def seconds(self, now: float) -> float | None:
        """How old its block is."""
        return None if self.block_timestamp is None else max(now - self.block_timestamp, 0.0)

    def doubt(self, now: float, max_age: float | None) -> str | None:
        """Why these rows cannot be trusted, None where they can; without `max_age` no age is too old.

        An incomplete deployment can be trusted if the contracts' totals prove that nobody with debt is missing.
        """
        seconds = self.seconds(now)
        if seconds is None:
            return "was never synced"
        if self.state == "failed" or (self.state == "incomplete" and self.coverage != Coverage.SUMS):
            return f"is {self.state}{f' ({self.note})' if self.note else ''}, its rows are {age(seconds)} old"
        if max_age is not None and seconds > max_age:
            return f"has rows that are {age(seconds)} old"
        ahead = (self.block_timestamp or 0) - now
        if max_age is not None and ahead > max_age:
            return f"has rows of a time that is {age(ahead)} ahead: set this machine's clock, or how old they are is unknown"
        return None


def freshness(
    conn: sqlite3.Connection,
    *,
    chain_id: int | None = None,
    protocols: Sequence[str] = (),
    deployments: Sequence[str] = (),
) -> list[Freshness]:
    """Every chosen deployment, by chain and name."""
    rows = conn.execute(
        "select chain_id, deployment, state, note, block_number, block_timestamp, coverage, protocol "
        "from deployments "
        "order by chain_id, deployment"
    )
    return [
        Freshness(*row[:7])
        for row in rows
        if chain_id in (None, row[0])
        and (not protocols or row[7] in protocols)
        and (not deployments or row[1] in deployments)
    ]


#: so many deployments are not named one by one where all are of one block
MANY = 3


def described(rows: Sequence[Freshness], now: float) -> list[str]:
    """One line for each block that has rows, with its age."""
    blocks: dict[tuple[int, int | None, int | None], list[Freshness]] = {}
    for row in rows:
        blocks.setdefault((row.chain_id, row.block_number, row.block_timestamp), []).append(row)
    whole = len(blocks) == 1 and len(rows) >= MANY
    return [
        f"{f'all {len(rows)} deployments' if whole else ', '.join(row.deployment for row in found)}: block {block:,}, {age(found[0].seconds(now))} old"
        for (_, block, _), found in blocks.items()
        if block is not None
    ]


#: rows of an older block than their deployment, as a sync that follows the chain leaves them
OLDER = (
    "from main.positions p join main.deployments d using (chain_id, deployment) "
    "where p.block_number < d.block_number and d.exact_below is not null and p.status <> 'unverified'"
)


def older_rows(conn: sqlite3.Connection, below: float | None = None) -> bool:
    """Whether any row is of an older block than its deployment; with `below`, only rows that may have a lower health factor.

    No row below `deployments.exact_below` is older.
    """
    bound = "" if below is None else " and d.exact_below < ?"
    values = () if below is None else (below,)
    return conn.execute(f"select 1 {OLDER}{bound} limit 1", values).fetchone() is not None


def waits(rows: Sequence[Mapping[str, Any] | sqlite3.Row]) -> str | None:
    """A sentence where supplies of these rows of `positions` are not read yet; None where all are."""
    late = sum(not row["supplies_complete"] for row in rows)
    if not late:
        return None
    which = "" if late == len(rows) else f" of {late:,} of these {len(rows):,} positions"
    return (
        f"supplies that back no debt are not read yet{which}, so more may be supplied than is shown: "
        "`indexer sync --supplies` reads them"
    )


def exact_below(conn: sqlite3.Connection, below: float) -> float | None:
    """The lowest health factor, under this one, from which on rows of some deployment may be of an older block."""
    found: tuple[float | None] = conn.execute(
        "select min(exact_below) from deployments where exact_below < ?", (below,)
    ).fetchone()
    return found[0]


def last_commit(conn: sqlite3.Connection) -> float | None:
    """When a sync last committed (unix seconds)."""
    found: tuple[float | None] = conn.execute("select max(synced_at) from deployments").fetchone()
    return found[0]
