"""Watched wallets: who they are, and judging each snapshot's rows by their rules inside its own transaction.

An alert is queued exactly if its snapshot is committed. What a rule remembers is what people were told, so it is not
undone by a reorg: a crossing that the new chain has as well is not told twice, and one that it has not is ended by a
"recovered".
"""

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.alert.channels import Channel
from indexer.alert.message import Moved, Subject, compose
from indexer.alert.rules import UNKNOWN, Event, Reading, Rule, State, decide, in_order
from indexer.alert.watches import Policy, Watch, watches
from indexer.model import WAD, Block, PositionKey
from indexer.risk.simulate import seconds_per_block
from indexer.store.rows import POSITION_COLUMNS, Snapshot
from indexer.sync.sync import Sync

log = logging.getLogger(__name__)

ACCOUNT, GROUP = POSITION_COLUMNS.index("account"), POSITION_COLUMNS.index("position_group")
NAMES = tuple(POSITION_COLUMNS.index(name) for name in ("wallet", "owner", "account"))


# the watches ----------------------------------------------------------------------------------------------------------


# judging --------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Memory:
    """A rule's state at one position, with the number of its last crossing."""

    state: State
    crossing: int


class Watcher:
    """A rider on each snapshot: judges the rows of watched wallets and queues what is to be told."""

    def __init__(self, sync: Sync, policy: Policy, channels: Sequence[Channel], explorer: str | None) -> None:
        self.sync, self.policy, self.channels, self.explorer = sync, policy, list(channels), explorer
        self.positions = 0  # of watched wallets in the last snapshot
        self.worst: int | None = None  # their lowest health factor
        self.queued = 0

    def __call__(self, conn: sqlite3.Connection, snapshots: Sequence[Snapshot], block: Block) -> None:
        watched = {watch.wallet: watch for watch in watches(conn)}
        positions, healths, queued = 0, [], 0
        for snapshot in sorted(snapshots, key=lambda s: s.deployment):
            mine = [row for row in snapshot.rows if any(row[i] in watched for i in NAMES)]
            before = prices_before(conn, snapshot) if mine else {}
            for row in sorted(mine, key=lambda row: (row[ACCOUNT], row[GROUP])):
                columns = dict(zip(POSITION_COLUMNS, row, strict=True))
                positions += 1
                if columns["health_factor_raw"] is not None:
                    healths.append(int(columns["health_factor_raw"]))
                for wallet in sorted({row[i] for i in NAMES} & watched.keys()):
                    queued += self._judge(conn, snapshot, columns, watched[wallet], before)
        self.positions, self.worst, self.queued = positions, min(healths, default=None), queued

    def _judge(
        self,
        conn: sqlite3.Connection,
        snapshot: Snapshot,
        columns: Mapping[str, Any],
        watch: Watch,
        before: Mapping[tuple[str, str, str], tuple[int | None, float | None]],
    ) -> int:
        """Applies the wallet's rules to one position; how many messages were queued."""
        where = (
            snapshot.chain_id,
            snapshot.deployment,
            columns["account"],
            columns["position_group"],
            watch.wallet,
        )
        health, debt = columns["health_factor_raw"], columns["debt_value_raw"]
        reading = Reading(
            None if health is None else int(health), columns["status"], None if debt is None else int(debt)
        )
        rules = in_order({UNKNOWN, *(watch.rules or self.policy.rules)})
        memories, health_before = remembered(conn, where, rules)
        told: list[tuple[Rule, Event, int | None]] = []
        for rule in rules:
            memory = memories[rule]
            crossed = memory.state.crossed
            memory.state, event = decide(rule, memory.state, reading, self.policy.hysteresis)
            if event is Event.CROSSED:
                memory.crossing += 1
                crossed = memory.state.crossed
            if event is not None:
                told.append((rule, event, crossed))
        remember(conn, where, memories, health, snapshot.block.number)
        # What ends is told before what begins, and the thresholds in the order in which the value passed them.
        ended = [entry for entry in told if entry[1] is Event.RECOVERED]
        for rule, event, crossed in [*reversed(ended), *(entry for entry in told if entry[1] is Event.CROSSED)]:
            subject = Subject(
                chain=self.sync.chain.name,
                chain_id=snapshot.chain_id,
                wallet=watch.wallet,
                label=watch.label,
                ens=watch.ens,
                rule=rule,
                event=event,
                crossing=memories[rule].crossing,
                crossed=crossed,
                health_before=None if health_before is None else int(health_before),
                columns=columns,
                block=snapshot.block,
                explorer=self.explorer,
                hysteresis=self.policy.hysteresis,
                target=self.policy.target,
                seconds_per_block=seconds_per_block(conn, snapshot.chain_id),
            )
            self._queue(conn, snapshot, subject, before)
        return len(told)

    def _queue(
        self,
        conn: sqlite3.Connection,
        snapshot: Snapshot,
        subject: Subject,
        before: Mapping[tuple[str, str, str], tuple[int | None, float | None]],
    ) -> None:
        columns, block = subject.columns, snapshot.block
        work = self.sync.works[snapshot.deployment]
        position = work.positions[PositionKey(columns["account"], columns["position_group"])]
        identity = alert_id(subject)
        body = compose(identity, subject, work.adapter, work.market, position, moved(before, work.market.assets))
        health = columns["health_factor_raw"]
        cursor = conn.execute(
            "insert into alerts (id, chain_id, deployment, account, position_group, wallet, rule, crossing, event, "
            "health_factor_before_raw, health_factor_before, health_factor_raw, health_factor, block_number, "
            "block_hash, block_timestamp, body, created_at) values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                identity,
                snapshot.chain_id,
                snapshot.deployment,
                columns["account"],
                columns["position_group"],
                subject.wallet,
                str(subject.rule),
                subject.crossing,
                subject.event,
                None if subject.health_before is None else str(subject.health_before),
                None if subject.health_before is None else subject.health_before / WAD,
                health,
                columns["health_factor"],
                block.number,
                block.hash,
                block.timestamp,
                json.dumps(body),
                int(time.time()),
            ),
        )
        conn.executemany(
            "insert into deliveries (number, channel, place, state) values (?, ?, ?, 'pending')",
            [(cursor.lastrowid, channel.key, channel.place) for channel in self.channels],
        )


def alert_id(subject: Subject) -> str:
    """Names one message for good: position, wallet, rule, crossing, event and the block that it was decided at."""
    columns = subject.columns
    parts = (
        subject.chain_id,
        columns["deployment"],
        columns["account"],
        columns["position_group"],
        subject.wallet,
        subject.rule,
        subject.crossing,
        subject.event,
        subject.block.number,
    )
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:32]


Where = tuple[int, str, str, str, str]
HERE = "chain_id = ? and deployment = ? and account = ? and position_group = ? and wallet = ?"


def remembered(conn: sqlite3.Connection, where: Where, rules: Sequence[Rule]) -> tuple[dict[Rule, Memory], str | None]:
    """What each rule remembers of a position, and its health factor at the last snapshot that was judged.

    A rule that is new there is armed; its crossings go on counting where the alerts of an earlier watch ended.
    """
    found: dict[str, Memory] = {}
    health: str | None = None
    for rule, armed, is_open, crossing, reference, crossed, health_factor in conn.execute(
        "select rule, armed, open, crossing, reference_raw, crossed_raw, health_factor_raw "  # noqa: S608 - our own names
        f"from watch_states where {HERE}",
        where,
    ):
        state = State(bool(armed), bool(is_open), _int(reference), _int(crossed))
        found[rule] = Memory(state, crossing)
        health = health_factor
    for name in found.keys() - {str(rule) for rule in rules}:
        conn.execute(f"delete from watch_states where {HERE} and rule = ?", (*where, name))  # noqa: S608
    memories = {}
    for rule in rules:
        memory = found.get(str(rule))
        if memory is None:
            (last,) = conn.execute(
                f"select coalesce(max(crossing), 0) from alerts where {HERE} and rule = ?",  # noqa: S608
                (*where, str(rule)),
            ).fetchone()
            memory = Memory(State(), last)
        memories[rule] = memory
    return memories, health


def remember(
    conn: sqlite3.Connection, where: Where, memories: Mapping[Rule, Memory], health: str | None, block: int
) -> None:
    """Writes down every rule's state at a position."""
    conn.executemany(
        "insert or replace into watch_states values (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        [
            (
                *where,
                str(rule),
                int(memory.state.armed),
                int(memory.state.open),
                memory.crossing,
                _text(memory.state.reference),
                _text(memory.state.crossed),
                health,
                block,
            )
            for rule, memory in memories.items()
        ],
    )


def prices_before(
    conn: sqlite3.Connection, snapshot: Snapshot
) -> dict[tuple[str, str, str], tuple[int | None, float | None]]:
    """(asset, its market, group) -> the price of the snapshot before, raw and in USD."""
    return {
        (asset, market, group): (_int(price), usd)
        for asset, market, group, price, usd in conn.execute(
            "select asset, market, position_group, price_raw, price_usd from markets "
            "where chain_id = ? and deployment = ?",
            (snapshot.chain_id, snapshot.deployment),
        )
    }


def moved(before: Mapping[tuple[str, str, str], tuple[int | None, float | None]], assets: Iterable[Any]) -> list[Moved]:
    """The assets whose price is not that of the snapshot before."""
    found = []
    for asset in assets:
        price, usd = before.get((asset.asset, asset.market, asset.group), (None, None))
        if price is not None and asset.price is not None and price != asset.price:
            found.append(Moved(asset, price, usd))
    return found


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)
