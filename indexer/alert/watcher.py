"""Judges the rows of watched wallets by their rules at each snapshot.

Everything is computed before the snapshot's transaction and written inside it: an alert is queued exactly if its snapshot
is committed. A rule remembers what people were told, so a reorg does not undo its memory: a crossing that the new chain
has too is not reported twice, and one that it lacks ends with a "recovered".
"""

import hashlib
import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from indexer.alert import prices, tables
from indexer.alert.chances import Chance, Chances
from indexer.alert.message import Moved, Subject, compose
from indexer.alert.oracles import Oracles
from indexer.alert.rules import ALWAYS, ORACLE, Event, Reading, Rule, State, decide, in_order
from indexer.alert.watches import Policy, Watch, watches
from indexer.delivery.channels import Channel
from indexer.delivery.queue import enqueue
from indexer.model import WAD, Block, PositionKey, Status
from indexer.risk.simulate import seconds_per_block
from indexer.snapshot.tracked import TrackedDeployment
from indexer.store.rows import PositionRow, Snapshot
from indexer.store.store import ChangedMeanwhileError, Rider

log = logging.getLogger(__name__)


# judging --------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Memory:
    """A rule's state at one position, with the number of its last crossing."""

    state: State
    crossing: int


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the rules of one position will remember."""

    where: tables.Where
    memories: Mapping[Rule, Memory]
    health: str | None


@dataclass(slots=True)
class Verdicts:
    """What the rules say about a snapshot before any of it is written, and everything they were computed from."""

    watched: list[Watch]
    states: list[tuple[Any, ...]]
    remembered: list[Remembered] = field(default_factory=list)
    alerts: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    chances: Mapping[tuple[str, PositionKey], Chance] = field(default_factory=dict)
    positions: int = 0
    healths: list[int] = field(default_factory=list)


class Watcher:
    """Judges the rows of watched wallets before each commit, and queues the alerts inside it."""

    def __init__(
        self,
        chain: str,
        policy: Policy,
        channels: Sequence[Channel],
        explorer: str | None,
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.chain, self.policy, self.channels, self.explorer = chain, policy, list(channels), explorer
        self.chances = Chances(groups or {})
        self.positions = 0  # of watched wallets in the last snapshot
        self.worst: int | None = None  # their lowest health factor
        self.queued = 0

    def plan(
        self, conn: sqlite3.Connection, snapshots: Sequence[Snapshot], tracked: Mapping[str, TrackedDeployment]
    ) -> Rider:
        """Judges the rows and composes the alerts; the rider writes them, unless the watches have changed meanwhile."""
        verdicts = Verdicts(watches(conn), tables.all_states(conn))
        watched = {watch.wallet: watch for watch in verdicts.watched}
        verdicts.chances = self.chances.of(conn, watched, snapshots, tracked)
        priced = prices.judge(conn, self.chain, snapshots, self.policy.hysteresis)
        for snapshot in sorted(snapshots, key=lambda s: s.deployment):
            rows = snapshot.parts.rows() if watched else ()
            mine = [row for row in rows if not watched.keys().isdisjoint(row.people)]
            judge = Judge(self, conn, snapshot, tracked[snapshot.deployment], verdicts) if mine else None
            for row in sorted(mine, key=lambda row: row.key):
                verdicts.positions += 1
                if row.health_factor_raw is not None:
                    verdicts.healths.append(int(row.health_factor_raw))
                for wallet in sorted(set(row.people) & watched.keys()):
                    assert judge is not None
                    judge.apply(row, watched[wallet])

        def write(conn: sqlite3.Connection, _snapshots: Sequence[Snapshot], block: Block) -> None:
            if (watches(conn), tables.all_states(conn)) != (verdicts.watched, verdicts.states):
                raise ChangedMeanwhileError
            if (prices.rules(conn), tables.price_states(conn)) != priced.judged:
                raise ChangedMeanwhileError
            tables.save_price_states(conn, priced.states)
            verdicts.alerts += priced.alerts
            self._write(conn, verdicts, block)

        return write

    def _write(self, conn: sqlite3.Connection, verdicts: Verdicts, block: Block) -> None:
        for one in verdicts.remembered:
            remember(conn, one.where, one.memories, one.health, block.number)
        for columns, body in verdicts.alerts:
            enqueue(conn, columns, body, self.channels)
        self.positions, self.worst = verdicts.positions, min(verdicts.healths, default=None)
        self.queued = len(verdicts.alerts)


class Judge:
    """Applies the rules of watched wallets to the positions of one snapshot; writes nothing."""

    def __init__(
        self,
        watcher: Watcher,
        conn: sqlite3.Connection,
        snapshot: Snapshot,
        tracked: TrackedDeployment,
        verdicts: Verdicts,
    ) -> None:
        self.watcher, self.conn, self.snapshot, self.tracked = watcher, conn, snapshot, tracked
        self.verdicts = verdicts
        self.oracles = Oracles(conn, tracked)
        self.moved = moved(tables.stored_prices(conn, snapshot.chain_id, snapshot.deployment), snapshot.market.assets)

    def apply(self, row: PositionRow, watch: Watch) -> None:
        """What the wallet's rules say about one position."""
        policy, snapshot = self.watcher.policy, self.snapshot
        where = (snapshot.chain_id, snapshot.deployment, row.account, row.position_group, watch.wallet)
        health, debt = row.health_factor_raw, row.debt_value_raw
        chance = self.verdicts.chances.get((snapshot.deployment, row.key))
        rules = in_order({*ALWAYS, *(watch.rules or policy.rules)})
        oracle = self.oracles.wrong(row.key) if ORACLE in rules else None
        reading = Reading(
            None if health is None else int(health),
            Status(row.status),
            None if debt is None else int(debt),
            {} if chance is None else chance.percent,
            oracle,
        )
        memories, health_before = remembered(self.conn, where, rules)
        told: list[tuple[Rule, Event, int | None]] = []
        highs = {rule: memory.state.reference for rule, memory in memories.items()}
        for rule in rules:
            memory = memories[rule]
            crossed = memory.state.crossed
            memory.state, event = decide(rule, memory.state, reading, policy.hysteresis)
            if event is Event.CROSSED:
                memory.crossing += 1
                crossed = memory.state.crossed
            if event is not None:
                told.append((rule, event, crossed))
        self.verdicts.remembered.append(Remembered(where, memories, health))
        # Recoveries come before crossings, and thresholds in the order in which the value passed them.
        ended = [entry for entry in told if entry[1] is Event.RECOVERED]
        for rule, event, crossed in [*reversed(ended), *(entry for entry in told if entry[1] is Event.CROSSED)]:
            subject = Subject(
                chain=self.watcher.chain,
                chain_id=snapshot.chain_id,
                wallet=watch.wallet,
                label=watch.label,
                ens=watch.ens,
                rule=rule,
                event=event,
                crossing=memories[rule].crossing,
                crossed=crossed,
                chance=chance,
                fell_from=highs[rule] if event is Event.CROSSED else None,
                health_before=None if health_before is None else int(health_before),
                columns=row._asdict(),
                block=snapshot.block,
                explorer=self.watcher.explorer,
                hysteresis=policy.hysteresis,
                target=policy.target,
                seconds_per_block=seconds_per_block(self.conn, snapshot.chain_id),
                oracle=oracle or (),
            )
            self.verdicts.alerts.append(self._alert(subject, row))

    def _alert(self, subject: Subject, row: PositionRow) -> tuple[dict[str, Any], dict[str, Any]]:
        """The row of `alerts`, and the alert as it is delivered."""
        tracked, block, before = self.tracked, self.snapshot.block, subject.health_before
        identity = alert_id(subject)
        position = tracked.position(row.key)
        assert position is not None
        body = compose(identity, subject, tracked.adapter, tracked.market, position, self.moved)
        columns = {
            "id": identity,
            "kind": "position",
            "chain_id": self.snapshot.chain_id,
            "deployment": self.snapshot.deployment,
            "account": row.account,
            "position_group": row.position_group,
            "wallet": subject.wallet,
            "rule": str(subject.rule),
            "crossing": subject.crossing,
            "event": subject.event,
            "health_factor_before_raw": None if before is None else str(before),
            "health_factor_before": None if before is None else before / WAD,
            "health_factor_raw": row.health_factor_raw,
            "health_factor": row.health_factor,
            "block_number": block.number,
            "block_hash": block.hash,
            "block_timestamp": block.timestamp,
        }
        return columns, body


def alert_id(subject: Subject) -> str:
    """A message's permanent id: position, wallet, rule, crossing, event and the block at which it was decided."""
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


def remembered(
    conn: sqlite3.Connection, where: tables.Where, rules: Sequence[Rule]
) -> tuple[dict[Rule, Memory], str | None]:
    """What each rule remembers of a position, and its health factor at the last snapshot that was judged.

    A rule that is new there is armed; the numbers of its crossings continue those of an earlier watch.
    """
    found: dict[str, Memory] = {}
    health: str | None = None
    for rule, armed, is_open, crossing, reference, crossed, health_factor in tables.states_at(conn, where):
        state = State(bool(armed), bool(is_open), _int(reference), _int(crossed))
        found[rule] = Memory(state, crossing)
        health = health_factor
    memories = {}
    for rule in rules:
        memory = found.get(str(rule))
        if memory is None:
            memory = Memory(State(), tables.last_crossing(conn, where, str(rule)))
        memories[rule] = memory
    return memories, health


def remember(
    conn: sqlite3.Connection, where: tables.Where, memories: Mapping[Rule, Memory], health: str | None, block: int
) -> None:
    """Records every rule's state at a position, and forgets rules that it no longer has."""
    tables.replace_states(
        conn,
        where,
        [
            (
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


def moved(before: Mapping[tuple[str, str, str], tuple[int | None, float | None]], assets: Iterable[Any]) -> list[Moved]:
    """The assets whose price differs from that at the snapshot before."""
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
