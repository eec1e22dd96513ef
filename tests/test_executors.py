"""Tasks answer the same in line, in processes and on Dask's workers, whoever is killed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer import executors
from indexer.cli.main import main
from indexer.errors import ConfigError, IndexerError
from indexer.executors import check, results
from tests.conftest import required
from tests.devnet.worlds import together
from tests.tasks import double, double_after_a_kill, fail, kill
from tests.truth import sync_once

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CLUSTER = """
import sys
from distributed import LocalCluster
from distributed.security import Security
if __name__ == "__main__":
    protocol = sys.argv[1]
    security = Security() if protocol == "tls://" else None
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, protocol=protocol, security=security, host="127.0.0.1"
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@contextmanager
def cluster(folder: Path, protocol: str, **environment: str) -> Iterator[str]:
    """The address of a scheduler with two workers, which are processes."""
    script = folder / "cluster.py"
    script.write_text(CLUSTER)
    with subprocess.Popen(
        [sys.executable, str(script), protocol],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # away from the terminal, which stops who uses it from the background
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **environment},
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with cluster(tmp_path_factory.mktemp("dask"), "tcp://") as address:
        yield address


@pytest.fixture(params=["in line", "processes", "dask"])
def where(request: pytest.FixtureRequest) -> str | None:
    if request.param == "dask":
        return str(request.getfixturevalue("dask"))
    return None if request.param == "in line" else "processes:2"


def test_answers_come_in_the_order_of_the_arguments(where: str | None) -> None:
    assert results(where, double, [(number,) for number in range(20)]) == [2 * number for number in range(20)]
    assert results(where, double, []) == []


def test_what_a_task_raises_is_raised(where: str | None) -> None:
    with pytest.raises(ValueError, match="7"):
        results(where, fail, [(7,)])


@pytest.mark.parametrize("place", ["processes", "dask"])
def test_a_worker_that_is_killed_changes_nothing(request: pytest.FixtureRequest, place: str, tmp_path: Path) -> None:
    where = str(request.getfixturevalue("dask")) if place == "dask" else "processes:2"
    arguments = [(number, str(tmp_path / "mark")) for number in range(8)]
    assert results(where, double_after_a_kill, arguments) == [2 * number for number in range(8)]
    assert (tmp_path / "mark-3").exists()


def test_processes_that_are_always_killed_end_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "RENEWALS", 1)
    with pytest.raises(IndexerError, match="killed 2 times"):
        results("processes:1", kill, [(1,)])


def test_workers_of_another_version_are_named(dask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "version", lambda _: "99.0")
    with pytest.raises(IndexerError, match=r"this is lending-indexer 99.0, and workers run another"):
        results(dask, double, [(1,)])


@pytest.mark.parametrize(
    "where",
    [
        "processes:1",
        "processes:64",
        "tcp://127.0.0.1:8786",
        "tcp://localhost:1",
        "tcp://[::1]:1",
        "tls://farm.example:8786",
    ],
)
def test_places_that_only_the_user_reaches_or_that_are_encrypted_are_taken(where: str) -> None:
    check(where)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("tcp://10.0.0.7:8786", "--insecure-scheduler"),
        ("tcp://farm.example:8786", "--insecure-scheduler"),
        ("tcp://127.0.0.1.example:8786", "--insecure-scheduler"),
        ("processes:0", "is no scheduler"),
        ("processes", "is no scheduler"),
        ("http://127.0.0.1:8786", "is no scheduler"),
        ("tcp://127.0.0.1", "is no scheduler"),
        ("tcp://127.0.0.1:x", "is no scheduler"),
        ("", "is no scheduler"),
    ],
)
def test_other_places_are_refused_before_anything_is_sent(where: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(where)
    done = CliRunner().invoke(main, ["simulate", "--sweep", "ETH=0..-20%", "--scheduler", where])
    assert done.exit_code == 2
    assert told in done.stderr


def test_plain_tcp_to_another_machine_is_taken_when_the_user_says_so() -> None:
    check("tcp://10.0.0.7:8786", insecure=True)


def test_nobody_listens_there() -> None:
    with pytest.raises(IndexerError, match="no scheduler at"):
        results("tcp://127.0.0.1:9", double, [(1,)])


@pytest.fixture(scope="module")
def file(needs_node: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("swept") / "indexer.db"
    with together(("aave-3.6", "comet USDC"), 3, 12) as markets:
        sync_once(path, markets[0].node.url, markets)
    return path


def certificates(folder: Path) -> dict[str, str]:
    """An authority of one's own and a certificate of it for 127.0.0.1, as the environment tells them to Dask (docs/scale.md)."""
    folder.mkdir()
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca-key.pem -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=lending -keyout key.pem -out request.pem",
        "x509 -req -days 2 -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out cert.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    place = "DASK_DISTRIBUTED__COMM__TLS__"
    roles = {
        f"{place}{role}__{kind}": str(folder / file)
        for role in ("SCHEDULER", "WORKER", "CLIENT")
        for kind, file in (("CERT", "cert.pem"), ("KEY", "key.pem"))
    }
    return {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True", f"{place}CA_FILE": str(folder / "ca.pem"), **roles}


def test_over_tls_a_sweep_is_the_same_and_whoever_has_no_certificate_is_told(file: Path, tmp_path: Path) -> None:
    required(shutil.which("openssl") is not None, "openssl")
    command = [sys.executable, "-m", "indexer", "--db", str(file), "simulate", "--sweep", "WETH=0..-60%:10%", "--csv"]
    own, others = certificates(tmp_path / "own"), certificates(tmp_path / "others")

    def swept(*flags: str, **given: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command, *flags], cwd=ROOT, env={**os.environ, **given}, capture_output=True, text=True, check=False
        )

    with cluster(tmp_path, "tls://", **own) as address:
        assert address.startswith("tls://")
        done = swept("--scheduler", address, **own)
        assert (done.returncode, done.stdout) == (0, swept().stdout), done.stderr
        assert len(set(done.stdout.splitlines())) > 5
        for given in ({}, others):
            refused = swept("--scheduler", address, **given)
            assert (refused.returncode, refused.stdout) == (1, ""), refused
            assert "no scheduler at" in refused.stderr
            assert "Traceback" not in refused.stderr
            assert "certificate" in refused.stderr.lower()


def test_a_sweep_is_the_same_bytes_wherever_it_is_computed(file: Path, dask: str) -> None:
    command = ["--db", str(file), "simulate", "--sweep", "WETH=0..-60%:10%", "--csv"]
    texts = [
        CliRunner().invoke(main, [*command, *flags])
        for flags in ([], ["--scheduler", "processes:2"], ["--scheduler", dask])
    ]
    assert [one.exit_code for one in texts] == [0, 0, 0], texts
    assert texts[0].stdout == texts[1].stdout == texts[2].stdout
    assert len(set(texts[0].stdout.splitlines())) > 5


def test_a_lake_is_the_same_bytes_wherever_it_is_written(file: Path, dask: str, tmp_path: Path) -> None:
    made = {}
    for name, flags in (("line", []), ("processes", ["--scheduler", "processes:2"]), ("dask", ["--scheduler", dask])):
        done = CliRunner().invoke(main, ["--db", str(file), "export", "--lake", str(tmp_path / name), *flags])
        assert done.exit_code == 0, done.output
        made[name] = {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
    assert made["line"] == made["processes"] == made["dask"]
    assert len(made["line"]) >= 6
