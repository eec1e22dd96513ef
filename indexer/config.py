"""The configuration: built-in chains and deployments, installed packages, one TOML file, environment and flags.

Packages add chains and deployments; the user's file adds, replaces and changes them. Unknown keys are errors. This module
opens no connection.
"""

import math
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import platformdirs

from indexer.address import checked_address
from indexer.boundary.files import require_own
from indexer.boundary.masking import harmless
from indexer.boundary.typed import UnfitError, typed
from indexer.errors import ConfigError
from indexer.model import Deployment
from indexer.plugins import adapter_class, deployment_files, did_you_mean, installed
from indexer.settings import Alerts, Count, Guard, Positive, Settings

MULTICALL3 = "0xca11bde05977b3631167028862be2a173976ca11"
DEFAULT_CHAIN = "mainnet"
FILE_NAME = "indexer.toml"
LARGEST_FILE = 2**20

Table = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChainConfig:
    """One chain; `rpc` are the user's endpoints, `public_rpc` endpoints that need no key."""

    name: str
    chain_id: Annotated[int, msgspec.Meta(gt=0)]
    rpc: list[str] = field(default_factory=list)
    public_rpc: list[str] = field(default_factory=list)
    multicall3: str = MULTICALL3
    guard: Guard = "full"
    bloom: Literal["exact", "partial", "none"] = "exact"
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=600)] = 30
    explorer: str | None = None
    native_symbol: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "ETH"
    max_requests_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None
    #: the wrapped coin of the chain, older than most contracts
    wrapped_native: str | None = None
    #: blocks of one eth_getLogs at most; None: found by trying
    max_log_range: Positive | None = None
    #: whether requests that leave together go to all endpoints, not only to the one in use
    spread: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that names this chain's endpoints, e.g. MAINNET_RPC_URL."""
        return re.sub(r"[^A-Z0-9]", "_", self.name.upper()) + "_RPC_URL"


@dataclass(frozen=True, slots=True)
class DeploymentTable:
    """One deployment as it stands in the file."""

    protocol: str
    chain: str
    addresses: dict[str, Any]
    #: 0: from the first block on, or from where the chain proves that the contracts were created
    start_block: Count = 0
    options: dict[str, Any] = field(default_factory=dict)


#: the source of endpoints that are nobody's own
PUBLIC = "built-in public endpoint"


@dataclass(frozen=True, slots=True)
class NamedUrl:
    """A node's URL, its source, and whether another chain behind it is an error or just a reason to skip it."""

    url: str = field(repr=False)
    source: str
    must_fit: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The checked configuration; `path` is the user's file if there is one, `own` the deployments that it defines.

    `check_own` checks that these have the addresses their protocols need; it has to import the adapters.
    """

    path: Path | None
    own: Collection[str]
    chains: Mapping[str, ChainConfig]
    deployments: Mapping[str, Deployment]
    settings: Settings
    alerts: Alerts
    groups: Mapping[str, Sequence[str]]
    environment: Mapping[str, str] = field(repr=False)

    def chain(self, name: str) -> ChainConfig:
        """The chain with that name. Raises `ConfigError` if there is none."""
        if name not in self.chains:
            raise ConfigError(f"unknown chain {harmless(name)}{did_you_mean(name, self.chains)}")
        return self.chains[name]

    def chain_name(self, chain_id: int) -> str:
        """The name of the chain with that id, else the id."""
        return next((name for name, chain in self.chains.items() if chain.chain_id == chain_id), str(chain_id))

    def check_own(self) -> None:
        """Raises `ConfigError` unless the user's deployments have the addresses that their protocols need."""
        for name in self.own:
            check_adapter_keys(self.deployments[name], f"{self.path}: ")

    def select(
        self, chain: str | None = None, protocols: Collection[str] = (), deployments: Collection[str] = ()
    ) -> tuple[ChainConfig, list[Deployment]]:
        """The chain, and those of its deployments that pass every given filter, with complete addresses.

        The default chain is that of the named deployments, else mainnet. Raises `ConfigError` for an unknown name, for
        deployments of different chains, and when nothing is left.
        """
        self.check_own()
        for name in deployments:
            if name not in self.deployments:
                raise ConfigError(f"unknown deployment {harmless(name)}{did_you_mean(name, self.deployments)}")
        for protocol in protocols:
            if protocol not in installed():
                raise ConfigError(f"unknown protocol {harmless(protocol)}{did_you_mean(protocol, installed())}")
        homes = sorted({self.deployments[name].chain for name in deployments})
        if chain is None and len(homes) > 1:
            raise ConfigError(f"the deployments are on several chains ({', '.join(homes)}); name one with --chain")
        selected = self.chain(chain or (homes[0] if homes else DEFAULT_CHAIN))
        for name in deployments:
            if self.deployments[name].chain != selected.name:
                home = self.deployments[name].chain
                raise ConfigError(f"deployment {name} is on chain {home}, not {selected.name}; use --chain {home}")
        found = [
            deployment
            for deployment in self.deployments.values()
            if deployment.chain == selected.name
            and (not protocols or deployment.protocol in protocols)
            and (not deployments or deployment.name in deployments)
        ]
        if not found:
            what = f" of {' or '.join(protocols)}" if protocols else ""
            raise ConfigError(f"no deployment{what} is configured on chain {selected.name}; see `indexer protocols`")
        for deployment in found:
            check_adapter_keys(deployment)
        return selected, found

    def endpoints(self, chain: ChainConfig, rpc_urls: Sequence[str] = ()) -> list[NamedUrl]:
        """The endpoints of a chain in the order to try them.

        Only the first source that names any is used: `rpc_urls` (flags), the chain's own variable, its `rpc`. ETH_RPC_URL
        names no chain, so the public endpoints follow it in case it serves another one. Raises `ConfigError` if there is
        none, for a missing variable, and for anything but an http(s) URL.
        """
        own = self.environment.get(chain.variable, "").split()
        general = self.environment.get("ETH_RPC_URL", "").split()
        if rpc_urls:
            found = [NamedUrl(url, "--rpc-url") for url in rpc_urls]
        elif own:
            found = [NamedUrl(url, chain.variable) for url in own]
        elif chain.rpc:
            source = f"{self.path}: chains.{chain.name}.rpc"
            found = [NamedUrl(self.expanded(url, source), source) for url in chain.rpc]
        else:
            found = [NamedUrl(url, "ETH_RPC_URL", must_fit=False) for url in general]
            found += [NamedUrl(url, PUBLIC) for url in chain.public_rpc]
        for endpoint in found:
            if not re.match(r"https?://[^/\s]", endpoint.url):
                raise ConfigError(f"{endpoint.source}: an endpoint must begin with http:// or https://")
        if not found:
            raise ConfigError(f"no endpoint for chain {chain.name}; use --rpc-url URL or set {chain.variable}")
        return found

    def expanded(self, url: str, source: str) -> str:
        """The URL with every ${NAME} replaced by that environment variable."""

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if not self.environment.get(name):
                raise ConfigError(f"{source}: the environment variable {name} is not set")
            return self.environment[name]

        return re.sub(r"\$\{([^}]*)\}", value, url)


def load(path: Path | None, environment: Mapping[str, str]) -> Config:
    """Loads the configuration: built-in, from packages, and from `path`, ./indexer.toml or the user's config folder.

    A file that was found rather than named must be the user's own: it decides where keys are sent and what is run. Raises
    `ConfigError` naming file, key and what to do.
    """
    merged: dict[str, Table] = {"chains": {}, "deployments": {}, "settings": {}, "alerts": {}, "groups": {}}
    origin: dict[tuple[str, str], str] = {}
    built_in = files("indexer").joinpath("chains.toml").read_text(encoding="utf-8")
    for label, text in [("indexer/chains.toml", built_in), *deployment_files()]:
        add(merged, origin, parse(text, label), label)
    if path is None:
        path = user_file()
        if path is not None:
            require_own(path, f"--config {path}")
    user: Table = {}
    if path is not None:
        user = parse(read(path), str(path))
        for section, key in DEFINING.items():
            for name, table in user.get(section, {}).items():
                if key in table:
                    merged[section].pop(name, None)
        overlay(merged, user)
    label_of = Labels(user, str(path), origin)
    chains = {name: chain_of(name, table, label_of) for name, table in merged["chains"].items()}
    deployments = {}
    for name, table in merged["deployments"].items():
        row = checked(DeploymentTable, ("deployments", name), table, label_of)
        addresses = {
            key: address(value, ("deployments", name, "addresses", key), label_of)
            for key, value in row.addresses.items()
        }
        if row.chain not in chains:
            label = label_of(("deployments", name, "chain"))
            raise ConfigError(
                f"{label}: deployments.{name}.chain: unknown chain {harmless(row.chain)}{did_you_mean(row.chain, chains)}"
            )
        coin = chains[row.chain].native_symbol
        deployments[name] = Deployment(name, row.protocol, row.chain, row.start_block, addresses, row.options, coin)
    return Config(
        path=path,
        own=user.get("deployments", {}).keys(),
        chains=chains,
        deployments=deployments,
        settings=checked(Settings, ("settings",), merged["settings"], label_of) if merged["settings"] else Settings(),
        alerts=checked(Alerts, ("alerts",), merged["alerts"], label_of) if merged["alerts"] else Alerts(),
        groups={name: checked(Group, ("groups", name), group, label_of) for name, group in merged["groups"].items()},
        environment=environment,
    )


def user_file() -> Path | None:
    """./indexer.toml, else indexer.toml in the user's config folder, else None."""
    folder = platformdirs.user_config_path("lending-indexer")
    return next((path for path in (Path(FILE_NAME), folder / FILE_NAME) if path.is_file()), None)


def read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise ConfigError(f"{path}: larger than {LARGEST_FILE // 2**20} MB, which no configuration is")
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


SECTIONS: dict[str, Collection[str]] = {
    "chains": {field.name for field in fields(ChainConfig)} - {"name"},
    "deployments": [field.name for field in fields(DeploymentTable)],
    "settings": [field.name for field in fields(Settings)],
    "alerts": [field.name for field in fields(Alerts)],
}
#: keys whose values are never shown
SECRET_KEYS = {"rpc", "public_rpc", "explorer", "urls", "command", "stdout"}
#: sections that are single tables, only in the user's file
SINGLE = ("settings", "alerts")
#: a name of [groups]: symbols, addresses or ilks whose prices move together in `simulate`
Group = Annotated[list[str], msgspec.Meta(min_length=1)]

#: a user's table with this key defines something new; without it, it changes only the keys it gives
DEFINING = {"chains": "chain_id", "deployments": "protocol"}


#: how many dots outside quotes a line may have
DEEPEST = 64
QUOTED = re.compile(r'"[^"\n]*"|\'[^\'\n]*\'')


def parse(text: str, label: str) -> Table:
    """The file as tables with known keys only. Raises `ConfigError` for other keys, and for what is not TOML."""
    # The parser's time grows with the square of the parts of a dotted key.
    if any(QUOTED.sub("", line).count(".") > DEEPEST for line in text.splitlines()):
        raise ConfigError(f"{label}: not valid TOML: nested too deeply")
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{label}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and an integer of thousands of digits
        raise ConfigError(f"{label}: not valid TOML: {error}") from None
    known_keys(data, [*SECTIONS, "groups"], (), label)
    for name in as_table(data.get("groups", {}), ("groups",), label):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ConfigError(f"{label}: groups: {harmless(name)} is no name (letters, digits, dots and hyphens)")
    for section, keys in SECTIONS.items():
        table = as_table(data.get(section, {}), (section,), label)
        if section in SINGLE:
            known_keys(table, keys, (section,), label)
            continue
        for name, inner in table.items():
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise ConfigError(
                    f"{label}: {section}: {harmless(name)} is no name (letters, digits, dots and hyphens)"
                )
            known_keys(as_table(inner, (section, name), label), keys, (section, name), label)
            for key in ("addresses", "options"):
                as_table(inner.get(key, {}), (section, name, key), label)
    return data


def as_table(value: object, where: tuple[str, ...], label: str) -> Table:
    if not isinstance(value, dict):
        raise ConfigError(f"{label}: {'.'.join(where)}: must be a table, [{'.'.join(where)}]")
    return value


def dotted(path: Iterable[str]) -> str:
    """A place in the file; a key that may be a secret is not repeated."""
    return ".".join(part if harmless(part) == repr(part) else "***" for part in path)


def known_keys(table: Iterable[str], known: Collection[str], where: tuple[str, ...], label: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{label}: unknown key {dotted((*where, key))}{did_you_mean(key, known)}")


def add(merged: dict[str, Table], origin: dict[tuple[str, str], str], data: Table, label: str) -> None:
    """Add a package's chains and deployments, none of which may exist yet."""
    for section in (*SINGLE, "groups"):
        if section in data:
            raise ConfigError(f"{label}: a package cannot change [{section}]")
    for section, tables in data.items():
        for name, table in tables.items():
            if name in merged[section]:
                raise ConfigError(f"{label}: {section}.{name} is already defined by {origin[section, name]}")
            merged[section][name] = table
            origin[section, name] = label


def overlay(merged: Table, user: Table) -> None:
    """Change only the keys the user gives, table by table."""
    for key, value in user.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            overlay(merged[key], value)
        else:
            merged[key] = value


@dataclass(frozen=True, slots=True)
class Labels:
    """Which file a key came from, for messages."""

    user: Table
    user_label: str
    origin: Mapping[tuple[str, str], str]

    def __call__(self, where: tuple[str, ...]) -> str:
        """Names the user's file if it has that key, or has its table while the key is missing everywhere."""
        table: Any = self.user
        for key in where:
            if not isinstance(table, dict) or key not in table:
                return self.origin.get((where[0], where[1]), self.user_label)
            table = table[key]
        return self.user_label


def chain_of(name: str, table: Table, label_of: Labels) -> ChainConfig:
    chain = checked(ChainConfig, ("chains", name), {**table, "name": name}, label_of)
    where = ("chains", name)
    wrapped = chain.wrapped_native and address(chain.wrapped_native, (*where, "wrapped_native"), label_of)
    return replace(
        chain, multicall3=address(chain.multicall3, (*where, "multicall3"), label_of), wrapped_native=wrapped
    )


def address(value: object, where: tuple[str, ...], label_of: Labels) -> str:
    """The address in lower case. Raises `ConfigError`."""
    try:
        return checked_address(typed(str, value))
    except UnfitError as error:
        raise ConfigError(f"{label_of(where)}: {dotted(where)}: {error}, not {harmless(value)}") from error
    except ValueError as error:
        raise ConfigError(f"{label_of(where)}: {dotted(where)}: {harmless_in(str(error), value)}") from error


def harmless_in(message: str, given: object) -> str:
    """The message without the given text where that may be a key: the URL of an endpoint, written here by mistake."""
    if isinstance(given, str) and harmless(given) != repr(given):
        return message.replace(repr(given), harmless(given)).replace(given, harmless(given))
    return message


def checked(kind: type[T], where: tuple[str, ...], table: object, label_of: Labels) -> T:
    """The table as its type. Raises `ConfigError` for the first wrong or missing value."""
    try:
        return typed(kind, table)
    except UnfitError as error:
        path = (*where, *error.path)
        label = label_of(path)
        if error.missing:
            near = get_close_matches(where[-1], [name for section, name in label_of.origin if section == where[0]], n=1)
            meant = f"; did you mean [{where[0]}.{near[0]}]?" if near else ""
            raise ConfigError(f"{label}: {dotted(path)} is missing{meant}") from error
        secret = not SECRET_KEYS.isdisjoint(path)
        got = "" if secret else f", not {harmless(error.given)}"
        raise ConfigError(f"{label}: {dotted(path)}: {harmless_in(str(error), error.given)}{got}") from error


def check_adapter_keys(deployment: Deployment, label: str = "") -> None:
    """Raise `ConfigError` unless the deployment has the addresses and options its protocol needs, and no others."""
    try:
        adapter = adapter_class(deployment.protocol)
    except ConfigError as error:
        raise ConfigError(f"{label}deployments.{deployment.name}.protocol: {error}") from None
    known = (*adapter.required_addresses, *adapter.optional_addresses)
    where = f"{label}deployments.{deployment.name}"
    for key in deployment.addresses:
        if key not in known:
            raise ConfigError(
                f"{where}.addresses: {deployment.protocol} has no address {harmless(key)}{did_you_mean(key, known)}"
            )
    for key in adapter.required_addresses:
        if key not in deployment.addresses:
            raise ConfigError(
                f"{where}.addresses: {key} is missing; {deployment.protocol} needs {', '.join(adapter.required_addresses)}"
            )
    for key, value in deployment.options.items():
        if key not in adapter.options:
            raise ConfigError(
                f"{where}.options: {deployment.protocol} has no option {harmless(key)}{did_you_mean(key, adapter.options)}"
            )
        if adapter.options[key] is str:
            fits, wanted = isinstance(value, str) and 0 < len(value) <= 64, "a text of 1 to 64 characters"
        else:
            fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
            wanted = "a number above 0"
        if not fits:
            raise ConfigError(f"{where}.options.{key}: should be {wanted}, not {harmless(value)}")
