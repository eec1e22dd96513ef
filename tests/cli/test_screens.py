"""What every command looks like on terminals of 80, 120 and 200 columns, light, dark and plain, and without one.

Each pane is kept as a text file; the tests say where. A terminal breaks a line that is too long wherever its last column
is, so nothing may reach beyond it.
"""

import fcntl
import gzip
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from indexer.cli.main import main
from indexer.store.store import Store
from tests.cli.test_help import commands

OLDER = Path(__file__).parents[1] / "store" / "older"
STRANGER = "0x" + "12" * 20
MARK = "\x1e"
#: runs each command as a shell would, in one process
CHILD = """
import json, sys
from indexer.cli.main import main
for arguments in json.loads(sys.argv[1]):
    for stream in (sys.stderr, sys.stdout):
        stream.flush()
    print('\\x1e', flush=True)
    try:
        main(arguments, prog_name='indexer')
    except SystemExit:
        pass
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six markets as a sync recorded them, with a watch list."""
    folder = tmp_path_factory.mktemp("screens")
    (folder / "indexer.db").write_bytes(gzip.decompress((OLDER / "indexer.db.gz").read_bytes()))
    (folder / "indexer.toml").write_bytes((OLDER / "indexer.toml").read_bytes())
    options = ["--config", str(folder / "indexer.toml"), "--db", str(folder / "indexer.db")]
    with Store(folder / "indexer.db") as store:
        found = store.conn.execute(
            "select wallet from positions where status in ('at-risk', 'liquidatable', 'healthy') and debt_usd > 0 "
            "group by protocol, status"
        ).fetchall()
    for number, (wallet,) in enumerate(found):
        added = CliRunner().invoke(
            main, [*options, "watch", "add", wallet, "--label", f"wallet {number}", "--group", "all"]
        )
        assert added.exit_code == 0, added.output
    assert CliRunner().invoke(main, [*options, "watch", "add", "--price", "ETH<2000"]).exit_code == 0
    return folder


def screens() -> dict[str, list[str]]:
    """By name, the arguments of every command that reads the file, and every help."""
    found = {
        "at-risk": ["at-risk"],
        "at-risk-below": ["at-risk", "--below", "3"],
        "export-positions": ["export", "positions"],
        "export-wallets": ["export", "wallets"],
        "export-balances": ["export", "balances"],
        "export-markets": ["export", "markets"],
        "liquidations": ["liquidations", "--since", "400d"],
        "levels": ["levels", "WETH"],
        "movements": ["movements"],
        "schema": ["schema"],
        "schema-of-a-table": ["schema", "positions"],
        "opportunities": ["opportunities"],
        "protocols": ["protocols"],
        "query": ["query", "select * from positions limit 3"],
        "query-of-text": ["query", "select deployment, addresses, options, note from deployments"],
        "query-error": ["query", "select nothing from nowhere where everything is longer than the terminal is wide"],
        "report-book": ["report", "book"],
        "report": ["report", "wallet 0"],
        "report-together": ["report", "@all"],
        "show": ["show", "wallet 0"],
        "show-together": ["show", "@all"],
        "show-stranger": ["show", STRANGER],
        "simulate": ["simulate", "--shock", "eth=-30%"],
        "simulate-together": ["simulate", "@all", "--days", "30"],
        "simulate-sweep": ["simulate", "--sweep", "eth=0..-60%"],
        "status": ["status"],
        "top": ["top"],
        "columns": [
            "at-risk",
            "--columns",
            "account,block_hash,status,health_factor,debt_value_raw,collateral_value_raw",
        ],
        "watch-list": ["watch", "list"],
        "watch-list-prices": ["watch", "list", "--prices"],
        "help": [],
    }
    return found | {"help-" + "-".join(path): [*path, "--help"] for path, _ in commands() if path}


class Pane:
    """As much of a terminal as these commands use: lines, and the cursor on them."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.lines: list[str] = [""]
        self.row = 0
        self.column = 0
        self.wrapped: list[str] = []

    def feed(self, text: str) -> None:
        for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if piece == "\n":
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif piece == "\r":
                self.column = 0
            elif piece.startswith("\x1b["):
                self.obey(piece)
            else:
                line = self.lines[self.row]
                self.lines[self.row] = line[: self.column].ljust(self.column) + piece + line[self.column + len(piece) :]
                self.column += len(piece)
                if cell_len(self.lines[self.row].rstrip()) > self.width:
                    self.wrapped.append(self.lines[self.row])

    def obey(self, sequence: str) -> None:
        match sequence[-1]:
            case "A":
                self.row = max(self.row - int(sequence[2:-1] or 1), 0)
            case "K":
                self.lines[self.row] = ""
            case "m" | "h" | "l":
                pass
            case _:
                raise AssertionError(f"an unknown sequence {sequence!r}")


def raw(folder: Path, names: Sequence[str], width: int | None, **environment: str) -> dict[str, str]:
    """By name, everything that reached the terminal, or the pipe where `width` is None."""
    arguments = [screens()[name] for name in names]
    command = [sys.executable, "-c", CHILD, json.dumps(arguments)]
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color", "XDG_CONFIG_HOME": str(folder), **environment}
    if width is None:
        out = subprocess.run(
            command, cwd=folder, env=env, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ).stdout
    else:
        out = terminal(command, folder, env, width)
    parts = out.decode().replace("\r\n", "\n").split(f"{MARK}\n")[1:]
    return dict(zip(names, parts, strict=True))


def terminal(command: Sequence[str], folder: Path, env: dict[str, str], width: int) -> bytes:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    with subprocess.Popen(command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        out = bytearray()
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says so at the end
                break
            if not piece:
                break
            out += piece
        assert process.wait(60) == 0
    os.close(ours)
    return bytes(out)


def kept(folder: Path, kind: str, texts: dict[str, str], width: int) -> Iterator[tuple[str, Pane]]:
    """Each pane, written to a file."""
    place = folder / "panes" / kind
    place.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        pane = Pane(width)
        pane.feed(text)
        (place / f"{name}.txt").write_text("\n".join(line.rstrip() for line in pane.lines))
        yield name, pane
    print(f"panes are in {place}")


@pytest.mark.parametrize("width", [80, 120, 200])
def test_nothing_is_wider_than_the_terminal(folder: Path, width: int) -> None:
    wrapped = {}
    for name, pane in kept(folder, f"{width}-dark", raw(folder, [*screens()], width, COLORFGBG="15;0"), width):
        assert "Traceback" not in "\n".join(pane.lines)
        if pane.wrapped:
            wrapped[name] = pane.wrapped[0]
    assert wrapped == {}


def test_every_command_has_a_screen() -> None:
    """But those that ask a node: their tables and lines are made by the same code."""
    asking = {("sync",), ("verify",), ("watch", "check"), ("watch", "run"), ("watch", "add"), ("watch", "remove"), ("watch", "import"), ("help",), ("accounts", "export"), ("accounts", "import")}  # fmt: skip
    shown = [arguments for name, arguments in screens().items() if not name.startswith("help")]
    for path, command in commands():
        if path and not hasattr(command, "commands") and path not in asking:
            assert any(tuple(arguments[: len(path)]) == path for arguments in shown), path


STYLE = re.compile(r"\x1b\[([0-9;]*)m")
LISTS = ["at-risk", "show-together", "report-together", "watch-list", "simulate-together"]
#: colours of the terminal's own palette that are legible on white and on black, and what ends them
LEGIBLE = {"0", "1", "2", "1;31", "33"}


def test_light_and_dark_are_the_terminals_own_colours(folder: Path) -> None:
    dark = raw(folder, LISTS, 120, COLORFGBG="15;0")
    light = raw(folder, LISTS, 120, COLORFGBG="0;15")
    list(kept(folder, "120-light", light, 120))
    for name in LISTS:
        tables = [line for line in light[name].split("\n") if "━" not in line]
        assert {code for line in tables for code in STYLE.findall(line)} <= LEGIBLE, name
        assert set(tables) <= set(dark[name].split("\n")), name
    assert "\x1b[1;31mliquidatable\x1b[0m" in light["at-risk"]
    assert "\x1b[33mat-risk\x1b[0m" in light["at-risk"]


@pytest.mark.parametrize(("kind", "environment"), [("no-color", {"NO_COLOR": "1"}), ("dumb", {"TERM": "dumb"})])
def test_a_status_is_a_word_where_there_are_no_colours(folder: Path, kind: str, environment: dict[str, str]) -> None:
    texts = raw(folder, LISTS, 80, **environment)
    for name, pane in kept(folder, f"80-{kind}", texts, 80):
        tables = "\n".join(line for line in texts[name].split("\n") if "━" not in line)
        assert not re.search(r"\x1b\[[0-9;]*3\dm", tables), name
        assert pane.wrapped == []
    assert "liquidatable" in texts["at-risk"]
    assert "at-risk" in texts["at-risk"]


def test_without_a_terminal_rows_are_whole_json(folder: Path) -> None:
    names = [name for name in screens() if not name.startswith(("report", "help", "query-error", "columns", "schema"))]
    for name, text in raw(folder, names, None).items():
        place = folder / "panes" / "no-tty"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.txt").write_text(text)
        assert "\x1b" not in text
        assert not re.search(r"0x[0-9a-f]{4}\.\.", text), name
        (start,) = re.findall(r"^\[", text, re.MULTILINE) or [None]
        assert start, name
