"""How much a node answers in one request, found by trying and then remembered. Pure."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

#: successful requests before a size that was too big is tried again
PATIENCE = 16


@dataclass(slots=True)
class Limit:
    """How many items go into one request: `size`, halved when it is too many, doubled up to `largest` while all goes well.

    A single bad item (a call that burns all gas) also forces halving down to itself; once it was asked alone, the size
    returns to half of where the halving began.
    """

    size: int
    largest: int
    ceiling: int = 0
    began: int = 0
    streak: int = 0

    def too_big(self, count: int) -> None:
        """Notes that a request of `count` items was refused."""
        self.began = self.began or self.size
        self.ceiling = max(2, min(count, self.size))
        self.size = max(1, self.ceiling // 2)
        self.streak = 0

    def refused(self, count: int, most: int | None) -> None:
        """Notes that `count` items were refused; `most`, the limit named with the refusal, is never exceeded again."""
        if most is None:
            self.too_big(count)
            return
        self.size = self.largest = most
        self.ceiling = self.began = 0

    def fits(self, count: int) -> None:
        """Notes that a request of `count` items was answered."""
        if count < self.size:
            return
        if self.size == 1 and self.began > 2:
            self.size, self.ceiling, self.began = self.began // 2, 0, 0
            return
        self.began = 0
        self.streak += 1
        if self.streak > PATIENCE:
            self.ceiling, self.streak = 0, 0
        if not self.ceiling or 2 * self.size < self.ceiling:
            self.size = min(2 * self.size, self.largest)


@dataclass(slots=True)
class BatchLimits:
    """How many calls go into a batch, by its first method, `largest` at most; some nodes limit eth_getLogs alone."""

    largest: int
    by_method: dict[str, Limit] = field(default_factory=dict)

    def of(self, method: str) -> Limit:
        return self.by_method.setdefault(method, Limit(self.largest, self.largest))

    def none(self) -> None:
        """Notes that the node accepts no batches at all."""
        self.largest = 1
        self.by_method.clear()


@dataclass(slots=True)
class Pace:
    """When the next calls may leave: `rate` a second on average, and never more than that within any one second."""

    rate: float
    free: float = 0.0
    sent: deque[tuple[float, int]] = field(default_factory=deque)

    def reserve(self, now: float, calls: int) -> float:
        """When the next HTTP request, of that many calls, may be sent; counts it as sent."""
        at = max(now, self.free)
        while self.sent and self.sent[0][0] <= at - 1:
            self.sent.popleft()
        while self.sent and sum(count for _, count in self.sent) + calls > math.ceil(self.rate):
            at = max(at, self.sent.popleft()[0] + 1)
        self.sent.append((at, calls))
        self.free = at + calls / self.rate
        return at


#: the most bytes of an answer: of a header (which lists its transactions), of code, or of anything small
SMALL_ANSWER = 2**20
#: of logs: some 50,000, where `WANTED_LOGS` are aimed at; of the receipts of one block
LARGE_ANSWER = 32 * 2**20
#: of an eth_call, for each byte sent (each read of an aggregate takes some 200), and for one read
CALL_BYTES = 64
CALL_ANSWER = 4 * 2**20


def most_bytes(calls: Sequence[tuple[str, Sequence[Any]]]) -> int:
    """How many bytes the answer to these calls, a batch or a single request, may have."""
    return min(sum(_most_bytes(method, params) for method, params in calls), LARGE_ANSWER)


def _most_bytes(method: str, params: Sequence[Any]) -> int:
    if method in {"eth_getLogs", "eth_getBlockReceipts"}:
        return LARGE_ANSWER
    if method == "eth_call":
        return CALL_ANSWER + CALL_BYTES * len(str(params[0].get("data", "")))
    return SMALL_ANSWER


#: blocks per eth_getLogs at first and at most (some providers silently cut wide ranges short)
FIRST_WINDOW = 5_000
LARGEST_WINDOW = 100_000
#: from this many logs on, the same number in a second answer counts as an unspoken limit of the provider
FEWEST_CUT = 32
#: logs that one request should bring
WANTED_LOGS = 10_000
WANTED_SECONDS = 5.0


#: the part of a known cap on results that a window aims at, as the number of logs in it is only expected
AIMED = 0.93


@dataclass(slots=True)
class LogLimit:
    """How many blocks one eth_getLogs takes (`window`) and how many addresses (`addresses`, None for any).

    `cap` is what the provider named as its range limit, `results` how many logs it gives at once: named in a refusal, or
    inferred from one (`guessed`). The window is as wide as that many logs are at the density of the last ones, or as
    `WANTED_LOGS` and `WANTED_SECONDS` allow, at most doubled each time. A width that was refused is not tried again for a while, the longer the more
    seconds the refusal took, unless there are clearly fewer logs by now. `most` is the largest number of logs that an answer had.
    """

    window: int = FIRST_WINDOW
    cap: int | None = None
    results: int | None = None
    guessed: bool = False
    addresses: int | None = None
    ceiling: int = 0
    streak: int = 0
    patience: int = PATIENCE
    most: int = 0
    density: float = 0.0
    refusals: int = 0  # in a row
    answers: int = 0  # since the last refusal, or since the window grew by half or more

    @property
    def size(self) -> int:
        return max(1, self.window if self.cap is None else min(self.window, self.cap))

    def cut_short(self, logs: int) -> bool:
        """Whether an answer of so many logs may have been cut off there without a word."""
        return logs > 0 and (logs % (100 if logs < 1_000 else 1_000) == 0 or logs == self.most >= FEWEST_CUT)

    def refused(
        self, span: int, named: int | None, lasting: bool, seconds: float = 0, results: int | None = None
    ) -> None:
        """`span` blocks were too many, which took so many seconds to learn.

        `named` is the number that the refusal allows, `lasting` if everywhere; `results` the number of logs that it
        allows, 0 if it is about logs without a number.
        """
        self.ceiling, self.streak, self.answers = span, 0, 0
        self.refusals += 1
        self.patience = PATIENCE * max(1, round(seconds))
        if results is not None:
            self._too_many_logs(span, results)
        if named is not None and 0 < named < span:
            self.window = named
            if lasting:
                self.cap = named if self.cap is None else min(named, self.cap)
        elif named == span and lasting and self.cap is None:  # some count last - first
            self.window = self.cap = max(1, span - 1)
        elif results is not None and self.results is not None:
            self.density = max(self.density, self.results / span) * min(1.25 * 1.6 ** (self.refusals - 1), 4)
            self.window = max(1, min(int(AIMED * self.results / self.density), span - 1))
        else:
            self.window = max(1, span // 2)

    def _too_many_logs(self, span: int, named: int) -> None:
        expected = int(self.density * span)
        if named:
            self.results, self.guessed = named, False
        elif expected and (self.results is None or self.guessed):
            self.results, self.guessed = min(self.results or expected, expected), True

    def fits(self, span: int, logs: int, seconds: float) -> None:
        """`span` blocks were answered with so many logs in so many seconds."""
        before, self.density = self.density, logs / span
        self.refusals = 0
        if self.results is not None and logs > self.results:
            self.results = None
        self.answers += 1
        if span < self.size:
            return
        self.streak += 1
        if self.streak > self.patience:
            self.ceiling, self.streak = 0, 0
            if self.guessed and self.results is not None:
                self.results += self.results // 4
        if self.ceiling and self.results and 0 < 2 * self.density < self.results / self.ceiling:
            self.ceiling = 0
        load = max(logs / WANTED_LOGS, seconds / WANTED_SECONDS)
        if load > 1.5:
            self.window = max(1, int(span / min(load, 4)))
        elif load < 0.75 or self.results is not None:
            self._widen(span, before)
            if self.size > 1.5 * span:
                self.answers = 0

    def _widen(self, span: int, before: float) -> None:
        """Up to twice as wide, as far as the logs to be expected allow: no fewer in a block than last time, where they grew."""
        rising = self.density + max(self.density - before, 0.0) if before else self.density
        fitting = self._fitting(rising)
        if self.ceiling and min(fitting, 2 * span) >= self.ceiling:
            fitting = min(fitting, max(span, self.ceiling - 1 if self.results and rising else span))
        self.window = max(1, min(fitting, 2 * span, LARGEST_WINDOW))

    def _fitting(self, density: float) -> int:
        """The blocks in which there are as many logs as one answer should have."""
        wanted = AIMED * self.results if self.results is not None else 0.9 * WANTED_LOGS
        return int(wanted / density) if density else LARGEST_WINDOW

    def expected_span(self, density: float) -> int:
        """How many blocks a request is expected to bring where there are so many logs in each."""
        return max(1, min(self._fitting(density), self.cap or LARGEST_WINDOW, LARGEST_WINDOW))
