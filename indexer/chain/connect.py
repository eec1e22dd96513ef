"""From the configuration to a chain and its adapters."""

import logging
import math
import time
from collections import Counter
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
#: how often it must be said that there is no contract, how often all endpoints are asked, and the seconds between
CODE_SIGHTS, CODE_LOOKS, CODE_PAUSE = 2, 5, 1.0


def connect(
    config: Config,
    chain: ChainConfig,
    rpc_urls: Sequence[str] = (),
    *,
    max_requests_per_second: float | None = None,
    spread: bool = False,
    timeout: float = math.inf,
    deadline: float = math.inf,
    on_retry: Callable[[str, float], None] | None = None,
) -> Chain:
    """Connects to the chain through its endpoints, one of which must answer. Close it after use.

    An endpoint that may be of another chain (ETH_RPC_URL) is asked for its chain id first: if it fits it is the only one
    used, else the public ones are. `timeout` shortens the chain's own; nothing is asked past `deadline` (monotonic).
    Raises `ConfigError` without endpoints, `ChainError` if none works.
    """

    def behind(urls: Sequence[str], attempts: int = 7) -> Chain:
        return unchecked(
            chain,
            urls,
            max_requests_per_second=max_requests_per_second,
            timeout=timeout,
            attempts=attempts,
            spread=spread or all(url in public for url in urls),
            deadline=deadline,
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
        found.reach()
    except WrongChainError:
        raise
    except ChainError as error:
        raise ChainError(
            f"{error}; is the node running? Name another with --rpc-url or {chain.variable}, or try again later"
        ) from None
    return found


def unchecked(
    config: ChainConfig,
    urls: Sequence[str],
    *,
    max_requests_per_second: float | None = None,
    timeout: float = math.inf,
    attempts: int = 7,
    spread: bool = False,
    deadline: float = math.inf,
    on_retry: Callable[[str, float], None] | None = None,
) -> Chain:
    """The chain as configured behind these URLs, none of which has been asked anything."""
    return Chain(
        config.name,
        config.chain_id,
        urls,
        config.multicall3,
        max_requests_per_second=max_requests_per_second or config.max_requests_per_second,
        guard=config.guard,
        bloom=config.bloom,
        max_log_range=config.max_log_range,
        wrapped_native=config.wrapped_native,
        timeout=min(config.timeout_seconds, timeout),
        attempts=attempts,
        spread=spread or config.spread,
        deadline=deadline,
        on_retry=on_retry,
    )


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
    addresses = list(dict.fromkeys(deployment.addresses[key] for deployment, key in wanted))
    without = _without_code(chain, addresses)
    for deployment, key in wanted:
        if deployment.addresses[key] in without:
            raise NoCodeError(
                f"no contract at {key} {deployment.addresses[key]} of deployment {deployment.name} on {chain.name}: "
                "check the address and the chain; nothing was changed"
            )


def _without_code(chain: Chain, addresses: Sequence[str]) -> set[str]:
    """Those that hold no contract, by several answers that know one at Multicall3, and by each endpoint.

    A node that has not executed its newest block yet, or has lost its state, knows no contract at all (erigontech/erigon
    18912), which proves nothing. ChainError where there is no better answer.
    """
    left, denied, knows = set(addresses), Counter[str](), False
    for look in range(CODE_LOOKS):
        for endpoint in chain.in_turn():
            if not left:
                return left
            asked = [*sorted(left), chain.multicall3]
            try:
                with chain.behind(endpoint, rounds=CHECK_ROUNDS) as alone:
                    codes = alone.batch([("eth_getCode", [address, "latest"]) for address in asked])
            except ChainError as error:
                log.info("%s does not say what is deployed: %s", endpoint.masked, error)
                continue
            found = {address for address, code in zip(asked, codes, strict=True) if code not in ("0x", "")}
            left -= found
            denied.update(left if chain.multicall3 in found else ())
            knows |= chain.multicall3 in found
        if all(denied[address] >= CODE_SIGHTS for address in left):
            return left
        if look + 1 < CODE_LOOKS:
            time.sleep(CODE_PAUSE)
    if knows:
        raise ChainError(
            f"{chain.name}: whether there is a contract at {', '.join(sorted(left))} is not certain, as too few answers know "
            "what is deployed at all: try again later, or name another --rpc-url; nothing was changed"
        )
    raise ChainError(
        f"{chain.name}: {chain.endpoint} answers as if nothing were deployed, not even Multicall3 at {chain.multicall3}: check "
        "the chain; if it is right, the node has not executed its newest block yet: try again later, or name another "
        "--rpc-url; nothing was changed"
    )
