"""The only retry policy: repeats one request, here and elsewhere as its errors suggest, until it is answered or hopeless."""

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import tenacity

from indexer.chain.endpoint import Endpoint
from indexer.chain.errors import (
    BadAnswerError,
    BrokenOffError,
    DeniedError,
    OtherBlockError,
    OversizedError,
    RateLimitedError,
    RejectedError,
    ServerFailedError,
    StatelessError,
    TimedOutError,
    TooBigError,
    UnclearError,
    UnknownBlockError,
    UnreachableError,
    UnsupportedError,
)
from indexer.errors import ChainError, PrunedError, ReorgError, RetryableError, WrongChainError
from indexer.model import Block

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: the longest pause that no endpoint asked for
LONGEST_BACKOFF = 30.0
#: rounds through all endpoints for a request that can be split instead of repeated
SPLIT_ROUNDS = 2
#: failures that a smaller request may avoid
MAYBE_TOO_BIG = (TimedOutError, BadAnswerError, BrokenOffError)
#: how often the last endpoint left must lack a state, as its backends may differ
PRUNED_SIGHTS = 3
#: how often an endpoint must repeat an unknown error before that is its answer
UNCLEAR_SIGHTS = 2
#: how often each endpoint must fail in the very same way before that is its way and no passing fault: with logs of another
#: block, or where it has never answered for a block that is named by its hash
SAME_SIGHTS = 4
#: how often another hash must be seen at the pinned block's number before the pinned block counts as orphaned
ORPHAN_SIGHTS = 2


class NoSuchBlockError(ChainError):
    """No endpoint knows that block (yet, or any more)."""


class _ElsewhereError(RetryableError):
    """The endpoint cannot answer; the next one is asked at once."""


class _PerhapsError(RetryableError):
    """An unknown error, seen too rarely so far to be final."""


class Pool:
    """A chain's endpoints in the order given; the one in use is kept while it works.

    With `spread`, requests that leave together go to all of them.
    """

    def __init__(self, endpoints: Sequence[Endpoint], *, spread: bool = False) -> None:
        self.endpoints = list(endpoints)
        self.spread = spread
        self.current = 0

    @property
    def in_use(self) -> Endpoint:
        return self.endpoints[self.current]

    def keep(self, endpoint: Endpoint) -> None:
        if endpoint in self.endpoints:  # else another request found out that it must not be used
            self.current = self.endpoints.index(endpoint)

    def leave(self, endpoint: Endpoint) -> None:
        """Makes the next endpoint the one in use."""
        if endpoint in self.endpoints:
            self.current = (self.endpoints.index(endpoint) + 1) % len(self.endpoints)

    def drop(self, endpoint: Endpoint) -> None:
        """Removes an endpoint from this process.

        Evidence: its own answer to eth_chainId, while another endpoint serves the right chain. Undone by the next start;
        the last endpoint is never removed.
        """
        if endpoint in self.endpoints and len(self.endpoints) > 1:
            self.endpoints.remove(endpoint)
            self.current %= len(self.endpoints)


@dataclass(slots=True, kw_only=True)
class Attempts:
    """One request to the endpoints of `pool`, and what became of it so far.

    `verify` raises WrongChainError for an endpoint of another chain; `orphaned(endpoint, block)` tells whether it has
    another block at that number. `block`, `splittable` and `feature` as in `Chain.request`; `untried`: the block is named
    by its hash, which nobody has answered yet; `rounds` through the endpoints at most, the first pause `backoff` seconds
    long, none past `deadline` (by the monotonic clock).
    `told(message, seconds)` is called before each pause.
    """

    chain: str
    what: str
    pool: Pool
    verify: Callable[[Endpoint], None]
    orphaned: Callable[[Endpoint, Block], bool]
    told: Callable[[str, float], None]
    block: Block | None
    splittable: bool
    feature: str | None
    untried: bool
    rounds: int
    backoff: float
    deadline: float = math.inf
    refused: dict[Endpoint, ChainError] = field(default_factory=dict)
    failures: dict[Endpoint, str] = field(default_factory=dict)
    failing: str = ""
    pruned: int = 0
    orphan_sights: int = 0
    unclear: Counter[Endpoint] = field(default_factory=Counter)
    same: Counter[tuple[Endpoint, str]] = field(default_factory=Counter)

    def run(self, send: Callable[[Endpoint], T]) -> T:
        """Returns what `send` returns. ChainError, or a more specific kind of it, where trying again does not help."""
        retrying = tenacity.Retrying(
            stop=self._stop,
            wait=self._wait,
            retry=tenacity.retry_if_exception_type(RetryableError),
            before_sleep=self._before_sleep,
            reraise=True,
        )
        try:
            result: T = retrying(self._attempt, send)
        except RetryableError as error:
            raise self._given_up(error) from None
        return result

    def _attempt(self, send: Callable[[Endpoint], T]) -> T:
        endpoint = self._pick()
        if self.feature is not None and self.feature in endpoint.unsupported:
            self._refuse(endpoint, UnsupportedError(f"{self.feature} is not supported"))
        try:
            if endpoint.not_before > time.monotonic():
                raise RateLimitedError("it is left alone for as long as it asked for")
            self.verify(endpoint)
            result = send(endpoint)
        except UnclearError as error:
            self.unclear[endpoint] += 1
            if self.unclear[endpoint] < UNCLEAR_SIGHTS:
                self.failures[endpoint], self.failing = str(error), endpoint.masked
                self.pool.leave(endpoint)
                raise _PerhapsError(str(error)) from None
            self._refuse(endpoint, error)
            raise
        except (UnsupportedError, RejectedError, DeniedError) as error:
            if self.feature is not None and isinstance(error, UnsupportedError):
                endpoint.unsupported.add(self.feature)
            self._refuse(endpoint, error)
            raise
        except PrunedError as error:
            self._missing(endpoint, error)
            raise
        except WrongChainError as error:
            if len(self.pool.endpoints) > 1 and any(other.verified for other in self.pool.endpoints):
                logger.error("%s; it is not used any more", error)
                self.pool.drop(endpoint)
                raise _ElsewhereError(str(error)) from None
            raise
        except OversizedError as error:
            if self.splittable:
                raise TooBigError(str(error)) from None
            self._failed(endpoint, error)
            raise
        except RetryableError as error:
            self._failed(endpoint, error)
            raise
        self.pool.keep(endpoint)
        return result

    def _failed(self, endpoint: Endpoint, error: RetryableError) -> None:
        """Remembers a failure that may pass. ReorgError where it means that the pinned block is gone."""
        others = len(self.pool.endpoints) > 1
        dead = isinstance(error, TimedOutError) or (isinstance(error, UnreachableError) and others)
        if dead and not endpoint.verified and not endpoint.named:
            endpoint.named = True
            logger.warning("%s: %s; %s", endpoint.masked, error, "others are tried" if others else "it is asked again")
        self.failures[endpoint], self.failing = str(error), endpoint.masked
        self.same[endpoint, str(error)] += 1
        endpoint.failed(error)
        if isinstance(error, UnknownBlockError) and self.block is not None:
            self.orphan_sights += self.orphaned(endpoint, self.block)
            if self.orphan_sights >= ORPHAN_SIGHTS:
                raise ReorgError(f"block {self.block.number} ({self.block.hash}) left the canonical chain") from None
        self.pool.leave(endpoint)

    def _missing(self, endpoint: Endpoint, error: PrunedError) -> None:
        """Another backend of the last endpoint left may have a state that this one lacks; with old logs that never helps."""
        self.pruned += 1
        state = (self.block is not None or self.what != "eth_getLogs") and not isinstance(error, StatelessError)
        if state and self.pruned < PRUNED_SIGHTS and len(self.refused) == len(self.pool.endpoints) - 1:
            self.failures[endpoint], self.failing = str(error), endpoint.masked
            raise RetryableError(str(error)) from None
        self._refuse(endpoint, error)

    def _refuse(self, endpoint: Endpoint, error: ChainError) -> None:
        """Go on with the other endpoints, or raise the most specific refusal if none is left."""
        self.refused[endpoint] = type(error)(f"{endpoint.masked}: {error}")
        if len(self.refused) < len(self.pool.endpoints):
            raise _ElsewhereError(f"{endpoint.masked}: {error}") from None
        errors = sorted(self.refused.values(), key=lambda refusal: not isinstance(refusal, PrunedError))
        kind = type(errors[0])
        raise kind("; ".join(str(refusal) for refusal in errors)) from None

    def _pick(self) -> Endpoint:
        """The endpoint in use, or the first after it that has neither refused nor asked for patience.

        Where requests are spread, the one with the most room.
        """
        endpoints, current = self.pool.endpoints, self.pool.current
        order = [endpoint for endpoint in endpoints[current:] + endpoints[:current] if endpoint not in self.refused]
        now = time.monotonic()
        spread = self.pool.spread

        def cost(endpoint: Endpoint) -> tuple[float, float]:
            flight = endpoint.flight
            load = (flight.inside + flight.waiting) / flight.limit if spread else 0.0
            return max(0.0, endpoint.not_before - now), load

        return min(order, key=cost)

    @property
    def _usable(self) -> int:
        return max(1, len(self.pool.endpoints) - len(self.refused))

    def _repeats(self) -> int:
        """How many endpoints have failed in the very same way so often that it is no accident."""
        return len({endpoint for (endpoint, _), times in self.same.items() if times >= SAME_SIGHTS})

    def _refuses_hashes(self, error: BaseException | None) -> bool:
        """Whether an error may only mean that the node knows no block by its hash, in whatever words."""
        said = isinstance(error, BadAnswerError | UnknownBlockError)
        return self.untried and said and not isinstance(error, OtherBlockError | ServerFailedError)

    def _delay(self) -> float:
        """Seconds until one of the remaining endpoints may be asked again."""
        left = [endpoint.not_before for endpoint in self.pool.endpoints if endpoint not in self.refused]
        return max(0.0, min(left, default=0.0) - time.monotonic())

    # tenacity's hooks

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if time.monotonic() + self._wait(state) >= self.deadline:
            return True
        if isinstance(error, _ElsewhereError):
            return False
        if (isinstance(error, OtherBlockError) or self._refuses_hashes(error)) and self._repeats() >= self._usable:
            return True
        made = math.ceil(state.attempt_number / self._usable)
        if self.splittable and isinstance(error, MAYBE_TOO_BIG):
            return made >= SPLIT_ROUNDS
        return made >= self.rounds

    def _wait(self, state: tenacity.RetryCallState) -> float:
        if state.outcome and isinstance(state.outcome.exception(), _ElsewhereError):
            return 0.0
        backoff = 0.0
        if state.attempt_number % self._usable == 0:  # a round through the endpoints is over
            made = state.attempt_number // self._usable
            backoff = min(LONGEST_BACKOFF, self.backoff * 2.0 ** (made - 1)) * random.uniform(0.75, 1.25)  # noqa: S311
        return max(backoff, self._delay())

    def _before_sleep(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        seconds = state.next_action.sleep if state.next_action else 0.0
        text = str(error) if isinstance(error, _ElsewhereError) else f"{self.failing}: {error}"
        level = logging.WARNING if seconds >= 2 else logging.INFO
        logger.log(level, "%s; attempt %d, next in %.1f s", text, state.attempt_number, seconds)
        self.told(text, seconds)

    def _given_up(self, error: RetryableError) -> ChainError:
        if self.splittable and isinstance(error, MAYBE_TOO_BIG):
            return TooBigError(f"{error}; a smaller request may do")
        if isinstance(error, _PerhapsError) or self._refuses_hashes(error):
            return UnclearError(f"{self.failing}: {error}")
        if isinstance(error, UnknownBlockError) and self.block is not None:
            return ReorgError(
                f"block {self.block.number} ({self.block.hash}) is not known to any endpoint of {self.chain} any more"
            )
        told = [f"{endpoint.masked}: {text}" for endpoint, text in self.failures.items()]
        kind = NoSuchBlockError if isinstance(error, UnknownBlockError) else ChainError
        return kind(
            f"{self.chain}: {self.what} failed, gave up ({'; '.join([*told, *map(str, self.refused.values())])})"
        )
