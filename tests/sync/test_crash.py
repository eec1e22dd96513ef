"""Kills, full disks, locked, removed and read-only files: nothing half written, one clear line, the next run right."""

import errno
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from indexer.abi import topic
from indexer.chain.client import Chain
from indexer.errors import ChainError, StoreError
from indexer.model import Accounts, Deployment, PositionKey
from indexer.settings import Settings
from indexer.snapshot import spool
from indexer.store import imported
from indexer.store import writable as storing
from indexer.store.database import open_readonly
from indexer.store.store import Store
from indexer.sync.sync import Sync
from indexer.web.band import is_syncing
from protocols.aave_v3.adapter import AaveV3 as AaveV3Adapter
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, MULTICALL3
from tests.devnet.scenario import config_toml
from tests.devnet.worlds import aave, alone
from tests.disturbed import FORKS, QUICK, Moment, sync_in_a_child
from tests.faulty import FaultyNode
from tests.truth import adapter_of, deployment_of, logs_of, raw, sync_once, token_holders, wrong_aave_rows, wrong_rows

#: what a snapshot replaces as a whole, and what else a sync leaves behind
SNAPSHOT = "positions balances markets snapshots".split()
PROGRESS = "assets states events registry synced_ranges blocks".split()
LIQUIDATED = "LiquidationCall(address,address,address,uint256,uint256,address,bool)"
#: kills inside one sync, spread over all its SQL statements
STATEMENTS = 10


@pytest.fixture(scope="module")
def populated(needs_node: None) -> Iterator[AaveV3]:
    with alone(aave, 4, 12) as market:
        yield market


@pytest.fixture
def market(populated: AaveV3) -> Iterator[AaveV3]:
    """The market; what a test does to it is undone."""
    with populated.rewound():
        yield populated


def content(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that a sync leaves behind but for the clock."""
    found = {table: rows(path, table) for table in SNAPSHOT + PROGRESS}
    found["deployments"] = raw(path, "select deployment, block_number, block_hash, state, note from deployments")
    return found


def rows(path: Path, table: str) -> list[tuple[Any, ...]]:
    """A table's rows in any one order; none where there is no such table yet."""
    if not path.exists() or not raw(path, f"select 1 from sqlite_master where name = '{table}'"):
        return []
    return sorted(raw(path, f"select * from {table}"), key=str)


def check(path: Path, market: AaveV3) -> None:
    assert raw(path, "pragma integrity_check") == [("ok",)]
    assert wrong_aave_rows(path, market, token_holders(market)) == []
    assert wrong_rows(path, market.node, [market])[1] == []


def copy(source: Path, target: Path) -> Path:
    for old in target.parent.glob(target.name + "*"):
        old.unlink()
    if source.exists():
        shutil.copy(source, target)
    return target


# kills -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["first sync", "refresh"])
def disturbed(request: pytest.FixtureRequest, market: AaveV3, tmp_path: Path) -> tuple[Path, Path]:
    """A database (or none) from which a sync will start, and the one that an undisturbed sync makes of it."""
    base = tmp_path / "base.db"
    if request.param == "refresh":
        sync_once(base, market.node.url, [market])
        market.step(1)
    wanted = copy(base, tmp_path / "wanted.db")
    sync_once(wanted, market.node.url, [market])
    return base, wanted


def resumed(path: Path, market: AaveV3, base: Path, wanted: dict[str, list[tuple[Any, ...]]], when: str) -> None:
    """The killed sync left a whole snapshot, old or new, and the same command again leads where it would have led."""
    found = {table: rows(path, table) for table in SNAPSHOT}
    old, new = {table: rows(base, table) for table in SNAPSHOT}, {table: wanted[table] for table in SNAPSHOT}
    assert found in (old, new), f"killed {when}: half a snapshot"
    sync_once(path, market.node.url, [market])
    assert content(path) == wanted, f"killed {when}"


def test_a_kill_before_any_request_changes_nothing_in_the_end(
    market: AaveV3, disturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    base, wanted = disturbed[0], content(disturbed[1])
    number = killed = 0
    while killed == number:
        number += 1
        path = copy(base, tmp_path / "killed.db")
        with Moment(market.node.url, lambda request: child.kill() if request == number else None) as node:  # noqa: B023
            child = FORKS.Process(target=sync_in_a_child, args=(path, node.url, [deployment_of(market)]))
            child.start()
            child.join()
        killed += child.exitcode == -signal.SIGKILL
        resumed(path, market, base, wanted, f"before request {number}")
    assert child.exitcode == 0
    assert killed > 8


def sync_until_statement(path: Path, url: str, deployments: Sequence[Deployment], number: int) -> None:
    """A sync that is killed right before its SQL statement of that number, schema included."""
    connect, left = sqlite3.connect, number

    def count(_: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        conn: sqlite3.Connection = connect(*arguments, **options)
        conn.set_trace_callback(count)
        return conn

    sqlite3.connect = traced  # type: ignore[assignment]
    sync_in_a_child(path, url, deployments)


def test_a_kill_between_any_statements_changes_nothing_in_the_end(
    market: AaveV3, disturbed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, wanted = disturbed[0], content(disturbed[1])
    statements = statements_of(copy(base, tmp_path / "counted.db"), market, monkeypatch)
    total = len(statements)
    starts = [i + 2 for i, sql in enumerate(statements) if sql.lower().startswith("begin")]
    ends = [i + 1 for i, sql in enumerate(statements) if sql.lower() == "commit"]
    chosen = {*range(2, total, total // STATEMENTS), *starts[-3:], *ends[-3:], *range(5, 40, 9)}
    for number in sorted(chosen):
        path = copy(base, tmp_path / "killed.db")
        child = FORKS.Process(
            target=sync_until_statement, args=(path, market.node.url, [deployment_of(market)], number)
        )
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        resumed(path, market, base, wanted, f"before statement {number}: {statements[number - 1][:60]}")


def statements_of(path: Path, market: AaveV3, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQL of one undisturbed sync."""
    connect, found = sqlite3.connect, []

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        conn: sqlite3.Connection = connect(*arguments, **options)
        conn.set_trace_callback(found.append)
        return conn

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", traced)
        sync_once(path, market.node.url, [market])
    return found


def phases(path: Path, url: str, deployment: Deployment, phase: str) -> None:
    """One sync of borrowers and what follows it: the supplies that back nothing, or the liquidations of old."""
    chain = Chain("devnet", CHAIN_ID, [url], MULTICALL3, **QUICK)  # type: ignore[arg-type]
    with closing(chain), Store(path) as store, store.lock():
        sync = Sync(store, chain, [adapter_of(deployment)], Accounts.BORROWERS, Settings(behind_seconds=0.2))
        target = sync.snapshot().block
        if phase == "supplies":
            sync.supplies = None
            sync.snapshot()
        elif phase == "liquidations":
            sync.backfill_liquidations(lambda _: None, target)


def started(path: Path, market: AaveV3, phase: str) -> None:
    """The file as the phase finds it."""
    if phase == "imported":
        users = {PositionKey(user.lower(), ""): None for user in market.users}
        with Store(path) as store, store.transaction() as conn:
            store.register(CHAIN_ID, market.name, market.protocol, "borrowers")
            store.describe(CHAIN_ID, deployment_of(market))
            imported.keep(conn, (CHAIN_ID, market.name), users)
        return
    sync_once(path, market.node.url, [market], "borrowers")
    if phase == "liquidations":
        with (
            closing(sqlite3.connect(path)) as conn,
            conn,
        ):  # as in a file from before the logs of liquidations were followed
            conn.execute("delete from liquidations")
            conn.execute("delete from synced_ranges where source = 'liquidations'")
            conn.execute("update deployments set liquidations_from_block = null")


def everything(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    found = content(path) | {table: rows(path, table) for table in ("imported", "liquidations")}
    more = "select deployment, coverage, liquidations_from_block, accounts from deployments"
    return found | {"what is complete": raw(path, more)}


@pytest.mark.parametrize("phase", ["supplies", "liquidations", "imported"])
def test_a_kill_in_a_later_phase_changes_nothing_in_the_end(market: AaveV3, tmp_path: Path, phase: str) -> None:
    market.move_price("WETH", 0.7)
    for user in market.users:
        market.liquidate(user)
    assert logs_of(market, topic(LIQUIDATED))
    deployment = deployment_of(market)
    base = tmp_path / "base.db"
    started(base, market, phase)
    wanted = copy(base, tmp_path / "wanted.db")
    phases(wanted, market.node.url, deployment, phase)
    expected = everything(wanted)
    assert expected["positions"]
    if phase == "liquidations":
        assert len(expected[phase]) == len(logs_of(market, topic(LIQUIDATED)))
    number = killed = 0
    while killed == number:
        number += 1
        path = copy(base, tmp_path / "killed.db")
        with Moment(market.node.url, lambda request: child.kill() if request == number else None) as node:  # noqa: B023
            child = FORKS.Process(target=phases, args=(path, node.url, deployment, phase))
            child.start()
            child.join()
        killed += child.exitcode == -signal.SIGKILL
        if rows(path, "positions"):
            # of those imported some commit before everybody is known: the others have no row yet, and miss none
            assert wrong_rows(path, market.node, [market])[1] == [], f"killed before request {number}"
        phases(path, market.node.url, deployment, phase)
        assert everything(path) == expected, f"killed before request {number}"
    assert child.exitcode == 0
    assert killed > 3


# no space ----------------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A file system of that size; what it yields mounts it anew with other options. Skipped without the right to."""
    folder.mkdir()

    def mount(options: str) -> int:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    if not shutil.which("mount") or mount(f"size={size}") != 0:
        pytest.skip("mounting a file system is not permitted here")
    try:
        yield lambda options: assert_done(mount(f"remount,{options}"))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def assert_done(returncode: int) -> None:
    assert returncode == 0


def test_a_full_disk_ends_a_first_sync_with_one_line(market: AaveV3, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "300k") as mount:
        path = tmp_path / "disk" / "first.db"
        with pytest.raises(StoreError, match="no space left"):
            sync_once(path, market.node.url, [market])
        mount("size=50m")
        sync_once(path, market.node.url, [market])
        check(path, market)


def test_a_full_disk_leaves_the_last_snapshot(market: AaveV3, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8m"):
        path, filler = tmp_path / "disk" / "refresh.db", tmp_path / "disk" / "filler"
        sync_once(path, market.node.url, [market])
        before = rows(path, "positions")
        market.step(1)
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                filler_size = filler.stat().st_size
        os.truncate(filler, filler_size - 100 * 1024)  # room for a beginning
        with pytest.raises(StoreError, match="no space left"):
            sync_once(path, market.node.url, [market])
        assert rows(path, "positions") == before
        filler.unlink()
        sync_once(path, market.node.url, [market])
        check(path, market)


def test_a_file_that_may_not_grow_is_told_like_a_broken_disk(market: AaveV3, tmp_path: Path) -> None:
    path, config = tmp_path / "limited.db", tmp_path / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    done = subprocess.run(
        command(config, path, "sync", "--chain", "devnet"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, 2**17)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "check the disk; the last snapshot is intact" in done.stderr
    sync_once(path, market.node.url, [market])
    check(path, market)


def test_rows_that_find_no_room_to_wait_leave_the_last_snapshot(
    market: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folders = tmp_path / "refresh.db", []
    sync_once(path, market.node.url, [market])
    before = content(path)

    def full(dir: Path) -> IO[bytes]:  # noqa: A002 - as tempfile calls it
        folders.append(dir)
        return Path("/dev/full").open("r+b")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "KEPT", 0)
        patch.setattr(spool, "TemporaryFile", full)
        with pytest.raises(StoreError, match=rf"wait in a temporary file in {tmp_path} \(No space left on device\)"):
            sync_once(path, market.node.url, [market])
    assert folders == [tmp_path]
    assert content(path) == before
    sync_once(path, market.node.url, [market])
    check(path, market)


@pytest.mark.parametrize("table", ["positions", "balances", "states", "events", "deployments"])
def test_damaged_pages_are_told_of_the_file_and_of_no_adapter(
    market: AaveV3, tmp_path: Path, caplog: pytest.LogCaptureFixture, table: str
) -> None:
    path, config = tmp_path / "damaged.db", tmp_path / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    sync_once(path, market.node.url, [market])
    whole, ((size,),) = path.read_bytes(), raw(path, "pragma page_size")
    damaged = bytearray(whole)
    for (page,) in raw(path, f"select rootpage from sqlite_master where tbl_name = '{table}'"):
        damaged[(page - 1) * size : (page - 1) * size + 200] = bytes([255]) * 200
    path.write_bytes(damaged)
    wanted = (
        f"{path} is damaged (database disk image is malformed): restore a copy, or delete it and run `indexer sync`"
    )
    caplog.clear()
    with pytest.raises(StoreError) as failed:
        sync_once(path, market.node.url, [market])
    assert str(failed.value).startswith(wanted)
    assert caplog.messages == []
    if table != "events":  # which a report does not read
        done = subprocess.run(command(config, path, "report", "book"), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"Error: {wanted}")
    path.write_bytes(whole)
    sync_once(path, market.node.url, [market])
    check(path, market)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")], ids=repr)
def test_a_machine_that_gives_too_little_is_no_defect_of_an_adapter(
    market: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    path = tmp_path / "poor.db"
    sync_once(path, market.node.url, [market])
    before = content(path)
    market.step(1)

    def poor(*_: object) -> None:
        # a new one: the parameter would keep what its trace holds, for all tests after this
        raise type(error)(*error.args)

    with monkeypatch.context() as patch:
        patch.setattr(AaveV3Adapter, "evaluate", poor)
        with pytest.raises(type(error)):
            sync_once(path, market.node.url, [market])
    assert caplog.messages == []
    assert content(path)["deployments"] == before["deployments"]
    sync_once(path, market.node.url, [market])
    check(path, market)


def test_a_file_or_a_server_that_only_an_adapter_asks_for_fails_that_adapter_alone(
    market: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "poor.db"
    sync_once(path, market.node.url, [market])

    def refused(*_: object) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(AaveV3Adapter, "evaluate", refused)
    with pytest.raises(ChainError, match="defect in the aave-v3 adapter: ConnectionRefusedError"):
        sync_once(path, market.node.url, [market])
    assert raw(path, "select state from deployments") == [("failed",)]


def test_a_machine_without_threads_is_told_in_one_line(market: AaveV3, tmp_path: Path) -> None:
    path, config = tmp_path / "poor.db", tmp_path / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    script = """
import sys, threading
from indexer.cli.main import main
start = threading.Thread.start
def scarce(self):
    if self.name in ("ahead", "exchange"):
        raise RuntimeError("can't start new thread")
    start(self)
threading.Thread.start = scarce
main(sys.argv[1:])
"""
    words = ["--config", str(config), "--db", str(path), "sync", "--chain", "devnet"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: this machine, or a limit")
    assert len(done.stderr.splitlines()) == 1


# locks -------------------------------------------------------------------------------------------------------------------


def test_a_database_locked_by_another_writer_is_told_and_nothing_changes(
    market: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "BUSY_TIMEOUT_MS", 200)
    path = tmp_path / "locked.db"
    sync_once(path, market.node.url, [market])
    before = content(path)
    market.step(1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(StoreError, match="stayed locked by another program"):
            sync_once(path, market.node.url, [market])
        other.execute("rollback")
    assert content(path) == before
    sync_once(path, market.node.url, [market])
    check(path, market)


def test_a_long_reader_neither_blocks_a_sync_nor_sees_it(market: AaveV3, tmp_path: Path) -> None:
    path = tmp_path / "read.db"
    sync_once(path, market.node.url, [market])
    with closing(open_readonly(path)) as reader:
        reader.execute("begin")
        (before,) = reader.execute("select max(block_number) from positions").fetchone()
        market.step(1)
        sync_once(path, market.node.url, [market])
        assert blocks_seen_by(reader) == [before]
        reader.execute("rollback")
        assert blocks_seen_by(reader) == [market.node.block_number()]
    check(path, market)


def blocks_seen_by(reader: sqlite3.Connection) -> list[int]:
    return [number for (number,) in reader.execute("select distinct block_number from positions")]


def command(config: Path, path: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "indexer", "--config", str(config), "--db", str(path), *arguments]


def one_line(config: Path, path: Path, *arguments: str) -> str:
    """What a command that fails tells: one line."""
    done = subprocess.run(command(config, path, *arguments), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


def test_a_second_sync_leaves_and_a_killed_one_leaves_no_lock(market: AaveV3, tmp_path: Path) -> None:
    path, config = tmp_path / "one.db", tmp_path / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    sync = ("sync", "--chain", "devnet", "--accounts", "all")
    with FaultyNode(market.node.url) as stuck:
        first = subprocess.Popen(command(config, path, *sync, "--rpc-url", stuck.url))
        try:
            while not stuck.injected["hang"]:
                assert first.poll() is None
                stuck.faults = {"hang": float(stuck.calls["eth_call"] > 1)}
                time.sleep(0.01)
            told = one_line(config, path, *sync)
            assert told == f"Error: another sync is writing {path}: wait for it, or use another file with --db"
        finally:
            first.kill()
            first.wait()
    sync_once(path, market.node.url, [market])
    check(path, market)


def test_a_second_sync_by_another_name_of_the_file_leaves_too(market: AaveV3, tmp_path: Path) -> None:
    path, link, config = tmp_path / "one.db", tmp_path / "link" / "other.db", tmp_path / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    link.parent.mkdir()
    link.symlink_to(path)
    with Store(path) as store, store.lock():
        assert f"another sync is writing {link}: " in one_line(config, link, "sync", "--chain", "devnet")
        assert is_syncing(link) in (True, None)


# files -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_number", [3, 6, 12])
def test_a_file_removed_during_a_sync_is_told_and_built_anew(
    market: AaveV3, tmp_path: Path, request_number: int
) -> None:
    path = tmp_path / "removed.db"
    with (
        Moment(market.node.url, lambda number: path.unlink() if number == request_number else None) as node,
        pytest.raises(StoreError, match="removed during the sync"),
    ):
        sync_once(path, node.url, [market])
    assert not path.exists()
    sync_once(path, market.node.url, [market])
    check(path, market)


def test_a_file_replaced_during_a_sync_is_left_alone(market: AaveV3, tmp_path: Path) -> None:
    path, other = tmp_path / "replaced.db", tmp_path / "other.db"
    sync_once(other, market.node.url, [market])
    kept = other.read_bytes()
    market.step(1)
    with (
        Moment(market.node.url, lambda number: other.replace(path) if number == 6 else None) as node,
        pytest.raises(StoreError, match="replaced by another file"),
    ):
        sync_once(path, node.url, [market])
    assert path.read_bytes() == kept
    sync_once(path, market.node.url, [market])
    check(path, market)


def test_a_pipe_or_a_device_is_no_database(market: AaveV3, tmp_path: Path) -> None:
    pipe, config = tmp_path / "pipe", tmp_path / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    os.mkfifo(pipe)
    for path in (pipe, Path(os.devnull)):
        for verb in ("sync", "at-risk"):
            told = one_line(config, path, verb, "--chain", "devnet")
            assert told == f"Error: {path} is no regular file: name a file with --db"


def test_what_cannot_be_written_is_told_in_one_line(market: AaveV3, tmp_path: Path) -> None:
    config = tmp_path / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    sync = ("sync", "--chain", "devnet")
    assert "No such file or directory" in one_line(config, tmp_path / "nowhere" / "indexer.db", *sync)
    subprocess.run(
        command(config, tmp_path, *sync, "--accounts", "all"), capture_output=True, check=True
    )  # a folder has a file a chain
    check(tmp_path / "devnet.db", market)
    with small_disk(tmp_path / "disk", "20m") as mount:
        path = tmp_path / "disk" / "indexer.db"
        sync_once(path, market.node.url, [market])
        before = content(path)
        mount("ro")
        assert "check its permissions" in one_line(config, path, *sync)
        assert "Read-only file system" in one_line(config, tmp_path / "disk" / "new.db", *sync)
        mount("rw")
        assert content(path) == before
        sync_once(path, market.node.url, [market])
        check(path, market)


def test_a_file_left_empty_by_a_kill_is_told_to_readers_and_taken_by_a_sync(market: AaveV3, tmp_path: Path) -> None:
    path, config = tmp_path / "empty.db", tmp_path / "indexer.toml"
    config.write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    path.touch()
    assert one_line(config, path, "at-risk") == f"Error: {path} holds nothing yet: run `indexer sync` first"
    sync = command(config, path, "sync", "--chain", "devnet", "--accounts", "all")
    subprocess.run([*sync, "--dry-run"], capture_output=True, check=True)
    subprocess.run(sync, capture_output=True, check=True)
    check(path, market)
