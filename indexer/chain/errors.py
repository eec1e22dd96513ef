"""What a failed JSON-RPC request means and what to do next: the error classes and the one table of texts and codes.

RetryableError          ask again, here or elsewhere
├── RateLimitedError    the endpoint asks for patience (`retry_after` seconds, if it says)
├── UnreachableError    no connection
│   └── BrokenOffError  it was cut without an answer; a smaller request may do
├── TimedOutError       no answer in time; a smaller request may do
├── BadAnswerError      not the JSON-RPC answer to what was asked, or a server error
│   ├── OtherBlockError logs of another block than the one asked for
│   └── OversizedError  more bytes than the answer can need; a smaller request may do
└── UnknownBlockError   the endpoint does not know that block (yet, or no longer)
ChainError
├── PrunedError         not here, another endpoint may have it
│   └── StatelessError  it answers with its newest state, whichever block is named
├── UnsupportedError    not here, another endpoint may do it
├── DeniedError         refused for good: key, plan, no such service
├── RejectedError       refused for good: invalid parameters
│   └── UnclearError    an error in unknown words; asked again a few times, and elsewhere, before it is final
├── TooBigError         the caller has to ask for less
│   ├── BatchTooBigError  fewer calls in one batch
│   └── CutShortError   as many logs as an answer may have been cut off at
└── RevertError         the contract itself reverted an eth_call
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from indexer.errors import ChainError, PrunedError, RetryableError

T = TypeVar("T")


class RateLimitedError(RetryableError):
    """The endpoint wants fewer requests; `retry_after` in seconds, None if it does not say."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnreachableError(RetryableError):
    """No connection to the endpoint."""


class BrokenOffError(UnreachableError):
    """The connection was cut without an answer, as some proxies do when a request takes too long."""


class TimedOutError(RetryableError):
    """No complete answer within the time-out."""


class BadAnswerError(RetryableError):
    """Not a valid answer to what was asked, or a server error."""


class ServerFailedError(BadAnswerError):
    """An error of the server by HTTP, which says nothing of what was asked."""


class OversizedError(BadAnswerError):
    """More bytes than the answer can need; a smaller request may do."""


class OtherBlockError(BadAnswerError):
    """Logs of another block than the one asked for by its hash."""


class UnknownBlockError(RetryableError):
    """The endpoint does not know the block that the request names."""


class StatelessError(PrunedError):
    """The endpoint answers with its newest state, whichever block is named (hyperliquid-dex/node 158)."""


class UnsupportedError(ChainError):
    """The endpoint lacks that method or feature."""


class DeniedError(ChainError):
    """The endpoint serves us nothing: key, plan, or no JSON-RPC service there."""


class RejectedError(ChainError):
    """The endpoint refuses this request for good: invalid parameters, or a limit in unknown words."""


class UnclearError(RejectedError):
    """An error in unknown words: it may pass, so it is asked again a few times, and elsewhere, before it is final."""


class TooBigError(ChainError):
    """More than the endpoint answers in one request: range, results, response size, gas or time."""


class BatchTooBigError(TooBigError):
    """More calls in one JSON-RPC batch than the endpoint accepts; `most` is the limit it names, None if it names none."""

    def __init__(self, message: str, most: int | None = None) -> None:
        super().__init__(message)
        self.most = most


class CutShortError(TooBigError):
    """So many logs that the provider may have cut the answer off there."""


class RevertError(ChainError):
    """An eth_call that the contract reverted, with its revert data."""

    def __init__(self, message: str, data: bytes = b"") -> None:
        super().__init__(message)
        self.data = data


# The one table of what JSON-RPC errors mean. The first rule whose text is in the message or data (lower case) decides,
# else the first whose codes include the error's. The texts are those of geth, erigon, nethermind, besu, reth, anvil and
# the hosted providers; tests/chain/test_rpc.py lists them.
_RULES: Sequence[tuple[str, frozenset[int], tuple[str, ...]]] = (
    (
        "denied",
        frozenset(),
        (
            r"unauthorized|unauthenticated|forbidden|access denied|not allowed to access",
            r"(invalid|missing|unknown|wrong|no) (api|project|access|auth)[ -]?(key|id|token)|api key (is )?(required|not)",
            r"must (be )?authenticate|authentication (is )?(required|failed)",
            r"account (is |has been )?(suspended|disabled)|monthly (capacity|quota)|payment required|billing",
        ),
    ),
    (
        "batch",
        frozenset(),
        (r"\bbatch(es|ed|ing)?\b",),
    ),
    (
        "rate",
        frozenset({429, -32029, -32097}),
        (
            r"too many requests",
            r"rate.?(limit|exceeded)",
            r"requests? (is |are )?limit(?!ed to (an? )?[\d,.]+ ?k? blocks?)",
            r"compute units|cu limit|credits? (quota|limit|exceeded)",
            r"throughput|throttl|over.?capacity|capacity (limit|exceeded)|under too much load",
            r"(exceeded|reached) (the|your) (quota|free tier|rate|usage|request)|quota (exceeded|reached)",
            r"daily request count|calls per sec|requests? per (second|minute|day)",
        ),
    ),
    (
        "unknown",
        frozenset(),
        (
            r"header (for hash )?not found|unknown (block|header)|block (hash )?not found|block .{0,80}\bnot found",
            r"(cannot|could not|can't) find (the )?(block|header)|no (such )?block (with|by|found)",
            r"beyond (the )?(current |latest )?(executed )?(head|tip|block)|block .{0,80}\b(does not|doesn't) (yet )?exist",
            r"not (currently )?canonical|after last accepted block|future block|unfinalized|not yet available",
            r"blockoutofrange|block ?height is \d+ but|(greater|higher) than (the )?(latest|current|head)",
            r"resource not found|invalid block (hash|height)|still syncing|block is out of range",
            r"invalid block range params|blocks? specified .{0,80}cannot be found|not (yet )?executed",
            r"^\W*(0x)?[0-9a-f]{1,64}\W* could not be found|does not have the requested block",
        ),
    ),
    (
        "pruned",
        frozenset({4444}),
        (
            r"missing trie node|pruned|pruning|purged|archiv|expired history|history expiry|history (is )?unavailable",
            r"historical state|state histories|state[ _](is |was )?(not (available|found)|unavailable|already discarded)",
            r"no state (available|data|found)|state .{0,120}is not available|failed to load state|unexpected state root",
            r"old data not available|maximum proof window|metadata is not found|no historical rpc",
            r"receipts? (are |is )?(not available|unavailable|missing)|no (receipts|tx|block) data|missing (block|receipt)",
            r"(earliest|lowest|oldest) (available|height)|body not found|failed to get logs for block",
            r"height is not available|cannot be older than",
        ),
    ),
    (
        "unsupported",
        frozenset({-32004}),
        (
            r"method (is )?not (found|available|supported|allowed|whitelisted|enabled)|unsupported method",
            r"method .{0,60}(does not exist|is disabled|not supported|not found|unavailable|not available)",
            r"does not support|not included in your (current )?plan|too many arguments|overrides? (is |are )?not supported",
            r"cannot unmarshal object|invalid type: map|expected (a )?string",
        ),
    ),
    (
        "slow",
        frozenset({408, 504}),
        (r"timed? ?out|timeout|deadline exceeded|time.?limit|execution aborted",),
    ),
    (
        "size",
        frozenset({413}),
        (
            r"block range|blocks? range|ranges? over|range (is )?(too|limit|exceed|over|\d+ exceed|\d+ is bigger)|exceeds? the range",
            r"max(imum)? (allowed )?(block |blocks |log |rpc )?(range|distance)|blocks? distance|number of requested blocks",
            r"limited to|limit the query|at most [\d,.]+ ?k? ?blocks|too many (blocks|logs|results|addresses|topics|params)",
            r"more than [\d,.]+ ?k? (results|logs|blocks|events)|returned more than|logs matched|logs requested",
            r"exceed(s|ed)? (the )?max|exceed(s|ed)? (the )?(defined |configured )?limit|exceed(s|ed)? .{0,40}response",
            r"query (exceeds|limit|must be smaller)|too large|too big|too wide|bigger than",
            r"(log )?response (size|exceed)|smaller than size|result (set|size)|max(imum)? (results|logs|response)|log limit",
            r"less (number of )?address|specify (an|less) address|max addresses|addresses? (count|limit)|max topics",
            r"narrow|reduce (the |your )?(range|block)|smaller (range|block|chunk)|max batch|batch (size|limit|too|of more)",
            r"entity too large|content.?length|max(imum)? (message|request|body|call ?data) size",
            r"out of gas|outofgas|oog\b|gas (required|limit|too low|cap|uint64|allowance)|intrinsic gas|block gas|memory limit",
        ),
    ),
    (
        "revert",
        frozenset({3}),
        (
            r"revert|vm exception|vm execution error|execution error|evm error|invalid ?(fe)? ?opcode|opcodenotfound",
            r"bad (instruction|jump)|invalid ?jump|stack ?(under|over)flow|callnotallowed|write protection",
        ),
    ),
    (
        "server",
        frozenset(
            {
                -32603,
                -32000,
                -32002,
                -32005,
                -32010,
                -32011,
                -32013,
                -32016,
                -32098,
                -32099,
                12,
                19,
                500,
                502,
                503,
                504,
            }
        ),
        (
            r"internal|temporar|at this time|try again|retry|unavailable|overload|healthy|bad gateway|syncing|cannot fulfill",
            r"backend (is )?offline|no backends?\b|backend returned|route your request|upstream",
        ),
    ),
)
_HEIGHTS = re.compile(r"block ?height is (\d+) but requested was (\d+)")
#: advice that many providers end with ("upgrade at https://.../billing") says nothing about the error
_LINK = re.compile(r"https?://\S{1,4096}")
_COMPILED = tuple((kind, codes, re.compile("|".join(texts))) for kind, codes, texts in _RULES)


def classify(code: int, text: str) -> str:
    """What an error with that code and text means: a kind of the table; if none fits, `rejected` for the codes by which
    JSON-RPC refuses a request, else `unclear`.

    A bare -32005 ("limit exceeded") may be a rate limit or a result limit: it is tried again, then asked for less.
    """
    low = _LINK.sub("", text.lower())
    if code == 3 or low.startswith("execution reverted"):
        return "revert"  # the rest is the contract's own text
    heights = _HEIGHTS.search(low)
    if heights and int(heights[2]) <= int(heights[1]):
        return "pruned"  # anvil says the same of a state it has dropped and of a block yet to come
    found = next((kind for kind, _, pattern in _COMPILED if pattern.search(low)), None)
    if code == -32601 and found not in {"denied", "rate"}:
        return "unsupported"  # then "not found" and "not available" refer to the method
    return found or next((kind for kind, codes, _ in _COMPILED if code in codes), _unknown(code))


def _unknown(code: int) -> str:
    return "rejected" if code in {-32600, -32602, -32700} else "unclear"


def most_in_batch(text: str, asked: int) -> int | None:
    """The batch size that a refusal of `asked` calls allows; None if it names no smaller number."""
    numbers = [int(number) for number in re.findall(r"\d{1,6}", _LINK.sub("", text))]
    return max((number for number in numbers if 0 < number < asked), default=None)


EXCEPTIONS: dict[str, type[RetryableError] | type[ChainError]] = {
    "unknown": UnknownBlockError,
    "pruned": PrunedError,
    "unsupported": UnsupportedError,
    "denied": DeniedError,
    "slow": TimedOutError,
    "size": TooBigError,
    "server": BadAnswerError,
    "rejected": RejectedError,
    "unclear": UnclearError,
}


def read_by(parse: Callable[..., T], *answer: Any) -> T:
    """Parses an answer. Any exception over a value in it means that the endpoint gave a bad answer."""
    try:
        return parse(*answer)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise BadAnswerError(f"an answer that cannot be read ({type(error).__name__}: {str(error)[:100]})") from error


def revert_data(data: Any) -> bytes:
    """Revert data of an error object: a hex string, possibly behind "Reverted ", or an object that carries one."""
    if isinstance(data, dict):
        data = next((data[key] for key in ("data", "result", "output") if isinstance(data.get(key), str)), None)
    if not isinstance(data, str):
        return b""
    found = re.search(r"0x((?:[0-9a-fA-F]{2})*)", data)
    return bytes.fromhex(found[1]) if found else b""
