"""A configuration or database that merely lies where a command looks is used only if nobody else could have put it there."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from indexer.cli.main import main
from indexer.store.store import Store

STRANGER = 54_321
STOLEN = """
[chains.mainnet]
rpc = ["http://127.0.0.1:9/${SECRET}"]
[alerts]
command = "touch told"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and config folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SECRET", "s3cr3t")
    return tmp_path


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a file a stranger's; without root's right to do that, makes us the stranger."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: STRANGER)

    return give


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def refused(result: Result, why: str, flag: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert why in result.stderr
    assert f"name it: {flag}" in result.stderr
    assert "s3cr3t" not in result.output


@pytest.mark.parametrize("where", ["indexer.toml", "config/lending-indexer/indexer.toml"])
def test_a_configuration_of_another_user_is_not_used(where: str, give_away: Callable[[Path], None]) -> None:
    path = Path(where).absolute() if where.startswith("config") else Path(where)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STOLEN)
    give_away(path)
    refused(run("watch", "check"), f"{path} belongs to another user", f"--config {path}")
    assert not Path("told").exists()
    assert run("--config", str(path), "protocols").exit_code == 0, "named, it is trusted"


def test_a_link_of_another_user_is_not_followed(give_away: Callable[[Path], None]) -> None:
    Path("mine.toml").write_text(STOLEN)
    Path("indexer.toml").symlink_to("mine.toml")
    assert run("protocols").exit_code == 0
    give_away(Path("indexer.toml"))
    refused(run("protocols"), "indexer.toml belongs to another user", "--config indexer.toml")


@pytest.mark.parametrize(
    ("mode", "why"),
    [(0o646, "can be written by everybody on this machine"), (0o664, "can be written by another group than your own")],
)
def test_what_others_can_write_is_not_used(mode: int, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("indexer.toml")
    path.write_text(STOLEN)
    path.chmod(mode)
    gid = path.stat().st_gid
    monkeypatch.setattr("indexer.boundary.files.own_group", lambda: gid + 1)
    refused(run("protocols"), why, "--config indexer.toml")


def test_the_user_s_own_group_may_write(folder: Path) -> None:
    path = Path("indexer.toml")
    path.write_text(STOLEN)
    path.chmod(0o664)
    assert run("protocols").exit_code == 0


@pytest.mark.parametrize("ending", ["", "-wal", "-journal"])
@pytest.mark.parametrize("verb", [("status",), ("at-risk",), ("query", "select 1"), ("watch", "list"), ("verify",)])
def test_a_database_of_another_user_is_not_opened(
    verb: tuple[str, ...], ending: str, give_away: Callable[[Path], None]
) -> None:
    with Store("indexer.db"):
        pass
    path = Path(f"indexer.db{ending}")
    path.touch()
    give_away(path)
    refused(run(*verb), f"{path} belongs to another user", "--db indexer.db\n")


def test_a_database_that_is_named_is_opened_whoever_owns_it(give_away: Callable[[Path], None]) -> None:
    with Store("indexer.db"):
        pass
    give_away(Path("indexer.db"))
    assert run("--db", "indexer.db", "status").exit_code == 0
