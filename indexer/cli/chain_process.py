"""The process of one chain among several: the ordinary command line, whose lines, progress and snapshots go to a pipe.

supervisor -> process: the order, one JSON line on standard input, which stays open as long as the supervisor lives
process -> supervisor: messages on standard output, see `indexer.fleet.messages`
"""

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from indexer.chain import budget
from indexer.cli.main import main
from indexer.fleet.messages import Stages, Told
from indexer.text import console


def run() -> None:
    """Carries out the order on standard input, and ends as soon as that does."""
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started the supervisor in the background
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        order = json.loads(sys.stdin.readline())
        told = Told(os.fdopen(os.dup(1), "w", encoding="utf-8"))
        os.dup2(2, 1)
        console.above_bars.append(told.line)
        console.listeners.append(told.snapshot)
        console.troubles.append(told.trouble)
        console.shown_by.append(Stages(told))
        if order["budget"] is not None:
            path, rate = order["budget"]
            budget.join(Path(path), rate)
        threading.Thread(target=end_with_the_supervisor, daemon=True).start()
        main(order["arguments"])


def end_with_the_supervisor() -> None:
    """Waits until nobody holds the other end of standard input, and ends this process as Ctrl-C does."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    run()
