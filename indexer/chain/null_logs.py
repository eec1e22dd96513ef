"""Nodes that answer eth_getLogs with null for "no logs"; from others null means that they do not know the block."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from indexer.chain.endpoint import Endpoint
from indexer.errors import ChainError, RetryableError

logger = logging.getLogger(__name__)

#: nulls for blocks that an endpoint knows, without a single [], after which its null counts as "none"
NULLS_FOR_NONE = 4


def logs_or_null(endpoint: Endpoint, wanted: Mapping[str, Any], result: Any, count: Callable[[], None]) -> Any:
    """An endpoint's answer to eth_getLogs, with [] for a null that means "none"; `count` counts a further request.

    A node whose null means "none" never answers [], answers null repeatedly, and knows the block.
    """
    if result == [] or getattr(result, "result", None) == []:
        endpoint.null_logs = -1
    if result is not None or endpoint.null_logs < 0:
        return result
    which = str(wanted.get("blockHash") or wanted.get("toBlock"))
    try:
        count()
        known = endpoint.send("eth_getBlockByHash" if len(which) == 66 else "eth_getBlockByNumber", [which, False])
    except (RetryableError, ChainError):
        known = None
    if not isinstance(known, dict):
        return None
    endpoint.null_logs += 1
    if endpoint.null_logs == NULLS_FOR_NONE:
        logger.info("%s answers eth_getLogs with null where there are none", endpoint.masked)
    return [] if endpoint.null_logs >= NULLS_FOR_NONE else None
