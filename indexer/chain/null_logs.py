"""Nodes that answer eth_getLogs with null for "no logs"; from others null means that they do not know the block."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from indexer.chain.endpoint import Endpoint
from indexer.errors import ChainError, RetryableError

logger = logging.getLogger(__name__)

#: an address that emits nothing: its logs are none in every block
NOBODY = "0x" + "00" * 19 + "d1"
#: nulls for its logs, without a single [], after which an endpoint's null counts as "none"
NULLS_FOR_NONE = 8


def logs_or_null(endpoint: Endpoint, wanted: Mapping[str, Any], result: Any, count: Callable[[], None]) -> Any:
    """An endpoint's answer to eth_getLogs, with [] for a null that means "none"; `count` counts each further request.

    Whether it means that is asked once: a node whose null means "none" answers so for logs that nobody can have emitted, in
    a block that it knows. However many nulls came where there may be logs, they prove nothing.
    """
    if result == [] or getattr(result, "none", False):
        endpoint.null_logs = -1
    if result is not None or endpoint.null_logs < 0:
        return result
    which = str(wanted.get("blockHash") or wanted.get("toBlock"))
    try:
        count()
        known = endpoint.send("eth_getBlockByHash" if len(which) == 66 else "eth_getBlockByNumber", [which, False])
        if not isinstance(known, dict):
            return None
        block = {"blockHash": which} if len(which) == 66 else {"fromBlock": which, "toBlock": which}
        while 0 <= endpoint.null_logs < NULLS_FOR_NONE:
            count()
            none = endpoint.send("eth_getLogs", [{**block, "address": NOBODY}])
            endpoint.null_logs = endpoint.null_logs + 1 if none is None else -1
            if endpoint.null_logs == NULLS_FOR_NONE:
                logger.info("%s answers eth_getLogs with null where there are none", endpoint.masked)
    except (RetryableError, ChainError):
        return None
    return [] if endpoint.null_logs == NULLS_FOR_NONE else None
