"""`make dist`: builds wheel and sdist with their man pages, checks them, and tries both in clean environments.

`python -m tests.dist man FOLDER` writes the man pages alone. The environments are of the Python that runs this and of the
newest that is on PATH; what they install comes from pip's index.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
from click_man.core import write_man_pages

from indexer.cli.main import main as command
from tests.docs.pages import DOCS, blocks, run, says
from tests.docs.pages import commands as page_commands

ROOT = Path(__file__).parents[1]
MAN = ROOT / "man"
DIST = ROOT / "dist"
#: what is for people and machines that run it, and what a build reads
BESIDE = ("README.md", "LICENSE", "pyproject.toml", "constraints.txt", "CHANGELOG.md")


def commands(
    inner: click.Command, path: tuple[str, ...] = ("indexer",)
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, inner
    for name, one in getattr(inner, "commands", {}).items():
        yield from commands(one, (*path, name))


def write_pages(folder: Path) -> list[Path]:
    """A man page of every command, with its examples."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    known = list(commands(command))
    for _, one in known:
        one.short_help = one.get_short_help_str(200)  # click-man would cut it
    write_man_pages("indexer", command, version=version("lending-indexer"), target_dir=str(folder))
    for path, one in known:
        page = folder / f"{'-'.join(path)}.1"
        text = "".join(line for line in page.read_text().splitlines(keepends=True) if line != "\b\n")
        lines = [line.strip() for line in (one.epilog or "").splitlines() if line.startswith("  ")]
        if lines:
            shown = "\n".join(line.replace("\\", "\\e").replace("'", "\\(aq") for line in lines)
            text = f"{text.rstrip()}\n.SH EXAMPLES\n.nf\n{shown}\n.fi\n"
        page.write_text(text)
    return sorted(folder.glob("*.1"))


def said(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """What a program prints; its errors go to ours."""
    done = subprocess.run(
        [str(one) for one in arguments], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **environment} if environment else None,
    )  # fmt: skip
    return done.stdout


def built() -> tuple[Path, Path]:
    """Wheel and sdist, the wheel made from the sdist as pip would make it."""
    write_pages(MAN)
    shutil.rmtree(DIST, ignore_errors=True)
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
    print(said(sys.executable, "-m", "build", "--quiet", "--outdir", DIST, ROOT), end="")
    print(said(sys.executable, "-m", "twine", "check", "--strict", *DIST.iterdir()), end="")
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    return wheel, sdist


def check_lists(wheel: Path, sdist: Path) -> None:
    """Every file of the three packages is in both, with the man pages and what runs it; nothing else is in the wheel."""
    tracked = said("git", "ls-files", "indexer", "protocols", "abis", "extras", cwd=ROOT).split()
    pages = [page.name for page in MAN.glob("*.1")]
    with tarfile.open(sdist) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    code = {name for name in tracked if not name.startswith("extras/")}
    extras = {name.partition("/")[2] for name in tracked if name.startswith("extras/")}
    data = f"{'-'.join(wheel.name.split('-')[:2])}.data/data/share"
    shared = {f"{data}/man/man1/{name}" for name in pages} | {f"{data}/lending-indexer/{name}" for name in extras}
    lacking = [*sorted({*tracked, *BESIDE, *(f"man/{name}" for name in pages)} - source)]
    assert not lacking, f"the sdist lacks {lacking}"
    found = {name for name in inside if ".dist-info/" not in name}
    assert found == code | shared, f"the wheel differs by {sorted(found ^ (code | shared))}"
    print(f"{len(code)} files of code, {len(pages)} man pages, {len(extras)} extras in both")


def newest() -> list[str]:
    """This Python, and the newest on PATH if that is another."""
    for minor in range(20, sys.version_info.minor, -1):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", ""], check=False, capture_output=True).returncode == 0:
            return [sys.executable, found]
    return [sys.executable]


def check_installed(archive: Path, python: str, folder: Path) -> None:
    """In a clean environment and an empty home, the command knows its protocols and lists the demo."""
    said(python, "-m", "venv", folder)
    binary = folder / "bin"
    said(binary / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", archive)
    said(binary / "python", "-m", "pip", "check")
    home = folder / "home"
    home.mkdir()
    clean = ["env", "-i", f"HOME={home}", f"PATH={binary}:/usr/bin:/bin"]
    listed = said(*clean, "indexer", "protocols", "--chain", "mainnet", "--csv", cwd=home)
    assert "aave-v3-core" in listed, listed
    said(*clean, "indexer", "demo", cwd=home)
    check_tutorial(binary / "python", home)
    pages = list((folder / "share" / "man" / "man1").glob("indexer*.1"))
    assert len(pages) > 20, pages
    print(f"{archive.name} works on {said(binary / 'python', '--version').strip()}")


def check_tutorial(python: Path, home: Path) -> None:
    """The tutorial's commands print what the page says, in a folder that knows nothing of the sources."""
    told = [
        pair for block in blocks(DOCS / "tutorial.md") if block.kind == "console" for pair in page_commands(block.text)
    ]
    environment = {"HOME": str(home), "PATH": f"{python.parent}:/usr/bin:/bin", "TERM": "dumb", "LANG": "C.UTF-8"}
    printed = run([line for line, _ in told], python, home / "indexer-demo", environment)
    assert len(printed) == len(told) > 5
    for (line, expected), output in zip(told, printed, strict=True):
        assert says(expected, output), f"$ {line}\n{output}"


def main() -> None:
    if sys.argv[1:2] == ["man"]:
        print(f"{len(write_pages(Path(sys.argv[2])))} pages")
        return
    wheel, sdist = built()
    check_lists(wheel, sdist)
    for python in newest():
        for archive in (wheel, sdist):
            with tempfile.TemporaryDirectory() as folder:
                check_installed(archive, python, Path(folder) / "venv")


if __name__ == "__main__":
    main()
