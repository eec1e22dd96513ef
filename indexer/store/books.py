"""Markets, positions and rows as the file stores them: the one place that writes and loads their JSON.

A market is stored without its registry, which has tables of its own, and a position with the block at which it is known
to be right, which a reorg may have moved.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import msgspec

from indexer.adapter import AnyAdapter, AnyWhatIf, WhatIf
from indexer.boundary.stored_json import require_room
from indexer.errors import IndexerError, StoreError
from indexer.model import Deployment, Market, Position, PositionKey, Registered
from indexer.plugins import adapter_class
from indexer.store.rows import OF_ADDRESSES, POSITION_COLUMNS, PositionRow
from indexer.store.shards import at
from indexer.text.values import iso

#: blocks that the kept hashes must span before the length of a block is computed from them
SPAN = 100


#: made once for each type, as they are slow to make
_DECODERS: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    if kind not in _DECODERS:
        _DECODERS[kind] = msgspec.json.Decoder(kind)
    return _DECODERS[kind]


def dump_market(market: Market) -> str:
    kept = {field.name: getattr(market, field.name) for field in fields(market) if field.name != "registry"}
    return msgspec.json.encode(kept).decode()


def load_market(adapter: AnyAdapter, text: str, registry: Registered | None = None) -> Market:
    """A stored market, with its registry if asked for."""
    try:
        market: Market = _decoder(adapter.market_type).decode(require_room(text))
    except (ValueError, RecursionError) as error:  # msgspec's DecodeError is a ValueError
        raise foreign(adapter, "market", error) from error
    return market if registry is None else replace(market, registry=registry)


def foreign(adapter: AnyAdapter, what: str, error: ValueError | RecursionError) -> StoreError:
    """The error for a stored market or position that no version of this program wrote."""
    where, told = "JSON", str(error)
    if isinstance(error, msgspec.DecodeError):
        told, _, place = told.partition(" - at `$.")
        where = place.rstrip("`")[:80] or where
    return StoreError(
        f"a stored {what} of {adapter.deployment.name} is damaged ({where}: {told[:80]}): restore a copy of "
        "the file, or delete it and run `indexer sync` again"
    )


def dump_position(position: Position) -> str:
    return msgspec.json.encode(position).decode()


def load_positions(adapter: AnyAdapter, rows: Iterable[tuple[int, str]]) -> Iterator[Position]:
    """Stored positions: (the block each is known to be right at, its JSON)."""
    decode = _decoder(adapter.position_type).decode
    for block_number, state in rows:
        try:
            position: Position = decode(require_room(state))
        except (ValueError, RecursionError) as error:
            raise foreign(adapter, "position", error) from error
        if position.block_number != block_number:  # a reorg moved the block it is known to be right at
            position = replace(position, block_number=block_number)
        yield position


def load_position(adapter: AnyAdapter, block_number: int, state: str) -> Position:
    """One of them."""
    return next(load_positions(adapter, [(block_number, state)]))


# the book -------------------------------------------------------------------------------------------------------------


#: the group and the asset of a balance; whoever is in a group has something of all that is priced in it
Holding = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """Positions in the file, loaded one by one, anew at each iteration.

    Everyone with debt, or all that these `wallets` hold. Of those whose row says that they are healthy, and who were not
    read after it was written, `below` leaves out who has no lower health factor, and `moved` who has nothing of these assets.
    `verified` leaves out those whose rows are `unverified`, `least` those who owe less USD, `worth` those whose debt is
    worth nothing.
    """

    conn: sqlite3.Connection
    adapter: AnyWhatIf
    chain_id: int
    block_number: int
    wallets: Sequence[str] = ()
    below: float | None = None
    verified: bool = False
    least: float | None = None
    worth: bool = False
    moved: frozenset[Holding] | None = None

    def __iter__(self) -> Iterator[Position]:
        return load_positions(self.adapter, self._states("s.block_number, s.state"))

    def with_factors(self) -> Iterator[tuple[float, Position]]:
        """Each behind the health factor in its row; behind 0 where that does not tell how far it may fall."""
        for block_number, state, factor in self._states(f"s.block_number, s.state, {FACTOR}"):
            yield factor, load_position(self.adapter, block_number, state)

    def _states(self, columns: str) -> sqlite3.Cursor:
        who = OF_WALLETS if self.wallets else DEBTORS
        # without states that are newer than their rows, the rows alone tell whose states need not be looked up
        near = NEAR if self.newer() else f"{FAR} is not true"
        rows = self.conn.cursor()
        rows.row_factory = None  # plain tuples are faster than rows with column names
        return rows.execute(f"select {columns} {who} and {near} and {TRUSTED} and {OWING}", self._where)

    @property
    def _where(self) -> dict[str, Any]:
        return {
            "chain_id": self.chain_id,
            "deployment": self.adapter.deployment.name,
            "block_number": self.block_number,
            "below": self.below,
            "verified": self.verified,
            "least": self.least,
            "worth": self.worth,
            "moved": self.moved is not None,
            "assets": json.dumps([asset for group, asset in self.moved or () if not group]),
            "groups": json.dumps([group for group, _ in self.moved or () if group]),
            "wallets": json.dumps([*self.wallets]),
        }

    def counted(self) -> tuple[int, int]:
        """How many have a row that says they are healthy, and about how many are not left out, for a progress bar."""
        safe, rows = SAFE, FROM
        if self.wallets:
            rows = OF_WALLETS
        elif not self.newer():
            safe, rows = "p.status = 'healthy'", ROWS
        near = "(:below is null or p.status <> 'healthy' or p.health_factor < :below)"
        columns = f"count(*) filter (where {safe}), count(*) filter (where p.status <> 'no-debt' and {near})"
        found: tuple[int, int] = self.conn.execute(f"select {columns} {rows} and {OWING}", self._where).fetchone()
        return found

    def newer(self) -> int:
        """How many positions of the deployment were read after the snapshot."""
        return self._count(
            "from states where chain_id = :chain_id and deployment = :deployment and block_number > :block_number"
        )

    def unverified(self) -> int:
        """How many of whom it is about have a row that nobody vouches for."""
        # the first condition is that of a small index
        return self._count(
            f"{OF_WALLETS if self.wallets else DEBTORS} and p.status in ('unpriceable', 'unverified') and p.status = 'unverified'"
        )

    def _count(self, source: str) -> int:
        found: tuple[int] = self.conn.execute(f"select count(*) {source}", self._where).fetchone()
        return found[0]


#: the rows of `positions`, and with them their states in the order of both keys
ROWS = "from positions p where p.chain_id = :chain_id and p.deployment = :deployment "
FROM = (
    "from positions p join states s using (chain_id, deployment, account, position_group) "
    "where p.chain_id = :chain_id and p.deployment = :deployment "
)
DEBTORS = (
    f"{FROM} and (p.status <> 'no-debt' or (not :worth and exists (select 1 from balances b "  # noqa: S608 - our own SQL
    "where b.chain_id = p.chain_id and b.deployment = p.deployment and b.account = p.account "
    "and b.position_group = p.position_group and b.side = 'debt')))"
)
OF_WALLETS = FROM.replace("positions p", f"({OF_ADDRESSES.replace('?1', ':wallets')}) p", 1)
HELD = (
    "(p.position_group in (select value from json_each(:groups)) or exists (select 1 from balances b "
    "where b.chain_id = p.chain_id and b.deployment = p.deployment and b.account = p.account "
    "and b.position_group = p.position_group and b.asset in (select value from json_each(:assets))))"
)
FAR = f"(p.status = 'healthy' and (p.health_factor >= :below or (:moved and not {HELD})))"
SAFE = "p.status = 'healthy' and s.block_number <= :block_number"
FACTOR = f"case when {SAFE} then p.health_factor else 0.0 end"
NEAR = f"({FAR} is not true or s.block_number > :block_number)"
OWING = "(:least is null or p.debt_usd is null or p.debt_usd >= :least)"
TRUSTED = "(p.status <> 'unverified' or not :verified)"


@dataclass(frozen=True, slots=True)
class Book:
    """One deployment's market and positions as of its last snapshot."""

    chain_id: int
    adapter: AnyWhatIf
    market: Market
    positions: Stored

    def below(self, health_factor: float, moved: frozenset[Holding] | None = None) -> "Book":
        """The same without who is healthy and has no lower health factor, or nothing of what `moved`; all of chosen wallets stay."""
        if self.positions.wallets:
            return self
        bound = health_factor if math.isfinite(health_factor) else None
        return replace(self, positions=replace(self.positions, below=bound, moved=moved))

    def trusted(self) -> "Book":
        """The same without who is unverified."""
        return replace(self, positions=replace(self.positions, verified=True))

    def worth(self) -> "Book":
        """The same without whose debt is worth nothing at the snapshot's prices."""
        return replace(self, positions=replace(self.positions, worth=True))

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
    """The rows of `deployments` whose protocol has the capability, and the names of the others."""
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
    wallets: Sequence[str] = (),
    min_debt: float | None = None,
) -> list[Book]:
    """The books of these rows of `deployments`: everyone with debt (of at least that many USD), or all that these wallets hold.

    Raises `IndexerError` for a deployment that is not `known` (an older file does not have its addresses), or
    whose protocol is no `WhatIf` (`able` leaves those out).
    """
    wanted = list(rows)
    for row in wanted:
        if row["deployment"] not in known:
            raise IndexerError(
                f"neither the file nor the configuration has the addresses of {row['deployment']}; sync it again, name its "
                "configuration with --config, or leave it out by naming others with --deployment"
            )
    books = []
    for row in wanted:
        adapter = adapter_class(row["protocol"])(known[row["deployment"]])
        if not isinstance(adapter, WhatIf):
            raise IndexerError(f"{row['deployment']}: {row['protocol']} does not say what other prices would do to it")
        market = load_market(adapter, row["market"])
        positions = Stored(
            at(conn, row["chain_id"]), adapter, row["chain_id"], market.block.number, tuple(wallets), least=min_debt
        )
        books.append(Book(row["chain_id"], adapter, market, positions))
    return books


def chosen(
    conn: sqlite3.Connection, book: Book, condition: str, values: Sequence[Any]
) -> Iterator[tuple[sqlite3.Row, Position]]:
    """For rows of `positions p` that meet an SQL condition: account, group, wallet, status, and the stored position."""
    rows = at(conn, book.chain_id).execute(
        "select p.account, p.position_group, p.wallet, p.status, s.block_number, s.state from positions p "  # noqa: S608 - ours
        "join states s using (chain_id, deployment, account, position_group) "
        f"where p.chain_id = ? and p.deployment = ? and {condition}",
        (book.chain_id, book.name, *values),
    )
    for row in rows:
        yield row, load_position(book.adapter, row["block_number"], row["state"])


def seconds_per_block(conn: sqlite3.Connection, chain_id: int) -> float | None:
    """Seconds per block, from the oldest and newest kept one; None until they are far enough apart."""
    first, began, last, ended = (
        at(conn, chain_id)
        .execute(
            "select min(number), min(block_timestamp), max(number), max(block_timestamp) from blocks where chain_id = ?",
            (chain_id,),
        )
        .fetchone()
    )
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
    """The compared columns of a row of `balances`."""

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


#: known positions without a row that had one, as each row has a point of history from the first on, or that must have one
LOST = """
select e.account, e.position_group from events e left join states s using (chain_id, deployment, account, position_group)
where e.chain_id = :chain_id and e.deployment = :deployment
and (chain_id, deployment, account, position_group) not in (
    select chain_id, deployment, account, position_group from positions)
and ((chain_id, deployment, account, position_group) in (
    select chain_id, deployment, account, position_group from health_history)
  or (:coverage = 'history' and max(e.first_block, ifnull(s.block_number, 0)) <= :block_number))
"""


def lost_positions(conn: sqlite3.Connection, deployment: Mapping[str, Any]) -> list[PositionKey]:
    """The known positions of a row of `deployments` that have no row and must have one.

    Not whoever became known by a sync that did not get to its end: named or read behind the deployment's block, or by logs
    of old that are still being read.
    """
    wanted = {name: deployment[name] for name in ("chain_id", "deployment", "block_number", "coverage")}
    return [PositionKey(*row) for row in conn.execute(LOST, wanted)]
