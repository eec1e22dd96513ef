"""Values that nobody foresaw: one line with the cause and what to do, and the trace only with -v."""

import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID
from tests.truth import deployment_of, sync_once


def indexer(path: Path, *words: str, memory: int | None = None) -> subprocess.CompletedProcess[str]:
    def limited() -> None:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    return subprocess.run(
        [sys.executable, "-m", "indexer", "--config", str(path.with_suffix(".toml")), "--db", str(path), *words],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited,
    )


@pytest.fixture
def database(aave_v3_6: AaveV3, tmp_path: Path) -> Path:
    path = tmp_path / "indexer.db"
    sync_once(path, aave_v3_6.node.url, [aave_v3_6])
    pairs = ", ".join(f'{key} = "{value}"' for key, value in deployment_of(aave_v3_6).addresses.items())
    path.with_suffix(".toml").write_text(
        f"[chains.devnet]\nchain_id = {CHAIN_ID}\n[deployments.{aave_v3_6.name}]\n"
        f'protocol = "aave-v3"\nchain = "devnet"\nstart_block = 0\naddresses = {{ {pairs} }}\n'
    )
    return path


@pytest.mark.parametrize(
    ("change", "words", "kind"),
    [
        (
            "update positions set health_factor_raw = 'foreign'",
            ["at-risk", "--below", "9", "--table"],
            "positions.health_factor_raw is 'foreign'",
        ),
        (
            "update snapshots set market = '{}'",
            ["simulate", "--shock", "WETH=-20%"],
            "a stored market of aave-v3-6-devnet is damaged",
        ),
        (
            "update snapshots set market = 'foreign'",
            ["simulate", "--shock", "WETH=-20%"],
            "a stored market of aave-v3-6-devnet is damaged",
        ),
    ],
)
def test_a_database_that_was_changed_by_hand_is_told_in_one_line(
    database: Path, change: str, words: list[str], kind: str
) -> None:
    with sqlite3.connect(database) as conn:
        conn.execute(change)
    conn.close()
    run = indexer(database, *words)
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("Error: ")]
    assert run.returncode == 1
    assert kind in line
    assert "restore a copy" in line
    assert "Traceback" not in run.stderr
    assert "Traceback" in indexer(database, "-v", *words).stderr


def test_more_rows_than_memory_are_told_in_one_line(database: Path) -> None:
    many = "with recursive n(i) as (select 1 union all select i + 1 from n limit 20000000) select i, hex(i) from n"
    run = indexer(database, "query", many, "--table", memory=600 * 2**20)
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("Error: ")]
    assert run.returncode == 1
    assert "memory" in line
    assert "Traceback" not in run.stderr
