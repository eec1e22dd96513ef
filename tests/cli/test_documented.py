"""Every command has help with an example, and every command and flag is in the documentation."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.cli.main import main

ROOT = Path(__file__).parents[2]


COMMANDS = sorted(main.commands)


def test_without_a_command_the_help_is_shown() -> None:
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 0
    assert "Commands:" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert re.search(rf"Examples?:\n +indexer {command}", result.stdout)


#: the pages that people write; the reference of commands is made from the commands themselves
WRITTEN = "\n".join(
    path.read_text()
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    if not path.name.startswith("reference")
)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "help"])
def test_every_command_is_documented(command: str) -> None:
    assert f"indexer {command}" in WRITTEN


def test_every_flag_of_its_own_is_documented() -> None:
    text = WRITTEN + (ROOT / "docs/reference-commands.md").read_text()
    flags = {
        option
        for command in main.commands.values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }
    assert sorted(flag for flag in flags if flag not in text) == []
