"""Whether what Python imports under our names is what was installed."""

from collections.abc import Iterator
from importlib.metadata import packages_distributions

from indexer.boundary.installation import require_packages
from indexer.doctor.finding import Finding, Verdict
from indexer.errors import InstallationError
from indexer.plugins import DISTRIBUTION, registered

#: top-level packages of this distribution
OURS = ("indexer", "protocols", "abis")


def packages() -> list[Finding]:
    """One finding a collision: another distribution with a package of the same name, or files that are not the installed ones."""
    found = list(_collisions())
    ours = ", ".join(OURS)
    return found or [Finding("packages", Verdict.OK, f"{ours}: as they were installed")]


def _collisions() -> Iterator[Finding]:
    owners = packages_distributions()
    declared = {(DISTRIBUTION, name) for name in OURS}
    declared |= {(entry.dist.name, entry.module.partition(".")[0]) for entry in registered() if entry.dist is not None}
    for distribution, name in sorted(declared):
        others = sorted({other for other in owners.get(name, ()) if other.lower() != distribution.lower()})
        if others:
            text = f"{name} is also a package of {', '.join(others)}: install {distribution} into an environment of its own"
            yield Finding("packages", Verdict.ERROR, text, value=name)
        try:
            require_packages(distribution, name)
        except InstallationError as error:
            yield Finding("packages", Verdict.ERROR, str(error), value=name)
