"""Another `protocols` in the way of ours, or written over it, ends the command with one line instead of an empty list."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer import plugins
from indexer.errors import InstallationError

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed"]


def pip_install(source: Path, prefix: Path) -> Path:
    """Install a project as pip does; the folder of its packages."""
    subprocess.run([*PIP, "--prefix", str(prefix), str(source)], check=True, stdout=subprocess.DEVNULL)
    (site,) = prefix.glob("lib/python*/site-packages")
    return site


def run(folder: Path, *arguments: str, path: Path | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `python -m indexer` started in a folder."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "indexer", *arguments], cwd=folder, check=False, capture_output=True, text=True,
        env={**environment, "PYTHONPATH": str(path)} if path else environment,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def one_line(result: tuple[int, str, str], *parts: str) -> None:
    code, out, told = result
    assert (code, out) == (1, "")
    assert told.count("\n") == 1, told
    for part in parts:
        assert part in told


@pytest.fixture(params=["package", "folder", "module"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A working folder with something of somebody's own under the name `protocols`."""
    if request.param == "module":
        (tmp_path / "protocols.py").touch()
        return tmp_path
    (tmp_path / "protocols").mkdir()
    if request.param == "package":
        (tmp_path / "protocols" / "__init__.py").touch()
    return tmp_path


def test_a_protocols_in_the_working_folder_is_none_of_ours(elsewhere: Path) -> None:
    code, out, told = run(elsewhere, "protocols", "--chain", "mainnet", "--csv")
    assert (code, told) == (0, "")
    assert "aave-v3-core" in out


@pytest.mark.parametrize("verb", [("protocols",), ("sync", "--rpc-url", "http://127.0.0.1:9")])
def test_a_protocols_on_the_path_is_named(elsewhere: Path, verb: tuple[str, ...]) -> None:
    result = run(elsewhere, *verb, path=elsewhere)
    one_line(result, f"Python finds the package protocols at {elsewhere}/protocols", "lending-indexer", "PYTHONPATH")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages into which pip has installed this project as a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"  # the build writes beside the sources
    copy.mkdir()
    for name in ("indexer", "protocols", "abis", "pyproject.toml", "README.md", "LICENSE"):
        place = PROJECT / name
        (shutil.copytree if place.is_dir() else shutil.copy)(place, copy / name)
    return pip_install(copy, folder / "prefix")


@pytest.fixture
def wheel(installed: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, to spoil."""
    shutil.copytree(installed, site := tmp_path / "prefix" / "lib" / installed.parent.name / "site-packages")
    return site


def test_an_untouched_wheel_works(wheel: Path, tmp_path: Path) -> None:
    code, out, told = run(tmp_path, "protocols", "--chain", "mainnet", "--csv", path=wheel)
    assert (code, told) == (0, "")
    assert "aave-v3-core" in out


def test_a_distribution_that_overwrote_ours_is_named_before_and_after_it_is_gone(wheel: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "protocols").mkdir(parents=True)
    (other / "protocols" / "__init__.py").write_text("theirs = True\n")
    (other / "pyproject.toml").write_text(
        textwrap.dedent("""
            [build-system]
            requires = ["setuptools"]
            build-backend = "setuptools.build_meta"
            [project]
            name = "their-protocols"
            version = "1"
            [tool.setuptools]
            packages = ["protocols"]
        """)
    )
    assert pip_install(other, tmp_path / "prefix") == wheel
    overwritten = wheel / "protocols" / "__init__.py"
    one_line(
        run(tmp_path, "protocols", path=wheel),
        f"{overwritten} is not what lending-indexer installed",
        "reinstall lending-indexer, but without their-protocols",
    )
    overwritten.unlink()  # as their uninstallation does
    one_line(run(tmp_path, "protocols", path=wheel), f"{overwritten} of lending-indexer is missing: reinstall")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("protocols/deployments.toml", "missing"),
        ("protocols/aave_v3/market.py", "changed"),
        ("abis/aave_oracle.json", "changed"),
    ],
)
def test_any_file_that_is_not_as_installed_is_named(wheel: Path, tmp_path: Path, file: str, change: str) -> None:
    path = wheel / file
    if change == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text() + "\n")
    one_line(run(tmp_path, "protocols", path=wheel), str(path), "reinstall lending-indexer")


def test_our_own_deployments_are_not_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "DEPLOYMENTS_FILE", "nowhere.toml")
    with pytest.raises(InstallationError, match=r"nowhere\.toml of lending-indexer is missing: reinstall"):
        plugins.deployment_files()
