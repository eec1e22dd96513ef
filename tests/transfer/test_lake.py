"""The lake holds the rows of the databases, whole files only, the same bytes wherever they are written; DuckDB reads it."""

import hashlib
import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from indexer.cli.main import main
from indexer.transfer.lake import PAUSE, TABLES, Pauses, month_begins, month_of, next_month
from tests.devnet.scenario import config_toml
from tests.devnet.worlds import together
from tests.truth import raw, sync_once

DAY = 86_400


@pytest.fixture(scope="module")
def folder(needs_node: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chains' files with a history of several months."""
    root = tmp_path_factory.mktemp("lake")
    made = root / "dbs"
    made.mkdir()
    path = made / "first.db"
    with together(("aave-3.6", "comet USDC"), 3, 10) as markets:
        sync_once(path, markets[0].node.url, markets)
        markets[0].step(1)
        sync_once(path, markets[0].node.url, markets)
    with closing(sqlite3.connect(path)) as conn:
        final_at_head(conn)
        for number in range(1, 4):  # the same points, some 40 days earlier each
            conn.execute(
                "insert or ignore into health_history (chain_id, deployment, account, position_group, block_number, "
                "block_timestamp, health_factor_raw, collateral_usd, debt_usd, status) select chain_id, deployment, account, "
                f"position_group, block_number - {number * 100_000}, block_timestamp - {number * 40 * DAY}, health_factor_raw, "
                "collateral_usd, debt_usd, status from health_history where block_number > 0"
            )
        conn.commit()
    shutil.copy(path, made / "second.db")
    with closing(sqlite3.connect(made / "second.db")) as conn:
        for (table,) in conn.execute("select name from sqlite_master where type = 'table'").fetchall():
            if any(name == "chain_id" for _, name, *_ in conn.execute(f"pragma table_info({table})")):
                conn.execute(f"update {table} set chain_id = 77")
        vary(conn)
        conn.commit()
    return made


def vary(conn: sqlite3.Connection) -> None:
    """Makes the wallets of this file differ from those of the other: worse or better off, some with unknown supplies or values."""
    for sql in (
        "update positions set supplies_complete = 0 where rowid_of % 4 = 0",
        "update positions set health_factor = null, health_factor_raw = null where rowid_of % 4 = 1",
        "update positions set health_factor = health_factor * 2 where rowid_of % 4 = 2",
        "update positions set health_factor = health_factor / 2 where rowid_of % 4 = 3",
        "update positions set debt_usd = null where rowid_of % 5 = 0",
    ):
        place = "(select count(*) from positions o where (o.deployment, o.account) < (positions.deployment, positions.account))"
        conn.execute(sql.replace("rowid_of", place))


def final_at_head(conn: sqlite3.Connection) -> None:
    """Makes the newest block the final one."""
    conn.execute("update finality set (block_number, block_hash) = (select max(number), hash from blocks)")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def table(path: Path) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in parquet.read_table(path).to_pylist()]


def digests(lake: Path) -> dict[str, str]:
    return {
        str(path.relative_to(lake)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(lake.rglob("*"))
        if path.is_file()
    }


def test_the_lake_holds_the_rows_of_the_tables(folder: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    done = run("--db", folder, "export", "--lake", lake)
    assert done.exit_code == 0, done.output
    for path in folder.glob("*.db"):
        for name in TABLES:
            for chain_id, deployment in raw(path, "select chain_id, deployment from deployments"):
                place = f"chain_id = {chain_id} and deployment = '{deployment}'"
                rows = raw(path, f"select * from {name} where {place}")
                written = table(lake / name / str(chain_id) / f"{deployment}.parquet")
                assert sorted(written, key=str) == sorted(rows, key=str)
                assert rows


def test_months_that_are_over_are_copied_once_and_the_present_one_is_not(folder: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    run("--db", folder, "export", "--lake", lake)
    path = folder / "first.db"
    for chain_id, deployment, now in raw(path, "select chain_id, deployment, block_timestamp from deployments"):
        there = {
            one.stem: table(one) for one in (lake / "health_history" / str(chain_id) / deployment).glob("*.parquet")
        }
        assert len(there) >= 3
        assert month_of(now) not in there
        begin = month_begins(month_of(now))
        rows = raw(
            path,
            f"select * from health_history where deployment = '{deployment}' and block_timestamp < {begin} "
            "order by account, position_group, block_number",
        )
        assert sorted(row for part in there.values() for row in part) == sorted(rows)
    before = {one: one.stat().st_mtime_ns for one in lake.glob("health_history/**/*.parquet")}
    run("--db", folder, "export", "--lake", lake)
    assert {one: one.stat().st_mtime_ns for one in lake.glob("health_history/**/*.parquet")} == before


def test_a_month_is_copied_when_no_reorganisation_can_change_it_any_more(folder: Path, tmp_path: Path) -> None:
    lake, path = tmp_path / "lake", tmp_path / "one.db"
    shutil.copy(folder / "first.db", path)

    def months() -> set[str]:
        assert run("--db", path, "export", "--lake", lake).exit_code == 0
        return {one.stem for one in lake.glob("health_history/*/*/*.parquet")}

    with closing(sqlite3.connect(path)) as conn:
        ((now,),) = conn.execute("select distinct block_timestamp from deployments").fetchall()
        over = month_of(month_begins(month_of(now)) - 1)  # by the clock of the newest block
        conn.execute("insert into health_history (chain_id, deployment, account, position_group, block_number, "
            "block_timestamp, collateral_usd, debt_usd, status) select chain_id, deployment, account, position_group, 2, "
            f"{month_begins(month_of(now)) - 1}, 0, 0, status from positions")  # fmt: skip
        conn.execute("update blocks set block_timestamp = ? where number = 1", (month_begins(over) + 5,))
        conn.execute("insert or ignore into blocks select chain_id, 1, 'h', ? from finality", (month_begins(over) + 5,))
        conn.execute("update finality set block_number = 1")
        conn.commit()
    before = months()
    assert before
    assert over not in before
    with closing(sqlite3.connect(path)) as conn:
        final_at_head(conn)
        conn.commit()
    assert months() == before | {over}
    with closing(sqlite3.connect(path)) as conn:  # and is never written again, whatever the file says by then
        conn.execute("delete from health_history where block_number = 2")
        conn.commit()
    written = digests(lake / "health_history")
    for text in ("", "9999-99", "zzzz", "2" * 10**6, "\ufeff2023-01"):
        for through in lake.rglob(".through"):
            through.write_text(text)
        assert months() == before | {over}
        assert digests(lake / "health_history") == written


@pytest.mark.parametrize(
    ("timestamp", "month", "later"),
    [(0, "1970-01", "1970-02"), (1_703_980_800, "2023-12", "2024-01"), (1_709_164_799, "2024-02", "2024-03")],
)
def test_months_are_those_of_utc(timestamp: int, month: str, later: str) -> None:
    assert month_of(timestamp) == month
    assert next_month(month) == later
    assert month_of(month_begins(later) - 1) == month


def test_processes_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    assert run("--db", folder, "export", "--lake", tmp_path / "a").exit_code == 0
    assert run("--db", folder, "export", "--lake", tmp_path / "b", "--scheduler", "processes:2").exit_code == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert len(digests(tmp_path / "a")) > 12


QUERIES = [
    "select chain_id, deployment, account, health_factor_raw, debt_usd from positions order by 1, 2, 3",
    "select chain_id, count(*) as rows, sum(debt_usd) as debt from positions group by 1 order by 1",
    "select wallet, positions, supply_usd, debt_usd, net_usd, health_factor_raw, worst_chain_id, worst_account, "
    "oldest_block_number from wallets order by wallet",
    "select chain_id, account, status from at_risk order by 1, 2",
    "select chain_id, symbol, price_raw from markets order by 1, 2, 3",
    "select chain_id, side, count(*) as rows, count(value_usd) as valued from balances group by 1, 2 order by 1, 2",
]


@pytest.mark.parametrize("sql", QUERIES)
def test_duckdb_answers_what_sqlite_answers(folder: Path, tmp_path: Path, sql: str) -> None:
    run("--db", folder, "export", "--lake", tmp_path / "lake")
    one = run("--db", folder, "query", sql, "--csv")
    two = run("query", "--lake", tmp_path / "lake", sql, "--csv")
    assert (one.exit_code, two.exit_code) == (0, 0), two.stderr
    assert len(one.stdout.splitlines()) > 1
    for mine, theirs in zip(one.stdout.splitlines(), two.stdout.splitlines(), strict=True):
        for a, b in zip(mine.split(","), theirs.split(","), strict=True):
            assert a == b or math.isclose(float(a), float(b), rel_tol=1e-12)


@pytest.mark.parametrize(
    "sql",
    [
        "copy positions to 'LAKE/positions/x.parquet'",
        "create table x as select 1",
        "select 1; drop view positions",
        "select * from read_text('/etc/passwd')",
        "select * from read_parquet('FOLDER/first.db')",
        "install sqlite",
        "attach 'FOLDER/first.db'",
        "set enable_external_access = true",
        "pragma version",
        "explain select 1",
        "select * from nowhere",
        "",
    ],
)
def test_a_query_of_the_lake_only_reads_the_lake(folder: Path, tmp_path: Path, sql: str) -> None:
    lake = tmp_path / "lake"
    run("--db", folder, "export", "--lake", lake)
    before = digests(lake)
    done = run("query", "--lake", lake, sql.replace("LAKE", str(lake)).replace("FOLDER", str(folder)))
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("Error: ")
    assert "unforeseen" not in done.stderr
    assert digests(lake) == before


def test_of_which_block_the_rows_of_a_lake_are_is_told_and_not_when_it_was_written(
    folder: Path, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    run("--db", folder, "export", "--lake", lake)
    done = run("query", "--lake", lake, "select 1", "--table")
    (block,) = {block for (block,) in raw(folder / "first.db", "select block_number from deployments")}
    assert re.search(
        rf": block {block:,}, [\d,]+ days old$",
        done.stderr,
        re.MULTILINE,
    )
    assert run("query", "--lake", lake, "select 1", "--max-age", "9999d").exit_code == 0
    old = run("query", "--lake", lake, "select 1", "--max-age", "1h")
    assert old.exit_code == 1
    assert old.stderr.count("its present state is unknown") == 4


@pytest.mark.parametrize(
    "spoilt", [lambda whole: whole[:700], lambda _: b"", lambda whole: whole[:90] + b"\x5a" * 900 + whole[990:]]
)
def test_a_file_of_a_lake_that_is_none_is_one_line(
    folder: Path, tmp_path: Path, spoilt: Callable[[bytes], bytes]
) -> None:
    run("--db", folder, "export", "--lake", tmp_path / "lake")
    one = min((tmp_path / "lake" / "positions").glob("*/*.parquet"))
    one.write_bytes(spoilt(one.read_bytes()))
    done = run("query", "--lake", tmp_path / "lake", "select * from positions order by account")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "unforeseen" not in done.stderr


def test_where_there_is_no_lake_it_is_told_what_writes_one(tmp_path: Path) -> None:
    done = run("query", "--lake", tmp_path, "select 1")
    assert done.exit_code == 1
    assert f"indexer export --lake {tmp_path}" in done.stderr


@pytest.mark.parametrize(
    "flags",
    [[], ["positions", "--lake", "x"], ["--lake", "x", "--csv"], ["--lake", "x", "--chain", "mainnet"], ["--lake", "x", "--below", "2"],
     ["positions", "--scheduler", "processes:2"]],
)  # fmt: skip
def test_flags_of_the_lake_that_do_not_go_together_are_refused(folder: Path, tmp_path: Path, flags: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert run("--db", folder / "first.db", "export", *flags).exit_code == 2
        assert not Path("x").exists()


def test_a_writer_that_is_killed_leaves_whole_files(folder: Path, tmp_path: Path) -> None:
    """Killed again and again, wherever it is; every file under its own name can be read, with the rows of the table."""
    lake = tmp_path / "lake"
    script = (
        "import sys, pathlib; from indexer.transfer.lake import write_all\n"
        "while True: write_all([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2])); print('written', flush=True)"
    )
    wanted = raw(folder / "first.db", "select count(*) from positions")[0][0]
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(folder / "first.db"), str(lake)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            for _ in range(20):
                parts = [parquet.read_metadata(path).num_rows for path in (lake / "positions").rglob("[!.]*.parquet")]
                assert sum(parts) == wanted
            os.kill(process.pid, signal.SIGKILL)
        assert sum(len(table(path)) for path in (lake / "positions").rglob("[!.]*.parquet")) == wanted


def test_a_sync_writes_the_lake_after_its_snapshot(needs_node: None, tmp_path: Path) -> None:
    with together(("comet USDC",), 3, 6) as markets:
        node = markets[0].node
        (tmp_path / "indexer.toml").write_text(config_toml(node.chain_id, node.url, markets))
        done = run(
            "--config", tmp_path / "indexer.toml", "--db", tmp_path / "indexer.db", "sync", "--chain", "devnet",
            "--accounts", "all", "--lake", tmp_path / "lake",
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    count = run("query", "--lake", tmp_path / "lake", "select count(*) from positions", "--csv").stdout.split()[1]
    assert int(count) == raw(tmp_path / "indexer.db", "select count(*) from positions")[0][0] > 0


def test_a_sync_that_follows_writes_it_at_most_every_minute(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = []
    monkeypatch.setattr("indexer.transfer.lake.write_all", lambda *given: came.append(given))
    clock = [1000.0]
    monkeypatch.setattr("indexer.transfer.lake.time.monotonic", lambda: clock[0])
    lake = Pauses(folder / "first.db", tmp_path, PAUSE)
    for seconds in (0, 1, PAUSE - 2, 1, 1):
        clock[0] += seconds
        lake.committed({})
    assert len(came) == 2
