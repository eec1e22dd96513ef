"""Several endpoints of a chain as one node: the chain-id check, requests and the rate limit; batches are in `batches`.

Endpoints are tried in the order given and kept while they work. Every error that leaves this module is a ChainError: the
node's answer cannot be used and trying again did not help.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from indexer.chain.blocks import check_header, parse_block, quantity
from indexer.chain.bloom import Blooms
from indexer.chain.budget import pace_of
from indexer.chain.endpoint import Endpoint, Observer
from indexer.chain.errors import (
    BadAnswerError,
    RateLimitedError,
    TimedOutError,
    read_by,
)
from indexer.chain.limits import BatchLimits, Limit, LogLimit
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
    `on_retry(message, seconds)` is called before each wait. Past `deadline`, by the monotonic clock, nothing is asked.
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
        wrapped_native: str | None = None,
        timeout: float = 30,
        attempts: int = 7,
        backoff: float = 0.5,
        spread: bool = False,
        deadline: float = math.inf,
        on_retry: Callable[[str, float], None] | None = None,
    ) -> None:
        if not urls:
            raise ChainError(f"no endpoint configured for chain {name}")
        self.name = name
        self.chain_id = chain_id
        self.multicall3 = multicall3.lower()
        #: contracts that most others are younger than, see first_block.py
        self.older = [self.multicall3] if wrapped_native is None else [wrapped_native, self.multicall3]
        self.guard: Guard = guard
        self.requests = 0
        self.retries = 0
        #: limits found on these nodes, kept between reads: see multicall.py and the package logs
        self.call_limits: dict[str, Limit] = {}
        #: which of the gas probes is asked, see probes.py
        self.probe = 0
        #: until a code override is seen to be ignored
        self.has_lens = True
        self.log_limit = LogLimit(cap=max_log_range)
        self.blooms = Blooms(bloom)
        #: whether requests name the block of a state by its number, see `with_state_of`
        self.by_number = False
        #: the methods that answered for a block that was named by its hash
        self.by_hash: set[str] = set()
        #: see block_logs.py
        self.ignores_block_hash = False
        self.other_blocks = 0
        #: see multicall.py: answers in a row with the state of a later block
        self.newest_only = 0
        rate = max_requests_per_second
        self._batches = BatchLimits(LARGEST_BATCH if rate is None else max(1, min(int(rate), LARGEST_BATCH)))
        self._deadline = deadline
        self._pool = Pool([Endpoint(url, timeout, deadline) for url in dict.fromkeys(urls)], spread=spread)
        #: held while what several threads share is changed
        self.lock = threading.Lock()
        self._rounds = attempts
        self._backoff = backoff
        self._pace = pace_of(max_requests_per_second)
        self._on_retry = on_retry

    @property
    def endpoint(self) -> str:
        """The endpoint in use, masked."""
        return self._pool.in_use.masked

    @property
    def in_use(self) -> Endpoint:
        return self._pool.in_use

    def observe(self, observer: Observer) -> None:
        """Tells `observer` of each exchange with an endpoint."""
        for endpoint in self._pool.endpoints:
            endpoint.observe = observer

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
            self.reach()
        for failure in failures:
            logger.warning("endpoint passed over: %s", failure)

    def reach(self) -> None:
        """Ask one endpoint after another for its chain id until one serves this chain. ChainError if none does."""
        self._call("eth_chainId", lambda _: None, rounds=CHECK_ROUNDS)

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
        alone, requests, retries = copy(self), self.requests, self.retries
        vars(alone).update(_pool=Pool([endpoint]), _rounds=rounds, _batches=deepcopy(self._batches), call_limits={})
        try:
            yield alone
        finally:
            with self.lock:
                self.requests += alone.requests - requests
                self.retries += alone.retries - retries

    @contextmanager
    def patient(self, rounds: int) -> Iterator[Self]:
        """The same chain, which gives a request up after so many rounds."""
        same = copy(self)
        same._rounds = min(rounds, self._rounds)  # noqa: SLF001 - of the same class
        try:
            yield same
        finally:
            self.requests, self.retries = same.requests, same.retries

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
        known: int | None = None,
    ) -> Any:
        """The result of one JSON-RPC request, run through `parse`.

        `parse` raises RetryableError for an answer that cannot be true; the request is then repeated, first here, then
        elsewhere. `block` is the pinned block that `params` names; it tells a reorg from a backend that lags. With
        `splittable` a request that keeps failing raises TooBigError early, and the caller asks for less. `feature` names
        what some nodes lack, so that they are not asked for it twice. `rounds`: at most so many through the endpoints. Only
        an endpoint that shows that it knows the block number `known` is asked, if that is given.

        Raises TooBigError, RevertError, PrunedError, UnsupportedError, ReorgError, WrongChainError or ChainError.
        """

        def send(endpoint: Endpoint) -> Any:
            if known is not None and endpoint.known < known:
                self._count(1)
                read_by(
                    lambda raw: check_header(raw, known), endpoint.send("eth_getBlockByNumber", [hex(known), False])
                )
                endpoint.known = known
            self._count(1)
            result = self._logs(endpoint, method, params, endpoint.send(method, params, decode))
            return result if parse is None else read_by(parse, result)

        untried = self._untried(method, params)
        result = self._call(
            method, send, block=block, splittable=splittable, feature=feature, untried=untried, rounds=rounds
        )
        if untried:
            self.by_hash.add(method)
        return result

    def _untried(self, method: str, params: Sequence[Any]) -> bool:
        """Whether a block is named by its hash (EIP-1898, EIP-234), and nobody has answered that method so yet."""
        named = any(isinstance(value, dict) and "blockHash" in value for value in params)
        # without guards, a block that is named by its number could not be told from another
        return (named or method == "eth_getBlockReceipts") and method not in self.by_hash and self.guard != "none"

    def in_turn(self) -> list[Endpoint]:
        """All endpoints, the one in use first."""
        current = self._pool.current
        return self._pool.endpoints[current:] + self._pool.endpoints[:current]

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
        untried: bool = False,
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
            untried=untried,
            rounds=min(self._rounds, rounds or self._rounds),
            backoff=self._backoff,
            deadline=self._deadline,
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
