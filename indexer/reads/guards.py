"""How an aggregate proves of which block its answers are: what is asked beside them, and what the block's header says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from indexer.model import Block
from indexer.settings import Guard

#: the precompile of Arbitrum chains that knows their own block numbers (docs.arbitrum.io, "Block numbers and time")
ARBSYS = "0x0000000000000000000000000000000000000064"


@dataclass(frozen=True, slots=True)
class Check:
    """One call of a guard: to Multicall3 unless it names another target, and the word that the pinned block implies."""

    calldata: bytes
    implied: Callable[[Block], bytes]
    target: str | None = None


TIMESTAMP = Check(bytes.fromhex("0f28c97d"), lambda block: block.timestamp.to_bytes(32))  # getCurrentBlockTimestamp()
PARENT = Check(bytes.fromhex("27e86d6e"), lambda block: bytes.fromhex(block.parent_hash[2:]))  # getLastBlockHash()
NUMBER = Check(bytes.fromhex("42cbb15c"), lambda block: block.number.to_bytes(32))  # getBlockNumber()
ARB_NUMBER = Check(bytes.fromhex("a3b1b31d"), lambda block: block.number.to_bytes(32), ARBSYS)  # arbBlockNumber()

#: guard -> its checks, the strictest guard first; the timestamp always comes first
GUARDS: Mapping[Guard, Sequence[Check]] = {
    "full": (TIMESTAMP, PARENT),
    "number": (TIMESTAMP, NUMBER),
    "arbsys": (TIMESTAMP, ARB_NUMBER),
    "timestamp": (TIMESTAMP,),
    "none": (),
}
