"""What is told to a monitoring system: the values of the file, what a process counts, and nobody's address."""

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from indexer.errors import ConfigError, IndexerError
from indexer.metrics.file_rows import FileRows
from indexer.metrics.gathered import Gathered
from indexer.metrics.meters import PREFIX, STAGES, Meters
from indexer.metrics.publishing import place, published
from indexer.store.store import Store
from tests.conftest import required
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import config_toml
from tests.recorded import recorded

EXTRAS = Path(__file__).parents[2] / "extras"
RULES = Path(__file__).parent / "rules.test.yml"
ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
Sample = tuple[str, frozenset[tuple[str, str]]]


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    required(found is not None, "promtool of Debian's package prometheus")
    assert found is not None
    return found


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = recorded(tmp_path / "indexer.db")
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("update deployments set chain = 'devnet'")
    return path


def samples(registry: CollectorRegistry) -> dict[Sample, float]:
    return read(generate_latest(registry).decode())


def read(text: str) -> dict[Sample, float]:
    return {
        (sample.name.removeprefix(f"{PREFIX}_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> Sample:
    return name, frozenset(labels.items())


def everything(database: Path) -> tuple[Meters, FileRows]:
    meters = Meters("devnet")
    rows = FileRows(database)
    meters.registry.register(rows)
    return meters, rows


def execute(database: Path, sql: str, *values: Any) -> None:
    with closing(sqlite3.connect(database)) as conn, conn:
        conn.execute(sql, values)


# the file ----------------------------------------------------------------------------------------------------------------


def test_gauges_are_the_values_of_the_file(database: Path) -> None:
    found = samples(everything(database)[0].registry)
    with closing(sqlite3.connect(database)) as conn:
        for deployment, block, at in conn.execute("select deployment, block_number, block_timestamp from deployments"):
            assert found[key("synced_block", chain="devnet", deployment=deployment)] == block
            assert found[key("data_timestamp_seconds", chain="devnet", deployment=deployment)] == at
            assert found[key("deployment_state", chain="devnet", deployment=deployment, state="ok")] == 1
            assert found[key("deployment_state", chain="devnet", deployment=deployment, state="failed")] == 0
        for deployment, status, count, debt in conn.execute(
            "select deployment, status, count(*), sum(debt_usd) from positions group by 1, 2"
        ):
            where = {"chain": "devnet", "deployment": deployment, "status": status}
            assert found[key("positions", **where)] == count
            assert (debt is None) == (key("debt_usd", **where) not in found)
            assert debt is None or found[key("debt_usd", **where)] == pytest.approx(debt)


def test_a_deployment_before_its_first_snapshot_has_a_state_and_no_time(database: Path) -> None:
    execute(
        database,
        "update deployments set block_number = null, block_timestamp = null, state = 'new' where deployment = 'maker'",
    )
    found = samples(everything(database)[0].registry)
    assert found[key("deployment_state", chain="devnet", deployment="maker", state="new")] == 1
    assert key("data_timestamp_seconds", chain="devnet", deployment="maker") not in found
    assert key("synced_block", chain="devnet", deployment="maker") not in found


def test_a_commit_of_another_process_is_seen_and_a_failure_changes_nothing(database: Path) -> None:
    """The state may say that a snapshot failed; the time of the data is that of the rows that are there."""
    registry = everything(database)[0].registry
    where = {"chain": "devnet", "deployment": "maker"}
    before = samples(registry)[key("data_timestamp_seconds", **where)]
    execute(database, "update deployments set state = 'failed', note = 'no answer' where deployment = 'maker'")
    found = samples(registry)
    assert found[key("data_timestamp_seconds", **where)] == before
    assert found[key("deployment_state", **where, state="failed")] == 1
    execute(database, "update deployments set block_timestamp = block_timestamp + 12 where deployment = 'maker'")
    assert samples(registry)[key("data_timestamp_seconds", **where)] == before + 12


def test_a_file_that_cannot_be_read_tells_nothing_instead_of_old_values(database: Path) -> None:
    registry = everything(database)[0].registry
    assert key("data_timestamp_seconds", chain="devnet", deployment="maker") in samples(registry)
    away = database.rename(database.with_name("away.db"))
    assert not {name for name, _ in samples(registry)} & {"data_timestamp_seconds", "synced_block", "positions"}
    away.rename(database)
    assert key("data_timestamp_seconds", chain="devnet", deployment="maker") in samples(registry)


def test_another_file_under_the_same_name_is_read(database: Path) -> None:
    registry = everything(database)[0].registry
    samples(registry)
    new = recorded(database.with_name("new.db"))
    execute(new, "update deployments set chain = 'devnet', block_timestamp = 77")
    new.rename(database)
    assert samples(registry)[key("data_timestamp_seconds", chain="devnet", deployment="maker")] == 77


def test_of_alerts_chains_tell_nothing_where_the_file_of_watched_wallets_cannot_be_read(
    database: Path, tmp_path: Path
) -> None:
    told, chain = tmp_path / ".devnet.prom", CollectorRegistry()
    chain.register(FileRows(database))
    told.write_bytes(generate_latest(chain))
    assert samples(chain)[key("alert_queue")] == 0
    gathered = CollectorRegistry()
    gathered.register(Gathered([told, tmp_path / ".new.prom"], tmp_path / "watch.db"))
    expected = {which: value for which, value in samples(chain).items() if which[0] != "alert_queue"}
    assert samples(gathered) == expected != {}


@pytest.mark.disturbed
def test_audits_since_the_start_are_counted_by_result(database: Path) -> None:
    registry = everything(database)[0].registry
    assert not [name for name, _ in samples(registry) if name in ("audits_total", "reorgs_total", "omitted_logs_total")]
    detail = json.dumps({"ancestor": 1_040, "orphaned_block": 1_047, "orphaned_hash": "0xab"})
    with closing(sqlite3.connect(database)) as conn, conn:
        for deployment, kind, mismatches, text in (
            ("maker", "self-audit", 0, None), ("maker", "self-audit", 0, None), ("maker", "verify", 3, None),
            ("maker", "omitted-logs", 5, None), ("maker", "reorg", 0, detail), ("compound-v3-usdc", "reorg", 0, detail),
        ):  # fmt: skip
            conn.execute(
                "insert into audits (chain_id, deployment, at, kind, checked, mismatches, detail) values (1337, ?, 1, ?, 9, ?, ?)",
                (deployment, kind, mismatches, text),
            )
    for _ in range(2):  # looked at twice, counted once
        found = samples(registry)
        assert found[key("audits_total", chain="devnet", deployment="maker", result="ok")] == 2
        assert found[key("audits_total", chain="devnet", deployment="maker", result="mismatch")] == 1
        assert found[key("omitted_logs_total", chain="devnet")] == 5
        assert found[key("reorgs_total", chain="devnet")] == 1
        assert found[key("reorg_depth_sum", chain="devnet")] == 7
        assert found[key("reorg_depth_bucket", chain="devnet", le="10.0")] == 1
        assert found[key("reorg_depth_bucket", chain="devnet", le="5.0")] == 0


def test_alerts_are_counted_by_the_kind_of_their_channel(database: Path) -> None:
    registry = everything(database)[0].registry
    wallet = "0x" + "ab" * 20
    execute(
        database,
        "insert into alerts (number, id, kind, chain_id, rule, crossing, event, body, created_at) values (1, 'a', 'blind', 1, 'r', 1, 'crossed', '{}', 1)",
    )
    execute(
        database,
        "insert into deliveries (number, channel, place, state) values (1, 'a', ?, 'delivered')",
        f"json://{wallet}@host",
    )
    samples(registry)
    execute(
        database,
        "insert into deliveries (number, channel, place, state) values (1, 'b', ?, 'delivered')",
        f"tgram://***/{wallet}",
    )
    execute(
        database, "insert into deliveries (number, channel, place, state) values (1, 'c', 'command alarm', 'expired')"
    )
    execute(database, "insert into deliveries (number, channel, place, state) values (1, 'd', 'stdout', 'trying')")
    found = samples(registry)
    assert {labels: value for (name, labels), value in found.items() if name == "alerts_total" and value} == {
        frozenset({("channel", "tgram"), ("outcome", "delivered")}): 1, frozenset({("channel", "command"), ("outcome", "expired")}): 1
    }  # fmt: skip
    assert found[key("alert_queue")] == 1
    assert not ADDRESS.search(generate_latest(registry).decode())


# the process -------------------------------------------------------------------------------------------------------------


def test_requests_are_counted_under_the_host_alone() -> None:
    meters = Meters("mainnet")
    secret = "0123456789abcdef0123"
    meters.asked(f"https://user:{secret}@node.example:8545/v3/{secret}?key={secret}", "eth_call", "ok", 0.2)
    meters.asked("http://127.0.0.1:8545/", "batch", "limited", 3)
    text = generate_latest(meters.registry).decode()
    assert secret not in text
    found = read(text)
    assert (
        found[key("rpc_requests_total", chain="mainnet", endpoint="node.example", method="eth_call", outcome="ok")] == 1
    )
    assert (
        found[key("rpc_requests_total", chain="mainnet", endpoint="127.0.0.1", method="batch", outcome="limited")] == 1
    )
    assert found[key("rpc_seconds_sum", chain="mainnet", endpoint="127.0.0.1")] == 3


def test_a_stage_is_measured_where_it_fails_too() -> None:
    meters = Meters("mainnet")
    with pytest.raises(ZeroDivisionError), meters.stage("logs"):
        _ = 1 / 0
    found = read(generate_latest(meters.registry).decode())
    assert found[key("snapshot_seconds_count", chain="mainnet", stage="logs")] == 1
    assert {dict(labels)["stage"] for name, labels in found if name == "snapshot_seconds_count"} == set(STAGES)


def test_the_head_never_goes_back_and_is_the_newest_of_both_ways() -> None:
    meters = Meters("mainnet")
    meters.saw(10)
    meters.saw(9)
    assert samples(meters.registry)[key("head_block", chain="mainnet")] == 10
    meters.announced = lambda: 12
    assert samples(meters.registry)[key("head_block", chain="mainnet")] == 12


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9108", ("127.0.0.1", 9108)),
        ("localhost:1", ("127.0.0.1", 1)),
        ("0.0.0.0:9108", ("0.0.0.0", 9108)),
        ("[::1]:0", ("::1", 0)),
    ],
)
def test_where_metrics_are_served(text: str, expected: tuple[str, int]) -> None:
    assert place(text) == expected


@pytest.mark.parametrize("text", ["", "x", "host:9", "1.2.3.4:", "70000", "-1", "1.2.3.4.5:1"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST"):
        place(text)


def test_a_taken_port_and_a_file_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    import socket

    registry = CollectorRegistry()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(IndexerError, match="choose another port"),
            published(registry, str(taken.getsockname()[1]), None),
        ):
            pass
    with pytest.raises(IndexerError, match="cannot be written"), published(registry, None, tmp_path / "no" / "x.prom"):
        pass


def test_the_file_is_written_when_something_happened(database: Path, tmp_path: Path) -> None:
    meters, _ = everything(database)
    file = tmp_path / "indexer.prom"
    with published(meters.registry, None, file) as write:
        assert key("synced_block", chain="devnet", deployment="maker") in read(file.read_text())
        meters.saw(99)
        write()
        written = file.read_text()
        file.unlink()
        file.mkdir()
        write()  # warns, and goes on
    file.rmdir()
    file.write_text(written)
    assert read(file.read_text())[key("head_block", chain="devnet")] == 99


# rules and dashboard -----------------------------------------------------------------------------------------------------


def told(database: Path) -> dict[str, set[str]]:
    """Name -> labels of every metric that there is, buckets and sums by their own names."""
    meters, _ = everything(database)
    execute(
        database,
        "insert into alerts (number, id, kind, chain_id, rule, crossing, event, body, created_at) values (1, 'a', 'blind', 1, 'r', 1, 'crossed', '{}', 1)",
    )
    samples(meters.registry)
    test = "insert into audits (chain_id, deployment, at, kind, checked, mismatches, detail) values (1337, 'maker', 1, ?, 9, 1, '{}')"
    for kind in ("verify", "omitted-logs", "reorg"):
        execute(database, test, kind)
    execute(database, "insert into deliveries (number, channel, place, state) values (1, 'd', 'stdout', 'delivered')")
    meters.asked("http://127.0.0.1", "eth_call", "ok", 0.1)
    found: dict[str, set[str]] = {}
    for name, labels in samples(meters.registry):
        found.setdefault(f"{PREFIX}_{name}", set()).update(name for name, _ in labels)
    return found


def expressions() -> list[str]:
    """Every expression of the rules and of the dashboard."""
    dashboard = json.loads((EXTRAS / "grafana.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = re.findall(r"expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)", (EXTRAS / "alerts.yml").read_text())
    return [*found, *(" ".join((many or one).split()) for many, one in rules)]


@pytest.mark.disturbed
def test_rules_and_dashboard_name_only_metrics_and_labels_that_there_are(database: Path) -> None:
    known = told(database)
    asked = expressions()
    assert len(asked) > 20
    for text in asked:
        names = re.findall(rf"{PREFIX}_\w+", text)
        assert names, text
        assert set(names) <= known.keys(), text
        labels = set().union(*(known[name] for name in names))
        used = {
            label for part in re.findall(r"\{([^}]*)\}", text) for label in re.findall(r"(\w+)(?:=~|!=|!~|=)", part)
        }
        used |= {label for part in re.findall(r"(?:by|on) \(([^)]*)\)", text) for label in re.findall(r"\w+", part)}
        assert used <= labels, text
    shown = set(re.findall(rf"{PREFIX}_\w+", "".join(asked)))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known if not name.endswith("_created")}
    assert families - {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} == set(), "nobody looks at it"


def run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.disturbed
def test_promtool_accepts_what_is_told(promtool: str, database: Path) -> None:
    told(database)
    meters, _ = everything(database)
    meters.asked("http://127.0.0.1", "eth_call", "ok", 0.1)
    assert run(promtool, "check", "metrics", text=generate_latest(meters.registry).decode()) == ""


def test_promtool_accepts_the_rules_and_they_fire_when_they_should(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "check", "rules", str(EXTRAS / "alerts.yml"))
    assert "SUCCESS" in run(promtool, "test", "rules", str(RULES))


def test_promtool_accepts_every_expression_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    lines = ["groups:", "- name: dashboard", "  rules:"]
    for number, text in enumerate(expressions()):
        lines += [f"  - record: dashboard:{number}", f"    expr: {json.dumps(text.replace('$chain', '.*'))}"]
    path = tmp_path / "dashboard.yml"
    path.write_text("\n".join(lines))
    assert "SUCCESS" in run(promtool, "check", "rules", str(path))


# a sync that goes on -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def market(needs_node: None) -> Iterator[AaveV3]:
    with Anvil() as node:
        node.place_multicall3()
        found = aave_v3.deploy(node, "3.6")
        found.populate(seed=1, users=6)
        yield found


def until(process: "subprocess.Popen[str]", words: str) -> str:
    assert process.stderr is not None
    text = ""
    while words not in text:
        line = process.stderr.readline()
        assert line, text
        text += line
    return text


def test_a_sync_that_watches_wallets_tells_no_address_and_a_failed_snapshot_is_not_fresh(
    market: AaveV3, tmp_path: Path
) -> None:
    who = min(market.borrowers)
    (tmp_path / "indexer.toml").write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    with Store(tmp_path / "indexer.db") as store:
        store.conn.execute("insert into watches values (?, ?, null, 0)", (who, "the treasury"))
        store.conn.commit()
    command = [
        sys.executable,
        "-m",
        "indexer",
        "sync",
        "--chain",
        "devnet",
        "--follow",
        "--watch",
        "--stdout",
        "--metrics",
        "0",
        "--metrics-file",
        "i.prom",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        text = until(process, " at risk;")
        (url,) = re.findall(r"http://\S+/metrics", text)
        with urllib.request.urlopen(url, timeout=30) as answer:
            scraped = answer.read().decode()
        where = {"chain": "devnet", "deployment": market.name}
        found = read(scraped)
        with closing(sqlite3.connect(tmp_path / "indexer.db")) as conn:
            block, at = conn.execute("select block_number, block_timestamp from deployments").fetchone()
            (positions,) = conn.execute("select count(*) from positions where status = 'healthy'").fetchone()
        assert found[key("synced_block", **where)] == block
        assert found[key("data_timestamp_seconds", **where)] == at
        assert found[key("head_block", chain="devnet")] >= block
        assert found[key("positions", **where, status="healthy")] == positions
        asked = [labels for name, labels in found if name == "rpc_requests_total"]
        assert {dict(labels)["endpoint"] for labels in asked} == {"127.0.0.1"}
        assert all(found[key("snapshot_seconds_count", chain="devnet", stage=stage)] >= 1 for stage in STAGES)
        market.node.stop()  # from now on every snapshot fails
        until(process, "trying again")
        with urllib.request.urlopen(url, timeout=30) as answer:
            later = answer.read().decode()
        assert read(later)[key("data_timestamp_seconds", **where)] == at
        assert any(value and dict(labels).get("outcome") == "retry" for (_, labels), value in read(later).items())
        written = (tmp_path / "i.prom").read_text()
        for one in (scraped, later, written):
            assert not ADDRESS.search(one)
            assert "treasury" not in one
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
