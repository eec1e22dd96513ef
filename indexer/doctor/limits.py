"""How much an endpoint answers at once: calls in a batch, blocks and logs in a request."""

from typing import Any

from indexer.chain.blocks import quantity
from indexer.chain.client import LARGEST_BATCH, Chain
from indexer.chain.errors import BadAnswerError, BatchTooBigError, UnsupportedError
from indexer.config import ChainConfig
from indexer.doctor.finding import Finding, Verdict
from indexer.errors import ChainError, PrunedError, RetryableError
from indexer.logs.ranges import range_cap
from indexer.model import Block

#: block ranges of one eth_getLogs that are tried, the largest first
RANGES = (100_000, 10_000, 5_000, 2_000, 1_000, 500, 100, 50, 10, 5, 1)
#: up to so many blocks in a request, a first sync takes very many requests
NARROW = 500
#: blocks whose logs are asked for without a filter
ALL_OF = 10
#: an address without logs
NOBODY = "0x00000000000000000000000000000000c0ffee02"


def batches(chain: Chain, _: ChainConfig, _at: Block) -> Finding:
    """How many calls one request takes."""
    size = LARGEST_BATCH
    while size > 1:
        try:
            answers = chain.in_use.send_batch([("eth_blockNumber", [])] * size)
            whole = all(not isinstance(answer, Exception) and quantity(answer) for answer in answers)
        except BatchTooBigError as error:
            size = error.most if error.most is not None and error.most < size else size // 2
            continue
        except UnsupportedError:
            break
        except (ChainError, RetryableError, TypeError, ValueError):
            whole = False
        if whole:
            more = " at least" if size == LARGEST_BATCH else ""
            return Finding("", Verdict.OK, f"{size} calls in one request{more}", value=size)
        size //= 2
    text = "no batches of calls: each call is a request of its own, so that a sync takes longer"
    return Finding("", Verdict.WARNING, text, value=1)


def _list(raw: Any) -> list[Any]:
    if not isinstance(raw, list):
        raise BadAnswerError("eth_getLogs: the answer is no list")
    return raw


def log_range(chain: Chain, config: ChainConfig, at: Block) -> Finding:
    """The widest range of blocks that one eth_getLogs takes, up to the most that a sync asks for."""
    refusal, tried = "", list(RANGES)
    while tried:
        span = tried.pop(0)
        if span > at.number + 1:
            continue
        asked = {"fromBlock": hex(at.number - span + 1), "toBlock": hex(at.number), "address": [NOBODY]}
        try:
            chain.request("eth_getLogs", [asked], _list, splittable=True)
        except PrunedError:
            refusal = refusal or "older logs are pruned"
            continue
        except (ChainError, RetryableError) as error:
            named = range_cap(str(error))
            refusal = str(error)
            if named is not None and 0 < named < span:
                tried = sorted({named, *(one for one in tried if one < named)}, reverse=True)
            continue
        return _range_finding(config, span, refusal)
    return Finding("", Verdict.ERROR, f"serves no logs: {refusal or 'of any block'}", value=0)


def _range_finding(config: ChainConfig, span: int, refusal: str) -> Finding:
    if config.max_log_range is not None and config.max_log_range > span and refusal:
        text = f"`max_log_range = {config.max_log_range}` is configured, but {span:,} blocks are the most"
        return Finding("", Verdict.WARNING, text, value=span)
    if refusal and span <= NARROW:
        text = f"logs of {span:,} blocks at most in a request: the first sync takes very many"
        return Finding("", Verdict.WARNING, text, value=span)
    return Finding("", Verdict.OK, f"logs of {span:,} blocks in one request", value=span)


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
