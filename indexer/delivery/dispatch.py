"""The process that the couriers run in, and the handle through which a watch controls it.

The process has a session of its own, so that neither Ctrl-C nor the death of the watch interrupts a delivery: when its
standard input ends, it finishes the attempts in progress and exits. The next watch's couriers wait for that (a lock
beside the database), so that no two processes deliver the same alert.

    watch -> couriers, one line each on standard input: the order (JSON), then "wake" or "settle"
"""

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from indexer.boundary.files import beside, open_lock
from indexer.delivery.outbox import DeliveryWorkers
from indexer.delivery.places import Places
from indexer.errors import IndexerError, StoreError
from indexer.text.console import log_to_stderr

SETTLE_SECONDS = 60.0
#: longer than any attempt lasts
PATIENCE_SECONDS = 120.0
LEAVE_SECONDS = 5.0
LEFT_OVER, GONE = 1, 3  # exit codes: something waits, nobody reads standard output any more


class Dispatch:
    """The couriers' process, restarted if it dies. Use as a context manager."""

    def __init__(self, path: Path, places: Places, expire_seconds: float, options: Mapping[str, Any]) -> None:
        order = {
            "path": str(path.absolute()),
            "places": asdict(places),
            "expire_seconds": expire_seconds,
            "log_format": options.get("log_format", "text"),
            "verbose": options.get("verbose", 0),
        }
        self.order = json.dumps(order)  # over a pipe, as anyone may read a command line
        self.lock = threading.Lock()
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "indexer.delivery.dispatch",
            ],  # -P: nothing in the folder at hand is ever imported
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._tell(process, self.order)
        return process

    @staticmethod
    def _tell(process: "subprocess.Popen[str]", line: str) -> None:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it ended; its exit code says why
            process.stdin.write(line + "\n")
            process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):  # it then ends by itself, a little later
            self.process.wait(LEAVE_SECONDS)

    @property
    def gone(self) -> bool:
        """Whether nobody is left to deliver to: standard output was the only channel, and nobody reads it."""
        return self.process.poll() == GONE

    def wake(self) -> None:
        """Tells the couriers that there may be something to deliver; any thread may call it."""
        with self.lock:
            if self.process.poll() not in (None, GONE):
                self.process = self._start()
            self._tell(self.process, "wake")

    def settle(self) -> bool:
        """Waits until everything is delivered or has failed often enough, then stops; True if everything is delivered."""
        self.wake()
        self._tell(self.process, "settle")
        return self.process.wait() == 0


def work() -> int:
    """Runs the couriers in this process; returns its exit code."""
    first = sys.stdin.readline()
    if not first:
        return 0
    order = json.loads(first)
    log_to_stderr(as_json=order["log_format"] == "json", verbose=order["verbose"])
    places = Places(**{**order["places"], "urls": tuple(order["places"]["urls"])})
    path = Path(order["path"])
    try:
        lock = open_lock(beside(path, ".courier.lock"))
    except OSError as error:
        raise StoreError(f"cannot lock {path}.courier.lock: {error.strerror}; remove it") from None
    with os.fdopen(lock) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        couriers = DeliveryWorkers(
            path, places.channels(), order["expire_seconds"], PATIENCE_SECONDS, lambda: os._exit(GONE)
        )
        with couriers:
            for line in sys.stdin:
                if line == "settle\n":
                    return 0 if couriers.settle(SETTLE_SECONDS) else LEFT_OVER
                couriers.wake()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(work())
    except IndexerError as error:
        sys.exit(str(error))
