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

from indexer.alert_text import Moved, Subject, compose
from indexer.channels import Channel
from indexer.errors import ConfigError, IndexerError
from indexer.model import WAD, Block, PositionKey
from indexer.rows import POSITION_COLUMNS, Snapshot
from indexer.settings import Alerts
from indexer.simulate import seconds_per_block
from indexer.store import Store
from indexer.sync import Sync
from indexer.watch_rules import UNKNOWN, Event, Reading, Rule, State, below, decide, drop, in_order, parse, scaled

log = logging.getLogger(__name__)

ACCOUNT, GROUP = POSITION_COLUMNS.index("account"), POSITION_COLUMNS.index("position_group")
NAMES = tuple(POSITION_COLUMNS.index(name) for name in ("wallet", "owner", "account"))


@dataclass(frozen=True, slots=True)
class Watch:
    """A watched wallet; no rules: those of the configuration."""

    wallet: str
    label: str | None = None
    ens: str | None = None
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for all watches; `hysteresis` is a fraction and `target` a health factor, scaled by 1e18."""

    rules: tuple[Rule, ...]
    hysteresis: int
    target: int

    @classmethod
    def of(cls, alerts: Alerts) -> "Policy":
        """The policy of the configuration. ConfigError for a number that cannot be scaled exactly."""
        try:
            rules = [below(value) for value in alerts.below]
            if alerts.drop_percent is not None:
                rules.append(drop(alerts.drop_percent))
            return cls(tuple(rules), scaled(alerts.hysteresis_percent) // 100, scaled(alerts.target))
        except ValueError as error:
            raise ConfigError(f"alerts: {error}") from error


# the watches ----------------------------------------------------------------------------------------------------------


def watches(conn: sqlite3.Connection) -> list[Watch]:
    """Every watched wallet, by address."""
    rules: dict[str, list[Rule]] = {}
    for wallet, rule in conn.execute("select wallet, rule from watch_rules"):
        rules.setdefault(wallet, []).append(parse(rule))
    return [
        Watch(wallet, label, ens, tuple(in_order(rules.get(wallet, []))))
        for wallet, label, ens in conn.execute("select wallet, label, ens from watches order by wallet")
    ]


def add(store: Store, new: Iterable[Watch]) -> tuple[int, int]:
    """Watches these wallets, all or none; how many are new and how many were changed.

    A wallet that is already watched gets the new rules and the new label, and keeps what it is not given.
    """
    added = changed = 0
    with store.transaction() as conn:
        for watch in new:
            known = conn.execute("select 1 from watches where wallet = ?", (watch.wallet,)).fetchone()
            conn.execute(
                "insert into watches values (?, ?, ?, ?) on conflict do update set "
                "label = coalesce(excluded.label, label), ens = coalesce(excluded.ens, ens)",
                (watch.wallet, watch.label, watch.ens, int(time.time())),
            )
            if watch.rules:
                conn.execute("delete from watch_rules where wallet = ?", (watch.wallet,))
                conn.executemany(
                    "insert or ignore into watch_rules values (?, ?)", [(watch.wallet, str(r)) for r in watch.rules]
                )
            added, changed = added + (known is None), changed + (known is not None)
    return added, changed


def remove(store: Store, wallets: Sequence[str]) -> None:
    """Watches these wallets no longer; IndexerError if one is not watched. Alerts that wait are still delivered."""
    with store.transaction() as conn:
        for wallet in wallets:
            if not conn.execute("delete from watches where wallet = ?", (wallet,)).rowcount:
                raise IndexerError(f"{wallet} is not watched; nothing was changed: see `indexer watch list`")
            conn.execute("delete from watch_rules where wallet = ?", (wallet,))
            conn.execute("delete from watch_states where wallet = ?", (wallet,))


def listing(conn: sqlite3.Connection, default_rules: str) -> list[dict[str, Any]]:
    """One row a position of a watched wallet, one for a wallet without any; `open` names the rules that are crossed."""
    cursor = conn.execute(
        "select w.wallet, w.label, w.ens, p.chain_id, p.deployment, p.protocol, p.account, p.position_group, "
        "p.health_factor_raw, p.health_factor, p.debt_usd, p.collateral_usd, p.status, p.block_number, "
        "(select group_concat(s.rule, ', ') from watch_states s where s.open and s.wallet = w.wallet "
        " and s.chain_id = p.chain_id and s.deployment = p.deployment and s.account = p.account "
        " and s.position_group = p.position_group) as open "
        "from watches w left join positions p on w.wallet in (p.wallet, p.owner, p.account) "
        "order by w.wallet, p.chain_id, p.deployment, p.account, p.position_group"
    )
    names = [column[0] for column in cursor.description]
    rules = {watch.wallet: ", ".join(map(str, watch.rules)) or default_rules for watch in watches(conn)}
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    return [{**row, "rules": rules[row["wallet"]]} for row in rows]


def open_crossings(conn: sqlite3.Connection, chain_id: int) -> int:
    """How many crossings on a chain have not ended."""
    found: tuple[int] = conn.execute(
        "select count(*) from watch_states where chain_id = ? and open", (chain_id,)
    ).fetchone()
    return found[0]


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
