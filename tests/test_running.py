"""What runs the program unattended: the image, the service, the health check, the first configuration, the pages of `man`."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from indexer.cli.main import main
from indexer.config import load
from indexer.store.store import Store
from tests.cli.test_help import commands
from tests.dist import write_pages

ROOT = Path(__file__).parents[1]
EXTRAS = ROOT / "extras"
DOCKERFILE = (EXTRAS / "Dockerfile").read_text()
UNIT = EXTRAS / "lending-indexer@.service"


def test_the_dockerfile_is_clean() -> None:
    binary = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([binary, EXTRAS / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001"]


def test_what_the_image_copies_is_in_the_sources() -> None:
    """`make dist` compares the same files with the sdist and installs from it with pip."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    copied = [
        word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()
    ]
    assert len(copied) > 5
    for name in copied:
        assert any(path == name or path.startswith(f"{name}/") for path in tracked), name


def composed() -> list[list[str]]:
    services = yaml.safe_load((EXTRAS / "compose.yaml").read_text())["services"]
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in services.values())
    return [service["command"] for service in services.values()]


def in_the_image() -> list[list[str]]:
    found = [line for line in DOCKERFILE.splitlines() if line.strip().startswith("CMD [")]
    return [[word for word in re.findall(r'"([^"]+)"', line) if word != "indexer"] for line in found]


def in_the_unit() -> list[str]:
    (line,) = re.findall(r"^ExecStart=\S+ (.+)$", UNIT.read_text(), re.MULTILINE)
    return shlex.split(line.replace("%i", "base"))


@pytest.mark.parametrize("arguments", [*composed(), *in_the_image(), in_the_unit()], ids=" ".join)
def test_their_commands_are_ones_that_there_are(arguments: list[str]) -> None:
    """A flag that there is not is an error before the help is shown."""
    result = CliRunner().invoke(main, [*arguments, "--help"])
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The template with the program of this environment, as systemd looks for it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: this machine has no systemd")
    path = tmp_path / UNIT.name
    text = UNIT.read_text()
    assert "/opt/lending-indexer/bin/indexer " in text
    path.write_text(text.replace("/opt/lending-indexer/bin/indexer", str(Path(sys.executable).with_name("indexer"))))
    return path


def test_systemd_has_nothing_to_say_about_the_unit(unit: Path) -> None:
    """It names an unknown key on stderr and ends with 0 all the same."""
    instance = str(unit).replace("@.", "@mainnet.")
    done = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", instance], capture_output=True, text=True, check=False
    )
    told = [line for line in done.stderr.splitlines() if str(unit.parent) in line or "lending-indexer" in line]
    assert (done.returncode, told) == (0, [])


def test_the_unit_exposes_little(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    (level,) = re.findall(r"Overall exposure level for .*?: ([\d.]+)", done.stdout)
    assert float(level) <= 3.0


@pytest.mark.slow
def test_the_program_runs_where_no_memory_is_both_written_and_executed(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute of the unit, as Linux 6.3 offers it to a process itself."""
    refuse = "import ctypes, os, sys\nif ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    for words in (
        ["demo"],
        ["--db", "indexer-demo/indexer.db", "simulate", "--shock", "eth=-20%", "--days", "1", "--json"],
    ):
        command = [sys.executable, "-c", refuse, "-m", "indexer", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        if done.returncode == 77:
            pytest.skip("this kernel has no PR_SET_MDWE")
        assert done.returncode == 0, done.stderr


def test_every_command_has_a_page_for_man(tmp_path: Path) -> None:
    pages = {page.name: page.read_text() for page in write_pages(tmp_path / "man")}
    assert set(pages) == {f"{'-'.join(('indexer', *path))}.1" for path, _ in commands()}
    for path, command in commands():
        text = pages[f"{'-'.join(('indexer', *path))}.1"]
        assert command.get_short_help_str(200).rstrip(".") in text.replace("\\-", "-")
        assert "\b" not in text
        assert (".SH EXAMPLES" in text) == bool(command.epilog)
    if shutil.which("groff"):
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", *(tmp_path / "man").glob("*.1")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, [line for line in done.stderr.splitlines() if "cannot adjust" not in line]) == (0, [])


# the health check -----------------------------------------------------------------------------------------------------


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["demo"]).exit_code == 0
    monkeypatch.chdir(tmp_path / "indexer-demo")
    return tmp_path / "indexer-demo"


def state(name: str, value: str, path: Path = Path("indexer.db")) -> None:
    with Store(path) as store, store.transaction() as conn:
        conn.execute("update deployments set state = ? where deployment = ?", (value, name))


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        ([], 0, ""),
        (["--exit-code"], 1, "maker has rows that are"),
        (["--max-age", "99999d"], 0, ""),
        (["--exit-code", "--max-age", "99999d"], 0, ""),
        (["--exit-code", "--max-age", "99999d", "--chain", "devnet", "--protocol", "maker"], 0, ""),
    ],
)
def test_status_says_by_its_exit_code_what_cannot_be_trusted(
    demo: Path, flags: list[str], code: int, told: str
) -> None:
    result = CliRunner().invoke(main, ["status", *flags])
    assert result.exit_code == code, result.output
    assert told in result.stderr


def test_status_fails_for_a_failed_deployment_among_those_asked_for(demo: Path) -> None:
    state("maker", "failed")
    flags = ["status", "--exit-code", "--max-age", "99999d"]
    assert CliRunner().invoke(main, flags).exit_code == 1
    assert CliRunner().invoke(main, [*flags, "--deployment", "maker"]).exit_code == 1
    assert CliRunner().invoke(main, [*flags, "--protocol", "aave-v3"]).exit_code == 0
    assert CliRunner().invoke(main, ["status"]).exit_code == 0


def test_status_of_no_database_is_no_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["status", "--exit-code"]).exit_code == 1
    Store(tmp_path / "indexer.db").close()
    assert CliRunner().invoke(main, ["status", "--exit-code"]).exit_code == 1


# init and demo ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.endswith("_RPC_URL")]:
        monkeypatch.delenv(name)
    return tmp_path


def test_init_writes_a_configuration_that_loads_and_holds_no_key(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main, ["init", "--chain", "mainnet", "--chain", "base"])
    assert result.exit_code == 0, result.output
    path = empty / "indexer.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = load(path, {})
    assert config.endpoints(config.chain("base"))[0].source == "built-in public endpoint"
    assert "MAINNET_RPC_URL=https://... names a node of your own" in result.stderr


def test_init_names_a_variable_that_is_set_and_examines_its_chain(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASE_RPC_URL", "http://127.0.0.1:9/secret")
    result = CliRunner().invoke(main, ["--config", "base.toml", "init", "--chain", "base"])
    assert result.exit_code == 1, result.output
    assert "a sync of base would fail" in result.stderr
    assert "does not answer" in result.stdout
    text = (empty / "base.toml").read_text()
    assert '\nrpc = ["${BASE_RPC_URL}"]' in text
    assert "secret" not in text + result.output


def test_init_never_writes_over_a_file_nor_for_an_unknown_chain(empty: Path) -> None:
    (empty / "indexer.toml").write_text("# mine\n")
    result = CliRunner().invoke(main, ["init"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "indexer.toml is there already" in result.stderr
    assert (empty / "indexer.toml").read_text() == "# mine\n"
    assert CliRunner().invoke(main, ["--config", "b.toml", "init", "--chain", "optimsm"]).exit_code == 2
    assert not (empty / "b.toml").exists()


def test_the_demo_is_its_owner_s_alone_and_never_over_a_folder(demo: Path) -> None:
    assert {stat.S_IMODE(path.stat().st_mode) for path in demo.iterdir() if path.suffix != ".lock"} == {0o600}
    (demo / "indexer.toml").write_text("# mine\n")
    result = CliRunner().invoke(main, ["demo", str(demo)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is there already" in result.stderr
    assert (demo / "indexer.toml").read_text() == "# mine\n"


def test_the_demo_holds_all_six_markets_with_all_of_their_rows_proven(demo: Path) -> None:
    with Store(demo / "indexer.db") as store:
        states = store.conn.execute("select protocol, state, coverage from deployments order by 1").fetchall()
        verified = store.conn.execute(
            "select sum(checked), sum(mismatches) from audits where kind = 'verify'"
        ).fetchone()
        positions = store.conn.execute("select count(*) from positions").fetchone()
    assert [tuple(row) for row in states] == [
        (name, "ok", "history") for name in ("aave-v2", "aave-v3", "aave-v3", "compound-v2", "compound-v3", "maker")
    ]
    assert tuple(verified) == (positions[0], 0)
