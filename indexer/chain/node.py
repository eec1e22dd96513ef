"""Several endpoints of a chain as one node: the chain-id check, requests, batches and the rate limit.

Endpoints are tried in the order given and kept while they work. Every error that leaves this module is a ChainError: the
node's answer cannot be used and trying again did not help.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from indexer.chain.blocks import check_header, parse_block, quantity
from indexer.chain.bloom import Blooms
from indexer.chain.endpoint import Endpoint
from indexer.chain.errors import (
    BadAnswerError,
    BatchTooBigError,
    DeniedError,
    RateLimitedError,
    RevertError,
    TimedOutError,
    TooBigError,
    UnclearError,
    UnsupportedError,
    read_by,
)
from indexer.chain.limits import BatchLimits, Limit, LogLimit, Pace
from indexer.chain.null_logs import logs_or_null
from indexer.chain.retry import Attempts, Pool
from indexer.errors import ChainError, ReorgError, RetryableError, WrongChainError
from indexer.model import Block
from indexer.settings import Guard

logger = logging.getLogger(__name__)

T = TypeVar("T")
Call = tuple[str, Sequence[Any]]  # method and parameters

#: calls in one JSON-RPC batch at most; providers allow 10 to 1,000
LARGEST_BATCH = 100
#: rounds of the first request, which finds out whether any endpoint is there at all
CHECK_ROUNDS = 3


class Node:
    """The endpoints of one chain; `request` may be used from several threads at once.

    Requests that leave together go to the endpoint in use, as many as it takes (`Flight`); to all with `spread`.

    `requests` counts HTTP requests sent, `retries` those repeated after a failure. `guard` says what each aggregate
    compares with the pinned block: "full" timestamp and parent hash; where `blockhash` is another chain's, "number" or
    "arbsys" timestamp and number; "timestamp" only that, "none" nothing. `bloom` says how far headers' bloom filters can be trusted, see `Blooms`;
    `max_log_range` how many blocks one eth_getLogs may span, where that is known.
    `on_retry(message, seconds)` is called before each wait.
    """

    def __init__(
        self,
        name: str,
        chain_id: int,
        urls: Sequence[str],
        multicall3: str,
        *,
        max_requests_per_second: float | None = None,
        guard: Guard = "full",
        bloom: Literal["exact", "partial", "none"] = "exact",
        max_log_range: int | None = None,
        timeout: float = 30,
        attempts: int = 7,
        backoff: float = 0.5,
        spread: bool = False,
        on_retry: Callable[[str, float], None] | None = None,
    ) -> None:
        if not urls:
            raise ChainError(f"no endpoint configured for chain {name}")
        self.name = name
        self.chain_id = chain_id
        self.multicall3 = multicall3.lower()
        self.guard: Guard = guard
        self.requests = 0
        self.retries = 0
        #: limits found on these nodes, kept between reads: see multicall.py and the package logs
        self.call_limits: dict[str, Limit] = {}
        self.has_pairing = True
        self.log_limit = LogLimit(cap=max_log_range)
        self.blooms = Blooms(bloom)
        #: whether requests name the block of a state by its number, see `with_state_of`
        self.by_number = False
        #: see block_logs.py
        self.ignores_block_hash = False
        self.other_blocks = 0
        #: see multicall.py: answers in a row with the state of a later block
        self.newest_only = 0
        rate = max_requests_per_second
        self._batches = BatchLimits(LARGEST_BATCH if rate is None else max(1, min(int(rate), LARGEST_BATCH)))
        self._pool = Pool([Endpoint(url, timeout) for url in dict.fromkeys(urls)], spread=spread)
        #: held while what several threads share is changed
        self.lock = threading.Lock()
        self._rounds = attempts
        self._backoff = backoff
        self._pace = Pace(max_requests_per_second) if max_requests_per_second else None
        self._on_retry = on_retry

    @property
    def endpoint(self) -> str:
        """The endpoint in use, masked."""
        return self._pool.in_use.masked

    @property
    def in_use(self) -> Endpoint:
        return self._pool.in_use

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the chain can still be used, they are opened again."""
        for endpoint in self._pool.endpoints:
            endpoint.close()

    # requests

    def check(self) -> None:
        """Ask every endpoint for its chain id. Endpoints that are down are passed over if another one works.

        WrongChainError if an endpoint serves another chain; ChainError if none answers.
        """
        failures = []
        for endpoint in self._pool.endpoints:
            try:
                self._verify(endpoint)
            except WrongChainError:
                raise
            except (RetryableError, ChainError) as error:
                failures.append(f"{endpoint.masked}: {error}")
        if len(failures) == len(self._pool.endpoints):
            self._call("eth_chainId", lambda _: None, rounds=CHECK_ROUNDS)
        for failure in failures:
            logger.warning("endpoint passed over: %s", failure)

    def check_again(self) -> None:
        """Ask the endpoints for their chain ids once more, before they make us undo anything.

        ReorgError if one of several now serves another chain: it is not used any more, and its answers are void.
        WrongChainError if no other one answers; ChainError if none answers at all.
        """
        wrong: list[tuple[Endpoint, WrongChainError]] = []
        answered, failure = False, None
        for endpoint in self._pool.endpoints:
            endpoint.verified = False
            try:
                self._call("eth_chainId", lambda _: None, rounds=CHECK_ROUNDS, pool=Pool([endpoint]))
                answered = True
            except WrongChainError as error:
                wrong.append((endpoint, error))
            except ChainError as error:
                failure = error
        if wrong and not answered:
            raise wrong[0][1]
        for endpoint, reason in wrong:
            logger.error("%s; it is not used any more", reason)
            self._pool.drop(endpoint)
        if wrong:
            raise ReorgError(str(wrong[0][1]))
        if failure is not None and not answered:
            raise failure

    def others(self) -> list[Endpoint]:
        """The endpoints that are not in use, in the order they would be asked next."""
        endpoints, current = self._pool.endpoints, self._pool.current
        return endpoints[current + 1 :] + endpoints[:current]

    @contextmanager
    def behind(self, endpoint: Endpoint, *, rounds: int) -> Iterator[Self]:
        """The same chain behind this endpoint alone; limits found on it do not apply to the others."""
        alone = copy(self)
        vars(alone).update(_pool=Pool([endpoint]), _rounds=rounds, _batches=deepcopy(self._batches), call_limits={})
        try:
            yield alone
        finally:
            self.requests, self.retries = alone.requests, alone.retries

    def opinions(self, number: int) -> list[str | None]:
        """Each endpoint's hash of block `number`, None where its chain does not reach it.

        Endpoints that do not answer are left out.
        """
        found: list[str | None] = []
        for endpoint in list(self._pool.endpoints):

            def ask(endpoint: Endpoint) -> str | None:
                self._count(1)
                raw = endpoint.send("eth_getBlockByNumber", [hex(number), False])
                return None if raw is None else parse_block(check_header(raw, number)).hash

            try:
                found.append(self._call("eth_getBlockByNumber", ask, rounds=CHECK_ROUNDS, pool=Pool([endpoint])))
            except ChainError as error:
                logger.info("%s has no opinion on block %d: %s", endpoint.masked, number, error)
        return found

    def request(
        self,
        method: str,
        params: Sequence[Any],
        parse: Callable[[Any], T] | None = None,
        *,
        block: Block | None = None,
        splittable: bool = False,
        feature: str | None = None,
        rounds: int | None = None,
        decode: Callable[[bytearray], Any] | None = None,
    ) -> Any:
        """The result of one JSON-RPC request, run through `parse`.

        `parse` raises RetryableError for an answer that cannot be true; the request is then repeated, first here, then
        elsewhere. `block` is the pinned block that `params` names; it tells a reorg from a backend that lags. With
        `splittable` a request that keeps failing raises TooBigError early, and the caller asks for less. `feature` names
        what some nodes lack, so that they are not asked for it twice. `rounds`: at most so many through the endpoints.

        Raises TooBigError, RevertError, PrunedError, UnsupportedError, ReorgError, WrongChainError or ChainError.
        """

        def send(endpoint: Endpoint) -> Any:
            self._count(1)
            result = self._logs(endpoint, method, params, endpoint.send(method, params, decode))
            return result if parse is None else read_by(parse, result)

        return self._call(method, send, block=block, splittable=splittable, feature=feature, rounds=rounds)

    def batch(
        self,
        calls: Sequence[Call],
        parse: Callable[[Any, Call], Any] | None = None,
        *,
        block: Block | None = None,
        splittable: bool = False,
    ) -> list[Any]:
        """The results of many requests in few HTTP bodies, in order; a reverted eth_call is a RevertError in its place.

        `parse` also gets the call that it parses the answer of, as nodes may mix up ids. Otherwise like `request`, which
        serves single calls where the node answers no batches.
        """
        results: dict[int, Any] = {}
        pending = list(range(len(calls)))
        while pending:
            limit = self._batches.of(calls[pending[0]][0])
            part = pending[: limit.size]
            answers = self._part(calls, part, limit, parse, block, splittable)
            too_big = [answer for answer in answers.values() if isinstance(answer, TooBigError)]  # they stay pending
            refusal = next((answer for answer in too_big if isinstance(answer, BatchTooBigError)), None)
            if refusal is not None:
                limit.refused(len(part), refusal.most)
            elif too_big and splittable:
                raise too_big[0]
            elif too_big:
                limit.too_big(len(part))
            elif answers and len(part) > 1:
                limit.fits(len(part))
            for i, answer in answers.items():
                if isinstance(answer, ChainError) and not isinstance(answer, RevertError | TooBigError):
                    # calls that this endpoint cannot answer are sent alone, to others too
                    results[i] = self._alone(calls[i], parse, block, splittable)
                elif not isinstance(answer, TooBigError):
                    results[i] = answer
            pending = [i for i in pending if i not in results]
        return [results[i] for i in range(len(calls))]

    def _part(
        self,
        calls: Sequence[Call],
        part: Sequence[int],
        limit: Limit,
        parse: Callable[[Any, Call], Any] | None,
        block: Block | None,
        splittable: bool,
    ) -> dict[int, Any]:
        """The final answers of one batch, refusals included; none where the batch as a whole was too much."""
        if len(part) == 1:
            return {part[0]: self._alone(calls[part[0]], parse, block, splittable)}
        try:
            return self._call(
                "batch", lambda endpoint: self._send_part(endpoint, calls, part, parse), block=block, splittable=True
            )
        except UnsupportedError:
            self._batches.none()
        except BatchTooBigError as error:
            limit.refused(len(part), error.most)
        except (
            DeniedError,
            UnclearError,
        ):  # it may refuse batches, this batch, or everything: single requests will tell
            return {i: self._alone(calls[i], parse, block, splittable) for i in part}
        except TooBigError:
            if splittable:
                raise
            limit.too_big(len(part))
        return {}

    def in_turn(self) -> list[Endpoint]:
        """All endpoints, the one in use first."""
        current = self._pool.current
        return self._pool.endpoints[current:] + self._pool.endpoints[:current]

    def ask_once(
        self,
        endpoint: Endpoint,
        calls: Sequence[Call],
        parse: Callable[[Any, Call], Any],
        *,
        feature: str | None = None,
    ) -> list[Any]:
        """One endpoint's answer to each of the calls, None where it has none: no second try, no pause.

        An endpoint that asked for patience, or that lately took too long, is not asked at all.
        """
        answers: list[Any] = [None] * len(calls)
        if max(endpoint.not_before, endpoint.spared_until) > time.monotonic() or feature in endpoint.unsupported:
            return answers
        size = self._batches.of(calls[0][0]).size if calls else 1
        for start in range(0, len(calls), size):
            part = range(start, min(start + size, len(calls)))
            try:
                self._verify(endpoint)
                if len(part) == 1:
                    self._count(1)
                    answer = self._logs(endpoint, *calls[start], endpoint.send(*calls[start]))
                    settled = {start: read_by(parse, answer, calls[start])}
                else:
                    settled = self._send_part(endpoint, calls, part, parse)
                refusals = [answer for answer in settled.values() if isinstance(answer, UnsupportedError)]
                if refusals:
                    raise refusals[0]
            except (RetryableError, ChainError) as error:
                logger.info("%s: %s", endpoint.masked, error)
                endpoint.failed(error)
                if feature is not None and isinstance(error, UnsupportedError):
                    endpoint.unsupported.add(feature)
                break
            for i, answer in settled.items():
                answers[i] = None if isinstance(answer, Exception) else answer
        return answers

    def _alone(
        self, call: Call, parse: Callable[[Any, Call], Any] | None, block: Block | None, splittable: bool
    ) -> Any:
        parse_one = None if parse is None else lambda raw: parse(raw, call)
        try:
            return self.request(*call, parse_one, block=block, splittable=splittable)
        except RevertError as error:
            return error

    def _send_part(
        self,
        endpoint: Endpoint,
        calls: Sequence[Call],
        part: Sequence[int],
        parse: Callable[[Any, Call], Any] | None,
    ) -> dict[int, Any]:
        """The final answers of one HTTP batch, refusals included; raises only if all calls have to be sent again."""
        self._count(len(part))
        settled: dict[int, Any] = {}
        failure: RetryableError | None = None
        limited = False
        for i, answer in zip(part, endpoint.send_batch([calls[i] for i in part]), strict=True):
            outcome = self._logs(endpoint, *calls[i], answer)
            if parse is not None and not isinstance(answer, Exception):
                try:
                    outcome = read_by(parse, outcome, calls[i])
                except RetryableError as error:
                    outcome = error
            if isinstance(outcome, RetryableError):
                failure = failure or outcome
                limited = limited or isinstance(outcome, RateLimitedError)
            else:
                settled[i] = outcome
        if failure is not None and not settled:
            raise failure
        if limited:  # the rest is sent again, but not at once
            endpoint.not_before = time.monotonic() + self._backoff
        return settled

    def _logs(self, endpoint: Endpoint, method: str, params: Sequence[Any], result: Any) -> Any:
        if method != "eth_getLogs" or isinstance(result, Exception):
            return result
        return logs_or_null(endpoint, params[0], result, lambda: self._count(1))

    def _count(self, calls: int) -> None:
        """One HTTP request carrying that many calls; providers count calls, so the rate limit does too."""
        with self.lock:
            self.requests += 1
            now = time.monotonic()
            at = now if self._pace is None else self._pace.reserve(now, calls)
        if at > now:
            time.sleep(at - now)

    def _verify(self, endpoint: Endpoint) -> None:
        if endpoint.verified:
            return
        self._count(1)
        try:
            found = quantity(endpoint.send("eth_chainId", []))
        except ValueError as error:
            raise BadAnswerError(f"eth_chainId: {endpoint.scrub(error)}") from None
        if found != self.chain_id:
            raise WrongChainError(
                f"{endpoint.masked} serves chain id {found}, but {self.name} is chain id {self.chain_id}: "
                "give another RPC URL or another --chain"
            )
        endpoint.verified = True

    def _call(
        self,
        what: str,
        send: Callable[[Endpoint], T],
        *,
        block: Block | None = None,
        splittable: bool = False,
        feature: str | None = None,
        rounds: int | None = None,
        pool: Pool | None = None,
    ) -> T:
        attempts = Attempts(
            chain=self.name,
            what=what,
            pool=pool or self._pool,
            verify=self._verify,
            orphaned=self._is_orphaned,
            told=self._tell,
            block=block,
            splittable=splittable,
            feature=feature,
            rounds=min(self._rounds, rounds or self._rounds),
            backoff=self._backoff,
        )
        return attempts.run(lambda endpoint: self._in_flight(endpoint, send))

    def _in_flight(self, endpoint: Endpoint, send: Callable[[Endpoint], T]) -> T:
        """What `send` returns, among the other requests in flight; again with fewer of them if they were too many."""
        while True:
            with endpoint.flight.place() as ticket:
                try:
                    result = send(endpoint)
                except (RateLimitedError, TimedOutError) as error:
                    crowded = endpoint.flight.refused(ticket)
                    if not crowded or isinstance(error, TimedOutError) or error.retry_after is not None:
                        raise
                    refusal = f"{endpoint.masked}: {error}; fewer requests at once"
                else:
                    endpoint.flight.answered()
                    return result
            logger.info(refusal)
            self._tell(refusal, 0.0)

    @property
    def room(self) -> int:
        """How many requests may be made at once: one more than are in flight, so that growth is tried."""
        endpoints = self._pool.endpoints if self._pool.spread else [self._pool.in_use]
        return sum(endpoint.flight.limit for endpoint in endpoints) + 1

    def _tell(self, message: str, seconds: float) -> None:
        with self.lock:
            self.retries += 1
        if self._on_retry is not None:
            self._on_retry(message, seconds)

    def _is_orphaned(self, endpoint: Endpoint, block: Block) -> bool:
        """Whether the endpoint has another block with the pinned block's number."""
        try:
            self._count(1)
            found = endpoint.send("eth_getBlockByNumber", [hex(block.number), False])
        except (RetryableError, ChainError):
            return False
        return isinstance(found, dict) and isinstance(found.get("hash"), str) and found["hash"].lower() != block.hash
