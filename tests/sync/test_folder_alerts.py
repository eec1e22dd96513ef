"""Alerts over a folder: the rules of watch.db judged on every chain, each alert once, whoever is killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from indexer.alert.blind import Lookout
from indexer.delivery.queue import collect
from indexer.fleet.member import Member, State
from indexer.jobs.folder_alerts import FolderDesk
from indexer.metrics.meters import PREFIX
from indexer.store.database import open_readonly
from indexer.store.store import Store
from tests.devnet import aave_v3
from tests.fleet.worlds import (
    ELSEWHERE,
    PATIENCE,
    World,
    alive,
    block_of,
    children,
    command,
    environment,
    run,
    wait_for,
    world,
)
from tests.truth import raw

#: what becomes of the price of WETH, which both chains have within 2 %
PART = 0.7
APPEND = "import sys; open({0!r}, 'a').write(sys.stdin.read().strip() + chr(10))"


@pytest.fixture
def worlds(needs_node: None) -> Iterator[list[World]]:
    with ExitStack() as stack:
        first = stack.enter_context(world("first", 4001, lambda node: aave_v3.deploy(node, "3.6")))
        second = world("second", 4002, lambda node: aave_v3.deploy(node, "3.0.2"), multicall3=ELSEWHERE)
        yield [first, stack.enter_context(second)]


@pytest.fixture
def folder(worlds: list[World], tmp_path: Path) -> Path:
    (tmp_path / "indexer.toml").write_text("".join(one.toml for one in worlds))
    return tmp_path


@contextmanager
def watching(folder: Path, worlds: Sequence[World]) -> "Iterator[subprocess.Popen[str]]":
    """A `sync --follow --watch` of both chains, that ends with the context; alerts become lines of the file `told`."""
    script = folder / "append.py"
    script.write_text(APPEND.format(str(folder / "told")))
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            command(
                folder, "sync", "--chain", "all", "--follow", "--watch", "--every", "0",
                "--command", f"{sys.executable} {script}", "--metrics-file", str(folder / "all.prom"),
            ),
            env=environment(worlds), stderr=log, text=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def told(folder: Path) -> list[dict[str, Any]]:
    """What was delivered, in order."""
    path = folder / "told"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def about(folder: Path, chain: str, rule: str) -> list[tuple[str, int]]:
    """Event and number of crossing of what was delivered about a rule on a chain."""
    return [(a["event"], a["crossing"]) for a in told(folder) if (a["chain"], a["rule"]) == (chain, rule)]


def price(one: World, share: float, before: int) -> int:
    """Sets WETH to a share of its price and answers the block from which on it holds."""
    one.market.set_price("WETH", int(before * share))
    one.node.mine(1)
    return one.node.block_number()


def endangered(one: World, before: int) -> tuple[str, int, int]:
    """Somebody whose health hangs on WETH, and what the contract says of it before and after the fall."""
    borrowers = sorted(one.market.borrowers)
    healths = {who: one.market.answer(who)[5] for who in borrowers if one.market.answer(who)[1]}
    with one.market.rewound():
        price(one, PART, before)
        after = {who: one.market.answer(who)[5] for who in healths}
    wallet = next(who for who in healths if after[who] < 0.8 * healths[who] and healths[who] < 10**20)
    return wallet, healths[wallet], after[wallet]


@pytest.mark.slow
def test_each_alert_of_two_chains_is_told_once_while_children_and_the_parent_are_killed(
    worlds: list[World], folder: Path
) -> None:
    before = {one.name: one.market.price("WETH") for one in worlds}
    rule = f"ETH<{0.85 * before['first'] / 1e8:.2f}"
    wallet, healthy, fallen = endangered(worlds[0], before["first"])
    threshold = f"{(healthy + fallen) / 2 / 1e18:.6f}"
    assert run(folder, worlds, "watch", "add", wallet, "--below", threshold).returncode == 0
    assert run(folder, worlds, "watch", "add", "--price", rule).returncode == 0
    number = 0
    for _ in range(3):
        with watching(folder, worlds) as parent:
            wait_for("its children to start", lambda: len(children(parent)) >= 2)
            for _ in range(2):
                number += 1
                share = PART if number % 2 else 1.0
                target = {one.name: price(one, share, before[one.name]) for one in worlds}
                if number % 3 == 1:
                    os.kill(processes(parent)[0], signal.SIGKILL)
                wait_for(
                    f"snapshots of {target}",
                    lambda: all(block_of(folder, one) >= target[one.name] for one in worlds),  # noqa: B023
                )
            orphans = children(parent)
            parent.kill()  # right behind the snapshots, before or after their alerts are collected
            parent.wait()
            wait_for("orphans to end", lambda: not any(alive(one) for one in orphans))  # noqa: B023
    path = [(event, crossing) for crossing in range(1, number // 2 + 1) for event in ("crossed", "recovered")]
    expected = {("first", rule): path, ("second", rule): path, ("first", f"below {threshold.rstrip('0')}"): path}
    with watching(folder, worlds) as parent:
        wait_for("its children to start", lambda: len(processes(parent)) == 2)
        wait_for("every alert", lambda: all(about(folder, *which) == path for which in expected))
        wait_for("the metrics of both chains", lambda: len(times(folder)) == 2)
        measured = times(folder)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(PATIENCE) == 0
    assert {which: about(folder, *which) for which in expected} == expected
    assert about(folder, "second", f"below {threshold.rstrip('0')}") == []
    for one in worlds:
        rows = raw(folder / "dbs" / f"{one.name}.db", "select block_timestamp from deployments")
        assert measured[one.name, one.market.name] == rows[0][0] == one.node.timestamp()
    assert len(told(folder)) == len({a["id"] for a in told(folder)})
    rows = raw(
        folder / "dbs" / "watch.db", "select id, state from alerts join deliveries using (number) order by number"
    )
    assert {state for _, state in rows} == {"delivered"}
    assert {number for number, _ in rows} == {a["id"] for a in told(folder)}
    assert raw(folder / "dbs" / "first.db", "select count(*) from watches")[0][0] == 0
    assert raw(folder / "dbs" / "first.db", "select count(*) from deliveries")[0][0] == 0


def times(folder: Path) -> dict[tuple[str, str], float]:
    """The time of each deployment's rows by chain and name, as the metrics of the whole folder tell it."""
    families = text_string_to_metric_families((folder / "all.prom").read_text())
    samples = [sample for family in families for sample in family.samples]
    assert len({(one.name, *sorted(one.labels.items())) for one in samples}) == len(samples)
    assert sum(one.name == f"{PREFIX}_alert_queue" for one in samples) == 1
    return {
        (one.labels["chain"], one.labels["deployment"]): one.value
        for one in samples
        if one.name == f"{PREFIX}_data_timestamp_seconds"
    }


def processes(parent: "subprocess.Popen[str]") -> list[int]:
    """The children that sync a chain; the couriers are one too."""
    return [one for one in children(parent) if "chain_process" in Path(f"/proc/{one}/cmdline").read_text()]


def test_an_alert_that_nobody_collected_is_collected_once_by_whoever_comes_next(tmp_path: Path) -> None:
    """Its process was killed behind the commit, and so was the one above it, before or after it had collected."""
    with Store(tmp_path / "first.db") as chain, Store(tmp_path / "watch.db") as desk:
        for number in (1, 2):
            chain.conn.execute(
                "insert into alerts (id, kind, chain_id, rule, crossing, event, body, created_at) "
                "values (?, 'price', 1, 'WETH<1', ?, 'crossed', '{}', 7)",
                (f"alert {number}", number),
            )
        chain.conn.execute(
            "insert into deliveries (number, channel, place, state) values (1, 'old', 'old', 'delivered')"
        )
        channel: Any = type("Channel", (), {"key": "key", "place": "place"})()
        for after in (0, 0, 1):
            with closing(open_readonly(tmp_path / "first.db")) as source, desk.transaction() as conn:
                assert collect(conn, source, after, [channel]) == 2
        assert desk.conn.execute("select id, created_at, state from alerts join deliveries using (number)").fetchall() == [
            ("alert 2", 7, "pending")
        ]  # fmt: skip


def test_a_chain_that_is_given_up_is_told_as_one_that_nobody_sees(tmp_path: Path) -> None:
    path, rows = tmp_path / "watch.db", tmp_path / "first.db"
    channel: Any = type("Channel", (), {"key": "key", "place": "place"})()
    member = Member("first", ["sync"], True, ())
    member.said = "the endpoint is closed"
    member.ended(1, 0.0)
    assert member.state is State.GAVE_UP
    with Store(path) as store:
        lookout = Lookout(path, "first", 1, ["market"], [channel], 3_600.0, rows)
        couriers: Any = type("Couriers", (), {"wake": lambda _: None})()
        desk = FolderDesk(store, [channel], couriers, {"first": rows}, {"first": lookout})
        for _ in range(2):
            desk.committed(member)
    ((kind, body),) = raw(path, "select kind, body from alerts")
    assert (kind, json.loads(body)["chain"]) == ("blind", "first")
    assert "the endpoint is closed" in body
