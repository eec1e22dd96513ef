"""Watched wallets: which they are, and the rules that judge them."""

import re
import sqlite3
import time
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.alert.rules import Rule, below, drop, in_order, parse
from indexer.errors import ConfigError, IndexerError
from indexer.settings import Alerts
from indexer.store.store import Store
from indexer.text.values import NAME_CHARACTERS, printable
from indexer.units import scaled


@dataclass(frozen=True, slots=True)
class Watch:
    """A watched wallet; no rules: those of the configuration. `groups`: whose it is, for @name."""

    wallet: str
    label: str | None = None
    ens: str | None = None
    rules: tuple[Rule, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for all watches; `hysteresis` is a fraction and `target` a health factor, scaled by 1e18."""

    rules: tuple[Rule, ...]
    hysteresis: int
    target: int

    @classmethod
    def of(cls, alerts: Alerts) -> "Policy":
        """The configuration's policy. ConfigError for a number that cannot be scaled exactly."""
        try:
            rules = [below(value) for value in alerts.below]
            if alerts.drop_percent is not None:
                rules.append(drop(alerts.drop_percent))
            return cls(tuple(rules), scaled(alerts.hysteresis_percent) // 100, scaled(alerts.target))
        except ValueError as error:
            raise ConfigError(f"alerts: {error}") from error


def checked_label(text: str) -> str:
    """A label as it is stored, cut to 64 characters. ValueError if it holds control characters."""
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in text):
        raise ValueError(f"the label '{printable(text[:NAME_CHARACTERS])}' holds control characters")
    return text[:NAME_CHARACTERS]


def checked_group(text: str) -> str:
    """The name of a group without its @, in lower case. ValueError if it could not be written as one word."""
    name = text.removeprefix("@").lower()
    if not re.fullmatch(r"[\w.-]{1,64}", name):
        raise ValueError(
            f"'{printable(text[:NAME_CHARACTERS])}' is no name of a group: one word of up to 64 characters"
        )
    return name


def watches(conn: sqlite3.Connection) -> list[Watch]:
    """Every watched wallet, by address."""
    rules: dict[str, list[Rule]] = {}
    for wallet, rule in conn.execute("select wallet, rule from watch_rules"):
        rules.setdefault(wallet, []).append(parse(rule))
    groups: dict[str, list[str]] = {}
    for wallet, name in conn.execute("select wallet, name from watch_groups order by name"):
        groups.setdefault(wallet, []).append(name)
    return [
        Watch(
            wallet,
            label and label[:NAME_CHARACTERS],
            ens,
            tuple(in_order(rules.get(wallet, []))),
            tuple(groups.get(wallet, ())),
        )
        for wallet, label, ens in conn.execute("select wallet, label, ens from watches order by wallet")
    ]


def add(store: Store, new: Iterable[Watch]) -> tuple[int, int]:
    """Watches these wallets, all or none; returns how many are new and how many were changed.

    Evidence: the user's word, which replaces rules and groups; adding the old ones undoes it.
    A wallet that is already watched gets the new rules, groups and label, and keeps what it is not given.
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
            if watch.groups:
                conn.execute("delete from watch_groups where wallet = ?", (watch.wallet,))
                conn.executemany(
                    "insert or ignore into watch_groups values (?, ?)", [(name, watch.wallet) for name in watch.groups]
                )
            added, changed = added + (known is None), changed + (known is not None)
    return added, changed


def remove(store: Store, wallets: Sequence[str]) -> None:
    """Stops watching these wallets; IndexerError if one is not watched. Alerts already queued are still delivered.

    Evidence: the user names them; one unknown wallet refuses all. Undone by `watch add` with the same rules; what a rule
    remembers of each position is gone, so a crossing that was told is told again.
    """
    with store.transaction() as conn:
        for wallet in wallets:
            if not conn.execute("delete from watches where wallet = ?", (wallet,)).rowcount:
                raise IndexerError(f"{wallet} is not watched; nothing was changed: see `indexer watch list`")
            conn.execute("delete from watch_rules where wallet = ?", (wallet,))
            conn.execute("delete from watch_groups where wallet = ?", (wallet,))
            conn.execute("delete from watch_states where wallet = ?", (wallet,))


def listing(conn: sqlite3.Connection, default_rules: str) -> list[dict[str, Any]]:
    """One row per position of a watched wallet, one for a wallet without any; `open` names the rules that are crossed."""
    cursor = conn.execute(
        "select w.wallet, w.label, w.ens, "
        "(select group_concat(name, ', ') from (select name from watch_groups g where g.wallet = w.wallet order by name)) "
        "as groups, p.chain_id, p.deployment, p.protocol, p.account, p.position_group, "
        "p.health_factor_raw, p.health_factor, p.debt_usd, p.collateral_usd, p.status, p.block_number, "
        "strftime('%Y-%m-%dT%H:%M:%SZ', d.block_timestamp, 'unixepoch') as block_time, d.block_timestamp, "
        "(select group_concat(s.rule, ', ') from watch_states s where s.open and s.wallet = w.wallet "
        " and s.chain_id = p.chain_id and s.deployment = p.deployment and s.account = p.account "
        " and s.position_group = p.position_group) as open, "
        "(select count(distinct number) from alerts a join deliveries d using (number) where a.wallet = w.wallet "
        " and a.chain_id = p.chain_id and a.deployment = p.deployment and a.account = p.account "
        " and a.position_group = p.position_group and (d.state = 'refused' or d.short and d.state <> 'delivered')) "
        " as alerts_refused "
        "from watches w left join positions p on w.wallet in (p.wallet, p.owner, p.account) "
        "left join deployments d using (chain_id, deployment) "
        "order by w.wallet, p.chain_id, p.deployment, p.account, p.position_group"
    )
    names = [column[0] for column in cursor.description]
    watched = {watch.wallet: watch for watch in watches(conn)}
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    return [
        {**row, "label": watch.label, "rules": ", ".join(map(str, watch.rules)) or default_rules}
        for row in rows
        for watch in [watched[row["wallet"]]]
    ]


def open_crossings(conn: sqlite3.Connection, chain_id: int) -> int:
    """How many crossings on a chain have not ended."""
    found: tuple[int] = conn.execute(
        "select (select count(*) from watch_states where chain_id = ?1 and open) "
        "+ (select count(*) from price_states where chain_id = ?1 and open)",
        (chain_id,),
    ).fetchone()
    return found[0]
