"""The pages for people, and the blocks of commands and code in them."""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.screen import terminal

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, its text, and where it stands."""

    kind: str
    text: str
    where: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(found[1], found[2], f"{page.relative_to(ROOT)}:{line}")


WIDTH = 200
#: Runs commands one after the other, those of the indexer alone in this process and those that need a shell in one. What a
#: pipe writes on stderr comes before or after its output, as it happens, and is left out.
CHILD = """
import json, re, shlex, subprocess, sys
from indexer.cli.main import main
for line in json.loads(sys.argv[1]):
    for stream in (sys.stderr, sys.stdout):
        stream.flush()
    print('\\x1e', flush=True)
    words = shlex.split(line)
    if words[0] != 'indexer' or re.search('[|&;<>$`]', re.sub('\\'[^\\']*\\'|"[^"$`]*"', '', line)):
        subprocess.run(['bash', '-c', line], stderr=subprocess.DEVNULL)
        continue
    try:
        main(words[1:], prog_name='indexer')
    except SystemExit:
        pass
"""
#: how old something is depends on when the page is read
AGE = re.compile(r"\b[\d,.]+ (days|h|min|s) (old|ago)\b")


def commands(text: str) -> Iterator[tuple[str, str]]:
    """(command, what it prints) of a console block; a command goes on while a quotation is open, or after a backslash."""
    lines = text.splitlines()
    while lines:
        line = lines.pop(0)
        assert line.startswith("$ "), line
        command = line[2:]
        while command.endswith("\\") or unfinished(command):
            command += "\n" + lines.pop(0)
        shown = []
        while lines and not lines[0].startswith("$ "):
            shown.append(lines.pop(0))
        yield command, "\n".join(shown)


def unfinished(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return True
    return False


def run(commands: Sequence[str], python: str | Path, folder: Path, environment: dict[str, str]) -> list[str]:
    """What each command prints on a terminal, run one after the other by that Python."""
    printed = terminal([str(python), "-c", CHILD, json.dumps([*commands])], folder, environment, WIDTH)
    return printed.decode().replace("\r\n", "\n").split("\x1e\n")[1:]


def says(expected: str, output: str) -> bool:
    """Whether a command printed what a page says; a line `...` stands for any number of lines."""
    parts = re.split(r"^\.\.\.\n", AGE.sub("AGE", f"{expected}\n"), flags=re.MULTILINE)
    return re.fullmatch(r"(?:.*\n)*?".join(map(re.escape, parts)), AGE.sub("AGE", output) or "\n") is not None
