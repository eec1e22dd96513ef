"""Several chains at once: one process and one file each, started again where it dies, and one budget of requests."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from indexer.chain.budget import LONGEST_AHEAD, SharedPace
from tests.devnet import aave_v3, compound_v3
from tests.fleet.worlds import (
    ELSEWHERE,
    PATIENCE,
    World,
    alive,
    block_of,
    children,
    command,
    environment,
    mine_fast,
    run,
    wait_for,
    world,
    wrong,
)

#: calls a second that all chains together may send
RATE = 60


@pytest.fixture
def worlds(needs_node: None) -> Iterator[list[World]]:
    with ExitStack() as stack:
        quick = stack.enter_context(world("quick", 4001, lambda node: aave_v3.deploy(node, "3.6")))
        mine_fast(quick.node, 260)
        bloomless = world("bloomless", 4002, compound_v3.deploy, keys='bloom = "none"', faults={"bloom-zero": 1.0})
        elsewhere = world("elsewhere", 4003, lambda node: aave_v3.deploy(node, "3.0.2"), multicall3=ELSEWHERE)
        yield [quick, stack.enter_context(bloomless), stack.enter_context(elsewhere)]


@pytest.fixture
def folder(worlds: list[World], tmp_path: Path) -> Path:
    (tmp_path / "indexer.toml").write_text("".join(one.toml for one in worlds))
    return tmp_path


@contextmanager
def following(folder: Path, worlds: Sequence[World]) -> "Iterator[subprocess.Popen[str]]":
    """A `sync --follow` of all these chains, that ends with the context."""
    log = (folder / "log").open("a")
    process = subprocess.Popen(
        command(
            folder, "sync", "--chain", "all", "--follow", "--accounts", "all", "--every", "0",
            "--max-requests-per-second", str(RATE),
        ),
        env=environment(worlds), stderr=log, text=True,
    )  # fmt: skip
    log.close()
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def over_budget(worlds: Sequence[World], began: float) -> list[tuple[float, int]]:
    """Moments by which more calls had come than the rate allows from the beginning on."""
    came = sorted(at for one in worlds for at, _ in one.came if at >= began)
    return [(at - began, count) for count, at in enumerate(came, 1) if count > RATE * (at - began + 1) + 1]


def test_all_chains_of_one_command_are_right_and_in_a_file_each(worlds: list[World], folder: Path) -> None:
    done = run(folder, worlds, "sync", "--chain", "all", "--accounts", "all")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted((folder / "dbs").glob("*.db"))] == [
        "bloomless.db", "elsewhere.db", "quick.db", "watch.db",
    ]  # fmt: skip
    for one in worlds:
        assert block_of(folder, one) == one.node.block_number()
        assert wrong(folder, one) == []
        assert f"{one.name} block {one.node.block_number()}: " in done.stderr, "what its process told"
    assert "mainnet" in next(line for line in done.stderr.splitlines() if line.startswith("left out"))
    table = done.stderr[done.stderr.index("chain ") :]
    assert all(f"{one.name} " in table and str(one.node.block_number()) in table for one in worlds)


def test_all_chains_of_a_folder_are_verified_one_by_one_and_at_once(worlds: list[World], folder: Path) -> None:
    assert run(folder, worlds, "sync", "--chain", "all", "--accounts", "all").returncode == 0
    found = [run(folder, worlds, "verify", "--all", "--csv", *flags) for flags in ([], ["--scheduler", "processes:2"])]
    assert [one.returncode for one in found] == [0, 0], found
    assert found[0].stdout == found[1].stdout
    assert {line.split(",")[0] for line in found[0].stdout.splitlines()[1:]} == {one.market.name for one in worlds}
    path = folder / "dbs" / f"{worlds[1].name}.db"
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("update positions set debt_value_raw = '7' where debt_value_raw <> '0'")
        conn.commit()
    wrong_one = run(folder, worlds, "verify", "--all", "--scheduler", "processes:2")
    assert wrong_one.returncode == 1
    assert "differ" in wrong_one.stderr
    assert run(folder, worlds, "verify", "--all", "--chain", worlds[0].name).returncode == 0


def campaign(worlds: list[World], folder: Path, rounds: int, first: int = 0) -> None:
    """So many rounds of activity on each chain while children and parents are killed; in the end all is right.

    Each round has a seed of its own, from `first` on: the scenario's newcomers are new.
    """
    began = time.monotonic()
    ended = False
    number = first
    while not ended:
        with following(folder, worlds) as parent:
            wait_for("its children to start", lambda: len(children(parent)) == len(worlds))
            for _ in range(rounds // 2):
                number += 1
                for one in worlds:
                    one.act(number)
                target = {one.name: one.node.block_number() for one in worlds}
                victim = (children(parent) or [0])[number % len(worlds) % max(len(children(parent)), 1)]
                if victim and number % 2:
                    os.kill(victim, signal.SIGKILL)
                wait_for(
                    f"snapshots of {target}",
                    lambda: all(block_of(folder, one) >= target[one.name] for one in worlds),  # noqa: B023
                )
            ended = number >= first + rounds
            if ended:
                parent.send_signal(signal.SIGTERM)
                assert parent.wait(PATIENCE) == 0
            else:
                orphans = children(parent)
                parent.kill()
                parent.wait()
                wait_for("orphans to end", lambda: not any(alive(one) for one in orphans))  # noqa: B023
    assert over_budget(worlds, began) == []
    for one in worlds:
        assert wrong(folder, one) == []


def test_chains_are_followed_right_while_children_and_parents_are_killed(worlds: list[World], folder: Path) -> None:
    campaign(worlds, folder, 6)


@pytest.mark.long
def test_chains_are_followed_right_for_long_while_children_and_parents_are_killed(
    worlds: list[World], folder: Path
) -> None:
    began, first = time.monotonic(), 0
    while time.monotonic() - began < 600:
        campaign(worlds, folder, 20, first)
        first += 20


def test_one_chain_that_gives_up_leaves_the_others_right(worlds: list[World], folder: Path) -> None:
    worlds[1].proxy.refuse_all = (-32000, "this endpoint is closed")
    done = run(folder, worlds, "sync", "--chain", "all", "--accounts", "all")
    assert done.returncode == 1
    assert "1 of 3 chains gave up: bloomless" in done.stderr
    assert [wrong(folder, one) for one in (worlds[0], worlds[2])] == [[], []]


@pytest.mark.parametrize(
    ("flags", "db", "told"),
    [
        (["--chain", "quick", "--chain", "elsewhere"], "one.db", "--db DIR/"),
        (["--chain", "all", "--rpc-url", "http://127.0.0.1:1"], "dbs/", "--rpc-url"),
        (["--chain", "all", "--to", "5"], "dbs/", "--to 5"),
        (["--chain", "all", "--since", "5", "--liquidations"], "dbs/", "--since BLOCK"),
        (["--chain", "all", "--follow", "--nl"], "dbs/", "--nl"),
        (["--chain", "nowhere", "--chain", "quick"], "dbs/", "nowhere"),
    ],
)
def test_what_several_chains_cannot_have_is_refused_and_makes_nothing(
    worlds: list[World], folder: Path, flags: list[str], db: str, told: str
) -> None:
    done = run(folder, worlds, "sync", *flags, db=db)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    assert not (folder / "dbs").exists()


def test_a_chain_in_two_files_is_named_with_both(worlds: list[World], folder: Path) -> None:
    assert run(folder, worlds, "sync", "--chain", "quick").returncode == 0
    (folder / "dbs" / "quick.db").rename(folder / "dbs" / "old.db")
    done = run(folder, worlds, "sync", "--chain", "quick")
    assert done.returncode == 1
    assert "dbs/old.db" in done.stderr
    assert "dbs/quick.db" in done.stderr
    (folder / "dbs" / "old.db").rename(folder / "dbs" / "quick.db")
    (folder / "dbs" / "copy.db").write_bytes((folder / "dbs" / "quick.db").read_bytes())
    done = run(folder, worlds, "sync", "--chain", "elsewhere")
    assert done.returncode == 1
    assert "copy.db" in done.stderr
    assert "quick.db" in done.stderr
    assert not (folder / "dbs" / "elsewhere.db").exists()


def test_a_second_command_does_not_share_a_folder(worlds: list[World], folder: Path) -> None:
    with following(folder, worlds) as parent:
        wait_for("its children to start", lambda: len(children(parent)) == len(worlds))
        done = run(folder, worlds, "sync", "--chain", "all")
        assert done.returncode == 1
        assert "another sync is writing" in done.stderr
        assert "its process" not in done.stderr, "it starts none"


# the budget -------------------------------------------------------------------------------------------------------------


def test_processes_that_share_a_budget_send_no_more_than_one(tmp_path: Path) -> None:
    """Each reserves in turn; the times that they get are as far apart as for a single one."""
    paces = [SharedPace(tmp_path / "budget", 10.0) for _ in range(3)]
    times = sorted(pace.reserve(100.0, 2) for _ in range(10) for pace in paces)
    assert all(sum(2 for at in times if start <= at < start + 1) <= 10 for start in times)
    assert times[-1] - times[0] >= 2 * 29 / 10 - 1


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"free": 100 + 2 * LONGEST_AHEAD, "sent": []})])
def test_a_budget_that_cannot_be_right_is_begun_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "budget").write_text(text)
    assert SharedPace(tmp_path / "budget", 10.0).reserve(100.0, 1) == 100.0
