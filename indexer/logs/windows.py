"""Windows of a block range that fit a provider's limits, several of them in flight, their results in order.

The first window whose size is too much teaches the next ones; those that were under way meanwhile keep what they brought.
"""

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from indexer.chain.client import Chain
from indexer.chain.errors import CutShortError, RejectedError, TooBigError
from indexer.chain.flight import begin
from indexer.errors import ChainError

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: logs that may be expected of all windows in flight, by what they take in memory: where each becomes an event, and where
#: they are only looked through
LOGS_IN_FLIGHT = 20_000
LOGS_LOOKED_THROUGH = 30_000


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """What a window brought, in answers of so many logs each."""

    found: T
    logs: Sequence[int]


@dataclass(slots=True)
class _Window(Generic[T]):
    """A block range: what it is about to bring or, until it is asked for, a range to be cut into windows."""

    first: int
    last: int
    answer: "Future[Answered[T]] | None" = None
    seconds: float = 0.0
    retries: int = 0

    @property
    def span(self) -> int:
        return self.last - self.first + 1

    def ask(self, read: Callable[[int, int], Answered[T]]) -> Answered[T]:
        began = time.monotonic()
        try:
            return read(self.first, self.last)
        finally:
            self.seconds = time.monotonic() - began


def always() -> bool:
    return True


def in_windows(
    chain: Chain,
    first: int,
    last: int,
    read: Callable[[int, int], Answered[T]],
    alone: Callable[[int, int, ChainError], Iterator[T]],
    go_on: Callable[[], bool] = always,
    *,
    narrows: type[ChainError] | tuple[type[ChainError], ...] = (TooBigError, RejectedError),
    most_logs: int = LOGS_IN_FLIGHT,
) -> Iterator[T]:
    """What `read(first, last)` returns for windows of a range, in their order; it runs in several threads.

    A window that is refused with `narrows` is asked for in narrower ones; with another refusal, or if it is one block,
    `alone(first, last, error)` takes its place. Once `go_on()` is False only what has begun is waited for. Any other error
    is raised where its window stands.
    """
    limit, windows = chain.log_limit, deque([_Window[T](first, last)] if first <= last else [])
    try:
        begun = False
        while windows:
            if not go_on() and begun and windows[0].answer is None:
                return
            _begin(chain, windows, read, go_on, most_logs)
            begun, window = True, windows.popleft()
            assert window.answer is not None
            try:
                answer = window.answer.result()
                doubtful = [logs for logs in answer.logs if limit.cut_short(logs)] if window.span > 1 else []
                if doubtful:  # told in the order of windows, so that it depends on no other's time
                    raise CutShortError(f"eth_getLogs: exactly {doubtful[0]} results, there may be more")
            except (TooBigError, RejectedError) as error:
                if isinstance(error, narrows) and window.span > 1:
                    _narrow(chain, window, str(error))
                    if windows and windows[0].answer is None:  # cut anew together, so that no remnant takes a request
                        windows[0].first = window.first
                    else:
                        windows.appendleft(_Window(window.first, window.last))
                else:
                    yield from alone(window.first, window.last, error)
                continue
            limit.most = max([limit.most, *answer.logs])
            waited = chain.retries > window.retries
            limit.fits(window.span, sum(answer.logs), 0 if waited else window.seconds)
            yield answer.found
    except Exception:
        wait([window.answer for window in windows if window.answer is not None])
        raise


def _begin(
    chain: Chain,
    windows: "deque[_Window[T]]",
    read: Callable[[int, int], Answered[T]],
    go_on: Callable[[], bool],
    most_logs: int,
) -> None:
    """Begins windows from the front on, as many as may be in flight, at least the first of them."""
    begun = sum(window.answer is not None for window in windows)
    for place in range(max(1, _room(chain, most_logs))):
        if place == len(windows) or (place and (begun >= _room(chain, most_logs) or not go_on())):
            return
        window = windows[place]
        if window.answer is None:
            cut = min(window.last, window.first + chain.log_limit.size - 1)
            if cut < window.last:
                windows.insert(place + 1, _Window(cut + 1, window.last))
            window.last, window.retries = cut, chain.retries
            window.answer = begin(partial(window.ask, read), here=len(windows) == 1 or _room(chain, most_logs) == 1)
            begun += 1


def _room(chain: Chain, most_logs: int) -> int:
    """How many windows may be in flight: few while their size is being learnt."""
    limit = chain.log_limit
    return max(1, min(chain.room, limit.answers + 1, int(most_logs / max(limit.density * limit.size, 1))))


def _narrow(chain: Chain, window: _Window[T], text: str) -> None:
    """A smaller window after a refusal: the one the text allows if that is smaller, else half.

    A window that left when larger ones were still asked for teaches nothing: it is asked for in those of now.
    """
    if window.span > chain.log_limit.size:
        return
    lasting = not _SUGGESTED.search(text) and "results" not in text.lower()
    chain.log_limit.refused(window.span, range_cap(text), lasting, window.seconds, results_cap(text))
    logger.info("eth_getLogs: %d blocks refused, now %d (%s)", window.span, chain.log_limit.size, text[:160])


_SUGGESTED = re.compile(
    r"(?:range(?: should work:)? |should work: )\[?\s*(0x[0-9a-f]+|\d+)\s*[,\-]\s*(0x[0-9a-f]+|\d+)\b(?! blocks)",
    re.IGNORECASE,
)
_NUMBER = r"(\d[\d,._]*) ?(k?)\b"
#: the words around the number of blocks that a provider allows, the surest first
_CAPS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:limited to|up to|at most|over|not exceed) (?:an? |0 - )?{_NUMBER} ?(?:blocks?|range)",
        rf"max(?:imum)?(?: allowed)?(?:[ -]blocks?)?(?:[ -]range| distance)?(?: is| of|:| =| set to)* ?{_NUMBER}(?! results| logs)",
        rf"(?:exceeds limit of|bigger than range limit|greater than|less than or equal to|exceeds|requested blocks is|distance:) {_NUMBER}(?! results| logs)",
        r"\((?:\d+ > |maximum )(\d+)(k?)\)",
    )
)


def range_cap(text: str) -> int | None:
    """The number of blocks that a provider's error text allows, None if it names none."""
    suggested = _SUGGESTED.search(text)
    if suggested:
        first, last = (int(number, 16 if number[:2].lower() == "0x" else 10) for number in suggested.groups())
        return last - first + 1 if last >= first else None
    if not re.search("block|range", text, re.IGNORECASE):
        return None  # it counts results
    for pattern in _CAPS:
        found = pattern.search(text)
        if found:
            number, thousand = found.groups()
            return int(re.sub("[,._]", "", number)) * (1_000 if thousand else 1)
    return None


_RESULTS = re.compile(
    rf"{_NUMBER} ?(?:results|logs|events)|max(?:imum)? (?:results|logs|events)(?: is| of|:| =)* ?{_NUMBER}",
    re.IGNORECASE,
)


def results_cap(text: str) -> int | None:
    """The number of logs that a provider's error text allows, 0 if it counts logs and names none; None if it does not."""
    found = _RESULTS.search(text)
    if found:
        number, thousand = (part for part in found.groups() if part is not None)
        return int(re.sub("[,._]", "", number) or 0) * (1_000 if thousand else 1)
    return (
        0
        if re.search(r"results|logs? (?:response|matched|requested|limit)|response size", text, re.IGNORECASE)
        else None
    )
