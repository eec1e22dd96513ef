"""What a command imports: nothing that is slow and that it does not use, so that it answers at once."""

import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from indexer.cli.main import VERBS, main
from indexer.store.database import open_readonly
from indexer.store.store import Store
from tests.recorded import recorded_folder

pytestmark = pytest.mark.slow

#: what takes from 30 ms to seconds to import
NODE = {"web3", "eth_abi", "faster_eth_abi", "eth_utils", "multicall", "requests", "aiohttp", "websockets", "tenacity"}
SLOW = NODE | {
    "apprise", "asyncio", "Crypto", "matplotlib", "numpy", "pandas", "pyarrow", "pydantic", "resvg_py", "rich.console",
    "rich.progress", "sqlite_utils",
}  # fmt: skip
#: and what no command needs that only looks at the rows
CONFIGURED = {"platformdirs", "protocols", "indexer.config", "indexer.risk"}
#: some 10 ms each, which add up
RARE = {"email", "importlib.metadata", "importlib.resources", "difflib", "rich", "tempfile"}
OWN = {f"indexer.{name}" for name in "chain logs reads snapshot sync alert delivery".split()}
VERB_PACKAGES = ("indexer.lists", "indexer.jobs", "indexer.store.store", "indexer.model")
WALLET = "0x" + 40 * "1"


def imported(*arguments: str, folder: Path, **environment: str) -> set[str]:
    """The modules and packages that a command imports, by Python's own account."""
    command = [sys.executable, "-X", "importtime", "-m", "indexer", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in (0, 1 if environment else 0), done.stderr[-500:]
    names = set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", done.stderr, re.MULTILINE))
    assert "click.core" in names
    return names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database that has its tables and no rows."""
    path = tmp_path_factory.mktemp("empty")
    Store(path / "indexer.db").close()
    return path


def test_a_sync_of_one_snapshot_imports_no_arrays() -> None:
    """Only a live tail has a book of bounds; numpy would cost 0.1 s and 25 MB."""
    code = "import indexer.sync.sync, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = found.stdout.split()
    assert "indexer.snapshot.tracked" in modules
    assert not {"pandas", "numpy"}.intersection(modules)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), *((name, "--help") for name in sorted(main.commands))]
)
def test_help_and_version_import_nothing_slow(arguments: tuple[str, ...], folder: Path) -> None:
    assert not imported(*arguments, folder=folder) & (SLOW | CONFIGURED | OWN)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_help_and_version_import_no_verb(arguments: tuple[str, ...], folder: Path) -> None:
    found = imported(*arguments, folder=folder)
    assert not {name for name in found if name.startswith(VERB_PACKAGES)}
    assert arguments == ("--version",) or not found & RARE


@pytest.mark.parametrize("words", ["indexer ", "indexer sy"])
def test_verbs_complete_without_being_imported(words: str, folder: Path) -> None:
    asked = {"_INDEXER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "1"}
    found = imported(folder=folder, **asked)
    assert not {name for name in found if name.startswith(VERB_PACKAGES)}
    assert not found & RARE


@pytest.mark.parametrize("words", ["indexer ", "indexer sy", "indexer export ", "indexer sync --acc"])
def test_completion_imports_nothing_slow(words: str, folder: Path) -> None:
    count = str(len(words.split(" ")) - 1)
    asked = {"_INDEXER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count}
    assert not imported(folder=folder, **asked) & (SLOW | CONFIGURED | OWN)


@pytest.mark.parametrize(
    "arguments",
    [
        ("at-risk", "--json"),
        ("at-risk", "--table"),
        ("query", "select * from positions", "--csv"),
        ("export", "positions", "--csv"),
        ("top", "--json"),
        ("movements", "--json"),
        ("report", WALLET),
    ],
)
def test_what_reads_rows_imports_neither_node_nor_configuration(arguments: tuple[str, ...], folder: Path) -> None:
    assert not imported(*arguments, folder=folder) & (SLOW | CONFIGURED | OWN)


@pytest.mark.parametrize("arguments", [("at-risk", "--json"), ("top", "--json")])
def test_what_reads_rows_imports_nothing_that_it_rarely_needs(arguments: tuple[str, ...], folder: Path) -> None:
    assert not imported(*arguments, folder=folder) & RARE


@pytest.mark.parametrize("arguments", [("status", "--json"), ("show", WALLET)])
def test_what_the_file_itself_explains_takes_no_configuration(arguments: tuple[str, ...], folder: Path) -> None:
    found = imported(*arguments, folder=folder)
    assert not found & (SLOW | {"indexer.config", "platformdirs", "protocols"})


def test_forecasts_are_judged_without_what_only_files_need(folder: Path) -> None:
    assert not imported("backtest", folder=folder) & (SLOW - {"numpy"} | {"numba", "multiprocessing"})


@pytest.mark.parametrize("arguments", [("protocols", "--json"), ("watch", "list")])
def test_what_reads_the_configuration_imports_no_adapter(arguments: tuple[str, ...], folder: Path) -> None:
    found = imported(*arguments, folder=folder)
    assert not found & (SLOW - {"Crypto"})  # which checks the addresses of the built-in deployments
    assert not {
        name for name in found if name.startswith(("protocols.", "indexer.chain", "indexer.sync", "indexer.snapshot"))
    }


@pytest.fixture(scope="module")
def of_one_protocol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a synced database, of whose deployments one is left, and its configuration."""
    path = recorded_folder(tmp_path_factory.mktemp("one"))
    with Store(path / "indexer.db") as store, store.transaction() as conn:
        for (table,) in conn.execute("select name from sqlite_master where type = 'table'").fetchall():
            if "deployment" in [row[1] for row in conn.execute(f"pragma table_info({table})")]:
                conn.execute(f"delete from {table} where deployment <> 'maker'")
        assert conn.execute("select count(*) from positions where status <> 'no-debt'").fetchone()[0] > 5
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ("levels", "WETH", "--json"),
        ("opportunities", "--json"),
        ("show", "OWNER"),
        ("report", "OWNER"),
        ("report", "book"),
        ("simulate", "--all", "--shock", "ETH=-20%"),
    ],
)
def test_only_the_protocols_that_the_file_holds_are_imported(arguments: tuple[str, ...], of_one_protocol: Path) -> None:
    with closing(open_readonly(of_one_protocol / "indexer.db")) as conn:
        (owner,) = conn.execute("select wallet from positions where status <> 'no-debt' limit 1").fetchone()
    found = imported(*(owner if word == "OWNER" else word for word in arguments), folder=of_one_protocol)
    packages = {name.split(".")[1] for name in found if name.startswith("protocols.")} - {"common"}
    assert packages == {"maker"}
    assert not found & (SLOW - {"Crypto"})


def test_each_verb_is_the_function_of_its_name_and_listed_with_its_short_help() -> None:
    for name, command in main.commands.items():
        assert command.name == name
        assert command.get_short_help_str(1_000) == VERBS[name].summary


def test_to_create_a_file_loads_neither_numpy_nor_pandas_and_both_can_be_loaded_afterwards(tmp_path: Path) -> None:
    code = (
        "import sys; from indexer.store.store import Store; Store(sys.argv[1]).close(); "
        "print(*({'sqlite_utils', 'numpy', 'pandas'} & set(sys.modules))); import numpy, pandas"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "new.db")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["sqlite_utils"]
