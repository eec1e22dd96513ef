"""The installed protocols: adapters registered in the entry-point group `lending_indexer.protocols`.

A package adds a protocol with one line in its pyproject, and its deployments in a `deployments.toml` beside the
adapter's module:

    [project.entry-points."lending_indexer.protocols"]
    my-protocol = "my_package.my_protocol:MyProtocol"      # my_package/deployments.toml is read if it is there
"""

import importlib
from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING

from indexer.boundary.masking import harmless
from indexer.errors import ConfigError, InstallationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from indexer.adapter import AnyAdapter

GROUP = "lending_indexer.protocols"
DISTRIBUTION = "lending-indexer"
DEPLOYMENTS_FILE = "deployments.toml"
REQUIRED = ("protocol", "market_type", "position_type", "required_addresses")


@cache
def registered() -> "tuple[EntryPoint, ...]":
    """Every entry point of the group, unordered; cached, as reading the metadata of all packages takes a while."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow to import, and reading rows needs no protocol

    return tuple(entry_points(group=GROUP))


def installed() -> "dict[str, EntryPoint]":
    """Every registered protocol by name, not yet imported. Raises `ConfigError` if two packages claim the same name."""
    found: dict[str, EntryPoint] = {}
    for entry in sorted(registered(), key=lambda entry: (entry.name, entry.value)):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ConfigError(
                f"protocol {entry.name} is registered twice, by {package(other)} ({other.value}) and by "
                f"{package(entry)} ({entry.value}); uninstall one of them"
            )
    return found


def package(entry: "EntryPoint") -> str:
    """The name of the distribution that registered an entry point."""
    from indexer.boundary.installation import name_of  # noqa: PLC0415 - as below

    return name_of(entry.dist) if entry.dist else "an unnamed package"


def adapter_class(protocol: str) -> "type[AnyAdapter]":
    """The adapter class of a protocol. Raises `ConfigError` if there is none, it cannot be imported, or is no Adapter.

    `InstallationError` if another package hides it.
    """
    from indexer.adapter import Adapter  # noqa: PLC0415 - as below
    from indexer.boundary.installation import require_genuine  # noqa: PLC0415 - reads the metadata of packages

    entries = installed()
    if protocol not in entries:
        raise ConfigError(
            f"no installed package knows the protocol {harmless(protocol)}{did_you_mean(protocol, entries)}"
        )
    entry = entries[protocol]
    label = f"protocol {protocol}: {entry.value} of {package(entry)}"
    require_genuine(entry)
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{label} cannot be loaded: {error}; reinstall it") from error
    if not (isinstance(found, type) and issubclass(found, Adapter)):
        raise ConfigError(f"{label} is not an Adapter")
    lacking = sorted(name for name in REQUIRED if not hasattr(found, name))
    lacking += sorted(found.__abstractmethods__)
    if lacking:
        raise ConfigError(f"{label} is not a complete Adapter: it lacks {', '.join(lacking)}")
    if found.protocol != protocol:
        raise ConfigError(f"{label} calls itself {found.protocol}; its entry point must have the same name")
    return found


def deployment_files() -> list[tuple[str, str]]:
    """(label, TOML text) of every `deployments.toml` beside an adapter, each once, built-in protocols included.

    Raises `InstallationError` if another package hides an adapter: its deployments would silently be missing.
    """
    from importlib import resources  # noqa: PLC0415 - slow to import

    from indexer.boundary.installation import require_genuine  # noqa: PLC0415 - reads the metadata of packages

    files: dict[str, str] = {}
    for entry in installed().values():
        folder = entry.module.rpartition(".")[0] or entry.module
        label = f"{folder}/{DEPLOYMENTS_FILE}"
        if label in files:
            continue
        require_genuine(entry)
        try:
            module = importlib.import_module(folder)
        except ImportError as error:
            raise ConfigError(
                f"protocol {entry.name}: {entry.value} of {package(entry)} cannot be loaded: {error}; reinstall it"
            ) from error
        if hasattr(module, "__path__"):
            file = resources.files(module) / DEPLOYMENTS_FILE
            if file.is_file():
                files[label] = file.read_text(encoding="utf-8")
            elif package(entry) == DISTRIBUTION:
                raise InstallationError(f"{file} of {DISTRIBUTION} is missing: reinstall {DISTRIBUTION}")
    return list(files.items())


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: the nearest known name, else all of them."""
    from difflib import get_close_matches  # noqa: PLC0415 - slow to import, and most names are known

    near = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(sorted(known))}" if known else ""
