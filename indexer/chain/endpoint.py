"""One JSON-RPC endpoint: a single HTTP exchange, strictly checked, every error classified by one table, URLs masked.

No retries here: `indexer.chain.retry` owns that policy.
"""

import itertools
import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from indexer.boundary import bounded_json
from indexer.boundary.masking import LONGEST_TEXT, masked, secrets
from indexer.boundary.masking import mask as mask  # noqa: PLC0414 - it belongs to this module's public names
from indexer.chain.errors import (
    EXCEPTIONS,
    BadAnswerError,
    BatchTooBigError,
    BrokenOffError,
    DeniedError,
    OversizedError,
    RateLimitedError,
    RejectedError,
    RevertError,
    ServerFailedError,
    TimedOutError,
    TooBigError,
    UnclearError,
    UnreachableError,
    UnsupportedError,
    classify,
    most_in_batch,
    revert_data,
)
from indexer.chain.exchange import BrokenAnswerError, OversizeError, Reply, Transport
from indexer.chain.flight import Flight
from indexer.chain.limits import most_bytes
from indexer.errors import ChainError, RetryableError

# Its debug lines carry whole URLs, keys included.
logging.getLogger("urllib3.connectionpool").setLevel(logging.WARNING)

#: the longest Retry-After that is honoured, in seconds: a node's mistake must not silence it for a day
LONGEST_PATIENCE = 60.0
#: seconds for which an endpoint that took too long is not asked for a second opinion
SPARED_SECONDS = 600.0
#: how long an endpoint has for its first answer, the first time it is asked: one that is dead must not hold up the others
FIRST_SECONDS = 1.5


Observer = Callable[[str, str, str, float], None]


class Endpoint:
    """One node URL. `send` and `send_batch` do one HTTP exchange each and raise the classified errors."""

    def __init__(self, url: str, timeout: float, deadline: float = math.inf) -> None:
        self.url = url
        self.masked = mask(url)
        self.verified = False
        #: whether it has been asked anything before
        self.asked = False
        #: whether people were told that it does not answer
        self.named = False
        self.not_before = 0.0
        self.spared_until = 0.0
        #: nulls that it answered for the logs of blocks it knows; -1 once it answered []
        self.null_logs = 0
        self.unsupported: set[str] = set()
        #: the highest block that it has shown to know
        self.known = -1
        #: requests for receipts in a row that it failed to answer
        self.lost_receipts = 0
        self.flight = Flight()
        #: is told of each exchange: the masked URL, the method, `ok`, `limited`, `retry` or `error`, and seconds
        self.observe: Observer = lambda *_: None
        self._timeout = timeout
        #: when the last answer must be there, by the monotonic clock
        self._deadline = deadline
        self._secrets = secrets(url)
        self._ids = itertools.count(1)
        self._transport = Transport(url)

    def __repr__(self) -> str:
        return f"Endpoint({self.masked})"

    def close(self) -> None:
        self._transport.close()

    def failed(self, error: Exception) -> None:
        """Remembers a failure after which the endpoint is left alone, or spared what others can answer as well."""
        now = time.monotonic()
        if isinstance(error, RateLimitedError) and error.retry_after is not None:
            self.not_before = now + error.retry_after
        if isinstance(error, TimedOutError | UnreachableError):
            self.spared_until = now + SPARED_SECONDS

    def scrub(self, text: object, length: int = 300) -> str:
        """Any text as one printable line without this URL's secrets."""
        whole = str(text)
        line = whole[:LONGEST_TEXT]
        if len(line) < len(whole):  # the cut may leave a part of a secret at the end
            line = line[: -max(map(len, self._secrets), default=1)]
        line = masked(line)
        for secret in self._secrets:
            line = line.replace(secret, "***")
        line = " ".join("".join(char if char.isprintable() else " " for char in line).split())
        return line if len(line) <= length else line[: length - 1] + "…"

    def send(self, method: str, params: Sequence[Any], decode: Callable[[bytearray], Any] | None = None) -> Any:
        """The `result` of one request, null included."""
        with self._observed(method):
            return self._send(method, params, decode)

    @contextmanager
    def _observed(self, method: str) -> Iterator[None]:
        began, outcome = time.monotonic(), "ok"
        try:
            yield
        except RateLimitedError:
            outcome = "limited"
            raise
        except RetryableError:
            outcome = "retry"
            raise
        except BaseException:
            outcome = "error"
            raise
        finally:
            self.observe(self.masked, method, outcome, time.monotonic() - began)

    def _send(self, method: str, params: Sequence[Any], decode: Callable[[bytearray], Any] | None) -> Any:
        request_id = next(self._ids)
        answer = self._post(
            {"jsonrpc": "2.0", "id": request_id, "method": method, "params": list(params)},
            f"{method}: ",
            most_bytes([(method, params)]),
            decode,
        )
        if decode is not None and getattr(answer, "id", None) == request_id:
            return answer
        if not isinstance(answer, dict):
            raise BadAnswerError(f"{method}: the answer is no JSON-RPC object")
        if "error" in answer and answer["error"] is not None:
            raise self.error(method, answer["error"])
        if _id(answer) != request_id:
            raise BadAnswerError(f"{method}: answer to another request (id {self.scrub(answer.get('id'), 40)})")
        if "result" not in answer:
            raise BadAnswerError(f"{method}: answer without a result")
        return answer["result"]

    def send_batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """One JSON-RPC batch: for each call its result, or the exception that its error means, in order.

        A call the node left out gets a BadAnswerError; answers with unknown or repeated ids invalidate the whole batch.
        UnsupportedError if the node answers batches with a single error.
        """
        ids = [next(self._ids) for _ in calls]
        body = [
            {"jsonrpc": "2.0", "id": i, "method": method, "params": list(params)}
            for i, (method, params) in zip(ids, calls, strict=True)
        ]
        with self._observed("batch"):
            answers = self._post(body, "batch: ", most_bytes(calls))
        if isinstance(answers, dict) and answers.get("error"):
            failure = self.error("batch", answers["error"], len(calls))
            plain = isinstance(failure, RejectedError) and not isinstance(failure, UnclearError)
            raise UnsupportedError(str(failure)) if plain else failure
        if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
            raise BadAnswerError("batch: the answer is no list of JSON-RPC objects")
        by_id: dict[int, dict[str, Any]] = {}
        for answer in answers:
            answer_id = _id(answer)
            if not isinstance(answer_id, int) or answer_id in by_id:
                raise BadAnswerError(f"batch: an answer has the id {self.scrub(answer_id, 40)}")
            by_id[answer_id] = answer
        if not by_id.keys() <= set(ids):
            raise BadAnswerError("batch: answers to other requests")
        return [self._outcome(method, by_id.get(i), len(calls)) for i, (method, _) in zip(ids, calls, strict=True)]

    def _outcome(self, method: str, answer: dict[str, Any] | None, asked: int) -> Any:
        if answer is None:
            return BadAnswerError(f"{method}: left out of the batch's answer")
        if answer.get("error") is not None:
            return self.error(method, answer["error"], asked)
        return answer["result"] if "result" in answer else BadAnswerError(f"{method}: answer without a result")

    def error(self, method: str, error: Any, asked: int = 1) -> RetryableError | ChainError:
        """The exception that a JSON-RPC error object means, in the answer to a request of `asked` calls."""
        if not isinstance(error, dict):
            return BadAnswerError(f"{method}: {self.scrub(error)}")
        code = error.get("code")
        code = code if isinstance(code, int) else 0
        message = str(error.get("message", ""))
        data = error.get("data")
        text = message if data is None else f"{message} {data if isinstance(data, str) else json.dumps(data)}"
        text = text[:LONGEST_TEXT]
        kind = classify(code, text)
        line = self.scrub(f"{method}: {message or text} ({code})")
        if kind == "revert":
            return RevertError(line, revert_data(data))
        if kind == "batch" and asked > 1:
            return self._batch_refused(line, text, asked)
        if kind in {"rate", "batch"}:
            return RateLimitedError(line)
        return EXCEPTIONS[kind](
            line if kind not in {"size", "rejected", "unclear"} else self.scrub(f"{method}: {text} ({code})")
        )

    @staticmethod
    def _batch_refused(line: str, text: str, asked: int) -> ChainError:
        most = most_in_batch(text, asked)
        if most is None and re.search(r"not (supported|allowed|enabled|available)|unsupported|disabled", text.lower()):
            return UnsupportedError(line)
        return BatchTooBigError(line, most)

    def _post(self, body: Any, what: str, most: int, decode: Callable[[bytearray], Any] | None = None) -> Any:
        payload = json.dumps(body, separators=(",", ":")).encode()
        reply = self._exchange(payload, what, most)
        status, headers = reply.status, reply.headers
        decoded = decode(reply.content) if decode is not None and status == 200 else None
        if decoded is not None:
            return decoded
        try:
            answer, fault = bounded_json.loads(reply.content), ""
        except ValueError as error:
            answer, fault = None, self.scrub(error, 120)
        if status == 429:
            raise RateLimitedError(f"{what}HTTP 429", retry_after(headers.get("Retry-After")))
        if isinstance(answer, dict) and answer.get("error") and (status < 500 or _tells(answer["error"])):
            return answer  # many providers send their JSON-RPC errors with HTTP 4xx or 5xx
        if status == 403 and self.verified:  # many a gateway says so where it means "too many requests"
            raise RateLimitedError(f"{what}HTTP 403")
        if status in {401, 402, 403}:
            raise DeniedError(f"{what}HTTP {status}: the endpoint refuses access")
        if status == 413:
            raise TooBigError(f"{what}HTTP 413: the request is too large")
        if status == 503:
            raise RateLimitedError(f"{what}HTTP 503", retry_after(headers.get("Retry-After")))
        if status in {408, 504, 524}:
            raise TimedOutError(f"{what}HTTP {status}")
        if status in {404, 405, 410}:
            raise DeniedError(f"{what}HTTP {status}: there is no JSON-RPC service at that URL")
        if 300 <= status < 400:
            raise DeniedError(f"{what}HTTP {status}: the endpoint has moved; give its new URL (https?)")
        if status >= 400:
            raise ServerFailedError(f"{what}HTTP {status}")
        if answer is None:
            raise BadAnswerError(f"{what}the answer is no JSON to read ({len(reply.content)} bytes): {fault}")
        return answer

    def _exchange(self, payload: bytes, what: str, most: int) -> Reply:
        timeout = self._timeout if self.asked else min(self._timeout, FIRST_SECONDS)
        timeout = min(timeout, self._deadline - time.monotonic())
        if timeout <= 0:
            raise TimedOutError(f"{what}no time is left to ask")
        self.asked = True
        try:
            return self._transport.post(payload, timeout, most)
        except (TimeoutError, requests.Timeout):
            raise TimedOutError(f"{what}no complete answer within {timeout:.3g} s") from None
        except OversizeError as error:
            raise OversizedError(f"{what}the answer {error}") from None
        except (BrokenAnswerError, requests.exceptions.ChunkedEncodingError) as error:
            raise BadAnswerError(f"{what}the answer broke off ({self.scrub(error, 120)})") from None
        except requests.exceptions.RequestException as error:
            reason = _reason(error)
            kind = BrokenOffError if re.search("aborted|reset|closed", reason) else UnreachableError
            raise kind(f"{what}{self.scrub(reason, 160)}") from None


def _id(answer: Mapping[str, Any]) -> Any:
    """The id of an answer; some gateways send ours back as a text (trustwallet/blockatlas PR 1062) or with a fraction of 0
    (markaren/YAJ-RPC 11).
    """
    found = answer.get("id")
    if isinstance(found, float) and found.is_integer():
        return int(found)
    return int(found) if isinstance(found, str) and re.fullmatch(r"\d{1,18}", found, re.ASCII) else found


def _tells(error: Any) -> bool:
    """Whether a JSON-RPC error is more specific than the HTTP status that it came with."""
    if not isinstance(error, dict) or not isinstance(error.get("code"), int):
        return False
    return classify(error["code"], str(error.get("message", ""))[:LONGEST_TEXT]) not in {"unclear", "server"}


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date; `LONGEST_PATIENCE` at most."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), LONGEST_PATIENCE)


def _reason(error: BaseException) -> str:
    """The innermost reason of a connection error, as the outer ones repeat the URL."""
    text = str(error)[:LONGEST_TEXT]
    found = re.search(
        r"\[Errno -?\d{1,5}\] [^'\")]{1,200}|Connection \w{1,20}[^'\")]{0,200}|Remote end closed[^'\")]{0,200}|"
        r"certificate [^'\")]{1,200}",
        text,
    )
    reason = found[0] if found else type(error).__name__
    proxied = isinstance(error, requests.exceptions.ProxyError)
    return f"the proxy that the environment names (HTTP_PROXY and others): {reason}" if proxied else reason
