"""`make dist`: builds wheel and sdist with their man pages, checks them, and tries both in clean environments.

`python -m tests.dist man FOLDER` writes the man pages alone. The environments are of the Python that runs this and of the
newest that is on PATH; what they install comes from pip's index.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path

import click
from click_man.core import write_man_pages

from indexer.cli.main import main as command
from tests.docs.pages import DOCS, WIDTH, blocks, says
from tests.docs.pages import commands as page_commands
from tests.screen import terminal

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
    """In a clean environment and an empty home the command knows its protocols, and the first pages are so."""
    said(python, "-m", "venv", folder)
    binary = folder / "bin"
    said(binary / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", archive)
    said(binary / "python", "-m", "pip", "check")
    home = folder / "home"
    home.mkdir()
    clean = ["env", "-i", f"HOME={home}", f"PATH={binary}:/usr/bin:/bin"]
    listed = said(*clean, "indexer", "protocols", "--chain", "mainnet", "--csv", cwd=home)
    assert "aave-v3-core" in listed, listed
    typed = sum(check_page(page, binary, home) for page in (DOCS / "tutorial.md", ROOT / "README.md"))
    check_shell(binary, home)
    print(f"{archive.name} works on {said(binary / 'python', '--version').strip()}; {typed} commands of the pages")


#: what a line of a block needs, and all lines below it, that is not there: a chain, a graphical session, the sources, or pipx, which brought the command
ELSEWHERE = re.compile(r"indexer (sync|show --live|watch)|make |pipx |uv ")


def check_page(page: Path, binary: Path, home: Path) -> int:
    """The page's commands work as printed, typed into a shell of a new user who has the command and nothing of the sources.

    What stands below one is what it prints, on a terminal of 200 columns. Returns how many there were.
    """
    told: list[tuple[str, str | None]] = []
    for block in blocks(page):
        if block.kind == "console":
            told += page_commands(block.text)
        elif block.kind == "sh":
            here = takewhile(lambda line: not ELSEWHERE.search(line), block.text.splitlines())
            told += [(line, None) for line in here]
    folder = home / page.stem
    folder.mkdir()
    environment = {"HOME": str(home), "PATH": f"{binary}:/usr/bin:/bin", "TERM": "dumb", "LANG": "C.UTF-8"}
    # what a pipe writes on stderr comes before or after its output, as it happens
    typed = [f"{{ {line}\n}} 2>/dev/null" if " | " in line else line for line, _ in told]
    script = "\n".join(f"printf '\\036\\n'\n{line}\n[ $? = 0 ] || echo failed" for line in typed)
    shell = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in environment.items()), "bash", "--norc", "-c"]
    printed = terminal([*shell, script], folder, environment, WIDTH).decode().replace("\r\n", "\n").split("\x1e\n")[1:]
    assert len(printed) == len(told) > 0, printed
    for (line, expected), output in zip(told, printed, strict=True):
        right = not output.endswith("failed\n") if expected is None else says(expected, output)
        assert right, f"{page.name}: $ {line}\n{output}"
    return len(told)


def check_shell(binary: Path, home: Path) -> None:
    """A shell completes commands and names, and `man` finds a page of each command where there is one."""
    typed = {"_INDEXER_COMPLETE": "bash_complete", "COMP_WORDS": "indexer at-", "COMP_CWORD": "1"}
    clean = ["env", "-i", f"HOME={home}", f"PATH={binary}:/usr/bin:/bin"]
    completed = said(*clean, *(f"{name}={value}" for name, value in typed.items()), "indexer", cwd=home)
    assert "at-risk" in completed, completed
    said(*clean, "bash", "--norc", "-ec", 'eval "$(indexer completion bash)"; complete -p indexer', cwd=home)
    pages = binary.parent / "share" / "man"
    assert len(list((pages / "man1").glob("indexer*.1"))) > 20
    if shutil.which("man"):
        text = said(*clean, f"MANPATH={pages}", "MANPAGER=cat", "man", "indexer-at-risk", cwd=home)
        assert "risk of liquidation" in text, text


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
