"""From the configuration to a chain and its adapters."""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from indexer.adapter import AnyAdapter
from indexer.chain.client import CHECK_ROUNDS, Chain
from indexer.chain.pace import seconds_per_block
from indexer.config import PUBLIC, ChainConfig, Config
from indexer.errors import ChainError, NoCodeError, WrongChainError
from indexer.model import Deployment
from indexer.plugins import adapter_class

log = logging.getLogger(__name__)

#: the option of a deployment that overrides what is measured
PACE = "seconds_per_block"


def connect(
    config: Config,
    chain: ChainConfig,
    rpc_urls: Sequence[str] = (),
    *,
    max_requests_per_second: float | None = None,
    spread: bool = False,
    on_retry: Callable[[str, float], None] | None = None,
) -> Chain:
    """Connects to the chain through its endpoints, one of which must answer. Close it after use.

    An endpoint that may be of another chain (ETH_RPC_URL) is asked for its chain id first: if it fits it is the only one
    used, else the public ones are. Raises `ConfigError` without endpoints, `ChainError` if none works.
    """

    def behind(urls: Sequence[str], attempts: int = 7) -> Chain:
        return Chain(
            chain.name,
            chain.chain_id,
            urls,
            chain.multicall3,
            max_requests_per_second=max_requests_per_second or chain.max_requests_per_second,
            guard=chain.guard,
            bloom=chain.bloom,
            max_log_range=chain.max_log_range,
            timeout=chain.timeout_seconds,
            attempts=attempts,
            spread=spread or chain.spread or all(url in public for url in urls),
            on_retry=on_retry,
        )

    endpoints = config.endpoints(chain, rpc_urls)
    public = {endpoint.url for endpoint in endpoints if endpoint.source == PUBLIC}
    named = [endpoint.url for endpoint in endpoints if endpoint.must_fit]
    for endpoint in endpoints if named else []:
        if endpoint.must_fit:
            continue
        candidate = behind([endpoint.url], attempts=2)
        try:
            candidate.check()
        except WrongChainError as error:
            log.warning("%s is not used: %s", endpoint.source, error)
        except ChainError as error:
            log.warning("%s is not used: %s", endpoint.source, error)
        else:
            return candidate
        candidate.close()
    found = behind(named or [endpoint.url for endpoint in endpoints])
    try:  # so that a node that is down is reported before anything is opened for writing
        found.request("eth_chainId", [], rounds=CHECK_ROUNDS)
    except WrongChainError:
        raise
    except ChainError as error:
        raise ChainError(
            f"{error}; is the node running? Name another with --rpc-url or {chain.variable}, or try again later"
        ) from None
    return found


def adapters(chain: Chain, deployments: Iterable[Deployment]) -> list[AnyAdapter]:
    """One adapter a deployment; the pace of the chain's blocks is measured for those that make use of it."""
    found = [(adapter_class(deployment.protocol), deployment) for deployment in deployments]
    paced = [kind for kind, deployment in found if PACE in kind.options and PACE not in deployment.options]
    pace = seconds_per_block(chain, chain.block("latest")) if paced else None
    return [kind(replace(deployment, seconds_per_block=pace)) for kind, deployment in found]


def require_contracts(chain: Chain, found: Iterable[AnyAdapter], known: Collection[str]) -> None:
    """Refuses, before anything is written, a deployment without a contract at an address that it needs.

    Deployments in `known` were synced before: the sync reports their failures beside the others. Raises `NoCodeError`.
    """
    wanted = [
        (adapter.deployment, key)
        for adapter in found
        if adapter.deployment.name not in known
        for key in adapter.required_addresses
    ]
    codes = chain.batch([("eth_getCode", [deployment.addresses[key], "latest"]) for deployment, key in wanted])
    for (deployment, key), code in zip(wanted, codes, strict=True):
        if code in ("0x", ""):
            raise NoCodeError(
                f"no contract at {key} {deployment.addresses[key]} of deployment {deployment.name} on {chain.name}: "
                "check the address and the chain; nothing was changed"
            )
