"""Months of history that have left a database for a lake: nothing is lost, doubled, or read differently."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from indexer.cli.main import main
from indexer.errors import StoreError
from indexer.history import pruned
from indexer.store.database import open_readonly
from indexer.store.reorgs import roll_back
from indexer.store.store import Store
from indexer.transfer import pruning
from indexer.transfer.lake import month_begins, month_of
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
    return sorted(row for one in lake.glob("health_history/**/[!.]*.parquet") for row in rows_in(one))


def rows_in(file: Path) -> Rows:
    return [tuple(row[name] for name in VALUES.split(", ")) for row in parquet.read_table(file).to_pylist()]


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
    files = [
        one for one in tmp_path.glob("lake/health_history/**/[!.]*.parquet") if parquet.read_metadata(one).num_rows
    ]
    found = raw(database, "select file, rows, last_block, month from pruned_history")
    assert {row[:3] for row in found} == {
        (str(one), len(rows_in(one)), max(row[4] for row in rows_in(one))) for one in files
    }
    present = month_begins(month_of(max(row[5] for row in before)))
    assert max(month_begins(month) for *_, month in found) < present
    assert {row for row in before if row[5] >= present} <= set(after)


def newest_of(rows: Rows) -> Rows:
    return list({row[:4]: row for row in rows}.values())


def test_a_time_within_a_month_that_left_and_a_block_are_begun_with(database: Path, tmp_path: Path) -> None:
    (moment,) = {row[5] for row in stored(database) if row[4] < 0 and row[10]} & {
        at for (at,) in raw(database, "select max(block_timestamp) from health_history where block_number < -100000 "
                            "and supply_change_usd <> 0")
    }  # fmt: skip
    commands = [("movements", "--min", "0.5", "--since", f"{begin:%Y-%m-%dT%H:%M:%SZ}", "--csv")
                for begin in (datetime.fromtimestamp(moment + late, UTC) for late in (-1, 1))]  # fmt: skip
    said = [run("--db", database, *command).stdout for command in commands]
    assert len({*said}) == 2, "one line begins then"
    before = stored(database)
    prune(database, tmp_path / "lake")
    assert [run("--db", database, *command).stdout for command in commands] == said
    for block in sorted({row[4] + late for row in before for late in (-1, 0)}):
        with closing(open_readonly(database)) as conn:
            pruned.lay(conn, since_block=block)
            found = conn.execute(f"select {VALUES} from health_history where block_number > {block} order by {KEY}")
            assert [tuple(row) for row in found] == [row for row in before if row[4] > block]


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
from indexer.transfer.lake import month_begins, month_of
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


def test_of_months_of_which_one_is_gone_what_is_older_is_not_read_and_it_is_said_once(
    database: Path, tmp_path: Path
) -> None:
    prune(database, tmp_path / "lake")
    for name, month in raw(database, "select deployment, max(month) from pruned_history group by deployment"):
        (file,) = tmp_path.glob(f"lake/health_history/*/{name}/{month}.parquet")
        file.unlink()
    done = run("--db", database, "movements", "--min", "0.5", "--since", "2020-01-01", "--csv")
    assert done.exit_code == 0
    assert "is incomplete before" in done.stderr
    here = run("--db", database, "query", f"select {KEY} from health_history", "--csv").stdout.splitlines()
    assert done.stderr.count("is incomplete before") == len({line.split(",")[1] for line in here[1:]})
    shutil.rmtree(tmp_path / "lake")
    assert run("--db", database, "movements", "--min", "0.5", "--since", "2020-01-01", "--csv").stdout == done.stdout


def test_a_month_whose_file_is_gone_is_not_written_anew_from_what_has_stayed(database: Path, tmp_path: Path) -> None:
    forget_this_month(database)
    prune(database, tmp_path / "lake")
    add_a_point(database)
    before = stored(database)
    (tmp_path / "lake").rename(tmp_path / "elsewhere")
    done = run("--db", database, "export", "--lake", tmp_path / "other", "--lake-prune")
    assert done.exit_code == 1
    assert "bring" in done.stderr
    with Store(database) as store, pytest.raises(StoreError, match="bring the lake back; nothing was pruned"):
        pruning.prune(store, tmp_path / "lake")
    assert stored(database) == before
    (tmp_path / "elsewhere").rename(tmp_path / "lake")
    prune(database, tmp_path / "lake")
    assert sorted({*stored(database), *in_lake(tmp_path / "lake")}) == sorted({*before, *in_lake(tmp_path / "lake")})


def forget_this_month(database: Path) -> None:
    """Makes points of months that are over the last ones, which stay for the next snapshot."""
    with closing(sqlite3.connect(database)) as conn, conn:
        conn.execute("delete from health_history where block_number > 0")


def add_a_point(database: Path) -> None:
    """A final point of each position right behind its last one, so that this one, in a month that left, may go."""
    with closing(sqlite3.connect(database)) as conn, conn:
        conn.execute(
            f"insert into health_history ({VALUES}) select chain_id, deployment, account, position_group, block_number + 9, "
            "block_timestamp + 99, health_factor_raw, collateral_usd, debt_usd, status, 0.0, 0.0 from (select *, "
            f"max(block_number) over (partition by {KEY.rsplit(', ', 1)[0]}) as newest from health_history) "
            "where block_number = newest"
        )


def test_what_left_the_chain_later_is_not_read_from_the_lake(database: Path, tmp_path: Path) -> None:
    prune(database, tmp_path / "lake")
    (chain_id, last), *_ = raw(database, "select chain_id, max(last_block) from pruned_history group by chain_id")
    kept = [row for row in in_lake(tmp_path / "lake") if row[4] <= last - 150_000]
    with Store(database) as store:
        with store.transaction() as conn:
            roll_back(conn, chain_id, last - 150_000, "0xgone")
        assert len(kept) > 5
        pruned.lay(store.conn)
        assert store.conn.execute(f"select {VALUES} from health_history order by {KEY}").fetchall() == kept


def test_a_month_of_which_a_part_left_the_chain_is_written_anew_without_it(database: Path, tmp_path: Path) -> None:
    forget_this_month(database)
    before, lake = stored(database), tmp_path / "lake"
    prune(database, lake)
    (chain_id, last), *_ = raw(database, "select chain_id, max(last_block) from pruned_history group by chain_id")
    ancestor, *later = sorted({row[4] for row in in_lake(lake) if last - 50_000 < row[4] <= last})
    assert later
    with Store(database) as store, store.transaction() as conn:
        roll_back(conn, chain_id, ancestor, "0xgone")
    add_a_point(database)
    whole, old = sorted({*(row for row in before if row[4] <= ancestor), *stored(database)}), in_lake(lake)
    prune(database, lake)
    assert in_lake(lake) != old
    with closing(open_readonly(database)) as conn:
        pruned.lay(conn)
        assert sorted(map(tuple, conn.execute(f"select {VALUES} from health_history"))) == whole
    assert [row for row in whole if row[4] == ancestor and row not in stored(database)]


def test_a_lake_that_is_named_from_where_one_stands_is_found_from_elsewhere(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet = wallet_of(database)
    said = readings(database, wallet)
    monkeypatch.chdir(tmp_path)
    prune(database, Path("lake"))
    monkeypatch.chdir("/")
    assert readings(database, wallet) == said


def test_points_that_are_not_final_stay(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database)) as conn:
        conn.execute("update finality set block_number = -150000")
        conn.execute("insert or ignore into finality select distinct chain_id, -150000, '0x' from deployments")
        conn.commit()
    before = stored(database)
    prune(database, tmp_path / "lake")
    gone = raw(database, "select max(last_block) from pruned_history")
    assert gone[0][0] <= -150_000 or not [row for row in stored(database) if row[4] > -150_000]
    assert [row for row in stored(database) if row[4] > -150_000]
    final = [row for row in before if row[4] <= -150_000]
    assert {*newest_of(final)} <= {*stored(database)}, "the next point is compared with it after a reorganisation"
    assert set(final) - set(stored(database))


@pytest.mark.parametrize("flags", [["export", "positions", "--lake-prune"], ["sync", "--lake-prune"]])
def test_without_a_lake_there_is_nothing_to_prune_into(database: Path, flags: list[str]) -> None:
    done = run("--db", database, *flags)
    assert done.exit_code == 2
    assert "--lake" in done.stderr
