"""Wallets to watch, from the kinds of files that people have: CSV, a Safe's address book, JSON, or one wallet per line."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from indexer.address import checked_address
from indexer.alert.rules import ORACLE, Rule, below, chance, drop
from indexer.alert.watches import Watch, checked_group, checked_label
from indexer.boundary import bounded_json
from indexer.config import known_keys
from indexer.errors import ConfigError

KEYS = ("wallet", "label", "below", "drop", "group")
#: what other programs call the same
ALIASES = {"address": "wallet", "name": "label"}
#: columns of a Safe's address book that are ignored: a wallet is watched on every chain
IGNORED = {"chainid", "chain id", "chain_id", "chain", "network"}
LARGEST_FILE = 16 * 2**20
#: an address with the short name of its chain before it (EIP-3770), as in eth:0x...
PREFIX = re.compile(r"[A-Za-z0-9-]{1,30}:(?=0[xX])")

Entry = tuple[str, Mapping[str, Any]]


def load_watches(path: Path, data: bytes, resolve: Callable[[str], tuple[str, str]]) -> list[Watch]:
    """The wallets of a file, all or none. ConfigError names the first line or entry that is wrong.

    JSON is a list of addresses or of objects with `wallet` and perhaps `label`, `below`, `drop` and `group`; the last
    three may be lists. CSV has these as its header, or none: wallet, then label; several values in one cell are separated by
    blanks. Anything else is one wallet a line; blank lines and lines that begin with # do not count. A wallet is an
    address or an ENS name, of which `resolve` tells (address, normalised name). The same wallet twice is one, unless
    its rules differ.
    """
    text = decoded(path, data)
    if path.suffix.lower() == ".json" or text.lstrip().startswith(("[", "{")):
        entries = of_json(path, text)
    elif path.suffix.lower() in (".csv", ".tsv") or separator_of(text):
        entries = of_csv(path, text)
    else:
        entries = [(f"{path}: line {number}", {"wallet": line}) for number, line in content_lines(text)]
    found: dict[str, Watch] = {}
    for where, entry in entries:
        watch = watch_of(where, entry, resolve)
        known = found.get(watch.wallet, watch)
        if known.rules and watch.rules and known.rules != watch.rules:
            raise ConfigError(f"{where}: {watch.wallet} is in the file twice, with other rules")
        found[watch.wallet] = replace(
            known,
            label=known.label or watch.label,
            ens=known.ens or watch.ens,
            rules=known.rules or watch.rules,
            groups=tuple(dict.fromkeys([*known.groups, *watch.groups])),
        )
    if not found:
        raise ConfigError(f"{path}: no address in it")
    return list(found.values())


def decoded(path: Path, data: bytes) -> str:
    """The file's text: UTF-8, or UTF-16 as spreadsheets save it, with or without a byte-order mark."""
    if len(data) > LARGEST_FILE:
        raise ConfigError(f"{path}: larger than {LARGEST_FILE // 2**20} MB, which no list of wallets is")
    head = data[:200]
    encoding = "utf-8-sig"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif len(head) >= 4 and not any(head[1::2]):
        encoding = "utf-16-le"
    elif len(head) >= 4 and not any(head[0::2]):
        encoding = "utf-16-be"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read as text in UTF-8 or UTF-16 ({error})") from error


def content_lines(text: str) -> list[tuple[int, str]]:
    """(line number, line) of the lines that are neither blank nor comments."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def of_json(path: Path, text: str) -> Sequence[Entry]:
    try:
        data = bounded_json.loads(text.encode(errors="surrogatepass"))
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


def separator_of(text: str) -> str:
    """The separator of the cells, judged by the first line with content; empty if there is none."""
    first = next(iter(content_lines(text)), (0, ""))[1]
    named = re.fullmatch(r"sep=(.)", first, re.IGNORECASE)
    if named:
        return named[1]
    counts = {separator: first.count(separator) for separator in ",;\t"}
    best = max(counts, key=lambda separator: counts[separator])
    return best if counts[best] else ""


def of_csv(path: Path, text: str) -> Sequence[Entry]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text) or ",")
    names: list[str] | None = None
    entries = []
    for number, row in rows_of(path, reader):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#") or re.fullmatch(r"sep=.?", cells[0], re.IGNORECASE):
            continue
        where = f"{path}: line {number}"
        if names is None:
            names = header(cells)
            if names is None:  # the first line is a wallet already
                names = ["wallet", "label"]
            else:
                if "wallet" not in names:
                    raise ConfigError(
                        f"{where}: the header must have a column wallet (and may have label, below, drop, group)"
                    )
                continue
        entry: dict[str, Any] = {}
        for place, cell in enumerate(cells):
            name = names[place] if place < len(names) else ""
            if not name and cell:
                raise ConfigError(f"{where}: more cells than the header has columns")
            if name and name not in IGNORED:
                entry[name] = cell
        entries.append((where, entry | {name: entry.get(name, "").split() for name in ("below", "drop", "group")}))
    return entries


def rows_of(path: Path, reader: Any) -> Iterable[tuple[int, list[str]]]:
    """(line number, cells) of every row. ConfigError for what is not CSV, such as a cell of 200 kB."""
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ConfigError(f"{path}: line {reader.line_num}: {error}") from error
        if row is None:
            return
        yield reader.line_num, row


def header(cells: Sequence[str]) -> list[str] | None:
    """The columns that the first line names, None if it is a wallet already."""
    first = PREFIX.sub("", cells[0])
    if first[:2].lower() == "0x" or "." in first:
        return None
    return [ALIASES.get(name, name) for name in (cell.lower() for cell in cells)]


def watch_of(where: str, entry: Mapping[str, Any], resolve: Callable[[str], tuple[str, str]]) -> Watch:
    """One entry as a watch. ConfigError for what is wrong in it."""
    known_keys(entry, KEYS, (), where)
    wallet, label = entry.get("wallet"), entry.get("label")
    if not isinstance(wallet, str) or not isinstance(label, str | None):
        raise ConfigError(f"{where}: wallet and label must be text")
    try:
        rules = rules_of(entry.get("below"), entry.get("drop"))
        kept = checked_label(label) if label else None
        groups = groups_of(entry.get("group"))
        name = ens_name(wallet)
        if name is None:
            return Watch(checked_address(PREFIX.sub("", wallet.strip())), kept, None, rules, groups)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    try:
        address, name = resolve(name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return Watch(address, kept, name, rules, groups)


def ens_name(text: str) -> str | None:
    """The text if it is an ENS name, None if it can only be an address."""
    name = text.strip()
    return None if PREFIX.sub("", name)[:2].lower() == "0x" or "." not in name else name


def rules_of(thresholds: Any, falls: Any, chances: Iterable[str] = (), *, oracle: bool = False) -> tuple[Rule, ...]:
    """Rules from the values of a file or of flags. ValueError for a value that makes no rule."""
    return (
        *(below(value) for value in listed(thresholds)),
        *(drop(value) for value in listed(falls)),
        *map(chance, chances),
        *([ORACLE] if oracle else []),
    )


def groups_of(names: Any) -> tuple[str, ...]:
    """Names of groups from what a file or flags give. ValueError if one is none."""
    values = names if isinstance(names, list | tuple) else [] if names is None else [names]
    if not all(isinstance(name, str) for name in values):
        raise ValueError("group must be text")
    return tuple(checked_group(name) for name in values)


def listed(value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    values = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(one, bool) or not isinstance(one, str | int | float) for one in values):
        raise ValueError("below and drop must be numbers")
    return values
