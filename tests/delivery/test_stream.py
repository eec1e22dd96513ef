"""The change stream as a program reads it: from standard output and by a webhook, slow, dead, killed and caught up."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from indexer.cli.main import main
from indexer.delivery import receivers, stream
from indexer.delivery.receivers import Webhook, bodies
from indexer.delivery.stream import Reader, Receiver, snapshot_lines
from indexer.errors import StoreError
from indexer.store import changes
from indexer.store.store import Store
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID
from tests.devnet.scenario import config_toml
from tests.receivers import until
from tests.streaming import at_risk, replayed, validator
from tests.truth import raw, sync_once

SECRET = "s3cr3tt0ken"


class Program:
    """`indexer sync --follow` as a process of its own; `lines` are those that were read of its standard output."""

    def __init__(self, folder: Path, market: AaveV3, *flags: str, read: bool = True) -> None:
        self.path = folder / "indexer.db"
        config = folder / "indexer.toml"
        config.write_text(config_toml(CHAIN_ID, market.node.url, [market]))
        command = [sys.executable, "-m", "indexer", "--config", str(config), "--db", str(self.path)]
        self.said = (folder / "stderr.txt").open("a+")
        self.process = subprocess.Popen(
            [*command, "sync", "--chain", "devnet", "--follow", *flags],
            stdout=subprocess.PIPE,
            stderr=self.said,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.lines: list[dict[str, Any]] = []
        self.reading = threading.Thread(target=self._read, daemon=True)
        if read:
            self.reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith(b"\n"):  # the last one of a process that was killed may be cut off
                self.lines.append(json.loads(line))

    def reaches(self, market: AaveV3, seconds: float = 60) -> None:
        """Waits for the snapshot of the head, whoever reads."""
        head = market.node.block_number()
        sql = "select max(block_number) from deployments"
        until(lambda: self.path.exists() and tables(self.path) and raw(self.path, sql) == [(head,)], seconds)

    def tells(self, market: AaveV3, seconds: float = 60) -> None:
        """Waits for the last line of the head."""
        head = market.node.block_number()
        until(lambda: bool(self.lines) and self.lines[-1]["block_number"] == head and self.closed(), seconds)

    def closed(self) -> bool:
        return self.lines[-1]["kind"] in ("block", "snapshot")

    def stderr(self) -> str:
        self.said.seek(0)
        return self.said.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.reading.ident is not None:
            self.reading.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.said.close()


def tables(path: Path) -> bool:
    return raw(path, "select count(*) from sqlite_master where name = 'changes'") == [(1,)]


def shaken(market: AaveV3, times: int) -> None:
    for number in range(times):
        market.move_price("WETH", 0.97 if number % 2 else 1.02)


@pytest.fixture
def program(aave_v3_6: AaveV3, tmp_path: Path) -> Iterator[Program]:
    with closing(Program(tmp_path, aave_v3_6, "--nl")) as running:
        yield running


def test_a_stream_begins_with_everything_and_goes_on(program: Program, aave_v3_6: AaveV3) -> None:
    program.reaches(aave_v3_6)
    for factor in (0.9, 0.9, 1.2):
        aave_v3_6.move_price("WETH", factor)
        program.tells(aave_v3_6)
        assert replayed(program.lines) == at_risk(program.path)
    assert program.lines[0]["kind"] == "snapshot"
    assert [line["kind"] for line in program.lines].count("snapshot") == 1
    assert len({line["id"] for line in program.lines}) == len(program.lines)
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(30) == 0


def test_killed_and_caught_up_nothing_is_lost_nor_told_twice_under_two_ids(aave_v3_6: AaveV3, tmp_path: Path) -> None:
    """Twice the program dies in the middle; the reader goes on from the block of its last line."""
    kept: dict[tuple[int, int], dict[str, Any]] = {}
    since: list[str] = []
    for _ in range(3):
        with closing(Program(tmp_path, aave_v3_6, "--nl", *since)) as program:
            shaken(aave_v3_6, 2)
            program.tells(aave_v3_6)
            shaken(aave_v3_6, 1)
            until(lambda: program.lines[-1]["block_number"] is not None)
        for line in program.lines:
            if line["kind"] == "snapshot":
                assert not kept
            again = kept.setdefault((line["id"], line.get("part", 0)), line)
            assert again == line
        since = ["--since", str(program.lines[-1]["block_number"])]
        shaken(aave_v3_6, 1)
    with closing(Program(tmp_path, aave_v3_6, "--nl", *since)) as program:
        program.tells(aave_v3_6)
        for line in program.lines:
            assert kept.setdefault((line["id"], line.get("part", 0)), line) == line
        assert replayed(line for _, line in sorted(kept.items())) == at_risk(program.path)


def test_a_reader_that_sleeps_holds_nothing_up_and_misses_nothing(aave_v3_6: AaveV3, tmp_path: Path) -> None:
    with closing(Program(tmp_path, aave_v3_6, "--nl", read=False)) as program:
        program.reaches(aave_v3_6)
        for _ in range(12):  # more than a pipe holds
            shaken(aave_v3_6, 1)
            program.reaches(aave_v3_6)
        ((size,),) = raw(program.path, "select sum(length(body)) from changes")
        assert size > 65_536
        program.reading.start()
        program.tells(aave_v3_6)
        assert replayed(program.lines) == at_risk(program.path)


def test_a_reader_that_sleeps_does_not_keep_the_program_from_ending(aave_v3_6: AaveV3, tmp_path: Path) -> None:
    with closing(Program(tmp_path, aave_v3_6, "--nl", read=False)) as program:
        program.reaches(aave_v3_6)
        shaken(aave_v3_6, 12)
        program.reaches(aave_v3_6)
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(30) == 0
        assert "Stopped." in program.stderr()


def test_a_reader_that_dies_does_not_end_the_sync(aave_v3_6: AaveV3, tmp_path: Path) -> None:
    with closing(Program(tmp_path, aave_v3_6, "--nl", read=False)) as program:
        program.reaches(aave_v3_6)
        assert program.process.stdout is not None
        program.process.stdout.close()
        for _ in range(3):
            shaken(aave_v3_6, 1)
            program.reaches(aave_v3_6)
        until(lambda: "the stream to standard output ends, the sync goes on" in program.stderr())
        assert program.process.poll() is None


class Slow(Receiver):
    """Takes its time over a few lines; what it took, in order."""

    place = "somebody slow"

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []

    def take(self, lines: Sequence[bytes], stopped: threading.Event) -> None:
        stopped.wait(0.02)
        self.taken += map(json.loads, lines)


def test_a_slow_receiver_gets_every_line_once_in_the_order_of_ids(
    aave_v3_6: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While new ones are written, and more of them than it takes at once."""
    monkeypatch.setattr(stream, "LINES_AT_ONCE", 3)
    path, slow = tmp_path / "indexer.db", Slow()
    sync_once(path, aave_v3_6.node.url, [aave_v3_6])
    ((oldest,),) = raw(path, "select max(id) from changes")
    reader = Reader(path, CHAIN_ID, slow)
    reader.start()
    until(lambda: bool(slow.taken))
    for factor in (0.9, 0.9, 1.2):
        aave_v3_6.move_price("WETH", factor)
        sync_once(path, aave_v3_6.node.url, [aave_v3_6])
        reader.wake()
    ((newest,),) = raw(path, "select max(id) from changes")
    until(lambda: slow.taken[-1]["id"] >= newest)
    reader.stop(10)
    first, *rest = slow.taken
    assert (first["kind"], first["id"]) == ("snapshot", oldest)
    assert [line["id"] for line in rest] == [
        i for (i,) in raw(path, f"select id from changes where id > {first['id']} order by id")
    ]
    assert len(rest) > 3 * 3
    assert replayed(slow.taken) == at_risk(path)


# webhook --------------------------------------------------------------------------------------------------------------


class Hook:
    """An HTTP endpoint whose answers are `answers`, then `last`; what it took and was asked, in order."""

    def __init__(self, server: HTTPServer) -> None:
        self.answers: list[int] = []
        self.last = 204
        self.headers: dict[str, str] = {}
        self.asked: list[bytes] = []
        self.taken: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.url = server.url_for(f"/{SECRET}/hook")
        server.expect_request(f"/{SECRET}/hook", method="POST").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        body = request.get_data()
        self.asked.append(body)
        status = self.answers.pop(0) if self.answers else self.last
        if 200 <= status < 300:
            assert request.headers["Content-Type"] == "application/x-ndjson"
            self.keys.append(request.headers["Idempotency-Key"])
            self.taken += map(json.loads, body.splitlines())
        return Response(status=status, headers=self.headers)


def told_by_us(caplog: pytest.LogCaptureFixture) -> str:
    """Without what the test's own server says."""
    return "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("indexer"))


@pytest.fixture
def hook(httpserver: HTTPServer) -> Hook:
    return Hook(httpserver)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(stream, "REST_SECONDS", 0.3)
    monkeypatch.setattr(stream, "LOOK_SECONDS", 0.05)


@pytest.fixture
def synced(aave_v3_6: AaveV3, tmp_path: Path) -> Path:
    path = tmp_path / "hook.db"
    sync_once(path, aave_v3_6.node.url, [aave_v3_6])
    return path


def test_a_webhook_gets_every_line_in_bounded_bodies(
    aave_v3_6: AaveV3, synced: Path, hook: Hook, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "LONGEST_BODY", 3_000)
    monkeypatch.setattr(Webhook, "longest_line", 3_000)
    aave_v3_6.move_price("WETH", 0.8)
    sync_once(synced, aave_v3_6.node.url, [aave_v3_6])
    reader = Reader(synced, CHAIN_ID, Webhook(hook.url))
    reader.start()
    for factor in (0.9, 1.15):
        aave_v3_6.move_price("WETH", factor)
        sync_once(synced, aave_v3_6.node.url, [aave_v3_6])
        reader.wake()
        head = aave_v3_6.node.block_number()
        until(lambda: bool(hook.taken) and hook.taken[-1]["block_number"] == head and hook.taken[-1]["kind"] == "block")  # noqa: B023
        assert replayed(hook.taken) == at_risk(synced)
    reader.stop(10)
    assert max(map(len, hook.asked)) <= 3_000
    assert hook.taken[0]["parts"] > 1
    assert len(set(hook.keys)) == len(hook.keys)


def test_a_webhook_that_fails_gets_the_same_body_again(synced: Path, hook: Hook, impatient: None) -> None:
    hook.answers = [503, 429]
    reader = Reader(synced, CHAIN_ID, Webhook(hook.url))
    reader.start()
    until(lambda: bool(hook.taken))
    reader.stop(10)
    assert hook.asked[0] == hook.asked[1] == hook.asked[2]


@pytest.mark.parametrize("body", ["[" * 10**6, "[]", "", '{"block_timestamp": NaN}'])
def test_a_change_that_was_spoilt_in_the_file_is_named_and_waits(
    synced: Path, hook: Hook, impatient: None, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    sql = "insert into changes (chain_id, block_number, block_hash, kind, body) values (?, 1, '0x', 'block', ?)"
    with closing(sqlite3.connect(synced)) as conn, conn:
        conn.execute(sql, (CHAIN_ID, '{"block_timestamp":1}'))
    reader = Reader(synced, CHAIN_ID, Webhook(hook.url))
    reader.start()
    until(lambda: bool(hook.taken))
    with closing(sqlite3.connect(synced)) as conn, conn:
        spoilt = conn.execute(sql, (CHAIN_ID, body)).lastrowid
        conn.execute(sql, (CHAIN_ID, '{"block_timestamp":2}'))
    reader.wake()
    until(lambda: f"changes.body of id {spoilt} is damaged" in told_by_us(caplog))
    with (
        Store(synced) as store,
        pytest.raises(StoreError, match=f"id {spoilt} is damaged"),
        store.transaction(),
        changes.noted(store.conn, CHAIN_ID, changes.Place(2, "0x", 10**10)),
    ):
        pass
    with closing(sqlite3.connect(synced)) as conn, conn:
        conn.execute("update changes set body = ? where id = ?", ('{"block_timestamp":3}', spoilt))
    reader.wake()
    until(lambda: [line["block_timestamp"] for line in hook.taken if line["id"] >= spoilt] == [3, 2])
    reader.stop(10)


@pytest.mark.parametrize("status", [500, 404, 302])
def test_tries_are_bounded_and_then_comes_a_snapshot(
    aave_v3_6: AaveV3, synced: Path, hook: Hook, impatient: None, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """A redirect is not followed; what a receiver refuses for good is not tried at once again."""
    hook.last = status
    hook.headers = {"Location": "http://127.0.0.1:1/elsewhere"} if status == 302 else {}
    reader = Reader(synced, CHAIN_ID, Webhook(hook.url))
    with caplog.at_level(logging.INFO, logger="indexer"):
        reader.start()
        until(lambda: "gets a snapshot" in caplog.text)
    assert len(hook.asked) == (len(receivers.PAUSES) + 1 if status == 500 else 1)
    assert f"HTTP {status}" in caplog.text
    assert SECRET not in told_by_us(caplog)
    hook.last = 200
    aave_v3_6.move_price("WETH", 0.9)
    sync_once(synced, aave_v3_6.node.url, [aave_v3_6])
    until(lambda: bool(hook.taken) and replayed(hook.taken) == at_risk(synced))
    assert hook.taken[0]["kind"] == "snapshot"
    reader.stop(10)


def test_a_receiver_that_is_down_is_named_without_secrets(
    synced: Path, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader(synced, CHAIN_ID, Webhook(f"http://user:{SECRET}@127.0.0.1:1/{SECRET}?key={SECRET}"))
    with caplog.at_level(logging.INFO, logger="indexer"):
        reader.start()
        until(lambda: "takes nothing" in caplog.text)
    reader.stop(10)
    assert "127.0.0.1" in told_by_us(caplog)
    assert SECRET not in told_by_us(caplog)


def test_a_webhook_that_hangs_holds_nothing_up(aave_v3_6: AaveV3, tmp_path: Path, httpserver: HTTPServer) -> None:
    release = threading.Event()

    def hang(_: Request) -> Response:
        release.wait(60)
        return Response(status=204)

    httpserver.expect_request("/hang").respond_with_handler(hang)
    with closing(Program(tmp_path, aave_v3_6, "--webhook", httpserver.url_for("/hang"))) as program:
        program.reaches(aave_v3_6)
        for _ in range(3):
            shaken(aave_v3_6, 1)
            program.reaches(aave_v3_6)
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(30) == 0
    release.set()


# a reader that is too slow, lines and bodies -----------------------------------------------------------------------------


def test_a_reader_that_fell_behind_what_is_kept_gets_a_snapshot(
    aave_v3_6: AaveV3, synced: Path, hook: Hook, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LOOK_SECONDS", 600.0)  # it sleeps until it is woken
    monkeypatch.setattr(changes, "KEPT_ROWS", 1)
    ((block,),) = raw(synced, "select max(block_number) from changes")
    reader = Reader(synced, CHAIN_ID, Webhook(hook.url), since=block)
    reader.start()
    until(lambda: bool(hook.taken))
    assert "snapshot" not in {line["kind"] for line in hook.taken}
    before = len(hook.taken)
    for _ in range(2):
        aave_v3_6.move_price("WETH", 0.9)
        sync_once(synced, aave_v3_6.node.url, [aave_v3_6])
    reader.wake()
    until(lambda: len(hook.taken) > before)
    reader.stop(10)
    assert hook.taken[before]["kind"] == "snapshot"
    assert replayed(hook.taken[before:]) == at_risk(synced)


def test_a_snapshot_is_cut_into_parts_that_fit() -> None:
    head = {"version": 1, "id": 7, "kind": "snapshot"}
    rows = [{"deployment": "d", "account": f"a{number}", "note": "n" * (number % 50)} for number in range(200)]
    (whole,) = snapshot_lines(head, rows, None)
    assert json.loads(whole)["rows"] == rows
    parts = snapshot_lines(head, rows, 1_000)
    assert max(map(len, parts)) <= 1_000
    assert [row for part in parts for row in json.loads(part)["rows"]] == rows
    assert [json.loads(part)["part"] for part in parts] == list(range(1, len(parts) + 1))
    assert [len(json.loads(part)["rows"]) for part in snapshot_lines(head, rows[:2], 1)] == [1, 1]
    assert json.loads(snapshot_lines(head, [], 1_000)[0])["rows"] == []


def test_bodies_keep_the_order_and_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "LONGEST_BODY", 10)
    assert list(bodies([b"aaaa\n", b"bbbb\n", b"c\n", b"d" * 20 + b"\n", b"e\n"])) == [
        [b"aaaa\n", b"bbbb\n"],
        [b"c\n"],
        [b"d" * 20 + b"\n"],
        [b"e\n"],
    ]


def test_the_schema_refuses_what_is_no_line() -> None:
    line = {
        "version": 1, "id": 1, "kind": "block", "chain_id": 1, "block_number": 5, "block_hash": "", "block_timestamp": None,
    }  # fmt: skip
    assert validator().is_valid(line)
    for wrong in ({"kind": "moved"}, {"version": 2}, {"id": "1"}, {"block_hash": "0x12"}, {"kind": "entered"}):
        assert not validator().is_valid({**line, **wrong})


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--nl"], "a sync prints no rows"),
        (["--webhook", "http://127.0.0.1:9/x"], "--webhook is for --follow"),
        (["--follow", "--webhook", f"ftp://host/{SECRET}"], "no http:// or https:// URL"),
        (["--follow", "--webhook", f"http:///{SECRET}"], "no http:// or https:// URL"),
        (["--follow", "--nl", "--since", "7d"], "--since of a stream is a block"),
        (["--follow", "--since", "7"], "--since is for"),
        (["--follow", "--json"], "a sync prints no rows"),
        (["--follow", "--nl", "-o", "x.ndjson"], "a sync prints no rows"),
    ],
)
def test_flags_that_do_not_go_together(flags: list[str], reason: str, tmp_path: Path) -> None:
    config = tmp_path / "indexer.toml"
    config.write_text('[chains.devnet]\nchain_id = 1337\nrpc = ["http://127.0.0.1:1"]\n')
    words = ["--config", str(config), "--db", str(tmp_path / "no.db"), "sync", *flags]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2, result.output
    assert reason in result.stderr
    assert SECRET not in result.stderr
    assert not (tmp_path / "no.db").exists()


# watching -------------------------------------------------------------------------------------------------------------


def test_one_process_keeps_the_book_and_judges_the_rules(aave_v3_6: AaveV3, tmp_path: Path) -> None:
    """Alerts come by a command, lines on standard output, and everyone is synced, not the watched alone."""
    path, told = tmp_path / "indexer.db", tmp_path / "alerts.ndjson"
    sync_once(path, aave_v3_6.node.url, [aave_v3_6], "borrowers")
    ((wallet, health, count),) = raw(
        path,
        "select wallet, health_factor, (select count(*) from positions) from positions "
        "where status = 'healthy' order by health_factor limit 1",
    )
    script = tmp_path / "take.sh"
    script.write_text(f'#!/bin/sh\ncat >> "{told}"\n')
    script.chmod(0o700)
    added = CliRunner().invoke(main, ["--db", str(path), "watch", "add", wallet, "--below", f"{health + 0.2:.6f}"])
    assert added.exit_code == 0, added.output
    flags = ["--nl", "--watch", "--command", str(script)]
    with closing(Program(tmp_path, aave_v3_6, *flags)) as program:
        program.tells(aave_v3_6)
        for symbol in ("WETH", "wstETH", "WBTC", "LINK"):
            aave_v3_6.move_price(symbol, 0.9)
        program.tells(aave_v3_6)
        until(told.exists)
        until(lambda: told.read_text().endswith("\n"))
        assert replayed(program.lines) == at_risk(path)
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(30) == 0
    alerts = [json.loads(line) for line in told.read_text().splitlines()]
    assert {alert["wallet"] for alert in alerts} == {wallet}
    assert "crossed" in {alert["event"] for alert in alerts}
    assert raw(path, "select count(*) from positions") == [(count,)]
    assert raw(path, "select distinct accounts from deployments") == [("borrowers",)]
    ((judged, synced),) = raw(
        path, "select (select max(block_number) from watch_states), (select max(block_number) from deployments)"
    )
    assert judged == synced


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--watch"], "--watch is for --follow"),
        (["--follow", "--stdout"], "are for --follow --watch"),
        (["--follow", "--watch", "--nl"], "cannot share standard output"),
    ],
)
def test_flags_of_watching_that_do_not_go_together(flags: list[str], reason: str, tmp_path: Path) -> None:
    config = tmp_path / "indexer.toml"
    config.write_text(
        '[chains.devnet]\nchain_id = 1337\nrpc = ["http://127.0.0.1:1"]\n[deployments.x]\nprotocol = "compound-v3"\n'
        'chain = "devnet"\nstart_block = 0\naddresses = { comet = "0x' + "1" * 40 + '" }\n'
    )
    words = ["--config", str(config), "--db", str(tmp_path / "no.db"), "sync", "--chain", "devnet", *flags]
    done = subprocess.run([sys.executable, "-m", "indexer", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert reason in done.stderr
