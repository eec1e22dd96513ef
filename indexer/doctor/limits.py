"""How much an endpoint answers at once: calls in a batch, blocks and logs in a request."""

from typing import Any

from indexer.chain.blocks import check_header
from indexer.chain.client import LARGEST_BATCH, Chain
from indexer.chain.errors import BadAnswerError, BatchTooBigError, UnsupportedError
from indexer.config import ChainConfig
from indexer.doctor.finding import Finding, Verdict
from indexer.errors import ChainError, PrunedError, RetryableError
from indexer.logs.windows import range_cap
from indexer.model import Block

#: block ranges of one eth_getLogs that are tried, the largest first
RANGES = (100_000, 10_000, 5_000, 2_000, 1_000, 500, 100, 50, 10, 5, 1)
#: up to so many blocks in a request, a first sync takes very many requests
NARROW = 500
#: blocks whose logs are asked for without a filter
ALL_OF = 10
#: an address without logs
NOBODY = "0x00000000000000000000000000000000c0ffee02"


def batches(chain: Chain, _: ChainConfig, at: Block) -> Finding:
    """How many calls one request takes; each answer must be that to its own call."""
    size = LARGEST_BATCH
    while size > 1:
        numbers = [max(at.number - i, 0) for i in range(size)]
        calls = [("eth_getBlockByNumber", [hex(number), False]) for number in numbers]
        try:
            answers = chain.in_use.send_batch(calls)
            for number, answer in zip(numbers, answers, strict=True):
                if isinstance(answer, Exception):
                    raise answer
                check_header(answer, number)
        except BatchTooBigError as error:
            size = error.most if error.most is not None and error.most < size else size // 2
        except UnsupportedError:
            break
        except (ChainError, RetryableError):
            size //= 2
        else:
            more = " at least" if size == LARGEST_BATCH else " at most"
            return Finding("", Verdict.OK, f"{size} calls in one request{more}", value=size)
    text = "no batches of calls: each call is a request of its own, so that a sync takes longer"
    return Finding("", Verdict.WARNING, text, value=1)


def _list(raw: Any) -> list[Any]:
    if not isinstance(raw, list):
        raise BadAnswerError("eth_getLogs: the answer is no list")
    return raw


def log_range(chain: Chain, config: ChainConfig, at: Block) -> Finding:
    """The widest range of blocks that one eth_getLogs takes, up to the most that a sync asks for.

    `value` is None where nothing narrower than that was refused.
    """
    refusal, pruned = "", False
    tried = [span for span in RANGES if span <= at.number + 1]
    while tried:
        span = tried.pop(0)
        asked = {"fromBlock": hex(at.number - span + 1), "toBlock": hex(at.number), "address": [NOBODY]}
        try:
            logs = chain.request("eth_getLogs", [asked], _list, splittable=True)
        except PrunedError:
            pruned = True
        except (ChainError, RetryableError) as error:
            refusal, named = str(error), range_cap(str(error))
            if named is not None and 0 < named < span:
                tried = sorted({named, *(one for one in tried if one < named)}, reverse=True)
        else:
            if logs:
                text = (
                    "ignores the filter of eth_getLogs: all logs are sent, and those that are wanted picked from them"
                )
                return Finding("", Verdict.WARNING, text, value=span if refusal else None)
            return _range_finding(config, span, refusal=refusal, pruned=pruned)
    return Finding("", Verdict.ERROR, f"serves no logs: {refusal or 'those of every block are pruned'}", value=0)


def _range_finding(config: ChainConfig, span: int, *, refusal: str, pruned: bool) -> Finding:
    if pruned:
        text = (
            f"older logs are pruned: it has those of the last {span:,} blocks; a first sync needs an endpoint with all"
        )
        return Finding("", Verdict.WARNING, text)
    if not refusal:
        return Finding("", Verdict.OK, f"logs of {span:,} blocks in one request at least")
    if config.max_log_range is not None and config.max_log_range > span:
        text = f"`max_log_range = {config.max_log_range}` is configured, but {span:,} blocks are the most"
        return Finding("", Verdict.WARNING, text, value=span)
    if span <= NARROW:
        text = f"logs of {span:,} blocks at most in a request: the first sync takes very many"
        return Finding("", Verdict.WARNING, text, value=span)
    return Finding("", Verdict.OK, f"logs of {span:,} blocks in one request at most", value=span)


def all_logs(chain: Chain, _: ChainConfig, at: Block) -> Finding:
    """How many logs come when all of a few blocks are asked for."""
    first = max(at.number - ALL_OF + 1, 0)
    try:
        logs = chain.request(
            "eth_getLogs", [{"fromBlock": hex(first), "toBlock": hex(at.number)}], _list, splittable=True
        )
    except (ChainError, RetryableError) as error:
        text = f"all logs of {at.number - first + 1} blocks are refused, so that omissions are harder to see: {error}"
        return Finding("", Verdict.WARNING, text)
    return Finding("", Verdict.OK, f"{len(logs):,} logs of {at.number - first + 1} blocks at once", value=len(logs))
