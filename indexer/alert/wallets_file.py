"""Wallets to watch from a file: CSV with a header, JSON, or one address a line."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from indexer.address import checked_address
from indexer.alert.rules import Rule, below, drop
from indexer.alert.watches import Watch, checked_label
from indexer.config import known_keys
from indexer.errors import ConfigError

KEYS = ("wallet", "label", "below", "drop")


def load_watches(path: Path, text: str) -> list[Watch]:
    """The wallets of a file, all of them or none. ConfigError names the first line or entry that is wrong.

    JSON is a list of addresses or of objects with `wallet` and perhaps `label`, `below` and `drop`; `below` and `drop`
    may be lists. CSV has these as its header, several values in one cell are separated by blanks. Anything else is one
    address a line; blank lines and lines that begin with # do not count.
    """
    entries: Sequence[tuple[str, Mapping[str, Any]]]
    if path.suffix.lower() == ".json" or text.lstrip().startswith(("[", "{")):
        entries = of_json(path, text)
    elif "," in next(iter(content_lines(text)), ("", ""))[1] or path.suffix.lower() == ".csv":
        entries = of_csv(path, text)
    else:
        entries = [(f"{path}: line {number}", {"wallet": line}) for number, line in content_lines(text)]
    found: dict[str, Watch] = {}
    for where, entry in entries:
        watch = watch_of(where, entry)
        if watch.wallet in found:
            raise ConfigError(f"{where}: {watch.wallet} is in the file twice")
        found[watch.wallet] = watch
    if not found:
        raise ConfigError(f"{path}: no address in it")
    return list(found.values())


def content_lines(text: str) -> list[tuple[int, str]]:
    """(line number, line) of the lines that say something."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def of_json(path: Path, text: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path}: no JSON: {error}") from error
    if not isinstance(data, list):
        raise ConfigError(f"{path}: must be a list of addresses or of objects")
    entries = []
    for number, entry in enumerate(data, 1):
        if not isinstance(entry, str | dict):
            raise ConfigError(f"{path}: entry {number}: neither an address nor an object")
        given: Mapping[str, Any] = {"wallet": entry} if isinstance(entry, str) else entry
        entries.append((f"{path}: entry {number}", given))
    return entries


def of_csv(path: Path, text: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text))
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    reader.fieldnames = ["wallet" if name == "address" else name for name in names]
    if "wallet" not in reader.fieldnames:
        raise ConfigError(f"{path}: line 1: the header must have a column wallet (and may have label, below, drop)")
    entries = []
    for row in reader:
        where = f"{path}: line {reader.line_num}"
        if None in row:
            raise ConfigError(f"{where}: more cells than the header has columns")
        entry: dict[str, Any] = {name: (value or "").strip() for name, value in row.items()}
        entries.append((where, entry | {name: entry.get(name, "").split() for name in ("below", "drop")}))
    return entries


def watch_of(where: str, entry: Mapping[str, Any]) -> Watch:
    """One entry as a watch. ConfigError for what is wrong in it."""
    known_keys(entry, KEYS, (), where)
    wallet, label = entry.get("wallet"), entry.get("label")
    if not isinstance(wallet, str) or not isinstance(label, str | None):
        raise ConfigError(f"{where}: wallet and label must be text")
    try:
        return Watch(
            checked_address(wallet.strip()),
            checked_label(label) if label else None,
            None,
            rules_of(entry.get("below"), entry.get("drop")),
        )
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def rules_of(thresholds: Any, falls: Any) -> tuple[Rule, ...]:
    """Rules from what a file or flags give. ValueError if one is none."""
    return (*(below(value) for value in listed(thresholds)), *(drop(value) for value in listed(falls)))


def listed(value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    values = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(one, bool) or not isinstance(one, str | int | float) for one in values):
        raise ValueError("below and drop must be numbers")
    return values
