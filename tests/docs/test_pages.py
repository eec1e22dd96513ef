"""The pages for people say what is so: commands print what stands below them, generated blocks are current, links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.cli.main import main
from indexer.schema.dictionary import dictionary
from tests.docs.pages import DOCS, PAGES, ROOT, blocks, commands, run, says
from tests.docs.screenshot import PICTURE, drawn

CONSOLE = [page for page in PAGES if any(block.kind == "console" for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", CONSOLE, ids=lambda page: page.stem)
def test_the_commands_of_a_page_print_what_it_says(page: Path, demo: Path, tmp_path: Path) -> None:
    """In a copy of the demo, on a terminal of 200 columns; a line `...` stands for any number of lines."""
    folder = tmp_path / "indexer-demo"
    shutil.copytree(demo, folder)
    told = [(block.where, *pair) for block in blocks(page) if block.kind == "console" for pair in commands(block.text)]
    unlike = ("_RPC_URL", "COLUMNS", "LINES", "_COLOR")
    environment = {name: value for name, value in os.environ.items() if not name.endswith(unlike)}
    environment |= {"TERM": "dumb", "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    printed = run([command for _, command, _ in told], sys.executable, folder, environment)
    for (where, command, expected), output in zip(told, printed, strict=True):
        assert says(expected, output), f"{where}: $ {command}\n{output}"


def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """(place, words) of the commands that ask a node or a service, in blocks marked `sh`."""
    for page in PAGES:
        for block in blocks(page):
            lines = block.text.replace("\\\n", " ").splitlines() if block.kind == "sh" else []
            for line in lines:
                yield from ((f"{block.where}: {line}", words) for words in indexers(line))


def indexers(line: str) -> Iterator[list[str]]:
    """The arguments of each `indexer` in a line for a shell."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    command: list[str] = []
    for word in [*words, ";"]:
        if word[0] in "|&;<>()" and set(word) <= set("|&;<>()"):
            if command[:1] == ["indexer"]:
                yield command[1:]
            command = []
        else:
            command.append(word)


def test_every_other_command_is_one_that_there_is() -> None:
    found = list(elsewhere())
    assert len(found) > 20
    for where, words in found:
        result = CliRunner().invoke(main, [*words, "--help"])
        assert result.exit_code == 0, f"{where}\n{result.output}"


@pytest.mark.slow
def test_generated_blocks_are_those_of_the_code() -> None:
    """`make docs` writes them, with the locked versions: another click words the usage of a command otherwise."""
    locked = re.search(r"^click==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert locked is not None
    if version("click") != locked[1]:
        pytest.skip(f"the blocks are generated with click {locked[1]}")
    pages = [page for page in PAGES if "[[[cog" in page.read_text()]
    assert len(pages) > 3
    done = subprocess.run(
        [Path(sys.executable).with_name("cog"), "--check", "--diff", "-I", ROOT, *pages], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_the_picture_is_what_a_terminal_shows() -> None:
    assert PICTURE.read_text() == drawn()


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


LINKING = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_there_are(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if ":" in path:
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


def test_the_readme_is_short_and_leads_everywhere() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.split()) < 900
    index = (DOCS / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_each_row_of_the_comparison_has_a_source_and_a_day() -> None:
    rows = [line for line in (DOCS / "compare.md").read_text().splitlines() if line.startswith("|")]
    head, _, *found = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    assert head[-2:] == ["source", "read"]
    assert len(found) >= 7
    for row in found:
        assert len(row) == len(head), row[0]
        assert re.match(r"(by its (documentation|maintainers)|run by us): .*\]\(", row[-2]), row[0]
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", row[-1]), row[0]


def test_every_question_is_answered_two_clicks_away() -> None:
    """The questions of docs/questions.md; each link leads to a heading that README, or a page that README links to, has."""
    text = (DOCS / "questions.md").read_text()
    answers = re.findall(r"^\d+\. .+?\]\(([^)#]+)#([^)]+)\)", text, re.MULTILINE)
    assert len(answers) >= 10
    near = set(re.findall(r"\]\(docs/([\w-]+\.md)", (ROOT / "README.md").read_text()))
    for page, anchor in answers:
        assert page in near, f"{page} is further than two clicks"
        assert anchor in anchors(DOCS / page)


def test_every_name_that_goes_is_listed_as_deprecated() -> None:
    (listed,) = re.findall(
        r"^### Deprecated\n(.*?)(?=^##)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE | re.DOTALL
    )
    for (table, column), new in dictionary().old.items():
        assert any(
            re.search(rf"`({table}\.)?{column}`", line) and table in line and new in line
            for line in listed.splitlines()
        )
