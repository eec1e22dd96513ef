"""Markets, positions and rows as the file keeps them: the one place where their JSON is written and loaded.

A market is stored without its registry, which has tables of its own; a position with the block at which it is known to be
right, which a reorg may have moved.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from indexer.adapter import AnyAdapter, AnyWhatIf, WhatIf
from indexer.errors import IndexerError, StoreError
from indexer.model import Deployment, Market, Position, PositionKey, Registered
from indexer.plugins import adapter_class
from indexer.progress import NoProgress, Progress
from indexer.store.rows import POSITION_COLUMNS, PositionRow
from indexer.text import iso

#: positions between two looks at the progress bar
CHUNK = 2_000
#: blocks that the kept hashes must span before they tell how long a block takes
SPAN = 100


#: made once for each type: they are slow to make
_SHAPES: dict[type[Any], TypeAdapter[Any]] = {}


def _json(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _SHAPES:
        _SHAPES[kind] = TypeAdapter(kind)
    return _SHAPES[kind]


def dump_market(adapter: AnyAdapter, market: Market) -> str:
    return _json(adapter.market_type).dump_json(market, exclude={"registry"}).decode()


def load_market(adapter: AnyAdapter, text: str, registry: Registered | None = None) -> Market:
    """A stored market, with the registry if that is needed too."""
    try:
        market: Market = _json(adapter.market_type).validate_json(text)
    except ValidationError as error:
        raise foreign(adapter, "market", error) from error
    return market if registry is None else replace(market, registry=registry)


def foreign(adapter: AnyAdapter, what: str, error: ValidationError) -> StoreError:
    """A stored market or position that no version of this program wrote."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, problem["loc"]))[:80]
    return StoreError(
        f"a stored {what} of {adapter.deployment.name} is damaged ({where or 'JSON'}: {problem['msg'][:80]}): restore a copy of "
        "the file, or delete it and run `indexer sync` again"
    )


def dump_position(adapter: AnyAdapter, position: Position) -> str:
    return _json(adapter.position_type).dump_json(position).decode()


def load_positions(adapter: AnyAdapter, rows: Iterable[tuple[int, str]]) -> Iterator[Position]:
    """Stored positions: (the block each is known to be right at, its JSON)."""
    validate = _json(adapter.position_type).validate_json
    for block_number, state in rows:
        try:
            position: Position = validate(state)
        except ValidationError as error:
            raise foreign(adapter, "position", error) from error
        if position.block_number != block_number:  # a reorg moved the block it is known to be right at
            position = replace(position, block_number=block_number)
        yield position


# the book -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Book:
    """One deployment's market and positions as of its last snapshot; `newer` positions were read after it."""

    chain_id: int
    adapter: AnyWhatIf
    market: Market
    positions: list[Position]
    newer: int = 0

    @property
    def name(self) -> str:
        return self.adapter.deployment.name

    @property
    def time(self) -> str:
        """When the snapshot's block was made, UTC."""
        return iso(self.market.block.timestamp)


def deployments(
    conn: sqlite3.Connection,
    *,
    chain_id: int | None = None,
    protocols: Sequence[str] = (),
    names: Sequence[str] = (),
) -> list[sqlite3.Row]:
    """The synced deployments that pass every filter, with their stored market."""
    rows = conn.execute(
        "select d.*, s.market from deployments d join snapshots s using (chain_id, deployment) "
        "order by chain_id, deployment"
    )
    return [
        row
        for row in rows
        if (chain_id is None or row["chain_id"] == chain_id)
        and (not protocols or row["protocol"] in protocols)
        and (not names or row["deployment"] in names)
    ]


def able(rows: Iterable[sqlite3.Row], capability: type[Any]) -> tuple[list[sqlite3.Row], list[str]]:
    """Those of these rows of `deployments` whose protocol has the capability, and the names of the others."""
    found, lacking = [], []
    for row in rows:
        if issubclass(adapter_class(row["protocol"]), capability):
            found.append(row)
        else:
            lacking.append(f"{row['deployment']} ({row['protocol']})")
    return found, lacking


def load(
    conn: sqlite3.Connection,
    rows: Iterable[sqlite3.Row],
    known: Mapping[str, Deployment],
    *,
    wallet: str | None = None,
    progress: Progress | None = None,
) -> list[Book]:
    """The books of these rows of `deployments`: everyone with debt, or all that one wallet holds.

    Raises `IndexerError` for a deployment that is not `known` (an older file does not have its addresses), or
    whose protocol is no `WhatIf` (`able` leaves those out).
    """
    progress = progress or NoProgress()
    wanted = list(rows)
    for row in wanted:
        if row["deployment"] not in known:
            raise IndexerError(
                f"neither the file nor the configuration has the addresses of {row['deployment']}; sync it again, name its "
                "configuration with --config, or leave it out by naming others with --deployment"
            )
    progress.start("reading", sum(_count(conn, row, wallet) for row in wanted), "positions")
    books = []
    for row in wanted:
        adapter = adapter_class(row["protocol"])(known[row["deployment"]])
        if not isinstance(adapter, WhatIf):
            raise IndexerError(f"{row['deployment']}: {row['protocol']} does not say what other prices would do to it")
        market = load_market(adapter, row["market"])
        positions, newer = [], 0
        for position in load_positions(adapter, _states(conn, row, wallet)):
            newer += position.block_number > market.block.number
            positions.append(position)
            if len(positions) % CHUNK == 0:
                progress.advance("reading", CHUNK)
        books.append(Book(row["chain_id"], adapter, market, positions, newer))
    progress.done("reading")
    return books


DEBTORS = (
    "from positions p join states s using (chain_id, deployment, account, position_group) "
    "where p.chain_id = ? and p.deployment = ? and (p.status <> 'no-debt' or exists (select 1 from balances b "
    "where b.chain_id = p.chain_id and b.deployment = p.deployment and b.account = p.account "
    "and b.position_group = p.position_group and b.side = 'debt'))"
)
OF_WALLET = (
    "from positions p join states s using (chain_id, deployment, account, position_group) "
    "where p.chain_id = ? and p.deployment = ? and ?3 in (p.wallet, p.owner, p.account)"
)


def _states(conn: sqlite3.Connection, row: sqlite3.Row, wallet: str | None) -> Iterator[tuple[int, str]]:
    where = (row["chain_id"], row["deployment"])
    if wallet is None:
        found = conn.execute(f"select s.block_number, s.state {DEBTORS}", where)
    else:
        found = conn.execute(f"select s.block_number, s.state {OF_WALLET}", (*where, wallet))
    for block_number, state in found:  # noqa: UP028 - `yield from` would close the cursor after its connection
        yield block_number, state


def _count(conn: sqlite3.Connection, row: sqlite3.Row, wallet: str | None) -> int:
    """About how many positions will be read."""
    if wallet is not None:
        return 0
    where = (row["chain_id"], row["deployment"])
    found: tuple[int] = conn.execute(
        "select count(*) from positions where chain_id = ? and deployment = ? and status <> 'no-debt'", where
    ).fetchone()
    return found[0]


def seconds_per_block(conn: sqlite3.Connection, chain_id: int) -> float | None:
    """How long a block takes, by the oldest and newest kept one; None before they are far enough apart."""
    first, began, last, ended = conn.execute(
        "select min(number), min(timestamp), max(number), max(timestamp) from blocks where chain_id = ?", (chain_id,)
    ).fetchone()
    if first is None or last - first < SPAN:
        return None
    return float((ended - began) / (last - first)) or None  # a test chain may stand still


# rows -----------------------------------------------------------------------------------------------------------------


def position_rows(
    conn: sqlite3.Connection, chain_id: int, deployment: str, *, at_risk: bool = False
) -> dict[PositionKey, PositionRow]:
    """Rows of `positions` by key, or only those of the view `at_risk`."""
    rows = conn.execute(
        f"select {', '.join(POSITION_COLUMNS)} from {'at_risk' if at_risk else 'positions'} "  # noqa: S608 - our names
        "where chain_id = ? and deployment = ?",
        (chain_id, deployment),
    )
    return {row.key: row for row in map(PositionRow._make, rows)}


class StoredBalance(NamedTuple):
    """What is compared of a row of `balances`."""

    market: str
    asset: str
    side: str
    amount: int
    scaled: int


def stored_balances(conn: sqlite3.Connection, chain_id: int, deployment: str) -> dict[PositionKey, list[StoredBalance]]:
    """Rows of `balances` by position."""
    found: dict[PositionKey, list[StoredBalance]] = {}
    for account, group, market, asset, side, amount, scaled in conn.execute(
        "select account, position_group, market, asset, side, amount_raw, scaled_raw from balances "
        "where chain_id = ? and deployment = ?",
        (chain_id, deployment),
    ):
        balance = StoredBalance(market, asset, side, int(amount), int(scaled))
        found.setdefault(PositionKey(account, group), []).append(balance)
    return found
