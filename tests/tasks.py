"""Tasks for tests of executors; workers import them."""

import os
import signal
from pathlib import Path


def double(number: int) -> int:
    return 2 * number


def double_after_a_kill(number: int, marker: str) -> int:
    """Kills its own process the first time that it runs with this number."""
    mark = Path(f"{marker}-{number}")
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def kill(_number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def fail(number: int) -> int:
    raise ValueError(str(number))
