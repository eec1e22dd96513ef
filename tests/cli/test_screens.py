"""What every command looks like on terminals of 80, 120 and 200 columns, light, dark and plain, and without one.

Each pane is kept as a text file; the tests say where. A terminal breaks a line that is too long wherever its last column
is, so nothing may reach beyond it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from indexer.cli.main import main
from indexer.store.store import Store
from tests.backtest.files import vaults, walks, write_ilk, write_prices
from tests.cli.test_help import commands
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import config_toml
from tests.recorded import recorded_folder
from tests.screen import terminal

pytestmark = pytest.mark.slow

STRANGER = "0x" + "12" * 20
MARK = "\x1e"
#: runs each command as a shell would, in one process; those that go on until somebody interrupts them, for a second
CHILD = """
import json, os, signal, sys, threading
from indexer.cli.main import main
for arguments in json.loads(sys.argv[1]):
    for stream in (sys.stderr, sys.stdout):
        stream.flush()
    print('\\x1e', flush=True)
    stop = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    try:
        if '--follow' in arguments or arguments == ['watch', 'run', '--chain', 'devnet']:
            stop.start()
        main(arguments, prog_name='indexer')
    except (SystemExit, KeyboardInterrupt):
        stop.cancel()
"""
WIDTHS = (80, 120, 200)
#: what terminals tell of their colours, and a user who wants none
LOOKS = {"dark": {"COLORFGBG": "15;0"}, "light": {"COLORFGBG": "0;15"}, "no-color": {"NO_COLOR": "1"}}
#: what `completion` prints is a script, for a shell and not for people
SCRIPTS = {"completion"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six markets as a sync recorded them, with a watch list."""
    folder = recorded_folder(tmp_path_factory.mktemp("screens"))
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
    closes = walks(200 * 24)
    write_ilk(write_prices(folder / "foresight", closes), vaults(closes["ETH"], count=20))
    return folder


@pytest.fixture(scope="module")
def market(needs_node: None) -> Iterator[AaveV3]:
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.6")
        market.populate(seed=1, users=8)
        yield market


def living(market: AaveV3, folder: Path) -> Path:
    """A folder before the first sync of that market, with lists to import."""
    folder.mkdir(parents=True)
    (folder / "indexer.toml").write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    (folder / "wallets.csv").write_text(f"address,name\n{max(market.borrowers)},the last one\n{STRANGER},nobody\n")
    return folder


def asking(market: AaveV3) -> dict[str, list[str]]:
    """By name, the arguments of every command that asks a node or changes the file, in the order they are used."""
    who, chain = min(market.borrowers), ["--chain", "devnet"]
    return {
        "sync-dry-run": ["sync", *chain, "--dry-run"],
        "sync": ["sync", *chain],
        "sync-again": ["sync", *chain],
        "sync-supplies": ["sync", *chain, "--supplies"],
        "sync-liquidations": ["sync", *chain, "--liquidations", "--since", "400d"],
        "sync-prices": ["sync", *chain, "--prices"],
        "oracles": ["oracles"],
        "volatility": ["volatility"],
        "sync-of-nothing": ["sync", *chain, "--deployment", "aave-v3-cor"],
        "verify": ["verify", *chain, "--all"],
        "show-live": ["show", "--live", *chain, who],
        "show-live-stranger": ["show", "--live", *chain, STRANGER],
        "watch-add": ["watch", "add", who, "--label", "the one who is watched", "--below", "1.3", "--group", "family"],
        "watch-add-price": ["watch", "add", "--price", "ETH<2000"],
        "watch-add-wrong": ["watch", "add", who[:-1]],
        "watch-import": ["watch", "import", "wallets.csv"],
        "watch-check": ["watch", "check", *chain],
        "watch-run": ["watch", "run", *chain],
        "watch-list-of-three": ["watch", "list"],
        "watch-remove": ["watch", "remove", who],
        "sync-follow": ["sync", *chain, "--follow"],
        "doctor": ["doctor", *chain],
        "init": ["--config", "first.toml", "init", *chain],
        "init-again": ["init", *chain],
        "demo": ["demo", "sample"],
        "demo-again": ["demo", "sample"],
        "merge-of-the-same": ["merge", "indexer.db", "./indexer.db", "--into", "all.db"],
        "accounts-export": ["accounts", "export", "accounts.csv"],
        "accounts-import": ["accounts", "import", "accounts.csv"],
    }


def screens() -> dict[str, list[str]]:
    """By name, the arguments of every command that reads the file, and every help."""
    found = {
        "at-risk": ["at-risk"],
        "at-risk-below": ["at-risk", "--below", "3"],
        "backtest": ["backtest"],
        "backtest-of-files": ["backtest", "--data", "foresight", "--from", "2022-07-01", "--paths", "100"],
        "completion": ["completion", "bash"],
        "help-command": ["help", "watch", "add"],
        "export-positions": ["export", "positions"],
        "export-wallets": ["export", "wallets"],
        "export-balances": ["export", "balances"],
        "export-markets": ["export", "markets"],
        "forecast": ["forecast", "--paths", "100"],
        "forecast-wallet": ["forecast", "wallet 0", "--paths", "100"],
        "forecast-book": ["forecast", "book", "--paths", "100"],
        "liquidations": ["liquidations", "--since", "400d"],
        "levels": ["levels", "WETH"],
        "movements": ["movements"],
        "schema": ["schema"],
        "schema-of-a-table": ["schema", "positions"],
        "opportunities": ["opportunities"],
        "oracles": ["oracles"],
        "oracles-of-nothing": ["oracles", "NOTHING"],
        "serve-refused": ["serve", "--bind", "0.0.0.0"],
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
        "volatility": ["volatility"],
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


def raw(folder: Path, asked: dict[str, list[str]], width: int | None, **environment: str) -> dict[str, str]:
    """By name, everything that reached the terminal, or the pipe where `width` is None."""
    command = [sys.executable, "-c", CHILD, json.dumps([*asked.values()])]
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color", "XDG_CONFIG_HOME": str(folder), **environment}
    if width is None:
        out = subprocess.run(
            command, cwd=folder, env=env, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ).stdout
    else:
        out = terminal(command, folder, env, width)
    parts = out.decode().replace("\r\n", "\n").split(f"{MARK}\n")[1:]
    return dict(zip(asked, parts, strict=True))


@cache
def shown(folder: Path, width: int, look: str) -> dict[str, str]:
    """What the commands that read the file print; help, which has no colours, of one look."""
    return raw(folder, {n: a for n, a in screens().items() if look == "dark" or not is_help(n)}, width, **LOOKS[look])


def is_help(name: str) -> bool:
    return name == "help" or name.startswith("help-")


def kept(folder: Path, kind: str, texts: dict[str, str], width: int) -> dict[str, Pane]:
    """Each pane, written to a file; nothing in it may be wider than the terminal, or an accident."""
    place = folder / "panes" / kind
    place.mkdir(parents=True, exist_ok=True)
    panes, wrapped = {}, {}
    for name, text in texts.items():
        panes[name] = pane = Pane(width)
        pane.feed(text)
        (place / f"{name}.txt").write_text("\n".join(line.rstrip() for line in pane.lines))
        assert "Traceback" not in text, name
        assert "unforeseen" not in text, name
        if pane.wrapped and name not in SCRIPTS:
            wrapped[name] = pane.wrapped[0]
    print(f"panes are in {place}")
    assert wrapped == {}
    return panes


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_terminal(folder: Path, width: int, look: str) -> None:
    panes = kept(folder, f"{width}-{look}", shown(folder, width, look), width)
    assert all(any(line.strip() for line in pane.lines) for pane in panes.values())
    assert [line for line in panes["backtest"].lines if line][2:] == [
        "Nothing to judge",
        "no forecasts in that time: `indexer forecast` makes them",
    ]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_of_a_command_that_asks_a_node_is_wider(market: AaveV3, tmp_path: Path, width: int, look: str) -> None:
    with market.rewound():
        texts = raw(living(market, tmp_path / "living"), asking(market), width, **LOOKS[look])
    panes = kept(tmp_path, f"{width}-{look}", texts, width)
    assert all(any(line.strip() for line in pane.lines) for pane in panes.values())
    styles_fit(texts, look)


def test_every_command_has_a_screen(market: AaveV3) -> None:
    arguments = [*asking(market).values(), *(words for name, words in screens().items() if "--help" not in words)]
    for path, command in commands():
        if path and not hasattr(command, "commands"):
            assert any(tuple(words[: len(path)]) == path for words in arguments), path


STYLE = re.compile(r"\x1b\[([0-9;]*)m")
#: colours of the terminal's own palette that are legible on white and on black, and what ends them
LEGIBLE = {"0", "1", "2", "1;31", "33"}
AGE = re.compile(r"\b[\d,.]+ (days|h|min|s)\b")


def styles_fit(texts: dict[str, str], look: str) -> None:
    """Tables and lines have legible styles only, or none; bars, which go away again, have rich's own."""
    for name, text in texts.items():
        lines = [line for line in text.split("\n") if "━" not in line]
        allowed = {"0", "1", "2"} if look == "no-color" else LEGIBLE
        assert {code for line in lines for code in STYLE.findall(line)} <= allowed, name


@pytest.mark.parametrize("width", WIDTHS)
def test_light_dark_and_plain_say_the_same_in_the_terminals_own_colours(folder: Path, width: int) -> None:
    """Colour says nothing that a word does not."""
    said = {}
    for look in LOOKS:
        texts = {name: text for name, text in shown(folder, width, look).items() if not is_help(name)}
        styles_fit(texts, look)
        panes = kept(folder, f"{width}-{look}", texts, width)
        said[look] = {name: AGE.sub("AGE", "\n".join(pane.lines)) for name, pane in panes.items()}
    assert said["light"] == said["dark"] == said["no-color"]
    assert "\x1b[1;31mliquidatable\x1b[0m" in shown(folder, width, "light")["at-risk"]
    assert "\x1b[33mat-risk\x1b[0m" in shown(folder, width, "light")["at-risk"]
    assert "liquidatable" in said["no-color"]["at-risk"]
    assert "at-risk" in said["no-color"]["at-risk"]


def test_an_amount_is_never_shown_without_its_token(tmp_path: Path) -> None:
    """Of the sample that `demo` writes, where somebody was liquidated."""
    assert CliRunner().invoke(main, ["demo", str(tmp_path / "sample")]).exit_code == 0
    for width in WIDTHS:
        texts = raw(tmp_path / "sample", {name: [name] for name in ("liquidations", "opportunities")}, width)
        for name, pane in kept(tmp_path, f"{width}-sample", texts, width).items():
            last = next(number for number, line in enumerate(pane.lines) if line.startswith("deployment "))
            heading = "\n".join(pane.lines[: last + 1])
            assert "repaid" in heading.split(), name
            for amount, token in (("repaid", "debt_"), ("seized", "collateral_")):
                assert amount not in heading.split() or token in heading, (name, width, amount)


def test_a_terminal_that_is_dumb_gets_words_alone(folder: Path) -> None:
    names = ["at-risk", "show-together", "report-together", "watch-list", "simulate-together", "opportunities"]
    texts = raw(folder, {name: screens()[name] for name in names}, 80, TERM="dumb")
    kept(folder, "80-dumb", texts, 80)
    for name, text in texts.items():
        assert "\x1b" not in text, name
        assert text == text.lstrip("\n"), name
    assert "liquidatable" in texts["at-risk"]


def without_terminal(folder: Path, asked: dict[str, list[str]]) -> dict[str, str]:
    """What comes through a pipe, written to files."""
    texts = raw(folder, asked, None)
    place = folder / "panes" / "no-tty"
    place.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (place / f"{name}.txt").write_text(text)
        assert "\x1b" not in text, name
        assert "Traceback" not in text, name
        if name not in ("watch-check", "watch-run"):  # alerts are read on a phone
            assert not re.search(r"0x[0-9a-f]{4}\.\.", text), name
    return texts


def test_without_a_terminal_rows_are_whole_json(folder: Path) -> None:
    texts = without_terminal(folder, {name: words for name, words in screens().items() if not is_help(name)})
    for name, text in texts.items():
        if not name.startswith(
            ("report", "backtest", "query-error", "oracles-of-nothing", "serve", "columns", "schema", "completion")
        ):
            assert re.search(r"^\[", text, re.MULTILINE), name


def test_without_a_terminal_a_command_that_asks_a_node_prints_whole_lines(market: AaveV3, tmp_path: Path) -> None:
    with market.rewound():
        texts = without_terminal(living(market, tmp_path / "living"), asking(market))
    for name in ("sync-dry-run", "verify", "show-live", "watch-list-of-three"):
        assert re.search(r"^\[", texts[name], re.MULTILINE), name
