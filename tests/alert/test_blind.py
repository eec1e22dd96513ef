"""The watch that cannot see says so: an alert of kind `blind`, once, and its end, whatever the reason."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from indexer.alert.blind import Lookout
from indexer.alert.watches import Watch, add
from indexer.store.store import Store
from tests.devnet import aave_v3
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import config_toml
from tests.receivers import Hook, until

ROOT = Path(__file__).parents[2]
NOW = 1_800_000_000
AFTER = 600.0


class Nowhere:
    """A channel whose messages stay in the outbox."""

    key = place = "nowhere"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store(tmp_path / "watch.db") as store:
        for name in ("a", "b", "c"):
            store.register(1, name, "aave-v3", "borrowers")
    return tmp_path / "watch.db"


def made(path: Path, **times: int | None) -> None:
    """Sets when the blocks of the newest rows were made."""
    with sqlite3.connect(path) as conn:
        for name, at in times.items():
            conn.execute(
                "update deployments set block_timestamp = ?1, block_number = ?1 / 12, block_hash = '0x1' where deployment = ?2",
                (at, name),
            )


def lookout(path: Path, *names: str) -> Lookout:
    return Lookout(path, "devnet", 1, names, [Nowhere()], AFTER)  # type: ignore[list-item]


def said(path: Path) -> list[tuple[str, int, list[str]]]:
    with sqlite3.connect(path) as conn:
        bodies = [json.loads(body) for (body,) in conn.execute("select body from alerts order by number")]
        (queued,) = conn.execute("select count(*) from deliveries where state = 'pending'").fetchone()
    assert queued == len(bodies)
    return [(b["event"], b["crossing"], [d["deployment"] for d in b["deployments"]]) for b in bodies]


def test_old_rows_are_told_once_and_so_is_their_end(path: Path) -> None:
    made(path, a=NOW, b=NOW)
    for later in (0, 600, 601, 700, 5_000):
        assert lookout(path, "a", "b").look(NOW + later) == (later == 601)  # each time a new process
    made(path, a=NOW + 5_000, b=NOW + 5_000)
    for later in (5_001, 5_100):
        assert lookout(path, "a", "b").look(NOW + later) == (later == 5_001)
    assert said(path) == [("crossed", 1, ["a", "b"]), ("recovered", 1, ["a", "b"])]
    assert lookout(path, "a", "b").look(NOW + 6_000) == 1
    assert said(path)[-1] == ("crossed", 2, ["a", "b"])


def test_a_clock_that_was_set_back_leaves_the_watch_blind(path: Path) -> None:
    """Whatever stops then would look young for as long as the clock is behind."""
    made(path, a=NOW)
    assert lookout(path, "a").look(NOW - 500) == 0
    assert lookout(path, "a").look(NOW - 7_200) == 1
    assert lookout(path, "a").look(NOW - 7_100) == 0
    with sqlite3.connect(path) as conn:
        assert "2 h ahead of this machine's clock" in conn.execute("select body from alerts").fetchone()[0]
    assert lookout(path, "a").look(NOW + 10) == 1
    assert [event for event, *_ in said(path)] == ["crossed", "recovered"]


def test_a_deployment_that_stays_behind_is_told_beside_one_that_did_before(path: Path) -> None:
    made(path, a=NOW - 10_000, b=NOW, c=NOW)
    lookout(path, "a", "b").look(NOW)
    made(path, a=NOW - 10_000)
    lookout(path, "a", "b").look(NOW + 601)
    made(path, b=NOW + 700)
    lookout(path, "a", "b").look(NOW + 700)
    assert said(path) == [("crossed", 1, ["a"]), ("crossed", 2, ["b"]), ("recovered", 2, ["b"])]


def test_a_watch_that_just_began_is_given_its_time(path: Path) -> None:
    made(path, a=NOW - 90_000)
    watch = lookout(path, "a", "b")
    assert watch.look(NOW + 600, since=NOW) == 0
    assert watch.look(NOW + 601, since=NOW) == 1
    assert said(path) == [("crossed", 1, ["a", "b"])]
    assert watch.look(NOW + 700, since=NOW + 650) == 0  # started again: no rows were read, so nothing recovered
    assert said(path) == [("crossed", 1, ["a", "b"])]


def test_the_alert_names_age_note_and_reason_and_has_no_position(path: Path) -> None:
    made(path, a=NOW - 3 * 3_600)
    with sqlite3.connect(path) as conn:
        conn.execute("update deployments set note = 'no contract\x1b[31m' where deployment = 'a'")
    watch = lookout(path, "a")
    watch.reason = "http://127.0.0.1:9: connection refused"
    watch.look(NOW)
    with sqlite3.connect(path) as conn:
        conn.row_factory = sqlite3.Row
        row = dict(conn.execute("select * from alerts").fetchone())
    assert (row["kind"], row["rule"], row["chain_id"], row["block_timestamp"]) == ("blind", "blind", 1, NOW - 3 * 3_600)
    assert [row[name] for name in ("deployment", "account", "position_group", "wallet", "health_factor_raw")] == [
        None
    ] * 5
    body = json.loads(row["body"])
    assert body["title"] == "Blind: devnet: a"
    assert body["deployments"][0]["age_seconds"] == 3 * 3_600
    for words in ("3 h old", "connection refused", "no contract\\x1b[31m"):
        assert words in body["text"]


def test_zero_seconds_say_nothing(path: Path) -> None:
    made(path, a=1)
    assert Lookout(path, "devnet", 1, ["a"], [], 0.0).look(NOW) == 0
    assert said(path) == []


# the whole program ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def market(needs_node: None) -> Iterator[aave_v3.AaveV3]:
    with Anvil(timestamp=int(time.time()) - 60 * 86_400) as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.0.2")
        market.populate(3, 12)
        yield market


def program(tmp_path: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "indexer", "--db", str(tmp_path / "w.db"), *arguments, "--chain", "devnet"]


def check(tmp_path: Path, *flags: str) -> tuple[int, list[dict[str, Any]], str]:
    return ended(tmp_path, "watch", "check", *flags)


def ended(tmp_path: Path, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """A command's exit code, the alerts it printed, and what it said."""
    done = subprocess.run(
        program(tmp_path, *arguments),
        cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def now_on(market: aave_v3.AaveV3) -> None:
    """Brings the chain's clock to the time on the wall."""
    market.node.elapse(max(int(time.time()) - market.node.timestamp(), 1))


def test_check_tells_of_a_head_that_stands_still_and_of_a_node_that_is_down(
    market: aave_v3.AaveV3, tmp_path: Path
) -> None:
    url = market.node.url
    (tmp_path / "indexer.toml").write_text(config_toml(CHAIN_ID, url, [market]))
    with Store(tmp_path / "w.db") as store:
        add(store, [Watch(market.users[0], None, None, ())])
    code, lines, errors = check(tmp_path)  # the newest block is an hour old or more
    assert (code, [(a["kind"], a["event"]) for a in lines if a["kind"] == "blind"]) == (1, [("blind", "crossed")])
    assert "has rows that are" in errors
    code, lines, _ = check(tmp_path, "--max-age", "100w")  # said already, and old enough for him who asks
    assert (code, [a for a in lines if a["kind"] == "blind"]) == (0, [])
    now_on(market)
    code, lines, _ = check(tmp_path)
    assert (code, [(a["kind"], a["event"]) for a in lines if a["kind"] == "blind"]) == (0, [("blind", "recovered")])
    # a node that is down says nothing against young rows, but nothing was read either
    (tmp_path / "indexer.toml").write_text(config_toml(CHAIN_ID, "http://127.0.0.1:9", [market]))
    code, lines, errors = check(tmp_path)
    assert (code, lines) == (1, [])
    assert "is the node running" in errors
    with sqlite3.connect(tmp_path / "w.db") as conn:
        conn.execute("update deployments set block_timestamp = block_timestamp - 3600")
    code, lines, _ = check(tmp_path)
    assert (code, [(a["kind"], a["event"]) for a in lines]) == (1, [("blind", "crossed")])
    assert "is the node running" in lines[0]["text"]


def test_run_tells_while_it_watches(market: aave_v3.AaveV3, tmp_path: Path) -> None:
    now_on(market)
    (tmp_path / "indexer.toml").write_text(
        config_toml(CHAIN_ID, market.node.url, [market]) + "\n[alerts]\nblind_after_seconds = 4\n"
    )
    with Store(tmp_path / "w.db") as store:
        add(store, [Watch(market.users[0], None, None, ())])
    with Hook() as hook:
        now_on(market)
        process = subprocess.Popen(
            program(tmp_path, "watch", "run", "--notify", hook.url), cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        try:

            def blind() -> list[str]:
                return [t["alert"]["event"] for t in hook.taken if t["alert"]["kind"] == "blind"]

            until(lambda: blind() == ["crossed"], 60)
            now_on(market)
            until(lambda: blind()[:2] == ["crossed", "recovered"], 60)
        finally:
            process.terminate()
            assert process.wait(30) == 0


@pytest.mark.parametrize("words", [("watch", "run"), ("sync", "--follow", "--watch", "--stdout")])
def test_a_watch_that_cannot_even_connect_tells_before_it_ends(
    market: aave_v3.AaveV3, tmp_path: Path, words: Sequence[str]
) -> None:
    (tmp_path / "indexer.toml").write_text(config_toml(CHAIN_ID, "http://127.0.0.1:9", [market]))
    with Store(tmp_path / "w.db") as store:
        add(store, [Watch(market.users[0], None, None, ())])
    code, lines, errors = ended(tmp_path, *words)
    assert (code, [(a["kind"], a["event"]) for a in lines]) == (1, [("blind", "crossed")])
    assert "no rows yet" in lines[0]["text"]
    assert "is the node running" in lines[0]["reason"]
    assert "is the node running" in errors
    code, lines, _ = ended(tmp_path, *words)
    assert (code, lines) == (1, [])
