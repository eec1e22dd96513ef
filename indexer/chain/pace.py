"""How fast a chain's blocks come: measured, as block times are no data and change with the chain."""

import logging

from indexer.chain.client import Chain
from indexer.errors import ChainError
from indexer.model import Block

log = logging.getLogger(__name__)

#: the spans in blocks over which it is measured, the longest first that the chain is long enough for
SPANS = (10_000, 256, 128)


def seconds_per_block(chain: Chain, head: Block) -> float | None:
    """How long a block took on average up to `head`; None on a chain too short to say, or one that stands still."""
    for span in SPANS:
        if span > head.number:
            continue
        try:
            began = chain.block(head.number - span)
        except ChainError as error:  # headers so old may be pruned
            log.info("the pace of %s over %d blocks is not known: %s", chain.name, span, error)
            continue
        return (head.timestamp - began.timestamp) / span or None
    return None
