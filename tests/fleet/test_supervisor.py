"""Processes that end by themselves are started again after their pause, and signals reach whoever waits for that."""

import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.fleet.worlds import PATIENCE

#: one chain whose process fails each time, as there is no such file, and one whose process has done its work
SCRIPT = """
import sys
from indexer.fleet.member import Member
from indexer.fleet.supervisor import Supervisor
pauses = [float(one) for one in sys.argv[1:]]
members = [Member("lost", ["--db", "nowhere.db", "at-risk"], False, pauses), Member("done", ["--version"], False, pauses)]
Supervisor(members, lambda name, line: print(name, line, flush=True)).run()
print("in the end", *(str(one.state) for one in members), flush=True)
"""


def supervised(folder: Path, *pauses: float) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, pauses)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip


def test_one_that_fails_is_started_again_after_its_pauses_and_given_up_while_the_other_is_done(tmp_path: Path) -> None:
    pauses = 0.5, 1.0
    with supervised(tmp_path, *pauses) as process:
        assert process.stdout is not None
        lines = [(time.monotonic(), line.strip()) for line in process.stdout]
    ends = [at for at, line in lines if "is started again in" in line or "given up after" in line]
    assert [line for _, line in lines if "given up" in line] == [
        "lost given up after 3 failures in a row; the other chains go on"
    ]
    assert len(ends) == 3
    assert all(later - at > 0.9 * pause for pause, (at, later) in zip(pauses, pairwise(ends), strict=True)), ends
    assert lines[-1][1] == "in the end gave up done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_waiting_for_the_next_start(tmp_path: Path, number: int) -> None:
    with supervised(tmp_path, 10_000.0) as process:
        assert process.stdout is not None
        assert any("its process ended with exit code 1; it is started again" in line for line in process.stdout)
        process.send_signal(number)
        try:
            rest, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert rest.splitlines()[-1] in ("in the end stopped done", "in the end stopped stopped")
