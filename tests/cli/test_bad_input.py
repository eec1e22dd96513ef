"""How commands fail where no node is needed to see it: one clear line, and nothing is changed."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from indexer import __main__ as entry
from indexer.cli.main import main
from indexer.store.store import Store
from tests.cli.invoking import Run, one_line
from tests.devnet.node import CHAIN_ID
from tests.devnet.scenario import config_toml
from tests.tiny_contracts import EOA

#: a chain that nobody serves, with one deployment
CONFIGURATION = (
    config_toml(CHAIN_ID, "http://127.0.0.1:9", [])
    + f"""
[deployments.mine]
protocol = "aave-v3"
chain = "devnet"
start_block = 0
addresses = {{ pool_addresses_provider = "{EOA}" }}
"""
)


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in a folder with that configuration."""
    folder = tmp_path_factory.mktemp("nobody")
    (folder / "indexer.toml").write_text(CONFIGURATION)
    monkeypatch.chdir(folder)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["sync", "--chain", "mainet"], 2, "unknown chain 'mainet'; did you mean 'mainnet'?"),
        (["sync", "--deployment", "aave-v3-cor"], 2, "unknown deployment 'aave-v3-cor'; did you mean 'aave-v3-core'?"),
        (["sync", "--protocol", "aave-v4"], 2, "unknown protocol 'aave-v4'; did you mean 'aave-v"),
        (["sync", "--to", "now"], 2, "'now' is no block: latest, safe, finalized, a number, or latest:-64"),
        (["sync", "--rpc-url", "localhost"], 2, "--rpc-url: an endpoint must begin with http:// or https://"),
        (["sync", "--accounts", "some"], 2, "'some' is not one of 'borrowers', 'all'"),
        (["sync", "--max-requests-per-second", "0"], 2, "0.0 is not in the range x>0"),
        (["show", "0x12"], 2, "'0x12' is not an address (0x and 40 hex digits)"),
        (["show", "0x35D1b3F3D7966A1DFe207aa4514C12a259A0492b"], 2, "fails its checksum (EIP-55)"),
        (["export", "everything"], 2, "'everything' is not one of 'at-risk', 'positions'"),
        (["at-risk", "--below", "x"], 2, "'x' is not a valid float"),
        (["at-risk", "--json", "--csv"], 2, "--json and --csv exclude each other"),
        (["verify", "--all", "--sample", "3"], 2, "--all and --sample exclude each other"),
        (["verify", "--at-risk", "--all"], 2, "--all and --at-risk exclude each other"),
        (["at-risk", "--below", "nan"], 2, "nan is not a finite number"),
        (["export", "positions", "--min-debt", "inf"], 2, "inf is not a finite number"),
        (["sync", "--max-requests-per-second", "nan"], 2, "nan is not a finite number"),
        (["simulate", "--days", "inf"], 2, "inf is not a finite number"),
        (["show", "--target", "nan", "0x" + "12" * 20], 2, "nan is not a finite number"),
        (["show", "--target", "1e300", "0x" + "12" * 20], 2, "1<=x<=1000"),
        (["frob"], 2, "No such command 'frob'"),
        (["--config", "nowhere.toml", "status"], 1, "no database at indexer.db"),
        (["--config", "nowhere.toml", "protocols"], 2, "nowhere.toml: no such file"),
        (["protocols", "--chain", "x"], 2, "unknown chain 'x'"),
        *(
            ([*arguments], 1, "no database at indexer.db: run `indexer sync` first, or name another file with --db")
            for arguments in (
                ["status"], ["at-risk"], ["show", "0x" + "12" * 20], ["query", "select 1"], ["export", "wallets"],
                ["verify"],
            )
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line_and_changes_nothing(
    empty: Path, arguments: list[str], code: int, message: str
) -> None:
    result = CliRunner().invoke(main, arguments)
    assert message in one_line(result, code)
    assert list(empty.iterdir()) == []


def test_an_unknown_configuration_key_is_told(empty: Path) -> None:
    Path("indexer.toml").write_text("[settings]\nat_risk_bellow = 1.2")
    message = "indexer.toml: unknown key settings.at_risk_bellow; did you mean 'at_risk_below'?"
    assert one_line(CliRunner().invoke(main, ["sync"]), 2) == message


def test_a_deployment_of_an_unknown_protocol_is_told_with_its_place(empty: Path) -> None:
    Path("indexer.toml").write_text(
        '[deployments.mine]\nprotocol = "aave-v9"\nchain = "mainnet"\nstart_block = 0\naddresses = {}'
    )
    message = "indexer.toml: deployments.mine.protocol: no installed package knows the protocol 'aave-v9'"
    assert message in one_line(CliRunner().invoke(main, ["sync"]), 2)


def test_a_node_that_is_down_is_told(empty: Path) -> None:
    result = CliRunner().invoke(main, ["sync", "--rpc-url", "http://user:secret@127.0.0.1:9/v2/abcdef0123456789"])
    assert (result.exit_code, result.stdout) == (1, "")
    *_, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    assert "127.0.0.1:9" in last
    assert "Name another with --rpc-url or MAINNET_RPC_URL" in last
    assert "secret" not in result.stderr
    assert "abcdef0123456789" not in result.stderr
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize(
    "flags", [["--json"], ["--csv"], ["--no-headers"], ["--output", "x.csv"], ["--json", "--follow"]]
)
def test_a_sync_takes_no_flags_for_rows_that_it_does_not_print(run: Run, flags: list[str]) -> None:
    assert "a sync prints no rows, so it takes no --json" in one_line(run("sync", "--chain", "devnet", *flags), 2)
    assert not Path("x.csv").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["at-risk"],
        ["show", "0x" + "12" * 20],
        ["query", "select * from positions"],
        ["export", "positions"],
        ["simulate", "--days", "1"],
        ["movements"],
        ["top"],
        ["report", "book"],
        ["report", "0x" + "12" * 20],
    ],
)
def test_an_empty_database_says_what_to_do(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    with Store(tmp_path / "empty.db"):
        pass
    result = run("--db", tmp_path / "empty.db", *arguments)
    assert (result.exit_code, json.loads(result.stdout or "[]")) == (0, [])
    told = result.stderr.splitlines()
    assert told[0] == f"{tmp_path / 'empty.db'} holds nothing yet: run `indexer sync`"
    assert len(told) <= 2


def test_nobody_known_is_not_nobody_at_risk(run: Run, tmp_path: Path) -> None:
    with Store(tmp_path / "empty.db"):
        pass
    result = run("--db", tmp_path / "empty.db", "at-risk", "--exit-code")
    assert (result.exit_code, result.stdout) == (1, "[]\n")


@pytest.mark.parametrize("arguments", [["verify"], ["verify", "--chain", "devnet"]])
def test_an_empty_database_cannot_be_verified(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    with Store(tmp_path / "empty.db"):
        pass
    line = one_line(run("--db", tmp_path / "empty.db", *arguments), 1)
    assert line == f"{tmp_path / 'empty.db'} holds nothing yet: run `indexer sync` first"


def test_an_interrupt_of_the_start_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Starting(ModuleType):
        def __getattr__(self, name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "indexer.cli.main", Starting("indexer.cli.main"))
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\nInterrupted.\n"
