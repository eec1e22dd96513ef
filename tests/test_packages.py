"""What the docstrings of the packages name is there, and naming it imports nothing."""

import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import indexer

PACKAGES = sorted(path.parent.name for path in Path(indexer.__file__).parent.glob("*/__init__.py"))


@pytest.mark.parametrize("name", PACKAGES)
def test_the_doors_of_a_package_exist(name: str) -> None:
    package = import_module(f"indexer.{name}")
    doors = re.findall(r"`([a-z_]+(?:\.\w+)?)`", package.__doc__ or "")
    assert doors
    for door in doors:
        module, _, attribute = door.partition(".")
        found = import_module(f"indexer.{name}.{module}")
        assert not attribute or hasattr(found, attribute), f"indexer.{name} has no {door}"


def test_importing_the_packages_imports_nothing_else() -> None:
    names = [f"indexer.{name}" for name in PACKAGES]
    code = f"import sys; before = set(sys.modules); import {', '.join(names)}; print(*set(sys.modules) - before)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(out.split()) == {"indexer", *names}


def test_the_version_is_that_of_the_installed_package() -> None:
    assert indexer.__version__ == version("lending-indexer")
    with pytest.raises(AttributeError, match="no attribute 'versoin'"):
        _ = indexer.versoin
