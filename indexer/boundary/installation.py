"""Checks that what Python imports under a distribution's names is what that distribution installed.

`protocols` and `abis` are plain names: a folder of that name on the path hides ours, and pip lets another distribution
overwrite our files without a warning. Both are reported before such a package is used.
"""

import base64
import hashlib
import json
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlparse

from indexer.errors import InstallationError


def require_genuine(entry: EntryPoint) -> None:
    """Raise `InstallationError` unless the entry point's distribution owns every top-level package it declares.

    The files of a wheel are compared with its RECORD, an editable install with the folder it was installed from. An entry
    point without a distribution, or whose distribution has neither record, is not checked.
    """
    if entry.dist is not None:
        require_packages(name_of(entry.dist), entry.module.partition(".")[0])


@cache  # the metadata is parsed anew each time
def name_of(dist: Distribution) -> str:
    return str(dist.name)


@cache  # a distribution has several entry points, which are looked up more than once
def require_packages(distribution_name: str, package: str) -> None:
    dist = distribution(distribution_name)
    declared = (dist.read_text("top_level.txt") or "").split()
    for name in sorted({package, *declared}):
        found = location(name)
        if found is not None:  # the import itself reports a package that is missing
            require_place(dist, name, found)
            require_content(dist, name)


def location(name: str) -> Path | None:
    """The folder of the package, or the file of the module, that an import of this top-level name finds."""
    try:
        spec = find_spec(name)
    except ValueError:  # run as a script, it has no spec
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.origin else None


def require_place(dist: Distribution, name: str, found: Path) -> None:
    """Raise `InstallationError` if another package of that name comes first on Python's path."""
    recorded = [file for file in dist.files or () if file.parts[0] in (name, f"{name}.py")]
    if recorded:
        home = Path(str(dist.locate_file(recorded[0].parts[0]))).resolve()
        ours = found == home
    else:
        root = editable_folder(dist)
        if root is None:
            return
        home, ours = root, found.is_relative_to(root)
    if not ours:
        raise InstallationError(
            f"Python finds the package {name} at {found}, which is not that of {dist.name} in {home}: "
            "rename that folder or file, or take it off PYTHONPATH"
        )


def editable_folder(dist: Distribution) -> Path | None:
    """The source folder of an editable install; None for any other install."""
    text = dist.read_text("direct_url.json")
    url = urlparse(json.loads(text)["url"]) if text else None
    return Path(unquote(url.path)).resolve() if url and url.scheme == "file" else None


def require_content(dist: Distribution, name: str) -> None:
    """Raise `InstallationError` if a file is missing or differs from the installed one."""
    for file in dist.files or ():
        if file.parts[0] != name or file.hash is None:
            continue
        path = Path(str(file.locate()))
        if not path.is_file():
            raise InstallationError(f"{path} of {dist.name} is missing: reinstall {dist.name}{others(dist, name)}")
        digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
            raise InstallationError(
                f"{path} is not what {dist.name} installed: reinstall {dist.name}{others(dist, name)}"
            )


def others(dist: Distribution, name: str) -> str:
    """Which other distributions installed a package of that name too, as the end of a message."""
    names = sorted(set(packages_distributions().get(name, ())) - {dist.name})
    return f", but without {' and '.join(names)}, which writes to the same folder" if names else ""
