"""One endpoint, examined: every check in turn, each with one finding, whatever the endpoint answers."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from indexer.chain.client import Chain
from indexer.chain.endpoint import Endpoint
from indexer.config import ChainConfig
from indexer.doctor import limits, logs, states
from indexer.doctor.finding import Finding, Verdict
from indexer.errors import ChainError, RetryableError, WrongChainError
from indexer.model import Block

#: name -> check; each gets the chain behind the one endpoint, its configuration, and a recent block
CHECKS: dict[str, Callable[[Chain, ChainConfig, Block], Finding]] = {
    "clock": states.clock,
    "state": states.depth,
    "block by hash": states.by_hash,
    "guard": states.guard,
    "overrides": states.overrides,
    "gas": states.gas,
    "blake2f": states.blake2f,
    "finality": states.finality,
    "batches": limits.batches,
    "log range": limits.log_range,
    "all logs": limits.all_logs,
    "logs by hash": logs.by_block_hash,
    "receipts": logs.receipts,
    "bloom": logs.bloom,
}
#: blocks below the head at which an endpoint is examined, so that each of its backends knows them
BELOW = 3


def examine(chain: Chain, config: ChainConfig, endpoint: Endpoint) -> list[Finding]:
    """What every check finds at one endpoint of the chain; the first alone where it cannot be reached."""
    with chain.behind(endpoint, rounds=2) as alone:
        found = [_reached(alone, config)]
        if found[0].verdict is Verdict.OK:
            found += _checked(alone, config)
    return [replace(finding, chain=config.name, endpoint=endpoint.masked) for finding in found]


def usable(findings: Sequence[Finding]) -> bool:
    """Whether a sync works with an endpoint of which this was found."""
    return all(finding.verdict is not Verdict.ERROR for finding in findings)


def _reached(alone: Chain, config: ChainConfig) -> Finding:
    try:
        alone.request("eth_chainId", [])
    except WrongChainError as error:
        return Finding("chain id", Verdict.ERROR, str(error), value=False)
    except (ChainError, RetryableError) as error:
        return Finding("chain id", Verdict.ERROR, f"does not answer: {error}", value=None)
    return Finding("chain id", Verdict.OK, f"it is {config.chain_id}", value=config.chain_id)


def _checked(alone: Chain, config: ChainConfig) -> list[Finding]:
    try:
        head = alone.block("latest")
        at = alone.block(max(head.number - BELOW, 0))
    except (ChainError, RetryableError) as error:
        return [Finding("head", Verdict.ERROR, f"serves no blocks: {error}")]
    found = [Finding("head", Verdict.OK, f"block {head.number:,}", value=head.number)]
    for name, check in CHECKS.items():
        try:
            found.append(replace(check(alone, config, at), check=name))
        except (ChainError, RetryableError) as error:
            found.append(Finding(name, Verdict.WARNING, f"could not be found out: {error}"))
    return found
