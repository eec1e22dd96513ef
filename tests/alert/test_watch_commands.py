"""The commands `indexer watch`: lists of wallets, ENS names, and what is wrong with flags and files."""

import json
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from indexer.alert.watches import watches
from indexer.chain import connect
from indexer.chain.client import Chain
from indexer.cli.main import main
from indexer.jobs.watch import watch as watch_group
from indexer.jobs.watched import warn_of_moved_names
from indexer.store.store import Store
from indexer.terminal.options import Session
from tests.tiny_contracts import EOA

ADDRESS = "0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503"


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `indexer watch` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(connect, "Chain", lambda *a, **k: Chain(*a, **{**k, "attempts": 1}))
    return lambda *arguments: CliRunner().invoke(main, ["watch", *map(str, arguments)])


def one_line(result: Result, code: int) -> str:
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def listed(run: Run) -> dict[str, tuple[str | None, str]]:
    return {row["wallet"]: (row["label"], row["rules"]) for row in json.loads(run("list", "--json").stdout)}


@pytest.mark.parametrize("command", sorted(watch_group.commands))
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert re.search(rf"Examples?:\n +indexer watch {command}", result.stdout)


def test_without_a_command_there_is_the_help(run: Run) -> None:
    result = run()
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Commands:" in result.stdout


@pytest.mark.parametrize("arguments", [["run"], ["check"], ["remove", ADDRESS]])
def test_an_empty_database_says_what_to_do(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    assert "watch add" in one_line(run(*arguments), 1)
    assert list(tmp_path.glob("*.db")) == []
    result = run("list", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    assert "watch add" in result.stderr


def test_add_list_and_remove(run: Run) -> None:
    assert run("add", to_checksum_address(ADDRESS), "--label", "treasury", "--below", "1.2", "--below", "1.05", "--drop", "10%").exit_code == 0  # fmt: skip
    assert run("add", EOA).exit_code == 0
    assert listed(run) == {ADDRESS: ("treasury", "drop 10%, below 1.2, below 1.05"), EOA: (None, "below 1.1")}
    assert run("add", ADDRESS, "--below", "1.3").exit_code == 0
    assert listed(run)[ADDRESS] == ("treasury", "below 1.3")
    assert run("remove", "treasury").exit_code == 0
    assert listed(run) == {EOA: (None, "below 1.1")}
    assert "not watched" in one_line(run("remove", ADDRESS), 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["0x1234"],
        [to_checksum_address(ADDRESS).replace("F", "f", 1)],
        [ADDRESS, "--below", "0"],
        [ADDRESS, "--below", "low"],
        [ADDRESS, "--below", "nan"],
        [ADDRESS, "--drop", "100%"],
        [ADDRESS, "--drop", "-5"],
        ["somebody"],
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    one_line(run("add", *arguments), 2)
    assert list(tmp_path.glob("*.db")) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wallets.txt", f"# mine\n{ADDRESS}\n\n{EOA}\n"),
        ("wallets.csv", f"label,wallet,below,drop\ntreasury,{ADDRESS},1.2 1.05,\n,{EOA},,5%\n"),
        ("wallets.json", json.dumps([{"wallet": ADDRESS, "label": "treasury", "below": [1.2, "1.05"]}, EOA])),
        ("wallets", json.dumps([ADDRESS, EOA])),
        ("excel.csv", f"\ufeffAddress\n{ADDRESS}\n{EOA}\n"),
        ("semicolons.csv", f"wallet;label;below\n{ADDRESS};treasury;1.2 1.05\n{EOA};;\n"),
        ("named.csv", f"sep=;\nwallet;label;below\n{ADDRESS};treasury;1.2 1.05\n{EOA};;\n"),
        ("pipes.txt", f"sep=|\nwallet|label|below\n{ADDRESS}|treasury|1.2 1.05\n{EOA}||\n"),
        ("tabs.tsv", f"wallet\tlabel\tbelow\n{ADDRESS}\ttreasury\t1.2 1.05\n{EOA}\t\t\n"),
        ("tabs.txt", f"wallet\tlabel\n{ADDRESS}\tmine\n{EOA}\t\n"),
        ("trailing.csv", f"wallet,label,below,\n{ADDRESS},treasury,1.2 1.05,\n,,,\n\n{EOA},,,\n,,\n"),
        (
            "safe.csv",
            f"address,name,chainId\n{to_checksum_address(ADDRESS)},mine,1\n{ADDRESS},mine,137\neth:{EOA},,1\n",
        ),
        ("prefixed.txt", f"eth:{ADDRESS}\narb1:{EOA}\n"),
        ("twice.txt", f"{ADDRESS}\n{to_checksum_address(ADDRESS)}\n{EOA}\n"),
        ("headless.csv", f"{ADDRESS},mine\n{EOA},\n"),
        ("crlf.csv", f"wallet,label\r\n{ADDRESS},mine\r\n{EOA},\r\n"),
    ],
)
def test_import_takes_every_form(run: Run, tmp_path: Path, name: str, text: str) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        with suppress(FileNotFoundError):
            (tmp_path / "indexer.db").unlink()
        (tmp_path / name).write_bytes(text.removeprefix("\ufeff").encode(encoding))
        result = run("import", name)
        assert result.exit_code == 0, result.output
        assert set(listed(run)) == {ADDRESS, EOA}
        if "treasury" in text:
            assert listed(run)[ADDRESS] == ("treasury", "below 1.2, below 1.05")
        elif "mine" in text and "#" not in text:
            assert listed(run)[ADDRESS][0] == "mine"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", f"{ADDRESS}\n0x12\n", "line 2"),
        ("a.csv", f"wallet,below\n{ADDRESS},1.1\n{ADDRESS.upper().replace('X', 'x')},1.2\n", "line 3.*twice"),
        ("a.csv", f"wallet,label\n{ADDRESS},{'x' * 200_000}\n", "line 2.*field limit"),
        ("a.csv", f"wallet,label\n{ADDRESS},a\x00b\n", "line 2.*control"),
        ("a.csv", f"wallet,label\n{ADDRESS},a,b\n", "line 2.*more cells"),
        ("a.json", "[" * 200_000, "nested more than"),
        ("a.json", '[{"wallet": "' + "\\\\ud800" * 3 + '"}]', "entry 1"),
        ("a.json", '[{"wallet": 1' + "0" * 5_000 + "}]", "JSON"),
        ("a.csv", f"wallet,below\n{ADDRESS},high\n", "line 2"),
        ("a.csv", f"account,below\n{ADDRESS},1\n", "column wallet"),
        ("a.csv", f"wallet,belw\n{ADDRESS},1\n", "belw.*below"),
        ("a.json", '[{"wallet": 7}]', "entry 1"),
        ("a.json", "{", "JSON"),
        ("a.txt", "# nobody\n", "no address"),
    ],
)
def test_import_of_a_wrong_file_names_the_place_and_changes_nothing(
    run: Run, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    assert re.search(message, one_line(run("import", name), 2))
    assert list(tmp_path.glob("*.db")) == []


def name_service(httpserver: HTTPServer, chain_id: int, address: str) -> str:
    """The URL of a node on which every ENS name points to this address."""

    def answer(request: Request) -> Response:
        call = json.loads(request.data)
        result: Any = {"number": "0x1", "timestamp": hex(int(time.time()))}
        if call["method"] == "eth_chainId":
            result = hex(chain_id)
        elif (
            call["method"] == "eth_call"
        ):  # UniversalResolver.resolve(name, data) -> (what addr(node) answers, resolver)
            result = "0x" + encode(["bytes", "address"], [encode(["address"], [address]), EOA]).hex()
        return Response(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}))

    httpserver.clear()
    httpserver.expect_request("/").respond_with_handler(answer)
    return httpserver.url_for("/")


@pytest.mark.parametrize("chain_id", [1, 137])
def test_an_ens_name_is_asked_of_mainnet_and_of_no_other_chain(run: Run, httpserver: HTTPServer, chain_id: int) -> None:
    url = name_service(httpserver, chain_id, ADDRESS)
    result = run("add", "vitalik.eth", "--rpc-url", url)
    if chain_id != 1:
        assert f"serves chain id {chain_id}" in one_line(result, 1)
        return
    assert result.exit_code == 0, result.output
    assert listed(run) == {ADDRESS: (None, "below 1.1")}
    assert run("remove", "vitalik.eth").exit_code == 0


def test_an_ens_name_has_one_spelling(run: Run, httpserver: HTTPServer, tmp_path: Path) -> None:
    url = name_service(httpserver, 1, ADDRESS)
    assert run("add", " Vitalik.ETH ", "--rpc-url", url).exit_code == 0
    (row,) = json.loads(run("list", "--json").stdout)
    assert row["ens"] == "vitalik.eth"
    assert run("remove", "VITALIK.eth").exit_code == 0
    assert listed(run) == {}
    (tmp_path / "names.csv").write_text("wallet,label\nVitalik.eth,him\n")
    assert run("import", "names.csv", "--rpc-url", url).exit_code == 0
    assert listed(run) == {ADDRESS: ("him", "below 1.1")}
    assert run("remove", "vitalik.eth").exit_code == 0
    for name in ("a..eth", "a b.eth", "\udc80.eth"):
        assert "is no ENS name" in one_line(run("add", name, "--rpc-url", url), 2)


def test_a_name_that_moved_is_warned_of_and_changes_nothing(
    run: Run,
    httpserver: HTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = name_service(httpserver, 1, ADDRESS)
    assert run("add", "vitalik.eth", "--rpc-url", url).exit_code == 0
    assert run("add", EOA).exit_code == 0
    monkeypatch.setenv("MAINNET_RPC_URL", url)
    session = Session(None, tmp_path / "indexer.db")
    with Store(session.db) as store:
        known = watches(store.conn)
    warn_of_moved_names(session, known)
    assert capsys.readouterr().err == ""
    name_service(httpserver, 1, EOA)
    warn_of_moved_names(session, known)
    assert f"vitalik.eth points to {EOA} now; {ADDRESS} is still watched" in capsys.readouterr().err
    assert set(listed(run)) == {ADDRESS, EOA}
    monkeypatch.setenv("MAINNET_RPC_URL", "http://127.0.0.1:9/secretkey123456789")
    warn_of_moved_names(Session(None, session.db), known)
    error = capsys.readouterr().err
    assert "were not looked up again" in error
    assert "secretkey" not in error


def test_an_ens_name_without_a_mainnet_endpoint_says_what_to_do(run: Run) -> None:
    line = one_line(run("add", "vitalik.eth", "--rpc-url", "http://127.0.0.1:9/secretkey123456789"), 1)
    assert "MAINNET_RPC_URL" in line
    assert "secretkey" not in line


def test_labels_are_cut_and_hold_no_control_characters(run: Run, tmp_path: Path) -> None:
    assert run("add", ADDRESS, "--label", "x" * 200_000).exit_code == 0
    assert listed(run)[ADDRESS.lower()][0] == "x" * 64
    for label in ("a\x1b[31m", "a\nb", "a\udc80b"):
        assert "control characters" in one_line(run("add", ADDRESS, "--label", label), 2)
    (tmp_path / "w.json").write_text(json.dumps([{"wallet": ADDRESS, "label": "a\x00b"}]))
    assert "entry 1" in one_line(run("import", "w.json"), 1 + 1)
    assert listed(run)[ADDRESS.lower()][0] == "x" * 64
    (path,) = tmp_path.glob("*.db")
    with closing(sqlite3.connect(path)) as conn, conn:  # as an older version kept it
        conn.execute("update watches set label = ?", ("y" * 200_000,))
        assert [watch.label for watch in watches(conn)] == ["y" * 64]
    assert listed(run)[ADDRESS.lower()][0] == "y" * 64


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--notify", "nonsense://x"], "apprise"),
        (["--command", "no-such-program-at-all"], "no program"),
        (["--command", "true {nobody}"], "nobody"),
        (["--command", ""], "no program"),
        (["--hysteresis", "-1"], "hysteresis"),
        (["--hysteresis", "nan"], "finite"),
        (["--hysteresis", "1e-20"], "18 decimals"),
        (["--target", "nan"], "finite"),
    ],
)
def test_wrong_channels_are_one_line(run: Run, flags: list[str], message: str) -> None:
    assert run("add", ADDRESS).exit_code == 0
    assert message in one_line(run("check", *flags), 2)


def test_the_alerts_section_is_checked_and_keeps_its_secrets(run: Run, tmp_path: Path) -> None:
    assert run("add", ADDRESS).exit_code == 0
    for text, message in [
        ("[alerts]\nurl = ['tgram://secret123']\n", "unknown key alerts.url"),
        ("[alerts]\nurls = 'tgram://secret123'\n", "alerts.urls"),
        ("[alerts]\nurls = ['tgram://${NO_SUCH_NAME}/x']\n", "NO_SUCH_NAME"),
        ("[alerts]\nbelow = [0]\n", "alerts.below"),
        ("[alerts]\nbelow = [1e-20]\n", "18 decimals"),
    ]:
        (tmp_path / "indexer.toml").write_text(text)
        line = one_line(run("check"), 2)
        assert message in line
        assert "secret123" not in line
