"""Months of history that have left a database for a lake: nothing is lost, doubled, or read differently."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from indexer.cli.main import main
from indexer.errors import StoreError
from indexer.store.reorgs import roll_back
from indexer.store.store import Store
from indexer.transfer import pruning
from tests.devnet.worlds import together
from tests.truth import raw, sync_once

DAY = 86_400
KEY = "chain_id, deployment, account, position_group, block_number"
VALUES = (
    f"{KEY}, block_timestamp, health_factor_raw, collateral_usd, debt_usd, status, supply_change_usd, debt_change_usd"
)
Rows = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def synced(needs_node: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a history of several months, every other older point with a movement."""
    path = tmp_path_factory.mktemp("pruning") / "first.db"
    with together(("aave-3.6", "comet USDC"), 3, 10) as markets:
        sync_once(path, markets[0].node.url, markets)
        markets[0].step(1)
        sync_once(path, markets[0].node.url, markets)
        markets[0].node.mine(200)  # what is final lies behind the points
        sync_once(path, markets[0].node.url, markets)
    with closing(sqlite3.connect(path)) as conn:
        for number in range(1, 4):  # the same points, some 40 days earlier each, before the first block of this node
            conn.execute(
                f"insert into health_history ({VALUES}) select chain_id, deployment, account, position_group, "
                f"block_number - {number} * 100000, block_timestamp - {number * 40 * DAY}, health_factor_raw, collateral_usd, "
                f"debt_usd, status, case when rowid_of % 2 then {number} * 1000.0 else null end, 0.0 from (select *, "
                f"row_number() over (order by {KEY}) as rowid_of from health_history where block_number > 0)"
            )
        conn.commit()
    return path


@pytest.fixture
def database(synced: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(synced, tmp_path / "first.db"))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def prune(path: Path, lake: Path) -> Result:
    done = run("--db", path, "export", "--lake", lake, "--lake-prune")
    assert done.exit_code == 0, done.output
    return done


def stored(path: Path) -> Rows:
    return raw(path, f"select {VALUES} from health_history order by {KEY}")


def in_lake(lake: Path) -> Rows:
    names = VALUES.split(", ")
    rows = [row for one in lake.glob("health_history/**/[!.]*.parquet") for row in parquet.read_table(one).to_pylist()]
    return sorted(tuple(row[name] for name in names) for row in rows)


def readings(db: Path, wallet: str) -> list[str]:
    """What those say that read history."""
    commands = (
        ["movements", "--min", "0.5", "--since", "2020-01-01", "--csv"],
        ["movements", "--min", "0.5", "--since", "60d", "--csv"],
        ["movements", "--min", "0.5", "--since", "1", "--csv"],
        ["report", wallet, "--since", "70d"],
        ["report", wallet, "--since", "2020-01-01"],
    )
    done = [run("--db", db, *command) for command in commands]
    assert [one.exit_code for one in done] == [0] * len(done), [one.output for one in done]
    return [one.output for one in done]


def wallet_of(path: Path) -> str:
    found = raw(path, "select wallet from positions join health_history using (chain_id, deployment, account, position_group) "
                "where debt_value_raw <> '0' group by wallet order by count(*) desc, wallet limit 1")  # fmt: skip
    return str(found[0][0])


def test_what_left_is_in_the_lake_and_everybody_reads_both(database: Path, tmp_path: Path) -> None:
    before, wallet = stored(database), wallet_of(database)
    said = readings(database, wallet)
    prune(database, tmp_path / "lake")
    after = stored(database)
    gone = set(before) - set(after)
    assert len(gone) > len(before) / 3
    assert set(after) < set(before)
    assert gone <= set(in_lake(tmp_path / "lake"))
    assert readings(database, wallet) == said
    newest = f"select max(block_number) from health_history group by {KEY.rsplit(', ', 1)[0]}"
    assert sorted(raw(database, newest)) == sorted((row[4],) for row in newest_of(before))
    assert {file for (file,) in raw(database, "select distinct file from pruned_history")} == {
        str(one) for one in tmp_path.glob("lake/health_history/**/[!.]*.parquet") if parquet.read_metadata(one).num_rows
    }


def newest_of(rows: Rows) -> Rows:
    return list({row[:4]: row for row in rows}.values())


def test_over_a_folder_it_is_the_same(database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dbs"
    folder.mkdir()
    shutil.move(database, folder / "first.db")
    wallet = wallet_of(folder / "first.db")
    said = readings(folder, wallet)
    prune(folder, tmp_path / "lake")
    assert raw(folder / "first.db", "select count(*) from pruned_history")[0][0] > 0
    assert readings(folder, wallet) == said


def test_twice_is_as_good_as_once(database: Path, tmp_path: Path) -> None:
    prune(database, tmp_path / "lake")
    first = stored(database), in_lake(tmp_path / "lake")
    assert "0 rows of 0 months" in prune(database, tmp_path / "lake").stderr
    assert (stored(database), in_lake(tmp_path / "lake")) == first


def test_a_row_that_was_the_last_of_its_position_leaves_when_there_is_a_newer_one(
    database: Path, tmp_path: Path
) -> None:
    """It is in the month's file already, which then holds it once."""
    with closing(sqlite3.connect(database)) as conn:  # as if nothing had happened to them since
        conn.execute("create temp table later as select * from health_history where block_number > 0")
        conn.execute("delete from health_history where block_number > 0 and (account > '0x8' or block_number % 2)")
        conn.commit()
        before, wallet = stored(database), wallet_of(database)
        said = readings(database, wallet)
        prune(database, tmp_path / "lake")
        assert {row[:5] for row in newest_of(before)} <= {row[:5] for row in stored(database)}
        assert readings(database, wallet) == said
        assert run("--db", database, "export", "--lake", tmp_path / "other").exit_code == 0
        assert in_lake(tmp_path / "other") == in_lake(tmp_path / "lake")
        names = VALUES
        conn.execute(f"insert or ignore into health_history ({names}) select {names} from later")
        conn.commit()
    whole = sorted({*before, *stored(database)})
    prune(database, tmp_path / "lake")
    rows = in_lake(tmp_path / "lake")
    assert len(rows) == len(set(rows))
    assert sorted({*rows, *stored(database)}) == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from indexer.store.store import Store
from indexer.transfer import pruning
place, path, lake = sys.argv[1:]
def dying(*given):
    found = before(*given)
    os.kill(os.getpid(), signal.SIGKILL)
    return found
before = getattr(pruning, place)
setattr(pruning, place, dying)
with Store(Path(path)) as store:
    pruning.prune(store, Path(lake))
"""


@pytest.mark.parametrize("place", ["_write", "_compared", "_prune_month"])
def test_whoever_is_killed_between_copying_and_deleting_loses_and_doubles_nothing(
    database: Path, tmp_path: Path, place: str
) -> None:
    before, wallet = stored(database), wallet_of(database)
    said = readings(database, wallet)
    lake = tmp_path / "lake"
    lake.mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, place, str(database), str(lake)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(lake.glob("health_history/**/[!.]*.parquet"))
    assert stored(database) == before
    assert readings(database, wallet) == said
    prune(database, lake)
    assert sorted({*stored(database), *in_lake(lake)}) == before
    assert readings(database, wallet) == said


def test_a_file_that_is_not_what_was_written_keeps_the_rows(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(database)
    rows = pruning._rows

    def worn(path: Path) -> Any:
        return (row if number else (*row[:7], 0.25, *row[8:]) for number, row in enumerate(rows(path)))

    monkeypatch.setattr(pruning, "_rows", worn)
    with Store(database) as store, pytest.raises(StoreError, match="does not hold what was written"):
        pruning.prune(store, tmp_path / "lake")
    assert stored(database) == before


def test_without_its_lake_a_list_says_from_when_it_is_incomplete(database: Path, tmp_path: Path) -> None:
    prune(database, tmp_path / "lake")
    (tmp_path / "lake").rename(tmp_path / "elsewhere")
    done = run("--db", database, "movements", "--min", "0.5", "--since", "2020-01-01")
    assert done.exit_code == 0
    months = raw(database, "select deployment, max(month) from pruned_history group by deployment")
    for name, month in months:
        year, number = map(int, month.split("-"))
        day = f"{year + number // 12}-{number % 12 + 1:02}-01"
        assert f"the history of {name} is incomplete before {day}" in " ".join(done.stderr.split())
    failed = run("--db", database, "export", "--lake", tmp_path / "other")
    assert failed.exit_code == 1
    assert "bring that lake back" in failed.stderr
    (tmp_path / "elsewhere").rename(tmp_path / "lake")
    assert run("--db", database, "export", "--lake", tmp_path / "other").exit_code == 0
    assert in_lake(tmp_path / "other") == in_lake(tmp_path / "lake")


def test_what_left_the_chain_later_is_not_read_from_the_lake(database: Path, tmp_path: Path) -> None:
    prune(database, tmp_path / "lake")
    (chain_id, last), *_ = raw(database, "select chain_id, max(last_block) from pruned_history group by chain_id")
    kept = [row for row in in_lake(tmp_path / "lake") if row[4] <= last - 150_000]
    with Store(database) as store:
        with store.transaction() as conn:
            roll_back(conn, chain_id, last - 150_000, "0xgone")
        assert len(kept) > 5
        from indexer.history import pruned

        pruned.lay(store.conn)
        assert store.conn.execute(f"select {VALUES} from health_history order by {KEY}").fetchall() == kept


def test_points_that_are_not_final_stay(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database)) as conn:
        conn.execute("update finality set block_number = -150000")
        conn.execute("insert or ignore into finality select distinct chain_id, -150000, '0x' from deployments")
        conn.commit()
    prune(database, tmp_path / "lake")
    gone = raw(database, "select max(last_block) from pruned_history")
    assert gone[0][0] <= -150_000 or not [row for row in stored(database) if row[4] > -150_000]
    assert [row for row in stored(database) if row[4] > -150_000]


@pytest.mark.parametrize("flags", [["export", "positions", "--lake-prune"], ["sync", "--lake-prune"]])
def test_without_a_lake_there_is_nothing_to_prune_into(database: Path, flags: list[str]) -> None:
    done = run("--db", database, *flags)
    assert done.exit_code == 2
    assert "--lake" in done.stderr
