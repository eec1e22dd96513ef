"""In which block a contract was created: found by bisection over eth_getCode, and believed only with evidence.

A node without old state may answer "no code" instead of an error, so that its window of states looks like a creation. A block
counts only if, at the same endpoint, a contract known to be older still has code in the block before, and the block shows
the creation itself: a receipt that names the contract as created, or an event that a constructor emits. Any other log
proves nothing.
"""

import logging
from collections.abc import Sequence
from typing import Any

from indexer.abi import topic
from indexer.chain.blocks import parse_hex
from indexer.chain.client import Chain
from indexer.chain.errors import BadAnswerError
from indexer.errors import ChainError
from indexer.model import Block

logger = logging.getLogger(__name__)

#: of the constructors of proxies (ERC-1967) and, from nobody, of Ownable
UPGRADED = topic("Upgraded(address)")
OWNED = topic("OwnershipTransferred(address,address)")
NOBODY = "0x" + "00" * 32
RECEIPTS = "eth_getBlockReceipts"


def first_block(chain: Chain, addresses: Sequence[str], head: Block, known: int = 0) -> int | None:
    """The block up to `head` that created the first of these contracts, below `known` unless that is 0.

    None if it was not below `known`, or where no endpoint proves it: one needs the state of that time.
    """
    for endpoint in chain.in_turn():
        with chain.behind(endpoint, rounds=2) as alone:
            try:
                found = _first_block(alone, addresses, known - 1 if known else head.number)
            except ChainError as error:
                logger.info("%s does not tell when %s was created: %s", endpoint.masked, addresses[0], error)
                continue
        if found is not None:
            return found
    return None


def _first_block(alone: Chain, addresses: Sequence[str], last: int) -> int | None:
    if not _exists(alone, addresses, last):
        return None
    before, found = -1, last  # none of them in `before`, some in `found`
    while found - before > 1:
        middle = (before + found) // 2
        if _exists(alone, addresses, middle):
            found = middle
        else:
            before = middle
    if found == 0:
        return 0
    if not _exists(alone, alone.older, before):
        logger.info("%s has no state of block %d, so that nothing created then is known", alone.endpoint, before)
        return None
    if not _shows_creation(alone, {address.lower() for address in addresses}, found):
        logger.info("block %d of %s does not show that %s was created", found, alone.name, addresses[0])
        return None
    return found


def _exists(alone: Chain, addresses: Sequence[str], number: int) -> bool:
    """Whether any of these contracts has code in that block."""
    codes = alone.batch(
        [("eth_getCode", [address, hex(number)]) for address in addresses], lambda raw, _: parse_hex(raw)
    )
    return any(codes)


def _shows_creation(alone: Chain, addresses: set[str], number: int) -> bool:
    wanted = {
        "fromBlock": hex(number),
        "toBlock": hex(number),
        "address": sorted(addresses),
        "topics": [[UPGRADED, OWNED]],
    }
    logs = alone.request("eth_getLogs", [wanted], _list)
    if any(_by_constructor(log, addresses, number) for log in logs):
        return True
    receipts = alone.request(RECEIPTS, [hex(number)], _list, feature=RECEIPTS)
    return any(str(receipt.get("contractAddress")).lower() in addresses for receipt in receipts)


def _list(raw: Any) -> list[dict[str, Any]]:
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        raise BadAnswerError("the answer is no list of objects")
    return raw


def _by_constructor(log: dict[str, Any], addresses: set[str], number: int) -> bool:
    topics = log.get("topics")
    if str(log.get("address")).lower() not in addresses or log.get("blockNumber") != hex(number):
        return False
    if not isinstance(topics, list) or not topics:
        return False
    return topics[0] == UPGRADED or (topics[0] == OWNED and topics[1:2] == [NOBODY])
