"""One budget of requests for several processes: what each of them sends counts against the same rate.

The state is a small file that is locked for each request; the kernel drops the lock of a process that dies. Times are of
the monotonic clock, which the processes of one machine share.
"""

import fcntl
import json
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from indexer.boundary.files import open_lock
from indexer.chain.limits import Pace

#: seconds ahead beyond which a stored time is of another start of the machine
LONGEST_AHEAD = 600.0


@dataclass(frozen=True, slots=True)
class SharedPace:
    """As `Pace`, for all processes that name the same file."""

    path: Path
    rate: float

    def reserve(self, now: float, calls: int) -> float:
        """When the next HTTP request, of that many calls, may be sent; counts it as sent for everybody.

        Evidence for what is overwritten: it is read under the lock, and written back with this request counted.
        """
        with os.fdopen(open_lock(self.path), "r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            pace = self._loaded(handle.read(), now)
            at = pace.reserve(now, calls)
            handle.seek(0)
            handle.write(json.dumps({"free": pace.free, "sent": [*pace.sent]}))
            handle.truncate()
        return at

    def _loaded(self, text: str, now: float) -> Pace:
        """The state; that of nobody where the file is new, cut short by a full disk, or of before a restart."""
        try:
            state = json.loads(text)
            free, sent = float(state["free"]), deque((float(at), int(calls)) for at, calls in state["sent"])
        except (ValueError, KeyError, TypeError):
            return Pace(self.rate)
        if free > now + LONGEST_AHEAD:
            return Pace(self.rate)
        return Pace(self.rate, free, sent)


#: what this process shares with others, if anything
joined: list[SharedPace] = []


def join(path: Path, rate: float) -> None:
    """From now on every request of this process counts against the budget in that file."""
    joined[:] = [SharedPace(path, rate)]


def pace_of(rate: float | None) -> Pace | SharedPace | None:
    """What paces an endpoint's requests: the shared budget, else its own rate, else nothing."""
    if joined:
        return joined[0]
    return Pace(rate) if rate else None
