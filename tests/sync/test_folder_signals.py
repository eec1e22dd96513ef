"""Several chains on a terminal: the table at 80 columns, Ctrl-C once and twice."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.devnet import aave_v3
from tests.fleet.worlds import PATIENCE, World, alive, block_of, children, command, environment, wait_for, world, wrong

CTRL_C = b"\x03"


@pytest.fixture
def worlds(needs_node: None) -> Iterator[list[World]]:
    with ExitStack() as stack:
        deploy: Callable[..., aave_v3.AaveV3] = lambda node: aave_v3.deploy(node, "3.6")  # noqa: E731
        yield [
            stack.enter_context(world(name, 4001 + number, deploy)) for number, name in enumerate(("first", "second"))
        ]


@pytest.fixture
def folder(worlds: list[World], tmp_path: Path) -> Path:
    (tmp_path / "indexer.toml").write_text("".join(one.toml for one in worlds))
    return tmp_path


class Typed:
    """A program on a terminal of 80 columns that somebody types into, and what it has shown."""

    def __init__(self, process: "subprocess.Popen[bytes]", ours: int) -> None:
        self.process, self.ours, self.shown = process, ours, bytearray()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                self.shown += os.read(self.ours, 65536)
            except OSError:
                return

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.shown.decode(errors="replace"))

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)


@contextmanager
def on_a_terminal(folder: Path, worlds: list[World], *flags: str) -> Iterator[Typed]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        command(folder, "sync", "--chain", "all", "--accounts", "all", *flags),
        env={**environment(worlds), "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs,
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),  # Ctrl-C becomes a signal  # noqa: PLW1509
    )  # fmt: skip
    os.close(theirs)
    shown = Typed(process, ours)
    try:
        yield shown
    except BaseException:
        print(shown.text[-3_000:])
        raise
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.slow
def test_the_table_is_redrawn_and_ctrl_c_ends_with_whole_snapshots(worlds: list[World], folder: Path) -> None:
    with on_a_terminal(folder, worlds, "--follow", "--every", "0") as shown:
        wait_for("both to follow", lambda: all(re.search(rf"{one.name} +following", shown.text) for one in worlds))
        parts = children(shown.process)
        assert os.getpgid(shown.process.pid) not in {os.getpgid(one) for one in parts}, (
            "the terminal signals the one above"
        )
        for one in worlds:
            one.act(1)
        wait_for("newer blocks", lambda: all(block_of(folder, one) >= one.node.block_number() for one in worlds))
        shown.type(CTRL_C)
        assert shown.process.wait(PATIENCE) == 0
        wait_for("the processes to end", lambda: not any(alive(one) for one in parts))
        wait_for("the last line", lambda: "Stopped. The last snapshots are of" in shown.text)
        lines = [line.replace("^C", "").rstrip() for line in re.split(r"[\r\n]+", shown.text)]  # the terminal's echo
    assert max(len(line) for line in lines if not line.startswith("left out")) <= 80
    assert [line for line in lines if re.match(r"chain +state +block +age +positions +at risk", line)]
    for one in worlds:
        assert f"{one.name} {one.node.block_number()}" in " ".join(lines)
        assert wrong(folder, one) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        ((), 130, "first +stopped"),
        (("--follow",), 1, "stopped before the first snapshot of first, second; the same command"),
    ],
)
def test_a_second_ctrl_c_ends_at_once_what_the_first_is_waiting_for(
    worlds: list[World], folder: Path, flags: tuple[str, ...], code: int, told: str
) -> None:
    with on_a_terminal(folder, worlds, *flags) as shown:
        wait_for("the first requests", lambda: all(one.came for one in worlds))
        parts = children(shown.process)
        for part in parts:
            os.kill(part, signal.SIGSTOP)  # they finish no transaction
        shown.type(CTRL_C)
        time.sleep(1)
        assert shown.process.poll() is None
        shown.type(CTRL_C)
        assert shown.process.wait(PATIENCE) == code
        wait_for("the processes to end", lambda: not any(alive(one) for one in parts))
        wait_for(told, lambda: re.search(told, " ".join(shown.text.split())) is not None)
        assert "Traceback" not in shown.text
    with on_a_terminal(folder, worlds) as shown:
        assert shown.process.wait(PATIENCE) == 0
    assert [wrong(folder, one) for one in worlds] == [[], []]
