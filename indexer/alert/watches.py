"""Watched wallets: which they are, and the rules that judge them."""

import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.alert import tables
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
    for wallet, rule in tables.rules_of_wallets(conn):
        rules.setdefault(wallet, []).append(parse(rule))
    groups: dict[str, list[str]] = {}
    for wallet, name in tables.groups_of_wallets(conn):
        groups.setdefault(wallet, []).append(name)
    return [
        Watch(
            wallet,
            label and label[:NAME_CHARACTERS],
            ens,
            tuple(in_order(rules.get(wallet, []))),
            tuple(groups.get(wallet, ())),
        )
        for wallet, label, ens in tables.watched(conn)
    ]


def add(store: Store, new: Iterable[Watch]) -> tuple[int, int]:
    """Watches these wallets, all or none; returns how many are new and how many were changed.

    A wallet that is already watched gets the new rules, groups and label, and keeps what it is not given.
    """
    added = changed = 0
    with store.transaction() as conn:
        for watch in new:
            new_here = tables.save_watch(conn, watch.wallet, watch.label, watch.ens)
            if watch.rules:
                tables.replace_rules(conn, watch.wallet, map(str, watch.rules))
            if watch.groups:
                tables.replace_groups(conn, watch.wallet, watch.groups)
            added, changed = added + new_here, changed + (not new_here)
    return added, changed


def remove(store: Store, wallets: Sequence[str]) -> None:
    """Stops watching these wallets; IndexerError if one is not watched. Alerts already queued are still delivered.

    One unknown wallet refuses all. What a rule remembers of each position is gone, so a crossing that was told is told again.
    """
    with store.transaction() as conn:
        for wallet in wallets:
            if not tables.remove_watch(conn, wallet):
                raise IndexerError(f"{wallet} is not watched; nothing was changed: see `indexer watch list`")


def listing(conn: sqlite3.Connection, default_rules: str) -> list[dict[str, Any]]:
    """One row per position of a watched wallet, one for a wallet without any; `open` names the rules that are crossed."""
    watched = {watch.wallet: watch for watch in watches(conn)}
    return [
        {**row, "label": watch.label, "rules": ", ".join(map(str, watch.rules)) or default_rules}
        for row in tables.positions_of_watched(conn)
        for watch in [watched[row["wallet"]]]
    ]
