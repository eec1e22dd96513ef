"""Help: of every command, by either way; its examples run; and what a shell completes."""

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from indexer.cli.main import main
from indexer.store.store import Store
from tests.backtest.files import walks, write_prices
from tests.devnet import aave_v3
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import config_toml
from tests.forecast.past import fill
from tests.recorded import recorded_folder

WALLET = "0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503"


def commands(
    command: click.Command = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def examples() -> Iterator[tuple[str, str]]:
    """(command, example) of everything that any help gives."""
    for path, command in commands():
        for line in (command.epilog or "").replace("\\\n", "").splitlines():
            if line.strip().startswith("indexer "):
                yield " ".join(path), line.strip()


#: what asks a node of mainnet for a name, or sends to a service with somebody's secrets
ELSEWHERE = re.compile(r"\.eth\b|\$\{")
#: what asks a node
NODE = re.compile(r"indexer (sync|verify|doctor|show --live|watch (check|run)|serve --sync)\b")
#: what goes on until somebody interrupts it, and what it says when it is there
LASTING = {
    "indexer watch run": " block ",
    "indexer serve --sync": " block ",
    "indexer serve": "Open ",
    "indexer oracles --follow": '"state"',
}
RUN = [(path, line) for path, line in examples() if not ELSEWHERE.search(line)]


def lasting(line: str) -> str | None:
    """What an example that lasts says when it is there."""
    return next((told for begin, told in LASTING.items() if f"{line} ".startswith(f"{begin} ")), None)


EVERY = [path for path, _ in commands() if path and not hasattr(dict(commands())[path], "commands")]


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six markets as a sync recorded them, a watch list, and files to import: made once in each process."""
    path = recorded_folder(tmp_path_factory.mktemp("filled"))
    options = ["--config", str(path / "indexer.toml"), "--db", str(path / "indexer.db")]
    fill(path / "indexer.db", path / "indexer.toml", days=40)
    shutil.copyfile(path / "indexer.db", path / "mainnet.db")
    Store(path / "base.db").close()
    with sqlite3.connect(path / "indexer.db") as conn:
        wallet = conn.execute(
            "select wallet from positions where status = 'healthy' order by debt_usd desc"
        ).fetchone()[0]
    for name in ("wallets.csv", "wallets.txt"):
        (path / name).write_text(f"{wallet}\n")
    added = CliRunner().invoke(main, [*options, "watch", "add", wallet, "--label", "treasury", "--group", "family"])
    assert added.exit_code == 0, added.output
    (path / "wallet").write_text(wallet)
    write_prices(path / "foresight", walks(200 * 24))
    given = ["accounts", "export", str(path / "borrowers.csv"), "--deployment", "aave-v3-6-devnet"]
    assert CliRunner().invoke(main, [*options, *given]).exit_code == 0
    return path


@pytest.fixture
def folder(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return shutil.copytree(filled, tmp_path, dirs_exist_ok=True)


def test_every_command_has_an_example_that_is_run() -> None:
    assert set(EVERY) - {tuple(path.split()) for path, _ in RUN} == set()


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for _, line in RUN if not NODE.search(line) and not lasting(line)])
def test_an_example_works(folder: Path, line: str) -> None:
    wallet = (folder / "wallet").read_text()
    written = line.replace(WALLET, wallet).replace("--since 2026-01-31", "--since 2024-01-31")
    written = written.replace("aave-v3-core", "aave-v3-6-devnet")
    if line == "indexer init":
        (folder / "indexer.toml").unlink()
    done = subprocess.run(["sh", "-c", written], capture_output=True, text=True, check=False, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    for flag in ("--output", "--chart", ">"):
        if flag in shlex.split(line):
            name = shlex.split(line)[shlex.split(line).index(flag) + 1]
            assert (folder / name).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for _, line in RUN if not NODE.search(line) and lasting(line)])
def test_an_example_that_lasts_ends_when_it_is_interrupted(folder: Path, line: str) -> None:
    (folder / "token").touch(0o600)
    (folder / "token").write_text(40 * "x")
    interrupted(f"{line} --port 0" if "serve" in line else line, folder, lasting(line) or "")


def interrupted(line: str, folder: Path, told: str) -> None:
    """Runs a command, interrupts it when it has said that, and sees it end well."""
    process = subprocess.Popen(
        shlex.split(line), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    out = ""
    while told not in out:
        said = process.stdout.readline()
        assert said, (line, out)
        out += said
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 0, (line, out + rest)


@pytest.fixture(scope="module")
def market(needs_node: None) -> Iterator[Any]:
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.6")
        market.populate(seed=1, users=6)
        yield market


def test_the_examples_that_ask_a_node_work_on_one(market: Any, folder: Path) -> None:
    """As they stand, but on the local node's chain."""
    (folder / "indexer.db").unlink()
    (folder / "indexer.toml").write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    user = min(market.borrowers)
    lines = ["indexer sync && indexer at-risk", *(line for _, line in RUN if NODE.search(line))]
    lines = [line for line in dict.fromkeys(lines) if "accounts" not in line]
    lines.insert(0, f"indexer watch add {WALLET}")
    (of_accounts,) = {line for _, line in RUN if line.startswith("indexer accounts import") and NODE.search(line)}
    lines += ["indexer accounts export borrowers.csv --deployment aave-v3-core", of_accounts]
    assert len(lines) > 8
    for line in lines:
        written = line.replace(WALLET, user).replace("http://127.0.0.1:8545", market.node.url)
        written = written.replace("aave-v3-core", market.name)
        written = re.sub(NODE.pattern, r"\g<0> --chain devnet", written)
        written = written.replace("watch check", "watch check --max-age 9999d")  # the chain's clock stands long ago
        if lasting(line):
            interrupted(f"{written} --port 0" if "serve" in line else written, folder, lasting(line) or "")
            continue
        done = subprocess.run(
            ["sh", "-c", written], cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (written, done.stdout, done.stderr)


@pytest.mark.parametrize("path", [path for path, _ in commands() if path])
def test_help_of_a_command_by_either_way_is_the_same(path: tuple[str, ...]) -> None:
    one = CliRunner().invoke(main, ["help", *path], prog_name="indexer")
    other = CliRunner().invoke(main, [*path, "--help"], prog_name="indexer")
    assert (one.exit_code, one.stdout) == (0, other.stdout)


def test_help_of_nothing_is_that_of_the_program_and_of_no_command_an_error() -> None:
    assert CliRunner().invoke(main, ["help"], prog_name="indexer").stdout == CliRunner().invoke(main, ["--help"], prog_name="indexer").stdout  # fmt: skip
    for words in (["shwo"], ["watch", "shwo"], ["show", "at-risk"]):
        result = CliRunner().invoke(main, ["help", *words])
        assert (result.exit_code, result.stdout) == (2, "")
        assert "has no command" in result.stderr


@pytest.mark.parametrize("path", [path for path, command in commands() if hasattr(command, "commands")])
def test_a_list_of_commands_cuts_no_sentence(path: tuple[str, ...]) -> None:
    """At 80 columns, as click writes it where there is no terminal."""
    listed = CliRunner().invoke(main, [*path, "--help"], prog_name="indexer").stdout.partition("Commands:\n")[2]
    lines = listed.partition("\n\n")[0].splitlines()
    assert len(lines) == len(dict(commands())[path].commands)  # type: ignore[attr-defined]
    assert [line for line in lines if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_the_one_that_click_gives_it(shell: str, folder: Path) -> None:
    """By the variable that shells have always been told of."""
    program = Path(sys.executable).with_name("indexer")
    said = CliRunner().invoke(main, ["completion", shell], prog_name="indexer")
    asked = {**os.environ, "_INDEXER_COMPLETE": f"{shell}_source"}
    done = subprocess.run([program], cwd=folder, env=asked, capture_output=True, text=True, check=True)
    assert said.exit_code == 0
    assert said.stdout.rstrip("\n") == done.stdout.rstrip("\n")
    assert "indexer" in said.stdout


@pytest.mark.slow
def test_bash_completes_after_the_example(folder: Path) -> None:
    """A real bash reads the script and asks for what may follow `indexer show tr`."""
    script = """
        eval "$(indexer completion bash)"
        COMP_WORDS=(indexer show tr) COMP_CWORD=2
        "$(complete -p indexer | sed 's/.*-F \\([^ ]*\\).*/\\1/')" indexer
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("treasury\n", "")


def test_another_shell_is_refused_with_those_that_there_are() -> None:
    result = CliRunner().invoke(main, ["completion", "csh"])
    assert result.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in result.stderr


def completed(words: str, folder: Path) -> list[str]:
    """What a shell is offered behind these words."""
    asked = {"_INDEXER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = subprocess.run(
        [Path(sys.executable).with_name("indexer")], cwd=folder, env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.stderr == ""
    return [line.removeprefix("plain,") for line in done.stdout.splitlines() if line]


@pytest.mark.slow
def test_a_shell_completes_names_that_are_known(folder: Path) -> None:
    names = {row["deployment"] for row in json.loads(CliRunner().invoke(main, ["status", "--json"]).stdout)}
    assert names <= set(completed("indexer simulate --deployment ", folder))
    assert "devnet" in completed("indexer sync --chain dev", folder)
    assert set(completed("indexer simulate --protocol com", folder)) == {"compound-v2", "compound-v3"}
    assert completed("indexer show tr", folder) == ["treasury"]
    assert completed("indexer report @", folder) == ["@family"]
    assert completed("indexer watch remove 0x", folder) == [(folder / "wallet").read_text()]
    assert completed("indexer help si", folder) == ["simulate"]


@pytest.mark.slow
def test_without_anything_to_read_there_is_nothing_to_complete_and_no_word(tmp_path: Path) -> None:
    assert completed("indexer show ", tmp_path) == []
    (tmp_path / "indexer.toml").write_text("[chains")
    (tmp_path / "indexer.db").write_text("no database")
    assert completed("indexer show ", tmp_path) == []
    assert completed("indexer sync --chain ", tmp_path) == []
