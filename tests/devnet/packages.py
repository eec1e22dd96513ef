"""Download the public packages the devnet is made of, once, into a cache outside the repository."""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

ANVIL_VERSION = "1.7.1"

# Reads a standard-json input on stdin, writes the compiler's output: solc is plain JavaScript, no binary is fetched.
SOLC_SCRIPT = """
const solc = require(process.argv[1]);
let input = '';
process.stdin.on('data', chunk => input += chunk);
process.stdin.on('end', () => process.stdout.write(solc.compile(input)));
"""


class PackageError(RuntimeError):
    """A package could not be fetched, or is not what was asked for."""


class CompileError(RuntimeError):
    """The Solidity compiler reported errors."""


def cache_folder() -> Path:
    """The folder of all downloads and compiled code: $LENDING_DEVNET_CACHE, else the user's cache folder."""
    chosen = os.environ.get("LENDING_DEVNET_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("lending-indexer-devnet"))


def missing_tools() -> list[str]:
    """The programs the devnet needs that are not on PATH."""
    return [tool for tool in ("node", "npm") if shutil.which(tool) is None]


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache lock `name` against other processes; the system releases it if this process dies."""
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The cache folder `name`, filled by `build(scratch)` unless it is there.

    It appears under its name by one rename after `build` returned, so a killed download leaves nothing half-made.
    """
    target = cache_folder() / name
    if target.is_dir():
        return target
    with locked(name.replace("/", "__")):
        if target.is_dir():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as scratch:
            content = Path(scratch) / "content"
            content.mkdir()
            build(content)
            content.rename(target)
    return target


def package(name: str, version: str) -> Path:
    """The unpacked files of one npm package, without its dependencies (`npm pack`; npm checks the integrity hash)."""

    def build(folder: Path) -> None:
        tarball = folder / npm("pack", "--loglevel=error", f"{name}@{version}", cwd=folder).split()[-1]
        with tarfile.open(tarball) as archive:
            # Python before 3.11.4 has no filters and ignores this; npm has checked the integrity hash either way.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(folder / "unpacked")
        tarball.unlink()
        (top,) = (folder / "unpacked").iterdir()
        for entry in top.iterdir():
            entry.rename(folder / entry.name)
        shutil.rmtree(folder / "unpacked")
        check_version(folder, name, version)

    folder = cached(f"npm/{name.replace('/', '__')}@{version}", build)
    check_version(folder, name, version)
    return folder


def installed(name: str, version: str) -> Path:
    """One npm package installed with its dependencies and no scripts; the package's folder inside `node_modules`."""

    def build(folder: Path) -> None:
        npm("install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", f"{name}@{version}")
        check_version(folder / "node_modules" / name, name, version)

    folder = cached(f"npm-installed/{name.replace('/', '__')}@{version}", build) / "node_modules" / name
    check_version(folder, name, version)
    return folder


def npm(*arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(["npm", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        raise PackageError(f"npm {' '.join(arguments)} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    return done.stdout


def check_version(folder: Path, name: str, version: str) -> None:
    found = json.loads((folder / "package.json").read_text())
    if (found["name"], found["version"]) != (name, version):
        raise PackageError(f"{folder} holds {found['name']}@{found['version']}, not {name}@{version}; delete it")


def anvil_binary() -> Path:
    """The local node for this platform, from its own npm sub-package."""
    machines = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    system, machine = platform.system().lower(), machines[platform.machine().lower()]
    binary = package(f"@foundry-rs/anvil-{system}-{machine}", ANVIL_VERSION) / "bin" / "anvil"
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    return binary


def solc(version: str, standard_input: dict[str, Any]) -> dict[str, Any]:
    """Compile a standard-json input with npm `solc`; the output is cached by the hash of version and input.

    The input must carry every source itself: nothing is imported from disk. Raises `CompileError` on errors.
    """
    text = json.dumps(standard_input, sort_keys=True)
    key = hashlib.sha256(f"{version}\n{text}".encode()).hexdigest()

    def build(folder: Path) -> None:
        compiler = installed("solc", version)
        done = subprocess.run(
            ["node", "--max-old-space-size=4096", "-e", SOLC_SCRIPT, str(compiler)],
            input=text, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        if done.returncode != 0:
            raise CompileError(f"solc {version} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        errors = [e for e in json.loads(done.stdout).get("errors", []) if e["severity"] == "error"]
        if errors:
            raise CompileError("\n".join(e.get("formattedMessage", e["message"]) for e in errors[:10]))
        (folder / "output.json").write_text(done.stdout)

    output = cached(f"solc/{version}-{key}", build) / "output.json"
    return dict(json.loads(output.read_text()))


IMPORT = re.compile(r"""^\s*import\s[^;]*?["']([^"']+)["']\s*;""", re.MULTILINE)


def sources(entries: dict[str, Path], roots: dict[str, Path]) -> dict[str, dict[str, str]]:
    """Solidity sources and everything they import, as the `sources` of a standard-json input.

    `entries` maps source unit names to files; `roots` maps import prefixes (`"@openzeppelin/"`) to folders.
    Relative imports are resolved against the importing unit's name, as the compiler does.
    """
    found: dict[str, dict[str, str]] = {}
    waiting = list(entries.items())
    while waiting:
        unit, file = waiting.pop()
        if unit in found:
            continue
        content = file.read_text()
        found[unit] = {"content": content}
        for imported in IMPORT.findall(content):
            if imported.startswith("."):
                name = os.path.normpath(str(Path(unit).parent / imported))
                waiting.append((name, Path(os.path.normpath(file.parent / imported))))
            else:
                prefix = max((p for p in roots if imported.startswith(p)), key=len, default=None)
                if prefix is None:
                    raise CompileError(f"{unit} imports {imported}, which no root covers")
                waiting.append((imported, roots[prefix] / imported.removeprefix(prefix)))
    return found
