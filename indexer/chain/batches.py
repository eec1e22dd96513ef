"""Many requests of one node in few HTTP bodies."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from indexer.chain.endpoint import Endpoint
from indexer.chain.errors import (
    BatchTooBigError,
    DeniedError,
    RateLimitedError,
    RevertError,
    TooBigError,
    UnclearError,
    UnsupportedError,
    read_by,
)
from indexer.chain.limits import Limit
from indexer.chain.node import Call, Node
from indexer.errors import ChainError, RetryableError
from indexer.model import Block

logger = logging.getLogger(__name__)


class BatchingNode(Node):
    """A node that is asked many things at once, or one by one where it takes no batches."""

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
        untried = self._untried(*calls[part[0]])
        try:
            answers: dict[int, Any] = self._call(
                "batch",
                lambda endpoint: self._send_part(endpoint, calls, part, parse),
                block=block,
                splittable=True,
                untried=untried,
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
        else:
            if untried and not all(isinstance(answer, Exception) for answer in answers.values()):
                self.by_hash.add(calls[part[0]][0])
            return answers
        return {}

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
